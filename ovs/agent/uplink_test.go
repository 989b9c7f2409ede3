package agent

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The set-up for hosts whose NIC stays with the kernel: containers reach each other, and the
// hosts go on as before.
func TestUplinkScript(t *testing.T) {
	f := newFleet(t, 2, 1500)
	script := func(n *node, args ...string) (string, error) {
		cmd := exec.Command("ip", append([]string{"netns", "exec", n.netns, "../../dist/uplink"}, args...)...)
		cmd.Env = append(os.Environ(), "OVS_RUNDIR="+n.ovs.RunDir)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for i, n := range f.nodes {
		// As an ordinary host is: the address is the NIC's.
		n.ovs.Vsctl("del-br", "br-phy")
		ip(t, n.netns, "addr add %s/24 dev u0", n.vtep)
		before := f.address(t, n)
		if out, err := script(n, "u0", n.vtep+"/24"); err == nil || !strings.Contains(out, "is in use") {
			t.Errorf("the underlay's own prefix: %v, %s", err, out)
		}
		if now := f.address(t, n); now != before || strings.Contains(n.ovs.Vsctl("list-br"), "br-nuage") {
			t.Errorf("a refusal left something:\n%s\nbefore:\n%s", now, before)
		}
		n.vtep, n.link = fmt.Sprintf("10.99.0.%d", i+1), "br-nuage"
		for range 2 {
			if out, err := script(n, "u0", n.vtep+"/24"); err != nil || !strings.Contains(out, "NUAGE_VTEP="+n.vtep) {
				t.Fatalf("%v: %s", err, out)
			}
		}
	}
	f.publish(twoSubnets()...)
	f.start(t, 1500)
	web := f.attach(t, f.nodes[0], "app1", "web", "10.0.0.2", 1450)
	f.attach(t, f.nodes[1], "app1", "db", "10.0.1.3", 1450)
	f.settled(t)
	f.primed(t)
	for _, size := range []string{"56", "1422"} {
		if out, err := in(web, "ping", "-n", "-M", "do", "-c", "3", "-i", "0.5", "-W", "5", "-s", size, "10.0.1.3"); err != nil || !strings.Contains(out, " 0% packet loss") {
			t.Errorf("%s bytes over the uplink: %v\n%s", size, err, out)
		}
	}
	if out, err := in(f.nodes[0].netns, "ping", "-n", "-c", "1", "-W", "5", "198.51.100.2"); err != nil {
		t.Errorf("the hosts' own addresses: %v\n%s", err, out)
	}
	for _, n := range f.nodes {
		if p := n.agent.Status().Tunnel.Problem; p != "" {
			t.Error(p)
		}
		if out, err := script(n, "remove"); err != nil {
			t.Errorf("remove: %v, %s", err, out)
		}
		if now := f.address(t, n); strings.Contains(now, "nuage") || strings.Contains(now, "10.99.") {
			t.Errorf("left:\n%s", now)
		}
	}
}

// address is what the host has of links' addresses and routes, its bridge alubr0 aside.
func (f *fleet) address(t testing.TB, n *node) string {
	t.Helper()
	a, err := in(n.netns, "sh", "-c", "ip -o -4 addr; ip -4 route; ip -4 rule; ip -br link")
	if err != nil {
		t.Fatal(a)
	}
	return a
}
