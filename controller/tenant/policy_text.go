package tenant

import (
	"strconv"
	"strings"
)

// Protocol is an IP protocol number, or ProtocolAny.
type Protocol uint16

// Protocols. The text of a Protocol is a name of these, or its number.
const (
	AnyProtocol Protocol = 256
	ICMP        Protocol = 1
	TCP         Protocol = 6
	UDP         Protocol = 17
	SCTP        Protocol = 132
)

var protocolNames = map[Protocol]string{AnyProtocol: "any", ICMP: "icmp", TCP: "tcp", UDP: "udp", SCTP: "sctp"}

// ParseProtocol reads "any" (or "*"), "tcp", "udp", "sctp", "icmp" in any case, or a number.
func ParseProtocol(s string) (Protocol, error) {
	word := strings.ToLower(s)
	if word == "*" {
		return AnyProtocol, nil
	}
	for p, name := range protocolNames {
		if name == word {
			return p, nil
		}
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, Errorf(ErrInvalid, "protocol %q is neither any, tcp, udp, sctp, icmp nor a number from 0 to 255", s)
	}
	return Protocol(n), nil
}

// String is what ParseProtocol reads.
func (p Protocol) String() string {
	if name, ok := protocolNames[p]; ok {
		return name
	}
	return strconv.Itoa(int(p))
}

// Tracked is whether a switch can follow the protocol's connections.
func (p Protocol) Tracked() bool { return p == TCP || p == UDP || p == ICMP }

// HasPorts is whether entries for the protocol may name ports.
func (p Protocol) HasPorts() bool { return p == TCP || p == UDP || p == SCTP }

// MarshalText and UnmarshalText are the text of JSON.
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (p *Protocol) UnmarshalText(b []byte) (err error) {
	*p, err = ParseProtocol(string(b))
	return err
}

// PortRange is ports From to To, both included; the zero value is every port.
type PortRange struct{ From, To uint16 }

// ParsePortRange reads "80", "80-90", or "*" (or nothing) for every port.
func ParsePortRange(s string) (PortRange, error) {
	if s == "" || s == "*" {
		return PortRange{}, nil
	}
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	lo, err1 := strconv.ParseUint(strings.TrimSpace(from), 10, 16)
	hi, err2 := strconv.ParseUint(strings.TrimSpace(to), 10, 16)
	switch {
	case err1 != nil || err2 != nil:
		return PortRange{}, Errorf(ErrInvalid, "port %q is neither a port such as 80, a range such as 80-90, nor *", s)
	case lo == 0:
		return PortRange{}, Errorf(ErrInvalid, "port %q: ports begin at 1", s)
	case lo > hi:
		return PortRange{}, Errorf(ErrInvalid, "port range %q ends before it begins", s)
	}
	return PortRange{uint16(lo), uint16(hi)}, nil
}

// Any is whether the range is every port.
func (r PortRange) Any() bool { return r == PortRange{} }

// Contains is whether a port is in the range. Port 0, of packets that show none, is only in
// the range of every port.
func (r PortRange) Contains(port uint16) bool { return r.Any() || r.From <= port && port <= r.To }

// String is what ParsePortRange reads.
func (r PortRange) String() string {
	switch {
	case r.Any():
		return "*"
	case r.From == r.To:
		return strconv.Itoa(int(r.From))
	}
	return strconv.Itoa(int(r.From)) + "-" + strconv.Itoa(int(r.To))
}

// MarshalText and UnmarshalText are the text of JSON.
func (r PortRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (r *PortRange) UnmarshalText(b []byte) (err error) {
	*r, err = ParsePortRange(string(b))
	return err
}

// OptionalByte is a value from 0 to 255, or none: the zero value.
type OptionalByte uint16

// SomeByte is an OptionalByte that has a value.
func SomeByte(v uint8) OptionalByte { return OptionalByte(v) + 1 }

// Value is the value, if there is one.
func (o OptionalByte) Value() (v uint8, ok bool) { return uint8(o - 1), o != 0 }

// Matches is whether v is the value, or there is none.
func (o OptionalByte) Matches(v uint8) bool { return o == 0 || o == SomeByte(v) }

// ParseOptionalByte reads a number up to 255, or "*" (or nothing) for none.
func ParseOptionalByte(s string) (OptionalByte, error) {
	if s == "" || s == "*" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, Errorf(ErrInvalid, "%q is neither a number from 0 to 255 nor *", s)
	}
	return SomeByte(uint8(n)), nil
}

// String is what ParseOptionalByte reads.
func (o OptionalByte) String() string {
	if v, ok := o.Value(); ok {
		return strconv.Itoa(int(v))
	}
	return "*"
}

// MarshalText and UnmarshalText are the text of JSON.
func (o OptionalByte) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (o *OptionalByte) UnmarshalText(b []byte) (err error) {
	*o, err = ParseOptionalByte(string(b))
	return err
}
