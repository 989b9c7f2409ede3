package pipeline

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"nuage/controller/tenant"
	"nuage/ovs/flow"
)

func vportKey(id string) tenant.Key { return tenant.Key{Kind: tenant.KindVport, ID: id} }

// flowsOf are the flows with an object's cookie.
func flowsOf(s flow.Set, k tenant.Key) int {
	n := 0
	for _, f := range s {
		if f.Cookie == Cookie(k) {
			n++
		}
	}
	return n
}

// Input that contradicts itself closes what came last, and says so.
func TestContradictions(t *testing.T) {
	subnet := func(id string) tenant.Key { return tenant.Key{Kind: tenant.KindSubnet, ID: id} }
	for _, c := range []struct {
		name   string
		change func(w *world)
		key    tenant.Key // gets no flows
		note   string
		keeps  tenant.Key // keeps its flows
	}{
		{"two vports with one address", func(w *world) { w.vport("late", "app1/web", "10.0.1.11", 50) },
			vportKey("late"), "address 10.0.1.11 belongs to vport app1/web-1", vportKey("app1/web-1")},
		{"the later one, whatever its name", func(w *world) { w.vport("aaa", "app1/web", "10.0.1.11", 50) },
			vportKey("aaa"), "address 10.0.1.11 belongs to vport app1/web-1", vportKey("app1/web-1")},
		{"one address, here and on another host", func(w *world) { w.vport("late", "app1/web", "10.0.1.99", 50) },
			vportKey("late"), "address 10.0.1.99 belongs to vport app1/web-far", vportKey("app1/web-far")},
		{"two vports with one MAC", func(w *world) {
			w.vport("late", "app1/web", "10.0.1.50", 50).MAC = w.state.Vports["app1/web-1"].MAC
		}, vportKey("late"), "MAC 02:00:00:00:00:05 belongs to vport app1/web-1", vportKey("app1/web-1")},
		{"two vports with one MAC, the later by a clock that is behind", func(w *world) {
			first, late := w.state.Vports["app1/web-1"], w.vport("late", "app1/web", "10.0.1.50", 50)
			first.Committed, late.Committed = 7, 8
			late.MAC, late.Created = first.MAC, first.Created.Add(-time.Minute)
		}, vportKey("late"), "MAC 02:00:00:00:00:05 belongs to vport app1/web-1", vportKey("app1/web-1")},
		{"two vports on one port", func(w *world) { w.vport("late", "other/db", "10.0.2.50", 10) },
			vportKey("late"), "port number 10 belongs to vport app1/web-1", vportKey("app1/web-1")},
		{"gateway's address", func(w *world) { w.vport("late", "app1/web", "10.0.1.1", 50) },
			vportKey("late"), "address 10.0.1.1 belongs to subnet app1/web", subnet("app1/web")},
		{"gateway's MAC", func(w *world) { w.vport("late", "app1/web", "10.0.1.50", 50).MAC = tenant.GatewayMAC },
			vportKey("late"), "is not one for a vport", vportKey("app1/web-1")},
		{"address of another subnet", func(w *world) { w.vport("late", "app1/web", "10.0.2.50", 50) },
			vportKey("late"), "not an IPv4 address of 10.0.1.0/24", vportKey("app1/web-1")},
		{"no port", func(w *world) { w.vport("late", "app1/web", "10.0.1.50", 50); delete(w.ports, "nu50") },
			vportKey("late"), `port "nu50" is not on the bridge`, vportKey("app1/web-1")},
		{"no subnet", func(w *world) { w.vport("late", "gone", "10.0.1.50", 50) },
			vportKey("late"), "subnet gone does not exist", vportKey("app1/web-1")},
		{"no domain", func(w *world) { w.subnet("late", "gone", "10.9.0.0/24", 77); w.vport("v", "late", "10.9.0.5", 50) },
			subnet("late"), "domain gone does not exist", vportKey("app1/web-1")},
		{"two subnets with one VNI", func(w *world) { w.subnet("late", "app1", "10.9.0.0/24", 1000) },
			subnet("late"), "VNI 1000 belongs to subnet app1/web", subnet("app1/web")},
		{"vport of such a subnet", func(w *world) { w.subnet("x", "app1", "10.9.0.0/24", 1000); w.vport("late", "x", "10.9.0.5", 50) },
			vportKey("late"), "subnet x has no flows", vportKey("app1/web-1")},
		{"two domains with one number", func(w *world) {
			w.domain("late", 1)
			w.subnet("x", "late", "10.0.1.0/24", 77)
			w.vport("v", "x", "10.0.1.11", 50)
		},
			tenant.Key{Kind: tenant.KindDomain, ID: "late"}, "domain number 1 belongs to domain app1", vportKey("app1/web-1")},
		{"vport of such a domain", func(w *world) {
			w.domain("y", 1)
			w.subnet("x", "y", "10.0.1.0/24", 77)
			w.vport("late", "x", "10.0.1.11", 50)
		},
			vportKey("late"), "subnet x has no flows", vportKey("app1/web-1")},
		{"subnet and vport of different domains", func(w *world) { w.vport("late", "app1/web", "10.0.1.50", 50).DomainID = "other" },
			vportKey("late"), "is of another domain", vportKey("app1/web-1")},
		{"VNI out of range", func(w *world) { w.subnet("late", "app1", "10.9.0.0/24", 1<<24) },
			subnet("late"), "VNI 16777216 is not in", subnet("app1/web")},
		{"zero subnet", func(w *world) {
			w.put(tenant.KindSubnet, "late", &tenant.Subnet{Meta: w.meta("late"), DomainID: "app1", VNI: 9})
		}, subnet("late"), "is not an IPv4 address of", subnet("app1/web")},
		{"zero vport", func(w *world) {
			w.put(tenant.KindVport, "late", &tenant.Vport{Meta: w.meta("late"), Host: thisHost, SubnetID: "app1/web", DomainID: "app1"})
		}, vportKey("late"), "is not one for a vport", vportKey("app1/web-1")},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := twoTenants()
			before := mustCompile(t, w)
			c.change(w)
			flows, notes := Compile(w.input())
			if n := flowsOf(flows, c.key); n != 0 {
				t.Errorf("%v has %d flows", c.key, n)
			}
			if !strings.Contains(notes[c.key], c.note) {
				t.Errorf("note %q, want %q", notes[c.key], c.note)
			}
			if have := flowsOf(flows, c.keeps); have == 0 || have != flowsOf(before, c.keeps) {
				t.Errorf("%v has %d flows now, %d before", c.keeps, have, flowsOf(before, c.keeps))
			}
		})
	}
}

