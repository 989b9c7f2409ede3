package tenant

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"pgregory.net/rapid"
)

// plain is the documents as text without their lines.
func plain(docs []Document) string {
	text, err := json.Marshal(docs)
	if err != nil {
		return err.Error()
	}
	return regexp.MustCompile(`"Line":\d+`).ReplaceAllString(string(text), "")
}

// execute is what the store does with a plan. It refuses what the store refuses: a policy
// with a priority that another has.
func execute(s *State, steps []Step) {
	put := func(k Kind, id string, o any) { s.Apply(Change{Key{k, id}, o}) }
	for _, st := range steps {
		if st.Op == OpDelete {
			put(st.Kind, st.Object.(*Entry).ID, nil)
			continue
		}
		switch o := st.Object.(type) {
		case *Enterprise:
			put(KindEnterprise, o.ID, o)
		case *NetworkMacro:
			put(KindNetworkMacro, o.ID, o)
		case *Domain:
			put(KindDomain, o.ID, o)
		case *Zone:
			put(KindZone, o.ID, o)
		case *Subnet:
			put(KindSubnet, o.ID, o)
		case *PolicyGroup:
			put(KindPolicyGroup, o.ID, o)
		case *Policy:
			if err := s.CheckPolicy(o); err != nil {
				panic(fmt.Sprintf("%s %s: %v", st.Op, st.Path, err))
			}
			put(KindPolicy, o.ID, o)
		case *Entry:
			if err := s.CheckEntry(o); err != nil {
				panic(fmt.Sprintf("%s %s: %v", st.Op, st.Path, err))
			}
			put(KindEntry, o.ID, o)
		case *RateLimiter:
			if err := s.CheckRateLimiter(o); err != nil {
				panic(fmt.Sprintf("%s %s: %v", st.Op, st.Path, err))
			}
			put(KindRateLimiter, o.ID, o)
		}
	}
}

var (
	genName     = rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9 _.'"#:{},é-]{0,8}[a-z]`)
	genDescribe = rapid.SampledFrom([]string{"", "some text", "- a\n  b: c", "null", "é\u0085\t#", "a, b: {c}"})
)

func genNames(t *rapid.T, label string, n int) []string {
	return rapid.SliceOfNDistinct(genName, 0, n, rapid.ID).Draw(t, label)
}

func genState(t *rapid.T) *State {
	s := NewState()
	id := counter()
	for _, en := range genNames(t, "enterprises", 3) {
		e := &Enterprise{Meta: Meta{ID: id()}, Name: en, Description: genDescribe.Draw(t, "description")}
		s.Apply(Change{Key{KindEnterprise, e.ID}, e})
		var macros []string
		for i, mn := range genNames(t, "macros", 2) {
			m := &NetworkMacro{Meta: Meta{ID: id()}, EnterpriseID: e.ID, Name: mn, Description: genDescribe.Draw(t, "description"),
				CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 32)}
			s.Apply(Change{Key{KindNetworkMacro, m.ID}, m})
			macros = append(macros, m.ID)
		}
		for _, dn := range genNames(t, "domains", 3) {
			d := &Domain{Meta: Meta{ID: id()}, EnterpriseID: e.ID, Name: dn, Description: genDescribe.Draw(t, "description")}
			s.Apply(Change{Key{KindDomain, d.ID}, d})
			net := 0
			on := []Key{{KindDomain, d.ID}}
			for _, zn := range genNames(t, "zones", 3) {
				z := &Zone{Meta: Meta{ID: id()}, DomainID: d.ID, Name: zn}
				s.Apply(Change{Key{KindZone, z.ID}, z})
				on = append(on, Key{KindZone, z.ID})
				for _, sn := range genNames(t, "subnets", 3) {
					net++
					cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(net), 0, 0}), rapid.IntRange(16, 29).Draw(t, "bits"))
					gw := cidr.Addr().Next()
					for range rapid.IntRange(0, 4).Draw(t, "gateway") {
						gw = gw.Next()
					}
					if rapid.Bool().Draw(t, "common name") && s.SubnetByName(z.ID, "same") == nil {
						sn = "same"
					}
					n := &Subnet{Meta: Meta{ID: id()}, DomainID: d.ID, ZoneID: z.ID, Name: sn, CIDR: cidr, Gateway: gw, Description: genDescribe.Draw(t, "description")}
					s.Apply(Change{Key{KindSubnet, n.ID}, n})
					on = append(on, Key{KindSubnet, n.ID})
				}
			}
			genPolicies(t, s, d, on, macros, id)
		}
	}
	return s
}

