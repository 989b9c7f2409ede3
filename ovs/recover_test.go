package ovs

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"nuage/ovs/ovstest"
)

func TestNothingRuns(t *testing.T) {
	o := ovstest.Start(t, ovstest.Stopped())
	b := start(t, o)
	begin := time.Now()
	_, err := b.EnsurePort(within(t, 100*time.Millisecond), PortSpec{Name: "p1"})
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("EnsurePort: %v", err)
	}
	if want := "port p1: ovsdb-server is not reachable at " + o.DB + ": start openvswitch-switch"; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("EnsurePort: %q, want %q", err, want)
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("EnsurePort took %v past its context", d)
	}
	if err := b.DeletePort(within(t, limit), "p1"); !errors.Is(err, ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("DeletePort: %v", err)
	}
	if s := b.Status(); s.OVSDB.Connected || !strings.Contains(s.OVSDB.Error, o.DB) {
		t.Errorf("status %+v", s)
	}
	o.StartDB()
	// The port can be had without ovs-vswitchd, its confirmation cannot.
	p, err := b.EnsurePort(within(t, limit), PortSpec{Name: "p1"})
	if err != nil || p.Confirmed || p.OFPort == 0 {
		t.Errorf("without ovs-vswitchd: %+v, %v", p, err)
	}
	if _, err := b.WaitPort(within(t, 100*time.Millisecond), "p1"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("WaitPort without ovs-vswitchd: %v", err)
	}
	o.StartVswitchd()
	if got, err := b.WaitPort(within(t, limit), "p1"); err != nil || got.OFPort != p.OFPort {
		t.Errorf("asked for %d, got %+v, %v", p.OFPort, got, err)
	}
}

func TestDaemonsRestart(t *testing.T) {
	for name, restart := range map[string]func(*ovstest.OVS){
		"ovsdb-server killed":  func(o *ovstest.OVS) { o.KillDB(); o.StartDB() },
		"ovsdb-server stopped": func(o *ovstest.OVS) { o.StopDB(); o.StartDB() },
		"ovs-vswitchd killed":  func(o *ovstest.OVS) { o.KillVswitchd(); o.StartVswitchd() },
		"both killed":          func(o *ovstest.OVS) { o.KillVswitchd(); o.KillDB(); o.StartDB(); o.StartVswitchd() },
	} {
		t.Run(name, func(t *testing.T) {
			o := ovstest.Start(t)
			b := start(t, o)
			before := attach(t, b, "p1")
			restart(o)
			if again := attach(t, b, "p1"); again.OFPort != before.OFPort {
				t.Errorf("number %d became %d", before.OFPort, again.OFPort)
			}
			attach(t, b, "p2")
			if err := b.DeletePort(within(t, limit), "p1"); err != nil {
				t.Error(err)
			}
			if got := o.Vsctl("list-ports", "alubr0"); got != "p2" {
				t.Errorf("ports %q", got)
			}
		})
	}
}

// TestRestartUnderCalls kills ovsdb-server again and again under calls; none may fail,
// and none may leave two ports or none.
func TestRestartUnderCalls(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o)
	attach(t, b, "p0")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 100 {
			if _, err := b.EnsurePort(within(t, limit), PortSpec{Name: "p1"}); err != nil {
				t.Error(err)
			}
			if err := b.DeletePort(within(t, limit), "p1"); err != nil {
				t.Error(err)
			}
		}
	}()
	for range 5 {
		time.Sleep(20 * time.Millisecond)
		o.KillDB()
		o.StartDB()
	}
	<-done
	if got := o.Vsctl("list-ports", "alubr0"); got != "p0" {
		t.Errorf("ports %q", got)
	}
}

func TestHungServer(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o)
	attach(t, b, "p1")
	o.SignalDB(syscall.SIGSTOP)
	begin := time.Now()
	if _, err := b.EnsurePort(within(t, 100*time.Millisecond), PortSpec{Name: "p2"}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("EnsurePort: %v", err)
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("EnsurePort took %v past its context", d)
	}
	o.SignalDB(syscall.SIGCONT)
	attach(t, b, "p3")
}

func TestBridgeIsRepaired(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o)
	attach(t, b, "p1")
	o.Vsctl("set", "bridge", "alubr0", "fail_mode=standalone", "stp_enable=true", "protocols=OpenFlow13",
		"--", "remove", "bridge", "alubr0", "other_config", "disable-in-band")
	for _, column := range []string{"fail_mode=secure", "stp_enable=false", "protocols=OpenFlow13,OpenFlow14",
		"other_config:disable-in-band=true"} {
		o.Vsctl("wait-until", "bridge", "alubr0", column)
	}
	if _, exists := b.Ports()["p1"]; !exists {
		t.Error("a repair lost the port")
	}
	o.Vsctl("del-br", "alubr0")
	soon(t, "the ports of a deleted bridge are gone", func() bool { return len(b.Ports()) == 0 })
	attach(t, b, "p1")
	if got := o.Vsctl("get-fail-mode", "alubr0"); got != "secure" {
		t.Errorf("fail mode %s", got)
	}
}

func TestForeignPorts(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o)
	attach(t, b, "p1")
	o.Vsctl("add-br", "other", "--", "add-port", "other", "q1")
	o.Vsctl("add-port", "alubr0", "tap1", "--", "set", "interface", "tap1", "external_ids:iface-id=vm7")
	soon(t, "the foreign port with its number", func() bool { return b.Ports()["tap1"].Confirmed })
	if p := b.Ports()["tap1"]; p.ExternalIDs["iface-id"] != "vm7" || p.OFPort == 0 || p.OFPort >= firstNumber {
		t.Errorf("foreign port %+v", p)
	}
	for _, name := range []string{"other", "q1", "alubr0"} {
		if _, err := b.EnsurePort(within(t, limit), PortSpec{Name: name}); err == nil || errors.Is(err, ErrUnavailable) {
			t.Errorf("port %s, which is another's: %v", name, err)
		}
		if _, listed := b.Ports()[name]; listed {
			t.Errorf("%s is listed", name)
		}
	}
	if err := b.DeletePort(within(t, limit), "q1"); err != nil {
		t.Error(err)
	}
	if got := o.Vsctl("list-ports", "other"); got != "q1" {
		t.Errorf("the other bridge has %q", got)
	}
}

func TestChanged(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o)
	attach(t, b, "p1")
	settle := func() {
		for {
			select {
			case <-b.Changed():
			case <-time.After(400 * time.Millisecond):
				return
			}
		}
	}
	signalled := func() bool {
		select {
		case <-b.Changed():
			return true
		case <-time.After(time.Second):
			return false
		}
	}
	settle()
	o.Vsctl("set", "bridge", "alubr0", "external_ids:unrelated=1")
	if signalled() {
		t.Error("a signal of a change that nobody can see")
	}
	for _, step := range []struct {
		what   string
		change func()
	}{
		{"a foreign port", func() { o.Vsctl("add-port", "alubr0", "tap1") }},
		{"external IDs", func() { o.Vsctl("set", "interface", "tap1", "external_ids:a=b") }},
		{"the loss of ovsdb-server", o.KillDB},
		{"its return", o.StartDB},
	} {
		settle()
		step.change()
		if !signalled() {
			t.Errorf("no signal of %s", step.what)
		}
	}
}
