package openflow

import (
	"fmt"
	"net/netip"
	"testing"

	"nuage/ovs/flow"
)

// VportFlows are n flows like those of vports, twelve a vport. It is for the external
// tests of this package.
func VportFlows(n int) []flow.Flow {
	router := flow.EqMAC(flow.EthDst, flow.MAC{2, 0, 0, 0, 0, 1})
	flows := make([]flow.Flow, 0, n)
	for i := 0; len(flows) < n; i++ {
		ip := netip.AddrFrom4([4]byte{10, byte(200 + i>>16&15), byte(i >> 8), byte(i)})
		mac := flow.MAC{2, 0, 12, byte(i >> 16), byte(i >> 8), byte(i)}
		for d := range uint64(3) {
			domain := flow.Eq(flow.Reg6, 0x7000+d)
			add := func(table flow.Table, m flow.Match, as ...flow.Action) {
				flows = append(flows, flow.Flow{Table: table, Priority: 100, Cookie: uint64(i) + 1, Match: m, Actions: as})
			}
			add(30, flow.NewMatch(domain, router, flow.EqIP(flow.IPv4Dst, ip)),
				flow.SetField{FieldMatch: flow.EqMAC(flow.EthDst, mac)}, flow.DecTTL{},
				flow.SetField{FieldMatch: flow.Eq(flow.Reg7, d)}, flow.Goto{Table: 40})
			add(40, flow.NewMatch(domain, flow.EqMAC(flow.EthDst, mac)),
				flow.SetField{FieldMatch: flow.Eq(flow.Reg1, uint64(i))}, flow.Goto{Table: 45})
			add(46, flow.NewMatch(domain, flow.EqIP(flow.IPv4Dst, ip)),
				flow.SetField{FieldMatch: flow.Eq(flow.Reg4, 1)}, flow.Goto{Table: 50})
			add(45, flow.NewMatch(domain, flow.EqIP(flow.IPv4Src, ip)),
				flow.SetField{FieldMatch: flow.Eq(flow.Reg3, 1)}, flow.Goto{Table: 46})
		}
	}
	return flows[:n]
}

const many = 12000

func BenchmarkMake12000(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		VportFlows(many)
	}
}

func BenchmarkEncode12000(b *testing.B) {
	d := flow.Diff{Add: VportFlows(many)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := appendBundle(nil, 1, 1, d); err != nil {
			b.Fatal(err)
		}
	}
}

// statsOf is flows as a switch reports them.
func statsOf(tb testing.TB, flows []flow.Flow) []byte {
	var out []byte
	for _, f := range flows {
		start := len(out)
		out = append(out, 0, 0, byte(f.Table), 0, 0, 0, 0, 1, 0, 0, 0, 0)
		out = be.AppendUint16(out, f.Priority)
		out = append(out, make([]byte, 10)...)
		out = be.AppendUint64(out, f.Cookie)
		out = append(out, make([]byte, 16)...)
		out = appendMatch(out, f.Match)
		var err error
		if out, err = appendInstructions(out, f.Actions); err != nil {
			tb.Fatal(err)
		}
		be.PutUint16(out[start:], uint16(len(out)-start))
	}
	return out
}

func BenchmarkDecode12000(b *testing.B) {
	in := statsOf(b, VportFlows(many))
	b.ReportAllocs()
	for b.Loop() {
		all, err := decodeFlowStats(nil, in)
		if err != nil || len(all) != many {
			b.Fatal(len(all), err)
		}
	}
}

func BenchmarkDiff12000(b *testing.B) {
	desired, actual := flow.NewSet(VportFlows(many)...), flow.NewSet(VportFlows(many)[12:]...)
	b.ReportAllocs()
	for b.Loop() {
		if d := flow.NewDiff(actual, desired); len(d.Add) != 12 || len(d.Delete) != 0 {
			b.Fatal(fmt.Sprint(len(d.Add), len(d.Delete)))
		}
	}
}
