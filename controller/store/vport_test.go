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
	s, _ := start(t, Config{Dir: t.TempDir(), Reservation: 300 * time.Millisecond, Rest: 300 * time.Millisecond})
	ctx := context10(t)
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
	for i := range 3 * sweepBatch {
		if _, err := s.PutLease(ctx, reservation(sub, fmt.Sprintf("10.0.1.%d", i+2), tenant.RandomMAC())); err != nil {
			t.Fatal(err)
		}
	}
	last := time.Now()
	for n := -1; n != 1; {
		if time.Since(last) > 3*time.Second {
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

// TestModel drives one subnet by random operations against an oracle of maps.
func TestModel(t *testing.T) {
	s, _ := start(t, Config{Dir: t.TempDir()})
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
				_, err := s.BindVport(ctx, v)
				if ok != (err == nil) || err != nil && !errors.Is(err, tenant.ErrConflict) {
					rt.Fatalf("binding %s to %s held by %+v: %v", ip, v.MAC, h, err)
				}
				if ok {
					vports[v.ID], leases[ip] = v, holder{tenant.LeaseBound, v.MAC, v.ID}
				}
			},
			"bind again": func(rt *rapid.T) {
				if v, ok := vports[someID()]; ok {
					if _, err := s.BindVport(ctx, v); err != nil {
						rt.Fatal(err)
					}
				}
			},
			"delete": func(rt *rapid.T) {
				id := someID()
				if err := s.DeleteVport(ctx, id); err != nil {
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
				_, err := s.PutLease(ctx, l)
				if held != errors.Is(err, tenant.ErrStale) || !held && err != nil {
					rt.Fatalf("reserving %s (held: %v): %v", ip, held, err)
				}
				if !held {
					leases[ip] = holder{tenant.LeaseReserved, mac, ""}
				}
			},
			"free": func(rt *rapid.T) {
				ip := address.Draw(rt, "ip")
				l := lease(s, sub, ip)
				l.SubnetID, l.Address = sub.ID, netip.MustParseAddr(ip)
				err := s.DeleteLease(ctx, l)
				if bound := leases[ip].vport != ""; bound != errors.Is(err, tenant.ErrConflict) || !bound && err != nil {
					rt.Fatalf("freeing %s: %v", ip, err)
				} else if !bound {
					delete(leases, ip)
				}
			},
			"": func(rt *rapid.T) {
				s.Feed().View(func(st *tenant.State) {
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

// TestNoAddressTwice lets workers on two stores fight for few addresses. The owner of an
// address enters it after binding and leaves it before releasing, so that two owners at
// once are seen.
func TestNoAddressTwice(t *testing.T) {
	dir := t.TempDir()
	s, stop := start(t, Config{Dir: dir, Rest: 20 * time.Millisecond, Reservation: 20 * time.Millisecond})
	far, stopFar := start(t, Config{Endpoints: []string{"unix://" + dir + "/etcd.sock"}, Rest: 20 * time.Millisecond, Reservation: 20 * time.Millisecond})
	sub := mustPath(t, s, spec("D", "10.0.1.0/28")).Subnet
	ctx := context10(t)
	if err := far.catchUpNow(ctx); err != nil {
		t.Fatal(err)
	}
	var owners sync.Map
	var wg sync.WaitGroup
	deadline := time.Now().Add(1500 * time.Millisecond)
	var mu sync.Mutex
	bindings, refusals := 0, 0
	for w := range 8 {
		st := []*Store{s, far}[w%2]
		wg.Go(func() {
			for time.Now().Before(deadline) {
				ip := fmt.Sprintf("10.0.1.%d", 2+rand.IntN(4))
				v := newVport(sub, ip)
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
	stopFar()
	stop()
}

// TestRestart holds the whole state equal over a restart.
func TestRestart(t *testing.T) {
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
