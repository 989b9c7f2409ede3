package store

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// compactEvery is how often a cluster's history is dropped, up to what was seen as long before:
// whoever is behind by less goes on from where it was.
var compactEvery = 10 * time.Minute

// compact drops the history of a cluster that may have nobody else to do it: heartbeats and
// counters alone fill its quota in weeks. That another host has done it is fine.
func (s *Store) compact(ses *session) {
	ticker := time.NewTicker(compactEvery)
	defer ticker.Stop()
	var before int64
	complained := false
	for {
		select {
		case <-ses.ctx.Done():
			return
		case <-ticker.C:
		}
		revision, err := s.compactTo(ses, before)
		if err == nil {
			before = revision
		} else if ses.ctx.Err() == nil && !complained {
			complained = true
			s.log.WithError(err).Warn("the history of the etcd cluster cannot be compacted: its database grows unless something else does it (--auto-compaction-retention)")
		}
	}
}

// compactTo drops what was before a revision, if it is not 0, and returns the present one.
func (s *Store) compactTo(ses *session, before int64) (int64, error) {
	ctx, cancel := context.WithTimeout(ses.ctx, requestTimeout)
	defer cancel()
	resp, err := ses.client.Get(ctx, root)
	if err != nil {
		return 0, err
	}
	if before > 0 {
		if _, err := ses.client.Compact(ctx, before); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
			return 0, err
		}
	}
	return resp.Header.Revision, nil
}
