package pipeline

import (
	"fmt"

	"nuage/ovs/flow"
)

// Register is one use of one register, or of some of its bits. What is not set is zero.
type Register struct {
	Name    string
	Bits    flow.Subfield
	Purpose string
}

// The fields that stages exchange.
const (
	regFlags   = flow.Reg0
	regOutput  = flow.Reg1
	regVTEP    = flow.Reg2
	regSource  = flow.Reg3
	regZones   = flow.Reg4
	regTarget  = flow.Reg5
	regDomain  = flow.Reg6
	regSubnet  = flow.Reg7
	regElement = flow.Metadata
)

// Bits of regFlags, in the order of flagRegisters.
const (
	bitFromTunnel = 1 << iota
	bitTooLarge
	bitSameZone
	bitSameSubnet
	bitSourceInside
	bitTargetInside
	bitOutOfState
	bitStateless
	bitAllowed
	bitDenied
)

var flagRegisters = []struct{ name, purpose string }{
	{"from-tunnel", "1 for a packet that came from another host"},
	{"too-large", "1 for a packet that the way to the receiver's host is too narrow for"},
	{"same-zone", "1 if source and target are in one zone"},
	{"same-subnet", "1 if source and target are in one subnet"},
	{"source-inside", "1 if the source is in a subnet of the domain"},
	{"target-inside", "1 if the target is in a subnet of the domain"},
	{"out-of-state", "1 for a packet that its own header is judged by although its protocol is tracked: invalid, or a reply to what a stateless entry allowed"},
	{"stateless", "1 once a stateless entry has allowed the packet"},
	{"allowed", "1 once an entry of the direction that is being asked has allowed the packet"},
	{"denied", "1 once an entry has denied it"},
}

// Registers are all that are spoken for; no two overlap.
var Registers = func() []Register {
	var rs []Register
	for i, r := range flagRegisters {
		rs = append(rs, Register{r.name, flow.Bits(regFlags, uint16(i), 1), r.purpose})
	}
	rs = append(rs,
		Register{"output", flow.Whole(regOutput), "port number to send to; 0 for the tunnel"},
		Register{"vtep", flow.Whole(regVTEP), "IPv4 address of the receiver's host; 0 for this host"},
		Register{"source", flow.Whole(regSource), "IPv4 address of who opened the connection; of a packet of none, of its sender"},
		Register{"source-zone", flow.Bits(regZones, 0, 16), "number of the source's zone"},
		Register{"target-zone", flow.Bits(regZones, 16, 16), "number of the target's zone"},
		Register{"target", flow.Whole(regTarget), "IPv4 address of whom the connection was opened to; of a packet of none, of its receiver"},
		Register{"domain", flow.Bits(regDomain, 0, 16), "number of the domain, and its conntrack zone"},
		Register{"subnet", flow.Bits(regSubnet, 0, 24), "VNI of the subnet: the sender's, from the router on the receiver's, which a tunnel packet carries"})
	for _, end := range []struct {
		name string
		end
	}{{"source", sourceEnd}, {"target", targetEnd}} {
		for i := range flow.Field(4) {
			rs = append(rs, Register{fmt.Sprintf("%s-groups-%d", end.name, i), flow.Whole(end.groups + i),
				fmt.Sprintf("the %s's policy groups of number %d to %d, a bit each", end.name, 32*i+1, 32*i+32)})
		}
	}
	return append(rs, Register{"page", flow.Bits(regElement, 0, 16), "page of the policy's entries that is being asked"},
		Register{"policy", flow.Bits(regElement, 16, 16), "number of the policy that is being asked"})
}()

// bits are conditions on bits of a field, or new values of them.
type bits struct{ value, mask uint64 }

func isSet(bit uint64) bits   { return bits{bit, bit} }
func isClear(bit uint64) bits { return bits{0, bit} }

// and is both; no bit is in both with different values.
func (b bits) and(o bits) bits { return bits{b.value | o.value, b.mask | o.mask} }

func (b bits) of(f flow.Field) flow.FieldMatch { return flow.Masked(f, b.value, b.mask) }

func fromTunnel(v uint64) flow.FieldMatch { return bits{v * bitFromTunnel, bitFromTunnel}.of(regFlags) }

// end is where the registers have one end of a connection.
type end struct {
	name   string
	addr   flow.Field
	zone   uint16 // offset in regZones
	groups flow.Field
	inside uint64 // in regFlags
}

var (
	sourceEnd = end{"from", regSource, 0, flow.Reg8, bitSourceInside}
	targetEnd = end{"to", regTarget, 16, flow.Reg12, bitTargetInside}
)

// zoneIs is a condition on regZones.
func (e end) zoneIs(number uint16) bits {
	return bits{uint64(number) << e.zone, 0xffff << e.zone}
}

// isMember is the condition that the end is in the policy group of a number.
func (e end) isMember(number uint16) flow.FieldMatch {
	bit := uint64(1) << ((number - 1) % 32)
	return flow.Masked(e.groups+flow.Field((number-1)/32), bit, bit)
}
