package ovs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"nuage/ovs/ovstest"
)

var namespaces atomic.Int32

// namespace makes a network namespace for the test.
func namespace(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv("NUAGE_TEST_ROOT") == "0" {
		t.Skip("needs root for network namespaces")
	}
	name := fmt.Sprintf("ovs%d-%d", os.Getpid(), namespaces.Add(1))
	ip(t, "netns", "add", name)
	t.Cleanup(func() { ip(t, "netns", "del", name) })
	ip(t, "-n", name, "link", "set", "lo", "up")
	return "/run/netns/" + name
}

func ip(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// TestMissingLink uses the real userspace datapath: a port without a link is an error
// with the reason, and no more when the link is there and EnsurePort has been called.
func TestMissingLink(t *testing.T) {
	path := namespace(t)
	ns := strings.TrimPrefix(path, "/run/netns/")
	o := ovstest.Start(t, ovstest.Netdev(), ovstest.InNetNS(path))
	b := start(t, o)
	ctx, peers := within(t, limit), map[string]string{}
	asked, err := b.EnsurePort(ctx, PortSpec{Name: "v1"})
	if err != nil || asked.OFPort == 0 {
		t.Fatalf("EnsurePort: %+v, %v", asked, err)
	}
	p, err := b.WaitPort(ctx, "v1")
	if err == nil || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "port v1") || !strings.Contains(err.Error(), "No such device") {
		t.Errorf("WaitPort without a link: %v", err)
	}
	if p.Error == "" || b.Ports()["v1"].Error == "" || p.OFPort != asked.OFPort {
		t.Errorf("port %+v, listed as %+v", p, b.Ports()["v1"])
	}
	// The links are there: packets flow, also when they are deleted and made again.
	link := func(name string, n int) {
		t.Helper()
		peer := namespace(t)
		ip(t, "-n", ns, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", strings.TrimPrefix(peer, "/run/netns/"))
		ip(t, "-n", ns, "link", "set", name, "up")
		ip(t, "-n", strings.TrimPrefix(peer, "/run/netns/"), "link", "set", "eth0", "up")
		ip(t, "-n", strings.TrimPrefix(peer, "/run/netns/"), "addr", "add", fmt.Sprintf("10.9.9.%d/24", n), "dev", "eth0")
		peers[name] = strings.TrimPrefix(peer, "/run/netns/")
	}
	ping := func() {
		t.Helper()
		ip(t, "netns", "exec", peers["v1"], "ping", "-c1", "-w15", "10.9.9.2")
	}
	o.Ofctl("add-flow", "alubr0", "actions=NORMAL")
	link("v1", 1)
	link("v2", 2)
	attach(t, b, "v1")
	attach(t, b, "v2")
	ping()
	ip(t, "-n", ns, "link", "del", "v1")
	soon(t, "the error of a port whose link has vanished", func() bool { return b.Ports()["v1"].Error != "" })
	if p := b.Ports()["v1"]; p.Confirmed {
		t.Errorf("port %+v", p)
	}
	link("v1", 1)
	attach(t, b, "v1")
	ping()
	ip(t, "-n", ns, "link", "del", "v1")
	link("v1", 1)
	// Without EnsurePort, and with no change of the port's row, nothing repairs it: say so.
	soon(t, "the error of a port whose link was replaced", func() bool { return strings.Contains(b.Ports()["v1"].Error, "link") })
	if err := b.DeletePort(ctx, "v1"); err != nil {
		t.Error(err)
	}
	attach(t, b, "v1")
	ping()
}
