package store

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/uuid"

	"nuage/controller/tenant"
)

func creation(kind tenant.Kind, o interface{ Base() *tenant.Meta }) tenant.Step {
	if o.Base().ID == "" {
		o.Base().ID = uuid.NewString()
	}
	return tenant.Step{Op: tenant.OpCreate, Kind: kind, Path: "P", Object: o}
}

// TestApply brings a whole enterprise, each object of which names others that come with
// it, in parts of a transaction.
func TestApply(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := start(t, Config{Dir: dir})
	far, _ := startFar(t, dir, Config{Host: "h2"}) // with small transactions
	for i, s := range []*Store{s, far} {
		ctx := contextMinute(t)
		const zones, entries = 30, 300
		e := &tenant.Enterprise{Name: fmt.Sprint("E", i)}
		steps := []tenant.Step{creation(tenant.KindEnterprise, e)}
		m := &tenant.NetworkMacro{EnterpriseID: e.ID, Name: "corp", CIDR: netip.MustParsePrefix("192.0.2.0/24")}
		d := &tenant.Domain{EnterpriseID: e.ID, Name: "D"}
		steps = append(steps, creation(tenant.KindNetworkMacro, m), creation(tenant.KindDomain, d))
		g := &tenant.PolicyGroup{DomainID: d.ID, Name: "web"}
		steps = append(steps, creation(tenant.KindPolicyGroup, g))
		var last *tenant.Zone
		for n := range zones {
			last = &tenant.Zone{DomainID: d.ID, Name: fmt.Sprint("z", n)}
			steps = append(steps, creation(tenant.KindZone, last), creation(tenant.KindSubnet, &tenant.Subnet{DomainID: d.ID, ZoneID: last.ID, Name: "s",
				CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(n), 0}), 24)}))
		}
		p := &tenant.Policy{DomainID: d.ID, Name: "p", Direction: tenant.Ingress}
		steps = append(steps, creation(tenant.KindPolicy, p), creation(tenant.KindRateLimiter, &tenant.RateLimiter{DomainID: d.ID, On: tenant.Key{Kind: tenant.KindZone, ID: last.ID}, Direction: tenant.Egress, Rate: 1e6}))
		for n := range entries {
			steps = append(steps, creation(tenant.KindEntry, &tenant.Entry{DomainID: d.ID, PolicyID: p.ID, Priority: uint32(n), Action: tenant.Deny, Protocol: tenant.TCP,
				From: side(tenant.SidePolicyGroup, g.ID), To: side(tenant.SideNetworkMacro, m.ID)}))
		}
		if done, err := s.Apply(ctx, steps); err != nil || done != len(steps) {
			t.Fatalf("%d of %d: %v", done, len(steps), err)
		}
		st := mustRead(t, s)
		numbers := map[uint16]bool{}
		st.Children(tenant.Key{Kind: tenant.KindDomain, ID: d.ID}, tenant.KindZone, func(id string) { numbers[st.Zones[id].Number] = true })
		if got := len(st.PolicyEntries(p.ID)); got != entries || len(numbers) != zones || numbers[0] {
			t.Errorf("%d entries, zones %v", got, numbers)
		}
		if err := s.DeleteNetworkMacro(ctx, m.ID); !errors.Is(err, tenant.ErrConflict) {
			t.Errorf("what the entries name: %v", err)
		}
		// The priority of one is what another had, one goes, its policy changes twice: all at
		// once, so that no host sees half of it.
		a, b := *st.EntryByPriority(p.ID, 298), *st.EntryByPriority(p.ID, 299)
		a.Priority, b.Priority = 1000, 298
		same := *st.EntryByPriority(p.ID, 5)
		update := func(e *tenant.Entry) tenant.Step {
			return tenant.Step{Op: tenant.OpUpdate, Kind: tenant.KindEntry, Path: "P", Object: e}
		}
		gone, heir := *st.EntryByPriority(p.ID, 7), *st.EntryByPriority(p.ID, 8)
		heir.Priority = 7
		now, soon := *st.Policies[p.ID], *st.Policies[p.ID]
		now.Priority, soon.Priority, soon.Active = 5, 6, true
		policy := func(p *tenant.Policy) tenant.Step {
			return tenant.Step{Op: tenant.OpUpdate, Kind: tenant.KindPolicy, Path: "P", Object: p}
		}
		steps = []tenant.Step{update(&same), update(&a), update(&b), {Op: tenant.OpDelete, Kind: tenant.KindEntry, Path: "P", Object: &gone}, update(&heir), policy(&now), policy(&soon)}
		if done, err := s.Apply(ctx, steps); err != nil || done != len(steps) {
			t.Fatalf("%d: %v", done, err)
		}
		st = mustRead(t, s)
		if h, p := st.Entries[heir.ID], st.Policies[p.ID]; st.Entries[gone.ID] != nil || h.Priority != 7 || p.Priority != 6 || !p.Active ||
			h.Revision != p.Revision || h.Revision != st.Entries[a.ID].Revision || h.Revision != st.Entries[b.ID].Revision {
			t.Errorf("not all at once: %+v, %+v, %+v", h, p, st.Entries[a.ID])
		}
		if e := st.EntryByPriority(p.ID, 7); e == nil || e.ID != heir.ID {
			t.Errorf("who has priority 7: %+v", e)
		}
		if *st.Entries[same.ID] != same || st.Entries[a.ID].Priority != 1000 || st.Entries[b.ID].Priority != 298 {
			t.Errorf("after the updates: %+v, %+v", st.Entries[a.ID], st.Entries[b.ID])
		}
		// One that cannot be had leaves nothing of its transaction.
		twin := creation(tenant.KindZone, &tenant.Zone{DomainID: d.ID, Name: "z1"})
		ok := creation(tenant.KindZone, &tenant.Zone{DomainID: d.ID, Name: "new"})
		done, err := s.Apply(ctx, []tenant.Step{ok, ok2(d.ID), twin})
		if done != 0 || !errors.Is(err, tenant.ErrExists) || !strings.Contains(err.Error(), "create zone P: domain D: zone z1 already exists") {
			t.Errorf("%d, %v", done, err)
		}
		done, err = s.Apply(ctx, []tenant.Step{ok, ok2(d.ID), creation(tenant.KindZone, &tenant.Zone{DomainID: d.ID, Name: "newer"})})
		if done != 0 || !errors.Is(err, tenant.ErrExists) {
			t.Errorf("one name twice: %d, %v", done, err)
		}
		if n := len(mustRead(t, s).Zones); n != (i+1)*zones {
			t.Errorf("%d zones", n)
		}
	}
}

