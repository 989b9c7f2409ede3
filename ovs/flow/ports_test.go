package flow

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

func TestPortRange(t *testing.T) {
	for _, c := range []struct {
		first, last uint16
		want        string
	}{
		{0, 65535, "[tcp]"},
		{80, 80, "[tcp,tp_dst=80]"},
		{65535, 65535, "[tcp,tp_dst=65535]"},
		{80, 79, "[]"},
		{80, 81, "[tcp,tp_dst=0x50/0xfffe]"},
		{1, 2, "[tcp,tp_dst=1 tcp,tp_dst=2]"},
		{1024, 65535, "[tcp,tp_dst=0x400/0xfc00 tcp,tp_dst=0x800/0xf800 tcp,tp_dst=0x1000/0xf000 " +
			"tcp,tp_dst=0x2000/0xe000 tcp,tp_dst=0x4000/0xc000 tcp,tp_dst=0x8000/0x8000]"},
	} {
		matches := []Match{}
		for _, p := range PortRange(TCPDst, c.first, c.last) {
			matches = append(matches, NewMatch(p, Eq(EthType, EthIPv4)))
		}
		if got := fmt.Sprint(matches); got != c.want {
			t.Errorf("%d-%d: got %s, want %s", c.first, c.last, got, c.want)
		}
	}
	if n := len(PortRange(UDPSrc, 1, 65534)); n != 30 {
		t.Errorf("1-65534 has %d pieces", n)
	}
	defer func() {
		if recover() == nil {
			t.Error("a register is taken for a port")
		}
	}()
	PortRange(Reg0, 1, 2)
}

// Each port is met as often as it is in the range, and no two pieces could be one.
func TestPortRangeIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		near := rapid.OneOf(rapid.Uint16(), rapid.SampledFrom([]uint16{0, 1, 1023, 1024, 32767, 32768, 65534, 65535}))
		first, last := near.Draw(t, "first"), near.Draw(t, "last")
		pieces := PortRange(CTPortDst, first, last)
		met := make([]int, 1<<16)
		for _, p := range pieces {
			free := uint16(^p.MaskUint())
			for sub := free; ; sub = (sub - 1) & free {
				met[uint16(p.Uint())|sub]++
				if sub == 0 {
					break
				}
			}
		}
		for port, n := range met {
			if want := uint16(port) >= first && uint16(port) <= last; n > 1 || want != (n == 1) {
				t.Fatalf("%d-%d: port %d is met by %d of %v", first, last, port, n, pieces)
			}
		}
		if best := fewest(uint32(first), uint32(last), 0, 1<<16); len(pieces) != best {
			t.Fatalf("%d-%d: %d pieces, %d would do", first, last, len(pieces), best)
		}
	})
}

// fewest is the number of blocks of a binary tree that make up first-last, counted from
// the root down.
func fewest(first, last, at, size uint32) int {
	switch {
	case last < at || first >= at+size || first > last:
		return 0
	case first <= at && at+size-1 <= last:
		return 1
	}
	return fewest(first, last, at, size/2) + fewest(first, last, at+size/2, size/2)
}
