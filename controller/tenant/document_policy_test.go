package tenant

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const threeTiers = `
enterprise: DCEnterprise
networkMacros: [{name: corp, address: 192.0.2.0/24}]
domains:
  - name: App1
    zones:
      - {name: DockerZone, subnets: [{name: PrivateSubnet, address: 10.85.85.0/24}, {name: web, address: 10.85.86.0/24}]}
      - {name: VMZone, subnets: [{name: VMSubnet, address: 10.34.49.0/24}, {name: web, address: 10.34.50.0/24}]}
    policyGroups: [web, {name: db, description: the databases}]
    policies:
      - name: web-to-db
        direction: egress
        priority: 100
        entries:
          - {priority: 10, action: FORWARD, protocol: tcp, destinationPort: 5432, from: {policyGroup: web}, to: {policyGroup: db}, statsLogging: true}
          - {priority: 15, action: forward, protocol: icmp, icmpType: 8, icmpCode: 0, from: sameZone, to: {subnet: VMZone/web}, stateful: false}
          - {priority: 20, action: DROP, protocol: any, from: any, to: any, flowLogging: true, description: "the rest: dropped"}
      - name: out
        direction: ingress
        priority: 100
        active: false
        defaultAllowIP: true
        entries:
          - {priority: 1, action: REJECT, protocol: udp, sourcePort: 1000-2000, from: {zone: VMZone}, to: {networkMacro: corp}}
          - {priority: 2, action: FORWARD, dscp: 46, to: {cidr: 10.0.0.0/8}}
    rateLimiters:
      - {on: {zone: DockerZone}, direction: ingress, rate: 100mbit, burst: 10Mbit/s}
      - {on: domain, direction: egress, rate: 1.5gbit}
      - {on: {subnet: PrivateSubnet}, direction: ingress, rate: 200kbit}
`

func TestPlanPolicies(t *testing.T) {
	s := NewState()
	steps, err := Plan(s, mustParse(t, threeTiers), counter())
	if err != nil {
		t.Fatal(err)
	}
	want := `create enterprises DCEnterprise ()
create networkmacros DCEnterprise/corp (192.0.2.0/24)
create domains DCEnterprise/App1 ()
create zones DCEnterprise/App1/DockerZone ()
create subnets DCEnterprise/App1/DockerZone/PrivateSubnet (10.85.85.0/24, gateway 10.85.85.1)
create subnets DCEnterprise/App1/DockerZone/web (10.85.86.0/24, gateway 10.85.86.1)
create zones DCEnterprise/App1/VMZone ()
create subnets DCEnterprise/App1/VMZone/VMSubnet (10.34.49.0/24, gateway 10.34.49.1)
create subnets DCEnterprise/App1/VMZone/web (10.34.50.0/24, gateway 10.34.50.1)
create policygroups DCEnterprise/App1/web ()
create policygroups DCEnterprise/App1/db (description "the databases")
create policies DCEnterprise/App1/web-to-db (egress, priority 100, inactive until its entries are there)
create entries DCEnterprise/App1/web-to-db/10 (FORWARD tcp 5432, from policy group web to policy group db, stateful, statsLogging)
create entries DCEnterprise/App1/web-to-db/15 (FORWARD icmp type 8 code 0, from same zone to subnet VMZone/web, stateless)
create entries DCEnterprise/App1/web-to-db/20 (DROP any, from any to any, flowLogging, description "the rest: dropped")
create policies DCEnterprise/App1/out (ingress, priority 100, defaultAllowIP true)
create entries DCEnterprise/App1/out/1 (REJECT udp from port 1000-2000, from zone VMZone to network macro corp)
create entries DCEnterprise/App1/out/2 (FORWARD any dscp 46, from any to 10.0.0.0/8, stateless)
update policies DCEnterprise/App1/web-to-db (active true)
create ratelimiters DCEnterprise/App1/ingress of zone DockerZone (100mbit, burst 10mbit)
create ratelimiters DCEnterprise/App1/egress of domain (1500mbit)
create ratelimiters DCEnterprise/App1/ingress of subnet PrivateSubnet (200kbit)`
	if got := joined(steps); got != want {
		t.Fatalf("steps:\n%s", got)
	}
	execute(s, steps)
	if again, err := Plan(s, mustParse(t, threeTiers), counter()); err != nil || len(again) != 0 {
		t.Errorf("the same again: %v, %v", joined(again), err)
	}
	d := s.DomainByName(s.EnterpriseByName("DCEnterprise").ID, "App1")
	got := *s.EntryByPriority(s.PolicyByName(d.ID, "web-to-db").ID, 15)
	wanted := Entry{Meta: got.Meta, DomainID: d.ID, PolicyID: got.PolicyID, Priority: 15, Action: Forward, Protocol: ICMP, ICMPType: SomeByte(8), ICMPCode: SomeByte(0),
		From: Side{Kind: SideSameZone}, To: Side{Kind: SideSubnet, ID: s.SubnetByName(s.ZoneByName(d.ID, "VMZone").ID, "web").ID}}
	if got != wanted {
		t.Errorf("entry:\n%+v, want\n%+v", got, wanted)
	}
	l := s.LimiterOn(Key{KindZone, s.ZoneByName(d.ID, "DockerZone").ID}, Ingress)
	if l == nil || l.Rate != 100_000_000 || l.Burst != 10_000_000 {
		t.Errorf("limiter: %+v", l)
	}
}