func ok2(domain string) tenant.Step {
	return creation(tenant.KindZone, &tenant.Zone{DomainID: domain, Name: "newer"})
}

// No host is shown an entry before the network macro that is made with it, though it has
// either from a watch of its own.
func TestMacrosComeWithTheirEntries(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := start(t, Config{Dir: dir, Host: "h1"})
	far, _ := startFar(t, dir, Config{Host: "h2"})
	ctx := contextMinute(t)
	w := newWard(t, s, "D")
	if err := far.Follow(ctx, w.policy.DomainID); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan []string)
	go func() {
		var missing []string
		sub := far.Feed().Subscribe()
		defer sub.Close()
		for {
			keys := sub.Take()
			far.Feed().View(func(st *tenant.State) {
				for _, k := range keys {
					if e := st.Entries[k.ID]; e != nil && st.NetworkMacros[e.To.ID] == nil {
						missing = append(missing, k.ID)
					}
				}
			})
			select {
			case <-sub.C():
			case <-stop:
				done <- missing
				return
			}
		}
	}()
	for n := range 200 {
		m := &tenant.NetworkMacro{EnterpriseID: w.corp.EnterpriseID, Name: fmt.Sprint("m", n), CIDR: netip.MustParsePrefix("198.51.100.0/24")}
		steps := []tenant.Step{creation(tenant.KindNetworkMacro, m)}
		e := &tenant.Entry{DomainID: w.policy.DomainID, PolicyID: w.policy.ID, Priority: uint32(n), Action: tenant.Deny, Protocol: tenant.TCP, From: anyone, To: side(tenant.SideNetworkMacro, m.ID)}
		if n, err := s.Apply(ctx, append(steps, creation(tenant.KindEntry, e))); err != nil {
			t.Fatal(n, err)
		}
		until(t, "the entry is there", func() (there bool) {
			far.Feed().View(func(st *tenant.State) { there = st.Entries[e.ID] != nil })
			return there
		})
	}
	close(stop)
	if missing := <-done; len(missing) > 0 {
		t.Errorf("%d of 200 entries were shown before what they name", len(missing))
	}
}
