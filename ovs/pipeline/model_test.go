package pipeline

import (
	"fmt"
	"net/netip"
	"time"

	"nuage/controller/tenant"
)

const thisHost = "host-1"

// world builds a tenant state by hand. IDs are names.
type world struct {
	state *tenant.State
	ports map[string]uint32
	made  int
}

func newWorld() *world {
	return &world{state: tenant.NewState(), ports: map[string]uint32{}}
}

func (w *world) input() Input { return Input{State: w.state, Host: thisHost, Ports: w.ports} }

func (w *world) meta(id string) tenant.Meta {
	w.made++
	return tenant.Meta{ID: id, Created: time.Unix(int64(w.made), 0)}
}

func (w *world) domain(id string, number uint16) {
	w.put(tenant.KindDomain, id, &tenant.Domain{Meta: w.meta(id), Name: id, Number: number, VNI: uint32(number)})
}

func (w *world) subnet(id, domain, cidr string, vni uint32) {
	p := netip.MustParsePrefix(cidr)
	w.put(tenant.KindSubnet, id, &tenant.Subnet{Meta: w.meta(id), Name: id, DomainID: domain, CIDR: p,
		Gateway: p.Addr().Next(), VNI: vni})
}

// vport attaches to this host by port number; 0 puts it on another host.
func (w *world) vport(id, subnet, addr string, port uint32) *tenant.Vport {
	v := &tenant.Vport{Meta: w.meta(id), Name: id, SubnetID: subnet, IPv4: netip.MustParseAddr(addr),
		MAC: tenant.MAC{2, 0, 0, 0, byte(w.made >> 8), byte(w.made)}, Host: "host-2"}
	if sn := w.state.Subnets[subnet]; sn != nil {
		v.DomainID = sn.DomainID
	}
	if port != 0 {
		v.Host, v.Interface = thisHost, fmt.Sprintf("nu%d", port)
		w.ports[v.Interface] = port
	}
	w.put(tenant.KindVport, id, v)
	return v
}

func (w *world) put(kind tenant.Kind, id string, value any) {
	w.state.Apply(tenant.Change{Key: tenant.Key{Kind: kind, ID: id}, Value: value})
}

// twoTenants is two domains with the same addresses: two subnets each, with two local
// vports and one on another host in each subnet.
func twoTenants() *world {
	w := newWorld()
	port := uint32(10)
	for i, d := range []string{"app1", "other"} {
		w.domain(d, uint16(i+1))
		for j, sn := range []string{"web", "db"} {
			w.subnet(d+"/"+sn, d, fmt.Sprintf("10.0.%d.0/24", j+1), uint32(1000*(i+1)+j))
			for k := range 2 {
				w.vport(fmt.Sprintf("%s/%s-%d", d, sn, k+1), d+"/"+sn, fmt.Sprintf("10.0.%d.%d", j+1, k+11), port)
				port++
			}
			w.vport(fmt.Sprintf("%s/%s-far", d, sn), d+"/"+sn, fmt.Sprintf("10.0.%d.99", j+1), 0)
		}
	}
	return w
}
