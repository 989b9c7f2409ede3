package flow

// Field is one matchable or settable packet, metadata or register field. Its order is
// the order in which ovs-ofctl prints matches.
type Field uint8

// The fields in use.
const (
	PktMark Field = iota
	CTState
	CTZone
	CTMark
	CTLabel
	// The tuple of the packet that began the connection. A match on it is also one on a
	// CTState of valid packets: +trk, and one bit of CTNew, CTEst, CTRel, CTRpl set or CTInv
	// clear; so is the match of a flow that moves it. A port comes with the protocol.
	CTIPv4Src
	CTIPv4Dst
	CTIPProto
	CTPortSrc
	CTPortDst
	Reg0
	Reg1
	Reg2
	Reg3
	Reg4
	Reg5
	Reg6
	Reg7
	Reg8
	Reg9
	Reg10
	Reg11
	Reg12
	Reg13
	Reg14
	Reg15
	TunID
	TunSrc
	TunDst
	Metadata
	InPort
	VLANVID // with VLANPresent set where there is a tag
	VLANPCP
	EthSrc
	EthDst
	EthType
	IPv4Src
	IPv4Dst
	IPv6Src
	IPv6Dst
	ARPSPA
	ARPTPA
	IPProto
	ARPOp
	ARPSHA
	ARPTHA
	IPDSCP
	IPECN
	IPTTL
	IPFrag
	ICMPType
	ICMPCode
	ICMPv6Type
	ICMPv6Code
	NDTarget
	NDSLL
	NDTLL
	NDReserved
	NDOptionsType
	TCPSrc
	TCPDst
	UDPSrc
	UDPDst
	SCTPSrc
	SCTPDst
	TCPFlags
	XXReg0 // Reg0 (most significant) to Reg3 as one; a match on it becomes matches on the four
	XXReg1
	XXReg2
	XXReg3
	NumFields // the number of fields
)

// kind is how a field's value is written.
type kind uint8

const (
	decimal kind = iota
	hexadecimal
	mac
	ipv4
	ipv6
	ctState
	tcpFlags
	frag
	port
)

// A fieldInfo is what is known of a field: its name in set_field, its name as a
// subfield, its width, its notation, and what a match on it also says about a packet.
type fieldInfo struct {
	name, sub string
	bits      uint16
	kind      kind
	implies   []implied
}

type implied struct {
	field Field
	value uint64
}

// Values of EthType and IPProto.
const (
	EthIPv4     = 0x0800
	EthARP      = 0x0806
	EthIPv6     = 0x86dd
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
	ProtoSCTP   = 132

	VLANPresent = 0x1000
)

// Bits of CTState.
const (
	CTNew = 1 << iota
	CTEst
	CTRel
	CTRpl
	CTInv
	CTTrk
	CTSNAT
	CTDNAT
)

var (
	isIPv4   = []implied{{EthType, EthIPv4}}
	isIPv6   = []implied{{EthType, EthIPv6}}
	isARP    = []implied{{EthType, EthARP}}
	isTCP    = []implied{{IPProto, ProtoTCP}}
	isUDP    = []implied{{IPProto, ProtoUDP}}
	isSCTP   = []implied{{IPProto, ProtoSCTP}}
	isICMP   = []implied{{EthType, EthIPv4}, {IPProto, ProtoICMP}}
	isICMPv6 = []implied{{EthType, EthIPv6}, {IPProto, ProtoICMPv6}}
	isNS     = append(isICMPv6[:2:2], implied{ICMPv6Type, 135})
	isNA     = append(isICMPv6[:2:2], implied{ICMPv6Type, 136})
)

