package tenant

import "sync"

// Feed holds a State for many readers and tells subscribers which objects to look at
// again. It is safe for concurrent use.
type Feed struct {
	mu      sync.RWMutex
	state   *State
	version chan struct{} // closed and replaced at each publication
	subs    map[*Subscription]struct{}
}

// NewFeed is a feed of an empty state.
func NewFeed() *Feed {
	return &Feed{state: NewState(), version: make(chan struct{}), subs: map[*Subscription]struct{}{}}
}

// View calls f with the state, which f must neither change nor keep. Writers wait
// meanwhile.
func (f *Feed) View(fn func(*State)) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	fn(f.state)
}

// Publish applies changes and moves the state to revision. Subscribers find the changed
// keys in their next Take.
func (f *Feed) Publish(revision int64, changes ...Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.publish(max(f.state.Revision, revision), changes)
}

// Restart is Publish after which the state is at the revision even if it was at a later one,
// as that of another store is.
func (f *Feed) Restart(revision int64, changes ...Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.publish(revision, changes)
}

// publish is called with mu held.
func (f *Feed) publish(revision int64, changes []Change) {
	for _, c := range changes {
		f.state.Apply(c)
	}
	f.state.Revision = revision
	close(f.version)
	f.version = make(chan struct{})
	for s := range f.subs {
		s.mark(changes)
	}
}

// Revision is the state's revision, and a channel that is closed when it moves on.
func (f *Feed) Revision() (int64, <-chan struct{}) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.state.Revision, f.version
}

// Subscribe starts collecting changed keys. Everything present already counts as
// changed. Close the subscription when done.
func (f *Feed) Subscribe() *Subscription {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &Subscription{feed: f, dirty: map[Key]struct{}{}, c: make(chan struct{}, 1)}
	f.subs[s] = struct{}{}
	s.all(f.state)
	return s
}

// Subscription is the set of keys that changed since the last Take: state, not events;
// an object that changed ten times is in it once.
type Subscription struct {
	feed  *Feed
	mu    sync.Mutex
	dirty map[Key]struct{}
	c     chan struct{}
}

// C is ready when there is something to Take.
func (s *Subscription) C() <-chan struct{} { return s.c }

// Take returns the changed keys, in no order, and starts anew.
func (s *Subscription) Take() []Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]Key, 0, len(s.dirty))
	for k := range s.dirty {
		keys = append(keys, k)
	}
	clear(s.dirty)
	return keys
}

// Close ends the subscription. Closing twice is fine.
func (s *Subscription) Close() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	delete(s.feed.subs, s)
}

func (s *Subscription) mark(changes []Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range changes {
		s.dirty[c.Key] = struct{}{}
	}
	if len(s.dirty) > 0 {
		select {
		case s.c <- struct{}{}:
		default:
		}
	}
}

func (s *Subscription) all(st *State) {
	var cs []Change
	collect(&cs, KindEnterprise, st.Enterprises)
	collect(&cs, KindDomain, st.Domains)
	collect(&cs, KindZone, st.Zones)
	collect(&cs, KindSubnet, st.Subnets)
	collect(&cs, KindVport, st.Vports)
	collect(&cs, KindHost, st.Hosts)
	collect(&cs, KindNetwork, st.Networks)
	collect(&cs, KindLease, st.Leases)
	collect(&cs, KindPolicyGroup, st.PolicyGroups)
	collect(&cs, KindNetworkMacro, st.NetworkMacros)
	collect(&cs, KindPolicy, st.Policies)
	collect(&cs, KindEntry, st.Entries)
	collect(&cs, KindRateLimiter, st.RateLimiters)
	s.mark(cs)
}

func collect[T any](cs *[]Change, kind Kind, objects map[string]*T) {
	for id := range objects {
		*cs = append(*cs, Change{Key: Key{kind, id}})
	}
}
