package user

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nuage/test/host"
)

// pair is two containers in two subnets of a domain, on a host of their own, and pings
// both ways that must not notice what a test does.
type pair struct {
	h          *host.Host
	t          *testing.T
	front      string
	a, b       string
	ipA, ipB   string
	forth, aft *host.Ping
}

func newPair(t *testing.T, h *host.Host, flags ...string) *pair {
	d := h.Domain("App1", "front=10.90.1.0/24", "back=10.90.2.0/24")
	p := &pair{h: h, t: t, front: d.Network("front", "--subnet", "10.90.1.0/24")}
	p.a = h.Container("a", append([]string{"--network", p.front}, flags...)...)
	p.b = h.Container("b", append([]string{"--network", d.Network("back")}, flags...)...)
	p.ipA, p.ipB = h.IP(p.a), h.IP(p.b)
	h.Reaches(p.a, p.ipB, 63)
	return p
}

func (p *pair) startPings() {
	p.t.Helper()
	p.forth, p.aft = p.h.Ping(p.a, p.ipB), p.h.Ping(p.b, p.ipA)
}

func (p *pair) noLoss(during string) {
	p.t.Helper()
	p.forth.NoLoss(during)
	p.aft.NoLoss(during)
}

// works fails the test unless the plugin attaches a new container and it reaches the pair.
func (p *pair) works(after string) {
	p.t.Helper()
	out, err := p.h.TryDocker("run", "--rm", "--network", p.front, host.Image, "app", "ping", "-c", "2", p.ipB)
	if err != nil || !strings.Contains(out, "ttl=63") {
		p.t.Errorf("a new container after %s: %v\n%s", after, err, out)
	}
}

// Killed, disabled, enabled, upgraded: running containers lose no packet, the switch's
// flows stay as they are, new containers work again.
func TestPluginComesAndGoes(t *testing.T) {
	t.Parallel()
	h := host.Ready(t)
	p := newPair(t, h)
	before := flows(h)
	same := func(after string) {
		t.Helper()
		h.Eventually(5*time.Second, "the same flows after "+after, func() error {
			if now := flows(h); !slices.Equal(now, before) {
				return errorf("before:\n%s\nnow:\n%s", strings.Join(before, "\n"), strings.Join(now, "\n"))
			}
			return nil
		})
	}

	p.startPings()
	old := h.PluginPID()
	h.Run("kill", "-9", old)
	p.works("kill -9 of the plugin")
	if h.PluginPID() == old {
		t.Error("the plugin was not killed")
	}
	p.noLoss("kill -9 of the plugin")
	same("kill -9 of the plugin")

	p.startPings()
	h.Docker("plugin", "disable", "-f", host.PluginName)
	same("disable -f of the plugin")
	time.Sleep(500 * time.Millisecond) // the pings' subject is time
	h.Docker("plugin", "enable", host.PluginName)
	p.works("enable of the plugin")
	p.noLoss("disable and enable of the plugin")
	same("enable of the plugin")

	// An upgrade that fails when the old plugin is gone already loses nothing.
	p.startPings()
	docker, err := exec.LookPath("docker")
	stub := t.TempDir()
	if err := errors.Join(err, os.WriteFile(filepath.Join(stub, "docker"), fmt.Appendf(nil,
		"#!/bin/sh\n[ \"$1 $2\" != 'plugin create' ] || { echo no space left on device >&2; exit 1; }\nexec %s \"$@\"\n", docker), 0o755)); err != nil {
		t.Fatal(err)
	}
	if out, err := h.TryUpgrade("test-next", "PATH="+stub+":"+os.Getenv("PATH")); err == nil || !strings.Contains(out, "no space left") || h.Docker("plugin", "ls", "-q") != "" {
		t.Errorf("an upgrade that cannot be made: %v\n%s", err, out)
	}
	h.UpgradePlugin("test-next")
	p.works("upgrade of the plugin")
	p.noLoss("upgrade of the plugin")
	same("upgrade of the plugin")
	if out := h.Nuagectl("version"); !strings.Contains(out, "test-next") {
		t.Errorf("version after the upgrade: %s", out)
	}
	if out := h.Nuagectl("get", "subnets"); !strings.Contains(out, "10.90.1.0/24") || !strings.Contains(out, "10.90.2.0/24") {
		t.Errorf("subnets after the upgrade:\n%s", out)
	}
	h.Reaches(p.a, p.ipB, 63)
}

// moby's TestPluginActiveNetwork, and both driver names at once.
func TestBothNames(t *testing.T) {
	t.Parallel()
	h := host.Ready(t)
	d := h.Domain("App1", "front=10.92.1.0/24")
	bare := d.Network("front")
	full := h.Name("full")
	flags := append([]string{"network", "create", "-d", host.PluginName, "--ipam-driver", host.PluginName}, d.IPAM("front")[2:]...)
	h.Docker(append(flags, full)...)
	a, b := h.Container("a", "--network", bare), h.Container("b", "--network", full)
	h.Reaches(a, h.IP(b), 64)
	if out := h.Docker("network", "ls", "--format", "{{.Name}} {{.Driver}}"); !strings.Contains(out, bare+" nuage\n") && !strings.HasSuffix(out, bare+" nuage") || !strings.Contains(out, full+" "+host.PluginName) {
		t.Errorf("docker network ls:\n%s", out)
	}
	h.Refused([]string{"in use"}, "docker", "plugin", "rm", host.PluginName)
	h.Refused([]string{"in use"}, "docker", "plugin", "disable", host.PluginName)
	h.Docker("rm", "-f", a, b)
	h.Docker("network", "rm", bare, full)
	h.Refused([]string{"is enabled"}, "docker", "plugin", "rm", host.PluginName)
	h.Docker("plugin", "disable", host.PluginName)
	h.Docker("plugin", "rm", host.PluginName)
	if out := h.Docker("plugin", "ls", "-q"); out != "" {
		t.Errorf("plugins: %s", out)
	}
}
