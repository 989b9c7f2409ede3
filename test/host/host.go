// Package host gives user-level tests a private machine: its own Docker, Open vSwitch and
// nuage plugin in its own namespaces (test/fleet). It drives them as a user would, by
// their commands, and never touches the Docker and Open vSwitch of the machine it runs on.
package host

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
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

// machine is one fleet of one host.
type machine struct {
	fleet string // its name
	slot  *os.File
	env   []string
}

// shared is the package's common host. It is usable once ready.
var shared struct {
	sync.Mutex
	*machine
	ready bool
}

// Main runs a package's tests, several at a time since most of their time is waiting, and
// ends the shared host after them.
func Main(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		f.Value.Set("4")
	}
	code := m.Run()
	if shared.machine != nil {
		if err := shared.end(); err != nil {
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
	case shared.machine == nil:
		m, err := boot()
		if err != nil {
			t.Fatal(err)
		}
		shared.machine = m
		h := watched(&Host{m, t})
		h.LoadImages()
		h.InstallPlugin()
		shared.ready = true
		return h
	case !shared.ready:
		t.Fatal("the shared host could not be prepared: see the first test that failed")
	}
	return watched(&Host{shared.machine, t})
}

// Start boots a host for this test alone, without images and plugin.
func Start(t testing.TB) *Host {
	t.Helper()
	need(t)
	m, err := boot()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.end(); err != nil {
			t.Error(err)
		}
	})
	return watched(&Host{m, t})
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
		if !h.t.Failed() {
			return
		}
		log, err := os.ReadFile(filepath.Join(h.Dir(), "log/dockerd.log"))
		if err != nil {
			return
		}
		var lines []string
		for _, l := range strings.Split(string(log), "\n") {
			if _, of, ok := strings.Cut(l, `msg="time=`); ok && strings.Contains(of, "plugin=") {
				of, _, _ = strings.Cut(of, `" plugin=`)
				lines = append(lines, strings.ReplaceAll(of, `\"`, `"`))
			} else if strings.Contains(l, "level=error") {
				lines = append(lines, l)
			}
		}
		h.t.Logf("end of dockerd's log:\n%s", strings.Join(lines[max(0, len(lines)-25):], "\n"))
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

// lab is where the hosts of tests keep their state. testN.slot in it is locked by the
// process that uses fleet testN, so that several run side by side, and each ends first
// what a killed one has left of its fleet.
func lab() string {
	if l := os.Getenv("NUAGE_LAB"); l != "" {
		return l
	}
	return "/var/tmp/nuage-lab"
}

func boot() (*machine, error) {
	if err := buildApp(); err != nil {
		return nil, err
	}
	m, err := takeSlot()
	if err != nil {
		return nil, err
	}
	for _, c := range [][]string{{"down"}, {"up", "1"}} {
		if out, err := m.script(c...); err != nil {
			return nil, errors.Join(fmt.Errorf("fleet %s: %s: %w\n%s", m.fleet, c[0], err, out), m.end())
		}
	}
	return m, nil
}

func takeSlot() (*machine, error) {
	if err := os.MkdirAll(lab(), 0o755); err != nil {
		return nil, err
	}
	for i := 1; i < 100; i++ {
		name := fmt.Sprintf("test%d", i)
		f, err := os.OpenFile(filepath.Join(lab(), name+".slot"), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			f.Close()
			continue
		}
		env := append(os.Environ(), "NUAGE_LAB="+lab(), "NUAGE_FLEET="+name, "NUAGE_UPLINK=kernel",
			"PATH="+filepath.Join(treeDir("test"), "bin")+":"+os.Getenv("PATH"), "NUAGE_TEST_APP="+filepath.Join(treeDir("test"), "bin/app"))
		return &machine{fleet: name, slot: f, env: env}, nil
	}
	return nil, fmt.Errorf("lab %s: 99 fleets are in use", lab())
}

func (m *machine) end() error {
	out, err := m.script("down")
	m.slot.Close()
	if err != nil {
		return fmt.Errorf("fleet %s: down: %w\n%s", m.fleet, err, out)
	}
	return nil
}

// Dir is where the host keeps its disk and its logs (log/dockerd.log and others).
func (m *machine) Dir() string { return filepath.Join(lab(), m.fleet, "h1") }

// script runs a command of test/fleet.
func (m *machine) script(args ...string) (string, error) {
	return m.output(nil, nil, filepath.Join(root(), "test/fleet", args[0]), args[1:]...)
}

func (m *machine) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = m.env
	cmd.Dir = root()
	// A user's command that hangs must not hang the test for ever.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

const patience = 2 * time.Minute

func (m *machine) output(stdin io.Reader, env []string, name string, args ...string) (string, error) {
	cmd := m.command(name, args...)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stdin = stdin
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	timer := time.AfterFunc(patience, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := cmd.Wait()
	if !timer.Stop() {
		err = fmt.Errorf("no end after %s: %w", patience, err)
	}
	return strings.TrimSpace(out.String()), err
}

// Try runs a command inside the host, in the root of the source tree, and returns what it
// wrote to stdout and stderr.
func (h *Host) Try(cmd ...string) (string, error) { return h.TryWith("", nil, cmd...) }

// TryWith is Try with text on stdin and additional environment, as NAME=VALUE.
func (h *Host) TryWith(stdin string, env []string, cmd ...string) (string, error) {
	return h.output(strings.NewReader(stdin), env, filepath.Join(root(), "test/fleet/exec"), append([]string{"1"}, cmd...)...)
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
	if out, err := h.script("power", "1", onOff); err != nil {
		h.t.Fatalf("power %s: %v\n%s", onOff, err, out)
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
