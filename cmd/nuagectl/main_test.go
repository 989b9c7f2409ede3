package main

import (
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/sirupsen/logrus/hooks/test"

	"nuage/controller/store"
	"nuage/controller/tenant"
	"nuage/controller/vsd"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"nuagectl": main}) }

// TestScripts runs nuagectl as a user does, against the real API over a real store.
//
// With NUAGE_GOLDEN=1 the files that scripts compare with are written anew.
//
// A script has the socket in $SOCKET and these commands: "attach NAME SUBNET IP HOST" makes
// a vport as the driver does; "fail NAME SUBNET REASON HOST" one that could not be attached;
// "healthy" mends what the status says. At $LATE there is a second plugin that is still
// starting, and serves no other hosts: "late socket" and "late store" let its parts come
// after a while. "switch drop", "switch PORT" or "switch VTEP" is what this host's switch says
// of every packet; "count ENTRY PACKETS BYTES" what it has counted. "host NAME VTEP" lets another host come, whose plugin lives until "bye".
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: os.Getenv("NUAGE_GOLDEN") == "1",
		Setup: func(env *testscript.Env) error {
			p, err := newPlugin("127.0.0.1:0")
			if err != nil {
				return err
			}
			env.Defer(p.stop)
			env.Values["plugin"] = p
			env.Setenv("SOCKET", p.socket)
			second, err := newPlugin("")
			if err != nil {
				return err
			}
			env.Defer(second.stop)
			env.Values["late"] = second
			env.Setenv("LATE", second.socket)
			if err := p.listen(); err != nil {
				return err
			}
			return p.start()
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"attach": attach, "fail": attach, "healthy": healthy, "late": late, "host": host, "bye": bye, "switch": sayOf, "count": tally},
	})
}

