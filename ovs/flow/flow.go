// Package flow is the typed form of Open vSwitch flows: fields, matches, actions,
// flows, sets of flows and the difference of two sets, with one canonical form each, so
// that what is desired and what a switch reports compare exactly.
//
// It never talks to a switch and knows nothing of tenants. Flow.String prints what
// `ovs-ofctl --no-stats dump-flows` prints.
package flow

import "net/netip"

// Bytes holds a field's value or mask, right-aligned, in network order.
type Bytes [16]byte

// FieldMatch is a condition on one field. An all-zero mask never occurs; an exact
// match has ones for the whole width of the field. Value has no bit outside Mask.
type FieldMatch struct {
	Field       Field
	Value, Mask Bytes
}

// MAC is a hardware address.
type MAC [6]byte

// Table is a table number.
type Table uint8

// Match is a conjunction of conditions, at most one a field, in Field order.
// Construct with NewMatch or And; compare by Key.
type Match struct{ fields []FieldMatch }

// Flow is one entry of a flow table. Its identity is (Table, Priority, Match); its
// value Cookie and Actions. An empty Actions list drops.
type Flow struct {
	Table    Table
	Priority uint16
	Cookie   uint64
	Match    Match
	Actions  []Action
}

// Action is one step of a flow. The implementations are the types of this file;
// each is comparable or holds only comparable parts.
type Action interface{ isAction() }

// The actions.
type (
	// Output sends to a port number; Port may be PortInPort, PortController, PortLocal.
	Output struct{ Port uint32 }
	// OutputReg sends to the port number in Src.
	OutputReg struct{ Src Subfield }
	// SetField sets the bits of a field that Mask has (all of them for an exact FieldMatch).
	SetField struct{ FieldMatch }
	// Move copies bits; both have the same width.
	Move struct{ Src, Dst Subfield }
	// DecTTL decrements the IP ttl; a packet whose ttl runs out is dropped.
	DecTTL struct{}
	// Goto continues in a higher table; it is the last action.
	Goto struct{ Table Table }
	// Resubmit looks up in any table and then continues behind it.
	Resubmit struct{ Table Table }
	// CT sends through connection tracking.
	CT struct {
		Commit  bool
		Force   bool
		Zone    uint16
		ZoneSrc Subfield // used instead of Zone if its width is not zero
		Table   Table    // where to recirculate to; NoTable for nowhere
		Exec    string   // reserved for the canonical text of nested actions, see Nested
		Nested  *[]Action
	}
	// MeterAction passes through a meter.
	MeterAction struct{ ID uint32 }
	// Controller sends the packet to the agent.
	Controller struct {
		MaxLen   uint16
		UserData string
	}
)

// Subfield is bits Offset..Offset+Width-1 of a field, counted from the least significant.
type Subfield struct {
	Field         Field
	Offset, Width uint16
}

// Reserved port numbers and tables.
const (
	PortInPort     uint32 = 0xfffffff8
	PortController uint32 = 0xfffffffd
	PortLocal      uint32 = 0xfffffffe
	NoTable        Table  = 255
)

// Whole is all bits of a field.
func Whole(f Field) Subfield { return Subfield{Field: f} }

// Eq is an exact match on an integer field.
func Eq(f Field, v uint64) FieldMatch { panic("to write") }

// EqMAC is an exact match on a hardware address field.
func EqMAC(f Field, m MAC) FieldMatch { panic("to write") }

// EqIP is an exact match on an address field of the address's family.
func EqIP(f Field, a netip.Addr) FieldMatch { panic("to write") }

// InPrefix matches the addresses of a prefix.
func InPrefix(f Field, p netip.Prefix) FieldMatch { panic("to write") }

// Masked matches some bits of an integer field.
func Masked(f Field, v, mask uint64) FieldMatch { panic("to write") }

// NewMatch is the conjunction of conditions. It panics on two conditions on one field,
// which is a defect of the caller's, never of input.
func NewMatch(fs ...FieldMatch) Match { panic("to write") }

// And is m with more conditions.
func (m Match) And(fs ...FieldMatch) Match { panic("to write") }

// Key is the flow's identity, comparable.
type Key struct {
	Table    Table
	Priority uint16
	Match    string
}

// Set is flows by identity.
type Set map[Key]Flow

// Diff is what turns one Set into another: Delete strictly by identity, then Add
// (an Add of an existing identity modifies it).
type Diff struct{ Add, Delete []Flow }
