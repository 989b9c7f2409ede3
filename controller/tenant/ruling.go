package tenant

import "net/netip"

// Tuple is what a policy judges: who opens a connection to whom. ICMP has its type and
// code instead of ports.
type Tuple struct {
	Src, Dst         netip.Addr
	Protocol         Protocol
	SrcPort, DstPort uint16
	ICMPType         uint8
	ICMPCode         uint8
	DSCP             uint8
}

// Track is what connection tracking says of a packet. What it says depends on the packets
// before, which a State knows nothing of.
type Track uint8

// The states of a packet. A protocol that cannot be tracked is always TrackNone.
const (
	// TrackNew is the first packet of a connection, or one of a connection that is not
	// remembered.
	TrackNew Track = iota
	// TrackOpener is a later packet in the direction of the first.
	TrackOpener
	// TrackReply is a packet in the other direction, or of an ICMP error that a packet of
	// the connection caused.
	TrackReply
	// TrackNone is a packet that belongs to no connection and can begin none: of a
	// protocol that cannot be tracked, or invalid, such as a TCP SYN+ACK out of the blue.
	TrackNone
)

// Ruling is what the policies of one direction say.
type Ruling struct {
	Direction Direction
	// Policy decided; nil if no policy is active in the direction, which allows everything.
	Policy *Policy
	// Entry of the policy that decided; nil for the default.
	Entry   *Entry
	Allowed bool
}

// Stateless is whether an entry decided that does not allow replies by itself.
func (r Ruling) Stateless() bool { return r.Entry != nil && !r.Entry.Stateful }

// Rule decides by the policies of one direction of a domain, naively: it asks every entry
// in order. A packet that is not part of a tracked connection is not for stateful entries
// to allow, unless its protocol can never be.
func (s *State) Rule(domainID string, d Direction, t Tuple, tracked bool) Ruling {
	policies := s.ActivePolicies(domainID, d)
	for _, p := range policies {
		for _, e := range s.PolicyEntries(p.ID) {
			if s.matches(domainID, e, t, tracked) {
				return Ruling{d, p, e, e.Action == Forward}
			}
		}
	}
	for _, p := range policies {
		if !p.DefaultAllowIP {
			return Ruling{d, p, nil, false}
		}
	}
	if len(policies) > 0 {
		return Ruling{d, policies[len(policies)-1], nil, true}
	}
	return Ruling{Direction: d, Allowed: true}
}

func (s *State) matches(domainID string, e *Entry, t Tuple, tracked bool) bool {
	switch {
	case e.Stateful && e.Action == Forward && !tracked && t.Protocol.Tracked():
		return false
	case e.Protocol != AnyProtocol && e.Protocol != t.Protocol,
		!e.SourcePort.Contains(t.SrcPort) || !e.DestinationPort.Contains(t.DstPort),
		!e.ICMPType.Matches(t.ICMPType) || !e.ICMPCode.Matches(t.ICMPCode),
		!e.DSCP.Matches(t.DSCP):
		return false
	}
	return s.isSide(domainID, e.From, t.Src, t.Dst) && s.isSide(domainID, e.To, t.Dst, t.Src)
}

// isSide is whether an address is what a side names; other is the address of the other side.
func (s *State) isSide(domainID string, side Side, a, other netip.Addr) bool {
	subnet, far := s.subnetAt(domainID, a), s.subnetAt(domainID, other)
	switch side.Kind {
	case SideAny:
		return true
	case SideCIDR:
		return side.CIDR.Contains(a)
	case SideNetworkMacro:
		m := s.NetworkMacros[side.ID]
		return m != nil && m.CIDR.Contains(a)
	case SidePolicyGroup:
		return s.isMember(domainID, s.PolicyGroups[side.ID], a)
	case SideSubnet:
		return subnet != nil && subnet.ID == side.ID
	case SideZone:
		return subnet != nil && subnet.ZoneID == side.ID && s.hasZone(domainID, side.ID)
	case SideSameDomain:
		return subnet != nil
	case SideSameSubnet:
		return subnet != nil && far != nil && subnet.ID == far.ID
	case SideSameZone:
		return subnet != nil && far != nil && (subnet.ID == far.ID || subnet.ZoneID == far.ZoneID && s.hasZone(domainID, far.ZoneID))
	}
	return false
}

// hasZone is whether a domain has a zone. One that a subnet names and nobody has is none.
func (s *State) hasZone(domainID, id string) bool {
	z := s.Zones[id]
	return z != nil && z.DomainID == domainID
}

func (s *State) isMember(domainID string, g *PolicyGroup, a netip.Addr) bool {
	v := s.vportAt(domainID, a)
	if v == nil || g == nil || g.DomainID != domainID {
		return false
	}
	for _, name := range v.PolicyGroups {
		if name == g.Name {
			return true
		}
	}
	return false
}

// HasPolicy is whether any policy is active in a domain; without one its packets are not
// tracked.
func (s *State) HasPolicy(domainID string) bool {
	return len(s.ActivePolicies(domainID, Ingress))+len(s.ActivePolicies(domainID, Egress)) > 0
}

// judge lets the policies decide about a packet that is about to be delivered: those of
// the sender's direction first. A reply is judged as the packets of the connection that it
// answers, so that a change of policy counts for both at once; where that was allowed
// without a state, it is judged by itself.
func (s *State) judge(domainID string, p Packet, o Outcome) Outcome {
	if !s.HasPolicy(domainID) {
		return o
	}
	own := p.tuple()
	tracked := own.Protocol.Tracked() && p.Track != TrackNone
	t := own
	if tracked && p.Track == TrackReply {
		t = p.Of
		t.DSCP = own.DSCP
		if own.Dst == t.Dst { // an error that the opener's side sends, or a router in its place
			t.Src = own.Src
		}
	}
	in, out := s.Rule(domainID, Ingress, t, tracked), s.Rule(domainID, Egress, t, tracked)
	if in.Allowed && out.Allowed && tracked && p.Track == TrackReply && (in.Stateless() || out.Stateless()) {
		in, out = s.Rule(domainID, Ingress, own, false), s.Rule(domainID, Egress, own, false)
	}
	o.Ingress, o.Egress = &in, &out
	for _, r := range []struct {
		ruling *Ruling
		reason Reason
	}{{&in, ReasonIngressPolicy}, {&out, ReasonEgressPolicy}} {
		if !r.ruling.Allowed {
			return Outcome{Decision: Dropped, Reason: r.reason, Ingress: &in, Egress: &out,
				Rejected: r.ruling.Entry != nil && r.ruling.Entry.Action == Reject}
		}
	}
	return o
}

// tuple is the packet's own.
func (p Packet) tuple() Tuple {
	return Tuple{Src: p.Src, Dst: p.Dst, Protocol: Protocol(p.Protocol), SrcPort: p.SrcPort, DstPort: p.DstPort,
		ICMPType: p.ICMPType, ICMPCode: p.ICMPCode, DSCP: p.DSCP}
}
