package openflow_test

import (
	"testing"

	"nuage/ovs/flow"
	"nuage/ovs/openflow"
)

// One vport's twelve flows into a switch that has twelve thousand.
func BenchmarkSwitchVport(b *testing.B) {
	f := start(b)
	all := openflow.VportFlows(12000 + 12)
	f.apply(b, flow.Diff{Add: all[12:]})
	ctx := ctxOf(b)
	add := true
	for b.Loop() {
		d := flow.Diff{Add: all[:12]}
		if !add {
			d = flow.Diff{Delete: all[:12]}
		}
		add = !add
		if err := f.Apply(ctx, d); err != nil {
			b.Fatal(err)
		}
	}
}

// Twelve thousand flows in one bundle, there and away.
func BenchmarkSwitch12000(b *testing.B) {
	f := start(b)
	all := openflow.VportFlows(12000)
	ctx := ctxOf(b)
	for b.Loop() {
		if err := f.Apply(ctx, flow.Diff{Add: all}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		f.apply(b, flow.Diff{Delete: all})
		b.StartTimer()
	}
}

func BenchmarkSwitchRead12000(b *testing.B) {
	f := start(b)
	f.apply(b, flow.Diff{Add: openflow.VportFlows(12000)})
	ctx := ctxOf(b)
	for b.Loop() {
		stats, err := f.Flows(ctx, openflow.Filter{})
		if err != nil || len(stats) != 12000 {
			b.Fatal(len(stats), err)
		}
	}
}

func BenchmarkSwitchBarrier(b *testing.B) {
	f := start(b)
	ctx := ctxOf(b)
	for b.Loop() {
		if err := f.Barrier(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

func TestManyFlows(t *testing.T) {
	f := start(t)
	all := openflow.VportFlows(12000)
	f.apply(t, flow.Diff{Add: all})
	if d := flow.NewDiff(flow.NewSet(f.flows(t)...), flow.NewSet(all...)); !d.Empty() {
		t.Errorf("%d lacking, %d too many", len(d.Add), len(d.Delete))
	}
	f.apply(t, flow.Diff{Delete: all})
	same(t, "after deletion", f.dump(), nil)
}
