package flow

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
)

// defaultPriority is the one that ovs-ofctl does not print.
const defaultPriority = 0x8000

// String is the flow as ovs-ofctl prints it.
func (f Flow) String() string { return string(f.AppendText(nil)) }

// AppendText appends String to b.
func (f Flow) AppendText(b []byte) []byte {
	if f.Cookie != 0 {
		b = append(b, "cookie="...)
		b = appendHex(b, f.Cookie)
		b = append(b, ", "...)
	}
	if f.Table != 0 {
		b = append(b, "table="...)
		b = strconv.AppendUint(b, uint64(f.Table), 10)
		b = append(b, ", "...)
	}
	b = append(b, f.Foreign...)
	start := len(b)
	if f.Priority != defaultPriority {
		b = append(b, "priority="...)
		b = strconv.AppendUint(b, uint64(f.Priority), 10)
		b = append(b, ',')
	}
	b = f.Match.appendText(b)
	if len(b) > start {
		b[len(b)-1] = ' '
	}
	b = append(b, "actions="...)
	return appendActions(b, f.Actions)
}

// String is the match as ovs-ofctl prints it; of every packet, "".
func (m Match) String() string {
	b := m.appendText(nil)
	if len(b) == 0 {
		return ""
	}
	return string(b[:len(b)-1])
}

// String is the key as ovs-ofctl prints the flow, without its actions.
func (k Key) String() string {
	s := Flow{Table: k.Table, Priority: k.Priority, Match: k.Match}.String()
	return strings.TrimRight(strings.TrimSuffix(s, "actions=drop"), ", ")
}

// appendText appends each condition with a comma behind.
func (m Match) appendText(b []byte) []byte {
	proto, hideType, hideProto := m.protocol()
	tagged := false
	for c := range m.All() {
		if c.Field >= Reg0 && proto != "" {
			b = append(append(b, proto...), ',')
			proto = ""
		}
		switch {
		case c.Field == EthType && hideType, c.Field == IPProto && hideProto:
		case c.Field == VLANVID, c.Field == VLANPCP:
			if !tagged {
				b = m.appendVLAN(b)
			}
			tagged = true
		default:
			b = append(appendCondText(b, c), ',')
		}
	}
	if x := m.Foreign(); x != "" {
		b = append(hex.AppendEncode(append(b, "foreign("...), []byte(x)), "),"...)
	}
	return b
}

// protocol is the short name that stands for the Ethernet type and, where there is one
// for both, the IP protocol.
func (m Match) protocol() (name string, hideType, hideProto bool) {
	c, ok := m.Get(EthType)
	if !ok {
		return "", false, false
	}
	six := ""
	switch c.Uint() {
	case EthIPv4:
		name = "ip"
	case EthIPv6:
		name, six = "ipv6", "6"
	case EthARP:
		return "arp", true, false
	case 0x8035:
		return "rarp", true, false
	case 0x8847:
		return "mpls", true, false
	case 0x8848:
		return "mplsm", true, false
	default:
		return "", false, false
	}
	if c, ok = m.Get(IPProto); ok {
		switch n := c.Uint(); {
		case n == ProtoTCP:
			return "tcp" + six, true, true
		case n == ProtoUDP:
			return "udp" + six, true, true
		case n == ProtoSCTP:
			return "sctp" + six, true, true
		case n == ProtoICMP && six == "":
			return "icmp", true, true
		case n == ProtoICMPv6 && six != "":
			return "icmp6", true, true
		}
	}
	return name, true, false
}

// appendVLAN writes the conditions on the tag's halves as the one that they make up.
func (m Match) appendVLAN(b []byte) []byte {
	vid, _ := m.Get(VLANVID)
	pcp, _ := m.Get(VLANPCP)
	value := vid.Uint() | pcp.Uint()<<13
	mask := vid.MaskUint() | pcp.MaskUint()<<13
	vm, pm := mask&0xfff, mask>>13
	switch {
	case mask&value&VLANPresent != 0 && (vm == 0 || vm == 0xfff) && (pm == 0 || pm == 7) && vm|pm != 0:
		if vm != 0 {
			b = strconv.AppendUint(append(b, "dl_vlan="...), value&0xfff, 10)
			b = append(b, ',')
		}
		if pm != 0 {
			b = strconv.AppendUint(append(b, "dl_vlan_pcp="...), value>>13, 10)
			b = append(b, ',')
		}
		return b
	case mask == 0xffff:
		b = appendHex4(append(b, "vlan_tci="...), value)
	default:
		b = appendHex4(append(b, "vlan_tci="...), value)
		b = appendHex4(append(b, '/'), mask)
	}
	return append(b, ',')
}

// matchNames are the fields that a match calls otherwise than set_field does.
var matchNames = [NumFields]string{
	InPort: "in_port", EthSrc: "dl_src", EthDst: "dl_dst", EthType: "dl_type",
	IPv4Src: "nw_src", IPv4Dst: "nw_dst", IPDSCP: "nw_tos", IPFrag: "nw_frag",
	ICMPv6Type: "icmp_type", ICMPv6Code: "icmp_code", TCPSrc: "tp_src", TCPDst: "tp_dst",
	UDPSrc: "tp_src", UDPDst: "tp_dst", SCTPSrc: "tp_src", SCTPDst: "tp_dst",
}

