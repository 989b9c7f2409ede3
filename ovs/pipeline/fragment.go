package pipeline

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"

	"nuage/controller/tenant"
	"nuage/ovs/flow"
)

// kindSwitch owns the flows that belong to no tenant object.
const kindSwitch tenant.Kind = "switch"

// SwitchKey owns the flows that every bridge has.
var SwitchKey = tenant.Key{Kind: kindSwitch}

// Cookie is the cookie of all flows of an object: a stable hash of its kind and ID, never
// 0 and never all ones, which OpenFlow keeps for itself. Two objects with one cookie are
// found by the Compiler, and the later one gets no flows.
func Cookie(k tenant.Key) uint64 {
	sum := sha256.Sum256([]byte(string(k.Kind) + "/" + k.ID))
	c := binary.BigEndian.Uint64(sum[:8])
	if c == 0 || c == ^uint64(0) {
		return 1
	}
	return c
}

// object is what a stage sees: the vport with its subnet and domain, a subnet or a zone with
// its domain, an entry with its policy and domain, a policy with its domain, a domain,
// another host, or nothing (the switch). The fields in use have been checked.
type object struct {
	domain *tenant.Domain
	subnet *tenant.Subnet
	vport  *tenant.Vport
	policy *tenant.Policy
	rule   *rule
	// chains are what a domain's policies are asked, by direction; nil if none is active.
	chains map[tenant.Direction]chain
	// rules is whether it is the policy's default that decides what no entry does.
	rules bool
	// zone is the number of the zone: itself, or the subnet's; 0 if it has none.
	zone uint16
	// groups are the policy groups of the vport.
	groups groupBits
	// virtual are the further addresses of the vport that are its own to receive for.
	virtual []tenant.VirtualIP
	// sends and receives limit a vport that is here.
	sends, receives Limit
	// shaping is whether its port limits what it receives.
	shaping bool
	// port is the vport's port number here; 0 for a vport on another host.
	port uint32
	// vtep is the tunnel address of another host, or of the host of a vport that is not
	// here; not valid where there is no way to it.
	vtep netip.Addr
	// mtu is the largest IPv4 packet of a vport that reaches the other host; 0 if unknown.
	mtu int
	// tunnel is the number of the tunnel port; 0 if there is none.
	tunnel uint32
}

// live is whether there is anything to have flows.
func (o object) live() bool { return o.domain != nil || o.vtep.IsValid() }

// fragment collects the flows of one object.
type fragment struct {
	cookie uint64
	meter  uint32 // the meter of what goes to the agent; 0 for the switch's own
	flows  []flow.Flow
}

func (f *fragment) add(t flow.Table, priority uint16, m flow.Match, actions ...flow.Action) {
	f.flows = append(f.flows, flow.Flow{Table: t, Priority: priority, Cookie: f.cookie, Match: m, Actions: actions})
}

func (f *fragment) drop(d Drop, m flow.Match) { f.add(d.Table, d.Priority, m) }

// dropAloud drops and shows the headers to the agent, which answers with an ICMP error.
func (f *fragment) dropAloud(d Drop, m flow.Match, userData string) {
	f.dropAsking(d, m, userData, headerBytes)
}

// dropAsking drops and shows that many bytes to the agent.
func (f *fragment) dropAsking(d Drop, m flow.Match, userData string, bytes uint16) {
	f.add(d.Table, d.Priority, m, f.show(userData, bytes))
}

// show is the action that shows that many bytes to the agent.
func (f *fragment) show(userData string, bytes uint16) flow.Action {
	return flow.Controller{MaxLen: bytes, Meter: f.meter, UserData: userData}
}

// What the user data of a packet that goes to the agent begins with.
const (
	// TooLarge: the way to the receiver's host is too narrow for the packet; two bytes
	// follow, the MTU of that way.
	TooLarge = "mtu"
	// Expired: the ttl ran out.
	Expired = "ttl"
	// Reject: a policy refuses the packet and its sender is to be told.
	Reject = "reject"
	// Log: the first packet of a connection that the entry that has the flow's cookie decides;
	// its way goes on without the agent.
	Log = "log"
	// DHCP: what a client asks a DHCP server; the packet is whole.
	DHCP = "dhcp"
)

// headerBytes of a packet are enough for the agent: Ethernet, the longest IPv4 header and
// the 8 bytes behind it.
const (
	ethernetHeader = 14
	headerBytes    = ethernetHeader + 60 + 8
	// rejectedBytes show a whole TCP header without options as well, which a reset answers.
	rejectedBytes = ethernetHeader + 60 + 20
	wholePacket   = 65535
)

func missDrop(d Drop) func(*fragment, object) {
	return func(f *fragment, _ object) { f.drop(d, flow.NewMatch()) }
}

func missGoto(from, to flow.Table) func(*fragment, object) {
	return func(f *fragment, _ object) { f.add(from, 0, flow.NewMatch(), flow.Goto{Table: to}) }
}

// ARP operations.
const (
	arpAsk    = 1
	arpAnswer = 2
)

func isIPv4() flow.FieldMatch           { return flow.Eq(flow.EthType, flow.EthIPv4) }
func isARP() flow.FieldMatch            { return flow.Eq(flow.EthType, flow.EthARP) }
func isProto(p uint64) flow.FieldMatch  { return flow.Eq(flow.IPProto, p) }
func toGatewayMAC() flow.FieldMatch     { return flow.EqMAC(flow.EthDst, gatewayMAC) }
func inDomain(o object) flow.FieldMatch { return flow.Eq(regDomain, uint64(o.domain.Number)) }
func inSubnet(o object) flow.FieldMatch { return flow.Eq(regSubnet, uint64(o.subnet.VNI)) }
func fromPort(o object) flow.FieldMatch { return flow.Eq(flow.InPort, uint64(o.port)) }
func set(m flow.FieldMatch) flow.Action { return flow.SetField{FieldMatch: m} }
func move(from, to flow.Field) flow.Action {
	return flow.Move{Src: flow.Whole(from), Dst: flow.Whole(to)}
}
func mac(v *tenant.Vport) flow.MAC                  { return flow.MAC(v.MAC) }
func v4(f flow.Field, a netip.Addr) flow.FieldMatch { return flow.EqIP(f, a) }

// gatewayMAC is the router's address in every subnet.
var gatewayMAC = flow.MAC(tenant.GatewayMAC)
