package pipeline

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"nuage/controller/tenant"
	"nuage/ovs/flow"
	"nuage/ovs/ovstest"
)

// lab is a real ovs-vswitchd with the bridges of two hosts, which is asked what it does
// with a packet.
type lab struct {
	ovs   *ovstest.OVS
	dir   string
	ports map[string]bool
}

const bridge = "br-test"

// bridges are the hosts' bridges.
var bridges = map[string]string{thisHost: bridge, otherHost: "br-far"}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{ovs: ovstest.Start(t), dir: t.TempDir(), ports: map[string]bool{}}
	for host, b := range bridges {
		l.ovs.AddBridge(b)
		l.ovs.AddPort(b, "vx-"+host, tunnelPort)
	}
	return l
}

// load replaces all flows by those of a world.
func (l *lab) load(t *testing.T, w *world) {
	t.Helper()
	for _, in := range []Input{w.input(), w.otherInput()} {
		flows, notes := Compile(in)
		for k, n := range notes {
			if !strings.Contains(n, "host nowhere: it has no VTEP") {
				t.Fatalf("note on %v: %s", k, n)
			}
		}
		l.program(t, in, flows)
	}
}

func (l *lab) program(t *testing.T, in Input, flows flow.Set) {
	t.Helper()
	var text strings.Builder
	for _, f := range flows.Sorted() {
		fmt.Fprintln(&text, f)
	}
	for _, n := range in.Ports {
		name := fmt.Sprintf("%s-%d", in.Host, n)
		if !l.ports[name] {
			l.ovs.AddPort(bridges[in.Host], name, n)
			l.ports[name] = true
		}
	}
	file := filepath.Join(l.dir, "flows")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	l.ovs.Ofctl("--bundle", "replace-flows", bridges[in.Host], file)
}

// traced is what a switch does with a packet.
type traced struct {
	outcome tenant.Outcome // without To
	host    string         // whose switch did it last
	port    uint32         // output; flow.PortInPort for back to the sender
	vtep    netip.Addr     // of a packet that leaves by the tunnel
	vni     uint32
	dst     tenant.MAC
	final   string
	text    string
}

var (
	step   = regexp.MustCompile(`(?m)^ ?(\d+)\. .*priority (\d+)`)
	missed = regexp.MustCompile(`(?m)^ ?(\d+)\. (?:.*, )?No match`)
	output = regexp.MustCompile(`output port is (\d+)`)
	back   = regexp.MustCompile(`(?m)^\s+IN_PORT$`)
	source = regexp.MustCompile(`dl_src=([0-9a-f:]+)`)
	target = regexp.MustCompile(`dl_dst=([0-9a-f:]+)`)
	vtep   = regexp.MustCompile(`TUN_IPV4_DST\[\] is now ([0-9.]+)`)
	vni    = regexp.MustCompile(`TUN_ID\[0\.\.23\] is now (0x[0-9a-f]+|0)`)
	ttl    = regexp.MustCompile(`nw_ttl=(\d+)`)
	actual = regexp.MustCompile(`(?m)^Datapath actions: (.*)$`)
)

func (l *lab) trace(host, packet string) (traced, error) {
	text, err := l.ovs.Run("ovs-appctl", "ofproto/trace", bridges[host], packet)
	if err != nil {
		return traced{}, err
	}
	r := traced{host: host, text: text}
	_, r.final, _ = strings.Cut(text, "Final flow: ")
	r.final, _, _ = strings.Cut(r.final, "\n")
	if r.final == "unchanged" {
		r.final, _, _ = strings.Cut(strings.TrimPrefix(text, "Flow: "), "\n")
	}
	did := actual.FindStringSubmatch(text)
	switch {
	case did == nil || missed.MatchString(text):
		return r, fmt.Errorf("no flow for a packet:\n%s", text)
	case did[1] == "drop", strings.HasPrefix(did[1], "userspace(") && strings.Contains(did[1], "controller(reason=1,dont_send=1"):
		r.outcome = tenant.Outcome{Decision: tenant.Dropped, Reason: reasonOf(text)}
		return r, nil
	case back.MatchString(text):
		r.outcome.Decision, r.port = tenant.Answered, flow.PortInPort
	case vtep.MatchString(text):
		id, _ := strconv.ParseUint(vni.FindStringSubmatch(text)[1], 0, 32)
		r.outcome.Decision, r.port, r.vni = tenant.Delivered, tunnelPort, uint32(id)
		r.vtep = netip.MustParseAddr(vtep.FindStringSubmatch(text)[1])
	default:
		m := output.FindStringSubmatch(text)
		if m == nil {
			return r, fmt.Errorf("neither output nor drop:\n%s", text)
		}
		n, _ := strconv.Atoi(m[1])
		r.outcome.Decision, r.port = tenant.Delivered, uint32(n)
	}
	if m := source.FindStringSubmatch(r.final); m != nil {
		r.outcome.EthSrc.UnmarshalText([]byte(m[1]))
	}
	if m := target.FindStringSubmatch(r.final); m != nil {
		r.dst.UnmarshalText([]byte(m[1]))
	}
	if m := ttl.FindStringSubmatch(r.final); m != nil {
		n, _ := strconv.Atoi(m[1])
		r.outcome.TTL = uint8(n)
	}
	return r, nil
}

