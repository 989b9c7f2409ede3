package monitor

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"nuage/controller/tenant"
	"nuage/driver"
)

const ours = "NUAGE-DOMAIN=App1"

func TestFollowsEvents(t *testing.T) {
	d, h := newDocker(t), newHands(t)
	d.start("before", true, ours)
	d.start("bridge", true, ours)
	d.change(func() { d.containers["bridge"].mode = "bridge" })
	d.start("silent", true, "PATH=/bin")
	watch(t, d, h, time.Hour)
	h.becomes("before@1")
	d.start("after", false, ours)
	h.becomes("after@4, before@1")
	d.stop("before", false)
	h.becomes("after@4")
	d.start("after", false) // Docker started it anew, and we saw no end
	h.becomes("after@5")
	d.change(func() { d.containers["after"].waiting = true; d.tell("die", "after") }) // until the restart policy's time has come
	h.becomes("")
	d.change(func() { d.containers["after"].waiting = false; d.tell("start", "after") })
	h.becomes("after@5")
	d.change(func() { delete(d.containers, "after"); d.tell("destroy", "after") })
	h.becomes("")
}

// What happens while nobody listens is found by the list, and the stream goes on from where
// it ended.
func TestLostStream(t *testing.T) {
	d, h := newDocker(t), newHands(t)
	d.start("a", true, ours)
	watch(t, d, h, time.Hour)
	h.becomes("a@1") // the list is over, so b comes by the stream
	d.start("b", false, ours)
	eventually(t, "b", func() bool { return h.called("attach b") > 0 })
	last := d.now
	d.change(func() { d.containers["b"].start = 0 })
	d.cut()
	h.becomes("a@1")
	d.mu.Lock()
	defer d.mu.Unlock()
	if want := fmt.Sprintf("%d.%09d", last/1e9, last%1e9); len(d.sinces) != 2 || d.sinces[0] != "" || d.sinces[1] != want {
		t.Errorf("since %q, want %q", d.sinces, want)
	}
}

// Docker was replaced by a version that does not speak the API of the one before.
func TestAnotherDocker(t *testing.T) {
	d, h := newDocker(t), newHands(t)
	d.start("a", true, ours)
	watch(t, d, h, time.Hour)
	h.becomes("a@1")
	d.change(func() { d.version = "1.47" })
	d.cut()
	d.start("b", true, ours)
	h.becomes("a@1, b@2")
}

// A list that failed says nothing about who is gone.
func TestFailedListDetachesNothing(t *testing.T) {
	d, h := newDocker(t), newHands(t)
	h.attached["a"], h.attached["gone"] = "/var/run/docker/netns/1", "/var/run/docker/netns/9"
	d.start("a", true, ours)
	d.broken = true
	watch(t, d, h, 20*time.Millisecond)
	eventually(t, "several attempts", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return len(d.sinces) > 2 })
	if has := h.has(); has != "a@1, gone@9" || h.called("detach gone") > 0 {
		t.Errorf("after failed lists: %s", has)
	}
	d.change(func() { d.broken = false })
	h.becomes("a@1")
	d.stop("a", true)
	h.becomes("")
}

// One container waits for itself only, and a look comes after the last event however many
// there were.
func TestManyAtOnce(t *testing.T) {
	d, h := newDocker(t), newHands(t)
	h.attach = func(context.Context, driver.Direct) error { time.Sleep(10 * time.Millisecond); return nil }
	watch(t, d, h, time.Hour)
	eventually(t, "a stream", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return len(d.streams) == 1 })
	for round := range 5 {
		for n := range 20 {
			if id := fmt.Sprint("c", n); round%2 == 0 {
				d.start(id, false, ours)
			} else {
				d.stop(id, false)
			}
		}
	}
	eventually(t, "all of the last round", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		for n := range 20 {
			if h.attached[fmt.Sprint("c", n)] != fmt.Sprintf("/var/run/docker/netns/%d", 41+n) {
				return false
			}
		}
		return true
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.most < 4 {
		t.Errorf("at most %d at once", h.most)
	}
}

func TestTriesAgain(t *testing.T) {
	d, h := newDocker(t), newHands(t)
	failures := 0
	h.attach = func(context.Context, driver.Direct) error {
		if failures++; failures < 3 {
			return tenant.Errorf(tenant.ErrUnavailable, "Open vSwitch is away")
		}
		return nil
	}
	watch(t, d, h, time.Hour)
	d.start("a", true, ours)
	d.start("a", false)
	h.becomes("a: Open vSwitch is away")
	h.becomes("a@2")
}

func TestRefuses(t *testing.T) {
	d, h := newDocker(t), newHands(t)
	watch(t, d, h, time.Hour)
	eventually(t, "a stream", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return len(d.streams) == 1 })
	d.start("a", false, ours, "NUAGE-STATIC-IP=here")
	h.becomes(`a: NUAGE-STATIC-IP: "here" is not an IPv4 address`)
	if h.called("attach a") > 0 {
		t.Error("attached without a look at its address")
	}
	d.stop("a", false)
	h.becomes("")
}

// A container that ends, or starts anew, while it is being attached is no failure to tell of.
func TestEndsWhileAttached(t *testing.T) {
	d, h := newDocker(t), newHands(t)
	h.attach = func(_ context.Context, c driver.Direct) error {
		switch c.SandboxKey {
		case "/var/run/docker/netns/1":
			d.start("a", true)
			return errors.New("no network namespace")
		case "/var/run/docker/netns/3":
			d.stop("b", true)
			return errors.New("no network namespace")
		}
		return nil
	}
	d.start("a", true, ours)
	watch(t, d, h, time.Hour)
	h.becomes("a@2")
	d.start("b", false, ours)
	eventually(t, "b is let go", func() bool { return h.called("detach b") > 0 })
	if n := h.called("refuse a") + h.called("refuse b"); n > 0 {
		t.Errorf("told %d times", n)
	}
}

// The end waits for what is under way, which hears of it.
func TestEndIsHeard(t *testing.T) {
	d, h := newDocker(t), newHands(t)
	begun, ended := make(chan bool), false
	h.attach = func(ctx context.Context, _ driver.Direct) error {
		begun <- true
		<-ctx.Done()
		time.Sleep(20 * time.Millisecond) // of undoing
		ended = true
		return ctx.Err()
	}
	d.start("a", true, ours)
	stop := watch(t, d, h, time.Hour)
	<-begun
	stop()
	if !ended || h.called("refuse a") > 0 || h.has() != "" {
		t.Errorf("ended %v, %q", ended, h.has())
	}
}
