package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nuage/controller/tenant"
)

func reservation(sub tenant.Subnet, ip string, mac tenant.MAC) tenant.Lease {
	return tenant.Lease{SubnetID: sub.ID, Address: netip.MustParseAddr(ip), State: tenant.LeaseReserved, Use: tenant.UseEndpoint, MAC: mac, Host: "h1"}
}

// lease is what the feed shows of an address.
func lease(s *Store, sub tenant.Subnet, ip string) (l tenant.Lease) {
	s.Feed().View(func(st *tenant.State) {
		if have := st.Leases[tenant.LeaseID(sub.ID, ip)]; have != nil {
			l = *have
		}
	})
	return l
}

func TestLeases(t *testing.T) {
	t.Parallel()
	s, _ := start(t, Config{Dir: t.TempDir()})
	ctx := context10(t)
	sub := mustPath(t, s, spec("D", "10.0.1.0/24")).Subnet
	mac, stranger := tenant.RandomMAC(), tenant.RandomMAC()
	l, err := s.PutLease(ctx, reservation(sub, "10.0.1.5", mac))
	if err != nil || l.Expires.Sub(l.Created) != tenant.ReservationTime {
		t.Fatalf("%+v, %v", l, err)
	}
	if _, err := s.PutLease(ctx, reservation(sub, "10.0.1.5", mac)); !errors.Is(err, tenant.ErrStale) {
		t.Errorf("a second reservation of the address: %v", err)
	}
	l.MAC = stranger
	l2, err := s.PutLease(ctx, l)
	if err != nil || lease(s, sub, "10.0.1.5") != l2 {
		t.Errorf("taking over what was read: %+v, %v", l2, err)
	}
	if err := s.DeleteLease(ctx, l); !errors.Is(err, tenant.ErrStale) {
		t.Errorf("deleting what has changed: %v", err)
	}
	v := newVport(sub, "10.0.1.5")
	if _, err := s.BindVport(ctx, v); !errors.Is(err, tenant.ErrConflict) {
		t.Errorf("binding the reservation of another MAC: %v", err)
	}
	v.MAC = stranger
	bound, err := s.BindVport(ctx, v)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.BindVport(ctx, v); err != nil || !reflect.DeepEqual(again, bound) {
		t.Errorf("the same vport again: %+v, want %+v (%v)", again, bound, err)
	}
	held := lease(s, sub, "10.0.1.5")
	if held.VportID != v.ID || held.State != tenant.LeaseBound || !held.Expires.IsZero() || held.Created != l.Created {
		t.Errorf("bound lease: %+v", held)
	}
	held.VportID = ""
	if _, err := s.PutLease(ctx, held); !errors.Is(err, tenant.ErrConflict) {
		t.Errorf("taking a vport's lease away: %v", err)
	}
	if err := s.DeleteLease(ctx, held); !errors.Is(err, tenant.ErrConflict) {
		t.Errorf("deleting a vport's lease: %v", err)
	}
	v.Interface, v.PolicyGroups = "nu1", []string{"web"}
	if moved, err := s.BindVport(ctx, v); err != nil || moved.Interface != "nu1" || moved.Created != bound.Created || moved.Revision == bound.Revision {
		t.Errorf("the same vport with more details: %+v, %v", moved, err)
	}
	v.IPv4 = netip.MustParseAddr("10.0.1.6")
	if _, err := s.BindVport(ctx, v); !errors.Is(err, tenant.ErrConflict) {
		t.Errorf("the same vport with another address: %v", err)
	}
	if err := s.DeleteVport(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	if rest := lease(s, sub, "10.0.1.5"); rest.State != tenant.LeaseResting || rest.VportID != "" || rest.Expires.IsZero() {
		t.Errorf("released lease: %+v", rest)
	}
	// Docker's own IPAM may hand out a resting address at once: binding is no allocation.
	if _, err := s.BindVport(ctx, newVport(sub, "10.0.1.5")); err != nil {
		t.Errorf("binding a resting address: %v", err)
	}
	aux := reservation(sub, "10.0.1.8", tenant.MAC{})
	aux.State, aux.Use = tenant.LeaseBound, tenant.UseAuxiliary
	if _, err := s.PutLease(ctx, aux); err != nil {
		t.Fatal(err)
	}
	if _, err := s.BindVport(ctx, newVport(sub, "10.0.1.8")); !errors.Is(err, tenant.ErrConflict) {
		t.Errorf("binding an auxiliary address: %v", err)
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	s, _ := start(t, Config{Dir: t.TempDir(), Reservation: 300 * time.Millisecond, Rest: 300 * time.Millisecond})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	sub := mustPath(t, s, spec("D", "10.0.0.0/16")).Subnet
	v := newVport(sub, "10.0.3.3")
	if _, err := s.BindVport(ctx, v); err != nil {
		t.Fatal(err)
	}
	if _, err := s.BindVport(ctx, newVport(sub, "10.0.3.4")); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteVport(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	var last time.Time // when the last reservation was not there yet
	for i := range 3 * sweepBatch {
		last = time.Now()
		if _, err := s.PutLease(ctx, reservation(sub, fmt.Sprintf("10.0.1.%d", i+2), tenant.RandomMAC())); err != nil {
			t.Fatal(err)
		}
	}
	for n := -1; n != 1; {
		if time.Since(last) > 10*time.Second {
			t.Fatalf("%d leases are left", n)
		}
		time.Sleep(10 * time.Millisecond)
		s.Feed().View(func(st *tenant.State) { n = len(st.Leases) })
	}
	if time.Since(last) < 290*time.Millisecond {
		t.Error("a reservation was removed early")
	}
	if lease(s, sub, "10.0.3.4").State != tenant.LeaseBound {
		t.Error("a bound lease was removed")
	}
}

func TestReleaseSubnet(t *testing.T) {
	t.Parallel()
	s, _ := start(t, Config{Dir: t.TempDir()})
	ctx := context10(t)
	sp := spec("D", "10.0.1.0/24")
	sp.DockerOwned = true
	sub := mustPath(t, s, sp).Subnet
	kept := mustPath(t, s, spec("D", "10.0.2.0/24")).Subnet
	n := tenant.Network{Meta: tenant.Meta{ID: "n1"}, SubnetID: sub.ID, Host: "h1"}
	v := newVport(sub, "10.0.1.2")
	exists := func() (ok bool) {
		_, ok = mustRead(t, s).Subnets[sub.ID]
		return ok
	}
	for _, step := range []struct {
		name string
		do   func() error
		want bool
	}{
		{"a network uses it", func() error { return s.PutNetwork(ctx, n) }, true},
		{"a vport uses it", func() error { _, err := s.BindVport(ctx, v); return errors.Join(err, s.DeleteNetwork(ctx, "n1")) }, true},
		{"nothing uses it", func() error { return s.DeleteVport(ctx, v.ID) }, false},
		{"it is gone", func() error { return s.ReleaseSubnet(ctx, kept.ID) }, false},
	} {
		if err := errors.Join(step.do(), s.ReleaseSubnet(ctx, sub.ID)); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if exists() != step.want {
			t.Errorf("%s: the subnet exists: %v", step.name, exists())
		}
	}
	st := mustRead(t, s)
	if st.Subnets[kept.ID] == nil {
		t.Error("a subnet that a user made was removed")
	}
	if len(st.Leases) != 0 {
		t.Errorf("%d leases are left of the subnet", len(st.Leases))
	}
}

// TestModel drives one subnet by random operations against an oracle of maps. They come
// from three hosts, one of which follows the domain hardly ever, and which all see at once
// what the others have done.
func TestModel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := start(t, Config{Dir: dir})
	far, _ := startFar(t, dir, Config{})
	away, _ := startFar(t, dir, Config{Host: "h2", Linger: time.Millisecond})
	stores := []*Store{s, far, away}
	ctx := context.Background()
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		sub := mustPath(t, s, spec(fmt.Sprint("D", round), "10.0.1.0/29")).Subnet
		type holder struct {
			state tenant.LeaseState
			mac   tenant.MAC
			vport string
		}
		leases, vports := map[string]holder{}, map[string]tenant.Vport{}
		macs := []tenant.MAC{{}, {2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}}
		address := rapid.SampledFrom([]string{"10.0.1.2", "10.0.1.3", "10.0.1.4"})
		on := func() *Store { return stores[rapid.IntRange(0, 2).Draw(rt, "store")] }
		mustFollow(t, s, sub.DomainID)
		mustFollow(t, far, sub.DomainID)
		// see is a store that has seen everything so far.
		see := func(rt *rapid.T) *Store {
			st := stores[rapid.IntRange(0, 1).Draw(rt, "seen by")]
			if err := st.catchUpWith(ctx, sub.DomainID); err != nil {
				rt.Fatal(err)
			}
			return st
		}
		someID := func() string {
			ids := []string{"00000000-0000-4000-8000-000000000000"}
			for id := range vports {
				ids = append(ids, id)
			}
			return ids[rapid.IntRange(0, len(ids)-1).Draw(rt, "vport")]
		}
		rt.Repeat(map[string]func(*rapid.T){
			"bind": func(rt *rapid.T) {
				ip := address.Draw(rt, "ip")
				v := newVport(sub, ip)
				v.MAC = rapid.SampledFrom(macs[1:]).Draw(rt, "mac")
				h, held := leases[ip]
				ok := !held || h.state == tenant.LeaseResting || h.vport == "" && (h.mac.IsZero() || h.mac == v.MAC)
				_, err := on().BindVport(ctx, v)
				if ok != (err == nil) || err != nil && !errors.Is(err, tenant.ErrConflict) {
					rt.Fatalf("binding %s to %s held by %+v: %v", ip, v.MAC, h, err)
				}
				if ok {
					vports[v.ID], leases[ip] = v, holder{tenant.LeaseBound, v.MAC, v.ID}
				}
			},
			"bind again": func(rt *rapid.T) {
				if v, ok := vports[someID()]; ok {
					if _, err := on().BindVport(ctx, v); err != nil {
						rt.Fatal(err)
					}
				}
			},
			"delete": func(rt *rapid.T) {
				id := someID()
				if err := on().DeleteVport(ctx, id); err != nil {
					rt.Fatal(err)
				}
				if v, ok := vports[id]; ok {
					leases[v.IPv4.String()] = holder{tenant.LeaseResting, v.MAC, ""}
					delete(vports, id)
				}
			},
			"reserve": func(rt *rapid.T) {
				ip, mac := address.Draw(rt, "ip"), rapid.SampledFrom(macs).Draw(rt, "mac")
				l := reservation(sub, ip, mac)
				_, held := leases[ip]
				_, err := on().PutLease(ctx, l)
				if held != errors.Is(err, tenant.ErrStale) || !held && err != nil {
					rt.Fatalf("reserving %s (held: %v): %v", ip, held, err)
				}
				if !held {
					leases[ip] = holder{tenant.LeaseReserved, mac, ""}
				}
			},
			"free": func(rt *rapid.T) {
				ip := address.Draw(rt, "ip")
				l := lease(see(rt), sub, ip)
				l.SubnetID, l.Address = sub.ID, netip.MustParseAddr(ip)
				err := on().DeleteLease(ctx, l)
				if bound := leases[ip].vport != ""; bound != errors.Is(err, tenant.ErrConflict) || !bound && err != nil {
					rt.Fatalf("freeing %s: %v", ip, err)
				} else if !bound {
					delete(leases, ip)
				}
			},
			"": func(rt *rapid.T) {
				see(rt).Feed().View(func(st *tenant.State) {
					got := map[string]holder{}
					st.Children(tenant.Key{Kind: tenant.KindSubnet, ID: sub.ID}, tenant.KindLease, func(id string) {
						l := st.Leases[id]
						got[l.Address.String()] = holder{l.State, l.MAC, l.VportID}
					})
					n := 0
					st.Children(tenant.Key{Kind: tenant.KindSubnet, ID: sub.ID}, tenant.KindVport, func(id string) {
						n++
						if v := vports[id]; st.Vports[id].IPv4 != v.IPv4 {
							rt.Errorf("vport %s: %+v", id, st.Vports[id])
						}
					})
					if n != len(vports) || !reflect.DeepEqual(got, leases) {
						rt.Fatalf("%d vports, want %d; leases %v, want %v", n, len(vports), got, leases)
					}
				})
			},
		})
	})
}

