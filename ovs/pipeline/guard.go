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
	if o.vport.AddressSpoofing {
		f.add(TableGuard, 100, flow.NewMatch(isARP(), fromPort(o)), flow.Goto{Table: TableARP})
		f.add(TableGuard, 100, flow.NewMatch(isIPv4(), fromPort(o)), flow.Goto{Table: TableGateway})
	} else {
		guardAddresses(f, o)
	}
	f.drop(DropDHCPServer, flow.NewMatch(isIPv4(), fromPort(o), isProto(flow.ProtoUDP), flow.Eq(flow.UDPSrc, 67), flow.Eq(flow.UDPDst, 68)))
	dhcpVport(f, o, own)
	f.drop(DropSpoofedARP, flow.NewMatch(isARP(), fromPort(o)))
	f.drop(DropSpoofedIP, flow.NewMatch(isIPv4(), fromPort(o)))
	f.drop(DropOtherProtocol, flow.NewMatch(fromPort(o)))
}

// A vport may send from its virtual IPs whether or not it is the one that receives for them:
// of those that name one, the one that has it now is for them to agree upon.
func guardAddresses(f *fragment, o object) {
	probes := map[flow.MAC]bool{}
	from := func(hw flow.MAC, a netip.Addr) {
		own := flow.EqMAC(flow.EthSrc, hw)
		arp := flow.NewMatch(isARP(), fromPort(o), own, flow.EqMAC(flow.ARPSHA, hw))
		f.add(TableGuard, 100, arp.And(v4(flow.ARPSPA, a)), flow.Goto{Table: TableARP})
		if !probes[hw] {
			f.add(TableGuard, 100, arp.And(flow.Eq(flow.ARPOp, arpAsk), v4(flow.ARPSPA, netip.IPv4Unspecified())), flow.Goto{Table: TableARP})
			probes[hw] = true
		}
		f.add(TableGuard, 100, flow.NewMatch(isIPv4(), fromPort(o), own, v4(flow.IPv4Src, a)), flow.Goto{Table: TableGateway})
	}
	from(mac(o.vport), o.vport.IPv4)
	for _, vip := range o.vport.Virtual() {
		from(flow.MAC(vip.MAC), vip.IPv4)
	}
}

// What a vport asks of DHCP goes to the agent whole, wherever it is sent: no other server
// could answer. The port has told who asks, so that all of it but the MAC and the address
// is for the agent to judge.
func dhcpVport(f *fragment, o object, own flow.FieldMatch) {
	ask := flow.NewMatch(isIPv4(), fromPort(o), own, isProto(flow.ProtoUDP), flow.Masked(flow.IPFrag, 0, 3),
		flow.Eq(flow.UDPSrc, 68), flow.Eq(flow.UDPDst, 67))
	for _, from := range []netip.Addr{o.vport.IPv4, netip.IPv4Unspecified()} {
		f.dropAsking(DropDHCPClient, ask.And(v4(flow.IPv4Src, from)), DHCP, wholePacket)
	}
}
