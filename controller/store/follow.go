package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"nuage/controller/tenant"
)

// here is how a domain is followed. Guarded by Store.mu.
type here struct {
	listed bool          // the feed shows it
	ready  chan struct{} // closed when listed, or when that has failed
	err    error         // why it has failed
	holds  int           // writes that need it followed
	used   time.Time     // when something here last needed it
	stop   context.CancelFunc
	done   chan struct{} // closed when its watch has ended for good
	left   chan struct{} // not nil while it is being left, closed after
}

// Following is what the feed shows, and what that costs.
type Following struct {
	Domains []string // IDs, in order
	Watches int      // that etcd keeps for this store
}

// Following tells what is followed now.
func (s *Store) Following() Following {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := Following{Watches: s.watches}
	for id, p := range s.domains {
		if p.listed {
			f.Domains = append(f.Domains, id)
		}
	}
	slices.Sort(f.Domains)
	return f
}

// Follow returns once the feed shows a domain, and keeps it there until for a while
// (Config.Linger) no vport and no live lease of this host has been in it and nobody has
// asked for it again. It is cheap when the domain is followed already. An unknown domain is
// tenant.ErrNotFound; one that cannot be read now is tenant.ErrUnavailable.
func (s *Store) Follow(ctx context.Context, domainID string) error {
	_, release, err := s.hold(ctx, domainID)
	if err == nil {
		release()
	}
	return err
}

// hold follows a domain and keeps it from being left until release.
func (s *Store) hold(ctx context.Context, id string) (p *part, release func(), err error) {
	for {
		s.mu.Lock()
		p := s.domains[id]
		switch {
		case p == nil:
			s.mu.Unlock()
			if err := s.enter(ctx, id); err != nil {
				return nil, nil, err
			}
			continue
		case p.listed && p.left == nil:
			p.holds++
			s.mu.Unlock()
			return p, func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				p.holds--
				p.used = time.Now()
			}, nil
		}
		wait := p.ready
		if p.left != nil {
			wait = p.left
		}
		s.mu.Unlock()
		ses, err := s.acquire(ctx)
		if err != nil {
			return nil, nil, err
		}
		ses.release()
		select {
		case <-wait:
			s.mu.Lock()
			err := p.err
			s.mu.Unlock()
			if err != nil {
				return nil, nil, err
			}
		case <-ctx.Done():
			return nil, nil, tenant.Errorf(tenant.ErrUnavailable, "store: domain %s: not read within the time allowed", id)
		}
	}
}

// enter begins to follow a domain that is not followed.
func (s *Store) enter(ctx context.Context, id string) error {
	ses, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer ses.release()
	p := newDomain(id)
	s.mu.Lock()
	if s.domains[id] != nil {
		s.mu.Unlock()
		return nil
	}
	s.domains[id] = p
	s.mu.Unlock()
	ses.watches.Go(func() {
		defer close(p.done)
		ctx, stop := context.WithCancel(ses.ctx)
		defer stop()
		watch, err := s.arrive(ctx, ses, p, stop)
		if err != nil {
			return
		}
		s.attend(ctx, ses, p, watch)
	})
	return nil
}

func newDomain(id string) *part {
	prefix := domainPrefix(id)
	p := newPart(id, prefix, prefixEnd(prefix))
	p.ready, p.done, p.used = make(chan struct{}), make(chan struct{}), time.Now()
	return p
}

// arrive brings a domain into the feed, or gives it up and says why to those who wait.
func (s *Store) arrive(ctx context.Context, ses *session, p *part, stop context.CancelFunc) (watch watch, err error) {
	var revision int64
	var changes []tenant.Change
	if watch, err = ses.watch(ctx, p); err == nil {
		revision, changes, err = s.list(ctx, ses.client, p)
	}
	if err != nil {
		err = s.refused(fmt.Errorf("domain %s: %w", p.name, err))
	} else if !slices.ContainsFunc(changes, func(c tenant.Change) bool { return c.Key.Kind == tenant.KindDomain && c.Value != nil }) {
		err = notFound(tenant.KindDomain, p.name)
	} else {
		s.awaitMacros(ctx, ses, revision, changes)
		s.publish(revision, changes, p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		p.listed = true
		err = s.keepDomains()
	}
	p.err, p.stop = err, stop
	if err != nil {
		delete(s.domains, p.name)
	}
	close(p.ready)
	return watch, err
}

// attend keeps a part until ctx ends. Any other end ends the session.
func (s *Store) attend(ctx context.Context, ses *session, p *part, watch watch) {
	s.count(1)
	defer s.count(-1)
	if err := s.keep(ctx, ses, p, watch); ctx.Err() == nil {
		ses.fail(err)
	}
}

func (s *Store) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watches += n
}

