package store

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"nuage/controller/tenant"
)

// member is one of a cluster that a user runs.
type member struct {
	config *embed.Config
	etcd   *embed.Etcd
}

// newCluster starts three members, that talk to each other and to us over unix sockets.
func newCluster(t *testing.T) (members []*member, endpoints []string) {
	dir := t.TempDir()
	t.Chdir(dir) // a peer's socket is named by the host part alone, in the working directory
	var initial []string
	for i := range 3 {
		peer := url.URL{Scheme: "unix", Host: fmt.Sprintf("localhost:%d", 23800+i)}
		initial = append(initial, fmt.Sprintf("m%d=%s", i, peer.String()))
		cl := url.URL{Scheme: "unix", Path: filepath.Join(dir, fmt.Sprintf("c%d", i))}
		cfg := embed.NewConfig()
		cfg.Name, cfg.Dir = fmt.Sprintf("m%d", i), filepath.Join(dir, fmt.Sprintf("d%d", i))
		cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{cl}, []url.URL{cl}
		cfg.TickMs, cfg.ElectionMs = 50, 500
		var closing atomic.Bool
		closing.Store(true) // its errors are what is tested
		cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newZap(quietLog(), &closing, func(err error) { t.Error(err) }))
		members = append(members, &member{config: cfg})
		endpoints = append(endpoints, cl.String())
	}
	for _, m := range members {
		m.config.InitialCluster = strings.Join(initial, ",")
		m.start(t)
		t.Cleanup(m.stop)
	}
	for _, m := range members {
		m.wait(t)
	}
	return members, endpoints
}

func (m *member) start(t *testing.T) {
	e, err := embed.StartEtcd(m.config)
	if err != nil {
		t.Fatal(err)
	}
	m.etcd = e
}

func (m *member) wait(t *testing.T) {
	select {
	case <-m.etcd.Server.ReadyNotify():
	case <-time.After(30 * time.Second):
		t.Fatal("a member does not come up")
	}
}

func (m *member) stop() {
	if m.etcd != nil {
		m.etcd.Server.HardStop()
		m.etcd.Close()
		m.etcd = nil
	}
}

// TestCluster: on a cluster of three a store goes on with one member gone, says in time
// that two are, and comes back when one returns.
func TestCluster(t *testing.T) {
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
	// again binds until it works: while the members elect a leader a write may fail.
	again := func() error {
		return bounded(t, 10*time.Second, func(ctx context.Context) error {
			for {
				err := bind(ctx)
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
