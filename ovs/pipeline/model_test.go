package pipeline

import (
	"fmt"
	"net/netip"
	"time"

	"nuage/controller/tenant"
)

const (
	thisHost  = "host-1"
	otherHost = "host-2"
)

// tunnelPort is the number of the tunnel port on every bridge.
const tunnelPort = 1000

// world builds a tenant state by hand. IDs are names.
type world struct {
	state *tenant.State
	ports map[string]uint32 // of this host
	far   map[string]uint32 // of the other host
	made  int
}

// newWorld has two hosts.
func newWorld() *world {
	w := &world{state: tenant.NewState(), ports: map[string]uint32{}, far: map[string]uint32{}}
	w.host(thisHost, "192.0.2.1")
	w.host(otherHost, "192.0.2.2")
	return w
}

func (w *world) input() Input {
	return Input{State: w.state, Host: thisHost, Ports: w.ports, Tunnel: tunnelPort}
}

// otherInput is the same world seen from the other host.
func (w *world) otherInput() Input {
	return Input{State: w.state, Host: otherHost, Ports: w.far, Tunnel: tunnelPort}
}

func (w *world) host(name, vtep string) *tenant.Host {
	h := &tenant.Host{Meta: w.meta(name), Name: name, VTEP: netip.MustParseAddr(vtep), MTU: 1500}
	w.put(tenant.KindHost, name, h)
	return h
}

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

// vport attaches to this host by port number; 0 puts it on the other host.
func (w *world) vport(id, subnet, addr string, port uint32) *tenant.Vport {
	v := &tenant.Vport{Meta: w.meta(id), Name: id, SubnetID: subnet, IPv4: netip.MustParseAddr(addr),
		MAC: tenant.MAC{2, 0, 0, 0, byte(w.made >> 8), byte(w.made)}, Host: otherHost}
	if sn := w.state.Subnets[subnet]; sn != nil {
		v.DomainID = sn.DomainID
	}
	if port != 0 {
		v.Host, v.Interface = thisHost, fmt.Sprintf("nu%d", port)
		w.ports[v.Interface] = port
	} else {
		v.Interface = fmt.Sprintf("nf%d", w.made)
		w.far[v.Interface] = uint32(10 + len(w.far))
	}
	w.put(tenant.KindVport, id, v)
	return v
}

// portOf is the number of a vport's port, on whichever host it is.
func (w *world) portOf(v *tenant.Vport) uint32 {
	if v.Host == thisHost {
		return w.ports[v.Interface]
	}
	return w.far[v.Interface]
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
