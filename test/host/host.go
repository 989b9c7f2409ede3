// Package host gives user-level tests a private machine: its own Docker, Open vSwitch and
// nuage plugin in its own namespaces (test/fleet). It drives them as a user would, by
// their commands, and never touches the Docker and Open vSwitch of the machine it runs on.
package host

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Host is a private machine as one test sees it. What the test makes through it is
// removed when the test ends. Its methods may be used by several goroutines; those
// without an error result end the test when their command fails.
type Host struct {
	*machine
	t testing.TB
}

// machine is one host of a fleet, by its number.
type machine struct {
	*fleet
	n int
}

// shared is the package's common host. It is usable once ready.
var shared struct {
	sync.Mutex
	*fleet
	ready bool
}

// Main runs a package's tests, several at a time since most of their time is waiting, and
// ends the shared host and the shared fleet after them.
func Main(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		f.Value.Set("6")
	}
	code := m.Run()
	for _, f := range []*fleet{shared.fleet, sharedFleet.fleet} {
		if f == nil {
			continue
		}
		if err := f.end(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// Shared is the package's common host, with images and the plugin in it; it boots with
// the first caller. For tests that disturb nobody beyond their own domain.
func Shared(t testing.TB) *Host {
	t.Helper()
	need(t)
	shared.Lock()
	defer shared.Unlock()
	switch {
	case shared.fleet == nil:
		f, err := boot()
		if err != nil {
			t.Fatal(err)
		}
		shared.fleet = f
		h := f.host(1, t)
		h.LoadImages()
		h.InstallPlugin()
		shared.ready = true
		return h
	case !shared.ready:
		t.Fatal("the shared host could not be prepared: see the first test that failed")
	}
	return shared.host(1, t)
}

// Start boots a host for this test alone, without images and plugin.
func Start(t testing.TB) *Host {
	t.Helper()
	need(t)
	f, err := boot()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.end(); err != nil {
			t.Error(err)
		}
	})
	return f.host(1, t)
}

// Ready is Start with images and the plugin.
func Ready(t testing.TB) *Host {
	t.Helper()
	h := Start(t)
	h.LoadImages()
	h.InstallPlugin()
	return h
}

// watched shows the end of dockerd's log, where the plugin's lines are, if the test fails.
func watched(h *Host) *Host {
	h.t.Cleanup(func() {
		if h.t.Failed() {
			h.t.Logf("end of the log of host %d's dockerd:\n%s", h.n, h.PluginLog(10))
		}
	})
	return h
}

// need fails the test if this machine cannot hold a host, and skips it if the user said so.
func need(t testing.TB) {
	t.Helper()
	if os.Getenv("NUAGE_TEST_ROOT") == "0" {
		t.Skip("needs root, Docker and Open vSwitch (NUAGE_TEST_ROOT=0 leaves it out)")
	}
	if os.Geteuid() != 0 {
		t.Fatal("needs root (NUAGE_TEST_ROOT=0 leaves it out)")
	}
}

// Try runs a command inside the host, in the root of the source tree, and returns what it
// wrote to stdout and stderr.
func (h *Host) Try(cmd ...string) (string, error) { return h.TryWith("", nil, cmd...) }

// TryWith is Try with text on stdin and additional environment, as NAME=VALUE.
func (h *Host) TryWith(stdin string, env []string, cmd ...string) (string, error) {
	return h.output(strings.NewReader(stdin), env, filepath.Join(root(), "test/fleet/exec"), append([]string{strconv.Itoa(h.n)}, cmd...)...)
}

// Run is Try for a command that has to succeed.
func (h *Host) Run(cmd ...string) string {
	h.t.Helper()
	out, err := h.Try(cmd...)
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", strings.Join(cmd, " "), err, out)
	}
	return out
}

// Refused runs a command that has to fail and returns what it said. The test fails
// unless that contains every one of the texts.
func (h *Host) Refused(texts []string, cmd ...string) string {
	h.t.Helper()
	out, err := h.Try(cmd...)
	if err == nil {
		h.t.Fatalf("%s: succeeded, and must be refused with %q\n%s", strings.Join(cmd, " "), texts, out)
	}
	for _, text := range texts {
		if !strings.Contains(strings.ToLower(out), strings.ToLower(text)) {
			h.t.Errorf("%s:\n%s\nwant in the message: %q", strings.Join(cmd, " "), out, text)
		}
	}
	return out
}

// OVS runs ovs-vsctl, ovs-ofctl or ovs-appctl: the first argument without its "ovs-".
func (h *Host) OVS(args ...string) string {
	h.t.Helper()
	return h.Run(append([]string{"ovs-" + args[0]}, args[1:]...)...)
}

// Nuagectl runs the user's command.
func (h *Host) Nuagectl(args ...string) string {
	h.t.Helper()
	return h.Run(append([]string{"nuagectl"}, args...)...)
}

// Service starts, stops (TERM), kills (KILL) or restarts dockerd, ovsdb-server or
// ovs-vswitchd, and returns when that is done.
func (h *Host) Service(name, verb string) {
	h.t.Helper()
	h.Run(filepath.Join(root(), "test/fleet/service"), name, verb)
}

// Power cuts the host's power ("off": every process is killed at once, /run and the
// interfaces are gone) or boots it again ("on").
func (h *Host) Power(onOff string) {
	h.t.Helper()
	h.mustScript("power", onOff)
}

// Link pulls the host's cable out of the underlay ("cut") or puts it back ("heal"). A cut
// host sees no change of its own link.
func (h *Host) Link(cutHeal string) {
	h.t.Helper()
	h.mustScript("link", cutHeal)
}

func (h *Host) mustScript(name, verb string) {
	h.t.Helper()
	if out, err := h.script(name, strconv.Itoa(h.n), verb); err != nil {
		h.t.Fatalf("%s %d %s: %v\n%s", name, h.n, verb, err, out)
	}
}

// Eventually polls f until it returns nil and fails the test with its last error if that
// takes longer than limit.
func (h *Host) Eventually(limit time.Duration, what string, f func() error) {
	h.t.Helper()
	var err error
	for end := time.Now().Add(limit); ; {
		if err = f(); err == nil {
			return
		}
		if time.Now().After(end) {
			h.t.Fatalf("%s: not after %s: %v", what, limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Fatalf ends the test, for code that is given a host and no test.
func (h *Host) Fatalf(format string, args ...any) {
	h.t.Helper()
	h.t.Fatalf(format, args...)
}

// Programmed waits until the host's switch has all that the store has now.
func (h *Host) Programmed() {
	h.t.Helper()
	h.Eventually(10*time.Second, "the switch is programmed", func() error {
		s, err := h.Status()
		if err == nil && s.Agent.Revision < s.Store.Revision {
			err = fmt.Errorf("revision %d of %d", s.Agent.Revision, s.Store.Revision)
		}
		return err
	})
}
