package flow

// Field is one matchable or settable packet, metadata or register field. Its order is
// the order in which ovs-ofctl prints matches.
type Field uint8

// The fields in use. Names are ovs-ofctl's.
const (
	Reg0 Field = iota
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
	CTState
	CTZone
	CTMark
	CTLabel
	TunID
	TunSrc
	TunDst
	Metadata
	InPort
	VLANTCI
	EthSrc
	EthDst
	EthType
	IPProto
	IPv4Src
	IPv4Dst
	IPv6Src
	IPv6Dst
	IPDSCP
	IPTTL
	IPFrag
	ARPOp
	ARPSPA
	ARPTPA
	ARPSHA
	ARPTHA
	TCPSrc
	TCPDst
	TCPFlags
	UDPSrc
	UDPDst
	SCTPSrc
	SCTPDst
	ICMPType
	ICMPCode
	ICMPv6Type
	ICMPv6Code
	NDTarget
	NDSLL
	NDTLL
	NumFields // the number of fields
)
