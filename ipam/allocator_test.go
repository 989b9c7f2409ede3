package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nuage/controller/store"
	"nuage/controller/tenant"
)

var ctx = context.Background()

func TestAllocateByNameAndByMAC(t *testing.T) {
	s := realStore(t)
	sub := makeSubnet(t, s, "E", "D", "Z", "web", "10.85.85.0/24")
	var c clock
	h1 := NewAllocator(AllocatorConfig{Store: s, Host: "h1", Now: c.now})
	h2 := NewAllocator(AllocatorConfig{Store: s, Host: "h2", Now: c.now})
	give := func(a *Allocator, r Request, want string) netip.Addr {
		t.Helper()
		got, err := a.Allocate(ctx, sub, r)
		if err != nil || want != "" && got != addr(want) {
			t.Fatalf("allocated %v, %v; want %s", got, err, want)
		}
		return got
	}
	refuse := func(a *Allocator, r Request, class error, text string) {
		t.Helper()
		got, err := a.Allocate(ctx, sub, r)
		mustFail(t, err, class, text)
		if got.IsValid() {
			t.Errorf("gave %s with the error", got)
		}
	}

	give(h1, Request{MAC: mac(1)}, "10.85.85.2")
	give(h1, Request{MAC: mac(1)}, "10.85.85.2") // the call repeated
	give(h1, Request{MAC: mac(2)}, "10.85.85.3")
	give(h1, Request{MAC: mac(3), Want: addr("10.85.85.9")}, "10.85.85.9")
	give(h1, Request{MAC: mac(3), Want: addr("10.85.85.9")}, "10.85.85.9")
	give(h1, Request{MAC: mac(3)}, "10.85.85.9")
	give(h1, Request{MAC: mac(4)}, "10.85.85.4") // a wish does not move the rotation

	refuse(h1, Request{Want: addr("10.9.9.9")}, tenant.ErrInvalid, "address 10.9.9.9 is not in subnet web (10.85.85.0/24)")
	refuse(h1, Request{Want: addr("10.85.85.0")}, tenant.ErrInvalid, "subnet web: 10.85.85.0 is the network address")
	refuse(h1, Request{Want: addr("10.85.85.255")}, tenant.ErrInvalid, "broadcast address")
	refuse(h1, Request{Want: addr("10.85.85.1")}, tenant.ErrConflict, "address 10.85.85.1 is the gateway of subnet web")
	refuse(h1, Request{MAC: mac(5), Want: addr("10.85.85.9")}, tenant.ErrConflict,
		"subnet web: address 10.85.85.9 in use by an endpoint that is being made with MAC 02:42:00:00:00:03 on host h1")

	v := attach(t, s, sub, addr("10.85.85.9"), mac(3), "db-1", "h1")
	refuse(h1, Request{MAC: mac(5), Want: addr("10.85.85.9")}, tenant.ErrConflict,
		"subnet web: address 10.85.85.9 in use by vport db-1 with MAC 02:42:00:00:00:03 on host h1")
	refuse(h2, Request{MAC: mac(3)}, tenant.ErrConflict, "MAC address 02:42:00:00:00:03 in use by vport db-1")
	give(h1, Request{Want: addr("10.85.85.9")}, "") // the engine starts again: it repeats without MAC
	refuse(h2, Request{Want: addr("10.85.85.9")}, tenant.ErrConflict, "in use by vport db-1")

	// Released by the vport, the address rests: nobody gets it by chance, its MAC and who
	// names it do.
	if err := s.DeleteVport(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	if err := h1.Release(ctx, sub.ID, addr("10.85.85.9")); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if got := give(h1, Request{MAC: mac(10 + i)}, ""); got == addr("10.85.85.9") {
			t.Fatal("a resting address was given out")
		}
	}
	give(h2, Request{MAC: mac(3)}, "10.85.85.9")
	if err := h1.Release(ctx, sub.ID, addr("10.85.85.9")); err != nil {
		t.Fatal(err)
	}
	if l, ok := leaseAt(s, sub.ID, addr("10.85.85.9")); !ok || l.Host != "h2" || l.State != tenant.LeaseReserved {
		t.Errorf("a release of another host changed the lease: %+v", l)
	}
	c.forward(2 * tenant.ReservationTime) // never bound: it lapses
	give(h1, Request{MAC: mac(20), Want: addr("10.85.85.9")}, "10.85.85.9")
}