func threeTierState(t *testing.T) *State {
	s := NewState()
	steps, err := Plan(s, mustParse(t, threeTiers), counter())
	if err != nil {
		t.Fatal(err)
	}
	execute(s, steps)
	return s
}

// inApp1 is a document about App1 with a text of two more levels in.
const inApp1 = "enterprise: DCEnterprise\ndomains:\n- name: App1\n  "

func TestPlanPolicyChanges(t *testing.T) {
	two := inApp1 + "policies:\n  - {name: out, direction: ingress, priority: 100, active: false}\n  - {name: other, direction: ingress, priority: 200}"
	for _, c := range []struct{ name, before, text, want string }{
		{"entries listed are all", "", inApp1 + "policies:\n  - {name: web-to-db, direction: egress, priority: 100, entries: [{priority: 20, action: DROP}, {priority: 5, action: FORWARD}]}",
			`update entries DCEnterprise/App1/web-to-db/20 (DROP any, from any to any)
create entries DCEnterprise/App1/web-to-db/5 (FORWARD any, from any to any, stateful)
delete entries DCEnterprise/App1/web-to-db/10 (not in the file any more: FORWARD tcp 5432, from policy group web to policy group db, stateful, statsLogging)
delete entries DCEnterprise/App1/web-to-db/15 (not in the file any more: FORWARD icmp type 8 code 0, from same zone to subnet VMZone/web, stateless)`},
		{"no entries mentioned", "", inApp1 + "policies:\n  - {name: web-to-db, direction: egress, priority: 100}", ""},
		{"no entries left", "", inApp1 + "policies:\n  - {name: out, direction: ingress, priority: 100, entries: []}",
			`delete entries DCEnterprise/App1/out/1 (not in the file any more: REJECT udp from port 1000-2000, from zone VMZone to network macro corp)
delete entries DCEnterprise/App1/out/2 (not in the file any more: FORWARD any dscp 46, from any to 10.0.0.0/8, stateless)`},
		{"switched off", "", inApp1 + "policies:\n  - {name: web-to-db, direction: egress, priority: 7, active: false}",
			"update policies DCEnterprise/App1/web-to-db (priority 7, active false)"},
		{"swapped", two, inApp1 + "policies:\n  - {name: other, direction: ingress, priority: 100}\n  - {name: out, direction: ingress, priority: 200}",
			`update policies DCEnterprise/App1/other (priority 201 for a moment, to make room)
update policies DCEnterprise/App1/out (priority 200)
update policies DCEnterprise/App1/other (priority 100)`},
		{"pushed away", "", inApp1 + "policies:\n  - {name: new, direction: ingress, priority: 100}\n  - {name: out, direction: ingress, priority: 110}",
			`create policies DCEnterprise/App1/new (ingress, priority 101, inactive until its entries are there)
update policies DCEnterprise/App1/out (priority 110)
update policies DCEnterprise/App1/new (priority 100, active true)`},
		{"limiter", "", inApp1 + "rateLimiters: [{on: {zone: DockerZone}, direction: ingress, rate: 100mbit}]",
			"update ratelimiters DCEnterprise/App1/ingress of zone DockerZone (100mbit)"},
		{"limiter of a vport", "", inApp1 + "rateLimiters: [{on: {vport: web-1}, direction: egress, rate: 1mbit}]",
			"create ratelimiters DCEnterprise/App1/egress of vport web-1 (1mbit)"},
		{"macro", "", "enterprise: DCEnterprise\nnetworkMacros: [{name: corp, address: 192.0.2.7/32, description: x}]", `update networkmacros DCEnterprise/corp (192.0.2.7/32, description "x")`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := threeTierState(t)
			private := subnetOf(s, "PrivateSubnet")
			s.Apply(Change{Key{KindVport, "v"}, &Vport{Meta: Meta{ID: "v"}, Name: "web-1", DomainID: private.DomainID, ZoneID: private.ZoneID, SubnetID: private.ID}})
			if c.before != "" {
				steps, err := Plan(s, mustParse(t, c.before), func() string { return "00000000-0000-0000-1111-000000000000" })
				if err != nil {
					t.Fatal(err)
				}
				execute(s, steps)
			}
			id := counter()
			steps, err := Plan(s, mustParse(t, c.text), func() string { return strings.Replace(id(), "0000", "ffff", 1) })
			if got := joined(steps); err != nil || got != c.want {
				t.Fatalf("steps:\n%s\nwant:\n%s\nerror: %v", got, c.want, err)
			}
			execute(s, steps)
			if again, err := Plan(s, mustParse(t, c.text), counter()); err != nil || len(again) != 0 {
				t.Errorf("the same again: %v, %v", joined(again), err)
			}
		})
	}
}