// TestNoAddressTwice lets workers on three stores fight for few addresses. The owner of an
// address enters it after binding and leaves it before releasing, so that two owners at
// once are seen.
func TestNoAddressTwice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, stop := start(t, Config{Dir: dir, Rest: 20 * time.Millisecond, Reservation: 20 * time.Millisecond})
	// One of them leaves the domain whenever it can.
	far, stopFar := startFar(t, dir, Config{Host: "h2", Rest: 20 * time.Millisecond, Reservation: 20 * time.Millisecond, Linger: time.Millisecond})
	third, stopThird := startFar(t, dir, Config{Host: "h3", Rest: 20 * time.Millisecond, Reservation: 20 * time.Millisecond})
	sub := mustPath(t, s, spec("D", "10.0.1.0/28")).Subnet
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var owners sync.Map
	var wg sync.WaitGroup
	began := time.Now()
	var mu sync.Mutex
	bindings, refusals := 0, 0
	more := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return time.Since(began) < 1500*time.Millisecond || (bindings < 50 || refusals < 50) && ctx.Err() == nil
	}
	for w := range 9 {
		st := []*Store{s, far, third}[w%3]
		wg.Go(func() {
			for more() {
				ip := fmt.Sprintf("10.0.1.%d", 2+rand.IntN(4))
				v := newVport(sub, ip)
				v.Host = st.config.Host
				if rand.IntN(2) == 0 {
					_, err := st.PutLease(ctx, reservation(sub, ip, v.MAC))
					if err != nil && !errors.Is(err, tenant.ErrStale) && !errors.Is(err, tenant.ErrConflict) {
						t.Errorf("PutLease: %v", err)
					}
				}
				_, err := st.BindVport(ctx, v)
				mu.Lock()
				if err == nil {
					bindings++
				} else {
					refusals++
				}
				mu.Unlock()
				if err != nil {
					if !errors.Is(err, tenant.ErrConflict) {
						t.Errorf("BindVport: %v", err)
					}
					continue
				}
				if other, taken := owners.LoadOrStore(ip, v.ID); taken {
					t.Errorf("%s was given to %s while %s has it", ip, v.ID, other)
				}
				if rand.IntN(3) == 0 {
					time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
				}
				owners.Delete(ip)
				if err := st.DeleteVport(ctx, v.ID); err != nil {
					t.Errorf("DeleteVport: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if bindings < 50 || refusals < 50 {
		t.Errorf("only %d bindings and %d refusals: the test tests nothing", bindings, refusals)
	}
	stopThird()
	stopFar()
	stop()
}

// TestThreeHostsFillASubnet has three hosts lease and bind whatever their feeds show as
// free, many at once: every address is given once, and all of them are.
func TestThreeHostsFillASubnet(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := start(t, Config{Dir: dir, Host: "h1"})
	stores := []*Store{s}
	for _, host := range []string{"h2", "h3"} {
		far, _ := startFar(t, dir, Config{Host: host})
		stores = append(stores, far)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	sub := mustPath(t, s, spec("D", "10.0.1.0/25")).Subnet
	const free = 125 // but for the network, its broadcast address and the gateway
	var mu sync.Mutex
	given, stale := map[netip.Addr]string{}, 0
	var wg sync.WaitGroup
	for w := range 9 {
		st := stores[w%3]
		mustFollow(t, st, sub.DomainID)
		wg.Go(func() {
			for ctx.Err() == nil {
				a := firstFree(st, sub)
				if !a.IsValid() {
					return
				}
				v := newVport(sub, a.String())
				v.Host = st.config.Host
				l := reservation(sub, a.String(), v.MAC)
				l.Host = v.Host
				if _, err := st.PutLease(ctx, l); errors.Is(err, tenant.ErrStale) {
					mu.Lock()
					stale++
					mu.Unlock()
					continue
				} else if err != nil {
					t.Errorf("PutLease: %v", err)
					return
				}
				if _, err := st.BindVport(ctx, v); err != nil {
					t.Errorf("BindVport: %v", err)
					return
				}
				mu.Lock()
				if other := given[a]; other != "" {
					t.Errorf("%s is given twice: to %s and %s", a, other, v.ID)
				}
				given[a] = v.ID
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	st := mustRead(t, s)
	if len(given) != free || len(st.Vports) != free || len(st.Leases) != free || stale == 0 {
		t.Errorf("%d addresses given to %d vports by %d leases, after %d refusals; want %d", len(given), len(st.Vports), len(st.Leases), stale, free)
	}
	for _, l := range st.Leases {
		if v := st.Vports[l.VportID]; v == nil || v.IPv4 != l.Address || v.Host != l.Host || given[l.Address] != v.ID {
			t.Errorf("the lease of %s is not its vport's: %+v, %+v", l.Address, l, v)
		}
	}
}

// firstFree is the first address of a subnet that the feed shows no lease of.
func firstFree(s *Store, sub tenant.Subnet) (free netip.Addr) {
	s.Feed().View(func(st *tenant.State) {
		for a := sub.Gateway.Next(); a != tenant.Broadcast(sub.CIDR); a = a.Next() {
			if st.Leases[tenant.LeaseID(sub.ID, a.String())] == nil {
				free = a
				return
			}
		}
	})
	return free
}

// TestBindingKeepsName: what Docker called the endpoint when it asked for the address stays
// with the lease.
func TestBindingKeepsName(t *testing.T) {
	t.Parallel()
	s, _ := start(t, Config{Dir: t.TempDir()})
	ctx := context10(t)
	sub := mustPath(t, s, spec("D", "10.0.1.0/24")).Subnet
	v := newVport(sub, "10.0.1.5")
	l := reservation(sub, "10.0.1.5", v.MAC)
	l.Name = "web-1"
	if _, err := s.PutLease(ctx, l); err != nil {
		t.Fatal(err)
	}
	if _, err := s.BindVport(ctx, v); err != nil {
		t.Fatal(err)
	}
	if got := lease(s, sub, "10.0.1.5"); got.Name != "web-1" || got.VportID != v.ID {
		t.Errorf("%+v", got)
	}
	if err := s.DeleteVport(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := s.BindVport(ctx, newVport(sub, "10.0.1.5")); err != nil {
		t.Fatal(err)
	}
	if got := lease(s, sub, "10.0.1.5"); got.Name != "" {
		t.Errorf("another endpoint inherits the name %q", got.Name)
	}
}

// TestRestart holds the whole state equal over a restart.
func TestRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, stop := start(t, Config{Dir: dir})
	ctx := context10(t)
	p := mustPath(t, s, spec("D", "10.0.1.0/24"))
	for i := 2; i < 30; i++ {
		v := newVport(p.Subnet, fmt.Sprintf("10.0.1.%d", i))
		v.PolicyGroups = []string{"web"}
		if _, err := s.BindVport(ctx, v); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			if err := s.DeleteVport(ctx, v.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(s.PutNetwork(ctx, tenant.Network{Meta: tenant.Meta{ID: "n"}, SubnetID: p.Subnet.ID, CIDR: p.Subnet.CIDR}),
		s.PutHost(ctx, tenant.Host{Meta: tenant.Meta{ID: "h1"}, Name: "h1"})); err != nil {
		t.Fatal(err)
	}
	stop()
	again, _ := start(t, Config{Dir: dir})
	s.Feed().View(func(a *tenant.State) {
		again.Feed().View(func(b *tenant.State) {
			x, y := *a, *b
			x.Revision, y.Revision = 0, 0 // which moves on with what no feed shows
			if !reflect.DeepEqual(x, y) {
				t.Errorf("the state has changed:\n%+v\n%+v", x, y)
			}
			if len(b.Vports) == 0 {
				t.Error("nothing was compared")
			}
		})
	})
}
