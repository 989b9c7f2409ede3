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

func forwardVport(f *fragment, o object) {
	m := flow.NewMatch(inDomain(o), inSubnet(o), flow.EqMAC(flow.EthDst, mac(o.vport)))
	next := flow.Goto{Table: TableSourceGroups}
	switch {
	case o.port != 0:
		f.add(TableForwarder, 100, m, set(flow.Eq(regOutput, uint64(o.port))), next)
	case o.vtep.IsValid():
		f.add(TableForwarder, 100, m.And(fromTunnel(0)), set(toVTEP(o)), next)
	default:
		f.drop(DropRemote, m.And(fromTunnel(0)))
	}
}
