package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Size is how many hosts the shared fleet has.
const Size = 3

// Fleet is several private hosts on one underlay, the host 10.200.0.N being number N, as
// one test sees them: the first serves, the others have joined.
type Fleet struct {
	*fleet
	t     testing.TB
	hosts map[int]*Host
}

// sharedFleet is the package's common fleet. It is usable once ready.
var sharedFleet struct {
	sync.Mutex
	*fleet
	ready bool
}

// SharedFleet is the package's common fleet of Size hosts, made by test/fleet/ready with
// the first caller. A test that cuts, kills or reconfigures hosts must not be parallel, and
// has to leave all of them up, joined and healed.
func SharedFleet(t testing.TB) *Fleet {
	t.Helper()
	need(t)
	sharedFleet.Lock()
	defer sharedFleet.Unlock()
	if sharedFleet.fleet != nil && !sharedFleet.ready {
		t.Fatal("the shared fleet could not be prepared: see the first test that failed")
	}
	if sharedFleet.fleet == nil {
		f, err := bootFleet()
		sharedFleet.fleet = f
		if err != nil {
			t.Fatal(err)
		}
		sharedFleet.ready = true
	}
	return sharedFleet.forTest(t)
}

// StartFleet makes a fleet of Size hosts for this test alone.
func StartFleet(t testing.TB) *Fleet {
	t.Helper()
	need(t)
	f, err := bootFleet()
	if f != nil {
		t.Cleanup(func() {
			if err := f.end(); err != nil {
				t.Error(err)
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return f.forTest(t)
}

func (f *fleet) forTest(t testing.TB) *Fleet {
	seen := &Fleet{fleet: f, t: t, hosts: map[int]*Host{}}
	for n := 1; n <= Size; n++ {
		seen.hosts[n] = f.host(n, t)
	}
	return seen
}

// Host is host number n, from 1.
func (f *Fleet) Host(n int) *Host {
	f.t.Helper()
	if f.hosts[n] == nil {
		f.t.Fatalf("a fleet of %d has no host %d", Size, n)
	}
	return f.hosts[n]
}

// Each runs do for all hosts at once. do must not end the test.
func (f *Fleet) Each(do func(h *Host)) {
	var all sync.WaitGroup
	for _, h := range f.hosts {
		all.Go(func() { do(h) })
	}
	all.Wait()
}

// Underlay runs a command in the network of the switch between the hosts, 10.200.0.254.
func (f *Fleet) Underlay(cmd ...string) string {
	f.t.Helper()
	out, err := f.script(append([]string{"exec", "sw"}, cmd...)...)
	if err != nil {
		f.t.Fatalf("on the underlay: %s: %v\n%s", strings.Join(cmd, " "), err, out)
	}
	return out
}

// HostName is what the host is called in the fleet.
func (m *machine) HostName() string { return fmt.Sprintf("nuage-h%d", m.n) }

// VTEP is the host's address on the underlay.
func (m *machine) VTEP() string { return fmt.Sprintf("10.200.0.%d", m.n) }

// bootFleet returns the fleet also if it could not be made ready: it is to be ended.
func bootFleet() (*fleet, error) {
	if err := errors.Join(buildApp(), buildPlugin()); err != nil {
		return nil, err
	}
	f, err := takeSlot("bridge")
	if err != nil {
		return nil, err
	}
	for _, c := range [][]string{{"down"}, {"ready", strconv.Itoa(Size)}} {
		if out, err := f.script(c...); err != nil {
			return f, fmt.Errorf("fleet %s: %s: %w\n%s\n%s", f.name, c[0], err, out, f.logs())
		}
	}
	return f, nil
}

// logs is the end of what the plugins of a fleet said.
func (f *fleet) logs() string {
	var all []string
	for n := range Size {
		all = append(all, fmt.Sprintf("host %d:\n%s", n+1, (&machine{f, n + 1}).PluginLog(15)))
	}
	return strings.Join(all, "\n")
}

// fleet is a number of hosts under one name (test/fleet).
type fleet struct {
	name string
	slot *os.File
	env  []string
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

// boot makes a fleet of one host.
func boot() (*fleet, error) {
	if err := buildApp(); err != nil {
		return nil, err
	}
	f, err := takeSlot("kernel")
	if err != nil {
		return nil, err
	}
	for _, c := range [][]string{{"down"}, {"up", "1"}} {
		if out, err := f.script(c...); err != nil {
			return nil, errors.Join(fmt.Errorf("fleet %s: %s: %w\n%s", f.name, c[0], err, out), f.end())
		}
	}
	return f, nil
}

func takeSlot(uplink string) (*fleet, error) {
	if err := os.MkdirAll(lab(), 0o755); err != nil {
		return nil, err
	}
	for i := 1; i < 100; i++ {
		name := fmt.Sprintf("test%d", i)
		file, err := os.OpenFile(filepath.Join(lab(), name+".slot"), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			file.Close()
			continue
		}
		env := append(os.Environ(), "NUAGE_LAB="+lab(), "NUAGE_FLEET="+name, "NUAGE_UPLINK="+uplink, "NUAGE_TREE="+treeDir("test"),
			"PATH="+filepath.Join(treeDir("test"), "bin")+":"+os.Getenv("PATH"), "NUAGE_TEST_APP="+filepath.Join(treeDir("test"), "bin/app"))
		return &fleet{name: name, slot: file, env: env}, nil
	}
	return nil, fmt.Errorf("lab %s: 99 fleets are in use", lab())
}

func (f *fleet) end() error {
	out, err := f.script("down")
	f.slot.Close()
	if err != nil {
		return fmt.Errorf("fleet %s: down: %w\n%s", f.name, err, out)
	}
	return nil
}

// host is a host of the fleet for one test.
func (f *fleet) host(n int, t testing.TB) *Host { return watched(&Host{&machine{f, n}, t}) }

// Dir is where the host keeps its disk and its logs (log/dockerd.log and others).
func (m *machine) Dir() string { return filepath.Join(lab(), m.name, fmt.Sprintf("h%d", m.n)) }

// PluginLog is the end of what the plugin said to dockerd, and of dockerd's own errors.
func (m *machine) PluginLog(lines int) string {
	log, err := os.ReadFile(filepath.Join(m.Dir(), "log/dockerd.log"))
	if err != nil {
		return err.Error()
	}
	var said []string
	for l := range strings.SplitSeq(string(log), "\n") {
		if _, of, ok := strings.Cut(l, `msg="time=`); ok && strings.Contains(of, "plugin=") {
			of, _, _ = strings.Cut(of, `" plugin=`)
			said = append(said, strings.ReplaceAll(of, `\"`, `"`))
		} else if strings.Contains(l, "level=error") {
			said = append(said, l)
		}
	}
	return strings.Join(said[max(0, len(said)-lines):], "\n")
}

// script runs a command of test/fleet.
func (f *fleet) script(args ...string) (string, error) {
	return f.output(nil, nil, filepath.Join(root(), "test/fleet", args[0]), args[1:]...)
}

func (f *fleet) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = f.env
	cmd.Dir = root()
	// A user's command that hangs must not hang the test for ever.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

const patience = 2 * time.Minute

func (f *fleet) output(stdin io.Reader, env []string, name string, args ...string) (string, error) {
	cmd := f.command(name, args...)
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
