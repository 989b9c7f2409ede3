package store

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"nuage/controller/tenant"
)

// creationOps are the operations that make an object with its index.
func creationOps(t testing.TB, e entry) []clientv3.Op {
	ops := []clientv3.Op{clientv3.OpPut(e.key, text(t, e.object)), clientv3.OpPut(idKey(e.Base().ID), e.key)}
	for _, key := range e.index() {
		ops = append(ops, clientv3.OpPut(key, e.Base().ID))
	}
	for id := range e.uses {
		ops = append(ops, clientv3.OpPut(usesKey(id, e.Base().ID), ""))
	}
	return ops
}

// removalOps are the operations that remove an object with its index.
func removalOps(e entry) []clientv3.Op {
	ops := []clientv3.Op{clientv3.OpDelete(e.key), clientv3.OpDelete(idKey(e.Base().ID)), clientv3.OpDelete(guardKey(e.Base().ID))}
	for _, key := range e.index() {
		ops = append(ops, clientv3.OpDelete(key))
	}
	for id := range e.uses {
		ops = append(ops, clientv3.OpDelete(usesKey(id, e.Base().ID)))
	}
	return ops
}

func newID() tenant.Meta { return tenant.Meta{ID: uuid.NewString()} }

// TestHostsAndPolicies: a joined host sees policies change, tells what it has counted, and
// does with its own vports what it may; all else that it tries is refused, with a valid
// certificate.
func TestHostsAndPolicies(t *testing.T) {
	t.Parallel()
	e := newEstate(t, true)
	ctx := contextMinute(t)
	w := newWard(t, e.s, "D")
	rule, err := e.s.CreateEntry(ctx, w.entry(1, side(tenant.SideSubnet, e.shared.Subnet.ID), side(tenant.SideNetworkMacro, w.corp.ID)))
	if err != nil {
		t.Fatal(err)
	}
	limiter, err := e.s.CreateRateLimiter(ctx, w.limiter(tenant.KindVport, e.mine.ID, tenant.Egress))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("seen", func(t *testing.T) { e.seePolicies(t, w, rule) })
	t.Run("counters", e.tellCounters)
	t.Run("own", func(t *testing.T) { e.useGroups(t, w) })
	t.Run("refused", func(t *testing.T) { e.refusePolicies(t, w, rule, limiter) })
	t.Run("gone", func(t *testing.T) {
		if err := e.own.DeleteVport(ctx, e.mine.ID); err != nil {
			t.Fatal(err)
		}
		if err := e.s.EvictHost(ctx, "h2", true); err != nil {
			t.Fatal(err)
		}
		if after := dump(t, e.s); strings.Contains(after, limiter.ID) || strings.Contains(after, countersPrefix("h2")) || !strings.Contains(after, countersPrefix("h1")) {
			t.Errorf("of h2 is left:\n%s", after)
		}
	})
}

func (e *estate) seePolicies(t *testing.T, w ward, rule tenant.Entry) {
	ctx := contextMinute(t)
	changed, err := e.s.UpdateEntry(ctx, change(rule, func(r *tenant.Entry) { r.Action = tenant.Deny }))
	if err != nil {
		t.Fatal(err)
	}
	macro, err := e.s.UpdateNetworkMacro(ctx, change(w.corp, func(m *tenant.NetworkMacro) { m.CIDR = netip.MustParsePrefix("203.0.113.0/24") }))
	if err != nil {
		t.Fatal(err)
	}
	st := mustRead(t, e.s)
	for _, h := range []*Store{e.victim, e.own} {
		until(t, h.config.Host+" sees all", func() (ok bool) {
			h.Feed().View(func(seen *tenant.State) {
				r, m := seen.Entries[rule.ID], seen.NetworkMacros[macro.ID]
				ok = r != nil && *r == changed && m != nil && *m == macro && reflect.DeepEqual(seen.Policies, st.Policies) &&
					reflect.DeepEqual(seen.PolicyGroups, st.PolicyGroups) && reflect.DeepEqual(seen.RateLimiters, st.RateLimiters)
			})
			return ok
		})
	}
}