// Ctrl-C ends a command that waits for its standard input.
func TestInterrupt(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	in, w := io.Pipe()
	defer w.Close()
	var errOut strings.Builder
	done := make(chan int, 1)
	go func() { done <- run(ctx, []string{"apply", "-f", "-"}, in, io.Discard, &errOut) }()
	if _, err := w.Write([]byte("enterprise: E\n")); err != nil { // it reads
		t.Fatal(err)
	}
	interrupt()
	select {
	case code := <-done:
		if code != exitFailed || errOut.String() != "nuagectl: interrupted\n" {
			t.Errorf("exit code %d, %q", code, errOut.String())
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on waiting")
	}
}

// plugin is the API over a store of its own, on a socket.
type plugin struct {
	socket string
	store  *store.Store
	status atomic.Pointer[vsd.Status]
	traced atomic.Pointer[vsd.TraceResult]
	server *http.Server
	etcd   string // the store's endpoint
	end    []func()
	bye    func()
}

func newPlugin(serveAt string) (*plugin, error) {
	dir, err := os.MkdirTemp("", "nuagectl") // a socket's path is short
	if err != nil {
		return nil, err
	}
	log, _ := test.NewNullLogger()
	p := &plugin{socket: filepath.Join(dir, "api.sock")}
	p.end = append(p.end, func() { os.RemoveAll(dir) })
	p.status.Store(&sample)
	p.etcd = "unix://" + filepath.Join(dir, "store", "etcd.sock")
	p.store = store.New(store.Config{Dir: filepath.Join(dir, "store"), Host: "h1", Listen: serveAt, Log: log})
	p.server = &http.Server{Handler: vsd.New(vsd.Config{Store: p.store, Status: func() vsd.Status { return *p.status.Load() }, Version: "1.2.3", Tracer: p, Log: log})}
	return p, nil
}

func (p *plugin) listen() error {
	l, err := net.Listen("unix", p.socket)
	if err == nil {
		p.end = append(p.end, func() { p.server.Close() })
		go p.server.Serve(l)
	}
	return err
}

func (p *plugin) start() error {
	stop, err := runStore(p.store)
	p.end = append(p.end, stop)
	return err
}

// runStore runs a store and waits until it serves.
func runStore(s *store.Store) (stop func(), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for deadline := time.Now().Add(20 * time.Second); s.Ready() != nil && time.Now().Before(deadline); {
		time.Sleep(2 * time.Millisecond)
	}
	return sync.OnceFunc(func() { cancel(); <-done }), s.Ready()
}

func (p *plugin) stop() {
	for _, f := range slices.Backward(p.end) {
		f()
	}
}

var sample = vsd.Status{
	Host: "h1", Version: "1.2.3", VTEP: netip.MustParseAddr("192.0.2.1"), UptimeSeconds: 3725,
	Settings: []vsd.SettingError{{Name: "NUAGE_MTU", Problem: "\"x\x1b\" is not a number"}},
	Store:    vsd.StoreStatus{Mode: "embedded", Ready: true, Revision: 42, Joined: "192.0.2.9:4680"},
	Switch: vsd.SwitchStatus{Bridge: "alubr0", Datapath: "netdev", Version: "3.1.0", Ports: 1, Error: "ovsdb-server is away",
		Tunnel: vsd.TunnelStatus{Problem: "the uplink belongs to the kernel"}},
	Agent:  vsd.AgentStatus{Revision: 41, Flows: 120, Notes: []string{"vport web: no subnet"}},
	Docker: vsd.DockerStatus{Reachable: true, Version: "20.10.24"}, Endpoints: 2, Networks: 1,
}

var well = vsd.Status{
	Host: "h1", Version: "1.2.3", VTEP: netip.MustParseAddr("192.0.2.1"), UptimeSeconds: 60,
	Store: vsd.StoreStatus{Mode: "embedded", Ready: true, Revision: 42, Following: 3, Serving: "192.0.2.1:4680"},
	Switch: vsd.SwitchStatus{Bridge: "alubr0", Datapath: "system", Version: "3.1.0", Ports: 4, Connected: true,
		Tunnel: vsd.TunnelStatus{Port: "nuage-vxlan", VTEP: netip.MustParseAddr("192.0.2.1")}},
	Agent:  vsd.AgentStatus{Revision: 42, Flows: 120},
	Docker: vsd.DockerStatus{Reachable: true, Version: "20.10.24"},
}

func healthy(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: healthy")
	}
	ts.Value("plugin").(*plugin).status.Store(&well)
}

// What comes late comes so late that a command that runs at once has seen it missing.
const (
	socketDelay = 300 * time.Millisecond
	storeDelay  = quietTime + 1500*time.Millisecond
)

func late(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: late socket|store")
	}
	p := ts.Value("late").(*plugin)
	delay, what := socketDelay, p.listen
	if args[0] == "store" {
		delay, what = storeDelay, p.start
	}
	done := make(chan error, 1)
	go func() {
		time.Sleep(delay)
		done <- what()
	}()
	ts.Defer(func() { ts.Check(<-done) })
}

func attach(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: attach|fail NAME SUBNET IP|REASON HOST")
	}
	s := ts.Value("plugin").(*plugin).store
	v := tenant.Vport{Meta: tenant.Meta{ID: uuid.NewString()}, Name: args[0], Type: tenant.VportContainer, Host: args[3]}
	st, err := s.Read(context.Background())
	ts.Check(err)
	for id, n := range st.Subnets {
		if n.Name == args[1] {
			v.SubnetID = id
		}
	}
	if v.IPv4, err = netip.ParseAddr(args[2]); err == nil {
		v.MAC, v.Interface = tenant.MAC{2, 0, 0, 0, 0, 1}, "nu1"
	} else {
		v.Error = strings.ReplaceAll(args[2], "ESC", "\x1b")
	}
	_, err = s.BindVport(context.Background(), v)
	ts.Check(err)
}

