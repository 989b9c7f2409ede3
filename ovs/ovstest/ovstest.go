// Package ovstest starts a private, real Open vSwitch for one test: its own database,
// ovsdb-server and ovs-vswitchd in a directory of its own, and the programs of Open
// vSwitch as the independent oracle of what our code did.
//
// It never touches the Open vSwitch of the machine, needs no kernel module, and leaves
// nothing behind: the daemons end with the test, and with the test binary if that is
// killed. Only tests import it.
package ovstest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	goovs "github.com/digitalocean/go-openvswitch/ovs"
)

// Schema is the database schema that the distribution installs.
const Schema = "/usr/share/openvswitch/vswitch.ovsschema"

// bootTime bounds the start of one daemon, on a machine that is busy with other tests.
const bootTime = 20 * time.Second

// OVS is one private Open vSwitch. Its methods that return no error end the test when
// they fail; they are for the goroutine of the test. Run may be called from anywhere.
type OVS struct {
	DB     string // path of ovsdb-server's unix socket
	RunDir string // where BRIDGE.mgmt, BRIDGE.snoop and the pid files are

	t       testing.TB
	conf    config
	server  *daemon
	vswitch *daemon
	pid     atomic.Int64 // of the last ovs-vswitchd
}

type config struct {
	real    bool // no dummies
	system  bool
	netns   string
	stopped bool
}

// An Option changes what Start starts.
type Option func(*config)

// Netdev uses the real userspace datapath (datapath_type=netdev) instead of the dummy
// one: ports are then the links of the network namespace, and packets flow.
func Netdev() Option { return func(c *config) { c.real = true } }

// Forwarding is for tests of packets: the userspace datapath, or the kernel's where
// NUAGE_TEST_DATAPATH=system (see test/kernel), in the network namespace of that path.
func Forwarding(path string) Option {
	return func(c *config) {
		c.real, c.system, c.netns = true, os.Getenv("NUAGE_TEST_DATAPATH") == "system", path
	}
}

// System is Netdev, and the kernel's datapath beside it if the kernel has one. It comes
// with InNetNS only: a datapath of the kernel's belongs to a network namespace.
func System() Option { return func(c *config) { c.real, c.system = true, true } }

// InNetNS runs both daemons in the network namespace of that path ("/run/netns/NAME").
func InNetNS(path string) Option { return func(c *config) { c.netns = path } }

// Stopped only creates the directory and the database; StartDB and StartVswitchd start
// the daemons later.
func Stopped() Option { return func(c *config) { c.stopped = true } }

// Start creates a database and starts both daemons, and returns when both answer. By
// default ports are dummies: any name is a port at once, no packet flows but those of
// ofproto/trace and netdev-dummy/receive. The test is skipped where NUAGE_TEST_ROOT=0
// and the programs are not installed; without that setting their absence fails it.
func Start(t testing.TB, opts ...Option) *OVS {
	t.Helper()
	o := &OVS{t: t}
	for _, opt := range opts {
		opt(&o.conf)
	}
	require(t)
	if o.conf.system && o.conf.netns == "" {
		t.Fatal("ovstest: System without InNetNS would use the datapath of this machine")
	}
	// A unix socket's path has at most 107 bytes: t.TempDir is too long for that.
	dir, err := os.MkdirTemp("", "ovs")
	if err != nil {
		t.Fatalf("ovstest: %v", err)
	}
	o.RunDir, o.DB = dir, filepath.Join(dir, "db.sock")
	t.Cleanup(func() {
		o.StopVswitchd()
		o.StopDB()
		if t.Failed() {
			logTail(t, filepath.Join(dir, "ovs-vswitchd.log"))
		}
		os.RemoveAll(dir)
	})
	o.must("ovsdb-tool", "create", filepath.Join(dir, "conf.db"), Schema)
	if !o.conf.stopped {
		o.StartDB()
		o.StartVswitchd()
	}
	return o
}