func TestExhaustion(t *testing.T) {
	s := realStore(t)
	sub := makeSubnet(t, s, "E", "D", "Z", "web", "10.0.0.0/29")
	var c clock
	a := NewAllocator(AllocatorConfig{Store: s, Host: "h1", Now: c.now})
	var last tenant.Vport
	for i := range 5 {
		got, err := a.Allocate(ctx, sub, Request{MAC: mac(i)})
		if err != nil {
			t.Fatal(err)
		}
		last = attach(t, s, sub, got, mac(i), fmt.Sprint("v", i), "h1")
	}
	_, err := a.Allocate(ctx, sub, Request{MAC: mac(9)})
	mustFail(t, err, tenant.ErrExhausted, "subnet web: all 5 addresses are in use")
	_, err = a.Allocate(ctx, sub, Request{MAC: mac(9), Range: prefix("10.0.0.4/31")})
	mustFail(t, err, tenant.ErrExhausted, "subnet web: all 2 addresses of range 10.0.0.4/31 are in use")
	_, err = a.Allocate(ctx, sub, Request{MAC: mac(9), Range: prefix("10.0.0.1/32")})
	mustFail(t, err, tenant.ErrExhausted, "subnet web: there is no address to give out in 10.0.0.1/32")

	if err := s.DeleteVport(ctx, last.ID); err != nil {
		t.Fatal(err)
	}
	l, _ := leaseAt(s, sub.ID, last.IPv4)
	_, err = a.Allocate(ctx, sub, Request{MAC: mac(9)})
	mustFail(t, err, tenant.ErrExhausted, "all 5 addresses are in use (1 resting until "+l.Expires.Format("15:04:05")+" UTC)")
	c.forward(tenant.RestTime + time.Second)
	if got, err := a.Allocate(ctx, sub, Request{MAC: mac(9)}); err != nil || got != last.IPv4 {
		t.Errorf("after the rest: %v, %v", got, err)
	}
}

func TestAuxiliaryAddressesAreShared(t *testing.T) {
	s := realStore(t)
	sub := makeSubnet(t, s, "E", "D", "Z", "web", "10.0.0.0/29")
	h1, h2 := NewAllocator(AllocatorConfig{Store: s, Host: "h1"}), NewAllocator(AllocatorConfig{Store: s, Host: "h2"})
	aux := Request{Want: addr("10.0.0.3"), Use: tenant.UseAuxiliary, Held: true}
	for _, a := range []*Allocator{h1, h2, h1} {
		if got, err := a.Allocate(ctx, sub, aux); err != nil || got != aux.Want {
			t.Fatalf("%v, %v", got, err)
		}
	}
	_, err := h2.Allocate(ctx, sub, Request{MAC: mac(1), Want: aux.Want})
	mustFail(t, err, tenant.ErrConflict, "in use by an auxiliary address on host h1")
	if err := s.PutNetwork(ctx, tenant.Network{Meta: tenant.Meta{ID: "n2"}, Host: "h2", DomainID: sub.DomainID, SubnetID: sub.ID, Auxiliary: []netip.Addr{aux.Want}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := h1.Release(ctx, sub.ID, aux.Want); err != nil {
			t.Fatal(err)
		}
		if _, ok := leaseAt(s, sub.ID, aux.Want); !ok {
			t.Fatal("released though the network of another host sets it aside")
		}
	}
	if err := s.EvictHost(ctx, "h2", true); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := h1.Release(ctx, sub.ID, aux.Want); err != nil {
			t.Fatal(err)
		}
		if _, ok := leaseAt(s, sub.ID, aux.Want); ok {
			t.Fatal("not released")
		}
	}
}

