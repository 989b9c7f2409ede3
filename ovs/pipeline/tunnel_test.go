package pipeline

import (
	"net/netip"
	"strings"
	"testing"

	"nuage/controller/tenant"
	"nuage/ovs/flow"
)

// What comes by the tunnel is delivered to a vport of this host, or dropped and counted;
// nothing of it goes back into a tunnel.
func TestTunnelPackets(t *testing.T) {
	w := twoTenants()
	l := newLab(t)
	l.load(t, w)
	v := func(id string) *tenant.Vport { return w.state.Vports[id] }
	far, other := v("app1/web-far"), netip.MustParseAddr("192.0.2.2")
	const web, db = 1000, 1001
	for _, c := range []struct {
		name   string
		packet string
		want   tenant.Reason // "" for delivery
		port   uint32
	}{
		{"to a vport", tunneled(other, web, ping(far, v("app1/web-1").MAC, "10.0.1.11")), "", 10},
		{"routed at the source", tunneled(other, db, ping(far, v("app1/db-1").MAC, "10.0.2.11")), "", 12},
		{"last hop's ttl", strings.Replace(tunneled(other, web, ping(far, v("app1/web-1").MAC, "10.0.1.11")), "nw_ttl=64", "nw_ttl=1", 1), "", 10},
		{"unknown VTEP", tunneled(netip.MustParseAddr("192.0.2.77"), web, ping(far, v("app1/web-1").MAC, "10.0.1.11")), DropUnknownVTEP.Reason, 0},
		{"this host's VTEP", tunneled(netip.MustParseAddr("192.0.2.1"), web, ping(far, v("app1/web-1").MAC, "10.0.1.11")), DropUnknownVTEP.Reason, 0},
		{"unknown VNI", tunneled(other, 4242, ping(far, v("app1/web-1").MAC, "10.0.1.11")), DropUnknownVNI.Reason, 0},
		{"VNI of the domain", tunneled(other, 1, ping(far, v("app1/web-1").MAC, "10.0.1.11")), DropUnknownVNI.Reason, 0},
		{"VNI of another subnet", tunneled(other, db, ping(far, v("app1/web-1").MAC, "10.0.1.11")), DropNotHere.Reason, 0},
		{"VNI of another tenant", tunneled(other, web, ping(far, v("other/web-1").MAC, "10.0.1.11")), DropNotHere.Reason, 0},
		{"for a vport of the sender's host", tunneled(other, web, ping(far, far.MAC, "10.0.1.99")), DropNotHere.Reason, 0},
		{"for the gateway", tunneled(other, web, ping(far, tenant.GatewayMAC, "10.0.1.1")), DropNotHere.Reason, 0},
		{"broadcast", tunneled(other, web, ping(far, broadcast, "10.0.1.255")), tenant.ReasonBroadcast, 0},
		{"ARP", tunneled(other, web, whoHas(far, "10.0.1.11")), DropTunnelProtocol.Reason, 0},
		{"IPv6", tunneled(other, web, tenant.Packet{EthSrc: far.MAC, EthDst: v("app1/web-1").MAC, EtherType: 0x86dd}), DropTunnelProtocol.Reason, 0},
		{"tagged", tunneled(other, web, tenant.Packet{EthSrc: far.MAC, EthDst: v("app1/web-1").MAC, EtherType: 0x800, Tagged: true}), tenant.ReasonTagged, 0},
		{"prime", tunneled(other, 0, tenant.Packet{EthSrc: far.MAC, EthDst: broadcast, EtherType: 0x88b5}), DropPrime.Reason, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := l.trace(thisHost, c.packet)
			if err != nil {
				t.Fatal(err)
			}
			if got.outcome.Reason != c.want || got.port != c.port || got.vtep.IsValid() {
				t.Errorf("%q, port %d, VTEP %v; want %q, port %d\n%s", got.outcome.Reason, got.port, got.vtep, c.want, c.port, got.text)
			}
		})
	}
}

