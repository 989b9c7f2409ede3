package tenant

import (
	"net/netip"
	"slices"
)

// Packet is one frame as a vport sends it.
type Packet struct {
	EthSrc, EthDst MAC
	EtherType      uint16 // EtherIPv4, EtherARP or another
	Tagged         bool   // with a VLAN tag

	// Of IPv4, the addresses; of ARP, the sender's and the target's protocol address.
	Src, Dst netip.Addr

	// Of IPv4. A port is 0 where the protocol has none.
	Protocol           uint8
	TTL, DSCP          uint8
	SrcPort, DstPort   uint16
	ICMPType, ICMPCode uint8
	// Track is what connection tracking has said; of a TrackReply, Of is the connection's
	// first packet. Both matter in a domain with policies only.
	Track Track
	Of    Tuple

	// Of ARP.
	Op  uint16 // 1 asks, 2 answers
	SHA MAC    // the sender's hardware address
}

// Values of Packet.
const (
	EtherIPv4 uint16 = 0x0800
	EtherARP  uint16 = 0x0806

	ProtocolICMP uint8 = 1
	ProtocolUDP  uint8 = 17
)

// Decision is what becomes of a packet.
type Decision string

// The decisions.
const (
	Dropped   Decision = "drop"
	Delivered Decision = "deliver" // to a vport
	Answered  Decision = "answer"  // by the network itself, to the sender
)

// Reason is why a packet is dropped.
type Reason string

// The reasons. The compiler has flows with a counter for each but the hairpin, which the
// switch refuses by itself. How many connections there are is the switch's to know: no
// verdict has the last.
const (
	ReasonTagged         Reason = "frame with a VLAN tag"
	ReasonDHCPServer     Reason = "DHCP server's answer from a vport"
	ReasonDHCPClient     Reason = "DHCP request (answered by the host)"
	ReasonSpoofedARP     Reason = "ARP with another's MAC or address"
	ReasonSpoofedIP      Reason = "IPv4 with another's MAC or address"
	ReasonOtherProtocol  Reason = "neither IPv4 nor ARP"
	ReasonOwnAddress     Reason = "ARP for the vport's own address (no conflict)"
	ReasonUnknownARP     Reason = "ARP that has no answer"
	ReasonToGateway      Reason = "to the gateway, other than echo"
	ReasonTTL0           Reason = "ttl 0"
	ReasonTTL1           Reason = "ttl ran out"
	ReasonUnknownAddress Reason = "address of the subnet that nobody has"
	ReasonOutside        Reason = "address outside of the domain"
	ReasonBroadcast      Reason = "broadcast or multicast"
	ReasonUnknownMAC     Reason = "MAC that the subnet does not have"
	ReasonNoTunnel       Reason = "vport on another host, no tunnel"
	ReasonHairpin        Reason = "to the sender itself"
	ReasonIngressPolicy  Reason = "policy from the vport into the network"
	ReasonEgressPolicy   Reason = "policy from the network to the vport"

	ReasonTooManyConnections Reason = "domain has too many connections"
)

// Outcome is a decision with what can be seen of it.
type Outcome struct {
	Decision Decision
	Reason   Reason // of a drop
	To       string // of a delivery: the ID of the vport
	EthSrc   MAC    // of a delivery or an answer: who it comes from
	TTL      uint8  // of IPv4, as it arrives

	// What the policies said, of a packet that came to be judged in a domain with policies.
	Ingress, Egress *Ruling
	// Rejected is a drop that the sender is told of.
	Rejected bool
}

func dropped(r Reason) Outcome { return Outcome{Decision: Dropped, Reason: r} }

