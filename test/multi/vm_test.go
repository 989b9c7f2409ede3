package multi

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"nuage/ovs/pipeline"
	"nuage/test/host"
)

// Real virtual machines on two hosts: they are told their addresses, and containers of
// another zone and they reach each other, by TCP too, on the same host and across.
func TestVirtualMachines(t *testing.T) {
	t.Parallel()
	f := host.SharedFleet(t)
	one, two := f.Host(1), f.Host(2)
	z := newVMZone(t, one, 120)
	const mac1, mac2 = "52:54:00:78:00:01", "52:54:00:78:00:02"
	a, b := boot(t, one, "vm0", mac1), boot(t, two, "vm0", mac2)
	page, ipPage := z.container(two, "page")
	plug(one, "vm0", z.metadata("vm-1", mac1, "nuage-policy-group=guests"))
	plug(two, "vm0", z.metadata("vm-2", mac2))
	ip1, ip2 := attached(one, "vm0"), attached(two, "vm0")

	vports := in(in(one.Get("vports"), "enterprise", z.enterprise), "type", "VM")
	if len(vports) != 2 {
		t.Fatalf("vports of machines: %v", vports)
	}
	for _, v := range vports {
		if v["zone"] != "VMZone" || v["subnet"] != "VMSubnet" || v["state"] != "up" || v["name"] == "vm-1" && (v["ipv4"] != ip1 || v["mac"] != mac1 || v["host"] != one.HostName()) {
			t.Errorf("vport %v", v)
		}
	}
	a.up()
	b.up()
	for g, ip := range map[*guest]string{a: ip1, b: ip2} {
		want := fmt.Sprintf("bound ip=%s/24 router=10.120.2.1 mtu=1450 dns= lease=86400 server=10.120.2.1 routes=0.0.0.0/0 10.120.2.1", ip)
		if got := g.lease(); got != want {
			t.Errorf("DHCP told\n%s, want\n%s", got, want)
		}
		g.run("ping -c 1 -W 3 10.120.2.1")
		g.run("ping -c 1 -W 3 10.120.1.1")
		if out := g.run("fetch " + ipPage); !strings.Contains(out, "200 OK") {
			t.Errorf("the container's page: %s", out)
		}
	}
	if out := two.Exec(page, "app", "get", "http://"+ip1+"/"); !strings.Contains(out, mac1) {
		t.Errorf("the page of the machine on the other host: %s", out)
	}
	if out := two.Exec(page, "app", "get", "http://"+ip2+"/"); !strings.Contains(out, mac2) {
		t.Errorf("the page of the machine on this host: %s", out)
	}
	a.run("ping -c 1 -W 3 " + ip2)
	a.run("ping -c 1 -W 3 -s 1422 " + ip2)

	// Policies know a machine by its group, and do not keep it from its address.
	z.policy(t, one, `{name: p, direction: egress, priority: 1, entries: [{priority: 10, action: FORWARD, protocol: tcp, destinationPort: "80", from: {zone: DockerZone}, to: {policyGroup: guests}}]}`)
	one.Programmed()
	two.Programmed()
	if out := two.Exec(page, "app", "get", "http://"+ip1+"/"); !strings.Contains(out, mac1) {
		t.Errorf("the page of a machine whose group the policy allows: %s", out)
	}
	if out, err := two.TryDocker("exec", page, "app", "get", "-timeout", "1s", "http://"+ip2+"/"); err == nil {
		t.Errorf("the page of a machine that is in no group: %s", out)
	}
	if out, ok := a.try("ping -c 1 -W 1 " + ip2); ok {
		t.Errorf("a ping that no entry allows:\n%s", out)
	}
	a.lease()

	// With another's address or MAC it reaches nobody, and asks in vain.
	a.run("ip addr add 10.120.2.250/24 dev eth0")
	if out, ok := a.try("ping -c 1 -W 1 -I 10.120.2.250 " + ip2); ok {
		t.Errorf("a spoofed address passes:\n%s", out)
	}
	before := dropped(t, one, pipeline.DropSpoofedIP)
	a.run("ip link set eth0 down; ip link set eth0 address 52:54:00:78:00:99; ip link set eth0 up")
	if out, ok := a.try("udhcpc -q -n -t 2 -T 1 -i eth0 -s /udhcpc"); ok {
		t.Errorf("a stranger was told an address:\n%s", out)
	}
	if after := dropped(t, one, pipeline.DropSpoofedIP); after <= before {
		t.Errorf("%d spoofed packets after a stranger asked, %d before", after, before)
	}
}

// guestNS is a "machine" that boots at once: a network namespace with a veth on the bridge,
// and busybox's DHCP client.
type guestNS struct {
	t          testing.TB
	h          *host.Host
	link, name string
}

func newGuestNS(t testing.TB, h *host.Host, link, mac string) *guestNS {
	g := &guestNS{t, h, link, "ns-" + link}
	t.Cleanup(func() {
		unplug(h, link)
		h.Try("ip", "netns", "del", g.name)
	})
	h.Run("ip", "netns", "add", g.name)
	h.Run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", g.name)
	h.Run("ip", "link", "set", link, "up")
	h.Run("ip", "-n", g.name, "link", "set", "eth0", "up", "address", mac)
	return g
}

