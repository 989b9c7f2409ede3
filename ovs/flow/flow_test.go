package flow

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

var (
	addr   = netip.MustParseAddr
	prefix = netip.MustParsePrefix
)

// Package openflow holds the text against ovs-ofctl's; here is what a reader may copy.
func TestString(t *testing.T) {
	f := Flow{Table: 30, Priority: 200, Cookie: 1,
		Match:   NewMatch(EqIP(IPv4Dst, addr("10.0.1.11")), Eq(Reg6, 1), EqMAC(EthDst, MAC{2, 0, 0, 0, 0, 1})),
		Actions: []Action{SetField{EqMAC(EthSrc, MAC{2, 0, 0, 0, 0, 1})}, DecTTL{}, SetField{Eq(Reg7, 0x271b)}, Goto{40}},
	}
	want := "cookie=0x1, table=30, priority=200,ip,reg6=0x1,dl_dst=02:00:00:00:00:01,nw_dst=10.0.1.11 " +
		"actions=set_field:02:00:00:00:00:01->eth_src,dec_ttl,set_field:0x271b->reg7,goto_table:40"
	if got := f.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := f.Key().String(), "table=30, priority=200,ip,reg6=0x1,dl_dst=02:00:00:00:00:01,nw_dst=10.0.1.11"; got != want {
		t.Errorf("key is %s", got)
	}
	if got, want := (Flow{Priority: 0x8000}).String(), "actions=drop"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := (Key{Priority: 0x8000}).String(); got != "" {
		t.Errorf("key is %q", got)
	}
}

func TestImplied(t *testing.T) {
	nd := addr("fd00::1")
	for _, c := range []struct {
		have []FieldMatch
		want string
	}{
		{[]FieldMatch{EqIP(ARPTPA, addr("10.0.0.1"))}, "arp,arp_tpa=10.0.0.1"},
		{[]FieldMatch{EqIP(IPv4Src, addr("::ffff:10.0.0.1"))}, "ip,nw_src=10.0.0.1"},
		{[]FieldMatch{InPrefix(IPv4Dst, prefix("10.0.1.7/24"))}, "ip,nw_dst=10.0.1.0/24"},
		{[]FieldMatch{InPrefix(IPv4Dst, prefix("0.0.0.0/0"))}, "ip"},
		{[]FieldMatch{InPrefix(IPv6Dst, prefix("::/0"))}, "ipv6"},
		{[]FieldMatch{InPrefix(IPv4Dst, netip.PrefixFrom(addr("::ffff:10.0.1.7"), 120))}, "ip,nw_dst=10.0.1.0/24"},
		{[]FieldMatch{Eq(ICMPType, 8)}, "icmp,icmp_type=8"},
		{[]FieldMatch{Eq(ICMPv6Type, 128)}, "icmp6,icmp_type=128"},
		{[]FieldMatch{EqIP(NDTarget, nd), Eq(ICMPv6Type, 135)}, "icmp6,icmp_type=135,nd_target=fd00::1"},
		{[]FieldMatch{EqMAC(NDSLL, MAC{5: 1})}, "icmp6,icmp_type=135,nd_sll=00:00:00:00:00:01"},
		{[]FieldMatch{EqMAC(NDTLL, MAC{5: 1})}, "icmp6,icmp_type=136,nd_tll=00:00:00:00:00:01"},
		{[]FieldMatch{Eq(TCPDst, 80), Eq(EthType, EthIPv6)}, "tcp6,tp_dst=80"},
		{[]FieldMatch{Eq(UDPDst, 67), Eq(EthType, EthIPv4)}, "udp,tp_dst=67"},
		{[]FieldMatch{Eq(SCTPSrc, 1), Eq(EthType, EthIPv4)}, "sctp,tp_src=1"},
		{[]FieldMatch{EqIP(ARPSPA, addr("10.0.0.1")), Eq(EthType, 0x8035)}, "rarp,arp_spa=10.0.0.1"},
		{[]FieldMatch{Masked(CTState, CTTrk|CTEst, CTTrk|CTEst|CTNew)}, "ct_state=-new+est+trk"},
		{[]FieldMatch{EqIP(CTIPv4Dst, addr("10.0.0.1")), Eq(CTState, CTTrk|CTNew)}, "ct_state=new|trk,ct_nw_dst=10.0.0.1,ip"},
		{[]FieldMatch{Masked(Reg1, 0xff, 0)}, ""},
		{[]FieldMatch{Masked(Reg1, 0xff, 0xf0)}, "reg1=0xf0/0xf0"},
		{[]FieldMatch{{Field: XXReg0, Value: Bytes{3: 1, 15: 2}, Mask: XXReg0.Ones()}}, "reg0=0x1,reg1=0,reg2=0,reg3=0x2"},
		{[]FieldMatch{{Field: XXReg1, Value: Bytes{15: 2}, Mask: Bytes{15: 3}}}, "reg7=0x2/0x3"},
		{[]FieldMatch{Eq(XXReg0, 1)}, "reg0=0,reg1=0,reg2=0,reg3=0x1"},
		{[]FieldMatch{MaskedMAC(EthDst, MAC{0xff, 1}, MAC{1})}, "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00"},
		{[]FieldMatch{Eq(CTLabel, 9)}, "ct_label=0x9"},
		{[]FieldMatch{Masked(CTLabel, 9, 15)}, "ct_label=0x9/0xf"},
	} {
		if got := NewMatch(c.have...).String(); got != c.want {
			t.Errorf("%v: got %q, want %q", c.have, got, c.want)
		}
	}
}

