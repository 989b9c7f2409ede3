package ipam

import (
	"context"
	"io"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/sirupsen/logrus"

	"nuage/controller/store"
	"nuage/controller/tenant"
	"nuage/driver/journal"
)

// realStore runs the embedded store until the test ends.
func realStore(t testing.TB) *store.Store {
	t.Helper()
	s := store.New(store.Config{Dir: t.TempDir(), Host: "h1", Log: quiet()})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("store: %v", err)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); s.Ready() != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the store does not start: %v", s.Ready())
		}
	}
	return s
}

func quiet() logrus.FieldLogger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return log
}

func realRecords(t testing.TB) *journal.Journal {
	t.Helper()
	j, err := journal.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// makeSubnet makes the subnet and all that contains it.
func makeSubnet(t testing.TB, s *store.Store, enterprise, domain, zone, name, cidr string) tenant.Subnet {
	t.Helper()
	p, err := s.EnsurePath(context.Background(), tenant.PathSpec{Enterprise: enterprise, Domain: domain, Zone: zone, Subnet: name, CIDR: prefix(cidr), Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return p.Subnet
}

func mac(n int) tenant.MAC {
	return tenant.MAC{2, 0x42, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// fatal is what a test and a property test have in common.
type fatal interface {
	Helper()
	Fatal(...any)
}

// attach binds an address as the network driver does in CreateEndpoint.
func attach(t fatal, s *store.Store, sub tenant.Subnet, a netip.Addr, m tenant.MAC, name, host string) tenant.Vport {
	t.Helper()
	v, err := s.BindVport(context.Background(), tenant.Vport{
		Meta: tenant.Meta{ID: uuid.NewString()}, SubnetID: sub.ID, Name: name, Type: tenant.VportContainer, MAC: m, IPv4: a, Host: host,
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func leaseAt(s Leases, subnetID string, a netip.Addr) (found tenant.Lease, ok bool) {
	s.Feed().View(func(st *tenant.State) {
		if l := st.Leases[tenant.LeaseID(subnetID, a.String())]; l != nil {
			found, ok = *l, true
		}
	})
	return found, ok
}

// clock is a time that the test moves. It never lags behind the real one, so that the
// store's own sweeping leaves alone what the test has not yet let expire.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

// fill leases n addresses of a subnet.
func fill(t testing.TB, e *engine, sub tenant.Subnet, n int) {
	t.Helper()
	var wg sync.WaitGroup
	const workers = 16
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				l := tenant.Lease{SubnetID: sub.ID, Address: address(number(sub.CIDR.Addr()) + 2 + uint32(i)), State: tenant.LeaseBound, MAC: mac(i), Host: "h9", Use: tenant.UseEndpoint}
				if _, err := e.store.PutLease(context.Background(), l); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
