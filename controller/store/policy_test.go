package store

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"nuage/controller/tenant"
)

// ward is a domain with policies.
type ward struct {
	p      tenant.Path
	web    tenant.PolicyGroup
	corp   tenant.NetworkMacro
	policy tenant.Policy
}

func newWard(t testing.TB, s *Store, domain string) ward {
	t.Helper()
	w := ward{p: mustPath(t, s, spec(domain, "10.0.1.0/24"))}
	ctx := contextMinute(t)
	var errs [3]error
	w.web, errs[0] = s.CreatePolicyGroup(ctx, tenant.PolicyGroup{DomainID: w.p.Domain.ID, Name: "web"})
	w.corp, errs[1] = s.CreateNetworkMacro(ctx, tenant.NetworkMacro{EnterpriseID: w.p.Enterprise.ID, Name: "corp of " + domain, CIDR: netip.MustParsePrefix("192.0.2.0/24")})
	w.policy, errs[2] = s.CreatePolicy(ctx, tenant.Policy{DomainID: w.p.Domain.ID, Name: "in", Direction: tenant.Ingress, Priority: 10, Active: true})
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w ward) entry(priority uint32, from, to tenant.Side) tenant.Entry {
	return tenant.Entry{PolicyID: w.policy.ID, Priority: priority, Action: tenant.Forward, Protocol: tenant.AnyProtocol, From: from, To: to}
}

func side(kind tenant.SideKind, id string) tenant.Side { return tenant.Side{Kind: kind, ID: id} }

var anyone = tenant.Side{Kind: tenant.SideAny}

func (w ward) limiter(kind tenant.Kind, id string, d tenant.Direction) tenant.RateLimiter {
	return tenant.RateLimiter{On: tenant.Key{Kind: kind, ID: id}, Direction: d, Rate: 1e6}
}

// leftBehind fails the test if anything is in etcd under the product's keys.
func leftBehind(t *testing.T, s *Store) {
	t.Helper()
	for line := range strings.Lines(dump(t, s)) {
		if strings.HasPrefix(line, root) || strings.HasPrefix(line, index) {
			t.Errorf("left behind: %s", line)
		}
	}
}

