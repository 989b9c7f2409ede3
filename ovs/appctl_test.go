package ovs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nuage/ovs/ovstest"
)

// What ovs-appctl prints is what Appctl returns, refusals included.
func TestAppctl(t *testing.T) {
	o := ovstest.Start(t)
	b := New(Config{DB: o.DB, Bridge: "alubr0"}) // it needs no Run
	ctx := within(t, limit)
	for _, command := range [][]string{{"version"}, {"list-commands"}, {"bond/list"}, {"dpif/show"}} {
		if out, err := b.Appctl(ctx, command[0], command[1:]...); err != nil || out != o.Appctl(command...) {
			t.Errorf("%q: %q, %v", command, out, err)
		}
	}
	for command, want := range map[string]string{
		"no/such": `"no/such" is not a valid command`, "qos/show": `"qos/show" command requires at least 1 arguments`,
	} {
		_, err := b.Appctl(ctx, command)
		if err == nil || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "ovs-vswitchd: "+command+": ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", command, err)
		}
	}
	if _, err := b.Appctl(ctx, "qos/show", "no\n\"such"); err == nil || !strings.Contains(err.Error(), "no such interface") {
		t.Errorf("a strange argument: %v", err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if out, err := b.Appctl(ctx, "version"); err != nil || !strings.Contains(out, "Open vSwitch") {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
	wg.Wait()
}

// ovs-vswitchd that is gone, hangs or talks nonsense is ErrUnavailable, in time.
func TestAppctlUnavailable(t *testing.T) {
	o := ovstest.Start(t)
	b := New(Config{DB: o.DB, Bridge: "alubr0"})
	fails := func(what, words string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := b.Appctl(ctx, "version"); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), words) || time.Since(begin) > 5*time.Second {
			t.Errorf("%s: after %v: %v", what, time.Since(begin), err)
		}
	}
	o.SignalVswitchd(syscall.SIGSTOP)
	fails("hangs", "no answer in time")
	o.SignalVswitchd(syscall.SIGCONT)
	o.KillVswitchd()
	fails("killed", "start openvswitch-switch")
	if err := os.Remove(filepath.Join(o.RunDir, "ovs-vswitchd.pid")); err != nil {
		t.Fatal(err)
	}
	fails("no pid file", "start openvswitch-switch")
	for _, answer := range []string{"", `{"result": "ab`, "nonsense"} {
		l, err := net.Listen("unix", filepath.Join(o.RunDir, "ovs-vswitchd.77.ctl"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(o.RunDir, "ovs-vswitchd.pid"), []byte("77\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		go func() {
			c, err := l.Accept()
			if err == nil {
				c.Read(make([]byte, 100))
				c.Write([]byte(answer))
				c.Close()
			}
		}()
		fails(answer, "was lost")
		l.Close()
	}
	if err := os.WriteFile(filepath.Join(o.RunDir, "ovs-vswitchd.pid"), []byte("../x"), 0o600); err != nil {
		t.Fatal(err)
	}
	fails("strange pid file", "no process number")
}

func TestTrace(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o)
	attach(t, b, "p1")
	ctx := within(t, limit)
	o.Ofctl("add-flow", "alubr0", "table=0,ip,actions=ct(table=10,zone=5)")
	o.Ofctl("add-flow", "alubr0", "table=10,ct_state=+est+trk,ip,actions=LOCAL")
	o.Ofctl("add-flow", "alubr0", "table=10,ct_state=+new+trk,ip,actions=set_field:7->reg3")
	for _, c := range []struct {
		states []string
		want   string
	}{{nil, "reg3=0x7"}, {[]string{"trk,est"}, "LOCAL"}} {
		if out, err := b.Trace(ctx, "in_port=p1,ip", c.states...); err != nil || !strings.Contains(out, c.want) {
			t.Errorf("%q: %v, %s", c.states, err, out)
		}
	}
	for _, packet := range []string{"in_port=1,no_such=3", "--consistent"} {
		if out, err := b.Trace(ctx, packet); err == nil {
			t.Errorf("%q: %s", packet, out)
		}
	}
}

func TestConntrackLimits(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o)
	ctx := within(t, limit)
	if err := New(Config{DB: o.DB, Bridge: "alubr0"}).SetConntrackLimit(ctx, 1, 1); !errors.Is(err, ErrUnavailable) {
		t.Errorf("without a bridge: %v", err)
	}
	attach(t, b, "p1")
	for _, set := range []struct {
		zone  uint16
		limit uint32
	}{{5, 10}, {65535, 4294967295}, {7, 3}, {7, 0}, {7, 0}, {5, 20}, {5, 20}} {
		if err := b.SetConntrackLimit(ctx, set.zone, set.limit); err != nil {
			t.Fatal(err)
		}
	}
	want := map[uint16]ConntrackLimit{5: {Limit: 20}, 65535: {Limit: 4294967295}}
	if got, err := b.ConntrackLimits(ctx); err != nil || !maps.Equal(got, want) {
		t.Errorf("limits are %v, %v", got, err)
	}
	if out := o.Appctl("dpctl/ct-get-limits", "zone=5"); !strings.Contains(out, "zone=5,limit=20,count=0") {
		t.Errorf("ovs-appctl says %s", out)
	}
	if _, err := parseLimits("zone=x,limit=1"); err == nil {
		t.Error("nonsense was parsed")
	}
}

// A zone at its limit commits no further connection until some end, and other zones do.
func TestConntrackLimitHolds(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o)
	attach(t, b, "p1")
	ctx := within(t, limit)
	o.Ofctl("add-flow", "alubr0", "udp,tp_dst=1,actions=ct(commit,zone=5)")
	o.Ofctl("add-flow", "alubr0", "udp,tp_dst=2,actions=ct(commit,zone=6)")
	for zone, most := range map[uint16]uint32{5: 3, 6: 100} {
		if err := b.SetConntrackLimit(ctx, zone, most); err != nil {
			t.Fatal(err)
		}
	}
	send := func() {
		for _, to := range []int{1, 2} {
			for from := range 6 {
				packet := fmt.Sprintf("eth(src=50:54:00:00:00:09,dst=50:54:00:00:00:0a),eth_type(0x0800),"+
					"ipv4(src=192.168.0.1,dst=192.168.0.2,proto=17,tos=0,ttl=64,frag=no),udp(src=%d,dst=%d)", 100+from, to)
				if _, err := b.Appctl(ctx, "netdev-dummy/receive", "p1", packet); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	counts := func(limit, five, six uint32) {
		t.Helper()
		send()
		want := map[uint16]ConntrackLimit{5: {limit, five}, 6: {100, six}}
		if got, err := b.ConntrackLimits(ctx); err != nil || !maps.Equal(got, want) {
			t.Errorf("limits and counts are %v, %v; want %v", got, err, want)
		}
	}
	counts(3, 3, 6)
	if err := b.SetConntrackLimit(ctx, 5, 5); err != nil { // raised in place
		t.Fatal(err)
	}
	counts(5, 5, 6)
	o.Appctl("dpctl/flush-conntrack", "zone=5")
	counts(5, 5, 6)
	if err := b.SetConntrackLimit(ctx, 5, 0); err != nil {
		t.Fatal(err)
	}
	send()
	if n := strings.Count(o.Appctl("dpctl/dump-conntrack", "zone=5"), "zone=5"); n != 6 {
		t.Errorf("%d connections without a limit", n)
	}
}
