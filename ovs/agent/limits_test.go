package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"

	"nuage/controller/tenant"
	"nuage/ovs"
	"nuage/ovs/flow"
	"nuage/ovs/openflow"
	"nuage/ovs/pipeline"
)

// limiter bounds what a vport sends or receives, in Mbit/s.
func limiter(id string, on tenant.Key, d tenant.Direction, mbit uint64) tenant.Change {
	return change(tenant.KindRateLimiter, id, &tenant.RateLimiter{Meta: tenant.Meta{ID: id}, DomainID: "app1", On: on, Direction: d, Rate: mbit * 1e6})
}

func vportKey(n int) tenant.Key { return tenant.Key{Kind: tenant.KindVport, ID: fmt.Sprintf("v%d", n)} }

// metersWrong compares what ovs-ofctl prints of the meters with the rates of ports.
func (h *host) metersWrong(mbit map[uint32]int) string {
	out, err := h.ovs.Run("ovs-ofctl", "-O", "OpenFlow14", "dump-meters", bridgeName)
	if err != nil {
		return err.Error()
	}
	for n, rate := range mbit {
		want := fmt.Sprintf("meter=%d kbps burst bands=\ntype=drop rate=%d burst_size=%d\n", n, rate*1000, rate*500)
		if !strings.Contains(out, want) {
			return fmt.Sprintf("no %q in %s", want, out)
		}
	}
	if n := strings.Count(out, "meter="); n != len(mbit)+2 || !strings.Contains(out, "meter=131073 pktps burst") || !strings.Contains(out, "meter=controller pktps burst") {
		return fmt.Sprintf("not %d, the domain's and the agent's own: %s", len(mbit), out)
	}
	return ""
}

// A vport is not programmed before its limiter is in; a change of the rate keeps the flow;
// what is not ours goes, what is lost comes back.
func TestMeters(t *testing.T) {
	h := newHost(t)
	a, _ := h.agent(t, 100*time.Millisecond)
	h.feed.Publish(1, append(base(), limiter("l1", tenant.Key{Kind: tenant.KindSubnet, ID: "web"}, tenant.Ingress, 10),
		limiter("l2", vportKey(3), tenant.Ingress, 50))...)
	h.attach(t, a, 2)
	two := h.ports()["nu2"]
	if w := h.metersWrong(map[uint32]int{two: 10}) + h.wrong(); w != "" {
		t.Fatal(w)
	}
	h.attach(t, a, 3)
	three := h.ports()["nu3"]
	if w := h.metersWrong(map[uint32]int{two: 10, three: 50}) + h.wrong(); w != "" {
		t.Fatal(w)
	}
	age := h.limiterAge(t, two)
	h.feed.Publish(h.next(), limiter("l1", tenant.Key{Kind: tenant.KindSubnet, ID: "web"}, tenant.Ingress, 20))
	eventually(t, 5*time.Second, func() string { return h.metersWrong(map[uint32]int{two: 20, three: 50}) })
	if now := h.limiterAge(t, two); now < age {
		t.Errorf("the flow was made anew: its age is %v, was %v", now, age)
	}
	if r := a.Status().Repaired; r != 0 {
		t.Errorf("%d repairs of what is right", r)
	}
	for name, args := range map[string][]string{
		"changed": {"mod-meter", bridgeName, fmt.Sprintf("meter=%d kbps burst band=type=drop rate=1 burst_size=1", two)},
		"missing": {"del-meter", bridgeName, fmt.Sprintf("meter=%d", three)}, // and its flow
		"foreign": {"add-meter", bridgeName, "meter=77 kbps band=type=drop rate=9"},
		"all":     {"del-meters", bridgeName},
	} {
		before := a.Status().Repaired
		h.ovs.Ofctl(args...)
		eventually(t, 5*time.Second, func() string {
			if a.Status().Repaired == before {
				return name + ": the repair is not counted"
			}
			return h.metersWrong(map[uint32]int{two: 20, three: 50}) + h.wrong()
		})
	}
	h.ovs.KillVswitchd()
	h.ovs.StartVswitchd()
	eventually(t, 5*time.Second, func() string { return h.metersWrong(map[uint32]int{two: 20, three: 50}) + h.wrong() })
	h.feed.Publish(h.next(), without(tenant.KindRateLimiter, "l2"))
	eventually(t, 5*time.Second, func() string { return h.metersWrong(map[uint32]int{two: 20, three: 20}) + h.wrong() })
	// What a vport receives passes a meter of its own where ports cannot be shaped.
	h.feed.Publish(h.next(), limiter("l3", tenant.Key{Kind: tenant.KindDomain, ID: "app1"}, tenant.Egress, 30), without(tenant.KindRateLimiter, "l1"))
	eventually(t, 5*time.Second, func() string { return h.metersWrong(map[uint32]int{1<<16 | two: 30, 1<<16 | three: 30}) + h.wrong() })
	h.feed.Publish(h.next(), without(tenant.KindRateLimiter, "l3"))
	eventually(t, 5*time.Second, func() string { return h.metersWrong(nil) + h.wrong() })
}

