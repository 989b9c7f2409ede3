package tenant

import (
	"cmp"
	"slices"
)

func exportPolicies(s *State, d *Domain, entry *DomainEntry) {
	of := Key{KindDomain, d.ID}
	for _, g := range under(s, of, KindPolicyGroup, s.PolicyGroups, func(g *PolicyGroup) string { return g.Name }) {
		entry.PolicyGroups = append(entry.PolicyGroups, GroupEntry{Name: g.Name, Description: said(g.Description)})
	}
	policies := under(s, of, KindPolicy, s.Policies, func(p *Policy) string { return p.Name })
	slices.SortStableFunc(policies, func(a, b *Policy) int {
		return cmp.Or(-cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.Priority, b.Priority))
	})
	for _, p := range policies {
		x := PolicyEntry{Name: p.Name, Description: said(p.Description), Direction: p.Direction, Priority: p.Priority,
			Active: unless(p.Active, true), DefaultAllowIP: unless(p.DefaultAllowIP, false), DefaultAllowNonIP: unless(p.DefaultAllowNonIP, false), Rules: Rules{}}
		for _, e := range s.PolicyEntries(p.ID) {
			x.Rules = append(x.Rules, s.RuleOf(e))
		}
		entry.Policies = append(entry.Policies, x)
	}
	for _, l := range s.RateLimiters {
		if l.DomainID == d.ID && s.lasting(l.On) {
			entry.RateLimiters = append(entry.RateLimiters, s.limiterOf(l))
		}
	}
	slices.SortFunc(entry.RateLimiters, func(a, b LimiterEntry) int {
		return cmp.Or(cmp.Compare(a.On, b.On), cmp.Compare(a.Name, b.Name), -cmp.Compare(a.Direction, b.Direction))
	})
}

// unless is nil for the default.
func unless(v, standard bool) *bool {
	if v == standard {
		return nil
	}
	return &v
}

// lasting is whether an object belongs to what a document describes, and does not come and
// go with containers and networks.
func (s *State) lasting(k Key) bool {
	switch k.Kind {
	case KindVport:
		return false
	case KindSubnet:
		return s.Subnets[k.ID] != nil && !s.Subnets[k.ID].DockerOwned
	}
	return true
}

// RuleOf is an entry with the names of what it names. What is not there goes by its ID.
func (s *State) RuleOf(e *Entry) RuleEntry {
	r := RuleEntry{Entry: *e, From: s.sideOf(e.From), To: s.sideOf(e.To)}
	r.Entry.Meta, r.Entry.DomainID, r.Entry.PolicyID, r.Entry.From, r.Entry.To = Meta{}, "", "", Side{}, Side{}
	return r
}

func (s *State) sideOf(side Side) SideEntry {
	x := SideEntry{Kind: side.Kind, CIDR: side.CIDR}
	if k, named := side.Key(); named {
		x.Name = s.nameIn(k)
	}
	return x
}

// LimiterTarget is what a limiter is on, in words: "zone DockerZone", "domain".
func (s *State) LimiterTarget(l *RateLimiter) string {
	on := s.limiterOf(l)
	return on.target()
}

func (s *State) limiterOf(l *RateLimiter) LimiterEntry {
	x := LimiterEntry{On: l.On.Kind, Direction: l.Direction, Rate: l.Rate, Burst: l.Burst}
	if l.On.Kind != KindDomain {
		x.Name = s.nameIn(l.On)
	}
	return x
}

// nameIn is the name by which a document names an object of its domain: with the zone's
// before it if the domain has another subnet of that name.
func (s *State) nameIn(k Key) string {
	switch k.Kind {
	case KindPolicyGroup:
		if g := s.PolicyGroups[k.ID]; g != nil {
			return g.Name
		}
	case KindNetworkMacro:
		if m := s.NetworkMacros[k.ID]; m != nil {
			return m.Name
		}
	case KindZone:
		return s.zoneName(k.ID)
	case KindVport:
		if v := s.Vports[k.ID]; v != nil {
			return v.Name
		}
	case KindDomain:
		return s.domainName(k.ID)
	case KindSubnet:
		return s.subnetName(k.ID)
	}
	return k.ID
}

func (s *State) subnetName(id string) string {
	n := s.Subnets[id]
	if n == nil {
		return id
	}
	same := 0
	s.Children(Key{KindDomain, n.DomainID}, KindSubnet, func(id string) {
		if o := s.Subnets[id]; o.Name == n.Name || s.zoneName(o.ZoneID)+"/"+o.Name == n.Name {
			same++
		}
	})
	if same > 1 {
		return s.zoneName(n.ZoneID) + "/" + n.Name
	}
	return n.Name
}
