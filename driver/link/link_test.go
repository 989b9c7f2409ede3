package link

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

var mac = net.HardwareAddr{2, 0x42, 0xac, 0x11, 0, 2}

func spec(id string) Spec {
	host, peer := Names(id)
	return Spec{Name: host, Peer: peer, MAC: mac, MTU: 1450}
}

// private puts the test's thread, and what it starts, into a network namespace of its own.
func private(t testing.TB) *Links {
	t.Helper()
	runtime.LockOSThread() // for good: the thread ends with the test, and the namespace with it
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		if os.Getenv("NUAGE_TEST_ROOT") == "0" {
			t.Skip("no root: cannot make a network namespace")
		}
		t.Fatalf("a network namespace needs root (NUAGE_TEST_ROOT=0 skips): %v", err)
	}
	l, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

type shown struct {
	Name    string   `json:"ifname"`
	Link    string   `json:"link"`
	Flags   []string `json:"flags"`
	MTU     int      `json:"mtu"`
	Address string   `json:"address"`
	Mode    string   `json:"inet6_addr_gen_mode"`
	Info    struct {
		Kind string `json:"info_kind"`
	} `json:"linkinfo"`
}

// show asks iproute2, which is not what the package uses.
func show(t testing.TB) map[string]shown {
	t.Helper()
	out, err := exec.Command("ip", "-j", "-d", "link", "show").Output()
	if err != nil {
		t.Fatalf("ip link show: %v", err)
	}
	var all []shown
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatal(err)
	}
	links := map[string]shown{}
	for _, s := range all {
		links[s.Name] = s
	}
	return links
}

func run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func checkPair(t *testing.T, s Spec) {
	t.Helper()
	links := show(t)
	host, peer := links[s.Name], links[s.Peer]
	if host.Info.Kind != "veth" || host.Link != s.Peer || host.MTU != s.MTU || !slices.Contains(host.Flags, "UP") || host.Mode != "none" {
		t.Errorf("host end: %+v", host)
	}
	if peer.Info.Kind != "veth" || peer.Link != s.Name || peer.MTU != s.MTU || slices.Contains(peer.Flags, "UP") || peer.Address != s.MAC.String() {
		t.Errorf("container end: %+v", peer)
	}
}

