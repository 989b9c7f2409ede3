package flow

import "slices"

// Action is one step of a flow. The implementations are the types of this file. Compare
// actions with Equal of their Flow or with EqualActions: CT is not comparable.
type Action interface{ appendText(b []byte) []byte }

// The actions.
type (
	// Output sends to a port number; a packet never goes out of the port it came in by,
	// except by PortInPort. To send to the agent is Controller.
	Output struct{ Port uint32 }
	// OutputReg sends to the port number in Src.
	OutputReg struct{ Src Subfield }
	// SetField sets the bits of a field that Mask has (all of them for an exact
	// FieldMatch). The flow must match on what the field needs.
	SetField struct{ FieldMatch }
	// Load sets a subfield. It is how older programs write SetField; write SetField.
	Load struct {
		Dst   Subfield
		Value uint64
	}
	// Move copies bits; both have the same width.
	Move struct{ Src, Dst Subfield }
	// CheckLarger sets the bit Dst to whether the packet is longer than Bytes, its
	// Ethernet header counted, a VLAN tag not.
	CheckLarger struct {
		Bytes uint16
		Dst   Subfield
	}
	// DecTTL decrements the IP ttl; a packet whose ttl runs out is dropped.
	DecTTL struct{}
	// Goto continues in a higher table; it is the last action.
	Goto struct{ Table Table }
	// Resubmit looks up in any table and then continues behind it.
	Resubmit struct{ Table Table }
	// CT sends through connection tracking.
	CT struct {
		Commit  bool
		Force   bool     // of a commit: the connection begins anew in this direction
		Zone    uint16   // unless ZoneSrc
		ZoneSrc Subfield // 16 bits to take the zone from, or the zero Subfield
		Table   Table    // where to recirculate to; NoTable for nowhere
		NAT     *NAT     // nil for none
		Exec    []Action // of a commit: SetField, Load and Move on CTMark and CTLabel
	}
	// CTClear forgets what connection tracking has said of the packet.
	CTClear struct{}
	// MeterAction passes through a meter; it is the first action. The meter exists
	// before the flow; deleting a meter deletes the flows that use it.
	MeterAction struct{ ID uint32 }
	// Controller sends the packet to the agent.
	Controller struct {
		MaxLen   uint16 // bytes of the packet; 65535 for all
		ID       uint16 // of the controller; connections have 0 unless they ask for another
		Meter    uint32 // 0 for none
		UserData string // comes with the packet
	}
	// Foreign is an action of a flow found on a switch that is none of these. It can be
	// printed and told apart, but not sent.
	Foreign struct{ Text string }
)

// Subfield is bits Offset..Offset+Width-1 of a field, counted from the least significant.
type Subfield struct {
	Field         Field
	Offset, Width uint16
}

// Whole is all bits of a field.
func Whole(f Field) Subfield { return Subfield{Field: f, Width: f.Bits()} }

// Bits is some bits of a field.
func Bits(f Field, offset, width uint16) Subfield { return Subfield{f, offset, width} }

// Table is a table number.
type Table uint8

// NoTable is no table.
const NoTable Table = 255

// Reserved port numbers.
const (
	PortInPort     uint32 = 0xfffffff8
	PortTable      uint32 = 0xfffffff9
	PortNormal     uint32 = 0xfffffffa
	PortFlood      uint32 = 0xfffffffb
	PortAll        uint32 = 0xfffffffc
	PortController uint32 = 0xfffffffd
	PortLocal      uint32 = 0xfffffffe
	PortAny        uint32 = 0xffffffff
)

// EqualActions reports whether two lists of actions are the same.
func EqualActions(a, b []Action) bool { return slices.EqualFunc(a, b, equalAction) }

func equalAction(a, b Action) bool {
	x, ok := a.(CT)
	if !ok {
		_, other := b.(CT)
		return !other && a == b
	}
	y, ok := b.(CT)
	return ok && x.Commit == y.Commit && x.Force == y.Force && x.Zone == y.Zone && x.ZoneSrc == y.ZoneSrc &&
		x.Table == y.Table && equalNAT(x.NAT, y.NAT) && EqualActions(x.Exec, y.Exec)
}

func equalNAT(a, b *NAT) bool {
	return a == b || a != nil && b != nil && *a == *b
}