// limiterAge is how long a port's flow in the limiter's table has been there.
func (h *host) limiterAge(t *testing.T, port uint32) time.Duration {
	t.Helper()
	table := pipeline.TableLimiter
	stats, err := h.bridge.Flows(context.Background(), ovs.FlowFilter{Table: &table})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stats {
		if usedMeter(s.Flow) == port {
			return s.Duration
		}
	}
	t.Fatalf("no flow uses meter %d", port)
	return 0
}

// Every domain with policies has a bound of its own, also after a restart; limits of zones
// that are none of ours stay. In those of ours closed connections are forgotten early.
func TestConntrackLimits(t *testing.T) {
	h := newHost(t)
	limits := func(want ...string) {
		t.Helper()
		eventually(t, 5*time.Second, func() string {
			out, err := h.ovs.Run("ovs-appctl", "dpctl/ct-get-limits")
			var got []string
			for line := range strings.Lines(out) {
				if strings.HasPrefix(line, "zone=") {
					got = append(got, strings.TrimSpace(line))
				}
			}
			if err != nil || strings.Join(got, " ") != strings.Join(want, " ") {
				return fmt.Sprintf("limits are %q, want %q: %v", out, want, err)
			}
			return ""
		})
	}
	brief := func(want ...string) {
		t.Helper()
		eventually(t, 5*time.Second, func() string {
			out, err := h.ovs.Run("ovs-vsctl", "list-zone-tp", h.bridge.Status().Datapath)
			if got := strings.Fields(out); err != nil || !slices.Equal(got, want) {
				return fmt.Sprintf("timeouts are %q, %v", got, err)
			}
			return ""
		})
	}
	a, stop := start(t, Config{Feed: h.feed, Switch: h.bridge, ConntrackLimit: 5000, Readback: 100 * time.Millisecond})
	h.feed.Publish(1, append(base(), domain("app2", 2), subnet("sn2", "app2", "10.0.0.0/16", 200))...)
	h.attach(t, a, 2)
	limits()
	h.feed.Publish(h.next(), policy("pol", "app1", tenant.Ingress, 1))
	limits("zone=1,limit=5000,count=0")
	brief("Zone:1,", "Timeout", "Policies:", "tcp_close=10", "tcp_time_wait=10")
	if _, err := h.ovs.Run("ovs-appctl", "dpctl/ct-set-limits", "zone=1,limit=9", "zone=900,limit=7"); err != nil {
		t.Fatal(err)
	}
	limits("zone=1,limit=5000,count=0", "zone=900,limit=7,count=0")
	h.ovs.KillVswitchd()
	h.ovs.StartVswitchd()
	limits("zone=1,limit=5000,count=0")
	stop()
	_, stop = start(t, Config{Feed: h.feed, Switch: h.bridge, ConntrackLimit: 0})
	limits()
	stop()
	_, _ = start(t, Config{Feed: h.feed, Switch: h.bridge, ConntrackLimit: 6000})
	limits("zone=1,limit=6000,count=0")
	h.feed.Publish(h.next(), without(tenant.KindPolicy, "pol"))
	limits()
	brief()
}

// The order in which a strict switch is changed, and what is left alone when it refuses.
func TestMetersInOrder(t *testing.T) {
	m, feed := newMemory(), tenant.NewFeed()
	m.port("nu7", 7)
	m.port("nu8", 8)
	m.refuseMeter = func(m openflow.Meter) bool { return m.Rate == 13_000 }
	feed.Publish(1, append(base(), vport(7, "nu7"), vport(8, "nu8"), limiter("l7", vportKey(7), tenant.Ingress, 1))...)
	log, lines := logtest.NewNullLogger()
	a, _ := start(t, Config{Feed: feed, Switch: m, Log: log})
	wait := func(n int) error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return a.WaitProgrammed(ctx, fmt.Sprintf("v%d", n))
	}
	right := func() {
		t.Helper()
		eventually(t, 5*time.Second, func() string {
			if err := a.Status().Err; err != nil {
				return err.Error()
			}
			return m.wrong(feed)
		})
	}
	if err := wait(7); err != nil {
		t.Fatal(err)
	}
	feed.Publish(2, limiter("l8", vportKey(8), tenant.Ingress, 13))
	eventually(t, 5*time.Second, func() string {
		if err := a.Status().Refused[vportKey(8)]; err == nil || !strings.Contains(err.Error(), "rate limiter: meter 8: ") {
			return fmt.Sprint(err)
		}
		return ""
	})
	if err := wait(8); err == nil || !strings.Contains(err.Error(), "OFPMMFC_OUT_OF_METERS") {
		t.Errorf("a refused limiter: %v", err)
	}
	m.mu.Lock()
	if n := len(m.flowsOf(vportKey(8))); n == 0 {
		t.Error("a vport whose new limiter is refused lost its flows")
	}
	m.mu.Unlock()
	feed.Publish(3, limiter("l8", vportKey(8), tenant.Ingress, 14))
	if err := wait(8); err != nil {
		t.Error(err)
	}
	right()
	feed.Publish(4, without(tenant.KindVport, "v7"))
	right()
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.gear.meters) != 3 || m.gear.meters[8].Rate != 14_000 {
		t.Errorf("meters are %v", m.gear.meters)
	}
	for _, e := range lines.AllEntries() {
		if e.Level <= logrus.WarnLevel && !strings.Contains(e.Message, "refuses a meter") {
			t.Errorf("log: %s %v", e.Message, e.Data)
		}
	}
}

