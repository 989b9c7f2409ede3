package pipeline

import (
	"fmt"
	"net/netip"

	"nuage/controller/tenant"
)

// policyClaims is claimsOf for what policies are made of.
func policyClaims(s *tenant.State, k tenant.Key, cs []claim) ([]claim, tenant.Age) {
	switch k.Kind {
	case tenant.KindZone:
		if z := s.Zones[k.ID]; z != nil {
			return append(cs, claim{claimZone, z.DomainID, uint64(z.Number)}), z.Age()
		}
	case tenant.KindPolicyGroup:
		if g := s.PolicyGroups[k.ID]; g != nil {
			return append(cs, claim{claimGroup, g.DomainID, uint64(g.Number)}, membersClaim(g.DomainID, g.Name)), g.Age()
		}
	case tenant.KindPolicy:
		if p := s.Policies[k.ID]; p != nil {
			return append(cs, claim{claimPolicy, p.DomainID, uint64(p.Number)}), p.Age()
		}
	case tenant.KindEntry:
		if e := s.Entries[k.ID]; e != nil {
			return append(cs, claim{claimPriority, e.PolicyID, uint64(e.Priority)}), e.Age()
		}
	case tenant.KindRateLimiter:
		if l := s.RateLimiters[k.ID]; l != nil {
			return append(cs, limitClaim(l.On, l.Direction)), l.Age()
		}
	}
	return nil, tenant.Age{}
}

// trouble is why an object that is numbered in its domain cannot be told on the switch from
// another; empty if it can.
func (c *Compiler) trouble(s *tenant.State, k tenant.Key, number, most uint16) string {
	if number == 0 || number > most {
		return fmt.Sprintf("number %d is not in 1..%d", number, most)
	}
	return c.lost(s, k)
}

func (c *Compiler) zoneTrouble(s *tenant.State, z *tenant.Zone) string {
	return c.trouble(s, tenant.Key{Kind: tenant.KindZone, ID: z.ID}, z.Number, tenant.MaxZoneNumber)
}

func (c *Compiler) groupTrouble(s *tenant.State, g *tenant.PolicyGroup) string {
	return c.trouble(s, tenant.Key{Kind: tenant.KindPolicyGroup, ID: g.ID}, g.Number, tenant.MaxPolicyGroups)
}

func (c *Compiler) policyTrouble(s *tenant.State, p *tenant.Policy) string {
	return c.trouble(s, tenant.Key{Kind: tenant.KindPolicy, ID: p.ID}, p.Number, 1<<16-1)
}

// zoneOf is the number of a subnet's zone; 0 if there is none.
func (c *Compiler) zoneOf(s *tenant.State, sn *tenant.Subnet) uint16 {
	z := s.Zones[sn.ZoneID]
	if z == nil || z.DomainID != sn.DomainID || c.zoneTrouble(s, z) != "" {
		return 0
	}
	return z.Number
}

func (c *Compiler) resolveZone(s *tenant.State, z *tenant.Zone) (object, string) {
	o, _ := c.present(s, z.DomainID)
	if !o.live() {
		return object{}, ""
	}
	if problem := c.zoneTrouble(s, z); problem != "" {
		return object{}, fmt.Sprintf("zone %s: %s", z.Name, problem)
	}
	o.zone = z.Number
	return o, ""
}

// present is a domain that has flows here.
func (c *Compiler) present(s *tenant.State, domainID string) (object, string) {
	d := s.Domains[domainID]
	if d == nil || c.local[domainID] == 0 {
		return object{}, ""
	}
	return c.resolveDomain(s, d)
}

func (c *Compiler) groupNote(s *tenant.State, g *tenant.PolicyGroup) string {
	if problem := c.groupTrouble(s, g); problem != "" && c.local[g.DomainID] > 0 {
		return fmt.Sprintf("policy group %s: %s", g.Name, problem)
	}
	return ""
}

