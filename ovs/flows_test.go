package ovs

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"nuage/ovs/flow"
	"nuage/ovs/openflow"
	"nuage/ovs/ovstest"
)

func flows(n int, cookie uint64) []flow.Flow {
	fs := make([]flow.Flow, n)
	for i := range fs {
		fs[i] = flow.Flow{Table: 3, Priority: 100, Cookie: cookie,
			Match: flow.NewMatch(flow.Eq(flow.InPort, uint64(2000+i))), Actions: []flow.Action{flow.Goto{Table: 4}}}
	}
	return fs
}

// connected waits for an OpenFlow connection newer than an epoch.
func connected(t testing.TB, b *Bridge, epoch uint64) uint64 {
	t.Helper()
	soon(t, "an OpenFlow connection", func() bool {
		s := b.Status()
		return s.OpenFlow.Connected && s.Epoch > epoch
	})
	return b.Status().Epoch
}

func TestFlows(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o)
	connected(t, b, 0)
	ctx := within(t, limit)
	want := append(flows(3, 7), flow.Flow{Table: 9, Priority: 1, Cookie: 8, Match: flow.NewMatch()})
	if err := b.Apply(ctx, flow.Diff{Add: want}); err != nil {
		t.Fatal(err)
	}
	if got := o.Flows("alubr0"); len(got) != 4 {
		t.Errorf("ovs-ofctl sees %q", got)
	}
	seven, nine := uint64(7), flow.Table(9)
	for _, c := range []struct {
		filter FlowFilter
		want   int
	}{{FlowFilter{}, 4}, {FlowFilter{Cookie: &seven}, 3}, {FlowFilter{Table: &nine}, 1}, {FlowFilter{Cookie: &seven, Table: &nine}, 0}} {
		if got, err := b.Flows(ctx, c.filter); err != nil || len(got) != c.want {
			t.Errorf("%+v: %d flows, %v, want %d", c.filter, len(got), err, c.want)
		}
	}
	bad := flow.Flow{Table: 5, Priority: 1, Match: flow.NewMatch(), Actions: []flow.Action{flow.Goto{Table: 1}}}
	err := b.Apply(ctx, flow.Diff{Add: []flow.Flow{want[3], bad}, Delete: want[:3]})
	var refused *openflow.Error
	if !errors.As(err, &refused) || errors.Is(err, ErrUnavailable) {
		t.Errorf("a flow back to table 1: %v", err)
	}
	if got := o.Flows("alubr0"); len(got) != 4 {
		t.Errorf("after a refused bundle ovs-ofctl sees %q", got)
	}
}

// TestEpoch checks that a loss of the flows is a new epoch, with a signal, soon.
func TestEpoch(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o)
	epoch := connected(t, b, 0)
	if err := b.Apply(within(t, limit), flow.Diff{Add: flows(1, 1)}); err != nil {
		t.Fatal(err)
	}
	o.KillVswitchd()
	soon(t, "the loss of the switch", func() bool { return !b.Status().OpenFlow.Connected })
	begin := time.Now()
	if err := b.Apply(within(t, limit), flow.Diff{Add: flows(1, 1)}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Apply without a switch: %v", err)
	}
	if _, err := b.Flows(within(t, limit), FlowFilter{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Flows without a switch: %v", err)
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("it took %v to say so", d)
	}
	<-b.Changed()
	o.StartVswitchd()
	begin = time.Now()
	epoch = connected(t, b, epoch)
	t.Logf("connected again after %v", time.Since(begin))
	select {
	case <-b.Changed():
	case <-time.After(limit):
		t.Error("no signal")
	}
	if got, err := b.Flows(within(t, limit), FlowFilter{}); err != nil || len(got) != 0 {
		t.Errorf("flows %v, %v", got, err)
	}
	// A bridge that is deleted and made again before ovs-vswitchd looks keeps its flows.
	if err := b.Apply(within(t, limit), flow.Diff{Add: flows(1, 1)}); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		o.Vsctl("--if-exists", "del-br", "alubr0")
		attach(t, b, "p1")
		epoch = connected(t, b, 0)
		got, err := b.Flows(within(t, limit), FlowFilter{})
		if kept := epoch == 2; err != nil || len(got) > 0 != kept {
			t.Errorf("epoch %d, flows %v, %v", epoch, got, err)
		}
	}
	if err := b.Apply(within(t, limit), flow.Diff{Delete: flows(1, 1)}); err != nil {
		t.Error(err)
	}
	// ovs-vswitchd answers nobody while ovsdb-server is away, but nothing is lost.
	if err := b.Apply(within(t, limit), flow.Diff{Add: flows(2, 1)}); err != nil {
		t.Error(err)
	}
	o.KillDB()
	o.StartDB()
	attach(t, b, "p2")
	if got, err := b.Flows(within(t, limit), FlowFilter{}); err != nil || len(got) != 2 || b.Status().Epoch != epoch {
		t.Errorf("after a restart of ovsdb-server alone: flows %v, %v, epoch %d, was %d", got, err, b.Status().Epoch, epoch)
	}
	if s := b.Status(); s.Problem != "" || s.Datapath != Netdev {
		t.Errorf("status %+v", s)
	}
}

// TestPortsKeepTheConnection checks that the bridge's datapath ID, and with it the
// OpenFlow connection, does not follow the ports.
func TestPortsKeepTheConnection(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o)
	epoch := connected(t, b, 0)
	for i := range 5 {
		attach(t, b, fmt.Sprintf("p%d", i))
	}
	for i := range 5 {
		if err := b.DeletePort(within(t, limit), fmt.Sprintf("p%d", i)); err != nil {
			t.Error(err)
		}
	}
	if err := b.Apply(within(t, limit), flow.Diff{Add: flows(1, 1)}); err != nil {
		t.Error(err)
	}
	if got := b.Status().Epoch; got != epoch {
		t.Errorf("%d connections instead of %d", got, epoch)
	}
}
