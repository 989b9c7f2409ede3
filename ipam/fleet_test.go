package ipam

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	api "github.com/docker/go-plugins-helpers/ipam"

	"nuage/controller/tenant"
)

// away is a store whose etcd can be taken away: it then says so, at once or only when the
// caller's time is over, and shows what it has seen before.
type away struct {
	Store
	mu    sync.Mutex
	state string // "", "stopped", "silent"
}

func (a *away) set(state string) { a.mu.Lock(); defer a.mu.Unlock(); a.state = state }

// ask is nil while etcd answers.
func (a *away) ask(ctx context.Context) error {
	a.mu.Lock()
	state := a.state
	a.mu.Unlock()
	switch state {
	case "":
		return nil
	case "silent":
		<-ctx.Done()
	}
	return tenant.Errorf(tenant.ErrUnavailable, "store: etcd is %s", state)
}

func (a *away) Ready() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state == "stopped" {
		return tenant.Errorf(tenant.ErrUnavailable, "store: etcd is stopped")
	}
	return nil
}

func (a *away) EnsurePath(ctx context.Context, spec tenant.PathSpec) (tenant.Path, error) {
	if err := a.ask(ctx); err != nil {
		return tenant.Path{}, err
	}
	return a.Store.EnsurePath(ctx, spec)
}

func (a *away) PutLease(ctx context.Context, l tenant.Lease) (tenant.Lease, error) {
	if err := a.ask(ctx); err != nil {
		return l, err
	}
	return a.Store.PutLease(ctx, l)
}

func (a *away) DeleteLease(ctx context.Context, l tenant.Lease) error {
	if err := a.ask(ctx); err != nil {
		return err
	}
	return a.Store.DeleteLease(ctx, l)
}

func (a *away) Read(ctx context.Context) (*tenant.State, error) {
	if err := a.ask(ctx); err != nil {
		return nil, err
	}
	return a.Store.Read(ctx)
}

// While etcd is away engines are told so in time, and what they give back is given back
// when it has returned, unless it was leased anew.
func TestReleasesWhileTheStoreIsAway(t *testing.T) {
	for _, state := range []string{"stopped", "silent"} {
		t.Run(state, func(t *testing.T) {
			e := newEngine(t, realStore(t), true)
			store := &away{Store: e.store}
			e.config.Store = store
			e.driver = New(e.config)
			sub := makeSubnet(t, e.store, "DCEnterprise", "App1", "DockerZone", "web", "10.0.0.0/24")
			held := func(want string) string {
				t.Helper()
				r, err := e.driver.RequestAddress(ctx, &api.RequestAddressRequest{PoolID: poolID{space: SpaceGlobal, domainID: sub.DomainID, subnetID: sub.ID, variant: "plain"}.String(), Address: want})
				if err != nil {
					t.Fatal(err)
				}
				return prefix(r.Address).Addr().String()
			}
			global := poolID{space: SpaceGlobal, domainID: sub.DomainID, subnetID: sub.ID, variant: "plain"}.String()
			gone, again, kept := held(""), held(""), held("")

			store.set(state)
			start := time.Now()
			for _, a := range []string{gone, again, gone} {
				if err := e.driver.ReleaseAddress(ctx, &api.ReleaseAddressRequest{PoolID: global, Address: a}); err != nil {
					t.Errorf("release of %s: %v", a, err)
				}
			}
			if took := time.Since(start); took > 3*awayTime+awayTime/2 {
				t.Errorf("three releases took %s", took)
			}
			short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			defer cancel()
			_, err := e.driver.RequestAddress(short, &api.RequestAddressRequest{PoolID: global})
			if !errors.Is(err, tenant.ErrUnavailable) {
				t.Errorf("an address while the store is away: %v", err)
			}
			if l, ok := leaseAt(e.store, sub.ID, addr(gone)); !ok || l.State != tenant.LeaseBound {
				t.Fatal("the store was not away: this test proves nothing")
			}
			if err := e.driver.Settle(short); state == "stopped" && !errors.Is(err, tenant.ErrUnavailable) {
				t.Errorf("settled while the store is away: %v", err)
			}

			store.set("")
			e.driver = New(e.config) // and the plugin has been restarted
			if got := held(again); got != again {
				t.Errorf("%s asked for again is %s", again, got)
			}
			for range 2 {
				if err := e.driver.Settle(ctx); err != nil {
					t.Fatal(err)
				}
			}
			e.lookAtLeases(map[string]string{gone: "resting", again: "bound", kept: "bound"})
		})
	}
}

