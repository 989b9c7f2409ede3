package pipeline

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"nuage/controller/tenant"
)

var (
	broadcast = tenant.MAC{255, 255, 255, 255, 255, 255}
	stranger  = tenant.MAC{2, 9, 9, 9, 9, 9}
)

func ping(from *tenant.Vport, to tenant.MAC, dst string) tenant.Packet {
	return tenant.Packet{EthSrc: from.MAC, EthDst: to, EtherType: tenant.EtherIPv4, Src: from.IPv4,
		Dst: netip.MustParseAddr(dst), Protocol: tenant.ProtocolICMP, ICMPType: 8, TTL: 64}
}

func whoHas(from *tenant.Vport, dst string) tenant.Packet {
	return tenant.Packet{EthSrc: from.MAC, EthDst: broadcast, EtherType: tenant.EtherARP, Op: 1, SHA: from.MAC,
		Src: from.IPv4, Dst: netip.MustParseAddr(dst)}
}

func TestPackets(t *testing.T) {
	w := twoTenants()
	l := newLab(t)
	l.load(t, w)
	v := func(id string) *tenant.Vport { return w.state.Vports[id] }
	me, gw := v("app1/web-1"), tenant.GatewayMAC
	with := func(p tenant.Packet, f func(*tenant.Packet)) tenant.Packet { f(&p); return p }
	deliver := func(id string, src tenant.MAC, ttl uint8) tenant.Outcome {
		return tenant.Outcome{Decision: tenant.Delivered, To: id, EthSrc: src, TTL: ttl}
	}
	drop := func(r tenant.Reason) tenant.Outcome {
		return tenant.Outcome{Decision: tenant.Dropped, Reason: r}
	}
	for _, c := range []struct {
		name string
		p    tenant.Packet
		want tenant.Outcome
	}{
		{"same subnet", ping(me, v("app1/web-2").MAC, "10.0.1.12"), deliver("app1/web-2", me.MAC, 64)},
		{"same subnet through the gateway", ping(me, gw, "10.0.1.12"), deliver("app1/web-2", gw, 63)},
		{"other subnet", ping(me, gw, "10.0.2.11"), deliver("app1/db-1", gw, 63)},
		{"same subnet, other host", ping(me, v("app1/web-far").MAC, "10.0.1.99"), deliver("app1/web-far", me.MAC, 64)},
		{"other subnet, other host", ping(me, gw, "10.0.2.99"), deliver("app1/db-far", gw, 63)},
		{"other tenant's MAC on another host", ping(me, v("other/web-far").MAC, "10.0.1.200"), drop(tenant.ReasonUnknownMAC)},
		{"this host's VTEP", ping(me, gw, "192.0.2.1"), drop(tenant.ReasonOutside)},
		{"another host's VTEP", ping(me, gw, "192.0.2.2"), drop(tenant.ReasonOutside)},
		{"another host's VTEP, as a tunnel would", with(ping(me, gw, "192.0.2.2"), func(p *tenant.Packet) { p.Protocol, p.ICMPType, p.SrcPort, p.DstPort = 17, 0, 40000, 4789 }), drop(tenant.ReasonOutside)},
		{"other subnet, directly", ping(me, v("app1/db-1").MAC, "10.0.2.11"), drop(tenant.ReasonUnknownMAC)},
		{"other tenant's MAC", ping(me, v("other/web-2").MAC, "10.0.1.200"), drop(tenant.ReasonUnknownMAC)},
		{"MAC of whoever had the address before", ping(me, tenant.MAC{2, 9, 9, 9, 9, 9}, "10.0.1.12"), deliver("app1/web-2", me.MAC, 64)},
		{"nobody's MAC, address of another subnet", ping(me, tenant.MAC{2, 9, 9, 9, 9, 9}, "10.0.2.11"), drop(tenant.ReasonUnknownMAC)},
		{"gateway", ping(me, gw, "10.0.1.1"), tenant.Outcome{Decision: tenant.Answered, EthSrc: gw, TTL: 64}},
		{"other gateway", ping(me, gw, "10.0.2.1"), tenant.Outcome{Decision: tenant.Answered, EthSrc: gw, TTL: 64}},
		{"gateway, not echo", with(ping(me, gw, "10.0.1.1"), func(p *tenant.Packet) { p.ICMPType = 0 }), drop(tenant.ReasonToGateway)},
		{"gateway, TCP", with(ping(me, gw, "10.0.1.1"), func(p *tenant.Packet) { p.Protocol = 6; p.ICMPType = 0; p.DstPort = 22 }), drop(tenant.ReasonToGateway)},
		{"nobody's address", ping(me, gw, "10.0.2.77"), drop(tenant.ReasonUnknownAddress)},
		{"outside", ping(me, gw, "8.8.8.8"), drop(tenant.ReasonOutside)},
		{"link-local outside", ping(me, gw, "169.254.169.254"), drop(tenant.ReasonOutside)},
		{"itself through the gateway", ping(me, gw, "10.0.1.11"), drop(tenant.ReasonHairpin)},
		{"ttl 1", with(ping(me, gw, "10.0.2.11"), func(p *tenant.Packet) { p.TTL = 1 }), drop(tenant.ReasonTTL1)},
		{"ttl 1 in the subnet", with(ping(me, v("app1/web-2").MAC, "10.0.1.12"), func(p *tenant.Packet) { p.TTL = 1 }), deliver("app1/web-2", me.MAC, 1)},
		{"broadcast", ping(me, broadcast, "10.0.1.255"), drop(tenant.ReasonBroadcast)},
		{"multicast", ping(me, tenant.MAC{1, 0, 0x5e, 0, 0, 251}, "224.0.0.251"), drop(tenant.ReasonBroadcast)},
		{"spoofed MAC", with(ping(me, gw, "10.0.2.11"), func(p *tenant.Packet) { p.EthSrc = stranger }), drop(tenant.ReasonSpoofedIP)},
		{"spoofed address", with(ping(me, gw, "10.0.2.11"), func(p *tenant.Packet) { p.Src = v("app1/web-2").IPv4 }), drop(tenant.ReasonSpoofedIP)},
		{"tagged", with(ping(me, v("app1/web-2").MAC, "10.0.1.12"), func(p *tenant.Packet) { p.Tagged = true }), drop(tenant.ReasonTagged)},
		{"IPv6", tenant.Packet{EthSrc: me.MAC, EthDst: tenant.MAC{0x33, 0x33, 0, 0, 0, 2}, EtherType: 0x86dd}, drop(tenant.ReasonOtherProtocol)},
		{"DHCP server", with(ping(me, broadcast, "255.255.255.255"), func(p *tenant.Packet) { p.Protocol, p.SrcPort, p.DstPort = 17, 67, 68 }), drop(tenant.ReasonDHCPServer)},
		{"DHCP client", with(ping(me, broadcast, "255.255.255.255"), func(p *tenant.Packet) {
			p.Protocol, p.SrcPort, p.DstPort, p.Src = 17, 68, 67, netip.IPv4Unspecified()
		}), drop(tenant.ReasonDHCPClient)},
		{"DHCP client that renews", with(ping(me, gw, "10.0.1.1"), func(p *tenant.Packet) { p.Protocol, p.SrcPort, p.DstPort = 17, 68, 67 }), drop(tenant.ReasonDHCPClient)},
		{"DHCP client with another's address", with(ping(me, broadcast, "255.255.255.255"), func(p *tenant.Packet) {
			p.Protocol, p.SrcPort, p.DstPort, p.Src = 17, 68, 67, v("app1/web-2").IPv4
		}), drop(tenant.ReasonSpoofedIP)},
		{"DHCP client with another's MAC", with(ping(me, broadcast, "255.255.255.255"), func(p *tenant.Packet) {
			p.Protocol, p.SrcPort, p.DstPort, p.Src, p.EthSrc = 17, 68, 67, netip.IPv4Unspecified(), stranger
		}), drop(tenant.ReasonSpoofedIP)},
		{"ARP gateway", whoHas(me, "10.0.1.1"), tenant.Outcome{Decision: tenant.Answered, EthSrc: gw}},
		{"ARP neighbour", whoHas(me, "10.0.1.12"), tenant.Outcome{Decision: tenant.Answered, EthSrc: v("app1/web-2").MAC}},
		{"ARP neighbour on another host", whoHas(me, "10.0.1.99"), tenant.Outcome{Decision: tenant.Answered, EthSrc: v("app1/web-far").MAC}},
		{"ARP other subnet", whoHas(me, "10.0.2.11"), drop(tenant.ReasonUnknownARP)},
		{"ARP nobody", whoHas(me, "10.0.1.77"), drop(tenant.ReasonUnknownARP)},
		{"ARP own address", whoHas(me, "10.0.1.11"), drop(tenant.ReasonOwnAddress)},
		{"ARP probe of the own address", with(whoHas(me, "10.0.1.11"), func(p *tenant.Packet) { p.Src = netip.IPv4Unspecified() }), drop(tenant.ReasonOwnAddress)},
		{"ARP probe of a neighbour's", with(whoHas(me, "10.0.1.12"), func(p *tenant.Packet) { p.Src = netip.IPv4Unspecified() }), tenant.Outcome{Decision: tenant.Answered, EthSrc: v("app1/web-2").MAC}},
		{"ARP with another's spa", with(whoHas(me, "10.0.1.1"), func(p *tenant.Packet) { p.Src = v("app1/web-2").IPv4 }), drop(tenant.ReasonSpoofedARP)},
		{"ARP with another's sha", with(whoHas(me, "10.0.1.1"), func(p *tenant.Packet) { p.SHA = stranger }), drop(tenant.ReasonSpoofedARP)},
		{"ARP with another's MAC", with(whoHas(me, "10.0.1.1"), func(p *tenant.Packet) { p.EthSrc = stranger }), drop(tenant.ReasonSpoofedARP)},
		{"ARP reply", with(whoHas(me, "10.0.1.12"), func(p *tenant.Packet) { p.Op = 2 }), drop(tenant.ReasonUnknownARP)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := w.state.Verdict(me, c.p); got != c.want {
				t.Errorf("the model says %+v, want %+v", got, c.want)
			}
			if _, err := l.ask(w, me, c.p); err != nil {
				t.Error(err)
			}
		})
	}
}

