package flow

import (
	"net/netip"
	"testing"
)

func TestString(t *testing.T) {
	f := Flow{Table: 30, Priority: 200, Cookie: 1,
		Match:   NewMatch(EqIP(IPv4Dst, netip.MustParseAddr("10.0.1.11")), Eq(Reg6, 1), EqMAC(EthDst, MAC{2, 0, 0, 0, 0, 1})),
		Actions: []Action{SetField{EqMAC(EthSrc, MAC{2, 0, 0, 0, 0, 1})}, DecTTL{}, SetField{Eq(Reg7, 0x271b)}, Goto{40}},
	}
	want := "cookie=0x1, table=30, priority=200,ip,reg6=0x1,dl_dst=02:00:00:00:00:01,nw_dst=10.0.1.11 " +
		"actions=set_field:02:00:00:00:00:01->eth_src,dec_ttl,set_field:0x271b->reg7,goto_table:40"
	if got := f.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