// A tenant may use the underlay's addresses: they are its own, and lead nowhere else.
func TestUnderlayIsOutOfReach(t *testing.T) {
	w := twoTenants()
	w.subnet("app1/under", "app1", "192.0.2.0/24", 1002)
	w.state.Subnets["app1/under"].Gateway = netip.MustParseAddr("192.0.2.254")
	me := w.vport("app1/u-1", "app1/under", "192.0.2.1", 40) // this host's VTEP
	l := newLab(t)
	l.load(t, w)
	for _, dst := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.9"} {
		for _, port := range []uint16{4789, 2379, 22} {
			p := ping(w.state.Vports["app1/web-1"], tenant.GatewayMAC, dst)
			p.Protocol, p.ICMPType, p.SrcPort, p.DstPort = 17, 0, 40000, port
			got, err := l.ask(w, w.state.Vports["app1/web-1"], p)
			if err != nil {
				t.Error(err)
			}
			if want := w.portOf(me); (got.port == want) != (dst == "192.0.2.1") || got.vtep.IsValid() {
				t.Errorf("%s port %d went to port %d, VTEP %v", dst, port, got.port, got.vtep)
			}
		}
	}
}

// vteps tells which VTEPs there are tunnels to and from.
func vteps(s flow.Set) (to, from []string) {
	for _, f := range s.Sorted() {
		if c, ok := f.Match.Get(flow.TunSrc); ok {
			from = append(from, addr4(c.Uint()).String())
		}
		if c, ok := f.Match.Get(regVTEP); ok && f.Table == TableOutput {
			to = append(to, addr4(c.Uint()).String())
		}
	}
	return to, from
}

// targetOf is where a remote vport's packets go.
func targetOf(c *Compiler, id string) string {
	for _, f := range c.Fragment(vportKey(id)) {
		if f.Table != TableForwarder {
			continue
		}
		for _, a := range f.Actions {
			if s, ok := a.(flow.SetField); ok && s.Field == regVTEP {
				return addr4(s.Uint()).String()
			}
		}
		return string(DropRemote.Reason)
	}
	return "no flow"
}

// The flows of a host's vports follow its VTEP, whoever else claims it.
func TestHostChanges(t *testing.T) {
	w := twoTenants()
	c := NewCompiler(thisHost)
	c.SetPorts(w.ports, tunnelPort)
	c.Update(w.state, allKeys(w.state))
	const far = "app1/web-far"
	no := string(DropRemote.Reason)
	host := func(name, vtep string) {
		h := *w.state.Hosts[otherHost]
		h.ID, h.Name, h.VTEP = name, name, netip.Addr{}
		if name != otherHost {
			h.Meta = w.meta(name)
		}
		if vtep != "" {
			h.VTEP = netip.MustParseAddr(vtep)
		}
		w.put(tenant.KindHost, name, &h)
	}
	for _, s := range []struct {
		name         string
		change       func() tenant.Key
		target, note string // of the vport
		tunnels      string
	}{
		{"nothing", func() tenant.Key { return tenant.Key{} }, "192.0.2.2", "", "192.0.2.2"},
		{"new VTEP", func() tenant.Key { host(otherHost, "192.0.2.20"); return hostKey(otherHost) }, "192.0.2.20", "", "192.0.2.20"},
		{"no VTEP", func() tenant.Key { host(otherHost, ""); return hostKey(otherHost) }, no, "host host-2: it has no VTEP", ""},
		{"IPv6", func() tenant.Key { host(otherHost, "2001:db8::1"); return hostKey(otherHost) }, no, "2001:db8::1 cannot be a VTEP", ""},
		{"multicast", func() tenant.Key { host(otherHost, "224.0.0.1"); return hostKey(otherHost) }, no, "224.0.0.1 cannot be a VTEP", ""},
		{"a rival that is younger", func() tenant.Key {
			host(otherHost, "192.0.2.2")
			c.Update(w.state, []tenant.Key{hostKey(otherHost)})
			host("host-9", "192.0.2.2")
			return hostKey("host-9")
		}, "192.0.2.2", "", "192.0.2.2"},
		{"this host's VTEP", func() tenant.Key { host(otherHost, "192.0.2.1"); return hostKey(otherHost) }, no, "VTEP 192.0.2.1 belongs to host host-1, which was there first", "192.0.2.2"},
		{"gone", func() tenant.Key {
			w.put(tenant.KindHost, otherHost, nil)
			return hostKey(otherHost)
		}, no, "host host-2: it is not known", "192.0.2.2"},
	} {
		c.Update(w.state, []tenant.Key{s.change()})
		if got := targetOf(c, far); got != s.target {
			t.Errorf("%s: packets go to %s, want %s", s.name, got, s.target)
		}
		if note := c.Notes()[vportKey(far)]; (note == "") != (s.note == "") || !strings.Contains(note, s.note) {
			t.Errorf("%s: note %q, want %q", s.name, note, s.note)
		}
		to, from := vteps(c.Flows())
		if strings.Join(to, " ") != s.tunnels || strings.Join(from, " ") != s.tunnels {
			t.Errorf("%s: tunnels to %v and from %v, want %q", s.name, to, from, s.tunnels)
		}
	}
}

