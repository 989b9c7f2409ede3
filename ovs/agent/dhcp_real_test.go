package agent

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nuage/controller/tenant"
	"nuage/ovs/ovstest"
)

// A real client asks over the real switch: it gets, renews and confirms its address, and is
// told what it may not have.
func TestRealDHCP(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("NUAGE_TEST_ROOT") == "0" {
			t.Skip("namespaces need root")
		}
		t.Fatal("namespaces need root (NUAGE_TEST_ROOT=0 skips)")
	}
	lab := netns(t, "dhcp")
	h := newHost(t, ovstest.Forwarding("/run/netns/"+lab))
	declined := make(chan bool, 100)
	a, _ := start(t, Config{Feed: h.feed, Switch: h.bridge, DHCP: DHCP{DNS: []netip.Addr{netip.MustParseAddr("10.0.0.53")},
		MTU: func(tenant.Vport) int { return 1412 }, Told: func(_ string, d bool) { declined <- d }}})
	h.feed.Publish(1, domain("app1", 1), subnet("web", "app1", "10.0.0.0/24", 100))
	ns := h.container(t, a, lab, 2, "app1", "web", "10.0.0.2")
	run(t, "ip", "-n", ns, "addr", "flush", "dev", "eth0")

	said := filepath.Join(t.TempDir(), "said")
	ask := func(flags ...string) string {
		t.Helper()
		os.Remove(said)
		args := append([]string{"netns", "exec", ns, "env", "DHCP_LOG=" + said, "busybox", "udhcpc", "-n", "-f", "-t", "3", "-T", "1", "-i", "eth0", "-s", "../../test/vm/udhcpc"}, flags...)
		out, err := exec.Command("ip", args...).CombinedOutput()
		lines, _ := os.ReadFile(said)
		if err != nil {
			return fmt.Sprintf("%v: %s", err, out)
		}
		return string(lines)
	}
	const want = "bound ip=10.0.0.2/24 router=10.0.0.1 mtu=1412 dns=10.0.0.53 lease=86400 server=10.0.0.1 routes="
	for _, flags := range [][]string{{"-q"}, {"-q", "-B"}, {"-q", "-r", "10.0.0.2"}, {"-q", "-r", "10.0.0.99"}, {"-q", "-a", "-x", "hostname:x", "-C"}} {
		if got := ask(flags...); !strings.Contains(got, want) {
			t.Errorf("udhcpc %v: %s, want %s", flags, got, want)
		}
	}
	select {
	case d := <-declined:
		if d {
			t.Error("declined: somebody answers for the client's own address")
		}
	default:
		t.Error("nobody was told that the address is in use")
	}
	if out, err := exec.Command("ip", "netns", "exec", ns, "busybox", "ping", "-c", "1", "-W", "5", "10.0.0.1").CombinedOutput(); err != nil {
		t.Errorf("with the address that DHCP gave: %v\n%s", err, out)
	}
	// Renewed and released on request, then by another MAC in vain.
	script := fmt.Sprintf(`busybox udhcpc -f -R -t 3 -T 1 -i eth0 -s ../../test/vm/udhcpc & client=$!
		for n in $(seq 100); do grep -qs bound %[1]s && break; sleep 0.1; done
		kill -USR1 $client
		for n in $(seq 100); do grep -qs renew %[1]s && break; sleep 0.1; done
		kill -TERM $client; wait $client; cat %[1]s`, said)
	os.Remove(said)
	out, err := exec.Command("ip", "netns", "exec", ns, "env", "DHCP_LOG="+said, "sh", "-c", script).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "renew ip=10.0.0.2/24 router=10.0.0.1 ") || !strings.Contains(string(out), "nicast") {
		t.Errorf("renewing and releasing: %v\n%s", err, out)
	}
	run(t, "ip", "-n", ns, "link", "set", "eth0", "address", "02:00:00:00:00:99")
	if got := ask("-q", "-t", "2"); !strings.Contains(got, "exit status 1") {
		t.Errorf("a stranger: %s", got)
	}
}