func TestPolicyDocumentsRefuse(t *testing.T) {
	entry := func(e string) string {
		return inApp1 + "policies:\n  - {name: p, direction: egress, priority: 1, entries: [\n    " + e + "]}"
	}
	for _, c := range []struct{ name, text, want string }{
		{"direction", inApp1 + "policies: [{name: p, direction: in, priority: 1}]", `line 4: direction "in" is neither ingress (from the vport into the network) nor egress`},
		{"no priority", inApp1 + "policies: [{name: p, direction: egress}]", `line 4: a policy needs the key "priority"`},
		{"priority", inApp1 + "policies: [{name: p, direction: egress, priority: -1}]", `priority: "-1" is not a whole number`},
		{"active", inApp1 + "policies: [{name: p, direction: egress, priority: 1, active: yes please}]", `active must be true or false, found "yes please"`},
		{"direction of an existing one", inApp1 + "policies: [{name: out, direction: egress, priority: 1}]", "line 4: DCEnterprise/App1: policy out: it is an ingress policy"},
		{"priority of another", inApp1 + "policies: [{name: p, direction: egress, priority: 100}]", "line 4: DCEnterprise/App1: policy p: priority 100 is that of egress policy web-to-db"},
		{"priority twice in the file", inApp1 + "policies:\n  - {name: p, direction: egress, priority: 1}\n  - {name: q, direction: egress, priority: 1}", "line 6: DCEnterprise/App1: policy q: priority 1 is that of egress policy p"},
		{"policy twice", inApp1 + "policies:\n  - {name: p, direction: egress, priority: 1}\n  - {name: p, direction: egress, priority: 2}", "line 6: DCEnterprise/App1: policy p: defined twice, first in line 5"},
		{"entry priority twice", entry("{priority: 1, action: DROP},\n    {priority: 1, action: FORWARD}"), "line 7: DCEnterprise/App1/p: entry 1: another entry of the policy has this priority, in line 6"},
		{"action", entry("{priority: 1, action: ALLOW}"), `line 6: DCEnterprise/App1/p: entry 1: action "ALLOW" is neither`},
		{"protocol", entry("{priority: 1, action: DROP, protocol: tpc}"), `line 6: protocol: protocol "tpc" is neither`},
		{"ports without tcp", entry("{priority: 1, action: DROP, destinationPort: 80}"), "entry 1: protocol any has no ports"},
		{"port range", entry("{priority: 1, action: DROP, protocol: tcp, destinationPort: 90-80}"), `line 6: destinationPort: port range "90-80" ends before it begins`},
		{"port number", entry("{priority: 1, action: DROP, protocol: tcp, sourcePort: 65536}"), `sourcePort: port "65536" is neither`},
		{"side", entry("{priority: 1, action: DROP, from: everybody}"), `line 6: from must be any, sameZone`},
		{"side of two", entry("{priority: 1, action: DROP, from: {zone: VMZone, subnet: VMSubnet}}"), `from must be any`},
		{"side of another kind", entry("{priority: 1, action: DROP, to: {group: web}}"), `line 6: a to has no key "group"`},
		{"cidr", entry("{priority: 1, action: DROP, to: {cidr: 10.0.0.1}}"), `cidr "10.0.0.1" is not a network`},
		{"host bits", entry("{priority: 1, action: DROP, to: {cidr: 10.0.0.1/8}}"), `entry 1: to: 10.0.0.1/8 has host bits set`},
		{"unknown group", entry("{priority: 1, action: DROP, from: {policyGroup: wep}}"), "line 6: DCEnterprise/App1/p: entry 1: from: policy group wep not found in domain App1, which has db, web"},
		{"group of another domain", "enterprise: DCEnterprise\ndomains:\n- {name: D, policyGroups: [far]}\n---\n" + entry("{priority: 1, action: DROP, from: {policyGroup: far}}"), "line 10: DCEnterprise/App1/p: entry 1: from: policy group far not found in domain App1, only in another"},
		{"unknown macro", entry("{priority: 1, action: DROP, to: {networkMacro: nowhere}}"), "to: network macro nowhere not found in enterprise DCEnterprise"},
		{"subnet of two zones", entry("{priority: 1, action: DROP, to: {subnet: web}}"), "to: there are 2 subnets web in domain App1: name it ZONE/SUBNET"},
		{"unknown subnet", entry("{priority: 1, action: DROP, to: {subnet: VMZone/nosuch}}"), "to: subnet VMZone/nosuch not found in domain App1"},
		{"stateful dscp", entry("{priority: 1, action: FORWARD, dscp: 1, stateful: true}"), "cannot be stateful"},
		{"both the same", entry("{priority: 1, action: FORWARD, from: sameZone, to: sameZone}"), "one of them must be named"},
		{"rate", inApp1 + "rateLimiters: [{on: domain, direction: ingress, rate: 100}]", `line 4: rate: "100" is not a number with a unit`},
		{"rate too low", inApp1 + "rateLimiters: [{on: domain, direction: ingress, rate: 1bit}]", "line 4: DCEnterprise/App1: rate limiter: ingress of domain: rate 1 bit/s is not between"},
		{"on what", inApp1 + "rateLimiters: [{on: zone, direction: ingress, rate: 1mbit}]", "on must be domain, {zone: NAME}"},
		{"unknown zone", inApp1 + "rateLimiters: [{on: {zone: Z}, direction: ingress, rate: 1mbit}]", "rate limiter: ingress of zone Z: zone Z not found in domain App1, which has DockerZone, VMZone"},
		{"unknown vport", inApp1 + "rateLimiters: [{on: {vport: v}, direction: ingress, rate: 1mbit}]", "vport v not found in domain App1"},
		{"limiter twice", inApp1 + "rateLimiters:\n  - {on: {subnet: VMSubnet}, direction: ingress, rate: 1mbit}\n  - {on: {subnet: VMZone/VMSubnet}, direction: ingress, rate: 2mbit}", "line 6: DCEnterprise/App1: rate limiter: ingress of subnet VMZone/VMSubnet: defined twice, first in line 5"},
		{"group twice", inApp1 + "policyGroups: [new, new]", "policy group new: defined twice"},
		{"too many groups", inApp1 + "policyGroups: [" + numbered(127) + "]", "a domain has at most 128 policy groups"},
		{"macro address", "enterprise: DCEnterprise\nnetworkMacros: [{name: m, address: 'fd00::/64'}]", "line 2: DCEnterprise: network macro m: fd00::/64 is not an IPv4 prefix"},
	} {
		t.Run(c.name, func(t *testing.T) {
			docs, err := ParseDocuments([]byte(c.text))
			if err == nil {
				var steps []Step
				if steps, err = Plan(threeTierState(t), docs, counter()); steps != nil {
					t.Errorf("steps: %s", joined(steps))
				}
			}
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func numbered(n int) string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf("g%d", i))
	}
	return strings.Join(names, ", ")
}

func TestExportPolicies(t *testing.T) {
	text, err := FormatDocuments(Export(threeTierState(t), ""))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/policies.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != string(want) {
		t.Errorf("export:\n%s", text)
	}
}

// TestPlanReaches holds a plan to its end: from any state to any other of the same names,
// with steps of which the store refuses none.
func TestPlanReaches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genState(t)
		docs := genChange(t, Export(s, ""))
		steps, err := Plan(s, docs, counter())
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range steps {
			if p, ok := st.Object.(*Policy); ok && st.Op == OpCreate && p.Active {
				t.Fatalf("policy %s is active before its entries are there", p.Name)
			}
		}
		execute(s, steps)
		if again, err := Plan(s, docs, counter()); err != nil || len(again) != 0 {
			t.Fatalf("the same again: %v, %v", joined(again), err)
		}
	})
}