func hostKey(id string) tenant.Key { return tenant.Key{Kind: tenant.KindHost, ID: id} }

// Without a tunnel port there is no way out, and that is counted.
func TestNoTunnelPort(t *testing.T) {
	w := twoTenants()
	l := newLab(t)
	l.load(t, w)
	in := w.input()
	in.Tunnel = 0
	flows, notes := Compile(in)
	if len(notes) != 0 {
		t.Errorf("notes %v", notes)
	}
	l.program(t, in, flows)
	me := w.state.Vports["app1/web-1"]
	got, err := l.trace(thisHost, spell(w.portOf(me), ping(me, tenant.GatewayMAC, "10.0.2.99")))
	if err != nil || got.outcome.Reason != DropNoTunnel.Reason {
		t.Errorf("%v, %+v\n%s", err, got.outcome, got.text)
	}
}

// What is too large for the way to the other host goes to the agent with that way's MTU.
func TestTooLarge(t *testing.T) {
	for _, c := range []struct {
		here, there int
		check       string
	}{
		{1500, 1500, "check_pkt_larger(1464)"}, {9000, 1500, "check_pkt_larger(1464)"},
		{1400, 9000, "check_pkt_larger(1364)"}, {9000, 9000, "check_pkt_larger(8964)"},
		{0, 1500, ""}, {1500, 0, ""}, {-5, 1500, "check_pkt_larger(82)"}, {1 << 20, 1 << 20, "check_pkt_larger(65014)"},
	} {
		w := twoTenants()
		w.state.Hosts[thisHost].MTU, w.state.Hosts[otherHost].MTU = c.here, c.there
		checks, punts := 0, 0
		for _, f := range mustCompile(t, w) {
			if strings.Contains(f.String(), "check_pkt_larger") {
				checks++
				if !strings.Contains(f.String(), c.check+"->NXM_NX_REG0[1]") {
					t.Errorf("%d, %d: %v", c.here, c.there, f)
				}
			}
			if f.Table == TableEncapsulate && strings.Contains(f.String(), "controller(") {
				punts++
			}
		}
		if want := min(1, len(c.check)); checks != want || punts != want {
			t.Errorf("%d, %d: %d checks, %d flows to the agent", c.here, c.there, checks, punts)
		}
	}
	w := twoTenants()
	l := newLab(t)
	l.load(t, w)
	me := w.state.Vports["app1/web-1"]
	got, err := l.trace(thisHost, spell(10, ping(me, tenant.GatewayMAC, "10.0.2.99")))
	if err != nil {
		t.Fatal(err)
	}
	if did := actual.FindStringSubmatch(got.text)[1]; !strings.Contains(did, "check_pkt_len(size=1464,gt(userspace(") || !strings.Contains(did, "le(") {
		t.Error(did)
	}
}
