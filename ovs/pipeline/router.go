package pipeline

import (
	"nuage/controller/tenant"
	"nuage/ovs/flow"
)

func routeDomain(f *fragment, o object) {
	routed := flow.NewMatch(isIPv4(), inDomain(o), toGatewayMAC())
	f.drop(DropTTL0, routed.And(flow.Eq(flow.IPTTL, 0)))
	f.dropAloud(DropTTL1, routed.And(flow.Eq(flow.IPTTL, 1)), Expired)
	f.drop(DropOutside, flow.NewMatch(inDomain(o), toGatewayMAC()))
}

func routeSubnet(f *fragment, o object) {
	f.drop(DropUnknownAddress, flow.NewMatch(isIPv4(), inDomain(o), toGatewayMAC(), flow.InPrefix(flow.IPv4Dst, o.subnet.CIDR)))
}

func routeVport(f *fragment, o object) {
	for _, a := range addresses(o) {
		f.add(TableRouter, 200, flow.NewMatch(isIPv4(), inDomain(o), toGatewayMAC(), v4(flow.IPv4Dst, a.IPv4)),
			set(flow.EqMAC(flow.EthSrc, gatewayMAC)), set(flow.EqMAC(flow.EthDst, flow.MAC(a.MAC))),
			flow.DecTTL{}, set(inSubnet(o)), flow.Goto{Table: TableForwarder})
	}
}

// addresses are what a vport receives for, its own address first, each with its MAC.
func addresses(o object) []tenant.VirtualIP {
	return append([]tenant.VirtualIP{{IPv4: o.vport.IPv4, MAC: o.vport.MAC}}, o.virtual...)
}
