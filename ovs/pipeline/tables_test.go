package pipeline

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"nuage/controller/tenant"
	"nuage/ovs/flow"
)

func TestTablesGoForward(t *testing.T) {
	reached := map[flow.Table]bool{TableClassifier: true}
	for i, tb := range Tables {
		if i > 0 && Tables[i-1].Number >= tb.Number {
			t.Errorf("table %s (%d) is listed behind table %d", tb.Name, tb.Number, Tables[i-1].Number)
		}
		if !reached[tb.Number] {
			t.Errorf("table %s cannot be reached", tb.Name)
		}
		for _, n := range slices.Concat(tb.Next, tb.Asks) {
			if n <= tb.Number {
				t.Errorf("table %s leads back to %d", tb.Name, n)
			}
			reached[n] = true
		}
	}
	for n := range reached {
		if !slices.ContainsFunc(Tables, func(tb Table) bool { return tb.Number == n }) {
			t.Errorf("table %d is nobody's", n)
		}
	}
}

func TestRegistersAreDisjoint(t *testing.T) {
	used := map[string]string{}
	for _, r := range Registers {
		for b := range r.Bits.Width {
			at := fmt.Sprintf("%v bit %d", r.Bits.Field, r.Bits.Offset+b)
			if other := used[at]; other != "" {
				t.Errorf("%s is both %s and %s", at, other, r.Name)
			}
			used[at] = r.Name
		}
	}
	for f := range mustCompile(t, policed()) {
		for c := range f.Match.All() {
			checkRegister(t, c, used)
		}
	}
	for _, f := range mustCompile(t, policed()) {
		for _, a := range f.Actions {
			if s, ok := a.(flow.SetField); ok {
				checkRegister(t, s.FieldMatch, used)
			}
		}
	}
}

// checkRegister finds values wider than the register that is listed.
func checkRegister(t *testing.T, c flow.FieldMatch, used map[string]string) {
	t.Helper()
	if (c.Field < flow.Reg0 || c.Field > flow.Reg15) && c.Field != flow.Metadata {
		return
	}
	for b := range uint16(32) {
		if c.Uint()>>b&1 == 1 && used[fmt.Sprintf("%v bit %d", c.Field, b)] == "" {
			t.Errorf("%v: bit %d is in use and not listed", c.Field, b)
		}
	}
}

// mustCompile compiles and fails on any note.
func mustCompile(t *testing.T, w *world) flow.Set {
	t.Helper()
	flows, notes := Compile(w.input())
	for k, n := range notes {
		t.Errorf("note on %v: %s", k, n)
	}
	return flows
}

func TestFlowsKeepToTheTables(t *testing.T) {
	flows := mustCompile(t, policed())
	missing, asked := map[flow.Table]bool{}, map[flow.Table]bool{}
	for _, tb := range Tables {
		missing[tb.Number] = true
		for _, n := range tb.Asks {
			asked[n] = true
		}
	}
	for k, f := range flows {
		i := slices.IndexFunc(Tables, func(tb Table) bool { return tb.Number == k.Table })
		if i < 0 {
			t.Errorf("%v: table is not listed", f)
			continue
		}
		if k.Priority == 0 && k.Match == flow.NewMatch() {
			delete(missing, k.Table)
		}
		for _, a := range f.Actions {
			if g, ok := a.(flow.Goto); ok && !slices.Contains(Tables[i].Next, g.Table) {
				t.Errorf("%v: table %s does not list %d as next", f, Tables[i].Name, g.Table)
			}
			// A reply that is judged anew goes back, once: what sends it back sets out-of-state
			// and matches those without.
			if r, ok := a.(flow.Resubmit); ok && !slices.Contains(Tables[i].Asks, r.Table) {
				flags, _ := f.Match.Get(regFlags)
				first, _ := f.Actions[0].(flow.SetField)
				if k.Table != TableCommit || flags.MaskUint()&bitOutOfState == 0 || flags.Uint()&bitOutOfState != 0 ||
					first.Field != regFlags || first.Uint()&bitOutOfState == 0 {
					t.Errorf("%v goes back, perhaps for ever", f)
				}
			}
		}
		if _, named := ReasonOf(f); len(f.Actions) == 0 && !named && !asked[k.Table] {
			t.Errorf("%v drops without a reason", f)
		}
	}
	for n := range missing {
		t.Errorf("table %d has no flow for a miss", n)
	}
}

func TestDropsAreDistinctAndCountedByTheirObject(t *testing.T) {
	c := NewCompiler(thisHost)
	w := policed()
	w.host("nowhere", "192.0.2.3").VTEP = netip.Addr{}
	w.vport("far", "app1/web", "10.0.1.98", 0).Host = "nowhere"
	w.policy("deny", "app1", tenant.Ingress, 1) // which makes its default the one that decides
	for _, d := range []tenant.Direction{tenant.Ingress, tenant.Egress} {
		w.policy("unnumbered-"+string(d), "other", d, 1).Number = 0
	}
	c.SetPorts(w.ports, tunnelPort)
	c.Update(w.state, allKeys(w.state))
	owners := map[string]tenant.Kind{"switch": kindSwitch, "host": tenant.KindHost, "domain": tenant.KindDomain, "subnet": tenant.KindSubnet, "policy": tenant.KindPolicy, "vport": tenant.KindVport}
	seen := map[Drop]bool{DropNoEncapsulation: true} // its flow is another's with a tunnel
	for _, f := range c.Flows() {
		d, ok := ReasonOf(f)
		if !ok {
			continue
		}
		seen[d] = true
		if k, _ := c.Owner(f.Cookie); k.Kind != owners[d.Per] {
			t.Errorf("%v is counted by %v, not by %s", f, k, d.Per)
		}
	}
	for i, d := range Drops {
		if !seen[d] {
			t.Errorf("%q has no flow", d.Reason)
		}
		for _, e := range Drops[:i] {
			if e.Table == d.Table && e.Priority == d.Priority {
				t.Errorf("%q and %q share a table and priority", d.Reason, e.Reason)
			}
		}
	}
}

// What the switch's own flows say of a packet between guard and output is by its state
// alone; all else is by domain, or by a vport's port.
func TestIsolationIsKeyedByDomain(t *testing.T) {
	states := []flow.Field{regFlags, flow.CTState, flow.EthType, flow.IPFrag}
	for _, f := range mustCompile(t, policed()) {
		if f.Table <= TableGuard || f.Table >= TableOutput {
			continue
		}
		if f.Cookie == Cookie(SwitchKey) {
			for c := range f.Match.All() {
				if !slices.Contains(states, c.Field) {
					t.Errorf("%v matches %v", f, c.Field)
				}
			}
			continue
		}
		_, domain := f.Match.Get(regDomain)
		_, port := f.Match.Get(flow.InPort)
		if !domain && !port {
			t.Errorf("%v matches neither domain nor port", f)
		}
	}
}

func TestCookies(t *testing.T) {
	k := tenant.Key{Kind: tenant.KindVport, ID: "6f1c2a4e-0000-4000-8000-000000000001"}
	// A new hash would rewrite every flow of every running switch at the upgrade.
	if got := Cookie(k); got != 0xc61e1b23af322736 {
		t.Errorf("the cookie is %#x now", got)
	}
	if Cookie(k) == Cookie(tenant.Key{Kind: tenant.KindSubnet, ID: k.ID}) {
		t.Error("two kinds share a cookie")
	}
}
