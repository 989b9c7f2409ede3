package store

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"

	"nuage/controller/tenant"
)

// Tests run beside each other, but for those that look at all of the process (its sockets,
// its goroutines, etcd's counters) or change a variable of the package.

func TestMain(m *testing.M) {
	flag.Parse()
	given := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for name, value := range map[string]string{
		"rapid.checks":  "20",                                  // each makes a hundred writes that are fsynced; others every time
		"test.parallel": fmt.Sprint(2 * runtime.GOMAXPROCS(0)), // most of what they do is waiting
	} {
		if !given[name] {
			flag.Set(name, value)
		}
	}
	os.Exit(m.Run())
}

// hurried is what etcd says on a busy machine: when it starts, and does again later; and of
// a sign of life that has lapsed before it was ended.
var hurried = regexp.MustCompile(`(schema|storage) version |cannot campaign at term \d+ since there are still pending|lease not found.*lease_revoke`)

// start runs a store in dir until the test ends, or stop is called, and fails the test if
// anything was logged.
func start(t testing.TB, c Config) (s *Store, stop func()) {
	t.Helper()
	log, hook := test.NewNullLogger()
	log.SetLevel(logrus.DebugLevel)
	c.Log = log
	if c.Host == "" {
		c.Host = "h1"
	}
	c = throughPort(t, c)
	s = New(c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run does not return")
		}
		for _, e := range hook.AllEntries() {
			if e.Level <= logrus.WarnLevel && !hurried.MatchString(fmt.Sprint(e.Message, " ", e.Data)) {
				t.Errorf("logged: %s %v", e.Message, e.Data)
			}
		}
	}
	t.Cleanup(stop)
	waitReady(t, s)
	return s, stop
}

func waitReady(t testing.TB, s *Store) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for s.Ready() != nil {
		if time.Now().After(deadline) {
			t.Fatalf("store not ready: %v", s.Ready())
		}
		time.Sleep(time.Millisecond)
	}
}

// context10 is a context that bounds a test's waits.
func context10(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// spec is a path whose subnet is made.
func spec(domain, cidr string) tenant.PathSpec {
	return tenant.PathSpec{Enterprise: "Acme Corp", Domain: domain, Zone: "Z", CIDR: netip.MustParsePrefix(cidr), Create: true}
}

func mustPath(t testing.TB, s *Store, sp tenant.PathSpec) tenant.Path {
	t.Helper()
	p, err := s.EnsurePath(context10(t), sp)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustRead(t testing.TB, s *Store) *tenant.State {
	t.Helper()
	st, err := s.Read(context10(t))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func mustFollow(t testing.TB, s *Store, domain string) {
	t.Helper()
	if err := s.Follow(context10(t), domain); err != nil {
		t.Fatal(err)
	}
}

func newVport(sub tenant.Subnet, ip string) tenant.Vport {
	return tenant.Vport{
		Meta: tenant.Meta{ID: uuid.NewString()}, SubnetID: sub.ID, Name: "web", Type: tenant.VportContainer,
		MAC: tenant.RandomMAC(), IPv4: netip.MustParseAddr(ip), Host: "h1",
	}
}

func TestLine(t *testing.T) {
	t.Parallel()
	s, stop := start(t, Config{Dir: t.TempDir()})
	ctx := context10(t)
	p := mustPath(t, s, spec("App1", "10.0.1.0/24"))
	v := newVport(p.Subnet, "10.0.1.5")
	bound, err := s.BindVport(ctx, v)
	if err != nil {
		t.Fatal(err)
	}
	s.Feed().View(func(st *tenant.State) {
		if got := st.Vports[v.ID]; got == nil || got.Revision != bound.Revision || got.ZoneID != p.Zone.ID {
			t.Errorf("the feed does not show the vport: %+v", got)
		}
		if l := st.Leases[tenant.LeaseID(p.Subnet.ID, "10.0.1.5")]; l == nil || l.VportID != v.ID || l.State != tenant.LeaseBound {
			t.Errorf("the feed does not show the lease: %+v", l)
		}
	})
	other := newVport(p.Subnet, "10.0.1.5")
	if _, err := s.BindVport(ctx, other); !errors.Is(err, tenant.ErrConflict) {
		t.Errorf("a second vport on the address: %v", err)
	}
	if err := s.DeleteVport(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	stop()
}
