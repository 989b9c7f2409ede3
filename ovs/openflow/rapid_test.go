package openflow_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"nuage/ovs/flow"
)

// Any flow that package flow can say goes to the switch and comes back the same, and
// ovs-ofctl prints it as Flow.String does.
func TestRoundTrip(t *testing.T) {
	f := start(t)
	for id := range uint32(3) {
		if err := f.AddMeter(ctxOf(t), meter(id+1)); err != nil {
			t.Fatal(err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		if err := f.Apply(ctxOf(f.t), flow.Diff{Delete: f.flows(f.t)}); err != nil {
			t.Fatal(err)
		}
		drawn := rapid.SliceOfN(rapid.Custom(drawFlow), 1, 20).Draw(t, "flows")
		f.turnInto(t, flow.NewSet(drawn...))
		// Keep some, change some, drop some.
		next := flow.NewSet(rapid.SliceOfN(rapid.Custom(drawFlow), 0, 5).Draw(t, "more")...)
		for i, fl := range drawn {
			if i%3 > 0 {
				fl.Cookie += uint64(i % 2)
				next.Put(fl)
			}
		}
		f.turnInto(t, next)
	})
}

// turnInto applies the difference to what is there, and checks the outcome.
func (f *fixture) turnInto(t *rapid.T, desired flow.Set) {
	if err := f.Apply(ctxOf(f.t), flow.NewDiff(flow.NewSet(f.flows(f.t)...), desired)); err != nil {
		t.Fatal(err)
	}
	if d := flow.NewDiff(flow.NewSet(f.flows(f.t)...), desired); !d.Empty() {
		t.Fatalf("the switch has\n%v\nand lacks\n%v", d.Delete, d.Add)
	}
	if got, want := f.dump(), texts(desired.Sorted()); !slices.Equal(got, want) {
		t.Fatalf("ovs-ofctl prints\n%s\nand we\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// protocols are the packets that flows are drawn for, with the fields they have.
var protocols = []struct {
	match   []flow.FieldMatch
	fields  []flow.Field
	actions []flow.Field // that can be set besides
}{
	{nil, nil, nil},
	{eq(flow.EthType, flow.EthARP), []flow.Field{flow.ARPOp, flow.ARPSPA, flow.ARPTPA, flow.ARPSHA, flow.ARPTHA}, nil},
	{eq(flow.EthType, flow.EthIPv4), ip4, nil},
	{eq(flow.EthType, flow.EthIPv6), ip6, nil},
	{l4(flow.EthIPv4, flow.ProtoTCP), append(ip4, flow.TCPSrc, flow.TCPDst, flow.TCPFlags), nil},
	{l4(flow.EthIPv6, flow.ProtoTCP), append(ip6, flow.TCPSrc, flow.TCPDst, flow.TCPFlags), nil},
	{l4(flow.EthIPv4, flow.ProtoUDP), append(ip4, flow.UDPSrc, flow.UDPDst), nil},
	{l4(flow.EthIPv6, flow.ProtoSCTP), append(ip6, flow.SCTPSrc, flow.SCTPDst), nil},
	{l4(flow.EthIPv4, flow.ProtoICMP), append(ip4, flow.ICMPType, flow.ICMPCode), nil},
	{l4(flow.EthIPv6, flow.ProtoICMPv6), append(ip6, flow.ICMPv6Type, flow.ICMPv6Code), nil},
	{append(eq(flow.ICMPv6Type, 135), eq(flow.ICMPv6Code, 0)...), append(ip6, flow.NDTarget, flow.NDSLL), []flow.Field{flow.NDReserved, flow.NDOptionsType}},
	{append(eq(flow.ICMPv6Type, 136), eq(flow.ICMPv6Code, 0)...), append(ip6, flow.NDTarget, flow.NDTLL), []flow.Field{flow.NDReserved}},
}

var (
	ip4 = []flow.Field{flow.IPv4Src, flow.IPv4Dst, flow.IPDSCP, flow.IPECN, flow.IPTTL, flow.IPFrag}[:6:6]
	ip6 = []flow.Field{flow.IPv6Src, flow.IPv6Dst, flow.IPDSCP, flow.IPECN, flow.IPTTL, flow.IPFrag}[:6:6]

	always = []flow.Field{flow.PktMark, flow.CTState, flow.CTZone, flow.CTMark, flow.CTLabel, flow.Reg0, flow.Reg3,
		flow.Reg7, flow.Reg15, flow.TunID, flow.TunSrc, flow.TunDst, flow.Metadata, flow.InPort, flow.EthSrc, flow.EthDst}
	// whole are the fields that cannot be masked.
	whole = []flow.Field{flow.CTZone, flow.InPort, flow.ARPOp, flow.IPDSCP, flow.IPECN, flow.IPTTL, flow.ICMPType,
		flow.ICMPCode, flow.ICMPv6Type, flow.ICMPv6Code, flow.NDReserved, flow.NDOptionsType}
	readOnly = []flow.Field{flow.CTState, flow.CTZone, flow.CTMark, flow.CTLabel, flow.InPort, flow.IPFrag, flow.TCPFlags}
)

func eq(f flow.Field, v uint64) []flow.FieldMatch { return []flow.FieldMatch{flow.Eq(f, v)} }

func l4(eth, proto uint64) []flow.FieldMatch {
	return []flow.FieldMatch{flow.Eq(flow.EthType, eth), flow.Eq(flow.IPProto, proto)}
}

func drawFlow(t *rapid.T) flow.Flow {
	p := rapid.SampledFrom(protocols).Draw(t, "protocol")
	fixed := map[flow.Field]bool{}
	conds, moves := drawTuple(t, slices.Clone(p.match))
	for _, c := range conds {
		fixed[c.Field] = true
	}
	for _, field := range rapid.SliceOfNDistinct(rapid.SampledFrom(append(always[:len(always):len(always)], p.fields...)), 0, 6, rapid.ID).Draw(t, "fields") {
		if !fixed[field] {
			conds = append(conds, drawValue(t, field, true))
		}
	}
	settable := []flow.Field{flow.Reg0, flow.Reg1, flow.XXReg1, flow.TunID, flow.TunDst, flow.TunSrc, flow.Metadata, flow.EthSrc, flow.EthDst, flow.PktMark}
	for _, field := range append(p.fields, p.actions...) {
		if !slices.Contains(readOnly, field) && field != flow.ICMPv6Type && field != flow.ICMPv6Code {
			settable = append(settable, field)
		}
	}
	f := flow.Flow{
		Table:    flow.Table(rapid.IntRange(0, 200).Draw(t, "table")),
		Priority: rapid.Uint16().Draw(t, "priority"),
		Cookie:   rapid.Uint64Range(0, 1<<63).Draw(t, "cookie"),
		Match:    flow.NewMatch(conds...),
	}
	if rapid.IntRange(0, 3).Draw(t, "metered") == 0 {
		f.Actions = append(f.Actions, flow.MeterAction{ID: rapid.Uint32Range(1, 3).Draw(t, "meter")})
	}
	eth, _ := f.Match.Get(flow.EthType)
	isIP := eth.Uint() == flow.EthIPv4 || eth.Uint() == flow.EthIPv6
	for range rapid.IntRange(0, 5).Draw(t, "actions") {
		f.Actions = append(f.Actions, drawAction(t, settable, isIP, eth.Uint() == flow.EthIPv6))
	}
	f.Actions = append(f.Actions, moves...)
	if rapid.Bool().Draw(t, "goto") {
		f.Actions = append(f.Actions, flow.Goto{Table: f.Table + 1 + flow.Table(rapid.IntRange(0, 20).Draw(t, "ahead"))})
	}
	return f
}

// drawTuple adds conditions on the tuple by which conntrack knows a connection, as the
// switch has them: of a packet that it takes for valid, addresses of an IPv4 packet, ports
// with the protocol. With them come actions that read the tuple.
func drawTuple(t *rapid.T, conds []flow.FieldMatch) ([]flow.FieldMatch, []flow.Action) {
	if rapid.IntRange(0, 2).Draw(t, "tracked") > 0 {
		return conds, nil
	}
	conds = append(conds, rapid.SampledFrom([]flow.FieldMatch{
		flow.Masked(flow.CTState, flow.CTTrk|flow.CTNew, flow.CTTrk|flow.CTNew|flow.CTEst), flow.Masked(flow.CTState, flow.CTTrk, flow.CTTrk|flow.CTInv),
		flow.Masked(flow.CTState, flow.CTTrk|flow.CTRpl, flow.CTTrk|flow.CTRpl), flow.Eq(flow.CTState, flow.CTTrk|flow.CTEst),
	}).Draw(t, "valid"))
	fields := []flow.Field{flow.CTIPProto}
	if slices.Contains(conds, flow.Eq(flow.EthType, flow.EthIPv4)) {
		fields = append(fields, flow.CTIPv4Src, flow.CTIPv4Dst)
	}
	var moves []flow.Action
	for _, f := range rapid.SliceOfNDistinct(rapid.SampledFrom(append(fields, flow.CTPortSrc, flow.CTPortDst)), 0, 3, rapid.ID).Draw(t, "moves") {
		moves = append(moves, flow.Move{Src: flow.Whole(f), Dst: flow.Bits(flow.Reg9, 0, f.Bits())})
	}
	if rapid.Bool().Draw(t, "ports") {
		conds = append(conds, flow.Eq(flow.CTIPProto, rapid.Uint64Range(1, 255).Draw(t, "ct protocol")))
		fields = append(fields[1:], flow.CTPortSrc, flow.CTPortDst)
	} else {
		fields = fields[1:]
	}
	if len(fields) == 0 {
		return conds, moves
	}
	for _, f := range rapid.SliceOfNDistinct(rapid.SampledFrom(fields), 0, 4, rapid.ID).Draw(t, "tuple") {
		conds = append(conds, drawValue(t, f, true))
	}
	return conds, moves
}

// drawValue is a condition on a field, or a value to set.
func drawValue(t *rapid.T, f flow.Field, match bool) flow.FieldMatch {
	c := flow.FieldMatch{Field: f, Mask: f.Ones()}
	v := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "value")
	masked := !slices.Contains(whole, f) && rapid.IntRange(0, 2).Draw(t, "masked") == 0
	switch f {
	case flow.InPort:
		return flow.Eq(f, rapid.SampledFrom([]uint64{1, 7, 65279, uint64(flow.PortLocal)}).Draw(t, "port"))
	case flow.ARPOp:
		return flow.Eq(f, rapid.Uint64Range(0, 255).Draw(t, "op"))
	case flow.IPFrag: // not later: such a packet has no ports
		return rapid.SampledFrom([]flow.FieldMatch{flow.Eq(f, 0), flow.Eq(f, 1), flow.Masked(f, 1, 1), flow.Masked(f, 0, 2)}).Draw(t, "frag")
	case flow.CTState: // only what the switch takes for consistent
		return rapid.SampledFrom([]flow.FieldMatch{flow.Masked(f, flow.CTTrk|flow.CTNew, flow.CTTrk|flow.CTNew|flow.CTEst),
			flow.Masked(f, 0, flow.CTTrk), flow.Eq(f, 0), flow.Eq(f, flow.CTTrk|flow.CTEst|flow.CTRpl), flow.Masked(f, flow.CTTrk|flow.CTSNAT, flow.CTTrk|flow.CTSNAT|flow.CTDNAT)}).Draw(t, "state")
	case flow.TunSrc, flow.TunDst:
		masked = masked && match
	}
	if masked {
		m := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "mask")
		prefix := rapid.IntRange(0, 128).Draw(t, "prefix")
		for i := range c.Mask {
			if prefix > 64 { // else any bits
				m[i] = ^byte(0xff >> min(8, max(0, prefix-8*i)))
			}
			c.Mask[i] &= m[i]
		}
		if c.Mask == (flow.Bytes{}) {
			c.Mask[15] = 1
		}
	}
	for i := range c.Value {
		c.Value[i] = v[i] & c.Mask[i]
	}
	return c
}

func drawAction(t *rapid.T, settable []flow.Field, isIP, isIPv6 bool) flow.Action {
	kinds := 10
	if isIP {
		kinds = 13
	}
	switch rapid.IntRange(0, kinds).Draw(t, "action") {
	case 0:
		return flow.Output{Port: rapid.SampledFrom([]uint32{1, 11, 65279, flow.PortInPort, flow.PortLocal, flow.PortNormal, flow.PortAll, flow.PortFlood}).Draw(t, "port")}
	case 1:
		return flow.OutputReg{Src: drawSubfield(t, 1, 32)}
	case 2:
		width := rapid.Uint16Range(1, 32).Draw(t, "width")
		return flow.Move{Src: drawSubfield(t, width, width), Dst: drawSubfield(t, width, width)}
	case 3:
		return flow.Resubmit{Table: flow.Table(rapid.IntRange(0, 253).Draw(t, "resubmit"))}
	case 4:
		return flow.Controller{
			MaxLen:   rapid.Uint16().Draw(t, "max"),
			ID:       rapid.Uint16Range(0, 3).Draw(t, "id"),
			Meter:    rapid.Uint32Range(0, 3).Draw(t, "meter"),
			UserData: string(rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "data")),
		}
	case 5:
		dst := drawSubfield(t, 1, 32)
		return flow.Load{Dst: dst, Value: rapid.Uint64Range(0, 1<<dst.Width-1).Draw(t, "load")}
	case 6, 7, 8, 9:
		return flow.SetField{FieldMatch: drawValue(t, rapid.SampledFrom(settable).Draw(t, "set"), false)}
	case 10:
		return flow.CheckLarger{Bytes: rapid.Uint16().Draw(t, "bytes"), Dst: drawSubfield(t, 1, 1)}
	case 11:
		return flow.DecTTL{}
	case 12:
		return flow.CTClear{}
	}
	return drawCT(t, isIPv6)
}

func drawSubfield(t *rapid.T, least, most uint16) flow.Subfield {
	f := rapid.SampledFrom([]flow.Field{flow.Reg0, flow.Reg9, flow.TunID, flow.Metadata, flow.XXReg2}).Draw(t, "field")
	width := rapid.Uint16Range(least, most).Draw(t, "bits")
	return flow.Bits(f, rapid.Uint16Range(0, f.Bits()-width).Draw(t, "offset"), width)
}

func drawCT(t *rapid.T, isIPv6 bool) flow.Action {
	a := flow.CT{Commit: rapid.Bool().Draw(t, "commit"), Table: flow.NoTable}
	if rapid.Bool().Draw(t, "recirculate") {
		a.Table = flow.Table(rapid.IntRange(0, 253).Draw(t, "recirc"))
	}
	if rapid.Bool().Draw(t, "register") {
		a.ZoneSrc = drawSubfield(t, 16, 16)
	} else {
		a.Zone = rapid.Uint16().Draw(t, "zone")
	}
	if !a.Commit {
		return a
	}
	a.Force = rapid.Bool().Draw(t, "force")
	if rapid.Bool().Draw(t, "nat") {
		a.NAT = drawNAT(t, isIPv6)
	}
	for _, f := range rapid.SliceOfNDistinct(rapid.SampledFrom([]flow.Field{flow.CTMark, flow.CTLabel}), 0, 2, rapid.ID).Draw(t, "exec") {
		a.Exec = append(a.Exec, flow.SetField{FieldMatch: drawValue(t, f, false)})
	}
	return a
}

func drawNAT(t *rapid.T, isIPv6 bool) *flow.NAT {
	n := &flow.NAT{Src: rapid.Bool().Draw(t, "source")}
	n.Dst = !n.Src
	switch format := "10.1.0.%d"; rapid.IntRange(0, 3).Draw(t, "range") {
	case 3:
		n.PortMin = 1000
		n.PortMax = rapid.SampledFrom([]uint16{0, 2000}).Draw(t, "ports")
		fallthrough
	case 2:
		n.Flags = rapid.SampledFrom([]uint16{0, flow.NATHash, flow.NATRandom, flow.NATPersistent}).Draw(t, "flags")
		fallthrough
	case 1:
		if isIPv6 {
			format = "fd00::%d"
		}
		n.Min = netip.MustParseAddr(fmt.Sprintf(format, 1))
		if rapid.Bool().Draw(t, "several") {
			n.Max = netip.MustParseAddr(fmt.Sprintf(format, 9))
		}
	}
	return n
}