// One condition has one form, in whatever order and steps it is put together.
func TestCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		conds := drawConds(t)
		m := NewMatch(conds...)
		shuffled := rapid.Permutation(conds).Draw(t, "order")
		cut := rapid.IntRange(0, len(conds)).Draw(t, "cut")
		n := NewMatch(shuffled[:cut]...).And(shuffled[cut:]...).And(shuffled[:cut]...)
		if m != n || m.compare(n) != 0 {
			t.Fatalf("%v and %v differ", m, n)
		}
		var all []FieldMatch
		for c := range m.All() {
			all = append(all, c)
			if got, ok := m.Get(c.Field); !ok || got != c {
				t.Fatalf("Get(%v) is %v, %v", c.Field, got, ok)
			}
		}
		if NewMatch(all...) != m {
			t.Fatalf("%v is not made of %v", m, all)
		}
		for _, c := range conds {
			if got, ok := m.Get(c.Field); !ok || got != c {
				t.Fatalf("%v is %v, %v", c, got, ok)
			}
		}
		foreign := m.WithForeign("\x00\x01")
		if foreign == m || foreign.Foreign() != "\x00\x01" || foreign.WithForeign("") != m || foreign.And(all...) != foreign {
			t.Fatalf("foreign conditions are lost: %v", foreign)
		}
	})
}

func drawConds(t *rapid.T) []FieldMatch {
	fs := []Field{PktMark, CTMark, Reg0, Reg1, Reg15, TunID, Metadata, InPort, EthSrc, IPv6Dst, TCPDst, CTLabel}
	var conds []FieldMatch
	for _, f := range rapid.SliceOfDistinct(rapid.SampledFrom(fs), rapid.ID).Draw(t, "fields") {
		mask := rapid.Uint64Range(1, 1<<min(f.Bits(), 63)-1).Draw(t, "mask")
		conds = append(conds, Masked(f, rapid.Uint64Range(0, mask).Draw(t, "value"), mask))
	}
	return conds
}

