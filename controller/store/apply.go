package store

import (
	"context"
	"errors"
	"fmt"

	"nuage/controller/tenant"
)

// stepOps is how many operations a step needs, but for very few.
const stepOps = 8

// errSplit: what was planned does not go into one transaction.
var errSplit = errors.New("store: too much for one transaction")

// Apply does the steps of a plan in their order, as many as fit in one transaction, so that
// no host ever sees a plan of usual size half done, and tells how many it has done: after
// an error the others have changed nothing. Objects say their domain.
func (s *Store) Apply(ctx context.Context, steps []tenant.Step) (done int, err error) {
	for done < len(steps) {
		n := min(len(steps)-done, s.room()/stepOps)
		err := s.applyAtOnce(ctx, steps[done:done+n])
		for errors.Is(err, errSplit) && n > 1 {
			n /= 2
			err = s.applyAtOnce(ctx, steps[done:done+n])
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

func (s *Store) applyAtOnce(ctx context.Context, steps []tenant.Step) error {
	drafts := make([]draft, len(steps))
	for i, step := range steps {
		var err error
		if drafts[i], err = s.draft(step); err != nil {
			return err
		}
	}
	_, err := s.write(ctx, func(r *reader) error {
		entries := make([]entry, 0, len(drafts))
		for _, d := range drafts {
			e, ok, err := d.look(r)
			if err != nil {
				return err
			}
			if ok {
				entries = append(entries, e)
			}
		}
		return r.rivals(entries...)
	}, func(st *tenant.State, t *txn) error {
		for i, d := range drafts {
			if err := d.plan(st, t); err != nil {
				return fmt.Errorf("%s %s %s: %w", steps[i].Op, steps[i].Kind.Noun(), steps[i].Path, err)
			}
		}
		if len(drafts) > 1 && max(len(t.operations), len(t.conditions)) > s.room() {
			return errSplit
		}
		return nil
	})
	return err
}

// draft is a creation or an update: what is read for it, and its plan.
type draft struct {
	// look reads what the plan looks at, but for the rivals of the entry, if it has one.
	look func(*reader) (e entry, ok bool, err error)
	plan func(*tenant.State, *txn) error
}

func (s *Store) draft(step tenant.Step) (draft, error) {
	create := step.Op == tenant.OpCreate
	switch o := step.Object.(type) {
	case *tenant.Enterprise:
		return enterprises.draft(s, create, *o), nil
	case *tenant.NetworkMacro:
		return macros.draft(s, create, *o), nil
	case *tenant.Domain:
		return domains.draft(s, create, *o), nil
	case *tenant.Zone:
		return zones.draft(s, create, *o), nil
	case *tenant.Subnet:
		return subnets.draft(s, create, *o), nil
	case *tenant.PolicyGroup:
		return groups.draft(s, create, *o), nil
	case *tenant.Policy:
		return policies.draft(s, create, *o), nil
	case *tenant.Entry:
		if step.Op == tenant.OpDelete {
			return deletion(o.ID), nil
		}
		return rules.draft(s, create, *o), nil
	case *tenant.RateLimiter:
		return limiters.draft(s, create, *o), nil
	}
	return draft{}, fmt.Errorf("store: a step for a %T", step.Object)
}

func (c class[T, P]) draft(s *Store, create bool, v T) draft {
	plan := c.change(s)
	if create {
		s.born(P(&v).Base())
		plan = c.add
	}
	return draft{
		look: func(r *reader) (entry, bool, error) { return c.look(r, v, create) },
		plan: func(st *tenant.State, t *txn) error { v := v; return plan(st, t, &v) },
	}
}

// deletion is of an entry, which nothing is in and nothing names. One that is not there is fine.
func deletion(id string) draft {
	return draft{
		look: func(r *reader) (e entry, ok bool, err error) {
			_, err = r.object(id)
			return e, false, err
		},
		plan: func(st *tenant.State, t *txn) error {
			if e := st.Entries[id]; e != nil {
				t.remove(st, ruleEntry(e))
				st.Apply(tenant.Change{Key: tenant.Key{Kind: tenant.KindEntry, ID: id}})
			}
			return nil
		},
	}
}
