package pipeline

import "nuage/ovs/flow"

// Only a whole echo is answered: the switch computes the checksum of what it changes over
// the fragment that it sees, so that an answer in fragments would be thrown away.
func gatewaySubnet(f *fragment, o object) {
	f.add(TableGateway, 100,
		flow.NewMatch(isIPv4(), isProto(flow.ProtoICMP), flow.Masked(flow.IPFrag, 0, 3), inDomain(o), toGatewayMAC(),
			v4(flow.IPv4Dst, o.subnet.Gateway), flow.Eq(flow.ICMPType, 8), flow.Eq(flow.ICMPCode, 0)),
		move(flow.EthSrc, flow.EthDst), set(flow.EqMAC(flow.EthSrc, gatewayMAC)),
		move(flow.IPv4Src, flow.IPv4Dst), set(v4(flow.IPv4Src, o.subnet.Gateway)),
		set(flow.Eq(flow.ICMPType, 0)), set(flow.Eq(flow.IPTTL, 64)),
		flow.Output{Port: flow.PortInPort})
	f.drop(DropToGateway, flow.NewMatch(isIPv4(), inDomain(o), v4(flow.IPv4Dst, o.subnet.Gateway)))
}