// reasonOf names the flow at which a trace ends.
func reasonOf(text string) tenant.Reason {
	steps := step.FindAllStringSubmatch(text, -1)
	last := steps[len(steps)-1]
	n, _ := strconv.Atoi(last[1])
	p, _ := strconv.Atoi(last[2])
	if d, ok := ReasonOf(flow.Flow{Table: flow.Table(n), Priority: uint16(p)}); ok {
		return d.Reason
	}
	if flow.Table(n) == TableOutput {
		return tenant.ReasonHairpin
	}
	return tenant.Reason("table " + last[1] + " priority " + last[2])
}

// spell writes a packet in ovs-ofctl's words.
func spell(port uint32, p tenant.Packet) string {
	s := fmt.Sprintf("in_port=%d,dl_src=%v,dl_dst=%v", port, orZero(p.EthSrc), orZero(p.EthDst))
	switch {
	case p.Tagged: // what is in it does not matter, and trace cannot spell it
		return s + fmt.Sprintf(",dl_vlan=7,dl_type=%#x", p.EtherType)
	case p.EtherType == tenant.EtherARP:
		return s + fmt.Sprintf(",arp,arp_op=%d,arp_spa=%v,arp_tpa=%v,arp_sha=%v", p.Op, p.Src, p.Dst, orZero(p.SHA))
	case p.EtherType != tenant.EtherIPv4:
		return s + fmt.Sprintf(",dl_type=%#x", p.EtherType)
	}
	name := map[uint8]string{tenant.ProtocolICMP: "icmp", tenant.ProtocolUDP: "udp", 6: "tcp"}[p.Protocol]
	s += fmt.Sprintf(",%s,nw_src=%v,nw_dst=%v,nw_ttl=%d", name, p.Src, p.Dst, p.TTL)
	if p.Protocol == tenant.ProtocolICMP {
		return s + fmt.Sprintf(",icmp_type=%d,icmp_code=%d", p.ICMPType, p.ICMPCode)
	}
	return s + fmt.Sprintf(",%s_src=%d,%s_dst=%d", name, p.SrcPort, name, p.DstPort)
}

func orZero(m tenant.MAC) string {
	if m.IsZero() {
		return "00:00:00:00:00:00"
	}
	return m.String()
}

// expect is the model's verdict, in what a trace can show of it.
func expect(w *world, from *tenant.Vport, p tenant.Packet) (tenant.Outcome, string, uint32) {
	o := w.state.Verdict(from, p)
	host, port := from.Host, uint32(0)
	switch o.Decision {
	case tenant.Answered:
		port = flow.PortInPort
	case tenant.Delivered:
		to := w.state.Vports[o.To]
		host, port = to.Host, w.portOf(to)
	}
	o.To = ""
	return o, host, port
}

// send is what becomes of a packet of a vport, over both hosts if need be.
func (l *lab) send(w *world, from *tenant.Vport, p tenant.Packet) (traced, error) {
	got, err := l.trace(from.Host, spell(w.portOf(from), p))
	if err != nil || !got.vtep.IsValid() {
		return got, err
	}
	there := ""
	for id, h := range w.state.Hosts {
		if h.VTEP == got.vtep {
			there = id
		}
	}
	if bridges[there] == "" || there == from.Host {
		return got, fmt.Errorf("sent to VTEP %v:\n%s", got.vtep, got.text)
	}
	p.EthSrc, p.EthDst, p.TTL = got.outcome.EthSrc, got.dst, got.outcome.TTL
	before := got.text
	got, err = l.trace(there, tunneled(w.state.Hosts[from.Host].VTEP, got.vni, p))
	got.text = before + "\n" + got.text
	return got, err
}

// tunneled is a packet as it comes out of the tunnel.
func tunneled(src netip.Addr, vni uint32, p tenant.Packet) string {
	return fmt.Sprintf("%s,tun_src=%v,tun_id=%d", spell(tunnelPort, p), src, vni)
}

// ask compares the switches with the model.
func (l *lab) ask(w *world, from *tenant.Vport, p tenant.Packet) (traced, error) {
	got, err := l.send(w, from, p)
	if err != nil {
		return got, err
	}
	want, host, port := expect(w, from, p)
	if got.outcome != want || got.port != port || got.host != host {
		return got, fmt.Errorf("%s sends %s:\nswitch: %+v %s port %d\nmodel:  %+v %s port %d\n%s", from.ID,
			spell(w.portOf(from), p), got.outcome, got.host, got.port, want, host, port, got.text)
	}
	return got, nil
}

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
// every other: whatever a vport sends, switch and model agree.
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
		for range 8 {
			from := rapid.SampledFrom(senders).Draw(rt, "from")
			if _, err := l.ask(w, from, drawPacket(rt, w, from)); err != nil {
				rt.Fatal(err)
			}
		}
	})
}
