package tenant

import (
	"fmt"
	"net/netip"
)

// Question is whether a vport may open a connection to an address.
type Question struct {
	From *Vport
	// Src is the address that it sends from; zero for its own.
	Src, Dst netip.Addr
	// To is the vport that the question names; nil if it names an address.
	To               *Vport
	Protocol         Protocol
	SrcPort, DstPort uint16
	// Of ICMP; an echo request is 8 and 0.
	ICMPType, ICMPCode uint8
}

// Explanation is the answer, with everything that a packet meets on its way.
type Explanation struct {
	Revision int64 `json:"revision"`
	// Packet is the first of the connection, in words.
	Packet string `json:"packet"`
	// Verdict is "allow" or "drop"; Reason says in a sentence why.
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	// From and To are the vports; To is nil for an address that no vport has.
	From *End `json:"from"`
	To   *End `json:"to,omitempty"`
	// Hops are in the order in which the packet meets them, up to the one that drops it.
	Hops []Hop `json:"hops"`
	// Ingress and Egress are what the policies say, of a packet that comes to be judged in a
	// domain with policies.
	Ingress *Rule `json:"ingress,omitempty"`
	Egress  *Rule `json:"egress,omitempty"`
	// Replies says of an allowed packet whether and why it may be answered.
	Replies *Replies `json:"replies,omitempty"`
	// Remedy is the smallest change that was found to allow a dropped packet.
	Remedy *Remedy `json:"remedy,omitempty"`

	// What was asked of the model and what it said, for whoever asks a switch the same. A
	// packet that is never sent, or for nobody, has no Outcome.
	Sent    Packet  `json:"-"`
	Outcome Outcome `json:"-"`
}

// The verdicts of an Explanation.
const (
	VerdictAllow = "allow"
	VerdictDrop  = "drop"
)

// End is a vport as an Explanation shows it.
type End struct {
	ID        string     `json:"id"`
	Vport     string     `json:"vport"`
	Container string     `json:"container,omitempty"`
	Address   netip.Addr `json:"address"`
	Domain    string     `json:"domain"`
	Zone      string     `json:"zone"`
	Subnet    string     `json:"subnet"`
	Host      string     `json:"host,omitempty"`
	Groups    []string   `json:"policyGroups,omitempty"`
}

// Hop is one stage of the way.
type Hop struct {
	Stage   string `json:"stage"`
	Text    string `json:"text"`
	Dropped bool   `json:"dropped,omitempty"`
}

// Rule is a Ruling in names. Without Policy no policy is active in the direction; without
// EntryPriority the policy's default decided.
type Rule struct {
	Direction      Direction `json:"direction"`
	Policy         string    `json:"policy,omitempty"`
	PolicyPriority uint32    `json:"policyPriority,omitempty"`
	EntryPriority  *uint32   `json:"entryPriority,omitempty"`
	Entry          string    `json:"entry,omitempty"`
	Allowed        bool      `json:"allowed"`
}

// Replies is whether what answers the packet is let through.
type Replies struct {
	Allowed bool   `json:"allowed"`
	Text    string `json:"text"`
}

// Explain answers a question from the state alone. Ports that the question leaves out are
// supposed: a source port of 49152, ICMP echo request.
func (s *State) Explain(q Question) Explanation {
	small := s.around(q)
	p := small.packet(q)
	x := Explanation{Revision: s.Revision, Packet: wording(p), From: s.end(q.From), Sent: p}
	to, _ := small.target(q)
	if to != nil {
		x.To = s.end(to)
	}
	if x.stranded(small, q, to) {
		return x
	}
	x.Outcome = small.Verdict(q.From, p)
	x.follow(small, q, to)
	x.Verdict = VerdictAllow
	if x.Outcome.Decision == Dropped {
		x.Verdict = VerdictDrop
		x.Remedy = small.remedy(s, q.From, to, p, x.Outcome)
		return x
	}
	if x.Outcome.Decision == Delivered {
		x.Replies = small.replies(q, to, p, x.Outcome)
	}
	return x
}