// appendCondText appends one condition in the notation of matches.
func appendCondText(b []byte, c FieldMatch) []byte {
	name := matchNames[c.Field]
	if name == "" {
		name = fields[c.Field].name
	}
	b = append(append(b, name...), '=')
	v, mask := c.Uint(), c.MaskUint()
	switch c.Field {
	case CTZone:
		return appendDecimal(b, c)
	case EthType:
		return appendHex4(b, v)
	case IPDSCP:
		return strconv.AppendUint(b, v<<2, 10)
	case CTLabel:
		return appendValue(b, c)
	}
	switch fields[c.Field].kind {
	case hexadecimal:
		if b = appendHash(b, v); !c.Exact() {
			b = appendHash(append(b, '/'), mask)
		}
		return b
	case decimal:
		return appendDecimal(b, c)
	}
	return appendValue(b, c)
}

func appendDecimal(b []byte, c FieldMatch) []byte {
	if c.Exact() {
		return strconv.AppendUint(b, c.Uint(), 10)
	}
	b = appendHex(b, c.Uint())
	return appendHex(append(b, '/'), c.MaskUint())
}

// appendValue appends value and mask in the notation of set_field.
func appendValue(b []byte, c FieldMatch) []byte {
	switch fields[c.Field].kind {
	case ctState:
		return appendFlags(b, c, ctStateNames[:])
	case tcpFlags:
		return appendFlags(b, c, tcpFlagNames[:])
	case frag:
		return append(b, fragNames[c.MaskUint()][c.Uint()]...)
	case port:
		return appendPort(b, uint32(c.Uint()))
	case mac:
		if b = appendMAC(b, c.Value); !c.Exact() {
			b = appendMAC(append(b, '/'), c.Mask)
		}
		return b
	case ipv4, ipv6:
		return appendAddress(b, c)
	case decimal:
		b = strconv.AppendUint(b, c.Uint(), 10)
	default:
		b = appendBytes(b, c.Value)
	}
	if !c.Exact() {
		b = appendBytes(append(b, '/'), c.Mask)
	}
	return b
}

var (
	ctStateNames = [...]string{"new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"}
	tcpFlagNames = [...]string{"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]"}
	fragNames    = [4][4]string{
		{}, {"no", "yes"}, {0: "not_later", 2: "later"}, {"no", "first", "<error>", "later"},
	}
)

func appendFlags(b []byte, c FieldMatch, names []string) []byte {
	v, mask := c.Uint(), c.MaskUint()
	if c.Exact() {
		if v == 0 {
			return append(b, '0')
		}
		for ; v != 0; v &= v - 1 {
			b = append(append(b, names[bits.TrailingZeros64(v)]...), '|')
		}
		return b[:len(b)-1]
	}
	for ; mask != 0; mask &= mask - 1 {
		bit := bits.TrailingZeros64(mask)
		b = append(append(b, "-+"[v>>bit&1]), names[bit]...)
	}
	return b
}

func appendMAC(b []byte, x Bytes) []byte {
	for i, o := range x[10:] {
		if i > 0 {
			b = append(b, ':')
		}
		b = hex.AppendEncode(b, []byte{o})
	}
	return b
}

func appendAddress(b []byte, c FieldMatch) []byte {
	n := c.Field.size()
	b = appendIP(b, c.Value[16-n:])
	ones := 0
	for i := range 8 * n {
		if c.Mask[16-n+i/8]&(0x80>>(i%8)) == 0 {
			break
		}
		ones++
	}
	switch {
	case ones == 8*n:
		return b
	case InPrefix(c.Field, netip.PrefixFrom(addressOf(c.Mask[16-n:]), ones)).Mask == c.Mask:
		return strconv.AppendInt(append(b, '/'), int64(ones), 10)
	}
	return appendIP(append(b, '/'), c.Mask[16-n:])
}

func addressOf(x []byte) netip.Addr {
	if len(x) == 4 {
		return netip.AddrFrom4([4]byte(x))
	}
	return netip.AddrFrom16([16]byte(x))
}

// appendIP writes an address as the C library does, which differs from netip for the
// long deprecated IPv4-compatible addresses (::192.0.2.1).
func appendIP(b, x []byte) []byte {
	if len(x) == 16 && binary.BigEndian.Uint64(x) == 0 && binary.BigEndian.Uint32(x[8:]) == 0 && (x[12] != 0 || x[13] != 0) {
		return netip.AddrFrom4([4]byte(x[12:])).AppendTo(append(b, "::"...))
	}
	return addressOf(x).AppendTo(b)
}

func appendPort(b []byte, p uint32) []byte {
	switch p {
	case PortInPort:
		return append(b, "IN_PORT"...)
	case PortTable:
		return append(b, "TABLE"...)
	case PortNormal:
		return append(b, "NORMAL"...)
	case PortFlood:
		return append(b, "FLOOD"...)
	case PortAll:
		return append(b, "ALL"...)
	case PortController:
		return append(b, "CONTROLLER"...)
	case PortLocal:
		return append(b, "LOCAL"...)
	case PortAny:
		return append(b, "ANY"...)
	}
	return strconv.AppendUint(b, uint64(p), 10)
}

// appendHex appends v as 0x1f.
func appendHex(b []byte, v uint64) []byte { return strconv.AppendUint(append(b, "0x"...), v, 16) }

// appendHash is appendHex but for zero, which is 0.
func appendHash(b []byte, v uint64) []byte {
	if v == 0 {
		return append(b, '0')
	}
	return appendHex(b, v)
}

// appendHex4 appends v as 0x001f.
func appendHex4(b []byte, v uint64) []byte {
	return hex.AppendEncode(append(b, "0x"...), []byte{byte(v >> 8), byte(v)})
}

// appendBytes appends x as a number.
func appendBytes(b []byte, x Bytes) []byte {
	hi, lo := binary.BigEndian.Uint64(x[:]), binary.BigEndian.Uint64(x[8:])
	if hi == 0 {
		return appendHash(b, lo)
	}
	b = appendHex(b, hi)
	return hex.AppendEncode(b, x[8:])
}