func (c *Compiler) limiterNote(s *tenant.State, l *tenant.RateLimiter) string {
	if problem := c.lost(s, tenant.Key{Kind: tenant.KindRateLimiter, ID: l.ID}); problem != "" && c.local[l.DomainID] > 0 {
		return "rate limiter: " + problem
	}
	return ""
}

// chains are what a domain's active policies are asked; nil if none is active. A direction
// that cannot be asked is closed, and the note says why.
func (c *Compiler) chains(s *tenant.State, d *tenant.Domain) (map[tenant.Direction]chain, string) {
	if !s.HasPolicy(d.ID) {
		return nil, ""
	}
	chains, note := map[tenant.Direction]chain{}, ""
	for _, dir := range []tenant.Direction{tenant.Ingress, tenant.Egress} {
		ch := chain{}
		for _, p := range s.ActivePolicies(d.ID, dir) {
			ch.policies++
			if problem := c.policyTrouble(s, p); problem != "" {
				ch.closed = fmt.Sprintf("policy %s: %s", p.Name, problem)
			}
			for _, page := range c.pagesOf(p.ID) {
				ch.elements = append(ch.elements, element{p.Number, page})
			}
		}
		if len(ch.elements) > maxElements {
			ch.closed = fmt.Sprintf("%d policies, and pages of %d priorities in them, to ask: more than %d", len(ch.elements), pageSize, maxElements)
		}
		if ch.closed != "" {
			note = fmt.Sprintf("domain %s: closed in direction %s: %s", d.Name, dir, ch.closed)
		}
		chains[dir] = ch
	}
	return chains, note
}

// decider is the policy whose default decides in p's direction: the first that allows
// nothing by default, else the last.
func (c *Compiler) decider(s *tenant.State, p *tenant.Policy) *tenant.Policy {
	var last *tenant.Policy
	for _, last = range s.ActivePolicies(p.DomainID, p.Direction) {
		if !last.DefaultAllowIP {
			break
		}
	}
	return last
}

func (c *Compiler) resolvePolicy(s *tenant.State, p *tenant.Policy) (object, string) {
	o, _ := c.present(s, p.DomainID)
	if !o.live() || !p.Active {
		return object{}, ""
	}
	if problem := c.policyTrouble(s, p); problem != "" {
		return object{}, fmt.Sprintf("policy %s: %s", p.Name, problem)
	}
	o.policy = p
	return o, ""
}

func (c *Compiler) resolveEntry(s *tenant.State, e *tenant.Entry) (object, string) {
	p := s.Policies[e.PolicyID]
	if p == nil {
		return object{}, ""
	}
	o, problem := c.resolvePolicy(s, p)
	switch {
	case problem != "":
		problem = fmt.Sprintf("policy %s has no flows", p.Name)
	case !o.live():
		return object{}, ""
	default:
		problem = c.lost(s, tenant.Key{Kind: tenant.KindEntry, ID: e.ID})
	}
	if err := e.CheckMatch(); err != nil && problem == "" {
		problem = err.Error()
	}
	if problem == "" {
		o.rule, problem = c.ruleOf(s, p.DomainID, e)
	}
	if o.rule == nil || problem != "" && e.Action == tenant.Forward {
		o = object{}
	}
	if problem != "" {
		return o, fmt.Sprintf("%s: %s", nameOf(s, tenant.Key{Kind: tenant.KindEntry, ID: e.ID}), problem)
	}
	return o, ""
}