func (e *estate) tellCounters(t *testing.T) {
	ctx := contextMinute(t)
	d, o := e.p.Domain.ID, e.other.Domain.ID
	told := func(domain string, n uint64) tenant.Counters {
		return tenant.Counters{DomainID: domain, Host: "h9", Entries: map[string]tenant.Counter{"x": {Packets: n, Bytes: 2 * n}}}
	}
	if err := e.own.PutCounters(ctx, []tenant.Counters{told(d, 1)}); !errors.Is(err, tenant.ErrNotFound) {
		t.Errorf("before the host is registered: %v", err)
	}
	if err := e.own.PutHost(ctx, tenant.Host{Meta: tenant.Meta{ID: "h2"}, Name: "h2"}); err != nil {
		t.Fatal(err)
	}
	for n, all := range [][]tenant.Counters{{told(d, 1)}, {told(d, 2), told(o, 3)}, {told(o, 4)}} {
		if err := errors.Join(e.own.PutCounters(ctx, all), e.victim.PutCounters(ctx, []tenant.Counters{told(d, 7)})); err != nil {
			t.Fatal(err)
		}
		got := mustRead(t, e.s).Counters
		if len(got) != len(all)+1 || got[tenant.CountersID("h1", d)].Entries["x"].Packets != 7 {
			t.Errorf("after %d: %v", n, got)
		}
		for _, c := range all {
			have := got[tenant.CountersID("h2", c.DomainID)]
			if have == nil || have.Host != "h2" || have.DomainID != c.DomainID || have.Seen.IsZero() || !reflect.DeepEqual(have.Entries, c.Entries) {
				t.Errorf("after %d: %+v, want %+v", n, have, c)
			}
		}
	}
	e.s.Feed().View(func(st *tenant.State) {
		if len(st.Counters) > 0 {
			t.Error("the feed shows counters")
		}
	})
	large := told(d, 1)
	large.Entries[strings.Repeat("x", maxCounters)] = tenant.Counter{}
	for name, c := range map[string]tenant.Counters{"too large": large, "of no domain": told("a/b", 1)} {
		if err := e.own.PutCounters(ctx, []tenant.Counters{c}); !errors.Is(err, tenant.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func (e *estate) useGroups(t *testing.T, w ward) {
	ctx := contextMinute(t)
	d := e.p.Domain.ID
	if err := e.own.EnsurePolicyGroups(ctx, d, []string{"web", "made"}, false); !errors.Is(err, tenant.ErrNotFound) {
		t.Errorf("a group that is not there: %v", err)
	}
	if err := e.own.EnsurePolicyGroups(ctx, d, []string{"web", "made", "made too"}, true); err != nil {
		t.Fatal(err)
	}
	mine, err := e.own.UpdateVport(ctx, change(e.mine, func(v *tenant.Vport) { v.PolicyGroups = []string{"made"} }))
	if err != nil || !reflect.DeepEqual(mine.PolicyGroups, []string{"made"}) {
		t.Errorf("%+v, %v", mine, err)
	}
	// What is set where tenants are administered stays when the host attaches the vport again.
	vips := []tenant.VirtualIP{{IPv4: netip.MustParseAddr("10.0.1.99")}}
	set, err := e.s.UpdateVport(ctx, change(mine, func(v *tenant.Vport) { v.AddressSpoofing, v.VirtualIPs = true, vips }))
	if err != nil {
		t.Fatal(err)
	}
	again := change(e.mine, func(v *tenant.Vport) { v.Revision, v.PolicyGroups, v.Interface = 0, []string{"web", "made"}, "nu7" })
	got, err := e.own.BindVport(ctx, again)
	if err != nil || !got.AddressSpoofing || !reflect.DeepEqual(got.VirtualIPs, vips) || got.Interface != "nu7" || len(got.PolicyGroups) != 2 || got.Revision == set.Revision {
		t.Errorf("attached again: %+v, %v", got, err)
	}
	e.mine = got
}

func (e *estate) refusePolicies(t *testing.T, w ward, rule tenant.Entry, limiter tenant.RateLimiter) {
	put, del := clientv3.OpPut, clientv3.OpDelete
	ops := func(o ...clientv3.Op) []clientv3.Op { return o }
	d := e.p.Domain.ID
	counters := func(host, domain string) string { return text(t, tenant.Counters{Host: host, DomainID: domain}) }
	group := func(f func(*tenant.PolicyGroup)) []clientv3.Op {
		g := tenant.PolicyGroup{Meta: newID(), DomainID: d, Name: "g", Number: 77}
		f(&g)
		return creationOps(t, groupEntry(&g))
	}
	policy := tenant.Policy{Meta: newID(), DomainID: d, Name: "p", Direction: tenant.Egress, Number: 9}
	newRule := change(w.entry(9, anyone, side(tenant.SideNetworkMacro, w.corp.ID)), func(r *tenant.Entry) { r.Meta, r.DomainID = newID(), d })
	newLimiter := change(w.limiter(tenant.KindVport, e.mine.ID, tenant.Ingress), func(l *tenant.RateLimiter) { l.Meta, l.DomainID = newID(), d })
	macro := tenant.NetworkMacro{Meta: newID(), EnterpriseID: e.p.Enterprise.ID, Name: "m", CIDR: netip.MustParsePrefix("0.0.0.0/0")}
	mine := func(f func(*tenant.Vport)) []clientv3.Op {
		v := change(e.mine, f)
		return ops(put(vportKey(d, v.ID), text(t, v)))
	}
	freed := tenant.Lease{DomainID: d, SubnetID: e.mine.SubnetID, Address: e.mine.IPv4, State: tenant.LeaseResting, Use: tenant.UseEndpoint, Host: "h2"}
	shared := e.shared.Subnet
	before := dump(t, e.s)
	for name, try := range map[string][]clientv3.Op{
		"another's counters":               ops(put(countersKey("h1", d), counters("h1", d))),
		"counters in another's name":       ops(put(countersKey("h2", d), counters("h1", d))),
		"counters of another domain":       ops(put(countersKey("h2", d), counters("h2", e.other.Domain.ID))),
		"counters of no domain":            ops(put(countersKey("h2", newRule.ID), counters("h2", newRule.ID))),
		"counters that are none":           ops(put(countersKey("h2", d), "[]")),
		"counters without end":             ops(put(countersKey("h2", d), counters("h2", d)+strings.Repeat(" ", maxCounters))),
		"deleting another's counters":      ops(del(countersKey("h1", d))),
		"deleting all of the own counters": ops(del(countersPrefix("h2"), clientv3.WithPrefix())),
		"a policy":                         creationOps(t, policyEntry(&policy)),
		"an entry":                         creationOps(t, ruleEntry(&newRule)),
		"a limiter of the own vport":       creationOps(t, limiterEntry(&newLimiter)),
		"a macro":                          creationOps(t, macroEntry(&macro)),
		"changing an entry":                ops(put(keyIn(d, tenant.KindEntry, rule.ID), text(t, change(rule, func(r *tenant.Entry) { r.Action = tenant.Forward })))),
		"changing a policy":                ops(put(keyIn(d, tenant.KindPolicy, w.policy.ID), text(t, change(w.policy, func(p *tenant.Policy) { p.Active = false })))),
		"changing a macro":                 ops(put(macroKey(w.corp.ID), text(t, change(w.corp, func(m *tenant.NetworkMacro) { m.CIDR = macro.CIDR })))),
		"changing a group":                 ops(put(keyIn(d, tenant.KindPolicyGroup, w.web.ID), text(t, change(w.web, func(g *tenant.PolicyGroup) { g.Description = "x" })))),
		"changing a limiter":               ops(put(keyIn(d, tenant.KindRateLimiter, limiter.ID), text(t, change(limiter, func(l *tenant.RateLimiter) { l.Rate = 1e9 })))),
		"removing an entry":                removalOps(ruleEntry(&rule)),
		"removing a policy":                removalOps(policyEntry(&w.policy)),
		"removing a macro":                 removalOps(macroEntry(&w.corp)),
		"removing a group":                 removalOps(groupEntry(&w.web)),
		"removing the own vport's limiter": removalOps(limiterEntry(&limiter)),
		"removing the own vport alone":     append(removalOps(vportEntry(&e.mine)), put(leaseKey(&freed), text(t, freed))),
		"a group without a number":         group(func(g *tenant.PolicyGroup) { g.Number = 0 }),
		"a group of a taken number":        group(func(g *tenant.PolicyGroup) { g.Number = w.web.Number }),
		"a group of too high a number":     group(func(g *tenant.PolicyGroup) { g.Number = tenant.MaxPolicyGroups + 1 }),
		"a group of a taken name":          group(func(g *tenant.PolicyGroup) { g.Name = "web" }),
		"a group in no domain":             group(func(g *tenant.PolicyGroup) { g.DomainID = uuid.NewString() }),
		"a group without its number":       group(func(*tenant.PolicyGroup) {})[:3],
		"a use of nothing":                 ops(put(usesKey(w.web.ID, newRule.ID), "")),
		"a use taken away":                 ops(del(usesKey(shared.ID, rule.ID))),
		"the own vport's address spoofing": mine(func(v *tenant.Vport) { v.AddressSpoofing = !v.AddressSpoofing }),
		"the own vport's virtual IPs":      mine(func(v *tenant.Vport) { v.VirtualIPs = []tenant.VirtualIP{{IPv4: e.theirs.IPv4}} }),
		"another's groups":                 ops(put(vportKey(d, e.theirs.ID), text(t, change(e.theirs, func(v *tenant.Vport) { v.PolicyGroups = []string{"web"} })))),
		"a vport with address spoofing":    e.with("10.0.1.9", func(v *tenant.Vport, _ *tenant.Lease) { v.AddressSpoofing = true }),
		"a vport with a virtual IP": e.with("10.0.1.9", func(v *tenant.Vport, _ *tenant.Lease) {
			v.VirtualIPs = []tenant.VirtualIP{{IPv4: netip.MustParseAddr("10.0.1.98")}}
		}),
	} {
		resp, err := e.cl.Txn(contextMinute(t)).Then(try...).Commit()
		if grpcstatus.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v, %v", name, resp, err)
		}
		if after := dump(t, e.s); after != before {
			t.Fatalf("%s changed:\n%s\nto\n%s", name, before, after)
		}
	}
	// An entry names the subnet, which keeps it also when its last network goes.
	if err := e.victim.DeleteNetwork(contextMinute(t), "n1"); err != nil {
		t.Fatal(err)
	}
	release := append(removalOps(subnetEntry(&shared)), del(leasePrefix(d, shared.ID), clientv3.WithPrefix()))
	if _, err := e.cl.Txn(contextMinute(t)).Then(release...).Commit(); grpcstatus.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "entries") {
		t.Errorf("a subnet that an entry names: %v", err)
	}
	if err := e.own.ReleaseSubnet(contextMinute(t), shared.ID); err != nil || mustRead(t, e.s).Subnets[shared.ID] == nil {
		t.Errorf("the release of a subnet that an entry names: %v", err)
	}
	if err := e.s.DeleteEntry(contextMinute(t), rule.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := e.s.CreateRateLimiter(contextMinute(t), w.limiter(tenant.KindSubnet, shared.ID, tenant.Egress)); err != nil {
		t.Fatal(err)
	}
	if err := e.own.ReleaseSubnet(contextMinute(t), shared.ID); err != nil || mustRead(t, e.s).Subnets[shared.ID] != nil {
		t.Errorf("the release of a subnet with a rate limiter: %v", err)
	}
	if resp, err := e.cl.Txn(contextMinute(t)).Then(group(func(*tenant.PolicyGroup) {})...).Commit(); err != nil || !resp.Succeeded {
		t.Errorf("a group: %v, %v", resp, err)
	}
}
