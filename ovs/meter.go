package ovs

import (
	"context"
	"errors"
	"fmt"

	"nuage/ovs/openflow"
)

// Meters are the meters of the bridge. They die with ovs-vswitchd: after a new
// Status.Epoch they may be gone. It does not wait for a connection, as Flows does not.
func (b *Bridge) Meters(ctx context.Context) ([]openflow.Meter, error) {
	c, err := b.openflow()
	if err != nil {
		return nil, err
	}
	all, err := c.Meters(ctx)
	return all, b.explain(err)
}

// MeterStats are what the meters of the bridge have dropped. It does not wait for a
// connection.
func (b *Bridge) MeterStats(ctx context.Context) ([]openflow.MeterStats, error) {
	c, err := b.openflow()
	if err != nil {
		return nil, err
	}
	all, err := c.MeterStats(ctx)
	return all, b.explain(err)
}

// SetMeter makes the meter as it says, in place: the flows that use it stay. A meter that
// is so already keeps what it has counted and is not touched. A flow that uses a meter is
// refused while the meter does not exist. It does not wait for a connection.
func (b *Bridge) SetMeter(ctx context.Context, m openflow.Meter) error {
	if m.Rate == 0 {
		return fmt.Errorf("meter %d: a rate is at least 1", m.ID)
	}
	c, err := b.openflow()
	if err != nil {
		return err
	}
	return b.explain(setMeter(ctx, c, m))
}

func setMeter(ctx context.Context, c *openflow.Conn, m openflow.Meter) error {
	has, known, err := c.Meter(ctx, m.ID)
	switch {
	case err != nil:
		return err
	case known && has == m:
		return nil
	case known:
		return c.ModifyMeter(ctx, m)
	}
	err = c.AddMeter(ctx, m)
	var refused *openflow.Error
	if errors.As(err, &refused) && refused.Name == "OFPMMFC_METER_EXISTS" { // somebody was faster
		return c.ModifyMeter(ctx, m)
	}
	return err
}

// DeleteMeter deletes the meter, and the switch with it all flows that use it: change or
// delete those first. An unknown meter is nil. It does not wait for a connection.
func (b *Bridge) DeleteMeter(ctx context.Context, id uint32) error {
	if id < 1 || id > maxMeter && id != openflow.ControllerMeter && id != openflow.SlowpathMeter {
		return fmt.Errorf("meter %d: no such number", id) // one number means all
	}
	c, err := b.openflow()
	if err != nil {
		return err
	}
	return b.explain(c.DeleteMeter(ctx, id))
}

// maxMeter is the highest number of a meter that flows use in the protocol; the switch has
// a limit of its own.
const maxMeter = 0xffff0000