func TestRates(t *testing.T) {
	for text, want := range map[string]uint64{"100mbit": 1e8, "10Mbit/s": 1e7, "1.5gbit": 15e8, "0.1 mbit": 1e5, "7bit": 7, "0kbit": 0, "250KBIT": 250_000} {
		got, err := ParseRate(text)
		if err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "mbit", "100", "-1mbit", "1e9bit", "0.5bit", "1/2mbit", "1..2mbit", "10mb", "1 tbit", strings.Repeat("9", 40) + "bit", "99999999999999gbit"} {
		if got, err := ParseRate(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint64().Draw(t, "bits")
		if got, err := ParseRate(FormatRate(n)); err != nil || got != n {
			t.Fatalf("%d: %q: %d, %v", n, FormatRate(n), got, err)
		}
	})
}

// TestRuleOf holds the words of an entry to what it is: no field of the model is forgotten.
func TestRuleOf(t *testing.T) {
	s := threeTierState(t)
	for _, e := range s.Entries {
		r := s.RuleOf(e)
		if r.Entry.ID != "" || r.Entry.PolicyID != "" {
			t.Errorf("rule with IDs: %+v", r)
		}
	}
	if n := reflect.TypeFor[Entry]().NumField(); n != 17 {
		t.Errorf("an entry has %d fields: does the format know the new ones?", n)
	}
	dangling := s.RuleOf(&Entry{From: Side{Kind: SidePolicyGroup, ID: "gone"}, To: Side{Kind: SideCIDR, CIDR: netip.MustParsePrefix("10.0.0.0/8")}})
	if dangling.From.Name != "gone" || dangling.To.String() != "10.0.0.0/8" {
		t.Errorf("dangling: %+v", dangling)
	}
}
