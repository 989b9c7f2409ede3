package tenant

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// rules is a domain of two subnets, with vports web and db; policies and entries are added
// in short. IDs are names.
type rules struct {
	*State
	made int
}

func newRules() *rules {
	r := &rules{State: NewState()}
	r.put(KindHost, "h", &Host{Meta: r.meta("h")})
	r.put(KindDomain, "d", &Domain{Meta: r.meta("d")})
	r.put(KindZone, "z", &Zone{Meta: r.meta("z"), DomainID: "d"})
	for i, name := range []string{"web", "db"} {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), 24)
		r.put(KindSubnet, name, &Subnet{Meta: r.meta(name), DomainID: "d", ZoneID: "z", CIDR: p, Gateway: p.Addr().Next()})
		r.put(KindVport, name, &Vport{Meta: r.meta(name), DomainID: "d", SubnetID: name, Host: "h", MAC: MAC{2, 0, 0, 0, 0, byte(i)},
			IPv4: netip.AddrFrom4([4]byte{10, 0, byte(i), 10})})
	}
	return r
}

func (r *rules) meta(id string) Meta {
	r.made++
	return Meta{ID: id, Created: time.Unix(int64(r.made), 0)}
}

func (r *rules) put(k Kind, id string, v any) { r.Apply(Change{Key{k, id}, v}) }

func (r *rules) policy(id string, d Direction, priority uint32, byDefault bool) {
	r.put(KindPolicy, id, &Policy{Meta: r.meta(id), DomainID: "d", Direction: d, Priority: priority, Active: true, DefaultAllowIP: byDefault})
}

func (r *rules) entry(policy string, priority uint32, a Action, stateful bool, p Protocol, port uint16) {
	id := policy + "/" + string(a) + p.String()
	r.put(KindEntry, id, &Entry{Meta: r.meta(id), PolicyID: policy, Priority: priority, Action: a, Stateful: stateful, Protocol: p,
		DestinationPort: PortRange{port, port}, From: Side{Kind: SideAny}, To: Side{Kind: SideAny}})
}

// shortly is what a verdict says in short: the entry or the default of a policy that decided,
// for each direction.
func shortly(o Outcome) string {
	word := func(r *Ruling) string {
		switch {
		case r == nil:
			return "-"
		case r.Entry != nil:
			return r.Entry.ID
		case r.Policy != nil:
			return r.Policy.ID
		}
		return "open"
	}
	s := string(o.Decision) + " " + word(o.Ingress) + " " + word(o.Egress)
	if o.Rejected {
		s += " rejected"
	}
	return s
}

