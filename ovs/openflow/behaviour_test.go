package openflow_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"nuage/ovs/flow"
	"nuage/ovs/openflow"
)

func drop(table flow.Table, reg uint64) flow.Flow {
	return flow.Flow{Table: table, Priority: 10, Cookie: 7, Match: flow.NewMatch(flow.Eq(flow.Reg0, reg))}
}

func (f *fixture) apply(t testing.TB, d flow.Diff) {
	t.Helper()
	if err := f.Apply(ctxOf(t), d); err != nil {
		t.Fatal(err)
	}
}

// A refused flow is named in the error, and nothing of its bundle has happened.
func TestRefusal(t *testing.T) {
	f := start(t)
	f.ovs.Vsctl("--id=@t", "create", "Flow_Table", "flow_limit=1", "overflow_policy=refuse",
		"--", "set", "bridge", bridge, "flow_tables:5=@t")
	f.apply(t, flow.Diff{Add: []flow.Flow{drop(1, 1), drop(1, 2), drop(5, 1)}})
	before := f.dump()

	with := func(fl flow.Flow, as ...flow.Action) flow.Flow {
		fl.Actions = as
		return fl
	}
	for _, c := range []struct {
		bad  flow.Flow
		name string
	}{
		{with(drop(3, 1), flow.Goto{Table: 2}), "OFPBIC_BAD_TABLE_ID"},
		{with(drop(3, 1), flow.MeterAction{ID: 99}), "OFPMMFC_INVALID_METER"},
		{with(drop(3, 1), flow.SetField{FieldMatch: flow.Eq(flow.TCPDst, 1)}), "OFPBAC_MATCH_INCONSISTENT"},
		{with(drop(3, 1), flow.SetField{FieldMatch: flow.Eq(flow.CTState, 1)}), "OFPBAC_BAD_SET_ARGUMENT"},
		{flow.Flow{Table: 3, Match: flow.NewMatch(flow.Eq(flow.TCPDst, 1))}, "OFPBMC_BAD_PREREQ"},
		{flow.Flow{Table: 3, Match: flow.NewMatch(flow.Eq(flow.CTIPProto, 6))}, "OFPBMC_BAD_PREREQ"},
		{flow.Flow{Table: 3, Match: flow.NewMatch(flow.Eq(flow.CTIPProto, 6), flow.Masked(flow.CTState, flow.CTTrk, flow.CTTrk))}, "OFPBMC_BAD_PREREQ"},
		{with(drop(3, 1), flow.Move{Src: flow.Whole(flow.CTIPv4Src), Dst: flow.Whole(flow.Reg1)}), "OFPBAC_MATCH_INCONSISTENT"},
		{drop(5, 2), "OFPFMFC_TABLE_FULL"}, // found by the commit, not before
	} {
		t.Run(c.name, func(t *testing.T) {
			err := f.Apply(ctxOf(t), flow.Diff{
				Delete: []flow.Flow{drop(1, 1), drop(9, 9)},
				Add:    []flow.Flow{drop(2, 1), c.bad, drop(2, 2)},
			})
			var refused *openflow.Error
			switch {
			case !errors.As(err, &refused):
				t.Fatalf("got %v, want a refusal", err)
			case refused.Name != c.name, refused.Flow == nil, refused.Delete, !refused.Flow.Equal(c.bad):
				t.Errorf("got %v, want %s for %v", err, c.name, c.bad)
			case !strings.Contains(err.Error(), c.bad.String()):
				t.Errorf("the error does not name the flow: %v", err)
			}
			same(t, "after the refusal", f.dump(), before)
		})
	}
	// The connection is as good as before, and no bundle is left open.
	f.apply(t, flow.Diff{Delete: []flow.Flow{drop(1, 1), drop(1, 2), drop(5, 1), drop(77, 7)}})
	same(t, "after deletion", f.dump(), nil)
}

