package openflow

import (
	"bytes"
	"context"
	"fmt"

	"nuage/ovs/flow"
)

const (
	nxSetPacketInFormat = 16
	nxPacketIn2         = 30
	packetInFormat2     = 2

	// Properties of nxPacketIn2.
	pinPacket   = 0
	pinTable    = 3
	pinCookie   = 4
	pinReason   = 5
	pinMetadata = 6
	pinUserData = 7

	eventBuffer = 256
)

// Event is what the switch says unasked: a PacketIn or a PortStatus.
type Event interface{ isEvent() }

// PacketIn is a packet that a flow sent to the agent.
type PacketIn struct {
	Packet   []byte
	Table    flow.Table
	Cookie   uint64     // of the flow
	Metadata flow.Match // the input port, the registers and tunnel fields that are not zero
	UserData string     // of the flow's Controller action
	Reason   uint8
}

// PortStatus is a port that came, changed or went.
type PortStatus struct {
	Reason uint8 // PortAdded, PortDeleted or PortModified
	Port   uint32
	Name   string
	MAC    flow.MAC
}

// Reasons of a PortStatus.
const (
	PortAdded    = 0
	PortDeleted  = 1
	PortModified = 2
)

func (PacketIn) isEvent()   {}
func (PortStatus) isEvent() {}

// Listen asks the switch for events and returns the channel that they come on, which is
// the same for every call and is closed with the connection. Events that nobody has
// taken are dropped from some hundred on; Dropped counts them. From then on the bridge also
// shows flows the ports of first fragments: without, they are 0 in every fragment, and a flow
// that drops by port would let a fragmented packet through.
func (c *Conn) Listen(ctx context.Context) (<-chan Event, error) {
	err := c.tell(ctx, func(b []byte, xid uint32) []byte {
		b = be.AppendUint32(appendHeader(b, typeExperimenter, xid), vendorNicira)
		return be.AppendUint32(be.AppendUint32(b, nxSetPacketInFormat), packetInFormat2)
	}, func(b []byte, xid uint32) []byte {
		return append(appendHeader(b, typeSetConfig, xid), 0, fragmentsShowPorts, 0xff, 0xff)
	})
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return c.events, nil
}

// Dropped is the number of events that were dropped because nobody took them in time.
func (c *Conn) Dropped() uint64 { return c.dropped.Load() }

// PacketOut has the switch send a packet as if it had come in by a port (PortController
// for none). Where the actions are an Output to PortTable, it passes the flow tables.
func (c *Conn) PacketOut(ctx context.Context, inPort uint32, actions []flow.Action, packet []byte) error {
	as, err := appendActions(nil, actions)
	if err == nil {
		err = c.tell(ctx, func(b []byte, xid uint32) []byte {
			b = be.AppendUint32(appendHeader(b, typePacketOut, xid), noBuffer)
			b = be.AppendUint16(be.AppendUint32(b, inPort), uint16(len(as)))
			b = append(append(b, zeros[:6]...), as...)
			return append(b, packet...)
		})
	}
	if err != nil {
		return fmt.Errorf("packet out: %w", err)
	}
	return nil
}

// event passes an event on. It runs on the reader, which must not wait.
func (c *Conn) event(m message) {
	e, ok := decodeEvent(m)
	if !ok {
		return
	}
	select {
	case c.events <- e:
	default:
		c.dropped.Add(1)
	}
}

func decodeEvent(m message) (Event, bool) {
	if m.typ == typePortStatus {
		return decodePortStatus(m.body)
	}
	b := m.body
	if len(b) < 8 || be.Uint32(b) != vendorNicira || be.Uint32(b[4:]) != nxPacketIn2 {
		return nil, false
	}
	return decodePacketIn(b[8:])
}

func decodePacketIn(b []byte) (Event, bool) {
	var p PacketIn
	for len(b) > 0 {
		typ, data, rest, err := nextProp(b)
		if err != nil {
			return nil, false
		}
		switch {
		case typ == pinPacket:
			p.Packet = data
		case typ == pinTable && len(data) >= 1:
			p.Table = flow.Table(data[0])
		case typ == pinCookie && len(data) >= 12:
			p.Cookie = be.Uint64(data[4:])
		case typ == pinReason && len(data) >= 1:
			p.Reason = data[0]
		case typ == pinMetadata:
			if p.Metadata, err = decodeOXMs(data); err != nil {
				return nil, false
			}
		case typ == pinUserData:
			p.UserData = string(data)
		}
		b = rest
	}
	return p, p.Packet != nil
}

// decodePortStatus reads the reason and the port's description.
func decodePortStatus(b []byte) (Event, bool) {
	if len(b) < 8+40 {
		return nil, false
	}
	p := PortStatus{Reason: b[0]}
	d := b[8:]
	p.Port = be.Uint32(d)
	copy(p.MAC[:], d[8:14])
	name, _, _ := bytes.Cut(d[16:32], []byte{0})
	p.Name = string(name)
	return p, true
}
