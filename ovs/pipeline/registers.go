package pipeline

import "nuage/ovs/flow"

// Register is one use of one register, or of some of its bits. What is not set is zero.
type Register struct {
	Name    string
	Bits    flow.Subfield
	Purpose string
}

// The fields that stages exchange.
const (
	regFlags  = flow.Reg0
	regOutput = flow.Reg1
	regVTEP   = flow.Reg2
	regDomain = flow.Reg6
	regSubnet = flow.Reg7
)

// Registers are all that are spoken for; no two overlap. The rows marked "place" are
// kept free for what the tables of the same name will do.
var Registers = []Register{
	{"from-tunnel", flow.Subfield{Field: regFlags, Offset: 0, Width: 1}, "1 for a packet that came from another host"},
	{"too-large", flow.Subfield{Field: regFlags, Offset: 1, Width: 1}, "1 for a packet that the way to the receiver's host is too narrow for"},
	{"output", flow.Subfield{Field: regOutput, Width: 32}, "port number to send to; 0 for the tunnel"},
	{"vtep", flow.Subfield{Field: regVTEP, Width: 32}, "IPv4 address of the receiver's host; 0 for this host"},
	{"entry", flow.Subfield{Field: flow.Reg4, Width: 32}, "place: number of the deciding policy entry"},
	{"domain", flow.Subfield{Field: regDomain, Width: 16}, "number of the domain, and its conntrack zone"},
	{"subnet", flow.Subfield{Field: regSubnet, Width: 24}, "VNI of the subnet: the sender's, from the router on the receiver's, which a tunnel packet carries"},
	{"source-groups-0", flow.Subfield{Field: flow.Reg8, Width: 32}, "place: policy groups of the sender, bits 0-31"},
	{"source-groups-1", flow.Subfield{Field: flow.Reg9, Width: 32}, "place: bits 32-63"},
	{"source-groups-2", flow.Subfield{Field: flow.Reg10, Width: 32}, "place: bits 64-95"},
	{"source-groups-3", flow.Subfield{Field: flow.Reg11, Width: 32}, "place: bits 96-127"},
	{"target-groups-0", flow.Subfield{Field: flow.Reg12, Width: 32}, "place: policy groups of the receiver, bits 0-31"},
	{"target-groups-1", flow.Subfield{Field: flow.Reg13, Width: 32}, "place: bits 32-63"},
	{"target-groups-2", flow.Subfield{Field: flow.Reg14, Width: 32}, "place: bits 64-95"},
	{"target-groups-3", flow.Subfield{Field: flow.Reg15, Width: 32}, "place: bits 96-127"},
}