// The answers are looked at byte by byte, since a wrong one is dropped in silence by
// whoever asked.
func TestAnswersAreWellFormed(t *testing.T) {
	w := twoTenants()
	l := newLab(t)
	l.load(t, w)
	me := w.state.Vports["app1/web-1"]
	for name, c := range map[string]struct {
		p    tenant.Packet
		want []string
	}{
		"ARP": {whoHas(me, "10.0.1.1"), []string{"dl_src=0a:6e:75:61:67:65", "dl_dst=" + me.MAC.String(), "arp_op=2",
			"arp_spa=10.0.1.1", "arp_tpa=10.0.1.11", "arp_sha=0a:6e:75:61:67:65", "arp_tha=" + me.MAC.String()}},
		"echo": {ping(me, tenant.GatewayMAC, "10.0.2.1"), []string{"dl_src=0a:6e:75:61:67:65", "dl_dst=" + me.MAC.String(),
			"nw_src=10.0.2.1", "nw_dst=10.0.1.11", "icmp_type=0", "icmp_code=0", "nw_ttl=64"}},
	} {
		got, err := l.ask(w, me, c.p)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, part := range c.want {
			if !strings.Contains(got.final+",", part+",") {
				t.Errorf("%s: no %s in %s", name, part, got.final)
			}
		}
	}
	for _, frag := range []string{"first", "later"} {
		text := l.ovs.Trace(bridge, "in_port=10,dl_src="+me.MAC.String()+",dl_dst="+tenant.GatewayMAC.String()+
			",icmp,nw_src=10.0.1.11,nw_dst=10.0.1.1,nw_ttl=64,icmp_type=8,nw_frag="+frag)
		if got := reasonOf(text); got != tenant.ReasonToGateway {
			t.Errorf("the %s fragment of an echo: %q\n%s", frag, got, text)
		}
	}
}