func TestCreate(t *testing.T) {
	l := private(t)
	s := spec("0123456789abcdef")
	if len(s.Name) > 15 || len(s.Peer) > 15 {
		t.Fatalf("names too long: %s %s", s.Name, s.Peer)
	}
	if err := l.Create(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	checkPair(t, s)
	before, err := netlink.LinkByName(s.Name)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Create(context.Background(), s); err != nil {
		t.Fatalf("again: %v", err)
	}
	checkPair(t, s)
	after, _ := netlink.LinkByName(s.Name)
	if after.Attrs().Index != before.Attrs().Index {
		t.Error("a right pair was replaced")
	}
	if names, err := l.List(); err != nil || !slices.Equal(names, []string{s.Name}) {
		t.Errorf("List: %v %v", names, err)
	}
	for range 2 {
		if err := l.Delete(s.Name); err != nil {
			t.Fatal(err)
		}
	}
	if links := show(t); len(links) != 1 {
		t.Errorf("left over: %v", links)
	}
}

func TestCreateReplacesWhatIsNotRight(t *testing.T) {
	l := private(t)
	for name, stale := range map[string][]string{
		"other MAC":         {"link add NAME mtu 1450 type veth peer name PEER mtu 1450 address 02:00:00:00:00:09"},
		"other MTU":         {"link add NAME mtu 1450 type veth peer name PEER mtu 1400 address MAC"},
		"other MTU here":    {"link add NAME mtu 1400 type veth peer name PEER mtu 1450 address MAC"},
		"other peer":        {"link add NAME type veth peer name other"},
		"not a veth":        {"tuntap add dev NAME mode tap"},
		"peer's name taken": {"tuntap add dev PEER mode tap"},
		"not each other's":  {"link add NAME mtu 1450 type veth peer name a", "link add PEER mtu 1450 address MAC type veth peer name b"},
	} {
		// No subtests: those run on other threads, in the system's own namespace.
		s := spec("00000000001")
		for _, cmd := range stale {
			cmd = strings.NewReplacer("NAME", s.Name, "PEER", s.Peer, "MAC", s.MAC.String()).Replace(cmd)
			run(t, append([]string{"ip"}, strings.Fields(cmd)...)...)
		}
		if err := l.Create(context.Background(), s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		checkPair(t, s)
		if err := l.Delete(s.Name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if t.Failed() {
			t.Fatal(name)
		}
		for name := range show(t) {
			if name != "lo" {
				exec.Command("ip", "link", "del", name).Run() // the other ends that a case made
			}
		}
	}
}

func TestErrorsLeaveNothing(t *testing.T) {
	l := private(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Create(ctx, spec("00000000002")); err == nil {
		t.Error("a cancelled Create succeeded")
	}
	bad := spec("00000000003")
	bad.MTU = 70000
	if err := l.Create(context.Background(), bad); err == nil || !strings.Contains(err.Error(), bad.Name) {
		t.Errorf("MTU 70000: %v", err)
	}
	foreign := spec("00000000003")
	foreign.Name = "eth0"
	if err := l.Create(context.Background(), foreign); err == nil {
		t.Error("made a link that is not named as ours")
	}
	run(t, "ip", "tuntap", "add", "dev", "eth9", "mode", "tap")
	if err := l.Delete("eth9"); err == nil {
		t.Error("deleted a link that is not ours")
	}
	if links := show(t); len(links) != 2 {
		t.Errorf("left over: %v", links)
	}
}

func TestListOnlyOurs(t *testing.T) {
	l := private(t)
	for _, args := range []string{"tuntap add dev nu0123456789a mode tap", "link add nuage0 type veth peer name x1", "link add nc0123456789b type veth peer name x2"} {
		run(t, append([]string{"ip"}, strings.Fields(args)...)...)
	}
	if names, err := l.List(); err != nil || len(names) != 0 {
		t.Errorf("%v %v", names, err)
	}
}

// features reads offloads in the namespace ns, by ethtool's get ioctl.
func features(t *testing.T, ns, name string) (sum, tso uint32) {
	t.Helper()
	h, err := netns.GetFromName(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			if err := netns.Set(h); err != nil {
				return err
			}
			e, err := readFeatures(name)
			sum, tso = e[0], e[1]
			return err
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return
}

func TestOffloadsGoAlongIntoTheContainer(t *testing.T) {
	l := private(t)
	ns := fmt.Sprintf("nuage-link-%d", os.Getpid())
	run(t, "ip", "netns", "add", ns)
	t.Cleanup(func() { run(t, "ip", "netns", "del", ns) })
	for _, offload := range []bool{false, true} {
		s := spec("00000000004")
		s.Offload = offload
		if err := l.Create(context.Background(), s); err != nil {
			t.Fatal(err)
		}
		run(t, "ip", "link", "set", s.Peer, "netns", ns, "name", "eth0", "up")
		want := uint32(0)
		if offload {
			want = 1
		}
		if sum, tso := features(t, ns, "eth0"); sum != want || tso != want {
			t.Errorf("offload %v: checksums %d, TSO %d", offload, sum, tso)
		}
		if err := l.Delete(s.Name); err != nil { // with the peer elsewhere
			t.Fatal(err)
		}
	}
}

// The host's end must not speak: what it sent would enter the tenant's network from a
// port of the tenant, with the host's addresses.
func TestHostEndIsSilent(t *testing.T) {
	l := private(t)
	quiet := spec("00000000005")
	if err := l.Create(context.Background(), quiet); err != nil {
		t.Fatal(err)
	}
	// The control: a pair made the usual way does speak, or the test could not fail.
	run(t, "ip", "link", "add", "loud0", "type", "veth", "peer", "name", "loud1")
	run(t, "ip", "link", "set", "loud0", "up")
	run(t, "ip", "link", "set", quiet.Peer, "addrgenmode", "none")
	run(t, "ip", "link", "set", "loud1", "addrgenmode", "none")
	run(t, "ip", "link", "set", quiet.Peer, "up")
	run(t, "ip", "link", "set", "loud1", "up")
	time.Sleep(2500 * time.Millisecond)
	sent := func(name string) uint64 {
		link, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		return link.Attrs().Statistics.TxPackets
	}
	if sent("loud0") == 0 {
		t.Error("the control sent nothing: this test proves nothing here")
	}
	if n := sent(quiet.Name); n != 0 {
		t.Errorf("the host's end sent %d packets", n)
	}
}

func BenchmarkSteps(b *testing.B) {
	l := private(b)
	s := spec("00000000006")
	var add, up, sum, del time.Duration
	step := func(d *time.Duration, f func() error) {
		start := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		*d += time.Since(start)
	}
	for b.Loop() {
		step(&add, func() error { return l.add(s) })
		step(&up, func() error { return l.up(s.Name) })
		step(&sum, func() error { return l.checksum(s.Peer) })
		step(&del, func() error { return l.delete(s.Name) })
	}
	for name, d := range map[string]time.Duration{"add": add, "up": up, "checksum": sum, "delete": del} {
		b.ReportMetric(float64(d.Microseconds())/float64(b.N), name+"-µs")
	}
}
