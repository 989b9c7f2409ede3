package ovs

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"nuage/ovs/ovstest"
)

// shaped is a bridge in a namespace, with two ports whose links
// end in namespaces of their own, 10.9.9.1 and 10.9.9.2.
func shaped(t *testing.T) (o *ovstest.OVS, b *Bridge, ns string, peers [2]string) {
	t.Helper()
	path := namespace(t)
	ns = strings.TrimPrefix(path, "/run/netns/")
	o = ovstest.Start(t, ovstest.Forwarding(path))
	b = start(t, o, func(c *Config) { c.Datapath = o.Datapath() })
	for i := range peers {
		peers[i] = namespace(t)
		peer := strings.TrimPrefix(peers[i], "/run/netns/")
		link := fmt.Sprintf("v%d", i+1)
		ip(t, "-n", ns, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", peer)
		ip(t, "-n", ns, "link", "set", link, "up")
		ip(t, "-n", peer, "link", "set", "eth0", "up")
		ip(t, "-n", peer, "addr", "add", fmt.Sprintf("10.9.9.%d/24", i+1), "dev", "eth0")
		// In the userspace datapath TCP needs checksums that are there.
		if out, err := exec.Command("ip", "netns", "exec", peer, "ethtool", "-K", "eth0", "tx", "off").CombinedOutput(); err != nil {
			t.Fatalf("ethtool: %v: %s", err, out)
		}
		attach(t, b, link)
	}
	o.Ofctl("add-flow", "alubr0", "actions=NORMAL")
	return o, b, ns, peers
}

// rows are the QoS and Queue rows of the database, by UUID.
func rows(o *ovstest.OVS) string {
	return o.Vsctl("--bare", "--", "--columns=_uuid", "list", "qos", "--", "--columns=_uuid", "list", "queue")
}

// A shape is in the kernel when SetShaping returns, is changed in place, read back, kept
// over a restart of ovs-vswitchd, and leaves no rows behind, however its port goes.
func TestShaping(t *testing.T) {
	o, b, ns, _ := shaped(t)
	ctx := within(t, limit)
	kernel := func() string {
		out, err := exec.Command("tc", "-n", ns, "class", "show", "dev", "v1").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	set := func(s Shape, want Shape, class string) {
		t.Helper()
		if err := b.SetShaping(ctx, "v1", s); err != nil {
			t.Fatal(err)
		}
		if got := b.Ports()["v1"].Shape; got != want {
			t.Errorf("the shape is %+v, want %+v", got, want)
		}
		if out := kernel(); !strings.Contains(out, class) {
			t.Errorf("the kernel has %s, want %q", out, class)
		}
	}
	set(Shape{Rate: 10e6}, Shape{10e6, 1e6}, "rate 10Mbit ceil 10Mbit burst 125000b cburst 125000b")
	made := rows(o)
	if strings.Count(made, "-") != 8 {
		t.Errorf("rows %q", made)
	}
	set(Shape{Rate: 20e6, Burst: 400e3}, Shape{20e6, 400e3}, "rate 20Mbit ceil 20Mbit burst 50000b")
	set(Shape{Rate: 20e6, Burst: 400e3}, Shape{20e6, 400e3}, "rate 20Mbit ceil 20Mbit burst 50000b")
	set(Shape{Rate: 1e6 + 7}, Shape{1e6, 1e5}, "rate 1Mbit ceil 1Mbit")
	if now := rows(o); now != made {
		t.Errorf("rows %q became %q", made, now)
	}
	for _, bad := range []Shape{{}, {Rate: 11999}, {Rate: 40e9}, {Rate: 1e6, Burst: 1 << 63}} {
		if err := b.SetShaping(ctx, "v1", bad); err == nil {
			t.Errorf("%+v was set", bad)
		}
	}
	o.KillVswitchd()
	o.StartVswitchd()
	attach(t, b, "v1")
	set(Shape{Rate: 1e6}, Shape{1e6, 1e5}, "rate 1Mbit ceil 1Mbit")
	for range 2 {
		if err := b.ClearShaping(ctx, "v1"); err != nil {
			t.Error(err)
		}
	}
	gone := func(what string) {
		t.Helper()
		soon(t, "no row "+what, func() bool { return rows(o) == "" })
	}
	if s := b.Ports()["v1"].Shape; s != (Shape{}) || rows(o) != "" {
		t.Errorf("cleared: %+v, rows %q", s, rows(o))
	}
	soon(t, "no class in the kernel", func() bool { return kernel() == "" })

	set(Shape{Rate: 1e6}, Shape{1e6, 1e5}, "rate 1Mbit")
	if err := b.DeletePort(ctx, "v1"); err != nil || rows(o) != "" {
		t.Errorf("deleted with the port: %v, rows %q", err, rows(o))
	}
	attach(t, b, "v1")
	set(Shape{Rate: 1e6}, Shape{1e6, 1e5}, "rate 1Mbit")
	o.Vsctl("del-port", "v1")
	gone("of a port that another has deleted")
	attach(t, b, "v1")
	var wg sync.WaitGroup
	for i := range uint64(6) {
		wg.Go(func() {
			if err := b.turnShape(ctx, "v1", Shape{1e6 * (i + 1), 8e5}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	soon(t, "one QoS and one queue", func() bool { return strings.Count(rows(o), "-") == 8 })
	if err := b.ClearShaping(ctx, "v1"); err != nil {
		t.Error(err)
	}
	gone("after many at once")
}

// What is not ours is taken off the port but not deleted, and other ports are not touched.
func TestShapingOfOthers(t *testing.T) {
	o, b, _, _ := shaped(t)
	ctx := within(t, limit)
	o.Vsctl("set", "port", "v1", "qos=@q", "--", "--id=@q", "create", "qos", "type=linux-htb", "other_config:max-rate=5000000",
		"--", "set", "port", "v2", "qos=@q")
	foreign := rows(o)
	if err := b.ClearShaping(ctx, "v1"); err != nil || o.Vsctl("get", "port", "v1", "qos") == "[]" {
		t.Errorf("another's QoS was cleared, %v", err)
	}
	if err := b.SetShaping(ctx, "v1", Shape{Rate: 8e6}); err != nil {
		t.Fatal(err)
	}
	if err := b.ClearShaping(ctx, "v1"); err != nil {
		t.Fatal(err)
	}
	if now := rows(o); now != foreign || o.Vsctl("get", "port", "v2", "qos") == "[]" {
		t.Errorf("rows %q became %q", foreign, now)
	}
	if err := b.SetShaping(ctx, "absent", Shape{Rate: 8e6}); !errors.Is(err, ErrNoPort) {
		t.Errorf("a port that is not there: %v", err)
	}
	if err := b.ClearShaping(ctx, "absent"); err != nil {
		t.Error(err)
	}
}

// A link that cannot be shaped is an error, with what there is instead.
func TestShapingRefused(t *testing.T) {
	o := ovstest.Start(t) // dummies have no queues
	b := start(t, o)
	attach(t, b, "p1")
	ctx := within(t, limit)
	err := b.SetShaping(ctx, "p1", Shape{Rate: 1e6})
	if err == nil || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "port p1: shaping: the kernel has not taken it") {
		t.Errorf("a dummy was shaped: %v", err)
	}
}
