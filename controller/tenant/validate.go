package tenant

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The ranges of numbers and the length of texts.
const (
	MaxNameLength        = 255  // characters
	MaxDescriptionLength = 4096 // bytes
	MinCustomerID        = 10000
	MaxVNI               = 1<<24 - 1
	MaxDomainNumber      = 1<<15 - 1
	MaxZoneNumber        = 1<<16 - 1
	minPrefix            = 8
	maxPrefix            = 30
)

// nowhere are prefixes in which no tenant can have addresses: hosts treat them specially.
var nowhere = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/3"),
}

// ValidateName decides whether an object can have the name: 1 to 255 characters, all of
// them graphic (letters of any script, digits, punctuation, symbols, spaces), no space at
// either end, and no dash at the start, so that a name never reads as an option of a
// command.
func ValidateName(name string) error {
	switch {
	case name == "":
		return Errorf(ErrInvalid, "the name is empty")
	case !utf8.ValidString(name):
		return Errorf(ErrInvalid, "the name %q is not valid UTF-8", name)
	case utf8.RuneCountInString(name) > MaxNameLength:
		return Errorf(ErrInvalid, "the name %.32q… has more than %d characters", name, MaxNameLength)
	case strings.TrimSpace(name) != name:
		return Errorf(ErrInvalid, "the name %q begins or ends with a space", name)
	case strings.HasPrefix(name, "-"):
		return Errorf(ErrInvalid, "the name %q begins with a dash", name)
	}
	for _, r := range name {
		if !unicode.IsGraphic(r) {
			return Errorf(ErrInvalid, "the name %q contains the unprintable character %U", name, r)
		}
	}
	return nil
}

// Noun is the singular of a kind, as messages have it.
func (k Kind) Noun() string {
	switch k {
	case KindLease:
		return "address"
	case KindPolicy:
		return "policy"
	case KindEntry:
		return "entry"
	case KindPolicyGroup:
		return "policy group"
	case KindNetworkMacro:
		return "network macro"
	case KindRateLimiter:
		return "rate limiter"
	}
	return strings.TrimSuffix(string(k), "s")
}

// ValidateID decides whether id is a lower-case UUID.
func ValidateID(id string) error {
	ok := len(id) == 36
	for i := 0; ok && i < len(id); i++ {
		switch c := id[i]; i {
		case 8, 13, 18, 23:
			ok = c == '-'
		default:
			ok = '0' <= c && c <= '9' || 'a' <= c && c <= 'f'
		}
	}
	if !ok {
		return Errorf(ErrInvalid, "%q is not a lower-case UUID", id)
	}
	return nil
}

// ParseCIDR reads the prefix of a subnet and checks it as ValidateCIDR does.
func ParseCIDR(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, Errorf(ErrInvalid, "%q is not a prefix such as 10.85.85.0/24", s)
	}
	return p, ValidateCIDR(p)
}

// ValidateCIDR decides whether a subnet can have the prefix: IPv4, /8 to /30, host bits
// zero, and not loopback, link-local, multicast or reserved.
func ValidateCIDR(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return Errorf(ErrInvalid, "no CIDR given")
	case !p.Addr().Is4():
		return Errorf(ErrInvalid, "%s is not an IPv4 prefix", p)
	case p.Bits() < minPrefix || p.Bits() > maxPrefix:
		return Errorf(ErrInvalid, "%s: a subnet is between /%d and /%d", p, minPrefix, maxPrefix)
	case p.Masked() != p:
		return Errorf(ErrInvalid, "%s has host bits set; its prefix is %s", p, p.Masked())
	}
	for _, n := range nowhere {
		if n.Overlaps(p) {
			return Errorf(ErrInvalid, "%s lies in %s, which tenants cannot use", p, n)
		}
	}
	return nil
}

// FirstHost and Broadcast are the lowest usable and the highest address of an IPv4
// prefix. FirstHost is the gateway of a subnet that names none.
func FirstHost(p netip.Prefix) netip.Addr { return p.Masked().Addr().Next() }

// Broadcast: see FirstHost.
func Broadcast(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	n := binary.BigEndian.Uint32(a[:]) | (1<<(32-p.Bits()) - 1)
	binary.BigEndian.PutUint32(a[:], n)
	return netip.AddrFrom4(a)
}

// ValidateAddress decides whether a can be an interface's address in the prefix p:
// inside, and neither the network's nor the broadcast address.
func ValidateAddress(p netip.Prefix, a netip.Addr) error {
	switch {
	case !a.IsValid():
		return Errorf(ErrInvalid, "no address given")
	case !p.Contains(a):
		return Errorf(ErrInvalid, "%s is not in %s", a, p)
	case a == p.Masked().Addr():
		return Errorf(ErrInvalid, "%s is the network address of %s", a, p)
	case a == Broadcast(p):
		return Errorf(ErrInvalid, "%s is the broadcast address of %s", a, p)
	}
	return nil
}

// Validate checks what can be checked without other objects, and like all the methods
// Validate below leaves it to the caller to name the object. CustomerID 0 is fine: it is
// chosen on creation.
func (e Enterprise) Validate() error {
	if e.CustomerID != 0 && e.CustomerID < MinCustomerID {
		return Errorf(ErrInvalid, "customerID %d is below %d", e.CustomerID, MinCustomerID)
	}
	return validateNamed(e.Meta, e.Name, e.Description)
}

