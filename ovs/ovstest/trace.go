package ovstest

import (
	"fmt"
	"net/netip"
	"strings"
)

// Tracked is what connection tracking says of the packet of a TraceTracked.
type Tracked struct {
	// Src to DstPort are of the packet that began the connection; of an ICMP packet the
	// ports are type and code. The addresses are of the family of the traced packet.
	Src, Dst         netip.Addr
	Proto            uint8
	SrcPort, DstPort uint16
	Mark             uint32
	// States are what each ct action with a table finds, in order: "trk,new". A further one
	// finds "trk,new".
	States []string
}

// TraceTracked is Trace of a packet that belongs to a connection, so that flows behind a ct
// action that match or move ct_nw_src, ct_tp_dst, ct_mark and the like meet what Tracked
// says.
//
// ofproto/trace asks no conntrack. It keeps the ct_* fields of the packet that it is given
// into the table of a ct action, with the mark that a commit there sets, takes ct_state alone
// from --ct-next, and forgets them behind the ct action in the flow's own list, as the
// switch does. It accepts the fields only with a ct_state that is valid
// for them, so the packet has +trk+new before the first ct action too: a flow there that
// matches ct_state is not to be traced in this way.
func (o *OVS) TraceTracked(bridge, packet string, c Tracked) string {
	o.t.Helper()
	packet, args := c.Args(packet)
	return o.Trace(bridge, packet, args...)
}

// Args are the packet and the further arguments of the Trace that TraceTracked asks for.
func (c Tracked) Args(packet string) (tracked string, args []string) {
	family := "nw"
	if c.Src.Is6() {
		family = "ipv6"
	}
	for _, s := range c.States {
		args = append(args, "--ct-next", s)
	}
	return fmt.Sprintf("%s,ct_state=trk|new,ct_mark=%d,ct_%s_src=%v,ct_%s_dst=%v,ct_nw_proto=%d,ct_tp_src=%d,ct_tp_dst=%d",
		strings.TrimSuffix(packet, ","), c.Mark, family, c.Src, family, c.Dst, c.Proto, c.SrcPort, c.DstPort), args
}
