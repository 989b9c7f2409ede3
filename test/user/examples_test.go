package user

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"nuage/test/host"
)

// What `make up` shows, twice, on a host of its own, and `make down`'s part of it.
func TestWalkthrough(t *testing.T) {
	t.Parallel()
	h := host.Start(t)
	h.Build()
	h.LoadImages()
	h.Run(h.Tree("dist/plugin"), "install")
	// At once: the user's next command must not have to wait.
	first := h.Nuagectl("apply", "-f", "examples/app1.yaml")
	second := h.Nuagectl("apply", "-f", "examples/app1.yaml")
	if first == second || !strings.Contains(second, "Nothing to change") {
		t.Errorf("applied twice:\n%s\nthen:\n%s", first, second)
	}
	for range 2 {
		out, err := h.Try("examples/walkthrough")
		if err != nil {
			t.Fatalf("walkthrough: %v\n%s", err, out)
		}
		if !strings.Contains(out, "ttl=63") || !strings.Contains(out, "all as it must be") {
			t.Errorf("walkthrough:\n%s", out)
		}
		t.Log(out)
	}
	h.Run("examples/walkthrough", "--clean")
	if out := h.Docker("network", "ls", "--filter", "driver=nuage", "-q"); out != "" {
		t.Errorf("networks after --clean: %s", out)
	}
	if out := h.Docker("ps", "-aq"); out != "" {
		t.Errorf("containers after --clean: %s", out)
	}
}

// The walk-through is a test itself: it fails when something is not as it must be.
func TestWalkthroughFails(t *testing.T) {
	t.Parallel()
	h := host.Ready(t)
	h.Nuagectl("apply", "-f", "examples/app1.yaml")
	h.Docker("plugin", "disable", "-f", host.PluginName)
	out, err := h.Try("examples/walkthrough")
	if err == nil || !strings.Contains(out, "walkthrough: FAILED: ") {
		t.Errorf("walkthrough without the plugin: %v\n%s", err, out)
	}
}

func TestCompose(t *testing.T) {
	t.Parallel()
	compose := composeCommand(t)
	h := host.Ready(t)
	h.Nuagectl("apply", "-f", "examples/app1.yaml")
	up := append(compose, "-p", "demo", "-f", "examples/compose.yaml")
	h.Run(append(up, "up", "-d")...)
	out := h.Run(append(up, "exec", "-T", "client", "app", "get", "http://10.85.85.80/")...)
	if !strings.HasPrefix(out, "web sees 10.34.49.") {
		t.Errorf("client gets %s", out)
	}
	if out := h.Run(append(up, "exec", "-T", "client", "app", "addr")...); !strings.Contains(out, "mtu 1400") {
		t.Errorf("inside the client:\n%s", out)
	}
	h.Run(append(up, "up", "-d")...) // a second time changes nothing
	h.Run(append(up, "down")...)
	if vs := h.Get("vports"); len(vs) != 0 {
		t.Errorf("vports after down: %v", vs)
	}
}

// composeCommand is the compose that this machine has, old or new.
func composeCommand(t *testing.T) []string {
	t.Helper()
	if os.Getenv("NUAGE_TEST_ROOT") == "0" {
		t.Skip("needs root (NUAGE_TEST_ROOT=0 leaves it out)")
	}
	if _, err := exec.LookPath("docker-compose"); err == nil {
		return []string{"docker-compose"}
	}
	if exec.Command("docker", "compose", "version").Run() == nil {
		return []string{"docker", "compose"}
	}
	t.Fatal("docker-compose is missing (Debian: apt-get install docker-compose)")
	return nil
}
