package agent

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"nuage/controller/tenant"
	"nuage/ovs/flow"
	"nuage/ovs/openflow"
	"nuage/ovs/pipeline"
)

func policy(id, domain string, d tenant.Direction, number uint16) tenant.Change {
	return change(tenant.KindPolicy, id, &tenant.Policy{Meta: tenant.Meta{ID: id}, Name: id, DomainID: domain, Direction: d,
		Priority: uint32(number), Number: number, Active: true})
}

// ruleOf is an entry of a policy that is about everything, but for what set changes.
func ruleOf(id, policy, domain string, set func(*tenant.Entry)) tenant.Change {
	any := tenant.Side{Kind: tenant.SideAny}
	e := &tenant.Entry{Meta: tenant.Meta{ID: id}, PolicyID: policy, DomainID: domain, Action: tenant.Forward, Protocol: tenant.AnyProtocol,
		From: any, To: any, Stateful: true}
	set(e)
	return change(tenant.KindEntry, id, e)
}

// A line has all that an operator asks for, and one domain's flood leaves another's lines.
func TestFlowLog(t *testing.T) {
	m, feed := newMemory(), tenant.NewFeed()
	m.port("nu7", 7)
	m.port("nu8", 8)
	changes := append(base(), vport(7, "nu7"), vport(9, ""), domain("app2", 2), subnet("sn2", "app2", "10.0.0.0/16", 200),
		change(tenant.KindEnterprise, "ent", &tenant.Enterprise{Meta: tenant.Meta{ID: "ent"}, Name: "Ent \x1b[31m"}),
		policy("pol", "app1", tenant.Egress, 4), policy("pol2", "app2", tenant.Ingress, 1),
		ruleOf("e1", "pol", "app1", func(e *tenant.Entry) { e.Priority, e.FlowLogging, e.Action = 70, true, tenant.Reject }),
		ruleOf("e2", "pol2", "app2", func(e *tenant.Entry) { e.Priority, e.FlowLogging = 5, true }))
	changes[0].Value.(*tenant.Domain).EnterpriseID = "ent"
	v8 := vport(8, "nu8")
	v8.Value.(*tenant.Vport).DomainID, v8.Value.(*tenant.Vport).SubnetID = "app2", "sn2"
	feed.Publish(1, append(changes, v8)...)
	log, lines := logtest.NewNullLogger()
	a, _ := start(t, Config{Feed: feed, Switch: m, Log: log})
	eventually(t, 5*time.Second, func() string { return errText(a.Status().Err) })
	lines.Reset()

	shown := func(entry string, port uint64, src, dst string) openflow.PacketIn {
		return openflow.PacketIn{Packet: segment(peerMAC+routerMAC, src, dst, 1, 0, tcpSYN), UserData: pipeline.Log,
			Cookie: pipeline.Cookie(tenant.Key{Kind: tenant.KindEntry, ID: entry}), Metadata: flow.NewMatch(flow.Eq(flow.InPort, port))}
	}
	m.packets <- shown("e1", 7, "0a000007", "0a000009")
	for range 300 {
		m.packets <- shown("e1", 7, "0a000007", "0a000009")
	}
	m.packets <- shown("e2", 8, "0a000008", "c0000201")
	m.packets <- shown("gone", 8, "0a000008", "c0000201")
	eventually(t, 5*time.Second, func() string {
		if len(m.packets) > 0 {
			return "packets are left"
		}
		return ""
	})
	all := lines.AllEntries()
	perDomain := map[any]int{}
	for _, e := range all {
		perDomain[e.Data["domainID"]]++
	}
	if n := perDomain["app1"]; n < int(linesPerDomain.atOnce) || n > int(linesPerDomain.atOnce)+50 || perDomain["app2"] != 1 || len(perDomain) != 2 {
		t.Fatalf("lines are %v", perDomain)
	}
	want := logrus.Fields{"log": "flow", "enterprise": "Ent \x1b[31m", "domain": "app1", "domainID": "app1", "policy": "pol", "policyID": "pol",
		"entry": uint32(70), "entryID": "e1", "direction": tenant.Egress, "action": "denied", "protocol": "tcp",
		"source": netip.MustParseAddr("10.0.0.7"), "destination": netip.MustParseAddr("10.0.0.9"), "sourcePort": uint16(40000), "destinationPort": uint16(80),
		"sourceVport": "web-v7", "sourceVportID": "v7", "destinationVport": "web-v9", "destinationVportID": "v9"}
	if got := all[0]; !reflect.DeepEqual(got.Data, want) || got.Message != "connection denied" || got.Level != logrus.InfoLevel {
		t.Errorf("line is %s %s\n%v, want\n%v", got.Level, got.Message, got.Data, want)
	}
	for _, e := range all {
		if e.Data["domainID"] == "app2" && (e.Message != "connection allowed" || e.Data["destinationVport"] != nil || e.Data["enterprise"] != nil) {
			t.Errorf("line is %s %v", e.Message, e.Data)
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// What is left out is counted for each domain, and said once, with what the switch left out
// before.
func TestFlowLogOmits(t *testing.T) {
	m, feed := newMemory(), tenant.NewFeed()
	m.port("nu7", 7)
	feed.Publish(1, append(base(), vport(7, "nu7"))...)
	log, lines := logtest.NewNullLogger()
	a, stop := start(t, Config{Feed: feed, Switch: m, Log: log})
	eventually(t, 5*time.Second, func() string { return errText(a.Status().Err) })
	stop()
	lines.Reset()
	drop := func(n uint64) {
		m.do(func() { m.gear.dropped[131073] = openflow.MeterStats{ID: 131073, Packets: n} })
	}
	l := newFlowLog(log)
	now := time.Unix(1000, 0)
	overflow := func() {
		for range 130 {
			l.allowed("app1", now)
		}
	}
	overflow()
	l.allowed("app2", now)
	drop(7000)
	a.sayOmitted(t.Context(), l)
	a.sayOmitted(t.Context(), l)
	if all := lines.AllEntries(); len(all) != 1 || all[0].Data["omitted"] != 30 || all[0].Data["unseen"] != uint64(7000) || all[0].Data["domain"] != "app1" || all[0].Data["log"] != "flow" {
		t.Errorf("%d lines: %+v", len(all), all)
	}
	if len(l.domains) != 0 {
		t.Errorf("%d domains are remembered", len(l.domains))
	}
	overflow()
	drop(7005)
	a.sayOmitted(t.Context(), l)
	if e := lines.LastEntry(); e.Data["omitted"] != 30 || e.Data["unseen"] != uint64(5) {
		t.Errorf("the next line: %+v", e.Data)
	}
}

func TestTuple(t *testing.T) {
	ip := func(proto byte, fragment, rest string) []byte {
		return unhex(peerMAC + clientMAC + "0800" + "45b8001c1234" + fragment + fmt.Sprintf("40%02x", proto) + "0000" + "0a000007" + "0a000009" + rest)
	}
	ends := tenant.Tuple{Src: netip.MustParseAddr("10.0.0.7"), Dst: netip.MustParseAddr("10.0.0.9"), DSCP: 46}
	for name, c := range map[string]struct {
		frame []byte
		set   func(*tenant.Tuple)
	}{
		"udp":      {ip(17, "0000", "00350036"), func(t *tenant.Tuple) { t.Protocol, t.SrcPort, t.DstPort = 17, 53, 54 }},
		"sctp":     {ip(132, "0000", "00350036"), func(t *tenant.Tuple) { t.Protocol, t.SrcPort, t.DstPort = 132, 53, 54 }},
		"icmp":     {ip(1, "0000", "0b010000"), func(t *tenant.Tuple) { t.Protocol, t.ICMPType, t.ICMPCode = 1, 11, 1 }},
		"gre":      {ip(47, "0000", "00350036"), func(t *tenant.Tuple) { t.Protocol = 47 }},
		"fragment": {ip(6, "0001", "00350036"), func(t *tenant.Tuple) { t.Protocol = 6 }},
		"cut":      {ip(6, "0000", "0035"), func(t *tenant.Tuple) { t.Protocol = 6 }},
	} {
		want := ends
		c.set(&want)
		if got, ok := tupleOf(c.frame); !ok || got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	for _, f := range [][]byte{nil, make([]byte, 100), ip(6, "0000", "")[:33]} {
		if _, ok := tupleOf(f); ok {
			t.Errorf("a tuple of %x", f)
		}
	}
}