func host(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: host NAME VTEP")
	}
	p := ts.Value("plugin").(*plugin)
	log, _ := test.NewNullLogger()
	s := store.New(store.Config{Endpoints: []string{p.etcd}, Host: args[0], Log: log})
	stop, err := runStore(s)
	ts.Defer(stop)
	ts.Check(err)
	p.bye = stop
	ctx, h := context.Background(), tenant.Host{Meta: tenant.Meta{ID: args[0]}, Name: args[0], VTEP: netip.MustParseAddr(args[1]), Version: "1.2.2", MTU: 9000}
	ts.Check(s.PutHost(ctx, h))
	all, err := s.Read(ctx)
	ts.Check(err)
	ts.Check(s.Heartbeat(ctx, tenant.HostStatus{Version: "1.2.3", Programmed: 7, Domains: slices.Collect(maps.Keys(all.Domains))}))
}

func bye(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: bye")
	}
	ts.Value("plugin").(*plugin).bye()
}

func TestServerFlag(t *testing.T) {
	stranger := httptest.NewServer(http.NotFoundHandler())
	defer stranger.Close()
	for _, c := range []struct {
		args string
		exit int
		want string
	}{
		{"--server " + stranger.URL + " get zones", exitFailed, "is this nuage?"},
		{"--server " + stranger.URL + "/x get zones", exitUsage, "is not a URL"},
		{"--server ftp://x get zones", exitUsage, "is not a URL"},
		{"--server https://127.0.0.1:1 get zones --wait 0", exitFailed, "https://127.0.0.1:1: "},
		{"--server https://h --socket s get zones", exitUsage, "none of the others can be"},
	} {
		var out, errOut strings.Builder
		if exit := run(t.Context(), strings.Fields(c.args), nil, &out, &errOut); exit != c.exit || !strings.Contains(errOut.String(), c.want) || out.Len() > 0 {
			t.Errorf("%s: exit %d, want %d: %q, want %q; %q", c.args, exit, c.exit, errOut.String(), c.want, out.String())
		}
	}
}

// TestRepeats checks that a request is made again, with its body, only after an answer
// that promises that nothing was done.
func TestRepeats(t *testing.T) {
	for _, c := range []struct {
		name, retry string
		status      int
		wait        string
		want        int
	}{
		{"nothing was done", "1", 503, "10s", 3},
		{"something may be done", "", 503, "10s", 1},
		{"a refusal for good", "1", 409, "10s", 1},
		{"no waiting", "1", 503, "0", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var bodies []string
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if bodies = append(bodies, string(body)); len(bodies) == 3 {
					io.WriteString(w, `{"changes":[]}`)
					return
				}
				if c.retry != "" {
					w.Header().Set("Retry-After", c.retry)
				}
				w.WriteHeader(c.status)
				io.WriteString(w, `{"error":"not now"}`)
			}))
			defer srv.Close()
			var out, errOut strings.Builder
			exit := run(t.Context(), []string{"--server", srv.URL, "apply", "-f", "-", "--wait", c.wait}, strings.NewReader("the file"), &out, &errOut)
			if done := c.want == 3; done != (exit == exitDone) || done != (errOut.Len() == 0) {
				t.Errorf("exit %d, %q", exit, errOut.String())
			}
			if want := slices.Repeat([]string{"the file"}, c.want); !slices.Equal(bodies, want) {
				t.Errorf("requests: %q, want %q", bodies, want)
			}
		})
	}
}

// TestWaitEnds checks that a wait ends when it is over, and when the user ends it.
func TestWaitEnds(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none")
	for wait, c := range map[string]struct {
		end  time.Duration
		want string
	}{"150ms": {time.Hour, "nuage is not running on this host"}, "1h": {150 * time.Millisecond, "nuagectl: "}} {
		ctx, cancel := context.WithTimeout(t.Context(), c.end)
		defer cancel()
		var out, errOut strings.Builder
		start := time.Now()
		exit := run(ctx, []string{"--socket", socket, "get", "zones", "--wait", wait}, nil, &out, &errOut)
		if took := time.Since(start); exit != exitFailed || took < 100*time.Millisecond || took > 5*time.Second || !strings.Contains(errOut.String(), c.want) {
			t.Errorf("--wait %s: exit %d after %s: %s", wait, exit, took, errOut.String())
		}
	}
}
