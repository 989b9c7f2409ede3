package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"nuage/controller/tenant"
)

// member is one of a cluster that a user runs, and a process of its own.
type member struct {
	dir    string
	number int
	cmd    *exec.Cmd
	alive  io.Closer // the process ends when this closes
	ready  chan struct{}
}

const memberEnv = "STORE_TEST_MEMBER"

// newCluster starts three members, that talk to each other and to us over unix sockets.
func newCluster(t *testing.T) (members []*member, endpoints []string) {
	dir := t.TempDir()
	for i := range 3 {
		m := &member{dir: dir, number: i}
		m.start(t)
		t.Cleanup(m.stop)
		members = append(members, m)
		endpoints = append(endpoints, m.client().String())
	}
	for _, m := range members {
		m.wait(t)
	}
	return members, endpoints
}

func (m *member) client() *url.URL {
	return &url.URL{Scheme: "unix", Path: filepath.Join(m.dir, fmt.Sprint("c", m.number))}
}

func (m *member) start(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m.cmd = exec.Command(self, "-test.run=^TestCluster$")
	m.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", memberEnv, m.number))
	m.cmd.Dir = m.dir // a peer's socket is named by the host part alone, in the working directory
	m.ready = make(chan struct{})
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if m.alive, err = m.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		if lines := bufio.NewScanner(out); lines.Scan() && lines.Text() == "ready" {
			close(m.ready)
		}
	}()
}

func (m *member) wait(t *testing.T) {
	select {
	case <-m.ready:
	case <-time.After(30 * time.Second):
		t.Fatal("a member does not come up")
	}
}

// stop kills the member, as a machine goes.
func (m *member) stop() {
	if m.cmd != nil {
		m.cmd.Process.Kill()
		m.cmd.Wait()
		m.cmd = nil
	}
}

// runMember is the process of a member.
func runMember(number string) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	cfg := embed.NewConfig()
	var initial []string
	for i := range 3 {
		peer := url.URL{Scheme: "unix", Host: fmt.Sprintf("localhost:%d", 23800+i)}
		initial = append(initial, fmt.Sprintf("m%d=%s", i, peer.String()))
		if fmt.Sprint(i) == number {
			client := (&member{dir: dir, number: i}).client()
			cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
			cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*client}, []url.URL{*client}
		}
	}
	cfg.Name, cfg.Dir, cfg.InitialCluster = "m"+number, filepath.Join(dir, "d"+number), strings.Join(initial, ",")
	cfg.TickMs, cfg.ElectionMs = 50, 500
	var closing atomic.Bool
	closing.Store(true) // its errors are what is tested
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newZap(quietLog(), &closing, func(err error) { panic(err) }))
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return err
	}
	select {
	case <-e.Server.ReadyNotify():
		fmt.Println("ready")
	case err := <-e.Err():
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin) // until the test has ended, whatever ended it
	return err
}

// TestCluster: on a cluster of three a store goes on with one member gone, says in time
// that two are, and comes back when one returns.
func TestCluster(t *testing.T) {
	if number := os.Getenv(memberEnv); number != "" {
		if err := runMember(number); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Parallel()
	members, endpoints := newCluster(t)
	s, err := run(t, Config{Endpoints: endpoints, Host: "h1"})
	if err != nil {
		t.Fatal(err)
	}
	p := mustPath(t, s, spec("D", "10.0.0.0/16"))
	n := 1
	bind := func(ctx context.Context) error {
		n++
		_, err := s.BindVport(ctx, newVport(p.Subnet, fmt.Sprintf("10.0.1.%d", n)))
		return err
	}
	// again binds until it works: while the members elect a leader a write may fail. What was
	// on its way to the one that is gone, etcd keeps waiting for six seconds.
	again := func() error {
		return bounded(t, 10*time.Second, func(ctx context.Context) error {
			for {
				attempt, cancel := context.WithTimeout(ctx, time.Second)
				err := bind(attempt)
				cancel()
				if err == nil || ctx.Err() != nil || !errors.Is(err, tenant.ErrUnavailable) {
					return err
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	if err := again(); err != nil {
		t.Fatal(err)
	}
	for i, m := range members {
		m.stop()
		if err := again(); err != nil {
			t.Errorf("without member %d: %v", i, err)
		}
		m.start(t)
		m.wait(t)
	}
	members[0].stop()
	members[1].stop()
	if err := bounded(t, time.Second, bind); !errors.Is(err, tenant.ErrUnavailable) {
		t.Errorf("without two members: %v", err)
	}
	if err := unready(s, ""); err != nil {
		t.Error(err)
	}
	if err := bounded(t, time.Second, bind); !errors.Is(err, tenant.ErrUnavailable) {
		t.Errorf("without two members: %v", err)
	}
	members[1].start(t)
	back := time.Now()
	waitReady(t, s)
	t.Logf("back after %s", time.Since(back))
	if err := again(); err != nil {
		t.Error(err)
	}
	waitReady(t, s)
	st := mustRead(t, s)
	bound := map[string]bool{}
	for _, l := range st.Leases {
		if l.State == tenant.LeaseBound {
			bound[l.VportID] = true
		}
	}
	if len(st.Vports) < 5 || len(bound) != len(st.Vports) {
		t.Errorf("%d vports have %d leases", len(st.Vports), len(bound))
	}
}
