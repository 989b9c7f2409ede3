package openflow_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"nuage/ovs/flow"
	"nuage/ovs/openflow"
)

func TestMeters(t *testing.T) {
	f := start(t)
	ctx := ctxOf(t)
	m := openflow.Meter{ID: 3, Rate: 50000, Burst: 25000}
	if err := f.AddMeter(ctx, m); err != nil {
		t.Fatal(err)
	}
	var refused *openflow.Error
	if err := f.AddMeter(ctx, m); !errors.As(err, &refused) || refused.Name != "OFPMMFC_METER_EXISTS" {
		t.Errorf("second add: %v", err)
	}
	user := drop(1, 1)
	user.Actions = []flow.Action{flow.MeterAction{ID: 3}, flow.Goto{Table: 2}}
	f.apply(t, flow.Diff{Add: []flow.Flow{user}})
	m.Rate = 70000
	if err := f.ModifyMeter(ctx, m); err != nil {
		t.Fatal(err)
	}
	packets := openflow.Meter{ID: 9, Rate: 5, Packets: true}
	if err := f.AddMeter(ctx, packets); err != nil {
		t.Fatal(err)
	}
	got, err := f.Meters(ctx)
	if err != nil || len(got) != 2 || got[0] != m && got[1] != m || got[0] != packets && got[1] != packets {
		t.Errorf("meters are %v, %v", got, err)
	}
	one, known, err := f.Meter(ctx, 9)
	if err != nil || !known || one != packets {
		t.Errorf("meter 9 is %v, %v, %v", one, known, err)
	}
	if one, known, err := f.Meter(ctx, 10); known || err != nil {
		t.Errorf("meter 10 is %v, %v", one, err)
	}
	if out := f.ovs.Ofctl("dump-meters", bridge); !strings.Contains(out, "meter=3 kbps burst bands=") || !strings.Contains(out, "rate=70000 burst_size=25000") {
		t.Errorf("ovs-ofctl has %s", out)
	}
	same(t, "flows after modification", f.dump(), []string{user.String()})
	for range 2 {
		if err := f.DeleteMeter(ctx, 3); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	same(t, "flows after deletion", f.dump(), nil)
}

// The meter of the controller bounds what flows send to the agent, from the next change of
// any flow on, and not what they send through a meter of their own.
func TestControllerMeter(t *testing.T) {
	f := start(t)
	ctx := ctxOf(t)
	f.ovs.AddPort(bridge, "p1", 11)
	f.ovs.AddPort(bridge, "p2", 12)
	if err := f.AddMeter(ctx, openflow.Meter{ID: 1, Rate: 1000, Packets: true}); err != nil {
		t.Fatal(err)
	}
	up := func(port uint64, a flow.Controller) flow.Flow {
		return flow.Flow{Match: flow.NewMatch(flow.Eq(flow.InPort, port)), Actions: []flow.Action{a}}
	}
	f.apply(t, flow.Diff{Add: []flow.Flow{up(11, flow.Controller{MaxLen: 100, UserData: "a"}), up(12, flow.Controller{MaxLen: 100, Meter: 1})}})
	const rate, sent = 5, 40
	send := func(port string) {
		t.Helper()
		for range sent {
			f.ovs.Appctl("netdev-dummy/receive", port, "eth(src=50:54:00:00:00:09,dst=50:54:00:00:00:0a),eth_type(0x88b5)")
		}
	}
	events, err := f.Listen(ctx)
	if err != nil {
		t.Fatal(err)
	}
	arrived := func() (n int) {
		for {
			select {
			case e := <-events:
				if _, ok := e.(openflow.PacketIn); ok {
					n++
				}
			case <-time.After(200 * time.Millisecond):
				return n
			}
		}
	}
	send("p1")
	if n := arrived(); n != sent {
		t.Errorf("%d of %d packets arrived without a meter", n, sent)
	}
	if err := f.AddMeter(ctx, openflow.Meter{ID: openflow.ControllerMeter, Rate: rate, Burst: rate, Packets: true}); err != nil {
		t.Fatal(err)
	}
	if m, known, err := f.Meter(ctx, openflow.ControllerMeter); !known || m.Rate != rate || err != nil {
		t.Errorf("the meter is %v, %v", m, err)
	}
	f.apply(t, flow.Diff{Add: []flow.Flow{drop(9, 9)}})
	time.Sleep(100 * time.Millisecond) // the change reaches the cache
	begin := time.Now()
	send("p1")
	most := rate * (2 + int(time.Since(begin).Seconds()))
	if n := arrived(); n < rate || n > most {
		t.Errorf("%d packets arrived, want %d to %d", n, rate, most)
	}
	send("p2")
	if n := arrived(); n != sent {
		t.Errorf("%d of %d packets arrived by a meter of their own", n, sent)
	}
	if err := f.DeleteMeter(ctx, openflow.ControllerMeter); err != nil {
		t.Fatal(err)
	}
	f.apply(t, flow.Diff{Delete: []flow.Flow{drop(9, 9)}})
	time.Sleep(100 * time.Millisecond)
	send("p1")
	if n := arrived(); n != sent {
		t.Errorf("%d of %d packets arrived when the meter was gone", n, sent)
	}
	if n := len(f.dump()); n != 2 {
		t.Errorf("%d flows are left", n)
	}
}

// The meter of the slow path bounds the packets that are answered with another protocol's
// fields, which only ovs-vswitchd itself can do.
func TestSlowpathMeter(t *testing.T) {
	f := start(t)
	ctx := ctxOf(t)
	const rate, sent = 5, 40
	if err := f.AddMeter(ctx, openflow.Meter{ID: openflow.SlowpathMeter, Rate: rate, Burst: rate, Packets: true}); err != nil {
		t.Fatal(err)
	}
	f.ovs.AddPort(bridge, "p1", 11)
	f.apply(t, flow.Diff{Add: []flow.Flow{{Match: flow.NewMatch(flow.Eq(flow.ARPOp, 1)),
		Actions: []flow.Action{flow.SetField{FieldMatch: flow.Eq(flow.ARPOp, 2)}, flow.Output{Port: flow.PortInPort}}}}})
	begin := time.Now()
	for range sent {
		f.ovs.Appctl("netdev-dummy/receive", "p1", "eth(src=50:54:00:00:00:09,dst=50:54:00:00:00:0a),eth_type(0x0806),arp(sip=10.0.0.1,tip=10.0.0.2,op=1,sha=50:54:00:00:00:09,tha=00:00:00:00:00:00)")
	}
	most := 1 + rate*(2+int(time.Since(begin).Seconds())) // the first comes by no meter
	var n int
	_, answered, _ := strings.Cut(f.ovs.Ofctl("dump-ports", bridge, "p1"), "tx pkts=")
	if _, err := fmt.Sscanf(answered, "%d,", &n); err != nil {
		t.Fatal(err)
	}
	if n < 2 || n > most {
		t.Errorf("%d packets were answered, want 2 to %d", n, most)
	}
}
