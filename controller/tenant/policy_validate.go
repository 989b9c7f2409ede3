package tenant

import (
	"errors"
	"fmt"
)

// The ranges of policies' numbers.
const (
	MaxPolicyGroups = 128
	// MaxPriority is of policies and of their entries.
	MaxPriority = 1_900_000_000
	maxDSCP     = 63
	// The rates that a limiter can have, in bits a second.
	MinRate = 100_000
	MaxRate = 100_000_000_000
)

// Validate accepts a Number of 0: it is chosen on creation.
func (g PolicyGroup) Validate() error {
	if g.Number > MaxPolicyGroups {
		return Errorf(ErrInvalid, "number %d is above %d", g.Number, MaxPolicyGroups)
	}
	return validateNamed(g.Meta, g.Name, g.Description)
}

// Validate checks a network macro.
func (m NetworkMacro) Validate() error {
	if err := validateNamed(m.Meta, m.Name, m.Description); err != nil {
		return err
	}
	return validateSideCIDR(Side{CIDR: m.CIDR})
}

// Validate accepts a Number of 0: it is chosen on creation.
func (p Policy) Validate() error {
	switch {
	case !p.Direction.valid():
		return Errorf(ErrInvalid, "direction %q is neither %s nor %s", p.Direction, Ingress, Egress)
	case p.Priority > MaxPriority:
		return Errorf(ErrInvalid, "priority %d is above %d", p.Priority, MaxPriority)
	}
	return validateNamed(p.Meta, p.Name, p.Description)
}

func (d Direction) valid() bool { return d == Ingress || d == Egress }

// Validate checks an entry as far as that needs no other object: see State.CheckEntry.
func (e Entry) Validate() error {
	dscp, hasDSCP := e.DSCP.Value()
	if err := e.CheckMatch(); err != nil {
		return err
	}
	switch {
	case e.Priority > MaxPriority:
		return Errorf(ErrInvalid, "priority %d is above %d", e.Priority, MaxPriority)
	case e.Action != Forward && e.Action != Deny && e.Action != Reject:
		return Errorf(ErrInvalid, "action %q is neither %s, %s nor %s", e.Action, Forward, Deny, Reject)
	case e.SourcePort.From > e.SourcePort.To:
		return Errorf(ErrInvalid, "source port range %s ends before it begins", e.SourcePort)
	case e.DestinationPort.From > e.DestinationPort.To:
		return Errorf(ErrInvalid, "destination port range %s ends before it begins", e.DestinationPort)
	case e.ICMPCode != 0 && e.ICMPType == 0:
		return Errorf(ErrInvalid, "ICMP code %s without a type", e.ICMPCode)
	case hasDSCP && dscp > maxDSCP:
		return Errorf(ErrInvalid, "DSCP %d is above %d", dscp, maxDSCP)
	case e.Stateful && hasDSCP:
		return Errorf(ErrInvalid, "DSCP is a mark of each packet, not of a connection: the entry cannot be stateful")
	case e.Stateful && e.Protocol != AnyProtocol && !e.Protocol.Tracked():
		return Errorf(ErrInvalid, "connections of protocol %s cannot be tracked: the entry cannot be stateful", e.Protocol)
	case e.From.same() && e.To.same():
		return Errorf(ErrInvalid, "from and to are each other's %s and %s: one of them must be named", e.From.Kind, e.To.Kind)
	}
	return validateNamed(e.Meta, "entry", e.Description)
}

// CheckMatch refuses conditions that no packet can be held to: those of another protocol than
// the entry's, and sides of no known kind.
func (e Entry) CheckMatch() error {
	icmp := e.ICMPType != 0 || e.ICMPCode != 0
	ports := !e.SourcePort.Any() || !e.DestinationPort.Any()
	switch {
	case e.Protocol > AnyProtocol:
		return Errorf(ErrInvalid, "protocol %d is above 255", e.Protocol)
	case ports && !e.Protocol.HasPorts():
		return Errorf(ErrInvalid, "protocol %s has no ports: ports go with tcp, udp and sctp", e.Protocol)
	case icmp && e.Protocol != ICMP:
		return Errorf(ErrInvalid, "protocol %s has no ICMP type and code", e.Protocol)
	}
	if err := e.From.validate(); err != nil {
		return fmt.Errorf("from: %w", err)
	}
	if err := e.To.validate(); err != nil {
		return fmt.Errorf("to: %w", err)
	}
	return nil
}

func (s Side) same() bool { return s.Kind == SideSameZone || s.Kind == SideSameSubnet }

func (s Side) validate() error {
	_, named := s.Key()
	switch {
	case named && s.ID == "":
		return Errorf(ErrInvalid, "no %s given", s.Kind)
	case !named && s.ID != "", s.Kind != SideCIDR && s.CIDR.IsValid():
		return Errorf(ErrInvalid, "%s names no object and no prefix", s.Kind)
	case s.Kind == SideCIDR:
		return validateSideCIDR(s)
	}
	switch s.Kind {
	case SideAny, SideSameZone, SideSameSubnet, SideSameDomain:
		return nil
	}
	if named {
		return nil
	}
	return Errorf(ErrInvalid, "unknown kind %q", s.Kind)
}

