package pipeline

import (
	"context"
	"slices"
	"testing"
	"time"

	"nuage/controller/tenant"
	"nuage/ovs/flow"
	"nuage/ovs/openflow"
	"nuage/ovs/ovstest"
)

// dial is a connection to the bridge of an empty switch.
func dial(t *testing.T) (*openflow.Conn, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	conn, err := openflow.Dial(ctx, ovstest.Start(t).AddBridge(bridge))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, ctx
}

// mustBe fails unless the switch has exactly these flows.
func mustBe(t *testing.T, ctx context.Context, conn *openflow.Conn, want flow.Set) {
	t.Helper()
	stats, err := conn.Flows(ctx, openflow.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	have := flow.Set{}
	for _, s := range stats {
		have.Put(s.Flow)
	}
	if d := flow.NewDiff(have, want); !d.Empty() {
		t.Fatalf("the switch lacks %d flows and has %d others: %v, %v", len(d.Add), len(d.Delete), d.Add[:min(3, len(d.Add))], d.Delete[:min(3, len(d.Delete))])
	}
}

// The switch takes the flows of all kinds of entry, and says of them what was said to it: or
// the agent would repair them for ever.
func TestSwitchKeepsPolicies(t *testing.T) {
	conn, ctx := dial(t)
	c := compiled(policed())
	for id, l := range c.Meters() {
		if err := conn.AddMeter(ctx, openflow.Meter{ID: id, Rate: uint32(l.Rate / 1000), Burst: uint32(l.Burst / 1000)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Apply(ctx, flow.NewDiff(nil, c.Flows())); err != nil {
		t.Fatal(err)
	}
	mustBe(t, ctx, conn, c.Flows())
}

// 10,000 entries and 5,000 members are compiled within a second, and a change of one entry is
// on the switch within 50 ms. The best of several counts: the machine does other things.
func TestPolicyAtSize(t *testing.T) {
	w := manyEntries(5000, 10000)
	full := time.Hour
	var c *Compiler
	for range 3 {
		start := time.Now()
		c = compiled(w)
		full = min(full, time.Since(start))
	}
	conn, ctx := dial(t)
	start := time.Now()
	if err := conn.Apply(ctx, flow.NewDiff(nil, c.Flows())); err != nil {
		t.Fatal(err)
	}
	load := time.Since(start)
	known := flow.Set{}
	for id, f := range c.Flows() {
		known[id] = f
	}
	var times []time.Duration
	for i := range 20 {
		start := time.Now()
		var d flow.Diff
		for _, id := range c.Update(w.state, []tenant.Key{editEntry(w, i)}) {
			if f, ok := c.Flows()[id]; ok {
				d.Add = append(d.Add, f)
				known[id] = f
			} else {
				d.Delete = append(d.Delete, known[id])
				delete(known, id)
			}
		}
		if err := conn.Apply(ctx, d); err != nil {
			t.Fatal(err)
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	t.Logf("%d flows: compiled in %v, loaded in %v; one entry's change in %v (median of %d, at most %v)",
		len(c.Flows()), full, load, times[len(times)/2], len(times), times[len(times)-1])
	if full > time.Second && !raceDetector || times[len(times)/2] > 50*time.Millisecond {
		t.Errorf("too slow")
	}
	mustBe(t, ctx, conn, c.Flows())
}