// leaveIdle ends the following of domains that nothing here needs, again and again.
func (s *Store) leaveIdle(ctx context.Context) {
	ticker := time.NewTicker(max(s.config.Linger/5, 10*time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for _, p := range s.idle(now) {
				s.leave(p)
			}
		}
	}
}

// idle are the domains to leave, marked as being left.
func (s *Store) idle(now time.Time) (idle []*part) {
	needed := s.needed()
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.domains {
		switch {
		case !p.listed:
		case needed[id] || p.holds > 0:
			p.used = now
		case now.Sub(p.used) >= s.config.Linger:
			p.left = make(chan struct{})
			idle = append(idle, p)
		}
	}
	return idle
}

// needed are the domains in which this host has a vport or an address.
func (s *Store) needed() map[string]bool {
	domains, now := map[string]bool{}, s.now()
	s.feed.View(func(st *tenant.State) {
		st.Children(tenant.Key{Kind: tenant.KindHost, ID: s.config.Host}, tenant.KindVport, func(id string) {
			domains[st.Vports[id].DomainID] = true
		})
		for _, l := range st.Leases {
			if l.Host == s.config.Host && l.Use == tenant.UseEndpoint && (l.State == tenant.LeaseBound || l.State == tenant.LeaseReserved && now.Before(l.Expires)) {
				domains[l.DomainID] = true
			}
		}
	})
	return domains
}

// leave takes a domain out of the feed. The addresses of this host that rest in it are
// still to be swept.
func (s *Store) leave(p *part) {
	p.stop()
	<-p.done
	gone := s.shown(p)
	var remains []tenant.Lease
	s.feed.View(func(st *tenant.State) {
		for k := range gone {
			if l := st.Leases[k.ID]; k.Kind == tenant.KindLease && l.Host == s.config.Host && l.State != tenant.LeaseBound {
				remains = append(remains, *l)
			}
		}
	})
	changes := make([]tenant.Change, 0, len(gone))
	for k := range gone {
		changes = append(changes, tenant.Change{Key: k})
	}
	s.feed.Publish(0, changes...)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.domains, p.name)
	if err := s.keepDomains(); err != nil {
		s.log.WithError(err).Warn("what this host follows cannot be recorded")
	}
	for _, l := range remains {
		s.remains[l.ID] = l
	}
	close(p.left)
}

// begin brings the feed up to date, all of it in one publication, and keeps it so until the
// session ends: whoever reads the feed takes what it does not show for gone.
func (s *Store) begin(ses *session) error {
	if err := s.recall(ses); err != nil {
		return err
	}
	s.mu.Lock()
	parts := append([]*part{s.common, s.networks}, slices.Collect(maps.Values(s.domains))...)
	s.mu.Unlock()
	contexts, watches := make([]context.Context, len(parts)), make([]watch, len(parts))
	for i, p := range parts {
		ctx, stop := context.WithCancel(ses.ctx)
		s.mu.Lock()
		p.stop, p.done = stop, make(chan struct{})
		s.mu.Unlock()
		var err error
		if watches[i], err = ses.watch(ctx, p); err != nil {
			return err
		}
		contexts[i] = ctx
	}
	revision, changes, err := s.list(ses.ctx, ses.client, parts...)
	if err != nil {
		return err
	}
	s.restart(parts, revision, changes)
	for i, p := range parts {
		ses.watches.Go(func() {
			defer close(p.done)
			s.attend(contexts[i], ses, p, watches[i])
		})
	}
	return nil
}

// restart publishes what parts are now. How far they were before does not count: another
// etcd, or one restored from a backup, may be at an earlier revision.
func (s *Store) restart(parts []*part, revision int64, changes []tenant.Change) {
	s.mu.Lock()
	for _, p := range parts {
		p.at = 0
	}
	s.mu.Unlock()
	s.feed.Restart(revision, changes...)
	s.reached(revision, parts...)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range parts {
		if p.ready != nil && !p.listed {
			p.listed = true
			close(p.ready)
		}
	}
}