// Verdict is what the network owes a packet that a vport sends, decided naively from the
// model: it looks at everything, compiles nothing, and is what the compiled flows are
// tested against. It supposes a state without contradictions. Two vports on different
// hosts with a VTEP each are as near as two on one.
func (s *State) Verdict(from *Vport, p Packet) Outcome {
	subnet := s.Subnets[from.SubnetID]
	switch {
	case p.Tagged:
		return dropped(ReasonTagged)
	case p.EtherType == EtherARP:
		return s.verdictARP(from, subnet, p)
	case p.EtherType == EtherIPv4:
		return s.verdictIPv4(from, subnet, p)
	default:
		return dropped(ReasonOtherProtocol)
	}
}

func (s *State) verdictARP(from *Vport, subnet *Subnet, p Packet) Outcome {
	probe := p.Op == 1 && p.Src == netip.IPv4Unspecified()
	virtual, mac := s.receives(subnet.DomainID, p.Dst)
	switch {
	case !from.AddressSpoofing && p.EthSrc != p.SHA,
		!from.maySend(p.EthSrc, p.Src) && !(probe && from.hasMAC(p.EthSrc)):
		return dropped(ReasonSpoofedARP)
	case p.Op == 1 && (p.Dst == from.IPv4 || virtual == from):
		return dropped(ReasonOwnAddress)
	case p.Op == 1 && p.Dst == subnet.Gateway:
		return Outcome{Decision: Answered, EthSrc: GatewayMAC}
	}
	for _, v := range s.Vports {
		if p.Op == 1 && v.Host != "" && v.SubnetID == subnet.ID && v.IPv4 == p.Dst {
			return Outcome{Decision: Answered, EthSrc: v.MAC}
		}
	}
	if p.Op == 1 && virtual != nil && virtual.SubnetID == subnet.ID {
		return Outcome{Decision: Answered, EthSrc: mac}
	}
	return dropped(ReasonUnknownARP)
}

func (s *State) verdictIPv4(from *Vport, subnet *Subnet, p Packet) Outcome {
	toRouter := p.EthDst == GatewayMAC
	switch {
	case p.Protocol == ProtocolUDP && p.SrcPort == 67 && p.DstPort == 68:
		return dropped(ReasonDHCPServer)
	case p.Protocol == ProtocolUDP && p.SrcPort == 68 && p.DstPort == 67 && p.EthSrc == from.MAC &&
		(p.Src == from.IPv4 || p.Src == netip.IPv4Unspecified()):
		return dropped(ReasonDHCPClient)
	case !from.maySend(p.EthSrc, p.Src):
		return dropped(ReasonSpoofedIP)
	}
	if s.gatewayAt(subnet.DomainID, p.Dst) {
		if toRouter && p.Protocol == ProtocolICMP && p.ICMPType == 8 && p.ICMPCode == 0 {
			return Outcome{Decision: Answered, EthSrc: GatewayMAC, TTL: 64}
		}
		return dropped(ReasonToGateway)
	}
	if toRouter {
		return s.route(from, subnet.DomainID, p)
	}
	if p.EthDst[0]&1 != 0 {
		return dropped(ReasonBroadcast)
	}
	for _, v := range s.Vports {
		if v.Host != "" && v.SubnetID == subnet.ID && v.MAC == p.EthDst {
			return s.arrive(from, v, p, Outcome{EthSrc: p.EthSrc, TTL: p.TTL})
		}
	}
	// The MAC of whoever had the address before, or of a virtual IP.
	to, virtual := s.vportAt(subnet.DomainID, p.Dst), MAC{}
	if to == nil {
		to, virtual = s.receives(subnet.DomainID, p.Dst)
	}
	if to != nil && to.SubnetID == subnet.ID {
		if o := s.arrive(from, to, p, Outcome{EthSrc: p.EthSrc, TTL: p.TTL}); o.Reason != ReasonNoTunnel || p.EthDst == virtual {
			return o
		}
	}
	return dropped(ReasonUnknownMAC)
}