func TestVerdictOfPolicies(t *testing.T) {
	const none = 0
	tcp := Packet{Protocol: 6, SrcPort: 5000, DstPort: 80}
	reply := Packet{Protocol: 6, SrcPort: 80, DstPort: 5000, Track: TrackReply}
	with := func(p Packet, track Track) Packet { p.Track = track; return p }
	for _, c := range []struct {
		name  string
		rules func(r *rules)
		p     Packet
		want  string
	}{
		{"no policy", func(r *rules) {}, tcp, "deliver - -"},
		{"default of none", func(r *rules) { r.policy("p", Egress, 1, false) }, tcp, "drop open p"},
		{"default of all", func(r *rules) { r.policy("p", Egress, 1, true) }, tcp, "deliver open p"},
		{"the first default that denies", func(r *rules) {
			r.policy("p", Ingress, 1, true)
			r.policy("q", Ingress, 3, false)
			r.policy("r", Ingress, 2, false)
		}, tcp, "drop r open"},
		{"or else the last that allows", func(r *rules) { r.policy("p", Ingress, 2, true); r.policy("q", Ingress, 1, true) }, tcp, "deliver p open"},
		{"inactive", func(r *rules) { r.policy("p", Ingress, 2, false); r.Policies["p"].Active = false }, tcp, "deliver - -"},
		{"lowest policy, then lowest entry", func(r *rules) {
			r.policy("p", Egress, 2, false)
			r.policy("q", Egress, 1, false)
			r.entry("p", 1, Deny, false, AnyProtocol, none)
			r.entry("q", 9, Forward, true, TCP, 80)
			r.entry("q", 8, Reject, false, TCP, 80)
		}, tcp, "drop open q/REJECTtcp rejected"},
		{"both sides", func(r *rules) {
			r.policy("p", Ingress, 1, false)
			r.policy("q", Egress, 1, false)
			r.entry("p", 1, Forward, true, TCP, 80)
			r.entry("q", 1, Forward, true, TCP, 80)
		}, tcp, "deliver p/FORWARDtcp q/FORWARDtcp"},
		{"reply to what a stateful entry allows", func(r *rules) { r.policy("q", Egress, 1, false); r.entry("q", 1, Forward, true, TCP, 80) }, reply, "deliver open q/FORWARDtcp"},
		{"reply, after the entry has become one that denies", func(r *rules) { r.policy("q", Egress, 1, true); r.entry("q", 1, Deny, true, TCP, 80) }, reply, "drop open q/DROPtcp"},
		{"reply to what a stateless entry allows", func(r *rules) { r.policy("q", Egress, 1, false); r.entry("q", 1, Forward, false, TCP, 80) }, reply, "drop open q"},
		{"invalid, for a stateful entry", func(r *rules) { r.policy("q", Egress, 1, false); r.entry("q", 1, Forward, true, TCP, 80) }, with(tcp, TrackNone), "drop open q"},
		{"invalid, for a stateless entry", func(r *rules) { r.policy("q", Egress, 1, false); r.entry("q", 1, Forward, false, TCP, 80) }, with(tcp, TrackNone), "deliver open q/FORWARDtcp"},
		{"invalid, for a stateful entry that denies", func(r *rules) { r.policy("q", Egress, 1, true); r.entry("q", 1, Deny, true, TCP, 80) }, with(tcp, TrackNone), "drop open q/DROPtcp"},
		{"a protocol without connections, for a stateful entry of any", func(r *rules) {
			r.policy("q", Egress, 1, false)
			r.entry("q", 1, Forward, true, AnyProtocol, none)
		}, Packet{Protocol: 47, Track: TrackNone}, "deliver open q/FORWARDany"},
	} {
		r := newRules()
		c.rules(r)
		from, to := r.Vports["web"], r.Vports["db"]
		if c.p.Track == TrackReply {
			from, to = to, from
			c.p.Of = Tuple{Src: to.IPv4, Dst: from.IPv4, Protocol: Protocol(c.p.Protocol), SrcPort: c.p.DstPort, DstPort: c.p.SrcPort}
		}
		p := c.p
		p.EtherType, p.EthSrc, p.EthDst, p.Src, p.Dst, p.TTL = EtherIPv4, from.MAC, GatewayMAC, from.IPv4, to.IPv4, 64
		if got := shortly(r.Verdict(from, p)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// An ICMP error is judged as the connection that it is about, for whichever side sends it.
func TestVerdictOfErrors(t *testing.T) {
	r := newRules()
	r.policy("q", Egress, 1, false)
	r.put(KindEntry, "e", &Entry{Meta: r.meta("e"), PolicyID: "q", Action: Forward, Stateful: true, Protocol: UDP, DestinationPort: PortRange{53, 53},
		From: Side{Kind: SideSubnet, ID: "web"}, To: Side{Kind: SideSubnet, ID: "db"}})
	web, db := r.Vports["web"], r.Vports["db"]
	about := Tuple{Src: web.IPv4, Dst: db.IPv4, Protocol: UDP, SrcPort: 9, DstPort: 53}
	for _, from := range []*Vport{web, db} {
		for _, port := range []uint16{53, 54} {
			to := map[*Vport]*Vport{web: db, db: web}[from]
			p := Packet{EthSrc: from.MAC, EthDst: GatewayMAC, EtherType: EtherIPv4, Src: from.IPv4, Dst: to.IPv4, TTL: 64, Protocol: ProtocolICMP, ICMPType: 3,
				Track: TrackReply, Of: about}
			p.Of.DstPort = port
			if got := r.Verdict(from, p); (got.Decision == Delivered) != (port == 53) {
				t.Errorf("from %s about port %d: %s", from.ID, port, shortly(got))
			}
		}
	}
}

// A virtual IP is its first vport's to receive for, and everybody's who names it to send from.
func TestVerdictOfVirtualIPs(t *testing.T) {
	r := newRules()
	vip := VirtualIP{IPv4: netip.MustParseAddr("10.0.1.100"), MAC: MAC{0, 0, 0x5e, 0, 1, 7}}
	for _, id := range []string{"first", "second"} {
		r.put(KindVport, id, &Vport{Meta: r.meta(id), DomainID: "d", SubnetID: "db", Host: "h", MAC: MAC{2, 0, 0, 0, 1, byte(r.made)},
			IPv4: netip.AddrFrom4([4]byte{10, 0, 1, byte(r.made)}), VirtualIPs: []VirtualIP{vip, {IPv4: netip.MustParseAddr("10.0.1.10")}, {IPv4: netip.MustParseAddr("10.0.0.1")}}})
	}
	web, db, first, second := r.Vports["web"], r.Vports["db"], r.Vports["first"], r.Vports["second"]
	arp := func(from *Vport, target netip.Addr) string {
		o := r.Verdict(from, Packet{EthSrc: from.MAC, SHA: from.MAC, EtherType: EtherARP, Op: 1, Src: from.IPv4, Dst: target})
		return strings.TrimSpace(string(o.Decision) + " " + string(o.Reason) + o.EthSrc.String())
	}
	send := func(from *Vport, mac MAC, src, dst netip.Addr) string {
		o := r.Verdict(from, Packet{EthSrc: mac, EthDst: GatewayMAC, EtherType: EtherIPv4, Protocol: 17, SrcPort: 9, DstPort: 9, Src: src, Dst: dst, TTL: 64})
		return string(o.Decision) + " " + o.To + string(o.Reason)
	}
	for _, c := range []struct{ name, got, want string }{
		{"asked for by a neighbour", arp(db, vip.IPv4), "answer " + vip.MAC.String()},
		{"asked for by its owner", arp(first, vip.IPv4), "drop " + string(ReasonOwnAddress) + MAC{}.String()},
		{"asked for by the other who names it", arp(second, vip.IPv4), "answer " + vip.MAC.String()},
		{"asked for from another subnet", arp(web, vip.IPv4), "drop " + string(ReasonUnknownARP) + MAC{}.String()},
		{"routed to", send(web, web.MAC, web.IPv4, vip.IPv4), "deliver first"},
		{"a vport's own address", send(web, web.MAC, web.IPv4, db.IPv4), "deliver db"},
		{"sent from", send(first, vip.MAC, vip.IPv4, web.IPv4), "deliver web"},
		{"sent from by the other", send(second, vip.MAC, vip.IPv4, web.IPv4), "deliver web"},
		{"sent from with the vport's MAC", send(first, first.MAC, vip.IPv4, web.IPv4), "drop " + string(ReasonSpoofedIP)},
		{"sent from by a stranger", send(web, web.MAC, vip.IPv4, db.IPv4), "drop " + string(ReasonSpoofedIP)},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", c.name, c.got, c.want)
		}
	}
}
