package agent

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"nuage/controller/tenant"
	"nuage/ovs"
)

// The switch says of each packet what the model says, and names the port or the host.
func TestTrace(t *testing.T) {
	h := newHost(t)
	a, _ := h.agent(t, 0)
	h.feed.Publish(1, append(base(), subnet("db", "app1", "10.9.0.0/24", 101))...)
	h.attach(t, a, 4)
	h.attach(t, a, 2)
	far := vport(3, "")
	h.feed.Publish(h.next(), far)
	if err := a.WaitProgrammed(t.Context(), "v2"); err != nil {
		t.Fatal(err)
	}
	var s *tenant.State
	h.feed.View(func(st *tenant.State) { s = st })
	v1, v2, v3 := s.Vports["v4"], s.Vports["v2"], s.Vports["v3"]
	if s.Verdict(v1, tracedPacket(v1, v2, tenant.UDP)).To != "v2" {
		t.Fatal("the model does not deliver")
	}
	spoofed := tracedPacket(v1, v2, tenant.TCP)
	spoofed.Src = netip.MustParseAddr("10.0.0.77")
	nobody := tracedPacket(v1, v2, tenant.TCP)
	nobody.Dst, nobody.EthDst = netip.MustParseAddr("10.9.0.9"), tenant.GatewayMAC
	outside := nobody
	outside.Dst = netip.MustParseAddr("198.51.100.1")
	echo := tracedPacket(v1, v2, tenant.ICMP)
	echo.Dst, echo.EthDst, echo.ICMPType = netip.MustParseAddr("10.0.0.1"), tenant.GatewayMAC, 8
	hairpin := tracedPacket(v1, v1, tenant.TCP)
	hairpin.EthDst = tenant.GatewayMAC
	for _, c := range []struct {
		name     string
		from, to *tenant.Vport
		packet   tenant.Packet
		want     Traced
	}{
		{"to a neighbour", v1, v2, tracedPacket(v1, v2, tenant.TCP), Traced{Decision: tenant.Delivered, Port: "nu2"}},
		{"of another protocol", v1, v2, tracedPacket(v1, v2, 47), Traced{Decision: tenant.Delivered, Port: "nu2"}},
		{"sctp", v1, v2, tracedPacket(v1, v2, tenant.SCTP), Traced{Decision: tenant.Delivered, Port: "nu2"}},
		{"to another host", v1, v3, tracedPacket(v1, v3, tenant.UDP), Traced{Decision: tenant.Delivered, VTEP: netip.MustParseAddr("192.0.2.2")}},
		{"from another host", v3, v1, tracedPacket(v3, v1, tenant.TCP), Traced{Decision: tenant.Delivered, Port: "nu4"}},
		{"echo to the gateway", v1, nil, echo, Traced{Decision: tenant.Answered}},
		{"spoofed", v1, v2, spoofed, Traced{Decision: tenant.Dropped, Reason: tenant.ReasonSpoofedIP}},
		{"to nobody", v1, nil, nobody, Traced{Decision: tenant.Dropped, Reason: tenant.ReasonUnknownAddress}},
		{"outside", v1, nil, outside, Traced{Decision: tenant.Dropped, Reason: tenant.ReasonOutside}},
		{"to itself", v1, v1, hairpin, Traced{Decision: tenant.Dropped, Reason: tenant.ReasonHairpin}},
	} {
		got, err := Trace(t.Context(), h.bridge, s, thisHost, c.from, c.to, c.packet)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if len(got.Flows) == 0 || !strings.Contains(got.Flows[0], "priority") {
			t.Errorf("%s: flows %q", c.name, got.Flows)
		}
		if o := s.Verdict(c.from, c.packet); o.Decision != got.Decision || o.Reason != got.Reason {
			t.Errorf("%s: the model says %s %s", c.name, o.Decision, o.Reason)
		}
		flows := got.Flows
		got.Flows = nil
		if got.Decision != c.want.Decision || got.Reason != c.want.Reason || got.Port != c.want.Port || got.VTEP != c.want.VTEP {
			t.Errorf("%s: %+v, want %+v\n%s", c.name, got, c.want, strings.Join(flows, "\n"))
		}
	}
	gone := *v1
	gone.Interface = "nosuch"
	if _, err := Trace(t.Context(), h.bridge, s, thisHost, &gone, v2, tracedPacket(v1, v2, tenant.TCP)); err == nil || !strings.Contains(err.Error(), "no port") {
		t.Errorf("a vport without a port: %v", err)
	}
	if _, err := Trace(t.Context(), h.bridge, s, "elsewhere", v1, v2, tracedPacket(v1, v2, tenant.TCP)); err == nil {
		t.Error("a host that has neither was asked")
	}
}