func (s *State) route(from *Vport, domainID string, p Packet) Outcome {
	switch p.TTL {
	case 0:
		return dropped(ReasonTTL0)
	case 1:
		return dropped(ReasonTTL1)
	}
	to := s.vportAt(domainID, p.Dst)
	if to == nil {
		to, _ = s.receives(domainID, p.Dst)
	}
	if to != nil {
		return s.arrive(from, to, p, Outcome{EthSrc: GatewayMAC, TTL: p.TTL - 1})
	}
	for _, sn := range s.Subnets {
		if sn.DomainID == domainID && sn.CIDR.Contains(p.Dst) {
			return dropped(ReasonUnknownAddress)
		}
	}
	return dropped(ReasonOutside)
}

// arrive is where the policies between two vports decide: a domain without one allows
// everything inside it.
func (s *State) arrive(from, to *Vport, p Packet, o Outcome) Outcome {
	if from.Host != to.Host && !(s.hasVTEP(from.Host) && s.hasVTEP(to.Host)) {
		return dropped(ReasonNoTunnel)
	}
	o.Decision, o.To = Delivered, to.ID
	o = s.judge(s.Subnets[to.SubnetID].DomainID, p, o)
	if o.Decision == Delivered && from.ID == to.ID {
		return Outcome{Decision: Dropped, Reason: ReasonHairpin, Ingress: o.Ingress, Egress: o.Egress}
	}
	return o
}

func (s *State) hasVTEP(host string) bool {
	h := s.Hosts[host]
	return h != nil && h.VTEP.IsValid()
}

// maySend is whether a vport may send from an address.
func (v *Vport) maySend(mac MAC, a netip.Addr) bool {
	if v.AddressSpoofing || mac == v.MAC && a == v.IPv4 {
		return true
	}
	return slices.Contains(v.Virtual(), VirtualIP{IPv4: a, MAC: mac})
}

// hasMAC is whether a vport may send from a MAC address.
func (v *Vport) hasMAC(mac MAC) bool {
	return v.AddressSpoofing || mac == v.MAC ||
		slices.ContainsFunc(v.Virtual(), func(vip VirtualIP) bool { return vip.MAC == mac })
}

// Virtual are the vport's virtual IPs, each with its MAC, without those that no vport can
// have and those given before.
func (v *Vport) Virtual() []VirtualIP {
	var all []VirtualIP
	for _, vip := range v.VirtualIPs {
		vip.MAC = vip.mac(v)
		switch {
		case !vip.IPv4.Is4(), vip.IPv4.IsUnspecified(), vip.IPv4 == v.IPv4, vip.MAC[0]&1 != 0, vip.MAC == GatewayMAC,
			slices.ContainsFunc(all, func(o VirtualIP) bool { return o.IPv4 == vip.IPv4 }):
		default:
			all = append(all, vip)
		}
	}
	return all
}

// receives is the vport that is sent what is for an address that is neither a gateway nor a
// vport's own: of those attached to the domain that name it, the one created first; nil if
// none does. MAC is the address's.
func (s *State) receives(domainID string, a netip.Addr) (first *Vport, mac MAC) {
	if s.vportAt(domainID, a) != nil || s.gatewayAt(domainID, a) {
		return nil, MAC{}
	}
	for _, v := range s.Vports {
		if sn := s.Subnets[v.SubnetID]; sn == nil || sn.DomainID != domainID || v.Host == "" {
			continue
		}
		for _, vip := range v.Virtual() {
			if vip.IPv4 == a && (first == nil || v.Compare(&first.Meta) < 0) {
				first, mac = v, vip.MAC
			}
		}
	}
	return first, mac
}

func (s *State) gatewayAt(domainID string, a netip.Addr) bool {
	for _, sn := range s.Subnets {
		if sn.DomainID == domainID && sn.Gateway == a {
			return true
		}
	}
	return false
}

func (vip VirtualIP) mac(v *Vport) MAC {
	if vip.MAC.IsZero() {
		return v.MAC
	}
	return vip.MAC
}
