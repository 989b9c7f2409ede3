package pipeline

import "nuage/ovs/flow"

// What came out of a tunnel is delivered here or nowhere: two hosts that disagree about
// where a vport is must not play ball with a packet.
func forwardDomain(f *fragment, o object) {
	group := flow.MaskedMAC(flow.EthDst, flow.MAC{1}, flow.MAC{1})
	f.drop(DropBroadcast, flow.NewMatch(inDomain(o), group))
	f.drop(DropNotHere, flow.NewMatch(inDomain(o), fromTunnel(1)))
	f.drop(DropUnknownMAC, flow.NewMatch(inDomain(o)))
}

// A neighbour may still know an address by the MAC of whoever had it before: a container
// that was restarted, a vport that has moved. Nobody tells it, so a MAC that the subnet
// does not have is no obstacle: the address decides.
func forwardVport(f *fragment, o object) {
	here := flow.NewMatch(inDomain(o), inSubnet(o))
	m := here.And(flow.EqMAC(flow.EthDst, mac(o.vport)))
	stale := here.And(isIPv4(), fromTunnel(0), v4(flow.IPv4Dst, o.vport.IPv4))
	next := flow.Goto{Table: TableSourceGroups}
	switch {
	case o.port != 0:
		out := set(flow.Eq(regOutput, uint64(o.port)))
		f.add(TableForwarder, 100, m, out, next)
		f.add(TableForwarder, 50, stale, set(flow.EqMAC(flow.EthDst, mac(o.vport))), out, next)
	case o.vtep.IsValid():
		f.add(TableForwarder, 100, m.And(fromTunnel(0)), set(toVTEP(o)), next)
		f.add(TableForwarder, 50, stale, set(flow.EqMAC(flow.EthDst, mac(o.vport))), set(toVTEP(o)), next)
	default:
		f.drop(DropRemote, m.And(fromTunnel(0)))
	}
}
