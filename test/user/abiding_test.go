package user

// What takes minutes, and nearly all of them waiting. Tests are started in the order of
// their files' names, so these wait while the others work.

import (
	"strings"
	"testing"
	"time"

	"nuage/test/host"
)

// What Docker removed while the plugin was away is collected once it is back: Docker
// forgets its endpoints and networks without telling.
func TestCollectsWhatDockerForgot(t *testing.T) {
	t.Parallel()
	h := host.Ready(t)
	d := h.Domain("App1", "front=10.91.1.0/24")
	n := d.Network("front")
	gone, kept := h.Container("gone", "--network", n), h.Container("kept", "--network", n)
	before := len(ports(h))
	h.Docker("plugin", "disable", "-f", host.PluginName)
	h.Docker("rm", "-f", gone) // fifteen seconds a verb
	h.Docker("plugin", "enable", host.PluginName)
	h.Eventually(4*time.Minute, "the port and vport of the removed container go", func() error {
		if now := ports(h); len(now) != before-1 {
			return errorf("ports: %v", now)
		}
		if vs := h.Get("vports"); len(vs) != 1 {
			return errorf("vports: %v", vs)
		}
		return nil
	})
	h.Reaches(kept, "10.91.1.1", 64)
}

// Flows that somebody adds or removes by hand are repaired within a minute.
func TestDriftIsRepaired(t *testing.T) {
	t.Parallel()
	h := host.Ready(t)
	p := newPair(t, h)
	before := strings.Join(flows(h), "\n")
	h.OVS("ofctl", "-OOpenFlow15", "add-flow", "alubr0", "table=0,priority=65000,ip,actions=drop")
	h.ReachesNot(p.a, p.ipB)
	h.OVS("ofctl", "-OOpenFlow15", "del-flows", "alubr0", "table=1")
	if strings.Join(flows(h), "\n") == before {
		t.Fatal("nothing was broken")
	}
	h.Eventually(70*time.Second, "the drift is repaired", func() error {
		if now := strings.Join(flows(h), "\n"); now != before {
			return errorf("before:\n%s\nnow:\n%s", before, now)
		}
		return nil
	})
	h.Reaches(p.a, p.ipB, 63)

	// A port or the whole bridge removed by hand comes back as well.
	h.OVS("vsctl", "del-br", "alubr0")
	h.Eventually(70*time.Second, "the bridge comes back", func() error {
		out, err := h.TryDocker("exec", p.a, "app", "ping", "-c", "1", p.ipB)
		if err != nil {
			return errorf("%v: %s", err, out)
		}
		return nil
	})
	p.works("del-br")
}

// A subnet without a free address says so, and gives out an address again after it rested.
func TestExhaustion(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "tiny=10.66.1.0/29") // six hosts, one of them the gateway
	n := d.Network("tiny")
	seen := map[string]bool{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		ip := h.IP(h.Container(name, "--network", n))
		if seen[ip] {
			t.Errorf("address %s twice", ip)
		}
		seen[ip] = true
	}
	h.Refused([]string{"tiny", "in use"}, "docker", "run", "--rm", "--network", n, host.Image, "app", "addr")
	h.Docker("rm", "-f", h.Name("c"))
	h.Eventually(90*time.Second, "an address after its rest", func() error {
		out, err := h.TryDocker("run", "--rm", "--network", n, host.Image, "app", "addr")
		if err != nil {
			time.Sleep(2 * time.Second) // each attempt costs the others
			return errorf("%v: %s", err, out)
		}
		return nil
	})
}
