package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
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
// A script has the socket in $SOCKET and these commands: "attach NAME SUBNET IP" makes a
// vport as the driver does; "fail NAME SUBNET REASON" one that could not be attached.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			dir, err := os.MkdirTemp("", "nuagectl") // a socket's path is short
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(dir) })
			socket := filepath.Join(dir, "api.sock")
			env.Setenv("SOCKET", socket)
			s, stop, err := serve(socket)
			if err != nil {
				return err
			}
			env.Defer(stop)
			env.Values["store"] = s
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"attach": attach, "fail": attach},
	})
}

// serve is the API over a store of its own, on a socket.
func serve(socket string) (*store.Store, func(), error) {
	log, _ := test.NewNullLogger()
	s := store.New(store.Config{Dir: filepath.Join(filepath.Dir(socket), "store"), Host: "h1", Log: log})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	for deadline := time.Now().Add(20 * time.Second); s.Ready() != nil && time.Now().Before(deadline); {
		time.Sleep(2 * time.Millisecond)
	}
	if err := s.Ready(); err != nil {
		cancel()
		return nil, nil, err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	srv := &http.Server{Handler: vsd.New(vsd.Config{Store: s, Status: func() vsd.Status { return sample }, Version: "1.2.3", Log: log})}
	go srv.Serve(l)
	return s, func() { srv.Close(); cancel(); <-done }, nil
}

var sample = vsd.Status{
	Host: "h1", Version: "1.2.3", VTEP: netip.MustParseAddr("192.0.2.1"), UptimeSeconds: 3725,
	Settings: []vsd.SettingError{{Name: "NUAGE_MTU", Problem: "\"x\x1b\" is not a number"}},
	Store:    vsd.StoreStatus{Mode: "embedded", Ready: true, Revision: 42},
	Switch:   vsd.SwitchStatus{Bridge: "alubr0", Datapath: "netdev", Version: "3.1.0", Ports: 1, Error: "ovsdb-server is away"},
	Agent:    vsd.AgentStatus{Revision: 41, Flows: 120, Notes: []string{"vport web: no subnet"}},
	Docker:   vsd.DockerStatus{Reachable: true, Version: "20.10.24"}, Endpoints: 2, Networks: 1,
}

func attach(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: attach|fail NAME SUBNET IP|REASON HOST")
	}
	s := ts.Value("store").(*store.Store)
	v := tenant.Vport{Meta: tenant.Meta{ID: uuid.NewString()}, Name: args[0], Type: tenant.VportContainer, Host: args[3]}
	s.Feed().View(func(st *tenant.State) {
		for id, n := range st.Subnets {
			if n.Name == args[1] {
				v.SubnetID = id
			}
		}
	})
	var err error
	if v.IPv4, err = netip.ParseAddr(args[2]); err == nil {
		v.MAC, v.Interface = tenant.MAC{2, 0, 0, 0, 0, 1}, "nu1"
	} else {
		v.Error = strings.ReplaceAll(args[2], "ESC", "\x1b")
	}
	_, err = s.BindVport(context.Background(), v)
	ts.Check(err)
}

func TestServerFlag(t *testing.T) {
	dir := t.TempDir()
	_, stop, err := serve(filepath.Join(dir, "api.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
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
		{"--server https://127.0.0.1:1 get zones", exitFailed, "https://127.0.0.1:1: "},
		{"--server https://h --socket s get zones", exitUsage, "none of the others can be"},
	} {
		var out, errOut strings.Builder
		if exit := run(t.Context(), strings.Fields(c.args), nil, &out, &errOut); exit != c.exit || !strings.Contains(errOut.String(), c.want) || out.Len() > 0 {
			t.Errorf("%s: exit %d, want %d: %q, want %q; %q", c.args, exit, c.exit, errOut.String(), c.want, out.String())
		}
	}
}
