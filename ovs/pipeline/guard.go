package pipeline

import (
	"net/netip"

	"nuage/ovs/flow"
)

// What a vport may send is listed; all else from its port is dropped and counted by kind,
// so that an IPv6 stack's chatter does not look like an attack.
func guardVport(f *fragment, o object) {
	if o.port == 0 {
		return
	}
	own := flow.EqMAC(flow.EthSrc, mac(o.vport))
	arp := flow.NewMatch(isARP(), fromPort(o), own, flow.EqMAC(flow.ARPSHA, mac(o.vport)))
	f.add(TableGuard, 100, arp.And(v4(flow.ARPSPA, o.vport.IPv4)), flow.Goto{Table: TableARP})
	f.add(TableGuard, 100, arp.And(flow.Eq(flow.ARPOp, arpAsk), v4(flow.ARPSPA, netip.IPv4Unspecified())), flow.Goto{Table: TableARP})
	f.add(TableGuard, 100, flow.NewMatch(isIPv4(), fromPort(o), own, v4(flow.IPv4Src, o.vport.IPv4)), flow.Goto{Table: TableGateway})

	f.drop(DropDHCPServer, flow.NewMatch(isIPv4(), fromPort(o), isProto(flow.ProtoUDP), flow.Eq(flow.UDPSrc, 67), flow.Eq(flow.UDPDst, 68)))
	f.drop(DropSpoofedARP, flow.NewMatch(isARP(), fromPort(o)))
	f.drop(DropSpoofedIP, flow.NewMatch(isIPv4(), fromPort(o)))
	f.drop(DropOtherProtocol, flow.NewMatch(fromPort(o)))
}
