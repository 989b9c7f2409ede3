package store

import (
	"context"
	"errors"
	"strings"

	"nuage/controller/tenant"
)

var directions = []tenant.Direction{tenant.Ingress, tenant.Egress}

// limited are the kinds of object that rate limiters are on.
var limited = map[tenant.Kind]bool{tenant.KindVport: true, tenant.KindSubnet: true, tenant.KindZone: true, tenant.KindDomain: true}

var limiters = class[tenant.RateLimiter, *tenant.RateLimiter]{
	kind:  tenant.KindRateLimiter,
	entry: limiterEntry,
	of:    func(st *tenant.State) map[string]*tenant.RateLimiter { return st.RateLimiters },
	fix: func(want, have *tenant.RateLimiter) error {
		return errors.Join(fixed("domain", have.DomainID, &want.DomainID), fixed("object", have.On, &want.On),
			fixed("direction", have.Direction, &want.Direction))
	},
	read: func(r *reader, l, _ *tenant.RateLimiter) error {
		domain, err := r.object(l.On.ID)
		if l.DomainID == "" {
			l.DomainID = domain
		}
		return errors.Join(err, r.objects(domainKey(l.DomainID)))
	},
	plan: func(st *tenant.State, _ *txn, l, _ *tenant.RateLimiter) error {
		err := l.Validate()
		if err == nil && l.DomainID == "" {
			l.DomainID = domainOf(st, l.On)
		}
		if err == nil {
			err = st.CheckRateLimiter(l)
		}
		return limiterEntry(l).called(err)
	},
}

// domainOf is the domain of an object that is one or is in one.
func domainOf(st *tenant.State, k tenant.Key) string {
	e, _ := entryOf(st, k)
	if rest, ok := strings.CutPrefix(e.key, root+"domains/"); ok {
		domain, _, _ := strings.Cut(rest, "/")
		return domain
	}
	return ""
}

// CreateRateLimiter puts a rate limiter on a vport, subnet, zone or domain, which has at
// most one a direction. DomainID may be left out. It goes with what it is on.
func (s *Store) CreateRateLimiter(ctx context.Context, l tenant.RateLimiter) (tenant.RateLimiter, error) {
	return limiters.create(ctx, s, l)
}

// UpdateRateLimiter changes rate, burst and external ID.
func (s *Store) UpdateRateLimiter(ctx context.Context, l tenant.RateLimiter) (tenant.RateLimiter, error) {
	return limiters.update(ctx, s, l)
}

// DeleteRateLimiter removes a rate limiter.
func (s *Store) DeleteRateLimiter(ctx context.Context, id string) error {
	return s.drop(ctx, tenant.KindRateLimiter, id)
}

// limiters reads the rate limiters on objects of a kind.
func (r *reader) limiters(kind tenant.Kind, ids ...string) error {
	if !limited[kind] {
		return nil
	}
	var keys, on []string
	for _, id := range ids {
		for _, d := range directions {
			keys = append(keys, limiterKey(id, d))
		}
	}
	if err := r.objects(keys...); err != nil {
		return err
	}
	for _, key := range keys {
		if id := r.held[key]; id != "" {
			on = append(on, id)
		}
	}
	return r.identified(on...)
}

// unlimit plans the removal of the rate limiters on an object, and that none comes.
func (t *txn) unlimit(st *tenant.State, e entry) {
	if !limited[e.kind] {
		return
	}
	on := tenant.Key{Kind: e.kind, ID: e.Base().ID}
	for _, d := range directions {
		if l := st.LimiterOn(on, d); l != nil {
			t.remove(st, limiterEntry(l))
		} else {
			t.absent(limiterKey(on.ID, d))
		}
	}
}
