package openflow

import (
	"context"
	"fmt"
)

// flushZone is NXT_CT_FLUSH_ZONE of openflow/nicira-ext.h, since Open vSwitch 2.6.
const flushZone = 29

// FlushZone has the switch's datapath forget all connections of a conntrack zone. One without
// any is fine.
func (c *Conn) FlushZone(ctx context.Context, zone uint16) error {
	err := c.tell(ctx, func(b []byte, xid uint32) []byte {
		b = be.AppendUint32(be.AppendUint32(appendHeader(b, typeExperimenter, xid), vendorNicira), flushZone)
		return be.AppendUint16(append(b, 0, 0, 0, 0, 0, 0), zone)
	})
	if err != nil {
		return fmt.Errorf("conntrack zone %d: %w", zone, err)
	}
	return nil
}