// Of packets that policies decide, the switch says what the model says, on both sides of a
// tunnel.
func TestTracePolicies(t *testing.T) {
	h := newHost(t)
	a, _ := h.agent(t, 0)
	h.feed.Publish(1, base()...)
	h.attach(t, a, 4)
	h.attach(t, a, 2)
	entry := func(policy string, priority uint32, e tenant.Entry) tenant.Change {
		id := fmt.Sprintf("%s-%d", policy, priority)
		e.ID, e.DomainID, e.PolicyID, e.Priority = id, "app1", policy, priority
		if e.From.Kind == "" {
			e.From.Kind, e.To.Kind = tenant.SideAny, tenant.SideAny
		}
		return change(tenant.KindEntry, id, &e)
	}
	policy := func(id string, number uint16, d tenant.Direction, allow bool) tenant.Change {
		return change(tenant.KindPolicy, id, &tenant.Policy{Meta: tenant.Meta{ID: id}, Name: id, DomainID: "app1", Number: number, Direction: d, Active: true, DefaultAllowIP: allow})
	}
	far := vport(3, "")
	far.Value.(*tenant.Vport).PolicyGroups = []string{"db"}
	h.feed.Publish(h.next(), far, policy("out", 1, tenant.Egress, false), policy("in", 2, tenant.Ingress, true),
		change(tenant.KindPolicyGroup, "g", &tenant.PolicyGroup{Meta: tenant.Meta{ID: "g"}, Name: "db", DomainID: "app1", Number: 1}),
		entry("out", 1, tenant.Entry{Action: tenant.Forward, Protocol: tenant.TCP, DestinationPort: tenant.PortRange{From: 80, To: 90}, Stateful: true, FlowLogging: true, StatsLogging: true}),
		entry("out", 2, tenant.Entry{Action: tenant.Reject, Protocol: tenant.UDP}),
		entry("out", 3, tenant.Entry{Action: tenant.Forward, Protocol: 47}),
		entry("out", 4, tenant.Entry{Action: tenant.Forward, Protocol: tenant.AnyProtocol, Stateful: true}),
		entry("in", 1, tenant.Entry{Action: tenant.Deny, Protocol: tenant.TCP, DestinationPort: tenant.PortRange{From: 85, To: 85}, FlowLogging: true,
			From: tenant.Side{Kind: tenant.SideAny}, To: tenant.Side{Kind: tenant.SidePolicyGroup, ID: "g"}}))
	if err := a.WaitProgrammed(t.Context(), "v2"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, h.wrong)
	var s *tenant.State
	h.feed.View(func(st *tenant.State) { s = st })
	decided := map[tenant.Decision]int{}
	for _, from := range []string{"v4", "v2", "v3"} {
		for _, to := range []string{"v4", "v2", "v3"} {
			for _, proto := range []tenant.Protocol{tenant.TCP, tenant.UDP, tenant.ICMP, tenant.SCTP, 47} {
				for _, port := range []uint16{22, 80, 85} {
					if from == to {
						continue
					}
					p := tracedPacket(s.Vports[from], s.Vports[to], proto)
					p.DstPort = port
					if proto == tenant.ICMP {
						p.ICMPType = map[uint16]uint8{22: 8, 80: 3, 85: 0}[port]
						if p.ICMPType != 8 { // it opens nothing
							p.Track = tenant.TrackNone
						}
					}
					want := s.Verdict(s.Vports[from], p)
					got, err := Trace(t.Context(), h.bridge, s, thisHost, s.Vports[from], s.Vports[to], p)
					if err != nil || got.Decision != want.Decision || got.Reason != want.Reason {
						t.Errorf("%s to %s, %s %d: the switch says %+v, the model %+v: %v", from, to, proto, port, got, want, err)
					}
					decided[got.Decision]++
				}
			}
		}
	}
	if decided[tenant.Delivered] == 0 || decided[tenant.Dropped] == 0 {
		t.Errorf("decisions: %v", decided)
	}
}

var _ Tracer = (*ovs.Bridge)(nil)

func tracedPacket(from, to *tenant.Vport, proto tenant.Protocol) tenant.Packet {
	p := tenant.Packet{EthSrc: from.MAC, EthDst: to.MAC, EtherType: tenant.EtherIPv4, Src: from.IPv4, Dst: to.IPv4, Protocol: uint8(proto), TTL: 64, SrcPort: 49152, DstPort: 80}
	if !proto.Tracked() {
		p.Track = tenant.TrackNone
	}
	return p
}

func TestReadTrace(t *testing.T) {
	const before = "Flow: ip\n\nbridge(\"alubr0\")\n-----\n 0. in_port=1, priority 100, cookie 0x1\n"
	for _, c := range []struct {
		name, text string
		want       tenant.Decision
		reason     tenant.Reason
		port       uint32
	}{
		{"through conntrack", before + "    ct(table=61)\nFinal flow: x\nDatapath actions: ct(zone=1),recirc(0x1)\n\n====\nrecirc(0x1) - resume\n61. ip, priority 5\n110. priority 0\n    output:NXM_NX_REG1[]\n     -> output port is 3\nDatapath actions: 3\n", tenant.Delivered, "", 3},
		{"logged and forwarded", before + "    output:NXM_NX_REG1[]\n     -> output port is 7\nDatapath actions: userspace(pid=0,controller(reason=1,dont_send=0)),7\n", tenant.Delivered, "", 7},
		{"refused aloud", before + "        84. ip, priority 8, cookie 0x2\n            controller(userdata=72)\nDatapath actions: userspace(pid=0,controller(reason=1,dont_send=0,continuation=0,recirc_id=3))\n", tenant.Dropped, tenant.ReasonEgressPolicy, 0},
		{"refused aloud, metered", before + " 86. priority 8\nDatapath actions: sample(sample=100.0%,actions(meter(0),userspace(pid=0,controller(reason=1,dont_send=1))))\n", tenant.Dropped, tenant.ReasonEgressPolicy, 0},
		{"logged twice and forwarded", before + "     -> output port is 7\nDatapath actions: sample(sample=100.0%,actions(meter(0),userspace(pid=0,controller(reason=1)))),userspace(pid=0,controller(reason=1)),set(ipv4(ttl=63)),7\n", tenant.Delivered, "", 7},
		{"nested in a chain", before + "        80. priority 1\n            drop\nDatapath actions: drop\n", tenant.Dropped, tenant.ReasonIngressPolicy, 0},
	} {
		got, port, err := readTrace(c.text)
		if err != nil || got.Decision != c.want || got.Reason != c.reason || port != c.port {
			t.Errorf("%s: %+v, port %d, %v", c.name, got, port, err)
		}
	}
	for _, text := range []string{"", "Datapath actions: drop", before, before + "Datapath actions: 3,4"} {
		if got, _, err := readTrace(text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}
