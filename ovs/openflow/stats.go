package openflow

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"nuage/ovs/flow"
)

const (
	multipartFlow   = 1
	multipartMeter  = 10 // the configuration
	multipartMore   = 1
	multipartHeader = 8
)

// Filter chooses flows. The zero Filter is all flows.
type Filter struct {
	Table              *flow.Table // nil for every table
	Cookie, CookieMask uint64      // flows whose cookie is Cookie in the bits of CookieMask
}

// Flows reads the flows that the filter chooses, with their counters. A flow that holds
// what package flow does not model is among them, and differs from every flow made there.
func (c *Conn) Flows(ctx context.Context, filter Filter) ([]flow.Stats, error) {
	req := func(b []byte, xid uint32) []byte {
		b = append(appendHeader(b, typeMultipartRequest, xid), 0, multipartFlow, 0, 0, 0, 0, 0, 0)
		table := flow.NoTable // which is every table here
		if filter.Table != nil {
			table = *filter.Table
		}
		b = append(b, byte(table), 0, 0, 0)
		b = be.AppendUint32(b, anyPort)
		b = be.AppendUint32(b, anyPort) // any group
		b = append(b, 0, 0, 0, 0)
		b = be.AppendUint64(b, filter.Cookie)
		b = be.AppendUint64(b, filter.CookieMask)
		return appendMatch(b, flow.Match{})
	}
	var all []flow.Stats
	err := c.multipart(ctx, multipartFlow, req, func(b []byte) (err error) {
		all, err = decodeFlowStats(all, b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read flows: %w", err)
	}
	return all, nil
}

// multipart sends a request and passes the body of each part of the answer to part.
func (c *Conn) multipart(ctx context.Context, kind uint16, req func(b []byte, xid uint32) []byte, part func(b []byte) error) error {
	return c.call(ctx, req, func(m message) (bool, error) {
		if m.typ != typeMultipartReply || len(m.body) < multipartHeader || be.Uint16(m.body) != kind {
			return true, unexpected(m)
		}
		more := be.Uint16(m.body[2:])&multipartMore != 0
		return !more, part(m.body[multipartHeader:])
	})
}

// decodeFlowStats appends the flows of one part of the answer.
func decodeFlowStats(all []flow.Stats, b []byte) ([]flow.Stats, error) {
	for len(b) > 0 {
		if len(b) < 52 {
			return nil, errShort
		}
		n := int(be.Uint16(b))
		if n < 52 || n > len(b) {
			return nil, errShort
		}
		s := flow.Stats{
			Flow: flow.Flow{
				Table:    flow.Table(b[2]),
				Priority: be.Uint16(b[12:]),
				Cookie:   be.Uint64(b[24:]),
				Foreign:  foreignState(b),
			},
			Duration: time.Duration(be.Uint32(b[4:]))*time.Second + time.Duration(be.Uint32(b[8:])),
			Packets:  be.Uint64(b[32:]),
			Bytes:    be.Uint64(b[40:]),
		}
		var err error
		rest := b[48:n]
		if s.Match, rest, err = decodeMatch(rest); err != nil {
			return nil, err
		}
		if s.Actions, err = decodeInstructions(rest); err != nil {
			return nil, err
		}
		all = append(all, s)
		b = b[n:]
	}
	return all, nil
}

// foreignState is the timeouts, flags and importance of a flow as ovs-ofctl prints
// them; "" for those of our flows.
func foreignState(b []byte) string {
	idle, hard, flags, importance := be.Uint16(b[14:]), be.Uint16(b[16:]), be.Uint16(b[18:]), be.Uint16(b[20:])
	if idle|hard|flags|importance == 0 {
		return ""
	}
	s := ""
	number := func(name string, v uint16) {
		if v != 0 {
			s += name + "=" + strconv.Itoa(int(v)) + ", "
		}
	}
	number("idle_timeout", idle)
	number("hard_timeout", hard)
	for i, name := range [...]string{"send_flow_rem", "check_overlap", "reset_counts", "no_packet_counts", "no_byte_counts"} {
		if flags>>i&1 != 0 {
			s += name + " "
		}
	}
	number("importance", importance)
	return s
}
