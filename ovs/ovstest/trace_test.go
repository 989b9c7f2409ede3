package ovstest

import (
	"net/netip"
	"strings"
	"testing"
)

// Flows behind ct actions meet the tuple and the mark that the trace was given, or the mark
// that a commit has set, over each recirculation, whatever the packet's own addresses are.
func TestTraceTracked(t *testing.T) {
	o := Start(t)
	o.AddBridge("br0")
	o.AddPort("br0", "p1", 11)
	for _, f := range []string{
		"table=0,ip,actions=ct(table=10,zone=5)", "table=0,ipv6,actions=ct(table=10,zone=5)",
		"table=10,ct_state=+trk+est+rpl,tcp,ct_nw_src=10.0.0.1,ct_nw_dst=10.0.1.0/24,ct_nw_proto=6,ct_tp_src=1024/0xfc00,ct_tp_dst=80,ct_mark=7,actions=move:NXM_NX_CT_NW_SRC[]->NXM_NX_REG2[],move:NXM_NX_CT_TP_DST[]->NXM_NX_REG3[0..15],goto_table:20",
		"table=10,ct_state=+trk+rel,icmp,ct_nw_proto=17,ct_tp_dst=53,actions=set_field:3->reg4",
		"table=10,ct_state=+trk+new,icmp,ct_nw_proto=1,ct_tp_src=8,ct_tp_dst=0,actions=set_field:4->reg4",
		"table=10,ct_state=+trk+est,tcp6,ct_nw_proto=6,ct_ipv6_src=fd00::1,ct_ipv6_dst=fd00::2,actions=set_field:5->reg4",
		"table=20,ip,actions=ct(commit,zone=5,exec(set_field:9->ct_mark),table=30)",
		"table=30,ct_state=+trk-new+est,tcp,ct_nw_src=10.0.0.1,ct_nw_proto=6,ct_mark=9,actions=set_field:6->reg4",
	} {
		o.Ofctl("add-flow", "br0", f)
	}
	reply := "in_port=11,tcp,nw_src=10.0.1.9,nw_dst=10.0.0.1,tp_src=80,tp_dst=1030"
	conn := func(proto uint8, src, dst uint16, states ...string) Tracked {
		return Tracked{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.1.9"), Proto: proto,
			SrcPort: src, DstPort: dst, Mark: 7, States: states}
	}
	six := conn(6, 1, 2, "trk,est")
	six.Src, six.Dst = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	other := conn(6, 1030, 81, "trk,est,rpl")
	for name, c := range map[string]struct {
		packet string
		conn   Tracked
		want   []string
	}{
		"reply":              {reply, conn(6, 1030, 80, "trk,est,rpl", "trk,est"), []string{"reg2=0xa000001,reg3=0x50,reg4=0x6"}},
		"another state":      {reply, conn(6, 1030, 80, "trk,est,rpl", "trk,new"), []string{"reg2=0xa000001,reg3=0x50", "30. No match"}},
		"another connection": {reply, other, []string{"10. No match"}},
		"related error":      {"in_port=11,icmp", conn(17, 999, 53, "trk,rel"), []string{"reg4=0x3"}},
		"echo":               {"in_port=11,icmp", conn(1, 8, 0, "trk,new"), []string{"reg4=0x4"}},
		"IPv6":               {"in_port=11,tcp6", six, []string{"reg4=0x5"}},
	} {
		out := o.TraceTracked("br0", c.packet, c.conn)
		for _, w := range c.want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in\n%s", name, w, out)
			}
		}
	}
}
