package store

import (
	"context"

	"nuage/controller/tenant"
)

// Follow returns once the feed shows a domain and keeps it current. It is cheap when the
// domain is followed already. An unknown domain is tenant.ErrNotFound; while etcd is away
// a domain that is not followed is tenant.ErrUnavailable.
func (s *Store) Follow(ctx context.Context, domainID string) error {
	if s.shows(domainID) {
		return nil
	}
	ses, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer ses.release()
	if err := s.catchUp(ctx, ses); err != nil {
		return err
	}
	if !s.shows(domainID) {
		return notFound(tenant.KindDomain, domainID)
	}
	return nil
}

func (s *Store) shows(domainID string) (ok bool) {
	s.feed.View(func(st *tenant.State) { ok = st.Domains[domainID] != nil })
	return ok
}