// require checks what a private Open vSwitch needs, and names what lacks.
func require(t testing.TB) {
	t.Helper()
	var lacks []string
	for _, p := range []string{"ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl", "ovs-appctl"} {
		if _, err := exec.LookPath(p); err != nil {
			lacks = append(lacks, p)
		}
	}
	if _, err := os.Stat(Schema); err != nil {
		lacks = append(lacks, Schema)
	}
	if lacks == nil {
		return
	}
	msg := "ovstest: " + strings.Join(lacks, ", ") + " not found: install openvswitch-switch"
	if os.Getenv("NUAGE_TEST_ROOT") == "0" {
		t.Skip(msg)
	}
	t.Fatal(msg)
}

// Datapath is the datapath_type for bridges.
func (o *OVS) Datapath() string {
	if o.conf.system {
		return "system"
	}
	return "netdev"
}

// StartDB starts ovsdb-server and waits until it answers.
func (o *OVS) StartDB() {
	o.t.Helper()
	if o.server != nil {
		return
	}
	// A killed server leaves its socket; ovsdb-server replaces it, but until then a
	// dial would tell a dead socket from none.
	os.Remove(o.DB)
	o.server = o.launch("ovsdb-server", filepath.Join(o.RunDir, "conf.db"), "--remote=punix:"+o.DB,
		"--unixctl="+filepath.Join(o.RunDir, "db.ctl"))
	o.answers(o.server, o.DB)
	o.must("ovs-vsctl", "--no-wait", "init")
}

// StartVswitchd starts ovs-vswitchd and waits until it answers and, if ovsdb-server runs,
// has opened the bridges of the database.
func (o *OVS) StartVswitchd() {
	o.t.Helper()
	if o.vswitch != nil {
		return
	}
	args := []string{"unix:" + o.DB}
	if !o.conf.system {
		args = append(args, "--disable-system")
	}
	if !o.conf.real {
		args = append(args, "--enable-dummy=override")
	}
	o.vswitch = o.launch("ovs-vswitchd", args...)
	o.pid.Store(int64(o.vswitch.cmd.Process.Pid))
	o.answers(o.vswitch, o.control())
	if o.server != nil { // ovs-vsctl waits for a change to be acted on, so it takes one
		o.must("ovs-vsctl", "set", "open", ".", fmt.Sprintf("external_ids:ovstest-pid=%d", o.vswitch.cmd.Process.Pid))
	}
}

// control is ovs-vswitchd's control socket, of the last one that was started.
func (o *OVS) control() string {
	return filepath.Join(o.RunDir, fmt.Sprintf("ovs-vswitchd.%d.ctl", o.pid.Load()))
}

// StopDB ends ovsdb-server in good order; KillDB does it with SIGKILL. The database file
// stays, and StartDB continues with it.
func (o *OVS) StopDB() { o.server = o.server.end(syscall.SIGTERM) }

// KillDB ends ovsdb-server with SIGKILL.
func (o *OVS) KillDB() { o.server = o.server.end(syscall.SIGKILL) }

// StopVswitchd ends ovs-vswitchd in good order; flows are lost, the configuration stays
// in the database.
func (o *OVS) StopVswitchd() { o.vswitch = o.vswitch.end(syscall.SIGTERM) }

// KillVswitchd ends ovs-vswitchd with SIGKILL.
func (o *OVS) KillVswitchd() { o.vswitch = o.vswitch.end(syscall.SIGKILL) }

// SignalDB sends ovsdb-server a signal: SIGSTOP makes it hang, SIGCONT ends that.
func (o *OVS) SignalDB(sig syscall.Signal) { o.server.cmd.Process.Signal(sig) }

// SignalVswitchd sends ovs-vswitchd a signal.
func (o *OVS) SignalVswitchd(sig syscall.Signal) { o.vswitch.cmd.Process.Signal(sig) }

// answers waits until a daemon accepts connections on a socket.
func (o *OVS) answers(d *daemon, socket string) {
	o.t.Helper()
	for limit := time.Now().Add(bootTime); ; time.Sleep(2 * time.Millisecond) {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
			return
		}
		select {
		case <-d.done:
			o.t.Fatalf("ovstest: %s ended at once: %v\n%s", d.name, d.err, d.out.String())
		default:
		}
		if time.Now().After(limit) {
			o.t.Fatalf("ovstest: %s does not answer within %v: %v", d.name, bootTime, err)
		}
	}
}

