package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"nuage/controller/tenant"
)

// TestPolicyRaces lets hosts name things while others delete them, and take one priority,
// one number and one name at once.
func TestPolicyRaces(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := start(t, Config{Dir: dir})
	far, _ := startFar(t, dir, Config{Host: "h2"})
	ctx := contextMinute(t)
	w := newWard(t, s, "D")
	for i := range 15 {
		g, err := s.CreatePolicyGroup(ctx, tenant.PolicyGroup{DomainID: w.p.Domain.ID, Name: fmt.Sprint("g", i)})
		if err != nil {
			t.Fatal(err)
		}
		var made, gone error
		both(func() { _, made = far.CreateEntry(ctx, w.entry(uint32(i), side(tenant.SidePolicyGroup, g.ID), anyone)) },
			func() { gone = s.DeletePolicyGroup(ctx, g.ID) })
		if (made == nil) == (gone == nil) {
			t.Fatalf("named: %v, deleted: %v", made, gone)
		}
		p, err := s.CreatePolicy(ctx, tenant.Policy{DomainID: w.p.Domain.ID, Name: fmt.Sprint("p", i), Direction: tenant.Egress, Priority: uint32(i)})
		if err != nil {
			t.Fatal(err)
		}
		both(func() {
			_, made = far.CreateEntry(ctx, change(w.entry(1, anyone, anyone), func(e *tenant.Entry) { e.PolicyID = p.ID }))
		}, func() { gone = s.DeletePolicy(ctx, p.ID) })
		if gone != nil || made != nil && !errors.Is(made, tenant.ErrNotFound) {
			t.Fatalf("entry: %v, policy deleted: %v", made, gone)
		}
		var one, two error
		both(func() { _, one = s.CreateEntry(ctx, w.entry(uint32(100+i), anyone, anyone)) },
			func() { _, two = far.CreateEntry(ctx, w.entry(uint32(100+i), anyone, anyone)) })
		if (one == nil) == (two == nil) {
			t.Fatalf("the same priority twice: %v, %v", one, two)
		}
	}
	st := mustRead(t, s)
	for _, e := range st.Entries {
		if err := st.CheckEntry(e); err != nil {
			t.Error(err)
		}
	}
}

func both(a, b func()) {
	var wg sync.WaitGroup
	wg.Go(a)
	wg.Go(b)
	wg.Wait()
}

// TestDeleteLargePolicy: a policy that does not fit one transaction is out of force from
// the first on, as every host sees it.
func TestDeleteLargePolicy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := start(t, Config{Dir: dir})
	far, _ := startFar(t, dir, Config{Host: "h2"})
	ctx := contextMinute(t)
	w := newWard(t, s, "D")
	for i := range 2*maxOps/ruleOps + 3 {
		if _, err := s.CreateEntry(ctx, w.entry(uint32(i), side(tenant.SideZone, w.p.Zone.ID), anyone)); err != nil {
			t.Fatal(err)
		}
	}
	mustFollow(t, s, w.p.Domain.ID)
	sub := s.Feed().Subscribe()
	defer sub.Close()
	watched := make(chan bool)
	stop, cancel := context.WithCancel(ctx)
	go func() {
		partial := false
		for {
			s.Feed().View(func(st *tenant.State) {
				if p := st.Policies[w.policy.ID]; p != nil && p.Active && len(st.Entries) < 2*maxOps/ruleOps+3 {
					partial = true
				}
			})
			select {
			case <-sub.C():
			case <-stop.Done():
				watched <- partial
				return
			}
		}
	}()
	if err := far.DeletePolicy(ctx, w.policy.ID); err != nil {
		t.Fatal(err)
	}
	until(t, "the policy is gone", func() (gone bool) {
		s.Feed().View(func(st *tenant.State) { gone = len(st.Policies) == 0 && len(st.Entries) == 0 })
		return gone
	})
	cancel()
	if <-watched {
		t.Error("the policy was in force without some of its entries")
	}
	if err := errors.Join(s.DeleteSubnet(ctx, w.p.Subnet.ID), s.DeleteZone(ctx, w.p.Zone.ID)); err != nil {
		t.Error(err)
	}
}

func TestNextEntryPriority(t *testing.T) {
	t.Parallel()
	s, _ := start(t, Config{Dir: t.TempDir()})
	ctx := contextMinute(t)
	w := newWard(t, s, "D")
	for _, want := range []uint32{100, 200, 1100, 9, tenant.MaxPriority} {
		if want%100 == 0 && want < 1000 {
			if got, err := s.NextEntryPriority(ctx, w.policy.ID); err != nil || got != want {
				t.Errorf("got %d, %v, want %d", got, err, want)
			}
		}
		if _, err := s.CreateEntry(ctx, w.entry(want, anyone, anyone)); err != nil {
			t.Fatal(err)
		}
		if want == 9 {
			if got, err := s.NextEntryPriority(ctx, w.policy.ID); err != nil || got != 1200 {
				t.Errorf("got %d, %v", got, err)
			}
		}
	}
	if _, err := s.NextEntryPriority(ctx, w.policy.ID); !errors.Is(err, tenant.ErrExhausted) {
		t.Errorf("after the last: %v", err)
	}
	if _, err := s.NextEntryPriority(ctx, w.p.Zone.ID); !errors.Is(err, tenant.ErrNotFound) {
		t.Errorf("of no policy: %v", err)
	}
}