// TestPolicies writes each kind, reads it back, changes it, and deletes everything in an
// order in which each deletion is refused first.
func TestPolicies(t *testing.T) {
	t.Parallel()
	s, _ := start(t, Config{Dir: t.TempDir()})
	ctx := contextMinute(t)
	w := newWard(t, s, "D")
	mustFollow(t, s, w.p.Domain.ID)
	if w.web.Number != 1 || w.policy.Number != 1 || w.p.Zone.Number != 1 {
		t.Errorf("numbers %d, %d, %d", w.web.Number, w.policy.Number, w.p.Zone.Number)
	}
	e, err := s.CreateEntry(ctx, w.entry(0, side(tenant.SidePolicyGroup, w.web.ID), side(tenant.SideNetworkMacro, w.corp.ID)))
	if err != nil || e.DomainID != w.p.Domain.ID || e.Revision == 0 {
		t.Fatalf("%+v, %v", e, err)
	}
	if e, err = s.UpdateEntry(ctx, change(e, func(e *tenant.Entry) { e.Priority, e.From = 5, side(tenant.SideZone, w.p.Zone.ID) })); err != nil {
		t.Fatal(err)
	}
	if again, err := s.UpdateEntry(ctx, e); err != nil || again != e {
		t.Errorf("the same again: %+v, %v", again, err)
	}
	second, err := s.CreateEntry(ctx, w.entry(0, side(tenant.SideSubnet, w.p.Subnet.ID), side(tenant.SideSubnet, w.p.Subnet.ID)))
	if err != nil {
		t.Fatalf("a priority that another entry no longer has: %v", err)
	}
	if p, err := s.UpdatePolicy(ctx, change(w.policy, func(p *tenant.Policy) { p.Priority, p.Name, p.DefaultAllowIP = 20, "out", true })); err != nil {
		t.Error(err)
	} else {
		w.policy = p
	}
	if m, err := s.UpdateNetworkMacro(ctx, change(w.corp, func(m *tenant.NetworkMacro) { m.CIDR = netip.MustParsePrefix("198.51.100.0/24") })); err != nil {
		t.Error(err)
	} else {
		w.corp = m
	}
	v := newVport(w.p.Subnet, "10.0.1.5")
	v.PolicyGroups = []string{"web"}
	if _, err := s.BindVport(ctx, v); err != nil {
		t.Fatal(err)
	}
	limiters := map[string]tenant.RateLimiter{}
	for kind, id := range map[tenant.Kind]string{tenant.KindVport: v.ID, tenant.KindSubnet: w.p.Subnet.ID, tenant.KindZone: w.p.Zone.ID, tenant.KindDomain: w.p.Domain.ID} {
		for _, d := range directions {
			l, err := s.CreateRateLimiter(ctx, w.limiter(kind, id, d))
			if err != nil || l.DomainID != w.p.Domain.ID {
				t.Fatalf("%+v, %v", l, err)
			}
			if l, err = s.UpdateRateLimiter(ctx, change(l, func(l *tenant.RateLimiter) { l.Burst = 7e6 })); err != nil {
				t.Error(err)
			}
			limiters[l.ID] = l
		}
	}
	st := mustRead(t, s)
	for what, ok := range map[string]bool{
		"groups":   *st.PolicyGroups[w.web.ID] == w.web && len(st.PolicyGroups) == 1,
		"macros":   *st.NetworkMacros[w.corp.ID] == w.corp && len(st.NetworkMacros) == 1,
		"policies": *st.Policies[w.policy.ID] == w.policy && len(st.Policies) == 1,
		"entries":  *st.Entries[e.ID] == e && *st.Entries[second.ID] == second && len(st.Entries) == 2,
		"limiters": len(st.RateLimiters) == len(limiters) && *st.LimiterOn(tenant.Key{Kind: tenant.KindZone, ID: w.p.Zone.ID}, tenant.Egress) == limiters[st.LimiterOn(tenant.Key{Kind: tenant.KindZone, ID: w.p.Zone.ID}, tenant.Egress).ID],
	} {
		if !ok {
			t.Errorf("%s differ", what)
		}
	}
	s.Feed().View(func(shown *tenant.State) {
		if !reflect.DeepEqual(shown.Entries, st.Entries) || !reflect.DeepEqual(shown.NetworkMacros, st.NetworkMacros) || !reflect.DeepEqual(shown.RateLimiters, st.RateLimiters) {
			t.Error("the feed shows other policies")
		}
	})
	for _, step := range []struct {
		refused string
		delete  func() error
	}{
		{"", func() error { return s.DeleteEntry(ctx, second.ID) }},
		{"network macro corp of D: in use by entry 5 of policy out", func() error { return s.DeleteNetworkMacro(ctx, w.corp.ID) }},
		{"zone Z: not empty: it has subnet 10.0.1.0-24", func() error { return s.DeleteZone(ctx, w.p.Zone.ID) }},
		{"policy group web: it has members: vport web", func() error { return s.DeletePolicyGroup(ctx, w.web.ID) }},
		{"", func() error { return s.DeleteVport(ctx, v.ID) }},
		{"", func() error { return s.DeletePolicyGroup(ctx, w.web.ID) }},
		{"", func() error { return s.DeleteSubnet(ctx, w.p.Subnet.ID) }},
		{"zone Z: in use by entry 5 of policy out", func() error { return s.DeleteZone(ctx, w.p.Zone.ID) }},
		{"", func() error { return s.DeletePolicy(ctx, w.policy.ID) }},
		{"policy " + w.policy.ID + " not found", func() error { return s.DeletePolicy(ctx, w.policy.ID) }},
		{"", func() error { return s.DeleteZone(ctx, w.p.Zone.ID) }},
		{"", func() error { return s.DeleteDomain(ctx, w.p.Domain.ID) }},
		{"enterprise Acme Corp: not empty: it has network macro corp of D", func() error { return s.DeleteEnterprise(ctx, w.p.Enterprise.ID) }},
		{"", func() error { return s.DeleteNetworkMacro(ctx, w.corp.ID) }},
		{"", func() error { return s.DeleteEnterprise(ctx, w.p.Enterprise.ID) }},
	} {
		if err := step.delete(); step.refused == "" && err != nil || step.refused != "" && (err == nil || err.Error() != step.refused) {
			t.Errorf("want %q, got %v", step.refused, err)
		}
	}
	leftBehind(t, s)
}

// change is v as f leaves it.
func change[T any](v T, f func(*T)) T {
	f(&v)
	return v
}

