package pipeline

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"nuage/controller/tenant"
	"nuage/ovs/flow"
)

// touched makes a change and tells whose flows changed, and how many.
func touched(c *Compiler, w *world, k tenant.Key, value any) map[tenant.Key]int {
	before := map[flow.Key]uint64{}
	for id, f := range c.Flows() {
		before[id] = f.Cookie
	}
	w.state.Apply(tenant.Change{Key: k, Value: value})
	owners := map[tenant.Key]int{}
	for _, id := range c.Update(w.state, []tenant.Key{k}) {
		cookie, ok := before[id]
		if f, now := c.Flows()[id]; now {
			cookie, ok = f.Cookie, true
		}
		if owner, known := c.Owner(cookie); ok && known {
			owners[owner]++
		} else {
			owners[k]++ // of an object that is gone
		}
	}
	return owners
}

// A change touches the flows that it must, and no others.
func TestWhatAChangeTouches(t *testing.T) {
	w := policed()
	for i := range 50 { // neighbours that have nothing to do with it
		w.entry("in", uint32(1000+i), tenant.Forward, tenant.Entry{Protocol: tenant.TCP, Stateful: true})
		w.vport(fmt.Sprintf("app1/more-%d", i), "app1/db", fmt.Sprintf("10.0.2.%d", 120+i), uint32(100+i))
	}
	c := NewCompiler(thisHost)
	c.SetPorts(w.ports, tunnelPort)
	c.SetShaping(true)
	c.Update(w.state, allKeys(w.state))
	key := func(k tenant.Kind, id string) tenant.Key { return tenant.Key{Kind: k, ID: id} }
	domain, in, out := key(tenant.KindDomain, "app1"), key(tenant.KindPolicy, "in"), key(tenant.KindPolicy, "out")
	entry := func(id string, edit func(*tenant.Entry)) any { e := *w.state.Entries[id]; edit(&e); return &e }
	vport := func(id string, edit func(*tenant.Vport)) any { v := *w.state.Vports[id]; edit(&v); return &v }
	policy := func(id string, edit func(*tenant.Policy)) any { p := *w.state.Policies[id]; edit(&p); return &p }
	limiter := func(id string, edit func(*tenant.RateLimiter)) any {
		l := *w.state.RateLimiters[id]
		edit(&l)
		return &l
	}
	for _, s := range []struct {
		name  string
		key   tenant.Key
		value func() any
		want  map[tenant.Key]int
	}{
		{"nothing", in, func() any { return policy("in", func(p *tenant.Policy) { p.Description = "d" }) }, nil},
		{"joins a group", vportKey("app1/web-2"), func() any { return vport("app1/web-2", func(v *tenant.Vport) { v.PolicyGroups = []string{"web"} }) },
			map[tenant.Key]int{vportKey("app1/web-2"): 2}},
		{"joins another", vportKey("app1/web-2"), func() any {
			return vport("app1/web-2", func(v *tenant.Vport) { v.PolicyGroups = []string{"web", "db"} })
		},
			map[tenant.Key]int{vportKey("app1/web-2"): 2}},
		{"joins a group that is not there", vportKey("app1/web-2"), func() any {
			return vport("app1/web-2", func(v *tenant.Vport) { v.PolicyGroups = []string{"web", "db", "x"} })
		}, nil},
		{"the group comes", key(tenant.KindPolicyGroup, "x"), func() any {
			return &tenant.PolicyGroup{Meta: w.meta("x"), Name: "x", DomainID: "app1", Number: 33}
		}, map[tenant.Key]int{vportKey("app1/web-2"): 2}},
		{"a member on another host leaves", vportKey("app1/web-far"), func() any { return vport("app1/web-far", func(v *tenant.Vport) { v.PolicyGroups = nil }) },
			map[tenant.Key]int{vportKey("app1/web-far"): 2}},
		{"an entry's action", key(tenant.KindEntry, "in/10"), func() any { return entry("in/10", func(e *tenant.Entry) { e.Action = tenant.Deny }) },
			map[tenant.Key]int{key(tenant.KindEntry, "in/10"): 4}}, // and what is out of state, now
		{"an entry's priority", key(tenant.KindEntry, "in/20"), func() any { return entry("in/20", func(e *tenant.Entry) { e.Priority = 25 }) },
			map[tenant.Key]int{key(tenant.KindEntry, "in/20"): 4}},
		{"a new page", key(tenant.KindEntry, "in/20"), func() any { return entry("in/20", func(e *tenant.Entry) { e.Priority = 90_000 }) },
			map[tenant.Key]int{key(tenant.KindEntry, "in/20"): 4, domain: 1}},
		{"the last of a page goes", key(tenant.KindEntry, "in/20"), func() any { return nil }, map[tenant.Key]int{key(tenant.KindEntry, "in/20"): 2, domain: 1}},
		{"a policy's priority, alone in its direction", in, func() any { return policy("in", func(p *tenant.Policy) { p.Priority = 7 }) }, nil},
		{"a default", out, func() any { return policy("out", func(p *tenant.Policy) { p.DefaultAllowIP = false }) }, map[tenant.Key]int{out: 2}},
		{"a policy comes", key(tenant.KindPolicy, "more"), func() any {
			return &tenant.Policy{Meta: w.meta("more"), Name: "more", DomainID: "app1", Direction: tenant.Ingress, Priority: 9, Active: true, Number: 9}
		}, map[tenant.Key]int{out: 2, key(tenant.KindPolicy, "more"): 2}}, // of one identity: the default's new owner
		{"a macro's prefix", key(tenant.KindNetworkMacro, "corp"), func() any {
			return &tenant.NetworkMacro{Meta: w.state.NetworkMacros["corp"].Meta, Name: "corp", CIDR: netip.MustParsePrefix("10.0.0.0/16")}
		}, map[tenant.Key]int{key(tenant.KindEntry, "out/5"): 12}},
		{"a zone's limiter", key(tenant.KindRateLimiter, "l1"), func() any { return limiter("l1", func(l *tenant.RateLimiter) { l.Rate = 20_000_000 }) }, nil}, // the meter changes
		{"a zone's limiter goes", key(tenant.KindRateLimiter, "l1"), func() any { return nil },
			map[tenant.Key]int{vportKey("app1/web-1"): 1, vportKey("app1/web-2"): 1}},
		{"a virtual IP", vportKey("app1/db-1"), func() any {
			return vport("app1/db-1", func(v *tenant.Vport) {
				v.VirtualIPs = []tenant.VirtualIP{{IPv4: netip.MustParseAddr("10.0.2.250")}}
			})
		}, map[tenant.Key]int{vportKey("app1/db-1"): 6}},
		{"the same for another", vportKey("app1/db-2"), func() any {
			return vport("app1/db-2", func(v *tenant.Vport) {
				v.VirtualIPs = []tenant.VirtualIP{{IPv4: netip.MustParseAddr("10.0.2.250")}}
			})
		}, map[tenant.Key]int{vportKey("app1/db-2"): 2}}, // may send from it, no more
	} {
		got := touched(c, w, s.key, s.value())
		if s.name == "a policy comes" { // its flows replace those of the other
			got[out] = 2
		}
		if fmt.Sprint(got) != fmt.Sprint(s.want) && len(got)+len(s.want) > 0 {
			t.Errorf("%s: touches %v, want %v", s.name, got, s.want)
		}
	}
	if got := c.Meters(); len(got) != 0 {
		t.Errorf("meters %v", got)
	}
	if got, want := c.Shapes(), (Limit{20_000_000, 10_000_000}); len(got) != 1 || got["nu12"] != want {
		t.Errorf("shapes %v", got)
	}
	if got := c.Zones(); len(got) != 1 || got[1] != "app1" {
		t.Errorf("zones %v", got)
	}
}