// genPolicies gives a domain groups, policies with entries that name what is there, and
// rate limiters on some of its objects.
func genPolicies(t *rapid.T, s *State, d *Domain, on []Key, macros []string, id func() string) {
	sides := []Side{{Kind: SideAny}, {Kind: SideSameDomain}, {Kind: SideCIDR, CIDR: netip.MustParsePrefix("10.1.0.0/16")}}
	for _, k := range on {
		switch k.Kind {
		case KindZone:
			sides = append(sides, Side{Kind: SideZone, ID: k.ID})
		case KindSubnet:
			sides = append(sides, Side{Kind: SideSubnet, ID: k.ID})
		}
	}
	for _, m := range macros {
		sides = append(sides, Side{Kind: SideNetworkMacro, ID: m})
	}
	for _, gn := range genNames(t, "groups", 3) {
		g := &PolicyGroup{Meta: Meta{ID: id()}, DomainID: d.ID, Name: gn, Description: genDescribe.Draw(t, "description")}
		s.Apply(Change{Key{KindPolicyGroup, g.ID}, g})
		sides = append(sides, Side{Kind: SidePolicyGroup, ID: g.ID})
	}
	flag := func(label string) bool { return rapid.Bool().Draw(t, label) }
	for i, pn := range genNames(t, "policies", 3) {
		p := &Policy{Meta: Meta{ID: id()}, DomainID: d.ID, Name: pn, Description: genDescribe.Draw(t, "description"),
			Direction: rapid.SampledFrom([]Direction{Ingress, Egress}).Draw(t, "direction"), Priority: uint32(i),
			Active: flag("active"), DefaultAllowIP: flag("allow"), DefaultAllowNonIP: flag("allow non-IP")}
		s.Apply(Change{Key{KindPolicy, p.ID}, p})
		for _, priority := range rapid.SliceOfNDistinct(rapid.Uint32Range(0, 9), 0, 4, rapid.ID).Draw(t, "priorities") {
			e := genEntry(t, sides)
			e.ID, e.DomainID, e.PolicyID, e.Priority = id(), d.ID, p.ID, priority
			if e.Validate() == nil {
				s.Apply(Change{Key{KindEntry, e.ID}, &e})
			}
		}
	}
	for _, k := range on {
		for _, dir := range []Direction{Ingress, Egress} {
			if flag("limited") {
				l := &RateLimiter{Meta: Meta{ID: id()}, DomainID: d.ID, On: k, Direction: dir,
					Rate: rapid.Uint64Range(MinRate, MaxRate).Draw(t, "rate"), Burst: rapid.SampledFrom([]uint64{0, 1, 8_000_000, MaxRate}).Draw(t, "burst")}
				s.Apply(Change{Key{KindRateLimiter, l.ID}, l})
			}
		}
	}
}

func genEntry(t *rapid.T, sides []Side) Entry {
	flag := func(label string) bool { return rapid.Bool().Draw(t, label) }
	e := Entry{
		Action:       rapid.SampledFrom([]Action{Forward, Deny, Reject}).Draw(t, "action"),
		Protocol:     rapid.SampledFrom([]Protocol{AnyProtocol, TCP, UDP, SCTP, ICMP, 47}).Draw(t, "protocol"),
		From:         rapid.SampledFrom(sides).Draw(t, "from"),
		To:           rapid.SampledFrom(sides).Draw(t, "to"),
		Stateful:     flag("stateful"),
		StatsLogging: flag("stats"), FlowLogging: flag("log"),
		Description: genDescribe.Draw(t, "description"),
	}
	if flag("same") && !e.From.same() {
		e.To = Side{Kind: rapid.SampledFrom([]SideKind{SideSameZone, SideSameSubnet}).Draw(t, "relation")}
	}
	if e.Protocol.HasPorts() && flag("ports") {
		from := rapid.Uint16Range(1, 65535).Draw(t, "port")
		e.DestinationPort = PortRange{from, rapid.Uint16Range(from, 65535).Draw(t, "to port")}
	}
	if e.Protocol == ICMP && flag("type") {
		e.ICMPType = SomeByte(rapid.Uint8().Draw(t, "ICMP type"))
	}
	if flag("dscp") && !e.Stateful {
		e.DSCP = SomeByte(rapid.Uint8Range(0, 63).Draw(t, "DSCP"))
	}
	return e
}

// genChange is another state of the same names, so that a plan from one to the other has
// something to move: policies swap their priorities, and entries come and go.
func genChange(t *rapid.T, docs []Document) []Document {
	for i := range docs {
		for j := range docs[i].Domains {
			policies := docs[i].Domains[j].Policies
			order := rapid.Permutation(firstNumbers(len(policies))).Draw(t, "order")
			for k := range policies {
				policies[k].Priority = uint32(order[k])
				policies[k].Active = new(bool)
				*policies[k].Active = rapid.Bool().Draw(t, "active")
				if n := len(policies[k].Rules); n > 0 {
					policies[k].Rules = policies[k].Rules[rapid.IntRange(0, n).Draw(t, "from"):]
				}
			}
		}
	}
	return docs
}

func firstNumbers(n int) []int {
	var xs []int
	for i := range n {
		xs = append(xs, i)
	}
	return xs
}

func joined(steps []Step) string { return strings.Join(paths(steps), "\n") }