// What cannot be said in OpenFlow is an error before anything is sent.
func TestUnsayable(t *testing.T) {
	f := start(t)
	for name, a := range map[string][]flow.Action{
		"goto first":         {flow.Goto{Table: 9}, flow.DecTTL{}},
		"meter last":         {flow.DecTTL{}, flow.MeterAction{ID: 1}},
		"foreign":            {flow.Foreign{Text: "learn()"}},
		"nil":                {nil},
		"no bits":            {flow.OutputReg{Src: flow.Subfield{Field: flow.Reg0}}},
		"too many bits":      {flow.OutputReg{Src: flow.Bits(flow.Reg0, 1, 32)}},
		"move of unlike":     {flow.Move{Src: flow.Bits(flow.Reg0, 0, 4), Dst: flow.Whole(flow.Reg1)}},
		"length into 2 bits": {flow.CheckLarger{Bytes: 1, Dst: flow.Bits(flow.Reg0, 0, 2)}},
		"message too long":   {flow.Controller{UserData: strings.Repeat("x", 65000)}, flow.Controller{UserData: strings.Repeat("x", 65000)}},
	} {
		fl := drop(1, 1)
		fl.Actions = a
		if err := f.Apply(ctxOf(t), flow.Diff{Add: []flow.Flow{fl}}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	bad := drop(1, 1)
	bad.Cookie = ^uint64(0)
	if err := f.Apply(ctxOf(t), flow.Diff{Add: []flow.Flow{bad}}); err == nil {
		t.Error("reserved cookie: no error")
	}
	for _, c := range []flow.FieldMatch{flow.Eq(flow.CTPortDst, 80), flow.Masked(flow.CTPortSrc, 80, 0xf0), flow.Eq(flow.CTIPProto, 0)} {
		bad := drop(1, 1)
		bad.Match = flow.NewMatch(c, flow.Eq(flow.CTState, flow.CTTrk|flow.CTNew))
		if err := f.Apply(ctxOf(t), flow.Diff{Add: []flow.Flow{bad}}); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
	same(t, "dump", f.dump(), nil)
}

// Flows of others, with what package flow has no words for, are seen, differ from ours
// and can be deleted.
func TestForeignFlows(t *testing.T) {
	f := start(t)
	foreign := []string{
		"table=1,priority=10,reg0=0x1,actions=learn(table=2,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[])",
		"table=1,priority=11,conj_id=7,ip,actions=drop",
		"table=1,priority=12,reg0=1,ip,actions=conjunction(7,1/2)",
		"table=1,priority=13,tun_flags=+oam,actions=write_metadata:0x1/0xff,goto_table:2",
		"table=1,priority=14,mpls,mpls_label=3,actions=pop_mpls:0x0800",
		"table=1,priority=15,tcp,actions=ct(commit,alg=ftp),resubmit(3,)",
		"table=1,priority=16,ip,idle_timeout=50,actions=push_vlan:0x8100,set_field:4097->vlan_vid,output:1",
		"table=1,priority=17,ip,actions=write_actions(output:1)",
		"table=1,priority=18,ip,actions=clone(output:1),note:01.02,multipath(eth_src,50,modulo_n,1,0,NXM_NX_REG0[])",
		"table=1,priority=19,ipv6,ipv6_label=0x5,actions=drop",
		"table=1,priority=20,actions=controller(pause)",
	}
	for _, s := range foreign {
		f.ovs.Ofctl("add-flow", bridge, s)
	}
	got := f.flows(t)
	if len(got) != len(foreign) {
		t.Fatalf("read %d flows of %d", len(got), len(foreign))
	}
	ours := drop(1, 1)
	for _, g := range got {
		if g.Key() == ours.Key() && g.Equal(ours) {
			t.Errorf("%v is taken for %v", g, ours)
		}
	}
	d := flow.NewDiff(flow.NewSet(got...), flow.NewSet(ours))
	if len(d.Add) != 1 || len(d.Delete) != len(foreign)-1 {
		t.Fatalf("diff is %d adds, %d deletes", len(d.Add), len(d.Delete))
	}
	f.apply(t, d)
	same(t, "dump", f.dump(), []string{ours.String()})
}

func TestFilter(t *testing.T) {
	f := start(t)
	var add []flow.Flow
	for i := range uint64(3) {
		fl := drop(flow.Table(i), i)
		fl.Cookie = 0xa0 + i
		add = append(add, fl)
	}
	f.apply(t, flow.Diff{Add: add})
	zero := flow.Table(0)
	for _, c := range []struct {
		filter openflow.Filter
		want   []flow.Flow
	}{
		{openflow.Filter{}, add},
		{openflow.Filter{Table: &zero}, add[:1]},
		{openflow.Filter{Cookie: 0xa1, CookieMask: ^uint64(0)}, add[1:2]},
		{openflow.Filter{Cookie: 0xa0, CookieMask: 0xf1}, []flow.Flow{add[0], add[2]}},
		{openflow.Filter{Cookie: 0xb0, CookieMask: 0xf0}, nil},
	} {
		stats, err := f.Flows(ctxOf(t), c.filter)
		if err != nil {
			t.Fatal(err)
		}
		var got []flow.Flow
		for _, s := range stats {
			got = append(got, s.Flow)
		}
		same(t, fmt.Sprintf("%+v", c.filter), texts(got), texts(c.want))
	}
}

func TestFeatures(t *testing.T) {
	f := start(t)
	got, err := f.Features(ctxOf(t))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Trim(f.ovs.Vsctl("get", "bridge", bridge, "datapath_id"), `"`)
	if s := fmt.Sprintf("%016x", got.DatapathID); s != want || got.Tables < 250 {
		t.Errorf("got %s with %d tables, want %s", s, got.Tables, want)
	}
}

// The switch looks at the ports of a first fragment, as of a whole packet.
func TestFirstFragments(t *testing.T) {
	f := start(t)
	if _, err := f.Listen(ctxOf(t)); err != nil {
		t.Fatal(err)
	}
	match := flow.NewMatch(flow.Eq(flow.EthType, flow.EthIPv4), flow.Eq(flow.IPProto, flow.ProtoUDP), flow.Eq(flow.UDPSrc, 67))
	f.apply(t, flow.Diff{Add: []flow.Flow{{Priority: 5, Match: match, Actions: []flow.Action{flow.Goto{Table: 7}}}}})
	if out := f.ovs.Appctl("ofproto/trace", bridge, "udp,udp_src=67,nw_frag=first"); !strings.Contains(out, "goto_table:7") {
		t.Error(out)
	}
}

// A packet from us meets the flows, is counted, and comes back from a flow that sends it
// to us, with what the flow knows.
func TestPackets(t *testing.T) {
	f := start(t)
	ctx := ctxOf(t)
	events, err := f.Listen(ctx)
	if err != nil {
		t.Fatal(err)
	}
	f.ovs.AddPort(bridge, "p1", 11)
	select {
	case e := <-events:
		p, ok := e.(openflow.PortStatus)
		if !ok || p.Reason != openflow.PortAdded || p.Port != 11 || p.Name != "p1" || p.MAC == (flow.MAC{}) {
			t.Errorf("got %+v", e)
		}
	case <-ctx.Done():
		t.Fatal("no port status")
	}
	in := flow.Flow{Priority: 5, Match: flow.NewMatch(flow.Eq(flow.InPort, 11)),
		Actions: []flow.Action{flow.SetField{FieldMatch: flow.Eq(flow.Reg3, 0x77)}, flow.Goto{Table: 4}}}
	up := flow.Flow{Table: 4, Priority: 5, Cookie: 0xc0ffee,
		Actions: []flow.Action{flow.Controller{MaxLen: 0xffff, UserData: "dhcp\x00\x01"}}}
	f.apply(t, flow.Diff{Add: []flow.Flow{in, up}})

	packet := append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5}, make([]byte, 50)...)
	if err := f.PacketOut(ctx, 11, []flow.Action{flow.Output{Port: flow.PortTable}}, packet); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case e := <-events:
			p, ok := e.(openflow.PacketIn)
			if !ok {
				continue
			}
			reg, _ := p.Metadata.Get(flow.Reg3)
			port, _ := p.Metadata.Get(flow.InPort)
			if string(p.Packet) != string(packet) || p.Table != 4 || p.Cookie != up.Cookie ||
				p.UserData != "dhcp\x00\x01" || reg.Uint() != 0x77 || port.Uint() != 11 {
				t.Errorf("got %+v, metadata %v", p, p.Metadata)
			}
		case <-ctx.Done():
			t.Fatal("no packet in")
		}
		break
	}
	stats := func() flow.Stats {
		all, err := f.Flows(ctx, openflow.Filter{Cookie: up.Cookie, CookieMask: ^uint64(0)})
		if err != nil || len(all) != 1 {
			t.Fatalf("got %v, %v", all, err)
		}
		return all[0]
	}
	for stats().Packets == 0 { // the switch counts with a delay
		if ctx.Err() != nil {
			t.Fatal("the packet is not counted")
		}
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(2 * time.Millisecond)
	if s := stats(); s.Packets != 1 || s.Bytes != uint64(len(packet)) || s.Duration <= 0 || s.Duration > time.Minute {
		t.Errorf("counted %+v", s)
	}
	up.Actions = nil
	f.apply(t, flow.Diff{Add: []flow.Flow{up}})
	if s := stats(); s.Packets != 1 || !s.Equal(up) {
		t.Errorf("after a replacement: %+v", s)
	}
	if err := f.PacketOut(ctx, 11, []flow.Action{flow.OutputReg{}}, packet); err == nil {
		t.Error("an unsayable packet out is no error")
	}
	var refused *openflow.Error
	err = f.PacketOut(ctx, 11, []flow.Action{flow.Output{Port: 65280}}, packet)
	if !errors.As(err, &refused) || refused.Name != "OFPBAC_BAD_OUT_PORT" {
		t.Errorf("packet to a bad port: %v", err)
	}
}

