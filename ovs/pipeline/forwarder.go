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
// does not have is no obstacle: the address decides. The MAC of a virtual IP is no vport's
// own, so that it is the address that finds it, too.
func forwardVport(f *fragment, o object) {
	here := flow.NewMatch(inDomain(o), inSubnet(o))
	m := here.And(flow.EqMAC(flow.EthDst, mac(o.vport)))
	var to flow.Action
	switch {
	case o.port != 0:
		to = set(flow.Eq(regOutput, uint64(o.port)))
	case o.vtep.IsValid():
		to, m = set(toVTEP(o)), m.And(fromTunnel(0))
	default:
		f.drop(DropRemote, m.And(fromTunnel(0)))
		for _, vip := range o.virtual {
			if vip.MAC != o.vport.MAC {
				f.drop(DropRemote, here.And(isIPv4(), fromTunnel(0), flow.EqMAC(flow.EthDst, flow.MAC(vip.MAC)), v4(flow.IPv4Dst, vip.IPv4)))
			}
		}
		return
	}
	next := flow.Goto{Table: TableConntrack}
	f.add(TableForwarder, 100, m, to, next)
	for _, a := range addresses(o) {
		known := flow.EqMAC(flow.EthDst, flow.MAC(a.MAC))
		addressed := here.And(isIPv4(), v4(flow.IPv4Dst, a.IPv4))
		f.add(TableForwarder, 50, addressed.And(fromTunnel(0)), set(known), to, next)
		if o.port != 0 && a.MAC != o.vport.MAC {
			f.add(TableForwarder, 95, addressed.And(fromTunnel(1), known), to, next)
		}
	}
}