// Every address and MAC that means something anywhere in the model is tried against
// every other: whatever a vport sends, switch and model agree, and so with what is explained.
func TestSwitchAgreesWithModel(t *testing.T) {
	l := newLab(t)
	rapid.Check(t, func(rt *rapid.T) {
		w := drawWorld(rt)
		l.load(t, w)
		var senders []*tenant.Vport
		for _, id := range sortedIDs(w.state.Vports) {
			if v := w.state.Vports[id]; bridges[v.Host] != "" {
				senders = append(senders, v)
			}
		}
		for range 25 {
			from := rapid.SampledFrom(senders).Draw(rt, "from")
			if _, err := l.ask(w, from, drawPacket(rt, w, from)); err != nil {
				rt.Fatal(err)
			}
		}
		for range 5 {
			q := drawQuestion(rt, w, rapid.SampledFrom(senders).Draw(rt, "who asks"))
			x := w.state.Explain(q)
			if x.Outcome.Decision == "" {
				continue // it is never sent
			}
			o := w.state.Verdict(q.From, x.Sent)
			if o.Decision != x.Outcome.Decision || o.Reason != x.Outcome.Reason || (x.Verdict == tenant.VerdictDrop) != (o.Decision == tenant.Dropped) {
				rt.Fatalf("explained %+v\nthe model says %+v", x, o)
			}
			if _, err := l.ask(w, q.From, x.Sent); err != nil {
				rt.Fatalf("explained %+v\n%v", x, err)
			}
		}
	})
}

// drawQuestion is whether a vport reaches any address.
func drawQuestion(t *rapid.T, w *world, from *tenant.Vport) tenant.Question {
	var addrs []netip.Addr
	for _, a := range []string{"8.8.8.8", "10.0.0.77", "10.0.0.150", "10.0.1.150", "10.0.0.255", "10.0.1.255", "10.0.0.1", "224.0.0.5", "255.255.255.255", "127.0.0.1"} {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	for _, id := range sortedIDs(w.state.Vports) {
		addrs = append(addrs, w.state.Vports[id].IPv4)
	}
	q := tenant.Question{From: from, Dst: rapid.SampledFrom(addrs).Draw(t, "asked about"),
		Protocol: rapid.SampledFrom([]tenant.Protocol{tenant.TCP, tenant.UDP, tenant.ICMP, tenant.SCTP, 47, 0}).Draw(t, "protocol"),
		ICMPType: rapid.SampledFrom([]uint8{8, 0, 3, 13}).Draw(t, "type")}
	if q.Protocol.HasPorts() {
		q.SrcPort, q.DstPort = drawPort(t, "sport"), drawPort(t, "dport")
	}
	if vips := from.Virtual(); len(vips) > 0 && rapid.Bool().Draw(t, "from a virtual IP") {
		q.Src = rapid.SampledFrom(vips).Draw(t, "virtual source").IPv4
	}
	return q
}
