package ovs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"nuage/ovs/ovstest"
)

const limit = 30 * time.Second // far more than anything here takes, on a busy machine too

// start runs a Bridge on a private Open vSwitch.
func start(t testing.TB, o *ovstest.OVS, change ...func(*Config)) *Bridge {
	t.Helper()
	log := logrus.New()
	log.SetOutput(testWriter{t})
	conf := Config{DB: o.DB, Bridge: "alubr0", Log: log}
	for _, c := range change {
		c(&conf)
	}
	b := New(conf)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(limit):
			t.Error("Run did not return when its context ended")
		}
	})
	return b
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) { w.t.Logf("%s", p); return len(p), nil }

// soon waits until a condition holds.
func soon(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func attach(t testing.TB, b *Bridge, name string) Port {
	t.Helper()
	ctx := within(t, limit)
	asked, err := b.EnsurePort(ctx, PortSpec{Name: name, ExternalIDs: map[string]string{"vport": name}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.WaitPort(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Confirmed || p.OFPort != asked.OFPort {
		t.Fatalf("port %s: asked for %d, got %+v", name, asked.OFPort, p)
	}
	return p
}

func TestBridgeIsMade(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o)
	attach(t, b, "p1")
	for column, want := range map[string]string{
		"fail_mode": "secure", "protocols": "[OpenFlow10, OpenFlow13, OpenFlow14, OpenFlow15]",
		"mcast_snooping_enable": "false", "stp_enable": "false", "rstp_enable": "false",
		"other_config:disable-in-band": `"true"`,
	} {
		if got := o.Vsctl("get", "bridge", "alubr0", column); got != want {
			t.Errorf("%s is %s, want %s", column, got, want)
		}
	}
	mac := o.Vsctl("get", "interface", "alubr0", "mac_in_use")
	attach(t, b, "p2")
	if got := o.Vsctl("get", "interface", "alubr0", "mac_in_use"); got != mac {
		t.Errorf("the bridge's address went from %s to %s with a port", mac, got)
	}
	o.Vsctl("--no-wait", "set", "open", ".", "ovs_version=3.1.0") // as the distribution's start script does
	soon(t, "the version in the status", func() bool { return b.Status().Version == "3.1.0" })
	// Without the kernel's datapath in datapath_types, auto is netdev.
	if s := b.Status(); !s.OVSDB.Connected || s.Problem != "" || s.Datapath != Netdev {
		t.Errorf("status %+v", s)
	}
}

func TestPortIsIdempotent(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o)
	p := attach(t, b, "p1")
	if got := o.Vsctl("get", "interface", "p1", "ofport"); got != fmt.Sprint(p.OFPort) {
		t.Errorf("ovs-vsctl sees number %s, we %d", got, p.OFPort)
	}
	o.Vsctl("set", "interface", "p1", "external_ids:other=kept")
	soon(t, "the foreign external ID", func() bool { return b.Ports()["p1"].ExternalIDs["other"] == "kept" })
	again, err := b.EnsurePort(within(t, limit), PortSpec{Name: "p1", ExternalIDs: map[string]string{"vport": "new", "more": "x"}})
	if err != nil || again.OFPort != p.OFPort || !again.Confirmed {
		t.Errorf("again: %+v, %v", again, err)
	}
	if got, want := o.Vsctl("get", "interface", "p1", "external_ids"), `{more=x, other=kept, vport=new}`; got != want {
		t.Errorf("external IDs %s, want %s", got, want)
	}
	for range 2 {
		if err := b.DeletePort(within(t, limit), "p1"); err != nil {
			t.Error(err)
		}
		if _, exists := b.Ports()["p1"]; exists {
			t.Error("a deleted port is still listed")
		}
	}
	if got := o.Vsctl("list-ports", "alubr0"); got != "" {
		t.Errorf("ports left: %s", got)
	}
	if next := attach(t, b, "p1"); next.OFPort == p.OFPort {
		t.Errorf("number %d was used again at once", p.OFPort)
	}
	if _, err := b.WaitPort(within(t, limit), "absent"); !errors.Is(err, ErrNoPort) {
		t.Errorf("waiting for an absent port: %v", err)
	}
}

func TestNumbersGoOnAfterRestart(t *testing.T) {
	o := ovstest.Start(t)
	first := New(Config{DB: o.DB, Bridge: "alubr0"})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- first.Run(ctx) }()
	attach(t, first, "p1")
	gone := attach(t, first, "p2")
	if err := first.DeletePort(within(t, limit), "p2"); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	b := start(t, o)
	if p := attach(t, b, "p3"); p.OFPort == gone.OFPort {
		t.Errorf("number %d was used again after a restart", p.OFPort)
	}
}

func TestConcurrentPorts(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o)
	var wg sync.WaitGroup
	for i := range 50 {
		for range 2 { // each name twice at once
			wg.Go(func() {
				if _, err := b.EnsurePort(within(t, limit), PortSpec{Name: fmt.Sprintf("p%d", i)}); err != nil {
					t.Error(err)
				} else if _, err := b.WaitPort(within(t, limit), fmt.Sprintf("p%d", i)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	seen := map[uint32]string{}
	for name, p := range b.Ports() {
		if other, taken := seen[p.OFPort]; taken || !p.Confirmed {
			t.Errorf("%s has number %d (confirmed %v), as %s", name, p.OFPort, p.Confirmed, other)
		}
		seen[p.OFPort] = name
	}
	if len(seen) != 50 {
		t.Errorf("%d ports", len(seen))
	}
}