func validateSideCIDR(s Side) error {
	switch {
	case !s.CIDR.IsValid():
		return Errorf(ErrInvalid, "no CIDR given")
	case !s.CIDR.Addr().Is4():
		return Errorf(ErrInvalid, "%s is not an IPv4 prefix", s.CIDR)
	case s.CIDR.Masked() != s.CIDR:
		return Errorf(ErrInvalid, "%s has host bits set; its prefix is %s", s.CIDR, s.CIDR.Masked())
	}
	return nil
}

// Validate checks a limiter.
func (l RateLimiter) Validate() error {
	switch {
	case !l.Direction.valid():
		return Errorf(ErrInvalid, "direction %q is neither %s nor %s", l.Direction, Ingress, Egress)
	case l.Rate < MinRate || l.Rate > MaxRate:
		return Errorf(ErrInvalid, "rate %d bit/s is not between %d and %d", l.Rate, uint64(MinRate), uint64(MaxRate))
	case l.Burst > MaxRate:
		return Errorf(ErrInvalid, "burst %d bit is above %d", l.Burst, uint64(MaxRate))
	case l.On.ID == "":
		return Errorf(ErrInvalid, "no object given")
	}
	switch l.On.Kind {
	case KindVport, KindSubnet, KindZone, KindDomain:
		return validateNamed(l.Meta, "limiter", "")
	}
	return Errorf(ErrInvalid, "a %s cannot be limited: only a vport, subnet, zone or domain can", l.On.Kind.Noun())
}

// CheckEntry checks an entry against the objects that it names: they are there, and of
// its domain (a network macro, of its domain's enterprise).
func (s *State) CheckEntry(e *Entry) error {
	p := s.Policies[e.PolicyID]
	if p == nil || p.DomainID != e.DomainID {
		return Errorf(ErrNotFound, "policy %s not found in domain %s", e.PolicyID, e.DomainID)
	}
	return errors.Join(s.checkSide("from", e, e.From), s.checkSide("to", e, e.To))
}

func (s *State) checkSide(word string, e *Entry, side Side) error {
	k, named := side.Key()
	if !named {
		return nil
	}
	if !s.inDomain(k, e.DomainID) {
		return Errorf(ErrNotFound, "%s: %s %s not found in domain %s", word, k.Kind.Noun(), k.ID, s.domainName(e.DomainID))
	}
	return nil
}

// inDomain is whether an object belongs to a domain, or to its enterprise.
func (s *State) inDomain(k Key, domainID string) bool {
	switch k.Kind {
	case KindDomain:
		return k.ID == domainID && s.Domains[k.ID] != nil
	case KindZone:
		return s.Zones[k.ID] != nil && s.Zones[k.ID].DomainID == domainID
	case KindSubnet:
		return s.Subnets[k.ID] != nil && s.Subnets[k.ID].DomainID == domainID
	case KindVport:
		return s.Vports[k.ID] != nil && s.Vports[k.ID].DomainID == domainID
	case KindPolicyGroup:
		return s.PolicyGroups[k.ID] != nil && s.PolicyGroups[k.ID].DomainID == domainID
	case KindNetworkMacro:
		d := s.Domains[domainID]
		return d != nil && s.NetworkMacros[k.ID] != nil && s.NetworkMacros[k.ID].EnterpriseID == d.EnterpriseID
	}
	return false
}

func (s *State) domainName(id string) string {
	if d := s.Domains[id]; d != nil {
		return d.Name
	}
	return id
}

// CheckRateLimiter checks a limiter against the object that it is on, and against the
// other limiters of it.
func (s *State) CheckRateLimiter(l *RateLimiter) error {
	if !s.inDomain(l.On, l.DomainID) {
		return Errorf(ErrNotFound, "%s %s not found in domain %s", l.On.Kind.Noun(), l.On.ID, s.domainName(l.DomainID))
	}
	if other := s.LimiterOn(l.On, l.Direction); other != nil && other.ID != l.ID {
		return Errorf(ErrExists, "the %s already has a rate limiter for %s", l.On.Kind.Noun(), l.Direction)
	}
	return nil
}

// CheckPolicy checks a policy's priority against the others of its domain and direction.
func (s *State) CheckPolicy(p *Policy) error {
	var err error
	s.Children(Key{KindDomain, p.DomainID}, KindPolicy, func(id string) {
		if o := s.Policies[id]; o.ID != p.ID && o.Direction == p.Direction && o.Priority == p.Priority {
			err = Errorf(ErrExists, "%s policy %s already has priority %d", o.Direction, o.Name, o.Priority)
		}
	})
	return err
}