// TestManyFillASubnet is three hosts that fill a /24 at once.
func TestManyFillASubnet(t *testing.T) {
	s := realStore(t)
	sub := makeSubnet(t, s, "E", "D", "Z", "web", "10.85.85.0/24")
	const workers, each = 100, 3
	var hosts []*Allocator
	for i := range 3 {
		hosts = append(hosts, NewAllocator(AllocatorConfig{Store: s, Host: fmt.Sprint("h", i)}))
	}
	var mu sync.Mutex
	given, refused := map[netip.Addr]tenant.MAC{}, 0
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			for i := range each {
				m := mac(w*each + i)
				a, err := hosts[w%len(hosts)].Allocate(ctx, sub, Request{MAC: m})
				mu.Lock()
				switch {
				case errors.Is(err, tenant.ErrExhausted):
					refused++
				case err != nil:
					t.Errorf("worker %d: %v", w, err)
				case !given[a].IsZero():
					t.Errorf("%s given to %s and %s", a, given[a], m)
				default:
					given[a] = m
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(given) != 253 || refused != workers*each-253 {
		t.Errorf("%d addresses given, %d requests refused; want 253 and %d", len(given), refused, workers*each-253)
	}
	for a, m := range given {
		if l, ok := leaseAt(s, sub.ID, a); !ok || l.MAC != m || l.State != tenant.LeaseReserved {
			t.Errorf("%s: lease %+v, want one of %s", a, l, m)
		}
	}
}

func TestAllocateEndsWithItsContext(t *testing.T) {
	s := realStore(t)
	sub := makeSubnet(t, s, "E", "D", "Z", "web", "10.0.0.0/29")
	a := NewAllocator(AllocatorConfig{Store: s, Host: "h1"})
	done, err := a.turns.wait(ctx, sub.ID)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, err = a.Allocate(short, sub, Request{MAC: mac(1)})
	mustFail(t, err, tenant.ErrUnavailable, "no address within the time allowed")
	done()
	if _, err := a.Allocate(ctx, sub, Request{MAC: mac(1)}); err != nil {
		t.Error(err)
	}
}

// TestLifeOfAddresses runs random lives of addresses on the real store, and holds every
// answer against a map.
func TestLifeOfAddresses(t *testing.T) {
	s := realStore(t)
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		m := newModel(t, s, run)
		t.Repeat(map[string]func(*rapid.T){
			"choose":  func(t *rapid.T) { m.choose(t) },
			"name":    func(t *rapid.T) { m.name(t) },
			"bind":    func(t *rapid.T) { m.bind(t) },
			"unbind":  func(t *rapid.T) { m.unbind(t) },
			"release": func(t *rapid.T) { m.release(t) },
			"wait": func(t *rapid.T) {
				m.clock.forward(rapid.SampledFrom([]time.Duration{20, 70}).Draw(t, "wait") * time.Second)
			},
			"": func(t *rapid.T) { m.check(t) },
		})
	})
}

// model is what the leases of a /28 must be, as a map.
type model struct {
	store  *store.Store
	sub    tenant.Subnet
	clock  clock
	hosts  []*Allocator
	leases map[netip.Addr]*tenant.Lease
	vports map[netip.Addr]tenant.Vport
	last   map[*Allocator]netip.Addr
}

func newModel(t *rapid.T, s *store.Store, run int) *model {
	m := &model{store: s, leases: map[netip.Addr]*tenant.Lease{}, vports: map[netip.Addr]tenant.Vport{}, last: map[*Allocator]netip.Addr{}}
	p, err := s.EnsurePath(ctx, tenant.PathSpec{Enterprise: "E", Domain: fmt.Sprint("D", run), Zone: "Z", Subnet: "web", CIDR: prefix("10.0.0.0/28"), Create: true})
	if err != nil {
		t.Fatal(err)
	}
	m.sub = p.Subnet
	for _, h := range []string{"h1", "h2"} {
		m.hosts = append(m.hosts, NewAllocator(AllocatorConfig{Store: s, Host: h, Now: m.clock.now}))
	}
	return m
}

func (m *model) draw(t *rapid.T) (*Allocator, tenant.MAC, netip.Addr) {
	return rapid.SampledFrom(m.hosts).Draw(t, "host"), mac(rapid.IntRange(1, 20).Draw(t, "mac")),
		address(number(m.sub.CIDR.Addr()) + uint32(rapid.IntRange(0, 16).Draw(t, "address")))
}

// at is the lease of an address as it counts now.
func (m *model) at(a netip.Addr) *tenant.Lease {
	l := m.leases[a]
	if l != nil && l.State != tenant.LeaseBound && !m.clock.now().Before(l.Expires) {
		return nil
	}
	return l
}

func (m *model) reserve(t *rapid.T, host *Allocator, mac tenant.MAC, a netip.Addr) {
	if l, ok := leaseAt(m.store, m.sub.ID, a); !ok || l.State != tenant.LeaseReserved || l.MAC != mac || l.Host != host.Host {
		t.Fatalf("the lease of %s is %+v", a, l)
	}
	m.leases[a] = &tenant.Lease{Address: a, State: tenant.LeaseReserved, MAC: mac, Host: host.Host, Expires: m.clock.now().Add(tenant.ReservationTime)}
}

