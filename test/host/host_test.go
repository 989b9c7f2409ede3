package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The harness itself, without any plugin: what the tests of nuage take for granted.
func TestPrivateHost(t *testing.T) {
	h := Start(t)
	h.LoadImages()

	if name := h.Run("hostname"); name != "nuage-h1" {
		t.Errorf("hostname %s", name)
	}
	mine, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if h.Run("readlink", "/proc/self/ns/net") == mine {
		t.Fatal("the host has this machine's network namespace")
	}
	if out := h.OVS("vsctl", "list-br"); out != "" {
		t.Errorf("bridges of a new host: %s", out)
	}

	a, b := h.Container("a"), h.Container("b")
	p := h.Ping(a, h.IP(b))
	if got := h.Exec(a, "app", "get", "http://"+h.IP(b)); got != b+" sees "+h.IP(a) {
		t.Errorf("http over docker's bridge: %s", got)
	}
	time.Sleep(300 * time.Millisecond) // the ping's subject is time
	p.NoLoss("quiet")

	lossy := h.Ping(a, h.IP(b))
	h.Docker("network", "disconnect", "bridge", b)
	time.Sleep(300 * time.Millisecond)
	if l := lossy.Stop(); l.Lost < 10 {
		t.Errorf("ping of a disconnected container: %+v, want losses", l)
	}
	if _, err := h.API("GET", "/containers/none/json", nil); err == nil || !strings.Contains(err.Error(), "No such container") {
		t.Errorf("Docker's API: %v", err)
	}
}

func TestServicesAndPower(t *testing.T) {
	h := Start(t)
	h.OVS("vsctl", "add-br", "kept", "--", "set", "bridge", "kept", "datapath_type=netdev")
	for _, s := range []string{"dockerd", "ovs-vswitchd", "ovsdb-server"} {
		before := h.Run("pgrep", "-x", s)
		h.Service(s, "restart")
		h.Service(s, "kill")
		if out, err := h.Try("pgrep", "-x", s); err == nil {
			t.Errorf("%s runs after kill: %s", s, out)
		}
		h.Service(s, "start")
		if after := h.Run("pgrep", "-x", s); after == before {
			t.Errorf("%s was not restarted", s)
		}
	}
	h.Docker("network", "create", "kept")
	h.Run("touch", "/run/lost")
	h.Power("off")
	if out, err := h.Try("true"); err == nil {
		t.Errorf("a host without power runs commands: %s", out)
	}
	h.Power("on")
	h.Docker("network", "inspect", "kept")
	h.OVS("vsctl", "br-exists", "kept")
	if _, err := h.Try("test", "-e", "/run/lost"); err == nil {
		t.Error("/run outlived the power cut")
	}
}

// A test run that was killed leaves a fleet; the next one ends it before it takes its place.
func TestLeftoversAreEnded(t *testing.T) {
	need(t)
	m, err := boot()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := (&machine{m, 1}).pid1()
	if err != nil {
		t.Fatal(err)
	}
	m.slot.Close() // as the kernel does for a killed process
	again := Start(t)
	if again.name != m.name {
		t.Skipf("another test run took fleet %s meanwhile", m.name)
	}
	if cmd, err := os.ReadFile(filepath.Join("/proc", pid, "cmdline")); err == nil && strings.Contains(string(cmd), "host-init") {
		t.Errorf("process %s of the fleet left behind still runs", pid)
	}
	again.Docker("version")
}

// Two hosts on the underlay, and the cable of one pulled out and put back.
func TestFleetOfTwo(t *testing.T) {
	need(t)
	m, err := takeSlot("bridge")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.end(); err != nil {
			t.Error(err)
		}
	})
	run := func(want bool, args ...string) {
		t.Helper()
		if out, err := m.script(args...); (err == nil) != want {
			t.Fatalf("%v: %v, want success: %t\n%s", args, err, want, out)
		}
	}
	run(true, "down")
	run(true, "up", "2")
	run(true, "up", "2") // again changes nothing
	ping := []string{"exec", "1", "ping", "-c", "1", "-w", "5", "10.200.0.2"}
	lost := []string{"exec", "1", "ping", "-c", "1", "-W", "1", "10.200.0.2"}
	run(true, ping...)
	run(true, "link", "2", "cut")
	run(false, lost...)
	run(true, "exec", "2", "docker", "version") // cut off, not dead
	run(true, "link", "2", "heal")
	run(true, ping...)
	run(true, "power", "2", "off")
	run(false, lost...)
	run(true, "power", "2", "on")
	run(true, ping...)
	run(false, "exec", "3", "true")
	run(false, "link", "2", "bend")
	run(false, "up", "0")
}