func (g *guestNS) try(cmd ...string) (string, error) {
	return g.h.Try(append([]string{"ip", "netns", "exec", g.name, "env", "DHCP_LOG=/run/dhcp-" + g.link, "busybox"}, cmd...)...)
}

func (g *guestNS) run(cmd ...string) string {
	g.t.Helper()
	out, err := g.try(cmd...)
	if err != nil {
		g.t.Fatalf("%s: %v\n%s", strings.Join(cmd, " "), err, out)
	}
	return out
}

// ask is one run of the DHCP client; the error is that of nobody answering.
func (g *guestNS) ask(flags ...string) (string, error) {
	out, err := g.try(append([]string{"udhcpc", "-q", "-n", "-f", "-t", "4", "-T", "1", "-i", "eth0", "-s", "test/vm/udhcpc"}, flags...)...)
	if err != nil {
		return out, err
	}
	return g.h.Run("tail", "-n", "1", "/run/dhcp-"+g.link), nil
}

// An interface comes, is told its address, changes hosts and goes.
func TestMachineMoves(t *testing.T) {
	t.Parallel()
	f := host.SharedFleet(t)
	one, two := f.Host(1), f.Host(2)
	z := newVMZone(t, one, 121)
	const mac = "52:54:00:79:00:01"
	_, ipPage := z.container(two, "page")
	a := newGuestNS(t, one, "mv0", mac)
	plug(one, "mv0", z.metadata("mover", mac))
	ip := attached(one, "mv0")
	if out, err := a.ask(); err != nil || !strings.HasPrefix(out, "bound ip="+ip+"/24 router=10.121.2.1 mtu=1450 ") {
		t.Fatalf("DHCP: %v %s", err, out)
	}
	a.run("ping", "-c", "1", "-W", "3", "10.121.2.1")
	a.run("ping", "-c", "2", "-W", "3", ipPage)
	// An address of another time, and a wish for another, are not granted.
	if out, err := a.ask("-r", "10.121.2.200"); err != nil || !strings.HasPrefix(out, "bound ip="+ip+"/24 ") {
		t.Errorf("DHCP with a wish: %v %s", err, out)
	}

	// It appears on the other host while the first still has it.
	b := newGuestNS(t, two, "mv1", mac)
	plug(two, "mv1", z.metadata("mover", mac))
	two.Eventually(10*time.Second, "refuse", func() error {
		if text := told(two, "mv1", "nuage-error"); !strings.Contains(text, "in use by vport mover") || !strings.Contains(text, one.HostName()) {
			return errorf("error %q", text)
		}
		return nil
	})
	if out, err := b.ask(); err == nil {
		t.Errorf("on both hosts at once: %s", out)
	}
	a.run("ping", "-c", "2", "-W", "3", ipPage)
	failed := in(in(one.Get("vports"), "enterprise", z.enterprise), "state", "failed")
	if len(failed) != 1 || failed[0]["host"] != two.HostName() {
		t.Errorf("failed vports: %v", failed)
	}
	unplug(one, "mv0")
	if moved := attached(two, "mv1"); moved != ip {
		t.Errorf("moved from %s to %s", ip, moved)
	}
	if out, err := b.ask(); err != nil || !strings.HasPrefix(out, "bound ip="+ip+"/24 ") {
		t.Errorf("DHCP on the other host: %v %s", err, out)
	}
	b.run("ping", "-c", "2", "-W", "3", ipPage)

	// Wrong words are told, and do not disturb.
	plug(two, "mv1", z.metadata("mover", mac, "nuage-zone=Nowhere"))
	two.Eventually(10*time.Second, "tell what is wrong", func() error {
		if text := told(two, "mv1", "nuage-error"); !strings.Contains(text, "Nowhere") {
			return errorf("error %q", text)
		}
		return nil
	})
	b.run("ping", "-c", "1", "-W", "3", ipPage)
	unplug(two, "mv1")
	two.Eventually(10*time.Second, "free", func() error {
		if left := in(in(one.Get("vports"), "enterprise", z.enterprise), "type", "VM"); len(left) > 0 {
			return errorf("%v", left)
		}
		return nil
	})
}

// A container that asks is told what Docker gave it.
func TestContainerAsks(t *testing.T) {
	t.Parallel()
	f := host.SharedFleet(t)
	z := newVMZone(t, f.Host(1), 122)
	c, ip := z.container(f.Host(3), "asks")
	out := f.Host(3).Exec(c, "busybox", "udhcpc", "-q", "-n", "-f", "-t", "4", "-T", "1", "-i", "eth0", "-s", "/bin/true")
	if !strings.Contains(out, "lease of "+ip+" obtained from 10.122.1.1") {
		t.Errorf("DHCP in a container at %s: %s", ip, out)
	}
}