// Within a page and over its bounds, the lower number is asked first, what it logs included.
func TestEntryOrder(t *testing.T) {
	place := func(priority uint32) (element uint16, lowest, highest uint16) {
		w := policed()
		k := w.entry("in", priority, tenant.Forward, tenant.Entry{FlowLogging: true, StatsLogging: true})
		for _, f := range mustCompile(t, w) {
			if f.Cookie != Cookie(k) {
				continue
			}
			m, _ := f.Match.Get(regElement)
			element = uint16(m.Uint())
			if highest = max(highest, f.Priority); lowest == 0 || f.Priority < lowest {
				lowest = f.Priority
			}
		}
		return element, lowest, highest
	}
	for _, p := range []uint32{0, 1, 29_998, 29_999, 30_000, 59_999, 60_000, tenant.MaxPriority - 1} {
		e1, lowest, _ := place(p)
		e2, _, highest := place(p + 1)
		if e1 > e2 || e1 == e2 && lowest <= highest {
			t.Errorf("%d is in page %d at %d and up, %d in page %d up to %d", p, e1, lowest, p+1, e2, highest)
		}
		if e1 != uint16(p/pageSize) || lowest == 0 {
			t.Errorf("%d is in page %d at %d", p, e1, lowest)
		}
	}
}

// The longest chains work on the switch in both directions, for a reply that is asked about
// twice; one page more closes the direction.
func TestLongestChain(t *testing.T) {
	w := twoTenants()
	all := tenant.PortRange{}
	for _, d := range []tenant.Direction{tenant.Ingress, tenant.Egress} {
		w.policy(string(d), "app1", d, 1)
		for i := range uint32(maxElements - 1) {
			w.entry(string(d), i*pageSize, tenant.Deny, tenant.Entry{Protocol: tenant.TCP, DestinationPort: tenant.PortRange{From: 7, To: 7}})
		}
		w.entry(string(d), tenant.MaxPriority, tenant.Forward, tenant.Entry{Protocol: tenant.TCP, DestinationPort: all})
	}
	l := newLab(t)
	l.load(t, w)
	me, you := w.state.Vports["app1/web-1"], w.state.Vports["app1/db-far"]
	p := ping(me, tenant.GatewayMAC, you.IPv4.String())
	p.Protocol, p.ICMPType, p.SrcPort, p.DstPort, p.Track = 6, 0, 5000, 80, tenant.TrackReply
	p.Of = tenant.Tuple{Src: p.Dst, Dst: p.Src, Protocol: tenant.TCP, SrcPort: 80, DstPort: 5000}
	got, err := l.ask(w, me, p)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(got.told, "resubmit(,81)"); n != 2*maxElements || got.host != otherHost {
		t.Errorf("%d elements asked, on %s", n, got.host)
	}
	w.entry("ingress", maxElements*pageSize, tenant.Deny, tenant.Entry{})
	flows, notes := Compile(w.input())
	domain := tenant.Key{Kind: tenant.KindDomain, ID: "app1"}
	if !strings.Contains(notes[domain], "closed in direction ingress") {
		t.Errorf("notes %v", notes)
	}
	l.program(t, w.input(), flows)
	for range 2 {
		packet, args := track(w, me, p, spell(w.portOf(me), p))
		if got, err := l.trace(thisHost, packet, args...); err != nil || got.outcome.Reason != DropIngressClosed.Reason {
			t.Errorf("%v, %+v", err, got.outcome)
		}
		p.Protocol, p.Track = 132, tenant.TrackNew
	}
}

