package pipeline

import (
	"fmt"
	"net/netip"
	"slices"
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
	w.put(tenant.KindDomain, id, &tenant.Domain{Meta: w.meta(id), EnterpriseID: "e", Name: id, Number: number, VNI: uint32(number)})
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

// zone makes a zone and puts subnets into it.
func (w *world) zone(id, domain string, number uint16, subnets ...string) {
	w.put(tenant.KindZone, id, &tenant.Zone{Meta: w.meta(id), Name: id, DomainID: domain, Number: number})
	for _, sn := range subnets {
		sub := *w.state.Subnets[sn]
		sub.ZoneID = id
		w.put(tenant.KindSubnet, sn, &sub)
	}
}

// group makes a policy group of the domain's and has vports name it.
func (w *world) group(id, domain string, number uint16, vports ...string) {
	w.put(tenant.KindPolicyGroup, id, &tenant.PolicyGroup{Meta: w.meta(id), Name: id, DomainID: domain, Number: number})
	for _, v := range vports {
		w.join(v, id)
	}
}

// join has a vport name a group.
func (w *world) join(vport, group string) {
	v := *w.state.Vports[vport]
	v.PolicyGroups = append(slices.Clip(v.PolicyGroups), group)
	w.put(tenant.KindVport, vport, &v)
}

func (w *world) macro(id, cidr string) {
	w.put(tenant.KindNetworkMacro, id, &tenant.NetworkMacro{Meta: w.meta(id), EnterpriseID: "e", Name: id, CIDR: netip.MustParsePrefix(cidr)})
}

// policy makes an active policy.
func (w *world) policy(id, domain string, d tenant.Direction, priority uint32) *tenant.Policy {
	p := &tenant.Policy{Meta: w.meta(id), Name: id, DomainID: domain, Direction: d, Priority: priority, Active: true,
		Number: uint16(len(w.state.Policies) + 1)}
	w.put(tenant.KindPolicy, id, p)
	return p
}

// entry adds an entry to a policy: any to any, of any protocol, unless e says otherwise.
func (w *world) entry(policy string, priority uint32, action tenant.Action, e tenant.Entry) tenant.Key {
	id := fmt.Sprintf("%s/%d", policy, priority)
	e.Meta, e.PolicyID, e.DomainID, e.Priority, e.Action = w.meta(id), policy, w.state.Policies[policy].DomainID, priority, action
	if e.Protocol == 0 {
		e.Protocol = tenant.AnyProtocol
	}
	for _, side := range []*tenant.Side{&e.From, &e.To} {
		if side.Kind == "" {
			side.Kind = tenant.SideAny
		}
	}
	w.put(tenant.KindEntry, id, &e)
	return tenant.Key{Kind: tenant.KindEntry, ID: id}
}

func (w *world) limiter(id string, on tenant.Key, domain string, d tenant.Direction, rate uint64) {
	w.put(tenant.KindRateLimiter, id, &tenant.RateLimiter{Meta: w.meta(id), DomainID: domain, On: on, Direction: d, Rate: rate})
}

// policed is twoTenants with policies, of all kinds, in the first of them.
func policed() *world {
	w := twoTenants()
	w.zone("app1/front", "app1", 7, "app1/web")
	w.zone("app1/back", "app1", 300, "app1/db")
	w.group("web", "app1", 1, "app1/web-1", "app1/web-far")
	w.group("db", "app1", 128, "app1/db-1", "app1/db-far")
	w.macro("corp", "10.0.0.0/15")
	side := func(k tenant.SideKind, id string) tenant.Side { return tenant.Side{Kind: k, ID: id} }
	w.policy("out", "app1", tenant.Ingress, 1000).DefaultAllowIP = true
	w.entry("out", 5, tenant.Reject, tenant.Entry{Protocol: tenant.TCP, DestinationPort: tenant.PortRange{From: 25, To: 25},
		To: side(tenant.SideNetworkMacro, "corp"), FlowLogging: true})
	w.entry("out", 40_000, tenant.Deny, tenant.Entry{From: side(tenant.SideSameZone, ""), To: side(tenant.SideZone, "app1/back")})
	w.policy("in", "app1", tenant.Egress, 1000)
	w.entry("in", 10, tenant.Forward, tenant.Entry{Protocol: tenant.TCP, DestinationPort: tenant.PortRange{From: 5432, To: 5439},
		From: side(tenant.SidePolicyGroup, "web"), To: side(tenant.SidePolicyGroup, "db"), Stateful: true, StatsLogging: true})
	w.entry("in", 20, tenant.Forward, tenant.Entry{Protocol: tenant.ICMP, ICMPType: tenant.SomeByte(8), Stateful: true, FlowLogging: true})
	w.entry("in", 30, tenant.Forward, tenant.Entry{Protocol: tenant.SCTP, To: side(tenant.SideSameSubnet, "")})
	w.entry("in", tenant.MaxPriority, tenant.Deny, tenant.Entry{From: side(tenant.SideSameDomain, ""), FlowLogging: true})
	w.limiter("l1", tenant.Key{Kind: tenant.KindZone, ID: "app1/front"}, "app1", tenant.Ingress, 10_000_000)
	w.limiter("l2", tenant.Key{Kind: tenant.KindVport, ID: "app1/db-1"}, "app1", tenant.Egress, 20_000_000)
	return w
}
