package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"nuage/controller/store"
	"nuage/controller/tenant"
	"nuage/ovs"
)

// oneSwitch delivers to its only vport's port, and keeps what it was asked.
type oneSwitch struct {
	asked []string
	flows int
}

func (s *oneSwitch) Ports() map[string]ovs.Port {
	return map[string]ovs.Port{"nu1": {OFPort: 3}, ovs.TunnelPort: {OFPort: 9}}
}

func (s *oneSwitch) Trace(_ context.Context, packet string, _ ...string) (string, error) {
	s.asked = append(s.asked, packet)
	var b strings.Builder
	for i := range s.flows {
		fmt.Fprintf(&b, " %d. in_port=1, priority 100, cookie 0x%d %s\n", i%200, i, strings.Repeat("x", 100))
	}
	return b.String() + "     -> output port is 3\nDatapath actions: 3\n", nil
}

// A host asks another of a packet that comes to it out of the tunnel. Whatever else it is
// told, the other asks its switch nothing.
func TestTraceOfAnotherHost(t *testing.T) {
	s := tenant.NewState()
	put := func(kind tenant.Kind, id string, o any) {
		s.Apply(tenant.Change{Key: tenant.Key{Kind: kind, ID: id}, Value: o})
	}
	put(tenant.KindHost, "h1", &tenant.Host{Meta: tenant.Meta{ID: "h1"}, VTEP: netip.MustParseAddr("192.0.2.1")})
	put(tenant.KindSubnet, "s", &tenant.Subnet{Meta: tenant.Meta{ID: "s"}, DomainID: "d", VNI: 77})
	vport := func(id, domain, host, ip string) *tenant.Vport {
		v := &tenant.Vport{Meta: tenant.Meta{ID: id}, Name: id, DomainID: domain, SubnetID: "s", Host: host, Interface: "nu1",
			MAC: tenant.MAC{2, 0, 0, 0, 0, ip[len(ip)-1]}, IPv4: netip.MustParseAddr(ip)}
		put(tenant.KindVport, id, v)
		return v
	}
	v1, v2 := vport("v1", "d", "h1", "10.0.0.1"), vport("v2", "d", "h2", "10.0.0.2")
	v3 := vport("v3", "other", "h2", "10.0.0.3")
	elsewhere := vport("v4", "d", "h9", "10.0.0.4")
	feed, sw := tenant.NewFeed(), &oneSwitch{flows: 5}
	var changes []tenant.Change
	for id, v := range s.Vports {
		changes = append(changes, tenant.Change{Key: tenant.Key{Kind: tenant.KindVport, ID: id}, Value: v})
	}
	changes = append(changes, tenant.Change{Key: tenant.Key{Kind: tenant.KindHost, ID: "h1"}, Value: s.Hosts["h1"]}, tenant.Change{Key: tenant.Key{Kind: tenant.KindSubnet, ID: "s"}, Value: s.Subnets["s"]})
	feed.Publish(41, changes...)
	h2 := tracer{host: "h2", bridge: sw, feed: feed, programmed: func() int64 { return 40 }, log: quiet()}
	var sent []byte
	h1 := tracer{host: "h1", log: quiet(), others: func(ctx context.Context, host string, question []byte) ([]byte, error) {
		if host != "h2" {
			return nil, errors.New("host " + host + ": there is no such host")
		}
		sent = question
		return h2.answer(ctx, "h1", question), nil
	}}
	p := tenant.Packet{EthSrc: v1.MAC, EthDst: v2.MAC, EtherType: tenant.EtherIPv4, Src: v1.IPv4, Dst: v2.IPv4, Protocol: 6, TTL: 64, SrcPort: 49152, DstPort: 80}
	got, err := h1.Trace(t.Context(), "h2", v1, v2, p)
	if err != nil || got.Decision != tenant.Delivered || got.Interface != "nu1" || got.Programmed != 40 || got.Latest != 41 || len(got.Flows) != 5 {
		t.Fatalf("%+v, %v", got, err)
	}
	if len(sw.asked) != 1 || !strings.HasPrefix(sw.asked[0], "in_port=9,") || !strings.Contains(sw.asked[0], "tun_src=192.0.2.1,tun_id=77") {
		t.Errorf("the switch is asked %q", sw.asked)
	}
	if _, err := h1.Trace(t.Context(), "h3", v1, v2, p); err == nil || err.Error() != "host h3: there is no such host" {
		t.Errorf("nobody: %v", err)
	}
	for what, c := range map[string]struct {
		from, to *tenant.Vport
		p        tenant.Packet
		want     string
	}{
		"of nobody":               {&tenant.Vport{Meta: tenant.Meta{ID: "no\"such"}}, v2, p, `host h2: vport "no\"such" is not known there at revision 41`},
		"to nobody":               {v1, &tenant.Vport{Meta: tenant.Meta{ID: "nosuch"}}, p, `host h2: vport "nosuch" is not known there`},
		"between domains":         {v3, v1, p, "different domains"},
		"of others":               {v1, elsewhere, p, "neither vport v1 nor the receiver is on host h2"},
		"to no vport, of another": {v1, nil, p, "neither vport v1 nor the receiver is on host h2"},
		"of another family":       {v1, v2, with(p, func(p *tenant.Packet) { p.Src = netip.MustParseAddr("fe80::1%x,actions=drop") }), "no IPv4 packet"},
		"of ARP":                  {v1, v2, with(p, func(p *tenant.Packet) { p.EtherType = tenant.EtherARP }), "no IPv4 packet"},
		"of no address":           {v1, v2, with(p, func(p *tenant.Packet) { p.Dst = netip.Addr{} }), "no IPv4 packet"},
	} {
		if got, err := h1.Trace(t.Context(), "h2", c.from, c.to, c.p); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v, want %q", what, got, err, c.want)
		}
	}
	for _, question := range []string{"", "null", "[]", "{}", "{", `{"from":7}`, strings.Replace(string(sent), "{", `{"flow":"in_port=1",`, 1), strings.Replace(string(sent), `"v1"`, `"v1","to":"`+strings.Repeat("y", 4000)+`"`, 1)} {
		var a traceAnswer
		if text := h2.answer(t.Context(), "h1", []byte(question)); json.Unmarshal(text, &a) != nil || a.Error == "" || len(text) > 500 {
			t.Errorf("%.80q: %s", question, text)
		}
	}
	if len(sw.asked) != 1 {
		t.Errorf("the switch is asked %q", sw.asked[1:])
	}

	sw.flows = 5000
	got, err = h1.Trace(t.Context(), "h2", v1, v2, p)
	if err != nil || len(got.Flows) < 100 || !strings.Contains(got.Flows[len(got.Flows)-1], "cookie 0x4999 ") || got.Interface != "nu1" {
		t.Errorf("of many flows %d, %v", len(got.Flows), err)
	}
	if n := len(h2.answer(t.Context(), "h1", sent)); n > store.MaxAnswer {
		t.Errorf("an answer of %d bytes", n)
	}
}

func with(p tenant.Packet, f func(*tenant.Packet)) tenant.Packet { f(&p); return p }
