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
	c, err := Join(context10(t), JoinConfig{Token: newToken(t, s), Host: host, Dir: t.TempDir(), Log: quietLog()})
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

// servedBy is who serves a directory, in TestThroughPort: string → *served.
var servedBy sync.Map

// served is of one test, which starts one store after the other.
type served struct {
	s     *Store
	hosts map[string]Credentials
}

// throughPort makes of a store with a directory, in TestThroughPort, one of a host that has
// joined, and is served from that directory.
func throughPort(t testing.TB, c Config) Config {
	if !strings.HasPrefix(t.Name(), "TestThroughPort/") || c.Listen != "" || len(c.Endpoints) > 0 {
		return c
	}
	have, ok := servedBy.Load(c.Dir)
	if !ok {
		s, _ := serving(t, Config{Dir: c.Dir, Autocreate: true, CADir: t.TempDir(), Reservation: c.Reservation, Rest: c.Rest})
		have = &served{s, map[string]Credentials{}}
		servedBy.Store(c.Dir, have)
	}
	by := have.(*served)
	if _, ok := by.hosts[c.Host]; !ok {
		by.hosts[c.Host] = join(t, by.s, c.Host)
	}
	c.Dir, c.Endpoints, c.TLS = t.TempDir(), by.hosts[c.Host].Endpoints, by.hosts[c.Host].TLS
	return c
}

// TestThroughPort runs the tests of what a host does once more, through the port of a
// serving host. They fail if anything is refused there, since that is logged.
func TestThroughPort(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(*testing.T){
		"Line": TestLine, "Leases": TestLeases, "Expiry": TestExpiry, "ReleaseSubnet": TestReleaseSubnet, "Model": TestModel,
		"Restart": TestRestart, "ConcurrentCreation": TestConcurrentCreation,
		"Follow": TestFollow, "Linger": TestLinger, "Heartbeat": TestHeartbeat, "OneNameTwoHosts": TestOneNameTwoHosts,
	} {
		t.Run(name, test)
	}
}

// TestServingRestarts: the store of a joined host comes back by itself when the serving
// host does, also when its connections vanish without a word.
func TestServingRestarts(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "etcd")
	s, stop := serving(t, Config{Dir: dir, Autocreate: true})
	addr, _ := s.Serving()
	c := join(t, s, "h1")
	f, err := run(t, Config{Endpoints: c.Endpoints, TLS: c.TLS, Host: "h1"})
	if err != nil {
		t.Fatal(err)
	}
	p := mustPath(t, f, spec("D", "10.0.1.0/24"))
	h := tenant.Host{Meta: tenant.Meta{ID: "h1"}, Name: "h1"}
	if err := f.PutHost(context10(t), h); err != nil {
		t.Fatal(err)
	}
	if _, err := f.BindVport(context10(t), newVport(p.Subnet, "10.0.1.5")); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := bounded(t, 2*time.Second, func(ctx context.Context) error { return f.Heartbeat(ctx, tenant.HostStatus{}) }); !errors.Is(err, tenant.ErrUnavailable) {
		t.Errorf("while the serving host is away: %v", err)
	}
	began := time.Now()
	s, _ = serving(t, Config{Dir: dir, Listen: addr, Autocreate: true})
	waitReady(t, f)
	t.Logf("ready %s after the serving host's start", time.Since(began))
	if err := f.Heartbeat(context10(t), tenant.HostStatus{}); err != nil {
		t.Errorf("the sign of life of before: %v", err)
	}
	if _, err := f.BindVport(context10(t), newVport(p.Subnet, "10.0.1.6")); err != nil {
		t.Error(err)
	}
	if st := mustRead(t, s); len(st.Vports) != 2 || st.HostStatus["h1"] == nil || !st.HostStatus["h1"].Alive {
		t.Errorf("%d vports, %+v", len(st.Vports), st.HostStatus["h1"])
	}
}

// bounded runs f and fails the test if it does not end with its context.
func bounded(t testing.TB, d time.Duration, f func(context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	began := time.Now()
	err := f(ctx)
	if took := time.Since(began); took > d+time.Second {
		t.Errorf("it took %s instead of at most %s", took, d)
	}
	return err
}

// TestBlackHole: a serving host that vanishes without a word is noticed, calls end in time,
// and all goes on when it is back.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	s, _ := runServing(t, Config{Autocreate: true})
	addr, _ := s.Serving()
	hole := newBlackHole(t, addr)
	tk, err := parseToken(newToken(t, s))
	if err != nil {
		t.Fatal(err)
	}
	tk.Endpoint = hole.addr
	c, err := joinAs(t, tk.String(), "h1", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f, err := run(t, Config{Endpoints: c.Endpoints, TLS: c.TLS, Host: "h1"})
	if err != nil {
		t.Fatal(err)
	}
	p := mustPath(t, f, spec("D", "10.0.1.0/24"))
	mustFollow(t, f, p.Domain.ID)
	hole.cut()
	cut := time.Now()
	bind := func(ctx context.Context) error {
		_, err := f.BindVport(ctx, newVport(p.Subnet, "10.0.1.5"))
		return err
	}
	if err := bounded(t, time.Second, bind); !errors.Is(err, tenant.ErrUnavailable) {
		t.Errorf("a call into the hole: %v", err)
	}
	if err := unready(f, ""); err != nil {
		t.Error(err)
	}
	if took := time.Since(cut); took > 10*time.Second {
		t.Errorf("noticed after %s", took)
	} else {
		t.Logf("noticed after %s", took)
	}
	if err := bounded(t, time.Second, bind); !errors.Is(err, tenant.ErrUnavailable) {
		t.Errorf("a call once it is noticed: %v", err)
	}
	if _, err := Join(context10(t), JoinConfig{Token: tk.String(), Host: "h2", Dir: t.TempDir(), Log: quietLog()}); !errors.Is(err, tenant.ErrUnavailable) {
		t.Errorf("joining into the hole: %v", err)
	}
	hole.heal()
	healed := time.Now()
	waitReady(t, f)
	t.Logf("back after %s", time.Since(healed))
	if err := bind(context10(t)); err != nil {
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

// BenchmarkServed times joining, and the writes of an attach through the port, each until
// the feed shows it.
func BenchmarkServed(b *testing.B) {
	s, _ := serving(b, Config{Autocreate: true})
	b.Run("Join", func(b *testing.B) {
		var took []time.Duration
		for b.Loop() {
			token, dir := newToken(b, s), b.TempDir()
			began := time.Now()
			if _, err := Join(context10(b), JoinConfig{Token: token, Host: "joins", Dir: dir, Log: quietLog()}); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(began))
		}
		percentiles(b, took)
	})
	f := far(b, s, "h1")
	sub := mustPath(b, f, spec("D", "10.0.0.0/8")).Subnet
	i := 0
	b.Run("PutLease", func(b *testing.B) {
		var took []time.Duration
		for b.Loop() {
			i++
			began := time.Now()
			if _, err := f.PutLease(context10(b), reservation(sub, nth(i), tenant.RandomMAC())); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(began))
		}
		percentiles(b, took)
	})
	b.Run("BindVport", func(b *testing.B) {
		var took []time.Duration
		for b.Loop() {
			i++
			began := time.Now()
			if _, err := f.BindVport(context10(b), newVport(sub, nth(i))); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(began))
		}
		percentiles(b, took)
	})
}