// ruleOf finds what an entry names. A name that nothing has makes no rule: it matches
// nothing. What cannot be told from another, of two with one number, is a problem beside the
// rule, in which it counts as anybody: one that denies may keep it.
func (c *Compiler) ruleOf(s *tenant.State, domainID string, e *tenant.Entry) (*rule, string) {
	r := &rule{entry: e}
	zones, problem := bits{}, ""
	for _, sd := range []struct {
		end
		tenant.Side
	}{{sourceEnd, e.From}, {targetEnd, e.To}} {
		k, named := sd.Key()
		trouble, missing := "", false
		within := func(p netip.Prefix) {
			if missing = !p.Addr().Is4(); !missing {
				r.sides = append(r.sides, inPrefix(sd.addr, p))
			}
		}
		switch sd.Kind {
		case tenant.SideCIDR:
			within(sd.CIDR)
		case tenant.SideNetworkMacro:
			if m := s.NetworkMacros[k.ID]; m != nil {
				within(m.CIDR)
			} else {
				missing = true
			}
		case tenant.SideSubnet:
			if sn := s.Subnets[k.ID]; sn != nil && sn.DomainID == domainID {
				within(sn.CIDR)
			} else {
				missing = true
			}
		case tenant.SideZone:
			z := s.Zones[k.ID]
			if missing = z == nil || z.DomainID != domainID; missing {
				break
			}
			if trouble = c.zoneTrouble(s, z); trouble == "" {
				zones = zones.and(sd.zoneIs(z.Number))
			}
		case tenant.SidePolicyGroup:
			g := s.PolicyGroups[k.ID]
			if missing = g == nil || g.DomainID != domainID; missing {
				break
			}
			if trouble = c.groupTrouble(s, g); trouble == "" {
				r.sides = append(r.sides, sd.isMember(g.Number))
			}
		case tenant.SideSameZone:
			r.flags = r.flags.and(isSet(bitSameZone))
		case tenant.SideSameSubnet:
			r.flags = r.flags.and(isSet(bitSameSubnet))
		case tenant.SideSameDomain:
			r.flags = r.flags.and(isSet(sd.inside))
		}
		switch {
		case missing && named:
			return nil, fmt.Sprintf("%s: %s does not exist in the domain", sd.name, nameOf(s, k))
		case trouble != "":
			problem = fmt.Sprintf("%s: %s: %s", sd.name, nameOf(s, k), trouble)
		}
	}
	if zones.mask != 0 {
		r.sides = append(r.sides, zones.of(regZones))
	}
	return r, problem
}

// describe adds what a vport's policy and limits need.
func (c *Compiler) describe(s *tenant.State, o *object) {
	o.zone = c.zoneOf(s, o.subnet)
	for _, name := range o.vport.PolicyGroups {
		first := c.claims[membersClaim(o.domain.ID, name)].first
		if first == nil {
			continue
		}
		if g := s.PolicyGroups[first.key.ID]; g != nil && c.groupTrouble(s, g) == "" {
			o.groups.add(g.Number)
		}
	}
	for _, vip := range o.vport.Virtual() {
		if c.claims[virtualClaim(o.domain.ID, vip.IPv4)].first == c.records[tenant.Key{Kind: tenant.KindVport, ID: o.vport.ID}] &&
			c.claims[addressClaim(o.domain.ID, vip.IPv4)].first == nil {
			o.virtual = append(o.virtual, vip)
		}
	}
	if o.port != 0 {
		o.sends, o.receives, o.shaping = c.limit(s, o, tenant.Ingress), c.limit(s, o, tenant.Egress), c.shaping
	}
}

// limit is the nearest limiter of a vport.
func (c *Compiler) limit(s *tenant.State, o *object, d tenant.Direction) Limit {
	for _, on := range []tenant.Key{{Kind: tenant.KindVport, ID: o.vport.ID}, {Kind: tenant.KindSubnet, ID: o.subnet.ID},
		{Kind: tenant.KindZone, ID: o.subnet.ZoneID}, {Kind: tenant.KindDomain, ID: o.domain.ID}} {
		if first := c.claims[limitClaim(on, d)].first; first != nil {
			if l := s.RateLimiters[first.key.ID]; l != nil {
				return Limit{Rate: max(l.Rate, tenant.MinRate), Burst: l.BurstBits()}
			}
		}
	}
	return Limit{}
}
