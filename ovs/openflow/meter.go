package openflow

import (
	"context"
	"errors"
	"fmt"
)

const (
	meterAdd    = 0
	meterModify = 1
	meterDelete = 2

	meterKbps    = 1
	meterPackets = 2
	meterBurst   = 4

	bandDrop = 1
	allIDs   = 0xffffffff
)

// Meters that no flow names, for what costs ovs-vswitchd itself. One comes into force, and
// ends, with the next change of any flow: the switch caches what it has decided for a
// packet's like.
const (
	// ControllerMeter is passed by the packets that flows send to the agent, but for those of
	// a flow.Controller with a meter of its own.
	ControllerMeter uint32 = 0xfffffffe
	// SlowpathMeter is passed by the packets whose flow the datapath cannot do alone: in an
	// ARP answer, say. The first packet of each kind does not pass it.
	SlowpathMeter uint32 = 0xfffffffd
)

// Meter drops what exceeds a rate.
type Meter struct {
	ID      uint32 // 1 and above
	Rate    uint32 // kbit/s, or packets/s if Packets
	Burst   uint32 // kbit, or packets; 0 for the switch's default, one second of the rate
	Packets bool
}

// AddMeter adds a meter; the switch refuses one whose ID exists (OFPMMFC_METER_EXISTS).
func (c *Conn) AddMeter(ctx context.Context, m Meter) error { return c.meter(ctx, meterAdd, m) }

// ModifyMeter changes a meter; the flows that use it stay.
func (c *Conn) ModifyMeter(ctx context.Context, m Meter) error { return c.meter(ctx, meterModify, m) }

// DeleteMeter deletes a meter, and the switch with it the flows that use it. Deleting an
// unknown one is fine.
func (c *Conn) DeleteMeter(ctx context.Context, id uint32) error {
	return c.meter(ctx, meterDelete, Meter{ID: id})
}

func (c *Conn) meter(ctx context.Context, command uint16, m Meter) error {
	err := c.tell(ctx, func(b []byte, xid uint32) []byte {
		b = be.AppendUint16(appendHeader(b, typeMeterMod, xid), command)
		flags := uint16(meterKbps)
		if m.Packets {
			flags = meterPackets
		}
		if m.Burst != 0 {
			flags |= meterBurst
		}
		b = be.AppendUint32(be.AppendUint16(b, flags), m.ID)
		if command == meterDelete {
			return b
		}
		b = be.AppendUint32(append(b, 0, bandDrop, 0, 16), m.Rate)
		b = be.AppendUint32(b, m.Burst)
		return append(b, 0, 0, 0, 0)
	})
	if err != nil {
		return fmt.Errorf("meter %d: %w", m.ID, err)
	}
	return nil
}

// Meters reads the meters. Of one with several bands, the first counts.
func (c *Conn) Meters(ctx context.Context) ([]Meter, error) {
	all, err := c.meters(ctx, allIDs)
	if err != nil {
		return nil, fmt.Errorf("read meters: %w", err)
	}
	return all, nil
}

// Meter reads one meter; of an unknown one it returns false.
func (c *Conn) Meter(ctx context.Context, id uint32) (Meter, bool, error) {
	all, err := c.meters(ctx, id)
	var refused *Error
	switch {
	case errors.As(err, &refused) && refused.Name == "OFPMMFC_UNKNOWN_METER":
		return Meter{}, false, nil
	case err != nil:
		return Meter{}, false, fmt.Errorf("read meter %d: %w", id, err)
	case len(all) != 1 || all[0].ID != id:
		return Meter{}, false, fmt.Errorf("read meter %d: the switch says %v", id, all)
	}
	return all[0], true, nil
}

func (c *Conn) meters(ctx context.Context, id uint32) ([]Meter, error) {
	req := func(b []byte, xid uint32) []byte {
		b = append(appendHeader(b, typeMultipartRequest, xid), 0, multipartMeter, 0, 0, 0, 0, 0, 0)
		b = be.AppendUint32(b, id)
		return append(b, 0, 0, 0, 0)
	}
	var all []Meter
	err := c.multipart(ctx, multipartMeter, req, func(b []byte) (err error) {
		all, err = decodeMeters(all, b)
		return err
	})
	return all, err
}

func decodeMeters(all []Meter, b []byte) ([]Meter, error) {
	for len(b) > 0 {
		if len(b) < 8 {
			return nil, errShort
		}
		n := int(be.Uint16(b))
		if n < 8 || n > len(b) {
			return nil, errShort
		}
		m := Meter{ID: be.Uint32(b[4:]), Packets: be.Uint16(b[2:])&meterPackets != 0}
		if n >= 24 {
			m.Rate = be.Uint32(b[12:])
			if be.Uint16(b[2:])&meterBurst != 0 {
				m.Burst = be.Uint32(b[16:])
			}
		}
		all = append(all, m)
		b = b[n:]
	}
	return all, nil
}
