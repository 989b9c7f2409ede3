package store

import (
	"context"
	"time"

	"nuage/controller/tenant"
)

// sweepBatch is how many leases one transaction removes at most; etcd's limit is 128
// operations.
const sweepBatch = 50

// sweep removes the reservations and rests that are over, until ctx ends. Every host may
// do so at once: the removals are conditional.
func (s *Store) sweep(ctx context.Context) {
	ticker := time.NewTicker(max(min(s.config.Rest, s.config.Reservation)/10, 50*time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for {
			swept, err := s.sweepOnce(ctx)
			if err != nil && ctx.Err() == nil {
				s.log.WithError(err).Warn("expired addresses cannot be removed now")
			}
			if err != nil || swept < sweepBatch {
				break
			}
		}
	}
}

func (s *Store) sweepOnce(ctx context.Context) (swept int, err error) {
	_, err = s.write(ctx, func(st *tenant.State, t *txn) error {
		swept = 0
		now := s.now()
		for _, l := range st.Leases {
			if l.State == tenant.LeaseBound || now.Before(l.Expires) {
				continue
			}
			t.unchanged(leaseKey(l), l.Revision)
			t.delete(leaseKey(l))
			if swept++; swept == sweepBatch {
				break
			}
		}
		return nil
	})
	return swept, err
}
