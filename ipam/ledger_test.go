package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nuage/controller/tenant"
)

var (
	addr   = netip.MustParseAddr
	prefix = netip.MustParsePrefix
	epoch  = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

func subnetOf(cidr, gateway string) *tenant.Subnet {
	return &tenant.Subnet{Meta: tenant.Meta{ID: "s"}, Name: "web", CIDR: prefix(cidr), Gateway: addr(gateway)}
}

func TestUsable(t *testing.T) {
	for _, c := range []struct {
		cidr, gateway, rng string
		size               int
		first, last        string
	}{
		{"10.0.0.0/24", "10.0.0.1", "", 253, "10.0.0.2", "10.0.0.254"},
		{"10.0.0.0/24", "10.0.0.254", "", 253, "10.0.0.1", "10.0.0.253"},
		{"10.0.0.0/30", "10.0.0.1", "", 1, "10.0.0.2", "10.0.0.2"},
		{"10.0.0.0/16", "10.0.0.1", "10.0.4.0/24", 256, "10.0.4.0", "10.0.4.255"},
		{"10.0.0.0/16", "10.0.4.7", "10.0.4.0/29", 7, "10.0.4.0", "10.0.4.6"},
		{"10.0.0.0/24", "10.0.0.1", "10.0.0.0/25", 126, "10.0.0.2", "10.0.0.127"},
		{"10.0.0.0/24", "10.0.0.1", "10.0.0.128/25", 127, "10.0.0.128", "10.0.0.254"},
		{"10.0.0.0/24", "10.0.0.1", "10.0.0.1/32", 0, "", ""},
		{"10.0.0.0/24", "10.0.0.1", "10.0.0.255/32", 0, "", ""},
		{"10.0.0.0/24", "10.0.0.1", "10.0.0.9/32", 1, "10.0.0.9", "10.0.0.9"},
		{"10.0.0.0/8", "10.0.0.1", "", 1<<24 - 3, "10.0.0.2", ""},
	} {
		t.Run(c.cidr+" "+c.rng, func(t *testing.T) {
			var rng netip.Prefix
			if c.rng != "" {
				rng = prefix(c.rng)
			}
			s := usable(subnetOf(c.cidr, c.gateway), rng)
			if s.size() != c.size {
				t.Errorf("size %d, want %d", s.size(), c.size)
			}
			if c.last == "" && c.first != "" {
				return
			}
			l := newLedger()
			var got []netip.Addr
			for {
				a, ok := l.next(s, epoch)
				if !ok {
					break
				}
				got = append(got, a)
				l.chosen(s, a)
				l.set(&tenant.Lease{Address: a, State: tenant.LeaseBound})
			}
			if len(got) != c.size || c.size > 0 && (got[0] != addr(c.first) || got[len(got)-1] != addr(c.last)) {
				t.Errorf("gave %d addresses: %v", len(got), got)
			}
		})
	}
}

func TestRotationGoesOnAfterTheLastOne(t *testing.T) {
	l, s := newLedger(), usable(subnetOf("10.0.0.0/29", "10.0.0.3"), netip.Prefix{})
	var got []string
	for range 12 {
		a, _ := l.next(s, epoch)
		l.chosen(s, a)
		got = append(got, a.String()[7:])
	}
	if want := "[1 2 4 5 6 1 2 4 5 6 1 2]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestRotationBeginsWhereAddressesLastChanged(t *testing.T) {
	l, s := newLedger(), usable(subnetOf("10.0.0.0/24", "10.0.0.1"), netip.Prefix{})
	for _, e := range []struct {
		a, use   string
		revision int64
	}{{"10.0.0.7", tenant.UseEndpoint, 5}, {"10.0.0.20", tenant.UseEndpoint, 9}, {"10.0.0.3", tenant.UseEndpoint, 8}, {"10.0.0.99", tenant.UseAuxiliary, 12}} {
		l.set(&tenant.Lease{Meta: tenant.Meta{Revision: e.revision}, Address: addr(e.a), Use: e.use, State: tenant.LeaseBound})
	}
	if a, _ := l.next(s, epoch); a != addr("10.0.0.21") {
		t.Errorf("next is %s, want 10.0.0.21", a)
	}
}

// TestLedgerAgainstMap holds the ledger's answers against those of a map that is walked
// address by address.
func TestLedgerAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(24, 30).Draw(t, "bits")
		cidr := netip.PrefixFrom(addr("10.1.2.0"), bits)
		n := 1 << (32 - bits)
		host := rapid.IntRange(0, n-1)
		at := func(i int) netip.Addr { return address(number(cidr.Addr()) + uint32(i)) }
		sub := subnetOf(cidr.String(), at(rapid.IntRange(1, n-2).Draw(t, "gateway")).String())
		rngs := []netip.Prefix{cidr, netip.PrefixFrom(at(host.Draw(t, "range")), rapid.IntRange(bits, 32).Draw(t, "range bits")).Masked()}
		l, now := newLedger(), epoch
		leases := map[netip.Addr]tenant.Lease{}
		last := map[netip.Prefix]netip.Addr{}

		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				lease := tenant.Lease{
					Address: at(host.Draw(t, "address")),
					State:   rapid.SampledFrom([]tenant.LeaseState{tenant.LeaseBound, tenant.LeaseReserved, tenant.LeaseResting}).Draw(t, "state"),
					MAC:     tenant.MAC{2, 0, 0, 0, 0, byte(rapid.IntRange(0, 3).Draw(t, "mac"))},
					Expires: now.Add(time.Duration(rapid.IntRange(-2, 5).Draw(t, "expires")) * time.Second),
				}
				leases[lease.Address] = lease
				l.set(&lease)
			},
			"remove": func(t *rapid.T) {
				a := at(host.Draw(t, "address"))
				delete(leases, a)
				l.remove(a)
			},
			"wait": func(t *rapid.T) { now = now.Add(time.Second) },
			"next": func(t *rapid.T) {
				rng := rapid.SampledFrom(rngs).Draw(t, "range")
				s := usable(sub, rng)
				got, ok := l.next(s, now)
				want := naiveNext(sub, rng, leases, last[rng], now)
				if ok != want.IsValid() || ok && got != want {
					t.Fatalf("next is %v (%v), want %v", got, ok, want)
				}
				if ok && rapid.Bool().Draw(t, "take") {
					l.chosen(s, got)
					last[rng] = got
				}
			},
			"": func(t *rapid.T) {
				for i := range 4 {
					mac := tenant.MAC{2, 0, 0, 0, 0, byte(i)}
					var want []netip.Addr
					for a, lease := range leases {
						if lease.MAC == mac {
							want = append(want, a)
						}
					}
					got := l.owned(mac)
					slices.SortFunc(got, netip.Addr.Compare)
					slices.SortFunc(want, netip.Addr.Compare)
					if !slices.Equal(got, want) {
						t.Fatalf("%s owns %v, want %v", mac, got, want)
					}
				}
			},
		})
	})
}