// env makes the programs of Open vSwitch look into the private directory by default.
func (o *OVS) env() []string {
	return append(os.Environ(), "OVS_RUNDIR="+o.RunDir, "OVS_DBDIR="+o.RunDir, "OVS_LOGDIR="+o.RunDir,
		"OVS_SYSCONFDIR="+o.RunDir, "OVS_PKGDATADIR="+filepath.Dir(Schema))
}

// Run runs a program of Open vSwitch against this one and returns its standard output.
// The error has the command and what it wrote to standard error.
func (o *OVS) Run(program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), bootTime)
	defer cancel()
	switch program {
	case "ovs-vsctl":
		args = append([]string{"--timeout=15", "--db=unix:" + o.DB}, args...)
	case "ovs-appctl":
		args = append([]string{"--timeout=15", "--target=" + o.control()}, args...)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = o.env()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err,
			strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

func (o *OVS) must(program string, args ...string) string {
	o.t.Helper()
	out, err := o.Run(program, args...)
	if err != nil {
		o.t.Fatalf("ovstest: %v", err)
	}
	return out
}

// Vsctl runs ovs-vsctl and returns its output without the trailing newline.
func (o *OVS) Vsctl(args ...string) string {
	o.t.Helper()
	return strings.TrimRight(o.must("ovs-vsctl", args...), "\n")
}

// Ofctl runs ovs-ofctl with OpenFlow 1.4 and returns its output.
func (o *OVS) Ofctl(args ...string) string {
	o.t.Helper()
	return o.must("ovs-ofctl", append([]string{"-O", "OpenFlow14"}, args...)...)
}

// Appctl runs ovs-appctl against ovs-vswitchd and returns its output.
func (o *OVS) Appctl(args ...string) string {
	o.t.Helper()
	return o.must("ovs-appctl", args...)
}

// Trace is what ofproto/trace says of a packet, given in ovs-ofctl's flow syntax with
// in_port. Further arguments ("--ct-next", "trk,est") come before the bridge.
func (o *OVS) Trace(bridge, packet string, args ...string) string {
	o.t.Helper()
	return o.Appctl(append(append([]string{"ofproto/trace"}, args...), bridge, packet)...)
}

// Client drives this Open vSwitch through go-openvswitch, which runs and reads the same
// programs: for bridges and ports, not for flows, whose registers it drops, nor for the
// statistics of ports, which it cannot read from this version's ovs-ofctl.
func (o *OVS) Client() *goovs.Client {
	return goovs.New(goovs.Exec(func(program string, args ...string) ([]byte, error) {
		out, err := o.Run(program, args...)
		return []byte(out), err
	}))
}

// Flows are the flows of a bridge as ovs-ofctl prints them, without statistics, one a
// string, in ovs-ofctl's sorted order.
func (o *OVS) Flows(bridge string) []string {
	o.t.Helper()
	var flows []string
	for _, line := range strings.Split(o.Ofctl("--no-stats", "--sort", "dump-flows", bridge), "\n") {
		if line = strings.TrimSpace(line); line != "" {
			flows = append(flows, line)
		}
	}
	return flows
}

// AddBridge makes a bridge that drops everything, in the datapath that Start chose, and
// returns its OpenFlow management socket. It is for tests that need a switch but not
// package ovs.
func (o *OVS) AddBridge(name string) (socket string) {
	o.t.Helper()
	o.Vsctl("--may-exist", "add-br", name, "--", "set", "bridge", name, "datapath_type="+o.Datapath(),
		"fail_mode=secure", "protocols=OpenFlow10,OpenFlow13,OpenFlow14,OpenFlow15")
	return filepath.Join(o.RunDir, name+".mgmt")
}

// AddPort makes a port with a number on a bridge; with the dummy datapath the link need
// not exist.
func (o *OVS) AddPort(bridge, name string, number uint32) {
	o.t.Helper()
	args := []string{"add-port", bridge, name, "--", "set", "interface", name,
		fmt.Sprintf("ofport_request=%d", number)}
	if !o.conf.real {
		args = append(args, "type=dummy")
	}
	o.Vsctl(args...)
}

func logTail(t testing.TB, path string) {
	if b, err := os.ReadFile(path); err == nil {
		t.Logf("end of ovs-vswitchd's log:\n%s", b[max(0, len(b)-4000):])
	}
}