// Input that contradicts itself never opens anything.
func TestPolicyContradictions(t *testing.T) {
	side := func(k tenant.SideKind, id string) tenant.Side { return tenant.Side{Kind: k, ID: id} }
	group := func(w *world, id string, number uint16) {
		w.put(tenant.KindPolicyGroup, id, &tenant.PolicyGroup{Meta: w.meta(id), Name: id, DomainID: "app1", Number: number})
	}
	for _, c := range []struct {
		name   string
		change func(w *world) tenant.Key
		note   string
		flows  int // of the object
	}{
		{"two policies with one number", func(w *world) tenant.Key {
			w.policy("late", "app1", tenant.Ingress, 7).Number = 1
			return tenant.Key{Kind: tenant.KindPolicy, ID: "late"}
		}, "number 1 belongs to policy out", 0},
		{"policy without a number closes", func(w *world) tenant.Key {
			w.policy("late", "app1", tenant.Ingress, 7).Number = 0
			return tenant.Key{Kind: tenant.KindDomain, ID: "app1"}
		}, "closed in direction ingress: policy late: number 0 is not in 1..65535", flowsPerPolicedDomain},
		{"two entries with one priority", func(w *world) tenant.Key {
			k := w.entry("in", 11, tenant.Forward, tenant.Entry{})
			e := *w.state.Entries[k.ID]
			e.Priority = 10
			w.put(k.Kind, k.ID, &e)
			return k
		}, "priority 10 belongs to entry 10 of policy in", 0},
		{"unknown name", func(w *world) tenant.Key {
			return w.entry("in", 11, tenant.Deny, tenant.Entry{From: side(tenant.SidePolicyGroup, "nobody")})
		}, "from: policy group nobody does not exist in the domain", 0},
		{"name of another domain", func(w *world) tenant.Key {
			return w.entry("in", 11, tenant.Deny, tenant.Entry{To: side(tenant.SideSubnet, "other/db")})
		}, "to: subnet other/db does not exist in the domain", 0},
		{"two groups with one number, allowed", func(w *world) tenant.Key {
			group(w, "late", 1)
			return w.entry("in", 11, tenant.Forward, tenant.Entry{From: side(tenant.SidePolicyGroup, "late")})
		}, "policy group late: number 1 belongs to policy group web", 0},
		{"two groups with one number, denied", func(w *world) tenant.Key {
			group(w, "late", 1)
			return w.entry("in", 11, tenant.Deny, tenant.Entry{From: side(tenant.SidePolicyGroup, "late")})
		}, "policy group late: number 1 belongs to policy group web", 1},
		{"group number out of range", func(w *world) tenant.Key {
			group(w, "late", 129)
			return w.entry("in", 11, tenant.Forward, tenant.Entry{From: side(tenant.SidePolicyGroup, "late")})
		}, "number 129 is not in 1..128", 0},
		{"zone without a number", func(w *world) tenant.Key {
			w.zone("late", "app1", 0)
			return w.entry("in", 11, tenant.Forward, tenant.Entry{From: side(tenant.SideZone, "late")})
		}, "zone late: number 0 is not in 1..65535", 0},
		{"IPv6 under an IPv4 name", func(w *world) tenant.Key {
			w.macro("six", "2001:db8::/32")
			return w.entry("in", 11, tenant.Deny, tenant.Entry{From: side(tenant.SideNetworkMacro, "six")})
		}, "from: network macro six does not exist in the domain", 0},
		{"a side of an unknown kind", func(w *world) tenant.Key {
			return w.entry("in", 11, tenant.Forward, tenant.Entry{From: side("tag", "")})
		}, `unknown kind "tag"`, 0},
		{"ports of a protocol that has none", func(w *world) tenant.Key {
			return w.entry("in", 11, tenant.Forward, tenant.Entry{Protocol: 47, DestinationPort: tenant.PortRange{From: 80, To: 80}})
		}, "protocol 47 has no ports", 0},
		{"ports of any protocol", func(w *world) tenant.Key {
			return w.entry("in", 11, tenant.Forward, tenant.Entry{DestinationPort: tenant.PortRange{From: 80, To: 80}})
		}, "protocol any has no ports", 0},
		{"two limiters on one object", func(w *world) tenant.Key {
			w.limiter("late", tenant.Key{Kind: tenant.KindZone, ID: "app1/front"}, "app1", tenant.Ingress, tenant.MinRate)
			return tenant.Key{Kind: tenant.KindRateLimiter, ID: "late"}
		}, "rate limiter: the rate of zones/app1/front/ingress belongs to rate limiter l1", 0},
	} {
		w := policed()
		k := c.change(w)
		flows, notes := Compile(w.input())
		if n := flowsOf(flows, k); n != c.flows || !strings.Contains(notes[k], c.note) {
			t.Errorf("%s: %d flows, want %d; note %q, want %q", c.name, n, c.flows, notes[k], c.note)
		}
	}
}

// What a host's counters count, it counts once: a flow of an entry that is counted is for
// this host's vports or for the others.
func TestFromHere(t *testing.T) {
	w := policed()
	counted := []tenant.Key{{Kind: tenant.KindEntry, ID: "in/10"}, {Kind: tenant.KindEntry, ID: "out/5"}, {Kind: tenant.KindPolicy, ID: "in"}, {Kind: tenant.KindPolicy, ID: "out"}}
	here, there := map[tenant.Key]int{}, map[tenant.Key]int{}
	for _, f := range mustCompile(t, w) {
		for _, k := range counted {
			switch {
			case f.Cookie != Cookie(k):
			case FromHere(f.Match):
				here[k]++
			default:
				if there[k]++; slices.ContainsFunc(f.Actions, func(a flow.Action) bool { _, told := a.(flow.Controller); return told }) {
					t.Errorf("%v tells of packets that came by a tunnel", f)
				}
			}
		}
	}
	for _, k := range counted {
		if here[k] < there[k] || there[k] == 0 {
			t.Errorf("%v: %d flows for packets from here, %d for others", k, here[k], there[k])
		}
	}
}