func TestDefectsPanic(t *testing.T) {
	for name, f := range map[string]func(){
		"value too wide":    func() { Eq(IPProto, 256) },
		"value of 6 bits":   func() { Eq(IPDSCP, 64) },
		"mask too wide":     func() { Masked(Reg0, 0, 1<<32) },
		"two conditions":    func() { NewMatch(Eq(Reg0, 1), Eq(Reg0, 2)) },
		"and another":       func() { NewMatch(Eq(Reg0, 1)).And(Masked(Reg0, 1, 1)) },
		"register of quad":  func() { NewMatch(Eq(Reg3, 1), Eq(XXReg0, 2)) },
		"IPv6 for IPv4":     func() { EqIP(IPv4Src, addr("::1")) },
		"IPv4 for IPv6":     func() { InPrefix(IPv6Src, prefix("10.0.0.0/8")) },
		"no address":        func() { EqIP(IPv4Src, netip.Addr{}) },
		"no prefix":         func() { InPrefix(IPv4Src, netip.Prefix{}) },
		"address for port":  func() { EqIP(InPort, addr("10.0.0.1")) },
		"MAC for register":  func() { EqMAC(Reg0, MAC{1}); MaskedMAC(Reg0, MAC{1}, MAC{1}) },
		"prefix over lapse": func() { InPrefix(IPv4Dst, netip.PrefixFrom(addr("::ffff:10.0.0.0"), 8)) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}

func TestEqualActions(t *testing.T) {
	nat := func(port uint16) *NAT { return &NAT{Src: true, Min: addr("10.0.0.1"), PortMin: port} }
	distinct := []Action{
		Output{1}, Output{2}, OutputReg{Whole(Reg1)}, OutputReg{Bits(Reg1, 0, 16)}, DecTTL{}, CTClear{}, CheckLarger{1, Bits(Reg0, 1, 1)}, CheckLarger{2, Bits(Reg0, 1, 1)}, nil,
		SetField{Eq(Reg1, 1)}, SetField{Masked(Reg1, 1, 1)}, Load{Whole(Reg1), 1}, Goto{1}, Resubmit{1},
		CT{}, CT{Commit: true}, CT{Force: true}, CT{Zone: 1}, CT{ZoneSrc: Bits(Reg6, 0, 16)}, CT{Table: 1}, CT{NAT: &NAT{}},
		CT{NAT: nat(1)}, CT{NAT: nat(2)}, CT{Exec: []Action{SetField{Eq(CTMark, 1)}}}, CT{Exec: []Action{SetField{Eq(CTMark, 2)}}},
		Controller{MaxLen: 1}, Controller{MaxLen: 1, UserData: "x"}, MeterAction{1}, Foreign{"x"},
	}
	for i, a := range distinct {
		for j, b := range distinct {
			if equalAction(a, b) != (i == j) {
				t.Errorf("%#v and %#v", a, b)
			}
		}
	}
	if !EqualActions([]Action{CT{NAT: nat(1), Exec: []Action{DecTTL{}}}}, []Action{CT{NAT: nat(1), Exec: []Action{DecTTL{}}}}) {
		t.Error("the same conntrack action differs from itself")
	}
	if !EqualActions(nil, []Action{}) || EqualActions([]Action{DecTTL{}}, nil) {
		t.Error("length")
	}
}

// Applying the difference gives what is desired, and nothing is done that need not be.
func TestDiff(t *testing.T) {
	draw := rapid.Custom(func(t *rapid.T) Flow {
		f := Flow{
			Table:    Table(rapid.IntRange(0, 2).Draw(t, "table")),
			Priority: rapid.Uint16Range(1, 2).Draw(t, "priority"),
			Match:    NewMatch(Eq(Reg0, rapid.Uint64Range(0, 2).Draw(t, "reg"))),
			Cookie:   rapid.Uint64Range(1, 2).Draw(t, "cookie"),
		}
		for range rapid.IntRange(0, 1).Draw(t, "actions") {
			f.Actions = append(f.Actions, Output{rapid.Uint32Range(1, 2).Draw(t, "port")})
		}
		if rapid.IntRange(0, 5).Draw(t, "foreign") == 0 {
			f.Foreign = "idle_timeout=1, "
		}
		return f
	})
	rapid.Check(t, func(t *rapid.T) {
		actual := NewSet(rapid.SliceOf(draw).Draw(t, "actual")...)
		desired := NewSet(rapid.SliceOf(draw).Draw(t, "desired")...)
		d := NewDiff(actual, desired)
		if got := NewDiff(actual, desired); fmt.Sprint(got) != fmt.Sprint(d) {
			t.Fatalf("%v, then %v", d, got)
		}
		for _, fs := range [][]Flow{d.Add, d.Delete} {
			if !slices.IsSortedFunc(fs, func(a, b Flow) int { return a.Key().Compare(b.Key()) }) {
				t.Fatalf("not in order: %v", fs)
			}
		}
		for _, f := range d.Delete {
			if _, ok := desired[f.Key()]; ok {
				t.Fatalf("deletes %v, which is desired", f)
			}
			delete(actual, f.Key())
		}
		for _, f := range d.Add {
			if have, ok := actual[f.Key()]; ok && have.Equal(f) {
				t.Fatalf("adds %v, which is there", f)
			}
			actual.Put(f)
		}
		if len(actual) != len(desired) || !NewDiff(actual, desired).Empty() {
			t.Fatalf("gives %v, not %v", actual.Sorted(), desired.Sorted())
		}
	})
}

// The order of keys is that of packets: lower tables first, higher priorities first.
func TestSorted(t *testing.T) {
	f := func(table Table, priority uint16, reg uint64) Flow {
		return Flow{Table: table, Priority: priority, Match: NewMatch(Eq(Reg0, reg))}
	}
	want := []Flow{f(0, 9, 1), f(0, 1, 1), f(0, 1, 2), f(1, 200, 0)}
	got := NewSet(want[3], want[1], want[2], want[0], want[1]).Sorted()
	if !slices.EqualFunc(got, want, Flow.Equal) {
		t.Errorf("got %v", got)
	}
}
