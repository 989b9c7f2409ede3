package flow

import "net/netip"

// NAT is the address translation of a CT. The zero NAT translates the packets of
// connections that are translated already.
type NAT struct {
	Src, Dst         bool // which of the addresses of a new connection to translate: one at most
	Min, Max         netip.Addr
	PortMin, PortMax uint16
	Flags            uint16 // NATPersistent, NATHash, NATRandom
}

// Flags of a NAT.
const (
	NATPersistent = 1 << 2
	NATHash       = 1 << 3
	NATRandom     = 1 << 4
)
