package tenant

import (
	"fmt"
	"slices"
	"strings"
)

// stages are where a packet is dropped for a reason.
var stages = map[Reason]string{
	ReasonDHCPServer: "guard", ReasonDHCPClient: "guard", ReasonSpoofedIP: "guard",
	ReasonToGateway: "gateway", ReasonTTL0: "router", ReasonTTL1: "router", ReasonUnknownAddress: "router", ReasonOutside: "router",
	ReasonBroadcast: "forwarder", ReasonUnknownMAC: "forwarder", ReasonNoTunnel: "host", ReasonHairpin: "output",
	ReasonIngressPolicy: "policy", ReasonEgressPolicy: "policy",
}

// follow lists the hops of a packet in the order of the switch's tables, up to the one that
// drops it.
func (x *Explanation) follow(s *State, q Question, to *Vport) {
	o := x.Outcome
	end := ""
	if o.Decision == Dropped {
		end = stages[o.Reason]
		x.Reason = "dropped: " + string(o.Reason)
	}
	hop := func(stage, text string) bool {
		last := stage == end
		if last && o.Ingress == nil {
			text = x.Reason
		}
		x.Hops = append(x.Hops, Hop{stage, text, last})
		return last
	}
	if hop("vport", fmt.Sprintf("%s in subnet %s, on host %s", q.From.Name, s.subnetName(q.From.SubnetID), q.From.Host)) ||
		hop("guard", s.guarded(q.From, x.Sent)) {
		return
	}
	if o.Decision == Answered {
		hop("gateway", fmt.Sprintf("answers echo to %s itself, ttl 64", q.Dst))
		x.Reason = "answered by the gateway"
		return
	}
	if end == "gateway" && hop("gateway", "") || hop("router", s.routed(q, to)) || end == "forwarder" && hop("forwarder", "") {
		return
	}
	if to == nil || hop("host", s.carried(q.From, to)) {
		return
	}
	x.Ingress, x.Egress = s.rule(o.Ingress), s.rule(o.Egress)
	if o.Ingress == nil {
		hop("policy", "the domain has no active policy: all inside it is allowed")
	} else {
		for _, r := range []*Rule{x.Ingress, x.Egress} {
			x.Hops = append(x.Hops, Hop{string(r.Direction), strings.TrimPrefix(r.String(), string(r.Direction)+": "), !r.Allowed})
		}
		if end == "policy" {
			x.Reason = x.dropText(o)
			return
		}
	}
	hop("limiter", "from "+s.limited(q.From, Ingress))
	hop("limiter", "to "+s.limited(to, Egress))
	if end == "output" {
		hop("output", "")
		return
	}
	hop("output", fmt.Sprintf("delivered to %s in subnet %s, on host %s, ttl %d", to.Name, s.subnetName(to.SubnetID), to.Host, o.TTL))
	x.Reason = "delivered to " + to.Name
}

func (x *Explanation) dropText(o Outcome) string {
	r := x.Ingress
	if o.Reason == ReasonEgressPolicy {
		r = x.Egress
	}
	text := r.String()
	if !x.Ingress.Allowed && !x.Egress.Allowed {
		text = x.Ingress.String() + "; " + x.Egress.String()
	}
	if o.Rejected {
		text += " (the sender is told)"
	}
	return text
}

func (s *State) guarded(v *Vport, p Packet) string {
	switch {
	case p.Src == v.IPv4 && p.EthSrc == v.MAC:
		return fmt.Sprintf("%s and %s are the vport's own", p.Src, p.EthSrc)
	case v.AddressSpoofing:
		return fmt.Sprintf("the vport may send from any address (addressSpoofing), so from %s", p.Src)
	}
	return fmt.Sprintf("%s is a virtual IP of the vport", p.Src)
}

func (s *State) routed(q Question, to *Vport) string {
	switch {
	case to == nil:
		return "not routed: it is not for one receiver"
	case to.SubnetID == q.From.SubnetID:
		return "not routed: the receiver is in the subnet"
	}
	return fmt.Sprintf("from subnet %s to subnet %s, ttl 64 to 63, next MAC %s", s.subnetName(q.From.SubnetID), s.subnetName(to.SubnetID), to.MAC)
}

func (s *State) carried(from, to *Vport) string {
	if from.Host == to.Host {
		return fmt.Sprintf("the receiver is on the same host (%s)", to.Host)
	}
	vni, here, there := uint32(0), "?", "?"
	if n := s.Subnets[to.SubnetID]; n != nil {
		vni = n.VNI
	}
	if h := s.Hosts[from.Host]; h != nil {
		here = h.VTEP.String()
	}
	if h := s.Hosts[to.Host]; h != nil {
		there = h.VTEP.String()
	}
	return fmt.Sprintf("from host %s (VTEP %s) to host %s (VTEP %s) by VXLAN, VNI %d", from.Host, here, to.Host, there, vni)
}

func (s *State) limited(v *Vport, d Direction) string {
	l := s.Limiter(v, d)
	if l == nil {
		return v.Name + ": no rate limiter"
	}
	return fmt.Sprintf("%s: %s a second, burst %s, by the rate limiter of %s", v.Name, FormatRate(l.Rate), FormatRate(l.BurstBits()), s.LimiterTarget(l))
}

// Hosts are those whose switches decide about the packet, the sender's first.
func (x *Explanation) Hosts() []string {
	var hosts []string
	for _, e := range []*End{x.From, x.To} {
		if e != nil && e.Host != "" && !slices.Contains(hosts, e.Host) {
			hosts = append(hosts, e.Host)
		}
	}
	return hosts
}
