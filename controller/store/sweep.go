package store

import (
	"context"
	"time"

	"nuage/controller/tenant"
)

// sweepBatch is how many leases one transaction removes at most; etcd's limit is 128
// operations.
const sweepBatch = 50

// sweep removes the reservations and rests that are over, until ctx ends. Every host does
// so at once with all that it follows, those of others a while later: the removals are
// conditional.
func (s *Store) sweep(ctx context.Context) {
	ticker := time.NewTicker(max(min(s.config.Rest, s.config.Reservation)/10, 50*time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, own := range []bool{true, false} {
			for more := true; more; {
				var err error
				more, err = s.sweepOnce(ctx, s.over(own))
				if err != nil && ctx.Err() == nil {
					s.log.WithError(err).Warn("expired addresses cannot be removed now")
				}
			}
		}
	}
}

// over are some of the leases that are over, of this host or of others.
func (s *Store) over(own bool) (over []tenant.Lease) {
	now := s.now()
	look := func(l *tenant.Lease, now time.Time) {
		if len(over) < sweepBatch && l.State != tenant.LeaseBound && !now.Before(l.Expires) {
			over = append(over, *l)
		}
	}
	s.feed.View(func(st *tenant.State) {
		for _, l := range st.Leases {
			switch {
			case (l.Host == s.config.Host) != own:
			case own:
				look(l, now)
			default:
				look(l, now.Add(-s.config.Rest))
			}
		}
	})
	if own {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, l := range s.remains {
			look(&l, now)
		}
	}
	return over
}

// sweepLater remembers what rests of a host, for this store to sweep.
func (s *Store) sweepLater(st *tenant.State, host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range st.Leases {
		if l.Host == host && l.State == tenant.LeaseResting {
			s.remains[l.ID] = *l
		}
	}
}

// sweepOnce removes leases that are as they were seen. One that is not is left to the next
// time, when more is known of it.
func (s *Store) sweepOnce(ctx context.Context, over []tenant.Lease) (more bool, err error) {
	if len(over) == 0 {
		return false, nil
	}
	ses, err := s.acquire(ctx)
	if err != nil {
		return false, nil // which is told already
	}
	defer ses.release()
	ctx, cancel := ses.bound(ctx)
	defer cancel()
	t := newTxn()
	for i := range over {
		t.unchanged(leaseKey(&over[i]), over[i].Revision)
		t.delete(leaseKey(&over[i]))
	}
	resp, err := ses.client.Txn(ctx).If(t.conditions...).Then(t.operations...).Commit()
	if err != nil {
		return false, s.refused(err)
	}
	s.forget(over, resp.Succeeded || len(over) == 1)
	if !resp.Succeeded {
		return false, s.sweepEach(ctx, over)
	}
	return len(over) == sweepBatch, s.awaitAll(ctx, ses, t, resp.Header.Revision)
}

// sweepEach removes one by one what cannot be removed together.
func (s *Store) sweepEach(ctx context.Context, over []tenant.Lease) error {
	if len(over) == 1 {
		return nil
	}
	for i := range over {
		if _, err := s.sweepOnce(ctx, over[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// forget drops what is swept, or was changed by others, from what remains.
func (s *Store) forget(swept []tenant.Lease, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range swept {
		if done {
			delete(s.remains, l.ID)
		}
	}
}