// Why a vport is not attached is told on its own host, and nowhere else.
func TestUnattachedVportIsNotedOnItsHost(t *testing.T) {
	for port, want := range map[uint32]string{50: "vport late: not attached: the address is another's", 0: ""} {
		w := twoTenants()
		v := w.vport("late", "app1/web", "10.0.1.50", port)
		v.IPv4, v.Error = netip.Addr{}, "the address is another's"
		flows, notes := Compile(w.input())
		if n := flowsOf(flows, vportKey("late")); n != 0 || notes[vportKey("late")] != want {
			t.Errorf("port %d: %d flows, note %q, want %q", port, n, notes[vportKey("late")], want)
		}
	}
}

// A domain that has no vport here costs nothing here.
func TestAbsentDomainHasNoFlows(t *testing.T) {
	w := twoTenants()
	before := len(mustCompile(t, w))
	w.domain("elsewhere", 9)
	w.subnet("elsewhere/web", "elsewhere", "10.0.1.0/24", 900)
	for i := range 50 {
		w.vport(fmt.Sprintf("elsewhere/%d", i), "elsewhere/web", fmt.Sprintf("10.0.1.%d", i+2), 0)
	}
	if after := len(mustCompile(t, w)); after != before {
		t.Errorf("%d flows, %d without a domain that is elsewhere", after, before)
	}
	w.vport("elsewhere/here", "elsewhere/web", "10.0.1.200", 99)
	if after := len(mustCompile(t, w)); after <= before+50 {
		t.Errorf("%d flows, %d without the domain that is now here", after, before)
	}
}

// The numbers of docs/pipeline.md.
func TestFlowsPerObject(t *testing.T) {
	w := policed()
	any := w.entry("in", 100, tenant.Forward, tenant.Entry{})
	tcp := w.entry("in", 101, tenant.Forward, tenant.Entry{Protocol: tenant.TCP, Stateful: true})
	stateless := w.entry("in", 102, tenant.Forward, tenant.Entry{Protocol: tenant.UDP})
	sctp := w.entry("in", 103, tenant.Deny, tenant.Entry{Protocol: tenant.SCTP})
	ports := w.entry("in", 104, tenant.Forward, tenant.Entry{Protocol: tenant.TCP, Stateful: true, DestinationPort: tenant.PortRange{From: 1, To: 65534}})
	counted := w.entry("in", 105, tenant.Forward, tenant.Entry{Protocol: tenant.TCP, Stateful: true, StatsLogging: true})
	logged := w.entry("in", 106, tenant.Forward, tenant.Entry{Protocol: tenant.TCP, Stateful: true, FlowLogging: true})
	flows := mustCompile(t, w)
	for k, want := range map[tenant.Key]int{
		vportKey("app1/web-2"):                      flowsPerLocalVport + flowsPerMeter,
		vportKey("app1/web-1"):                      flowsPerLocalVport + flowsPerMember + flowsPerMeter,
		vportKey("app1/web-far"):                    flowsPerRemoteVport + flowsPerMember,
		{Kind: tenant.KindSubnet, ID: "app1/web"}:   flowsPerSubnet,
		{Kind: tenant.KindZone, ID: "app1/back"}:    flowsPerZone,
		{Kind: tenant.KindDomain, ID: "app1"}:       flowsPerPolicedDomain,
		{Kind: tenant.KindDomain, ID: "other"}:      flowsPerDomain,
		{Kind: tenant.KindPolicyGroup, ID: "web"}:   0,
		{Kind: tenant.KindPolicy, ID: "in"}:         flowsPerDefault,
		{Kind: tenant.KindHost, ID: otherHost}:      flowsPerHost,
		{Kind: tenant.KindHost, ID: thisHost}:       0,
		{Kind: tenant.KindNetworkMacro, ID: "corp"}: 0,
		SwitchKey: flowsPerSwitch,
		any:       1, tcp: 1, stateless: 2, sctp: 1, ports: 30, counted: 2, logged: 2,
	} {
		if n := flowsOf(flows, k); n != want {
			t.Errorf("%v has %d flows, want %d", k, n, want)
		}
	}
}

const (
	flowsPerLocalVport    = 15
	flowsPerRemoteVport   = 4
	flowsPerMember        = 2
	flowsPerMeter         = 1
	flowsPerSubnet        = 8
	flowsPerZone          = 1
	flowsPerDomain        = 8
	flowsPerPolicedDomain = 22
	flowsPerDefault       = 2
	flowsPerHost          = 3
	flowsPerSwitch        = 35
)