// Many requests at once on one connection do not mix.
func TestConcurrency(t *testing.T) {
	f := start(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for n := range 10 {
				fl := drop(flow.Table(i), uint64(n))
				table := flow.Table(i)
				if err := f.Apply(ctxOf(t), flow.Diff{Add: []flow.Flow{fl}}); err != nil {
					t.Error(err)
				}
				stats, err := f.Flows(ctxOf(t), openflow.Filter{Table: &table})
				if err != nil || len(stats) != n+1 {
					t.Errorf("table %d has %d flows of %d, %v", i, len(stats), n+1, err)
				}
				bad := fl
				bad.Actions = []flow.Action{flow.MeterAction{ID: uint32(100 + i)}}
				var refused *openflow.Error
				if err := f.Apply(ctxOf(t), flow.Diff{Add: []flow.Flow{bad}}); !errors.As(err, &refused) || !refused.Flow.Equal(bad) {
					t.Errorf("got %v, want the refusal of %v", err, bad)
				}
				if err := errors.Join(f.Echo(ctxOf(t)), f.Barrier(ctxOf(t))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(f.dump()); n != 160 {
		t.Errorf("%d flows", n)
	}
}

// The death of ovs-vswitchd is known at once, and every later request says so.
func TestSwitchDies(t *testing.T) {
	f := start(t)
	f.apply(t, flow.Diff{Add: []flow.Flow{drop(1, 1)}})
	f.ovs.KillVswitchd()
	select {
	case <-f.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("not noticed")
	}
	for what, err := range map[string]error{
		"Err":   f.Err(),
		"Apply": f.Apply(ctxOf(t), flow.Diff{Add: []flow.Flow{drop(1, 1)}}),
		"Echo":  f.Echo(ctxOf(t)),
	} {
		if !errors.Is(err, openflow.ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := openflow.Dial(ctxOf(t), f.socket); err == nil {
		t.Error("dialled a dead switch")
	}
	f.ovs.StartVswitchd()
	again := dialRetry(t, f.socket)
	if err := again.Echo(ctxOf(t)); err != nil {
		t.Error(err)
	}
}

func dialRetry(t *testing.T, socket string) *openflow.Conn {
	ctx := ctxOf(t)
	for {
		c, err := openflow.Dial(ctx, socket)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			return c
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A bridge that is told not to speak our version is refused with words.
func TestVersionMismatch(t *testing.T) {
	f := start(t)
	f.ovs.Vsctl("set", "bridge", bridge, "protocols=OpenFlow10,OpenFlow13")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := openflow.Dial(ctx, f.socket)
	if err == nil {
		c.Close()
		t.Fatal("dialled")
	}
	if !strings.Contains(err.Error(), "OpenFlow 1.4") {
		t.Error(err)
	}
}
