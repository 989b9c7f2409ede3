package openflow

import (
	"context"
	"fmt"
)

const multipartMeterStats = 9

// MeterStats is what a meter has dropped since it was added or last modified.
type MeterStats struct {
	ID             uint32
	Packets, Bytes uint64
}

// MeterStats reads what the meters have dropped. Of one with several bands, the first counts.
func (c *Conn) MeterStats(ctx context.Context) ([]MeterStats, error) {
	req := func(b []byte, xid uint32) []byte {
		b = append(appendHeader(b, typeMultipartRequest, xid), 0, multipartMeterStats, 0, 0, 0, 0, 0, 0)
		b = be.AppendUint32(b, allIDs)
		return append(b, 0, 0, 0, 0)
	}
	var all []MeterStats
	err := c.multipart(ctx, multipartMeterStats, req, func(b []byte) (err error) {
		all, err = decodeMeterStats(all, b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read what meters dropped: %w", err)
	}
	return all, nil
}

func decodeMeterStats(all []MeterStats, b []byte) ([]MeterStats, error) {
	const head, band = 40, 16
	for len(b) > 0 {
		if len(b) < head {
			return nil, errShort
		}
		n := int(be.Uint16(b[4:]))
		if n < head || n > len(b) {
			return nil, errShort
		}
		m := MeterStats{ID: be.Uint32(b)}
		if n >= head+band {
			m.Packets, m.Bytes = be.Uint64(b[head:]), be.Uint64(b[head+8:])
		}
		all = append(all, m)
		b = b[n:]
	}
	return all, nil
}