// naiveNext walks the addresses after the last one, twice: for one without a lease, then
// for one whose lease has lapsed.
func naiveNext(sub *tenant.Subnet, rng netip.Prefix, leases map[netip.Addr]tenant.Lease, last netip.Addr, now time.Time) netip.Addr {
	var order, after []netip.Addr
	for a := sub.CIDR.Addr(); sub.CIDR.Contains(a); a = a.Next() {
		switch {
		case !rng.Contains(a), a == sub.CIDR.Addr(), !sub.CIDR.Contains(a.Next()), a == sub.Gateway:
		case last.IsValid() && a.Compare(last) > 0:
			after = append(after, a)
		default:
			order = append(order, a)
		}
	}
	order = append(after, order...)
	for _, a := range order {
		if _, ok := leases[a]; !ok {
			return a
		}
	}
	for _, a := range order {
		if l := leases[a]; l.State != tenant.LeaseBound && !now.Before(l.Expires) {
			return a
		}
	}
	return netip.Addr{}
}

func BenchmarkNextInFullSixteen(b *testing.B) {
	l, s := newLedger(), usable(subnetOf("10.0.0.0/16", "10.0.0.1"), netip.Prefix{})
	for i := range 10000 {
		l.set(&tenant.Lease{Address: address(number(addr("10.0.0.2")) + uint32(i)), State: tenant.LeaseBound})
	}
	l.chosen(s, addr("10.0.0.1")) // the worst case: all leases lie before the first free one
	for b.Loop() {
		if a, ok := l.next(s, epoch); !ok || a != addr("10.0.39.18") {
			b.Fatal(a, ok)
		}
	}
}