func TestPolicyRefusals(t *testing.T) {
	t.Parallel()
	s, _ := start(t, Config{Dir: t.TempDir()})
	ctx := contextMinute(t)
	w, other := newWard(t, s, "D"), newWard(t, s, "E")
	elsewhere, err := s.CreateEnterprise(ctx, tenant.Enterprise{Name: "Other"})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := s.CreateNetworkMacro(ctx, tenant.NetworkMacro{EnterpriseID: elsewhere.ID, Name: "corp", CIDR: netip.MustParsePrefix("192.0.2.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	var entries [3]tenant.Entry
	for i := range entries {
		if entries[i], err = s.CreateEntry(ctx, w.entry(uint32(i), side(tenant.SidePolicyGroup, w.web.ID), anyone)); err != nil {
			t.Fatal(err)
		}
	}
	zoned, err := s.CreateRateLimiter(ctx, w.limiter(tenant.KindZone, w.p.Zone.ID, tenant.Egress))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreatePolicyGroup(ctx, tenant.PolicyGroup{DomainID: w.p.Domain.ID, Name: "db"}); err != nil {
		t.Fatal(err)
	}
	member := newVport(w.p.Subnet, "10.0.1.7")
	member.PolicyGroups = []string{"db"}
	if _, err := s.BindVport(ctx, member); err != nil {
		t.Fatal(err)
	}
	neighbour := newVport(w.p.Subnet, "10.0.1.8")
	neighbour.Name = "neighbour"
	if _, err := s.BindVport(ctx, neighbour); err != nil {
		t.Fatal(err)
	}
	db := mustRead(t, s).PolicyGroupByName(w.p.Domain.ID, "db")
	createEntry := func(e tenant.Entry) error { _, err := s.CreateEntry(ctx, e); return err }
	updateVport := func(vips ...string) error {
		v := *mustRead(t, s).Vports[member.ID]
		for _, ip := range vips {
			v.VirtualIPs = append(v.VirtualIPs, tenant.VirtualIP{IPv4: netip.MustParseAddr(ip)})
		}
		return second(s.UpdateVport(ctx, v))
	}
	const nobody = "00000000-0000-4000-8000-000000000000"
	for _, c := range []struct {
		class error
		text  string
		err   error
	}{
		{tenant.ErrExists, "domain D: policy group web already exists", second(s.CreatePolicyGroup(ctx, tenant.PolicyGroup{DomainID: w.p.Domain.ID, Name: "web"}))},
		{tenant.ErrExists, "policy group x: policy group number 1 already exists: policy group web has it", second(s.CreatePolicyGroup(ctx, tenant.PolicyGroup{DomainID: w.p.Domain.ID, Name: "x", Number: 1}))},
		{tenant.ErrInvalid, "policy group x: number 129 is above 128", second(s.CreatePolicyGroup(ctx, tenant.PolicyGroup{DomainID: w.p.Domain.ID, Name: "x", Number: 129}))},
		{tenant.ErrNotFound, "policy group x: domain " + nobody + " not found", second(s.CreatePolicyGroup(ctx, tenant.PolicyGroup{DomainID: nobody, Name: "x"}))},
		{tenant.ErrConflict, "policy group db: it has members: vport web", second(s.UpdatePolicyGroup(ctx, change(*db, func(g *tenant.PolicyGroup) { g.Name = "x" })))},
		{tenant.ErrConflict, "policy group db: it has members: vport web", s.DeletePolicyGroup(ctx, db.ID)},
		{tenant.ErrConflict, "policy group web: in use by entry 0 of policy in, entry 1 of policy in, entry 2 of policy in", s.DeletePolicyGroup(ctx, w.web.ID)},
		{tenant.ErrExists, "enterprise Acme Corp: network macro corp of D already exists", second(s.CreateNetworkMacro(ctx, tenant.NetworkMacro{EnterpriseID: w.p.Enterprise.ID, Name: "corp of D", CIDR: netip.MustParsePrefix("10.0.0.0/8")}))},
		{tenant.ErrInvalid, "network macro x: no CIDR given", second(s.CreateNetworkMacro(ctx, tenant.NetworkMacro{EnterpriseID: w.p.Enterprise.ID, Name: "x"}))},
		{tenant.ErrNotFound, "network macro x: enterprise " + nobody + " not found", second(s.CreateNetworkMacro(ctx, tenant.NetworkMacro{EnterpriseID: nobody, Name: "x"}))},
		{tenant.ErrExists, "domain D: policy in already exists", second(s.CreatePolicy(ctx, tenant.Policy{DomainID: w.p.Domain.ID, Name: "in", Direction: tenant.Egress}))},
		{tenant.ErrExists, "policy x: ingress policy in already has priority 10", second(s.CreatePolicy(ctx, tenant.Policy{DomainID: w.p.Domain.ID, Name: "x", Direction: tenant.Ingress, Priority: 10}))},
		{tenant.ErrInvalid, `policy x: direction "" is neither ingress nor egress`, second(s.CreatePolicy(ctx, tenant.Policy{DomainID: w.p.Domain.ID, Name: "x"}))},
		{tenant.ErrInvalid, "policy in: direction is ingress and cannot change to egress", second(s.UpdatePolicy(ctx, change(w.policy, func(p *tenant.Policy) { p.Direction = tenant.Egress })))},
		{tenant.ErrInvalid, "policy in: domain is " + w.p.Domain.ID + " and cannot change to " + other.p.Domain.ID, second(s.UpdatePolicy(ctx, change(w.policy, func(p *tenant.Policy) { p.DomainID = other.p.Domain.ID })))},
		{tenant.ErrStale, "policy in changed meanwhile", second(s.UpdatePolicy(ctx, change(w.policy, func(p *tenant.Policy) { p.Revision-- })))},
		{tenant.ErrExists, "policy in: entry 1 already exists", createEntry(w.entry(1, anyone, anyone))},
		{tenant.ErrExists, "policy in: entry 1 already exists", second(s.UpdateEntry(ctx, change(entries[0], func(e *tenant.Entry) { e.Priority = 1 })))},
		{tenant.ErrNotFound, "entry 9: from: policy group " + other.web.ID + " not found in domain D", createEntry(w.entry(9, side(tenant.SidePolicyGroup, other.web.ID), anyone))},
		{tenant.ErrNotFound, "entry 9: to: zone " + other.p.Zone.ID + " not found in domain D", createEntry(w.entry(9, anyone, side(tenant.SideZone, other.p.Zone.ID)))},
		{tenant.ErrNotFound, "entry 9: to: network macro " + foreign.ID + " not found in domain D", createEntry(w.entry(9, anyone, side(tenant.SideNetworkMacro, foreign.ID)))},
		{tenant.ErrNotFound, "entry 0: to: subnet " + other.p.Subnet.ID + " not found in domain D", second(s.UpdateEntry(ctx, change(entries[0], func(e *tenant.Entry) { e.To = side(tenant.SideSubnet, other.p.Subnet.ID) })))},
		{tenant.ErrNotFound, "entry 9: policy " + nobody + " not found in domain " + w.p.Domain.ID, createEntry(change(w.entry(9, anyone, anyone), func(e *tenant.Entry) { e.PolicyID, e.DomainID = nobody, w.p.Domain.ID }))},
		{tenant.ErrInvalid, "entry 9: protocol any has no ports: ports go with tcp, udp and sctp", createEntry(change(w.entry(9, anyone, anyone), func(e *tenant.Entry) { e.SourcePort = tenant.PortRange{From: 1, To: 2} }))},
		{tenant.ErrInvalid, "entry 0: policy is " + w.policy.ID + " and cannot change to " + other.policy.ID, second(s.UpdateEntry(ctx, change(entries[0], func(e *tenant.Entry) { e.PolicyID = other.policy.ID })))},
		{tenant.ErrExists, "rate limiter egress: the zone already has a rate limiter for egress", second(s.CreateRateLimiter(ctx, w.limiter(tenant.KindZone, w.p.Zone.ID, tenant.Egress)))},
		{tenant.ErrInvalid, "rate limiter egress: rate 1 bit/s is not between 100000 and 100000000000", second(s.UpdateRateLimiter(ctx, change(zoned, func(l *tenant.RateLimiter) { l.Rate = 1 })))},
		{tenant.ErrInvalid, "rate limiter egress: direction is egress and cannot change to ingress", second(s.UpdateRateLimiter(ctx, change(zoned, func(l *tenant.RateLimiter) { l.Direction = tenant.Ingress })))},
		{tenant.ErrNotFound, "rate limiter egress: zone " + other.p.Zone.ID + " not found in domain D", second(s.CreateRateLimiter(ctx, change(w.limiter(tenant.KindZone, other.p.Zone.ID, tenant.Egress), func(l *tenant.RateLimiter) { l.DomainID = w.p.Domain.ID })))},
		{tenant.ErrNotFound, "entry " + nobody + " not found", s.DeleteEntry(ctx, nobody)},
		{tenant.ErrConflict, "domain D: not empty: it has policy group db, policy group web, policy in, 1 more", s.DeleteDomain(ctx, w.p.Domain.ID)},
		{tenant.ErrNotFound, "policy group x not found in domain D: create it first (nuagectl apply), or allow making it on the fly (NUAGE_AUTOCREATE=true)", s.EnsurePolicyGroups(ctx, w.p.Domain.ID, []string{"web", "x"}, false)},
		{tenant.ErrInvalid, "vport web: virtual IP: 10.0.2.9 is not in 10.0.1.0/24", updateVport("10.0.2.9")},
		{tenant.ErrConflict, "vport web: virtual IP 10.0.1.1 is the gateway of subnet 10.0.1.0-24", updateVport("10.0.1.9", "10.0.1.1")},
		{tenant.ErrConflict, "vport web: virtual IP 10.0.1.8 is the address of vport neighbour", updateVport("10.0.1.9", "10.0.1.8")},
		{tenant.ErrInvalid, "vport web: virtual IP 10.0.1.9 is given twice", updateVport("10.0.1.9", "10.0.1.9")},
	} {
		if !errors.Is(c.err, c.class) || c.err.Error() != c.text {
			t.Errorf("want %v: %s\n got %v", c.class, c.text, c.err)
		}
	}
}

// TestPolicyNumbers: they are the domain's own, given anew when all have been given, and
// given to a zone that has none.
func TestPolicyNumbers(t *testing.T) {
	t.Parallel()
	s, _ := start(t, Config{Dir: t.TempDir()})
	ctx := contextMinute(t)
	w, other := newWard(t, s, "D"), newWard(t, s, "E")
	if other.web.Number != 1 || other.p.Zone.Number != 1 {
		t.Errorf("numbers of another domain: %d, %d", other.web.Number, other.p.Zone.Number)
	}
	var names []string
	for i := 1; i < tenant.MaxPolicyGroups; i++ {
		names = append(names, fmt.Sprint("g", i))
	}
	if err := s.EnsurePolicyGroups(ctx, w.p.Domain.ID, append(names, "web", "g1"), true); err != nil {
		t.Fatal(err)
	}
	if err := s.EnsurePolicyGroups(ctx, w.p.Domain.ID, names, false); err != nil {
		t.Error(err)
	}
	numbers := map[uint16]bool{}
	st := mustRead(t, s)
	for _, g := range st.PolicyGroups {
		if g.DomainID == w.p.Domain.ID {
			numbers[g.Number] = true
		}
	}
	if len(numbers) != tenant.MaxPolicyGroups || numbers[0] || !numbers[tenant.MaxPolicyGroups] {
		t.Errorf("%d numbers: %v", len(numbers), numbers)
	}
	_, err := s.CreatePolicyGroup(ctx, tenant.PolicyGroup{DomainID: w.p.Domain.ID, Name: "one more"})
	if !errors.Is(err, tenant.ErrExhausted) || !strings.Contains(err.Error(), "delete one") {
		t.Errorf("one group too many: %v", err)
	}
	for _, name := range []string{"g7", "g90"} {
		g := st.PolicyGroupByName(w.p.Domain.ID, name)
		if err := s.DeletePolicyGroup(ctx, g.ID); err != nil {
			t.Fatal(err)
		}
		numbers[g.Number] = false
	}
	if err := s.EnsurePolicyGroups(ctx, w.p.Domain.ID, []string{"new", "newer"}, true); err != nil {
		t.Fatal(err)
	}
	st = mustRead(t, s)
	if a, b := st.PolicyGroupByName(w.p.Domain.ID, "new"), st.PolicyGroupByName(w.p.Domain.ID, "newer"); a == nil || b == nil || a.Number == b.Number || numbers[a.Number] || numbers[b.Number] {
		t.Errorf("the numbers of %+v and %+v", a, b)
	}
	// A zone of before.
	z := w.p.Zone
	ses, err := s.acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	old := z
	old.Number = 0
	if _, err := ses.client.Txn(ctx).Then(opPut(zoneKey(z.DomainID, z.ID), text(t, old)), opDelete(numberKey(classIn(classZone, z.DomainID), 1))).Commit(); err != nil {
		t.Fatal(err)
	}
	ses.release()
	if got, err := s.UpdateZone(ctx, tenant.Zone{Meta: tenant.Meta{ID: z.ID}, Name: z.Name}); err != nil || got.Number != 1 {
		t.Errorf("the zone got %+v, %v", got, err)
	}
	if next, err := s.CreateZone(ctx, tenant.Zone{DomainID: z.DomainID, Name: "next"}); err != nil || next.Number != 2 {
		t.Errorf("the next zone got %+v, %v", next, err)
	}
}