// Validate accepts a VNI and a Number of 0: they are chosen on creation.
func (d Domain) Validate() error {
	if d.Number > MaxDomainNumber {
		return Errorf(ErrInvalid, "number %d is above %d", d.Number, MaxDomainNumber)
	}
	return errors.Join(validateNamed(d.Meta, d.Name, d.Description), validateVNI(d.VNI))
}

// Validate accepts a Number of 0: it is chosen on creation.
func (z Zone) Validate() error { return validateNamed(z.Meta, z.Name, z.Description) }

// Validate accepts a VNI of 0: it is chosen on creation. The gateway must be there
// (see FirstHost).
func (s Subnet) Validate() error {
	if err := errors.Join(validateNamed(s.Meta, s.Name, s.Description), validateVNI(s.VNI)); err != nil {
		return err
	}
	if err := ValidateCIDR(s.CIDR); err != nil {
		return err
	}
	if err := ValidateAddress(s.CIDR, s.Gateway); err != nil {
		return Errorf(ErrInvalid, "gateway: %v", err)
	}
	return nil
}

// Validate checks a vport, which has a MAC and an address unless it says in Error why
// it could not be attached.
func (v Vport) Validate() error {
	if err := validateNamed(v.Meta, v.Name, ""); err != nil {
		return err
	}
	switch {
	case v.Type != VportContainer && v.Type != VportVM:
		return Errorf(ErrInvalid, "type %q is neither %s nor %s", v.Type, VportContainer, VportVM)
	case v.MAC[0]&1 != 0:
		return Errorf(ErrInvalid, "%s is not a unicast MAC address", v.MAC)
	case v.Error == "" && v.MAC.IsZero():
		return Errorf(ErrInvalid, "no MAC address")
	case v.Error == "" && !v.IPv4.Is4():
		return Errorf(ErrInvalid, "no IPv4 address")
	}
	for _, g := range v.PolicyGroups {
		if err := ValidateName(g); err != nil {
			return Errorf(ErrInvalid, "policy group: %v", err)
		}
	}
	for i, vip := range v.VirtualIPs {
		switch {
		case !vip.IPv4.Is4() || vip.IPv4 == v.IPv4:
			return Errorf(ErrInvalid, "virtual IP %s is not a further IPv4 address", vip.IPv4)
		case vip.MAC[0]&1 != 0 || vip.MAC == GatewayMAC:
			return Errorf(ErrInvalid, "virtual IP %s: %s is not a MAC address for a vport", vip.IPv4, vip.MAC)
		case slices.ContainsFunc(v.VirtualIPs[:i], func(o VirtualIP) bool { return o.IPv4 == vip.IPv4 }):
			return Errorf(ErrInvalid, "virtual IP %s is given twice", vip.IPv4)
		}
	}
	return nil
}

// Validate checks a lease.
func (l Lease) Validate() error {
	switch {
	case !l.Address.Is4():
		return Errorf(ErrInvalid, "not an IPv4 address")
	case l.State != LeaseReserved && l.State != LeaseBound && l.State != LeaseResting:
		return Errorf(ErrInvalid, "unknown state %q", l.State)
	case l.Use != UseGateway && l.Use != UseAuxiliary && l.Use != UseEndpoint:
		return Errorf(ErrInvalid, "unknown use %q", l.Use)
	}
	return nil
}

// Validate checks a Docker network.
func (n Network) Validate() error {
	if err := ValidateName(n.ID); err != nil || strings.Contains(n.ID, "/") {
		return Errorf(ErrInvalid, "%q is not a network's ID", n.ID)
	}
	return nil
}

// Validate checks a host, whose ID is its name.
func (h Host) Validate() error {
	if strings.Contains(h.ID, "/") {
		return Errorf(ErrInvalid, "the name %q contains a slash", h.ID)
	}
	if h.MTU != 0 && (h.MTU < LeastUnderlayMTU || h.MTU > maxUnderlayMTU) {
		return Errorf(ErrInvalid, "MTU %d is not from %d to %d", h.MTU, LeastUnderlayMTU, maxUnderlayMTU)
	}
	return ValidateName(h.ID)
}

func validateVNI(vni uint32) error {
	if vni > MaxVNI {
		return Errorf(ErrInvalid, "VNI %d is above %d", vni, MaxVNI)
	}
	return nil
}

func validateNamed(m Meta, name, description string) error {
	if err := ValidateName(name); err != nil {
		return err
	}
	if m.ID != "" {
		if err := ValidateID(m.ID); err != nil {
			return err
		}
	}
	if m.ExternalID != "" {
		if err := ValidateName(m.ExternalID); err != nil {
			return Errorf(ErrInvalid, "external ID: %v", err)
		}
	}
	if len(description) > MaxDescriptionLength || !utf8.ValidString(description) {
		return Errorf(ErrInvalid, "the description is not UTF-8 of at most %d bytes", MaxDescriptionLength)
	}
	return nil
}
