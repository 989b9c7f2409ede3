package agent

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"nuage/controller/tenant"
	"nuage/ovs"
	"nuage/ovs/ovstest"
)

// Real packets through the userspace datapath: what ofproto/trace cannot see, such as
// checksums. Two tenants have the same addresses.
func TestRealPackets(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("NUAGE_TEST_ROOT") == "0" {
			t.Skip("namespaces need root")
		}
		t.Fatal("namespaces need root (NUAGE_TEST_ROOT=0 skips)")
	}
	lab := netns(t, "host")
	h := newHost(t, ovstest.Forwarding("/run/netns/"+lab))
	a, _ := h.agent(t, 0)
	h.feed.Publish(1, domain("app1", 1), subnet("web", "app1", "10.0.0.0/24", 100), subnet("db", "app1", "10.0.1.0/24", 101),
		domain("other", 2), subnet("other-web", "other", "10.0.0.0/24", 200), subnet("other-db", "other", "10.0.1.0/24", 201))
	web := h.container(t, a, lab, 2, "app1", "web", "10.0.0.2")
	_ = h.container(t, a, lab, 3, "app1", "db", "10.0.1.3")
	other := h.container(t, a, lab, 4, "other", "other-web", "10.0.0.2")

	for _, c := range []struct{ from, to, size, want string }{
		{web, "10.0.0.1", "56", "ttl=64"},
		{web, "10.0.1.1", "1400", "ttl=64"},
		{web, "10.0.1.3", "56", "ttl=63"},
		{web, "10.0.1.3", "4000", "ttl=63"},
		{web, "10.0.0.99", "56", ""},
		{other, "10.0.0.1", "56", "ttl=64"},
		{other, "10.0.1.3", "56", ""},
	} {
		out, err := exec.Command("ip", "netns", "exec", c.from, "busybox", "ping", "-c", "1", "-W", wait(c.want), "-s", c.size, c.to).CombinedOutput()
		if c.want == "" && err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("ping from %s to %s, %s bytes: want %q, got %v:\n%s", c.from, c.to, c.size, c.want, err, out)
		}
	}
}

// container attaches a namespace of its own to the bridge.
func (h *host) container(t *testing.T, a *Agent, lab string, n int, domain, subnet, addr string) string {
	t.Helper()
	ns := netns(t, fmt.Sprint("c", n))
	name := fmt.Sprintf("nu%d", n)
	v := vport(n, name)
	vp := v.Value.(*tenant.Vport)
	vp.DomainID, vp.SubnetID, vp.IPv4 = domain, subnet, netip.MustParseAddr(addr)
	gateway := netip.MustParsePrefix(addr + "/24").Masked().Addr().Next()
	for _, args := range []string{
		"-n " + lab + " link add " + name + " mtu 1450 type veth peer name eth0 mtu 1450 netns " + ns,
		"-n " + lab + " link set " + name + " up",
		"-n " + ns + " link set eth0 up address " + vp.MAC.String(),
		"-n " + ns + " addr add " + addr + "/24 dev eth0",
		"-n " + ns + " route add default via " + gateway.String(),
	} {
		run(t, "ip", strings.Fields(args)...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := h.bridge.EnsurePort(ctx, ovs.PortSpec{Name: name}); err != nil {
		t.Fatal(err)
	}
	h.feed.Publish(h.next(), v)
	if err := a.WaitProgrammed(ctx, vp.ID); err != nil {
		t.Fatal(err)
	}
	return ns
}

// netns makes a network namespace that ends with the test.
func netns(t testing.TB, name string) string {
	t.Helper()
	name = fmt.Sprintf("nuagetest-%d-%s", os.Getpid(), name)
	run(t, "ip", "netns", "add", name)
	t.Cleanup(func() { run(t, "ip", "netns", "del", name) })
	return name
}

func run(t testing.TB, program string, args ...string) {
	t.Helper()
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}