// stranded is whether the packet is never sent or has nobody to go to, which the verdict on
// packets supposes otherwise.
func (x *Explanation) stranded(s *State, q Question, to *Vport) bool {
	drop := func(stage, format string, args ...any) bool {
		text := fmt.Sprintf(format, args...)
		x.Verdict, x.Reason = VerdictDrop, text
		x.Hops = append(x.Hops, Hop{stage, text, true})
		return true
	}
	near := s.Subnets[q.From.SubnetID]
	switch {
	case q.From.Error != "":
		return drop("vport", "vport %s could not be attached: %s", q.From.Name, q.From.Error)
	case near == nil:
		return drop("vport", "the subnet of vport %s does not exist", q.From.Name)
	case q.From.Host == "":
		return drop("vport", "vport %s is not attached to any host", q.From.Name)
	case to != nil && to.ID == q.From.ID:
		x.Verdict, x.Reason = VerdictAllow, "a packet to an address of its own never leaves the sender"
		return true
	case q.To != nil && !q.Dst.IsValid():
		x.To = s.end(q.To)
		return drop("vport", "vport %s has no address, and could not be attached: %s", q.To.Name, q.To.Error)
	case to != nil && to.Host == "":
		return drop("vport", "vport %s is not attached to any host", to.Name)
	case to == nil && near.CIDR.Contains(q.Dst) && q.Dst != near.Gateway && q.Dst != Broadcast(near.CIDR):
		return drop("arp", "nobody in subnet %s has %s: ARP for it has no answer", near.Name, q.Dst)
	}
	return false
}

// around is the part of the state that decides about a question: the domain with few
// vports, so that many changes can be tried on it.
func (s *State) around(q Question) *State {
	small := NewState()
	small.Revision = s.Revision
	put := func(k Kind, id string, o any) { small.Apply(Change{Key{k, id}, o}) }
	d := q.From.DomainID
	if o := s.Domains[d]; o != nil {
		put(KindDomain, d, o)
		s.Children(Key{KindEnterprise, o.EnterpriseID}, KindNetworkMacro, func(id string) { put(KindNetworkMacro, id, s.NetworkMacros[id]) })
	}
	of := Key{KindDomain, d}
	s.Children(of, KindZone, func(id string) { put(KindZone, id, s.Zones[id]) })
	s.Children(of, KindSubnet, func(id string) { put(KindSubnet, id, s.Subnets[id]) })
	s.Children(of, KindPolicyGroup, func(id string) { put(KindPolicyGroup, id, s.PolicyGroups[id]) })
	s.Children(of, KindPolicy, func(id string) {
		put(KindPolicy, id, s.Policies[id])
		s.Children(Key{KindPolicy, id}, KindEntry, func(id string) { put(KindEntry, id, s.Entries[id]) })
	})
	for id, l := range s.RateLimiters {
		if l.DomainID == d {
			put(KindRateLimiter, id, l)
		}
	}
	for id, h := range s.Hosts {
		put(KindHost, id, h)
	}
	for id, v := range s.Vports {
		if v.DomainID == d && (id == q.From.ID || v.has(q.Dst) || v.has(q.Src)) {
			put(KindVport, id, v)
		}
	}
	put(KindVport, q.From.ID, q.From)
	return small
}

func (v *Vport) has(a netip.Addr) bool {
	if v.IPv4 == a {
		return true
	}
	for _, vip := range v.VirtualIPs {
		if vip.IPv4 == a {
			return true
		}
	}
	return false
}

// target is the vport that has the address, and its MAC for it; one that is not attached if
// no other has it.
func (s *State) target(q Question) (*Vport, MAC) {
	if !q.Dst.IsValid() {
		return nil, MAC{}
	}
	if v := s.vportAt(q.From.DomainID, q.Dst); v != nil {
		return v, v.MAC
	}
	if v, mac := s.receives(q.From.DomainID, q.Dst); v != nil {
		return v, mac
	}
	var first *Vport
	for _, v := range s.Vports {
		if v.Host == "" && v.has(q.Dst) && !s.gatewayAt(q.From.DomainID, q.Dst) && (first == nil || v.ID < first.ID) {
			first = v
		}
	}
	if first == nil {
		return nil, MAC{}
	}
	return first, first.MAC
}