// A pool, its gateway and its network bring no domain to the host; an address does.
func TestPoolsFollowNothing(t *testing.T) {
	e := newEngine(t, realStore(t), false)
	watch := &following{Store: e.store}
	e.config.Store = watch
	e.driver = New(e.config)
	made, err := e.create("n1", "10.0.0.0/24", app1("subnet", "web"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.driver.Capabilities(ctx); err != nil { // the engine restarts
		t.Fatal(err)
	}
	if _, err := e.pool("10.0.0.0/24", app1("subnet", "web")); err != nil {
		t.Fatal(err)
	}
	if _, err := e.gateway(made.ID, "10.0.0.1"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(e.driver.ReleaseAddress(ctx, &api.ReleaseAddressRequest{PoolID: made.ID, Address: "10.0.0.1"}),
		e.driver.ReleasePool(ctx, &api.ReleasePoolRequest{PoolID: made.ID})); err != nil {
		t.Fatal(err)
	}
	if len(watch.domains) > 0 {
		t.Errorf("follows %v without an address", watch.domains)
	}
	if _, err := e.address(made.ID, "", mac(1).String()); err != nil {
		t.Fatal(err)
	}
	if !watch.domains[made.DomainID] {
		t.Errorf("follows %v with an address of %s", watch.domains, made.DomainID)
	}
}

type following struct {
	Store
	domains map[string]bool
}

func (f *following) Follow(ctx context.Context, id string) error {
	if f.domains == nil {
		f.domains = map[string]bool{}
	}
	f.domains[id] = true
	return f.Store.Follow(ctx, id)
}

// An auxiliary address cannot be one that an endpoint of this host has, but for an engine
// that has just started, which says of no address what it is for.
func TestAuxiliaryAddressOfAnEndpoint(t *testing.T) {
	e := newEngine(t, realStore(t), false)
	r, err := e.create("n1", "10.0.0.0/24", app1("subnet", "web"), nil)
	if err != nil {
		t.Fatal(err)
	}
	used, err := e.address(r.ID, "", mac(1).String())
	if err != nil {
		t.Fatal(err)
	}
	a := prefix(used).Addr()
	e.clock.forward(2 * repetitionTime)
	used, err = e.address(r.ID, a.String(), mac(1).String()) // the reservation anew
	if err != nil {
		t.Fatal(err)
	}
	attach(t, e.store, tenant.Subnet{Meta: tenant.Meta{ID: r.SubnetID}}, a, mac(1), "db-1", "h1")
	_, err = e.address(r.ID, a.String(), "")
	mustFail(t, err, tenant.ErrConflict, "address "+a.String()+" in use by vport db-1")
	if _, err := e.driver.Capabilities(ctx); err != nil {
		t.Fatal(err)
	}
	if got, err := e.address(r.ID, a.String(), ""); err != nil || got != used {
		t.Errorf("repeated after a start: %s, %v", got, err)
	}
}

// laggard is a store whose feed is behind: it shows what was, until a write is refused.
type laggard struct {
	Store
	feed *tenant.Feed
}

func (s *laggard) Feed() *tenant.Feed { return s.feed }
func (s *laggard) PutLease(ctx context.Context, l tenant.Lease) (tenant.Lease, error) {
	put, err := s.Store.PutLease(ctx, l)
	if errors.Is(err, tenant.ErrStale) || err == nil {
		id := tenant.LeaseID(l.SubnetID, l.Address.String())
		s.Store.Feed().View(func(st *tenant.State) {
			c := tenant.Change{Key: tenant.Key{Kind: tenant.KindLease, ID: id}}
			if now := st.Leases[id]; now != nil {
				now := *now
				c.Value = &now
			}
			s.feed.Publish(st.Revision, c)
		})
	}
	return put, err
}

// An address, or a MAC, that has just left another host is not refused because the feed is
// a moment behind.
func TestAddressThatHasJustLeft(t *testing.T) {
	s := realStore(t)
	sub := makeSubnet(t, s, "DCEnterprise", "App1", "DockerZone", "web", "10.0.0.0/24")
	a, m := addr("10.0.0.9"), mac(1)
	v := attach(t, s, sub, a, m, "db-1", "h2")
	behind := tenant.NewFeed()
	s.Feed().View(func(st *tenant.State) {
		l := *st.Leases[tenant.LeaseID(sub.ID, a.String())]
		behind.Publish(st.Revision, tenant.Change{Key: tenant.Key{Kind: tenant.KindLease, ID: l.ID}, Value: &l})
	})
	h1 := NewAllocator(AllocatorConfig{Store: &laggard{s, behind}, Host: "h1"})
	_, err := h1.Allocate(ctx, sub, Request{MAC: mac(2), Want: a})
	mustFail(t, err, tenant.ErrConflict, "in use by")
	_, err = h1.Allocate(ctx, sub, Request{MAC: m})
	mustFail(t, err, tenant.ErrConflict, "MAC address")
	if l, ok := leaseAt(s, sub.ID, a); !ok || l.VportID != v.ID {
		t.Fatalf("the refusals changed the lease: %+v", l)
	}
	if err := s.DeleteVport(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	if got, err := h1.Allocate(ctx, sub, Request{MAC: mac(2), Want: a}); err != nil || got != a {
		t.Errorf("after it has left: %s, %v", got, err)
	}
	if got, err := h1.Allocate(ctx, sub, Request{MAC: m}); err != nil {
		t.Errorf("its MAC after it has left: %s, %v", got, err)
	}
}

// older is the store of a serving host of a version that lets no other change a subnet.
type older struct{ Store }

func (older) UpdateSubnet(context.Context, tenant.Subnet) (tenant.Subnet, error) {
	return tenant.Subnet{}, tenant.Errorf(tenant.ErrDenied, "only the host that serves changes it")
}

// While a fleet is upgraded, a host that is newer than the serving one makes subnets on.
func TestOlderServingHost(t *testing.T) {
	e := newEngine(t, realStore(t), false)
	e.config.Store = older{e.config.Store}
	e.driver = New(e.config)
	r, err := e.create("n1", "10.1.0.0/24", app1(), nil)
	if err == nil {
		err = e.driver.Keep(ctx, r)
	}
	if err != nil {
		t.Error(err)
	}
}