func (m *model) choose(t *rapid.T) {
	host, mac, _ := m.draw(t)
	var reserved, resting []netip.Addr
	var bound bool
	for a := range m.leases {
		switch l := m.at(a); {
		case l == nil || l.MAC != mac:
		case l.State == tenant.LeaseBound:
			bound = true
		case l.State == tenant.LeaseReserved:
			reserved = append(reserved, a)
		default:
			resting = append(resting, a)
		}
	}
	got, err := host.Allocate(ctx, m.sub, Request{MAC: mac})
	back := reserved
	if len(back) == 0 {
		back = resting
	}
	switch {
	case bound:
		if !errors.Is(err, tenant.ErrConflict) {
			t.Fatalf("%s is bound, but got %v, %v", mac, got, err)
		}
		return
	case len(back) > 0:
		for _, a := range back {
			if err == nil && a == got {
				m.reserve(t, host, mac, got)
				return
			}
		}
		t.Fatalf("%s has %v, but got %v, %v", mac, back, got, err)
	}
	free := false
	for a := m.sub.CIDR.Addr().Next(); m.sub.CIDR.Contains(a.Next()); a = a.Next() {
		free = free || a != m.sub.Gateway && m.at(a) == nil
	}
	switch {
	case !free:
		if !errors.Is(err, tenant.ErrExhausted) {
			t.Fatalf("nothing is free, but got %v, %v", got, err)
		}
		return
	case err != nil:
		t.Fatalf("an address is free, but: %v", err)
	case m.at(got) != nil || got == m.sub.Gateway || tenant.ValidateAddress(m.sub.CIDR, got) != nil:
		t.Fatalf("got %s, which is not free", got)
	case m.leases[got] == nil && m.last[host].IsValid():
		// Rotation: no address without a lease was passed over.
		for a := m.last[host].Next(); a != got; a = a.Next() {
			if !m.sub.CIDR.Contains(a) {
				a = m.sub.CIDR.Addr()
				continue
			}
			if a != m.sub.Gateway && m.leases[a] == nil && tenant.ValidateAddress(m.sub.CIDR, a) == nil {
				t.Fatalf("got %s after %s, passing over %s", got, m.last[host], a)
			}
		}
	}
	m.last[host] = got
	m.reserve(t, host, mac, got)
}

func (m *model) name(t *rapid.T) {
	host, mac, a := m.draw(t)
	old := m.at(a)
	got, err := host.Allocate(ctx, m.sub, Request{MAC: mac, Want: a})
	switch {
	case tenant.ValidateAddress(m.sub.CIDR, a) != nil:
		if !errors.Is(err, tenant.ErrInvalid) {
			t.Fatalf("%s: %v, %v", a, got, err)
		}
	case a == m.sub.Gateway, old != nil && old.State == tenant.LeaseReserved && old.MAC != mac,
		old != nil && old.State == tenant.LeaseBound && (old.MAC != mac || old.Host != host.Host):
		if !errors.Is(err, tenant.ErrConflict) {
			t.Fatalf("%s has %+v, but got %v, %v", a, old, got, err)
		}
	case err != nil || got != a:
		t.Fatalf("%s has %+v, but got %v, %v", a, old, got, err)
	case old == nil || old.State != tenant.LeaseBound:
		m.reserve(t, host, mac, a)
	}
}

func (m *model) bind(t *rapid.T) {
	_, _, a := m.draw(t)
	l := m.at(a)
	if l == nil || l.State != tenant.LeaseReserved {
		return
	}
	m.vports[a] = attach(t, m.store, m.sub, a, l.MAC, "v"+a.String(), l.Host)
	l.State = tenant.LeaseBound
}

func (m *model) unbind(t *rapid.T) {
	_, _, a := m.draw(t)
	v, ok := m.vports[a]
	if !ok {
		return
	}
	if err := m.store.DeleteVport(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	delete(m.vports, a)
	l, _ := leaseAt(m.store, m.sub.ID, a)
	m.leases[a].State, m.leases[a].Expires = tenant.LeaseResting, l.Expires // by the store's clock
}

func (m *model) release(t *rapid.T) {
	host, _, a := m.draw(t)
	if err := host.Release(ctx, m.sub.ID, a); err != nil {
		t.Fatal(err)
	}
	if l := m.leases[a]; l != nil && l.State == tenant.LeaseReserved && l.Host == host.Host {
		delete(m.leases, a)
	}
}

// check holds the store's leases against the map.
func (m *model) check(t *rapid.T) {
	for a := m.sub.CIDR.Addr(); m.sub.CIDR.Contains(a); a = a.Next() {
		want := m.at(a)
		got, ok := leaseAt(m.store, m.sub.ID, a)
		switch {
		case want == nil && ok && !lapsed(&got, m.clock.now()), want != nil && !ok,
			want != nil && (got.State != want.State || got.MAC != want.MAC || got.Host != want.Host):
			t.Fatalf("%s: lease %+v, want %+v", a, got, want)
		case want == nil && !ok:
			delete(m.leases, a) // swept
		}
	}
}
