package ovstest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestTraceAndFlows(t *testing.T) {
	begin := time.Now()
	o := Start(t)
	t.Logf("started in %v", time.Since(begin))
	if s := o.AddBridge("br0"); s != filepath.Join(o.RunDir, "br0.mgmt") {
		t.Errorf("management socket %s", s)
	}
	o.AddPort("br0", "p1", 11)
	o.AddPort("br0", "p2", 12)
	o.Ofctl("add-flow", "br0", "in_port=11,actions=output:12")
	if got := o.Flows("br0"); len(got) != 1 || !strings.Contains(got[0], "in_port=11") && !strings.Contains(got[0], "in_port=p1") {
		t.Errorf("flows: %q", got)
	}
	if out := o.Trace("br0", "in_port=11,ip"); !strings.Contains(out, "output:12") {
		t.Errorf("trace from 11: %s", out)
	}
	if out := o.Trace("br0", "in_port=12,ip"); !strings.Contains(out, "Datapath actions: drop") {
		t.Errorf("trace from 12: %s", out)
	}
	if _, err := o.Run("ovs-vsctl", "br-exists", "absent"); err == nil {
		t.Error("a failing command gave no error")
	}
}

func TestRestartKeepsConfiguration(t *testing.T) {
	o := Start(t)
	o.AddBridge("br0")
	o.AddPort("br0", "p1", 11)
	for _, restart := range []func(){
		func() { o.KillVswitchd(); o.StartVswitchd() },
		func() { o.KillDB(); o.StartDB() },
		func() { o.StopVswitchd(); o.StopDB(); o.StartDB(); o.StartVswitchd() },
	} {
		restart()
		if got := o.Vsctl("--timeout=10", "wait-until", "interface", "p1", "ofport=11", "--", "get", "interface", "p1", "ofport"); got != "11" {
			t.Errorf("ofport %q after a restart", got)
		}
		o.Ofctl("dump-flows", "br0")
	}
}

// TestDaemonsEndWithTheBinary runs a copy of this test binary, kills it, and looks for
// the daemons that it had started.
func TestDaemonsEndWithTheBinary(t *testing.T) {
	if os.Getenv("OVSTEST_CHILD") != "" {
		o := Start(t)
		fmt.Printf("pids %d %d\n", o.server.cmd.Process.Pid, o.vswitch.cmd.Process.Pid)
		fmt.Printf("dir %s\n", o.RunDir)
		time.Sleep(time.Minute)
		return
	}
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), "OVSTEST_CHILD=1")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var pids []int
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if f := strings.Fields(lines.Text()); len(f) == 3 && f[0] == "pids" {
			for _, s := range f[1:] {
				pid, err := strconv.Atoi(s)
				if err != nil {
					t.Fatal(err)
				}
				pids = append(pids, pid)
			}
		} else if len(f) == 2 && f[0] == "dir" {
			defer os.RemoveAll(f[1])
			break
		}
	}
	child.Process.Kill()
	child.Wait()
	if len(pids) != 2 {
		t.Fatalf("the child started %d daemons", len(pids))
	}
	for _, pid := range pids {
		limit := time.Now().Add(5 * time.Second)
		for syscall.Kill(pid, 0) == nil && !zombie(pid) {
			if time.Now().After(limit) {
				t.Fatalf("process %d outlived the test binary", pid)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// zombie tells whether a process has ended but nobody has waited for it, which is so in
// a container without an init.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(b), ") Z ")
}

// TestNetdevForwards sends a real packet through the userspace datapath in a namespace.
func TestNetdevForwards(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("NUAGE_TEST_ROOT") == "0" {
			t.Skip("needs root for network namespaces")
		}
		t.Fatal("needs root for network namespaces (NUAGE_TEST_ROOT=0 skips)")
	}
	host := fmt.Sprintf("ovst%d", os.Getpid())
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	for _, ns := range []string{host, host + "a", host + "b"} {
		ip("netns", "add", ns)
		t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
	}
	o := Start(t, Netdev(), InNetNS("/run/netns/"+host))
	o.AddBridge("br0")
	for i, c := range []string{"a", "b"} {
		ip("-n", host, "link", "add", "v"+c, "type", "veth", "peer", "name", "eth0", "netns", host+c)
		ip("-n", host, "link", "set", "v"+c, "up")
		ip("-n", host+c, "link", "set", "eth0", "up")
		ip("-n", host+c, "addr", "add", fmt.Sprintf("10.9.9.%d/24", i+1), "dev", "eth0")
		o.AddPort("br0", "v"+c, uint32(11+i))
	}
	ping := func(seconds string) error { // one answer is enough
		out, err := exec.Command("ip", "netns", "exec", host+"a", "ping", "-c1", "-w"+seconds, "10.9.9.2").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	if err := ping("1"); err == nil {
		t.Error("a bridge in secure mode without flows forwarded a packet")
	}
	o.Ofctl("add-flow", "br0", "actions=NORMAL")
	if err := ping("15"); err != nil {
		t.Errorf("ping: %v", err)
	}
}
