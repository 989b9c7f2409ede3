package openflow_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nuage/ovs/flow"
	"nuage/ovs/openflow"
	"nuage/ovs/ovstest"
)

const bridge = "br0"

// A fixture is a private switch with one bridge and a connection to it.
type fixture struct {
	*openflow.Conn
	t      testing.TB
	ovs    *ovstest.OVS
	socket string
}

func start(t testing.TB, opts ...ovstest.Option) *fixture {
	t.Helper()
	o := ovstest.Start(t, opts...)
	socket := o.AddBridge(bridge)
	return &fixture{dial(t, socket), t, o, socket}
}

func dial(t testing.TB, socket string) *openflow.Conn {
	t.Helper()
	c, err := openflow.Dial(ctxOf(t), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func meter(id uint32) openflow.Meter { return openflow.Meter{ID: id, Rate: 10000, Burst: 5000} }

func ctxOf(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// dump is what ovs-ofctl prints of the bridge's flows, sorted.
func (f *fixture) dump() []string {
	var lines []string
	for line := range strings.Lines(f.ovs.Ofctl("--no-stats", "--no-names", "dump-flows", bridge)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

// read is what we print of the bridge's flows, sorted.
func (f *fixture) read(t testing.TB) []string {
	t.Helper()
	return texts(f.flows(t))
}

func (f *fixture) flows(t testing.TB) []flow.Flow {
	t.Helper()
	stats, err := f.Flows(ctxOf(t), openflow.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	flows := make([]flow.Flow, len(stats))
	for i, s := range stats {
		flows[i] = s.Flow
	}
	return flows
}

func texts(flows []flow.Flow) []string {
	lines := make([]string, len(flows))
	for i, f := range flows {
		lines[i] = f.String()
	}
	slices.Sort(lines)
	return lines
}

func same(t testing.TB, what string, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	t.Errorf("%s: %d lines, want %d", what, len(got), len(want))
	for _, l := range got {
		if !slices.Contains(want, l) {
			t.Errorf("+ %s", l)
		}
	}
	for _, l := range want {
		if !slices.Contains(got, l) {
			t.Errorf("- %s", l)
		}
	}
}

func testFlows(t testing.TB) string {
	t.Helper()
	path, err := filepath.Abs("testdata/flows.txt")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// What ovs-ofctl writes, we read and print as ovs-ofctl does; and what we then write of
// it, ovs-ofctl prints the same again.
func TestFlowsOfOfctl(t *testing.T) {
	f := start(t)
	f.ovs.Ofctl("add-flows", bridge, testFlows(t))
	want := f.dump()
	text, err := os.ReadFile(testFlows(t))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			n++
		}
	}
	if len(want) != n {
		t.Fatalf("the switch has %d flows of %d", len(want), n)
	}
	same(t, "read", f.read(t), want)

	var ours []flow.Flow
	for _, fl := range f.flows(t) {
		if fl.Foreign == "" && !strings.Contains(fl.String(), "foreign") {
			ours = append(ours, fl)
		}
	}
	if len(ours) < len(want)-1 {
		t.Errorf("only %d of %d flows are without foreign parts", len(ours), len(want))
	}
	f.ovs.Ofctl("del-flows", bridge)
	if err := f.Apply(ctxOf(t), flow.Diff{Add: ours}); err != nil {
		t.Fatal(err)
	}
	same(t, "dump of what we wrote", f.dump(), texts(ours))
	if d := flow.NewDiff(flow.NewSet(f.flows(t)...), flow.NewSet(ours...)); !d.Empty() {
		t.Errorf("what we read is not what we wrote: %v", d)
	}
	if err := f.Apply(ctxOf(t), flow.Diff{Delete: ours}); err != nil {
		t.Fatal(err)
	}
	same(t, "dump after deletion", f.dump(), nil)
}
