package store

import (
	"context"
	"slices"
	"time"

	"nuage/controller/tenant"
)

const (
	// maxAttempts bounds how often a write is planned anew because others were faster. Each
	// failure means that another write went through, so reaching it takes a storm or an index
	// that contradicts the objects.
	maxAttempts = 100
	// feedAttempts is how often of these it is planned on the feed. What it takes for free may
	// be held by something that this host does not follow.
	feedAttempts = 3
	// askAgain is after how long a watch is asked again for its progress.
	askAgain = 50 * time.Millisecond
)

// proposal is one write. Its plan sees the newest state that it has to: its error counts.
type proposal struct {
	// in is the followed domain whose state in the feed is enough to plan on; nil if none is.
	in *part
	// read reads what plan looks at, for a plan that the feed is not enough for.
	read func(*reader) error
	plan func(*tenant.State, *txn) error

	current bool // the feed was seen to be the newest state
}

// write commits what plan makes of the state that read has read.
func (s *Store) write(ctx context.Context, read func(*reader) error, plan func(*tenant.State, *txn) error) (int64, error) {
	return s.commit(ctx, &proposal{read: read, plan: plan})
}

// writeIn is write for what is all in one domain: followed, it is planned on the feed.
func (s *Store) writeIn(ctx context.Context, domain string, read func(*reader) error, plan func(*tenant.State, *txn) error) (int64, error) {
	if !s.follows(domain) {
		return s.write(ctx, read, plan)
	}
	p, release, err := s.hold(ctx, domain)
	if err != nil {
		return 0, err
	}
	defer release()
	return s.commit(ctx, &proposal{in: p, read: read, plan: plan})
}

func (s *Store) follows(domain string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.domains[domain] != nil
}

// commit plans a transaction and commits it, and plans it anew while others are faster. It
// returns the revision once the feed shows as much of it as it follows, or 0 for a plan
// without operations, which commits nothing.
func (s *Store) commit(ctx context.Context, w *proposal) (int64, error) {
	for n := range maxAttempts {
		ses, err := s.acquire(ctx)
		if err != nil {
			return 0, err
		}
		attempt := s.planRead
		if w.in != nil && n < feedAttempts {
			attempt = s.planFeed
		}
		revision, again, err := s.attempt(ctx, ses, w, attempt)
		ses.release()
		if !again || err != nil {
			return revision, err
		}
	}
	return 0, tenant.Errorf(tenant.ErrUnavailable, "store: %d transactions in a row were overtaken by others", maxAttempts)
}

// planFeed plans on the feed. An error, or nothing to do, may be due to what the feed does
// not show yet.
func (s *Store) planFeed(ctx context.Context, ses *session, w *proposal, t *txn) (again bool, err error) {
	s.feed.View(func(st *tenant.State) { err = w.plan(st, t) })
	if w.current || err == nil && len(t.operations) > 0 {
		return false, err
	}
	w.current = true
	return true, s.catchUp(ctx, ses, w.in)
}

// planRead plans on what it reads. What it finds, the feed shows as well before it returns.
func (s *Store) planRead(ctx context.Context, ses *session, w *proposal, t *txn) (again bool, err error) {
	r := s.reader(ctx, ses)
	if err := w.read(r); err != nil {
		return false, err
	}
	t.used, t.held = r.numbers, r.held
	err = w.plan(r.st, t)
	if err != nil || len(t.operations) == 0 {
		for id := range r.st.Domains {
			if p := s.part(id); p != nil && ctx.Err() == nil {
				if behind := s.await(ctx, ses, p, r.st.Revision, true); err == nil {
					err = behind
				}
			}
		}
	}
	return false, err
}

func (s *Store) attempt(ctx context.Context, ses *session, w *proposal,
	plan func(context.Context, *session, *proposal, *txn) (bool, error)) (revision int64, again bool, err error) {
	ctx, cancel := ses.bound(ctx)
	defer cancel()
	t := newTxn()
	again, err = plan(ctx, ses, w, t)
	if err == nil {
		err = t.err
	}
	if again || err != nil || len(t.operations) == 0 {
		return 0, again, err
	}
	resp, err := ses.client.Txn(ctx).If(t.conditions...).Then(t.operations...).Commit()
	if err != nil {
		return 0, false, s.refused(err)
	}
	if resp.Succeeded {
		return resp.Header.Revision, false, s.awaitAll(ctx, ses, t, resp.Header.Revision)
	}
	if w.in != nil {
		w.current = true
		err = s.await(ctx, ses, w.in, resp.Header.Revision, true)
	}
	return 0, true, err
}

// room is how many operations a transaction may have.
func (s *Store) room() int {
	if len(s.config.Endpoints) > 0 {
		return maxOps
	}
	return ownRoom
}

// part is the part of that name, if it is followed.
func (s *Store) part(name string) *part {
	switch name {
	case commonPart:
		return s.common
	case networksPart:
		return s.networks
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.domains[name]
}

// catchUp waits until the feed shows all of a part that is committed now.
func (s *Store) catchUp(ctx context.Context, ses *session, p *part) error {
	resp, err := ses.client.Get(ctx, root)
	if err != nil {
		return s.refused(err)
	}
	return s.await(ctx, ses, p, resp.Header.Revision, true)
}

// awaitAll waits until the feed shows a transaction, as far as it follows what that wrote.
func (s *Store) awaitAll(ctx context.Context, ses *session, t *txn, revision int64) error {
	var seen []string
	for _, op := range t.operations {
		name := s.partOf(string(op.KeyBytes()))
		if name == "" || slices.Contains(seen, name) {
			continue
		}
		seen = append(seen, name)
		if p := s.part(name); p != nil {
			if err := s.await(ctx, ses, p, revision, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// await waits until the feed shows a part as of the revision, or the part is followed no
// more. A revision that may hold no event of the part is asked for, since its watch would
// not report it by itself.
func (s *Store) await(ctx context.Context, ses *session, p *part, revision int64, ask bool) error {
	for {
		s.mu.Lock()
		at, moved, gone := p.at, p.moved, p.left != nil || p.err != nil
		s.mu.Unlock()
		if at >= revision || gone {
			return nil
		}
		if ask {
			if err := ses.client.RequestProgress(watchContext(ses.ctx, p)); err != nil {
				return s.refused(err)
			}
		}
		select {
		case <-moved:
		case <-time.After(askAgain): // a watch that is behind does not answer
		case <-ctx.Done():
			return s.unavailable(context.Cause(ctx))
		}
	}
}