var fields = [NumFields]fieldInfo{
	PktMark:       {"pkt_mark", "NXM_NX_PKT_MARK", 32, hexadecimal, nil},
	CTState:       {"ct_state", "NXM_NX_CT_STATE", 8, ctState, nil},
	CTZone:        {"ct_zone", "NXM_NX_CT_ZONE", 16, hexadecimal, nil},
	CTMark:        {"ct_mark", "NXM_NX_CT_MARK", 32, hexadecimal, nil},
	CTLabel:       {"ct_label", "NXM_NX_CT_LABEL", 128, hexadecimal, nil},
	CTIPv4Src:     {"ct_nw_src", "NXM_NX_CT_NW_SRC", 32, ipv4, isIPv4},
	CTIPv4Dst:     {"ct_nw_dst", "NXM_NX_CT_NW_DST", 32, ipv4, isIPv4},
	CTIPProto:     {"ct_nw_proto", "NXM_NX_CT_NW_PROTO", 8, decimal, nil},
	CTPortSrc:     {"ct_tp_src", "NXM_NX_CT_TP_SRC", 16, decimal, nil},
	CTPortDst:     {"ct_tp_dst", "NXM_NX_CT_TP_DST", 16, decimal, nil},
	Reg0:          {"reg0", "NXM_NX_REG0", 32, hexadecimal, nil},
	Reg1:          {"reg1", "NXM_NX_REG1", 32, hexadecimal, nil},
	Reg2:          {"reg2", "NXM_NX_REG2", 32, hexadecimal, nil},
	Reg3:          {"reg3", "NXM_NX_REG3", 32, hexadecimal, nil},
	Reg4:          {"reg4", "NXM_NX_REG4", 32, hexadecimal, nil},
	Reg5:          {"reg5", "NXM_NX_REG5", 32, hexadecimal, nil},
	Reg6:          {"reg6", "NXM_NX_REG6", 32, hexadecimal, nil},
	Reg7:          {"reg7", "NXM_NX_REG7", 32, hexadecimal, nil},
	Reg8:          {"reg8", "NXM_NX_REG8", 32, hexadecimal, nil},
	Reg9:          {"reg9", "NXM_NX_REG9", 32, hexadecimal, nil},
	Reg10:         {"reg10", "NXM_NX_REG10", 32, hexadecimal, nil},
	Reg11:         {"reg11", "NXM_NX_REG11", 32, hexadecimal, nil},
	Reg12:         {"reg12", "NXM_NX_REG12", 32, hexadecimal, nil},
	Reg13:         {"reg13", "NXM_NX_REG13", 32, hexadecimal, nil},
	Reg14:         {"reg14", "NXM_NX_REG14", 32, hexadecimal, nil},
	Reg15:         {"reg15", "NXM_NX_REG15", 32, hexadecimal, nil},
	XXReg0:        {"xxreg0", "NXM_NX_XXREG0", 128, hexadecimal, nil},
	XXReg1:        {"xxreg1", "NXM_NX_XXREG1", 128, hexadecimal, nil},
	XXReg2:        {"xxreg2", "NXM_NX_XXREG2", 128, hexadecimal, nil},
	XXReg3:        {"xxreg3", "NXM_NX_XXREG3", 128, hexadecimal, nil},
	TunID:         {"tun_id", "NXM_NX_TUN_ID", 64, hexadecimal, nil},
	TunSrc:        {"tun_src", "NXM_NX_TUN_IPV4_SRC", 32, ipv4, nil},
	TunDst:        {"tun_dst", "NXM_NX_TUN_IPV4_DST", 32, ipv4, nil},
	Metadata:      {"metadata", "OXM_OF_METADATA", 64, hexadecimal, nil},
	InPort:        {"in_port_oxm", "OXM_OF_IN_PORT", 32, port, nil},
	VLANVID:       {"vlan_vid", "OXM_OF_VLAN_VID", 13, decimal, nil},
	VLANPCP:       {"vlan_pcp", "OXM_OF_VLAN_PCP", 3, decimal, nil},
	EthSrc:        {"eth_src", "NXM_OF_ETH_SRC", 48, mac, nil},
	EthDst:        {"eth_dst", "NXM_OF_ETH_DST", 48, mac, nil},
	EthType:       {"eth_type", "NXM_OF_ETH_TYPE", 16, hexadecimal, nil},
	IPv4Src:       {"ip_src", "NXM_OF_IP_SRC", 32, ipv4, isIPv4},
	IPv4Dst:       {"ip_dst", "NXM_OF_IP_DST", 32, ipv4, isIPv4},
	IPv6Src:       {"ipv6_src", "NXM_NX_IPV6_SRC", 128, ipv6, isIPv6},
	IPv6Dst:       {"ipv6_dst", "NXM_NX_IPV6_DST", 128, ipv6, isIPv6},
	ARPSPA:        {"arp_spa", "NXM_OF_ARP_SPA", 32, ipv4, isARP},
	ARPTPA:        {"arp_tpa", "NXM_OF_ARP_TPA", 32, ipv4, isARP},
	IPProto:       {"nw_proto", "NXM_OF_IP_PROTO", 8, decimal, nil},
	ARPOp:         {"arp_op", "NXM_OF_ARP_OP", 16, decimal, isARP},
	ARPSHA:        {"arp_sha", "NXM_NX_ARP_SHA", 48, mac, isARP},
	ARPTHA:        {"arp_tha", "NXM_NX_ARP_THA", 48, mac, isARP},
	IPDSCP:        {"ip_dscp", "OXM_OF_IP_DSCP", 6, decimal, nil},
	IPECN:         {"nw_ecn", "NXM_NX_IP_ECN", 2, decimal, nil},
	IPTTL:         {"nw_ttl", "NXM_NX_IP_TTL", 8, decimal, nil},
	IPFrag:        {"ip_frag", "NXM_NX_IP_FRAG", 2, frag, nil},
	ICMPType:      {"icmp_type", "NXM_OF_ICMP_TYPE", 8, decimal, isICMP},
	ICMPCode:      {"icmp_code", "NXM_OF_ICMP_CODE", 8, decimal, isICMP},
	ICMPv6Type:    {"icmpv6_type", "NXM_NX_ICMPV6_TYPE", 8, decimal, isICMPv6},
	ICMPv6Code:    {"icmpv6_code", "NXM_NX_ICMPV6_CODE", 8, decimal, isICMPv6},
	NDTarget:      {"nd_target", "NXM_NX_ND_TARGET", 128, ipv6, isICMPv6},
	NDSLL:         {"nd_sll", "NXM_NX_ND_SLL", 48, mac, isNS},
	NDTLL:         {"nd_tll", "NXM_NX_ND_TLL", 48, mac, isNA},
	NDReserved:    {"nd_reserved", "ERICOXM_OF_ICMPV6_ND_RESERVED", 32, decimal, isICMPv6},
	NDOptionsType: {"nd_options_type", "ERICOXM_OF_ICMPV6_ND_OPTIONS_TYPE", 8, decimal, isICMPv6},
	TCPSrc:        {"tcp_src", "NXM_OF_TCP_SRC", 16, decimal, isTCP},
	TCPDst:        {"tcp_dst", "NXM_OF_TCP_DST", 16, decimal, isTCP},
	UDPSrc:        {"udp_src", "NXM_OF_UDP_SRC", 16, decimal, isUDP},
	UDPDst:        {"udp_dst", "NXM_OF_UDP_DST", 16, decimal, isUDP},
	SCTPSrc:       {"sctp_src", "OXM_OF_SCTP_SRC", 16, decimal, isSCTP},
	SCTPDst:       {"sctp_dst", "OXM_OF_SCTP_DST", 16, decimal, isSCTP},
	TCPFlags:      {"tcp_flags", "NXM_NX_TCP_FLAGS", 12, tcpFlags, isTCP},
}

// Bits is the field's width.
func (f Field) Bits() uint16 { return fields[f].bits }

// size is the number of bytes that hold the field.
func (f Field) size() int { return int(fields[f].bits+7) / 8 }

// String is the field's name as ovs-ofctl writes it in set_field.
func (f Field) String() string { return fields[f].name }

// Ones is the mask of an exact match on the field.
func (f Field) Ones() Bytes { return exact[f] }

var exact = func() (t [NumFields]Bytes) {
	for f := range t {
		bits := int(fields[f].bits)
		for i := 15; bits > 0; i, bits = i-1, bits-8 {
			t[f][i] = byte(1<<min(bits, 8) - 1)
		}
	}
	return t
}()
