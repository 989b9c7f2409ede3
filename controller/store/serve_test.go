package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"nuage/controller/tenant"
)

// serving runs a store that serves others on the loopback.
func serving(t testing.TB, c Config) (s *Store, stop func()) {
	t.Helper()
	if c.Dir == "" {
		c.Dir = filepath.Join(t.TempDir(), "etcd")
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	if c.Host == "" {
		c.Host = "serving"
	}
	s, stop = start(t, c)
	waitServing(t, s)
	return s, stop
}

// runServing is serving for a store that refuses what it should, and logs it.
func runServing(t testing.TB, c Config) (*Store, *logged) {
	t.Helper()
	c.Dir, c.Listen, c.Host = filepath.Join(t.TempDir(), "etcd"), "127.0.0.1:0", "serving"
	log := &logged{}
	c.Log = log.logger()
	s := New(c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	waitReady(t, s)
	waitServing(t, s)
	return s, log
}

// logged is what was logged at warn or above.
type logged struct {
	mu    sync.Mutex
	lines []string
}

func (l *logged) logger() logrus.FieldLogger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	log.AddHook(l)
	return log
}

func (l *logged) Levels() []logrus.Level { return logrus.AllLevels[:logrus.WarnLevel+1] }

func (l *logged) Fire(e *logrus.Entry) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprint(e.Message, " ", e.Data))
	return nil
}

// has tells whether a line with the excerpt was logged.
func (l *logged) has(excerpt string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.lines, func(s string) bool { return strings.Contains(s, excerpt) })
}

func waitServing(t testing.TB, s *Store) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		_, err := s.Serving()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// join lets a host join by a new token.
func join(t testing.TB, s *Store, host string) Credentials {
	t.Helper()
	c, err := Join(context10(t), JoinConfig{Token: newToken(t, s), Host: host, Dir: t.TempDir(), Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newToken(t testing.TB, s *Store) string {
	t.Helper()
	token, err := s.CreateToken(context10(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func quiet() logrus.FieldLogger { log, _ := test.NewNullLogger(); return log }

// far runs the store of a host that has joined. Nothing that it does may be refused.
func far(t testing.TB, s *Store, host string) *Store {
	t.Helper()
	c := join(t, s, host)
	f, _ := start(t, Config{Endpoints: c.Endpoints, TLS: c.TLS, Host: host,
		Reservation: s.config.Reservation, Rest: s.config.Rest})
	return f
}

// client is etcd's ordinary client with a host's certificate.
func client(t testing.TB, c Credentials) *clientv3.Client {
	t.Helper()
	cl, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints, TLS: c.TLS, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	return cl
}

// servedBy is set while tests are to run through a serving host's port.
var servedBy map[string]*served

type served struct {
	s     *Store
	hosts map[string]Credentials
}

// throughPort makes of a store with a directory, in TestThroughPort, one of a host that has
// joined, and is served from that directory.
func throughPort(t testing.TB, c Config) Config {
	if servedBy == nil || c.Listen != "" || len(c.Endpoints) > 0 {
		return c
	}
	by := servedBy[c.Dir]
	if by == nil {
		s, _ := serving(t, Config{Dir: c.Dir, Autocreate: true, CADir: t.TempDir(), Reservation: c.Reservation, Rest: c.Rest})
		by = &served{s, map[string]Credentials{}}
		servedBy[c.Dir] = by
	}
	if _, ok := by.hosts[c.Host]; !ok {
		by.hosts[c.Host] = join(t, by.s, c.Host)
	}
	c.Dir, c.Endpoints, c.TLS = t.TempDir(), by.hosts[c.Host].Endpoints, by.hosts[c.Host].TLS
	return c
}

// TestThroughPort runs the tests of what a host does once more, through the port of a
// serving host. They fail if anything is refused there, since that is logged.
func TestThroughPort(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"Line": TestLine, "Leases": TestLeases, "Expiry": TestExpiry, "ReleaseSubnet": TestReleaseSubnet, "Model": TestModel,
		"NoAddressTwice": TestNoAddressTwice, "Restart": TestRestart, "ConcurrentCreation": TestConcurrentCreation,
		"Follow": TestFollow, "Linger": TestLinger, "ElsewhereCostsNothing": TestElsewhereCostsNothing, "Heartbeat": TestHeartbeat, "OneNameTwoHosts": TestOneNameTwoHosts,
	} {
		t.Run(name, func(t *testing.T) {
			servedBy = map[string]*served{}
			defer func() { servedBy = nil }()
			test(t)
		})
	}
}

// TestServe drives a store of a host that has joined.
func TestServe(t *testing.T) {
	s, _ := serving(t, Config{Autocreate: true})
	h1 := far(t, s, "h1")
	ctx := context10(t)
	p := mustPath(t, h1, spec("App1", "10.0.1.0/24"))
	v := newVport(p.Subnet, "10.0.1.5")
	if _, err := h1.BindVport(ctx, v); err != nil {
		t.Fatal(err)
	}
	if err := h1.DeleteVport(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	if err := h1.DeleteZone(ctx, p.Zone.ID); !errors.Is(err, tenant.ErrConflict) && !errors.Is(err, tenant.ErrDenied) {
		t.Error(err)
	}
}

// blackHole is a proxy that can stop forwarding while it keeps its connections open.
type blackHole struct {
	addr string
	mu   sync.Mutex
	open chan struct{} // closed while data passes
}

func newBlackHole(t testing.TB, to string) *blackHole {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &blackHole{addr: l.Addr().String(), open: make(chan struct{})}
	close(b.open)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); l.Close() })
	pass := func(from, into net.Conn) {
		defer from.Close()
		defer into.Close()
		defer context.AfterFunc(ctx, func() { from.Close(); into.Close() })()
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			b.mu.Lock()
			open := b.open
			b.mu.Unlock()
			select {
			case <-open:
			case <-ctx.Done():
				return
			}
			if _, werr := into.Write(buf[:n]); err != nil || werr != nil {
				return
			}
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				d, err := net.Dial("tcp", to)
				if err != nil {
					c.Close()
					return
				}
				go pass(c, d)
				pass(d, c)
			}()
		}
	}()
	return b
}

func (b *blackHole) cut()  { b.mu.Lock(); b.open = make(chan struct{}); b.mu.Unlock() }
func (b *blackHole) heal() { b.mu.Lock(); close(b.open); b.mu.Unlock() }