// A switch without meters for what flows show to the agent gets the flows without.
func TestSwitchWithoutMeters(t *testing.T) {
	m, feed := newMemory(), tenant.NewFeed()
	m.port("nu7", 7)
	m.refuseMeter = func(openflow.Meter) bool { return true }
	feed.Publish(1, append(base(), vport(7, "nu7"))...)
	a, _ := start(t, Config{Feed: feed, Switch: m})
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := a.WaitProgrammed(ctx, "v7"); err != nil {
		t.Fatal(err)
	}
	if s := a.Status(); len(s.Refused) > 0 || s.Err != nil {
		t.Errorf("%+v", s)
	}
}

// flowsOf are the flows of an object. mu is held.
func (m *memory) flowsOf(k tenant.Key) (fs []flow.Flow) {
	for _, f := range m.flows {
		if f.Cookie == pipeline.Cookie(k) {
			fs = append(fs, f)
		}
	}
	return fs
}

// In the kernel's datapath a port is shaped: a vport is not programmed before that, and what
// somebody else does to it is undone.
func TestShapes(t *testing.T) {
	m, feed := newMemory(), tenant.NewFeed()
	m.gear.datapath = ovs.System
	m.port("nu7", 7)
	m.port("nu8", 8)
	feed.Publish(1, append(base(), vport(7, "nu7"), vport(8, "nu8"), limiter("l7", vportKey(7), tenant.Egress, 5))...)
	m.gear.badShape = errors.New("no such queue")
	a, _ := start(t, Config{Feed: feed, Switch: m})
	wait := func(n int, patience time.Duration) string {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return errText(a.WaitProgrammed(ctx, fmt.Sprintf("v%d", n)))
	}
	if got := wait(8, 5*time.Second); got != "" {
		t.Error(got)
	}
	if got := wait(7, 50*time.Millisecond); !strings.Contains(got, "vport web-v7: no such queue") {
		t.Errorf("without its shape: %q", got)
	}
	m.do(func() { m.gear.badShape = nil })
	if got := wait(7, 10*time.Second); got != "" {
		t.Error(got)
	}
	rate := func(want uint64) {
		t.Helper()
		eventually(t, 5*time.Second, func() string {
			if got := m.Ports()["nu7"].Shape.Rate; got != want {
				return fmt.Sprintf("shaped to %d, want %d", got, want)
			}
			return ""
		})
	}
	rate(5_000_000)
	feed.Publish(2, limiter("l7", vportKey(7), tenant.Egress, 9))
	rate(9_000_000)
	m.do(func() { m.ports["nu7"] = ovs.Port{Name: "nu7", OFPort: 7, Confirmed: true, Shape: ovs.Shape{Rate: 8}} })
	rate(9_000_000)
	feed.Publish(3, without(tenant.KindRateLimiter, "l7"))
	rate(0)
	m.mu.Lock()
	defer m.mu.Unlock()
	changes := strings.Join(m.gear.changes, ", ")
	if want := "shape nu7 5000000, shape nu7 9000000, shape nu7 9000000, shape nu7 0"; !strings.HasSuffix(changes, want) {
		t.Errorf("changes: %s", changes)
	}
}

// Conntrack that cannot be bounded is said once, and keeps nobody from being programmed.
func TestConntrackWithoutLimits(t *testing.T) {
	m, feed := newMemory(), tenant.NewFeed()
	m.port("nu7", 7)
	m.gear.badZone = errors.New("Operation not supported")
	feed.Publish(1, append(base(), vport(7, "nu7"), policy("pol", "app1", tenant.Ingress, 1))...)
	log, lines := logtest.NewNullLogger()
	a, _ := start(t, Config{Feed: feed, Switch: m, Log: log, ConntrackLimit: 10, Readback: 5 * time.Millisecond})
	time.Sleep(100 * time.Millisecond)
	eventually(t, 5*time.Second, func() string { return errText(a.Status().Err) + m.wrong(feed) })
	said := 0
	for _, e := range lines.AllEntries() {
		if e.Message == "the connections of domains are not bounded" {
			said++
		}
	}
	if said != 1 {
		t.Errorf("said %d times", said)
	}
	m.do(func() { m.gear.badZone = nil })
	eventually(t, 5*time.Second, func() string {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.gear.zones[1] != 10 {
			return fmt.Sprint(m.gear.zones)
		}
		return ""
	})
}
