package flow

import (
	"fmt"
	"math/bits"
)

// PortRange is the conditions on a port field of which a port from first to last meets
// exactly one, and any other port none: as few as there are, at most 30, in rising order.
// All ports are one condition without a mask, which a Match leaves out; of first above last
// there are none. It panics on a field that is not of 16 bits, a defect of the caller's.
func PortRange(f Field, first, last uint16) []FieldMatch {
	if f.Bits() != 16 {
		panic(fmt.Sprintf("flow: %v is no port", f))
	}
	var pieces []FieldMatch
	for at, end := uint64(first), uint64(last)+1; at < end; {
		// The largest block that begins here: aligned, and not beyond the end.
		size := uint64(1) << min(bits.TrailingZeros64(at|1<<16), bits.Len64(end-at)-1)
		pieces = append(pieces, Masked(f, at, 1<<16-size))
		at += size
	}
	return pieces
}
