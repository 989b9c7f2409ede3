package pipeline

import "nuage/ovs/flow"

// Later fragments of an echo carry no ICMP header: turning their addresses round is all
// they need.
func gatewaySubnet(f *fragment, o object) {
	echo := flow.NewMatch(isIPv4(), isProto(flow.ProtoICMP), inDomain(o), toGatewayMAC(), v4(flow.IPv4Dst, o.subnet.Gateway))
	back := func(last ...flow.Action) []flow.Action {
		return append([]flow.Action{
			move(flow.EthSrc, flow.EthDst), set(flow.EqMAC(flow.EthSrc, gatewayMAC)),
			move(flow.IPv4Src, flow.IPv4Dst), set(v4(flow.IPv4Src, o.subnet.Gateway)),
			set(flow.Eq(flow.IPTTL, 64)),
		}, last...)
	}
	out := flow.Output{Port: flow.PortInPort}
	f.add(TableGateway, 100, echo.And(flow.Eq(flow.ICMPType, 8), flow.Eq(flow.ICMPCode, 0)), back(set(flow.Eq(flow.ICMPType, 0)), out)...)
	f.add(TableGateway, 100, echo.And(flow.Masked(flow.IPFrag, 3, 3)), back(out)...)
	f.drop(DropToGateway, flow.NewMatch(isIPv4(), inDomain(o), v4(flow.IPv4Dst, o.subnet.Gateway)))
}
