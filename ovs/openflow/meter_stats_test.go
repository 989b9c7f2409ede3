package openflow_test

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	"nuage/ovs/flow"
	"nuage/ovs/openflow"
)

// What a meter dropped is what ovs-ofctl says that it dropped, and is gone with a change.
func TestMeterStats(t *testing.T) {
	f := start(t)
	ctx := ctxOf(t)
	f.ovs.AddPort(bridge, "p1", 11)
	idle, m := openflow.Meter{ID: 3, Rate: 50000}, openflow.Meter{ID: 70000, Rate: 1, Burst: 2, Packets: true}
	for _, m := range []openflow.Meter{idle, m} {
		if err := f.AddMeter(ctx, m); err != nil {
			t.Fatal(err)
		}
	}
	f.apply(t, flow.Diff{Add: []flow.Flow{{Actions: []flow.Action{flow.MeterAction{ID: m.ID}, flow.Output{Port: 12}}}}})
	for range 30 {
		f.ovs.Appctl("netdev-dummy/receive", "p1", "eth(src=50:54:00:00:00:09,dst=50:54:00:00:00:0a),eth_type(0x88b5)")
	}
	var got []openflow.MeterStats
	for limit := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var err error
		if got, err = f.MeterStats(ctx); err != nil {
			t.Fatal(err)
		}
		if len(got) == 2 && got[0].Packets+got[1].Packets >= 20 || time.Now().After(limit) {
			break
		}
	}
	for _, s := range got {
		out := f.ovs.Ofctl("meter-stats", bridge, fmt.Sprintf("meter=%d", s.ID))
		band := regexp.MustCompile(`0: packet_count:(\d+) byte_count:(\d+)`).FindStringSubmatch(out)
		if band == nil || fmt.Sprint(s.Packets) != band[1] || fmt.Sprint(s.Bytes) != band[2] || (s.Packets > 0) != (s.ID == m.ID) {
			t.Errorf("%+v, ovs-ofctl: %s", s, out)
		}
	}
	m.Rate = 2
	if err := f.ModifyMeter(ctx, m); err != nil {
		t.Fatal(err)
	}
	got, err := f.MeterStats(ctx)
	if err != nil || len(got) != 2 || got[0].Packets+got[1].Packets != 0 {
		t.Errorf("after a change: %+v, %v", got, err)
	}
}