// packet is the first of a connection, as an ordinary stack sends it.
func (s *State) packet(q Question) Packet {
	p := Packet{EthSrc: q.From.MAC, EthDst: GatewayMAC, EtherType: EtherIPv4, Src: q.Src, Dst: q.Dst, Protocol: uint8(q.Protocol), TTL: 64}
	if !p.Src.IsValid() {
		p.Src = q.From.IPv4
	}
	for _, vip := range q.From.Virtual() {
		if vip.IPv4 == p.Src {
			p.EthSrc = vip.MAC
		}
	}
	near := s.Subnets[q.From.SubnetID]
	if to, mac := s.target(q); to != nil && to.SubnetID == q.From.SubnetID {
		p.EthDst = mac
	} else if q.Dst.IsMulticast() || q.Dst == limitedBroadcast || near != nil && q.Dst == Broadcast(near.CIDR) {
		p.EthDst = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	switch {
	case q.Protocol == ICMP:
		p.ICMPType, p.ICMPCode = q.ICMPType, q.ICMPCode
	case q.Protocol.HasPorts():
		p.SrcPort, p.DstPort = q.SrcPort, q.DstPort
		if p.SrcPort == 0 {
			p.SrcPort = 49152
		}
	}
	if !q.Protocol.Tracked() || q.Protocol == ICMP && !q.asks() {
		p.Track = TrackNone
	}
	return p
}

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// asks is whether an ICMP message is a question: echo, timestamp, information. Connection
// tracking opens a connection for no other: an answer or an error belongs to one that is
// there, or is invalid.
func (q Question) asks() bool {
	return q.ICMPCode == 0 && (q.ICMPType == 8 || q.ICMPType == 13 || q.ICMPType == 15)
}

// wording is a packet in words.
func wording(p Packet) string {
	switch proto := Protocol(p.Protocol); {
	case proto == ICMP:
		return fmt.Sprintf("icmp type %d code %d from %s to %s", p.ICMPType, p.ICMPCode, p.Src, p.Dst)
	case proto.HasPorts():
		return fmt.Sprintf("%s from %s:%d to %s:%d", proto, p.Src, p.SrcPort, p.Dst, p.DstPort)
	default:
		return fmt.Sprintf("protocol %s from %s to %s", proto, p.Src, p.Dst)
	}
}

func (s *State) end(v *Vport) *End {
	e := &End{ID: v.ID, Vport: v.Name, Container: v.Owner.ContainerName, Address: v.IPv4, Host: v.Host, Groups: v.PolicyGroups,
		Domain: s.domainName(v.DomainID), Zone: s.zoneName(v.ZoneID), Subnet: v.SubnetID}
	if n := s.Subnets[v.SubnetID]; n != nil {
		e.Subnet = n.Name
	}
	return e
}

// replies judges what answers an allowed packet; nil if nothing does.
func (s *State) replies(q Question, to *Vport, p Packet, o Outcome) *Replies {
	if q.Protocol == ICMP && !q.asks() {
		return nil
	}
	if o.Ingress == nil {
		return &Replies{true, "allowed: the domain has no active policy"}
	}
	back := s.packet(Question{From: to, Src: p.Dst, Dst: p.Src, Protocol: q.Protocol, SrcPort: p.DstPort, DstPort: p.SrcPort})
	if q.Protocol == ICMP && q.ICMPType != 8 { // whose answer is 0
		back.ICMPType = q.ICMPType + 1
	}
	stateless := o.Ingress.Stateless() || o.Egress.Stateless()
	switch {
	case q.Protocol.Tracked() && !stateless:
		back.Track, back.Of = TrackReply, p.tuple()
	case q.Protocol == UDP:
		back.Track = TrackNew // of a connection that nobody remembers
	default:
		back.Track = TrackNone
	}
	answer := s.Verdict(to, back)
	switch {
	case answer.Decision == Delivered && back.Track == TrackReply:
		return &Replies{true, "allowed: the connection is tracked"}
	case answer.Decision == Delivered:
		return &Replies{true, fmt.Sprintf("allowed, by themselves: %s; %s", s.ruleOf(answer.Ingress), s.ruleOf(answer.Egress))}
	case answer.Ingress == nil:
		return &Replies{false, "dropped: " + string(answer.Reason)}
	}
	decided := answer.Ingress
	if decided.Allowed {
		decided = answer.Egress
	}
	why := "an entry that is not stateful decided"
	if !stateless {
		why = fmt.Sprintf("connections of protocol %s are not tracked", q.Protocol)
	}
	return &Replies{false, fmt.Sprintf("dropped: %s, so that they are judged by themselves: %s", why, s.ruleOf(decided))}
}

func (s *State) ruleOf(r *Ruling) string { return s.rule(r).String() }

func (s *State) rule(r *Ruling) *Rule {
	if r == nil {
		return nil
	}
	x := &Rule{Direction: r.Direction, Allowed: r.Allowed}
	if r.Policy != nil {
		x.Policy, x.PolicyPriority = r.Policy.Name, r.Policy.Priority
	}
	if r.Entry != nil {
		x.EntryPriority, x.Entry = &r.Entry.Priority, s.RuleOf(r.Entry).String()
	}
	return x
}

// String is the rule in words.
func (r *Rule) String() string {
	what := "dropped"
	if r.Allowed {
		what = "allowed"
	}
	switch {
	case r.Policy == "":
		return fmt.Sprintf("%s: %s, no %s policy is active", r.Direction, what, r.Direction)
	case r.EntryPriority == nil:
		return fmt.Sprintf("%s: %s by the default of policy %s (priority %d)", r.Direction, what, r.Policy, r.PolicyPriority)
	}
	return fmt.Sprintf("%s: %s by entry %d of policy %s (priority %d): %s", r.Direction, what, *r.EntryPriority, r.Policy, r.PolicyPriority, r.Entry)
}
