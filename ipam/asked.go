package ipam

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"nuage/controller/tenant"
)

const (
	// patience is how long a pool request waits for another network with the same prefix
	// to be made.
	patience = 5 * time.Second
	// abandoned is when a network that was asked for is given up on: dockerd gives up
	// before.
	abandoned = 60 * time.Second
	// apart is the least time between two repeated pools that tells which was meant.
	apart = 5 * time.Second
	// An engine up to 26 that finds the pool unsuitable asks again at once, for ever. This
	// many equal requests in this time, with nothing between them, are such a loop; fewer
	// can be networks made side by side.
	loopCalls = 8
	loopTime  = 2 * time.Second
)

// place is what CreateNetwork tells of the pool it belongs to.
type place struct {
	space string
	cidr  netip.Prefix
}

// asked is the pools that were requested and whose network is still to be made.
// CreateNetwork does not say which pool it belongs to, only its prefix. So requests for
// different pools with one prefix pass one after the other. Safe for concurrent use.
type asked struct {
	now func() time.Time

	mu      sync.Mutex
	pending map[place][]*asking
	changed chan struct{} // closed and replaced when something was taken away
	loops   map[string]*loop
}

type asking struct {
	pool string
	// count is the requests that a network has still to follow. Only they are waited for.
	count int
	// repeated is set by a request that looks like the engine's repetition of an old one:
	// a network may follow or not.
	repeated bool
	last     time.Time
}

type loop struct {
	calls int
	first time.Time
}

func newAsked(now func() time.Time) *asked {
	return &asked{now: now, pending: map[place][]*asking{}, changed: make(chan struct{}), loops: map[string]*loop{}}
}

// ask notes the request of a pool, after those for other pools in the same place.
// tenant.ErrConflict if they take too long.
func (q *asked) ask(ctx context.Context, at place, pool string, repeated bool) error {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		q.mu.Lock()
		q.prune(at)
		if repeated || !q.expected(at, pool) {
			q.add(at, pool, repeated)
			q.mu.Unlock()
			return nil
		}
		changed := q.changed
		q.mu.Unlock()
		select {
		case <-changed:
			continue
		case <-timeout.C:
		case <-ctx.Done():
		}
		return tenant.Errorf(tenant.ErrConflict, "another network with %s is being created on this host: try again when it is done", at.cidr)
	}
}

// expected tells whether a network will be made in this place for another pool. Called
// with q.mu held, as the functions below.
func (q *asked) expected(at place, pool string) bool {
	return slices.ContainsFunc(q.pending[at], func(a *asking) bool { return a.pool != pool && a.count > 0 })
}

// prune forgets what was abandoned.
func (q *asked) prune(at place) {
	q.keep(at, slices.DeleteFunc(q.pending[at], func(a *asking) bool { return q.now().Sub(a.last) > abandoned }))
}

func (q *asked) keep(at place, live []*asking) {
	if len(live) == 0 {
		delete(q.pending, at)
		return
	}
	q.pending[at] = live
}

func (q *asked) add(at place, pool string, repeated bool) {
	i := slices.IndexFunc(q.pending[at], func(a *asking) bool { return a.pool == pool })
	if i < 0 {
		i = len(q.pending[at])
		q.pending[at] = append(q.pending[at], &asking{pool: pool})
	}
	a := q.pending[at][i]
	a.last = q.now()
	if repeated {
		a.repeated = true
	} else {
		a.count++
	}
}

// claim takes the request that a network in this place belongs to, among the pools that
// fits accepts: "" if there is none. If two repeated ones came too close together to tell,
// it is tenant.ErrConflict.
func (q *asked) claim(at place, fits func(pool string) bool) (string, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.prune(at)
	var best, second *asking
	for _, a := range q.pending[at] {
		switch {
		case !fits(a.pool):
		case best == nil, best.count == 0 && a.count > 0, (best.count == 0) == (a.count == 0) && best.last.Before(a.last):
			best, second = a, best
		case second == nil || second.last.Before(a.last):
			second = a
		}
	}
	switch {
	case best == nil:
		return "", nil
	case best.count == 0 && second != nil && best.last.Sub(second.last) < apart:
		return "", ambiguous(at)
	}
	q.take(at, best.pool)
	return best.pool, nil
}

func ambiguous(at place) error {
	return tenant.Errorf(tenant.ErrConflict, "several tenants have a pool %s on this host, and Docker does not say which one the network belongs to: give the network driver the same options (-o enterprise=… -o domain=… -o zone=…)", at.cidr)
}

// next is the pool for which a network will be made next in a place, "" for none.
func (q *asked) next(at place) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.prune(at)
	for _, a := range q.pending[at] {
		if a.count > 0 {
			return a.pool
		}
	}
	return ""
}

// withdraw takes back one request of a pool.
func (q *asked) withdraw(at place, pool string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.take(at, pool)
}

// take is one request less of a pool: one that a network has to follow, if there is any.
func (q *asked) take(at place, pool string) {
	q.keep(at, slices.DeleteFunc(q.pending[at], func(a *asking) bool {
		switch {
		case a.pool != pool:
		case a.count > 0:
			a.count--
		default:
			a.repeated = false
		}
		return a.count == 0 && !a.repeated
	}))
	delete(q.loops, pool)
	close(q.changed)
	q.changed = make(chan struct{})
}

// waits tells whether a network is still to be made for the pool.
func (q *asked) waits(at place, pool string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.prune(at)
	return slices.ContainsFunc(q.pending[at], func(a *asking) bool { return a.pool == pool && a.count > 0 })
}

// looping counts an automatic request of a pool and tells whether it is one too many.
func (q *asked) looping(pool string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.loops[pool]
	if l == nil || q.now().Sub(l.first) > loopTime {
		l = &loop{first: q.now()}
		q.loops[pool] = l
	}
	l.calls++
	return l.calls >= loopCalls
}

// moved notes that the engine went on with a pool, so that it is not asking in a loop.
func (q *asked) moved(pool string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.loops, pool)
}
