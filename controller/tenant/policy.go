package tenant

import "net/netip"

// PolicyGroup is a named set of vports of a domain. Its members are the vports that name
// it: a vport may name a group that does not exist, which then means nothing.
type PolicyGroup struct {
	Meta
	DomainID    string `json:"domainID"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// Number is the group's in its domain, 1..MaxPolicyGroups: the switch keeps
	// membership as bit Number-1 of a register.
	Number uint16 `json:"number"`
}

// NetworkMacro is a named prefix of an enterprise.
type NetworkMacro struct {
	Meta
	EnterpriseID string       `json:"enterpriseID"`
	Name         string       `json:"name"`
	Description  string       `json:"description,omitempty"`
	CIDR         netip.Prefix `json:"cidr"`
}

// Direction is seen from the vport, as in VSD.
type Direction string

// The directions.
const (
	// Ingress is from the vport into the network: decided for the sender.
	Ingress Direction = "ingress"
	// Egress is from the network to the vport: decided for the receiver.
	Egress Direction = "egress"
)

// Policy is an ordered list of entries for one direction of a domain (VSD: an ingress or
// egress ACL template). The active policies of a direction are asked in order of priority,
// lowest number first; the first entry that matches decides. What no entry decides is
// allowed if every one of them has DefaultAllowIP; a direction without an active policy
// allows everything.
type Policy struct {
	Meta
	DomainID    string    `json:"domainID"`
	Name        string    `json:"name"`
	Description string    `json:"description,omitempty"`
	Direction   Direction `json:"direction"`
	// Priority is unique among the domain's policies of a direction.
	Priority       uint32 `json:"priority"`
	Active         bool   `json:"active"`
	DefaultAllowIP bool   `json:"defaultAllowIP"`
	// DefaultAllowNonIP is kept for clients of VSD's API. Hosts pass IPv4 and ARP only.
	DefaultAllowNonIP bool `json:"defaultAllowNonIP"`
	// Number is the policy's in its domain, 1..65535: the switch's name for it.
	Number uint16 `json:"number"`
}

// Action is what an entry does with what matches it.
type Action string

// The actions.
const (
	Forward Action = "FORWARD"
	Deny    Action = "DROP"
	// Reject drops and tells the sender: a TCP reset, or ICMP "administratively
	// prohibited".
	Reject Action = "REJECT"
)

// Entry is one rule of a policy.
type Entry struct {
	Meta
	DomainID    string `json:"domainID"`
	PolicyID    string `json:"policyID"`
	Description string `json:"description,omitempty"`
	// Priority is unique in the policy; the lowest number is asked first.
	Priority uint32 `json:"priority"`
	Action   Action `json:"action"`

	Protocol        Protocol     `json:"protocol"`
	SourcePort      PortRange    `json:"sourcePort,omitzero"`
	DestinationPort PortRange    `json:"destinationPort,omitzero"`
	ICMPType        OptionalByte `json:"icmpType,omitzero"`
	ICMPCode        OptionalByte `json:"icmpCode,omitzero"`
	DSCP            OptionalByte `json:"dscp,omitzero"`

	// From and To are the connection's sides: who opens it and to whom.
	From Side `json:"from"`
	To   Side `json:"to"`

	// Stateful allows the connection's replies and what is related to it (ICMP errors) as
	// well. Only TCP, UDP and ICMP can be tracked: with Protocol any, other protocols are
	// decided packet by packet.
	Stateful     bool `json:"stateful,omitempty"`
	StatsLogging bool `json:"statsLogging,omitempty"`
	FlowLogging  bool `json:"flowLogging,omitempty"`
}

// SideKind is how an entry names one side of a connection.
type SideKind string

// The kinds of side.
const (
	SideAny          SideKind = "any"
	SidePolicyGroup  SideKind = "policyGroup"
	SideZone         SideKind = "zone"
	SideSubnet       SideKind = "subnet"
	SideNetworkMacro SideKind = "networkMacro"
	SideCIDR         SideKind = "cidr"
	SideSameZone     SideKind = "sameZone"   // the zone of the other side
	SideSameSubnet   SideKind = "sameSubnet" // the subnet of the other side
	SideSameDomain   SideKind = "sameDomain" // a subnet of the domain, which is to say any vport
)

// Side is one side of a connection. ID is of the policy group, zone, subnet or network
// macro; CIDR is of SideCIDR.
type Side struct {
	Kind SideKind     `json:"kind"`
	ID   string       `json:"id,omitempty"`
	CIDR netip.Prefix `json:"cidr,omitzero"`
}

// Key is the object that the side names; false if it names none.
func (s Side) Key() (Key, bool) {
	switch s.Kind {
	case SidePolicyGroup:
		return Key{KindPolicyGroup, s.ID}, true
	case SideZone:
		return Key{KindZone, s.ID}, true
	case SideSubnet:
		return Key{KindSubnet, s.ID}, true
	case SideNetworkMacro:
		return Key{KindNetworkMacro, s.ID}, true
	default:
		return Key{}, false
	}
}

// RateLimiter bounds what each vport of an object sends (Ingress) or receives (Egress). Of
// several that apply to a vport, that of the nearest object counts: the vport's own, its
// subnet's, its zone's, its domain's.
type RateLimiter struct {
	Meta
	DomainID string `json:"domainID"`
	// On is the object, of KindVport, KindSubnet, KindZone or KindDomain. An object has at
	// most one limiter a direction.
	On        Key       `json:"on"`
	Direction Direction `json:"direction"`
	// Rate is in bits a second, Burst in bits. Burst 0 is what is sent in half a
	// second: with less, TCP does not reach the rate.
	Rate  uint64 `json:"rate"`
	Burst uint64 `json:"burst,omitempty"`
}

// BurstBits is the burst that counts, in bits.
func (l RateLimiter) BurstBits() uint64 {
	if l.Burst != 0 {
		return l.Burst
	}
	return l.Rate / 2
}

// VirtualIP is a further address of a vport: it may send from it, and, of several vports
// that name one address in a domain, the one created first receives what is sent to it.
type VirtualIP struct {
	IPv4 netip.Addr `json:"ipv4"`
	// MAC goes with the address; zero for the vport's own.
	MAC MAC `json:"mac,omitzero"`
}

// MemberKey is what the vports that name a policy group of a domain are children of,
// whether or not there is such a group.
func MemberKey(domainID, group string) Key { return Key{KindPolicyGroup, domainID + "/" + group} }
