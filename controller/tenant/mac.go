package tenant

import (
	"crypto/rand"
	"fmt"
	"net"
)

// MAC is a 48-bit hardware address. The zero MAC means none; its text is empty.
type MAC [6]byte

// ParseMAC reads the usual forms of a 48-bit unicast address. The zero address and
// group addresses are refused, since no interface can have one.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return MAC{}, fmt.Errorf("%w: %.80q is not a MAC address (six hexadecimal bytes, as in 02:42:ac:11:00:02)", ErrInvalid, s)
	}
	m := MAC(hw)
	if m.IsZero() || m[0]&1 != 0 {
		return MAC{}, fmt.Errorf("%w: MAC address %s is not a unicast address", ErrInvalid, hw)
	}
	return m, nil
}

// RandomMAC returns a locally administered unicast address. It never derives from an
// IP address: an address that comes back with the same MAC keeps stale neighbours alive.
func RandomMAC() MAC {
	var m MAC
	rand.Read(m[:]) // never fails since Go 1.24
	m[0] = m[0]&^1 | 2
	return m
}

// IsZero reports whether there is no address.
func (m MAC) IsZero() bool { return m == MAC{} }

// String is lower-case hexadecimal with colons; empty for the zero MAC.
func (m MAC) String() string {
	if m.IsZero() {
		return ""
	}
	return net.HardwareAddr(m[:]).String()
}

// MarshalText implements encoding.TextMarshaler.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; empty text is the zero MAC.
func (m *MAC) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*m = MAC{}
		return nil
	}
	got, err := ParseMAC(string(b))
	if err != nil {
		return err
	}
	*m = got
	return nil
}

// GatewayMAC is the distributed router's hardware address, the same in every subnet of
// every domain, so that a vport may move between hosts and a route need not know which
// subnet a packet came from. No vport may have it.
var GatewayMAC = MAC{0x0a, 'n', 'u', 'a', 'g', 'e'}
