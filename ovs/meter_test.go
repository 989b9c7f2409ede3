package ovs

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"nuage/ovs/flow"
	"nuage/ovs/openflow"
	"nuage/ovs/ovstest"
)

// Meters are made, changed in place and deleted, any of it twice and at once, and are gone
// with ovs-vswitchd.
func TestMeters(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o)
	ctx := within(t, limit)
	if err := New(Config{DB: o.DB, Bridge: "alubr0"}).SetMeter(ctx, openflow.Meter{ID: 1, Rate: 1}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("without Run: %v", err)
	}
	attach(t, b, "p1")
	m := openflow.Meter{ID: 7, Rate: 50000, Burst: 25000}
	if err := b.SetMeter(ctx, m); err != nil {
		t.Fatal(err)
	}
	metered := flow.Flow{Table: 60, Priority: 1, Match: flow.NewMatch(flow.Eq(flow.Reg1, 1)), Actions: []flow.Action{flow.MeterAction{ID: 7}}}
	if err := b.Apply(ctx, flow.Diff{Add: []flow.Flow{metered}}); err != nil {
		t.Fatal(err)
	}
	packets := openflow.Meter{ID: openflow.ControllerMeter, Rate: 100, Burst: 20, Packets: true}
	slower := openflow.Meter{ID: 7, Rate: 20000}
	var wg sync.WaitGroup
	for _, m := range []openflow.Meter{slower, packets, slower, packets} {
		wg.Go(func() {
			if err := b.SetMeter(ctx, m); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	all, err := b.Meters(ctx)
	if err != nil || len(all) != 2 || !slices.Contains(all, slower) || !slices.Contains(all, packets) {
		t.Errorf("meters are %v, %v", all, err)
	}
	before := o.Appctl("coverage/read-counter", "dpif_meter_set")
	if err := b.SetMeter(ctx, slower); err != nil {
		t.Error(err)
	}
	if after := o.Appctl("coverage/read-counter", "dpif_meter_set"); after != before || before == "0\n" {
		t.Errorf("the datapath's meters were set %s times, then %s", before, after)
	}
	if got := o.Flows("alubr0"); len(got) != 1 || !strings.Contains(got[0], "meter:7") {
		t.Errorf("flows after a change of the meter: %q", got)
	}
	for id, m := range map[uint32]openflow.Meter{0: {Rate: 1}, 3: {ID: 3}, 0xffffffff: {ID: 0xffffffff, Rate: 1}} {
		if err := b.SetMeter(ctx, m); err == nil {
			t.Errorf("meter %d with rate %d was made", m.ID, m.Rate)
		}
		if err := b.DeleteMeter(ctx, id); err == nil && id != 3 {
			t.Errorf("meter %d was deleted", id)
		}
	}
	for range 2 {
		if err := b.DeleteMeter(ctx, 7); err != nil {
			t.Error(err)
		}
	}
	if got := o.Flows("alubr0"); len(got) != 0 {
		t.Errorf("flows after the deletion of their meter: %q", got)
	}
	epoch := b.Status().Epoch
	o.KillVswitchd()
	soon(t, "the loss of ovs-vswitchd", func() bool { return !b.Status().OpenFlow.Connected })
	if _, err := b.Meters(ctx); !errors.Is(err, ErrUnavailable) {
		t.Errorf("meters without ovs-vswitchd: %v", err)
	}
	o.StartVswitchd()
	soon(t, "a new connection", func() bool { return b.Status().Epoch > epoch })
	if all, err := b.Meters(ctx); err != nil || len(all) != 0 {
		t.Errorf("meters after a restart are %v, %v", all, err)
	}
}
