package pipeline

import (
	"maps"
	"slices"

	"nuage/controller/tenant"
)

// policyShape is what a policy's entries depend on; the zero value for none.
type policyShape struct {
	domain    string
	name      string
	direction tenant.Direction
	active    bool
	number    uint16
	since     tenant.Age
}

func shapeOf(p *tenant.Policy) policyShape {
	if p == nil {
		return policyShape{}
	}
	return policyShape{p.DomainID, p.Name, p.Direction, p.Active, p.Number, p.Age()}
}

// reordered handles a change of a policy that its entries do not depend on: of its priority
// or its default. It reports whether that is all.
func (c *Compiler) reordered(s *tenant.State, k tenant.Key, d *dirty) bool {
	e := c.records[k]
	if k.Kind != tenant.KindPolicy || e == nil || s.Policies[k.ID] == nil || e.shape != shapeOf(s.Policies[k.ID]) {
		return false
	}
	c.reorder(s, e.shape.domain, d)
	return true
}

// reorder rebuilds what depends on the order of a domain's policies: the chains, and the
// default that decides.
func (c *Compiler) reorder(s *tenant.State, domain string, d *dirty) {
	k := tenant.Key{Kind: tenant.KindDomain, ID: domain}
	d.rebuild(k)
	s.Children(k, tenant.KindPolicy, func(id string) { d.rebuild(tenant.Key{Kind: tenant.KindPolicy, ID: id}) })
}

// realign brings the indexes up to date with what policies are made of, and touches what
// depended on the object as it was: dependents knows it only as it is.
func (c *Compiler) realign(s *tenant.State, e *record, d *dirty) {
	switch e.key.Kind {
	case tenant.KindPolicyGroup:
		c.members(s, e.member, d)
		if e.member = (tenant.Key{}); s.PolicyGroups[e.key.ID] != nil {
			g := s.PolicyGroups[e.key.ID]
			e.member = tenant.MemberKey(g.DomainID, g.Name)
		}
	case tenant.KindRateLimiter:
		c.limited(s, e.on, d)
		if e.on = (tenant.Key{}); s.RateLimiters[e.key.ID] != nil {
			e.on = s.RateLimiters[e.key.ID].On
		}
	case tenant.KindPolicy:
		was := e.shape.domain
		e.shape = shapeOf(s.Policies[e.key.ID])
		c.reorder(s, was, d)
		c.reorder(s, e.shape.domain, d)
	case tenant.KindEntry:
		c.repage(s, e, d)
	}
}

// members touches the vports that name a policy group.
func (c *Compiler) members(s *tenant.State, group tenant.Key, d *dirty) {
	s.Children(group, tenant.KindVport, func(id string) { d.rebuild(tenant.Key{Kind: tenant.KindVport, ID: id}) })
}

// limited touches the vports of this host that a limiter on an object may count for.
func (c *Compiler) limited(s *tenant.State, on tenant.Key, d *dirty) {
	if on.Kind == tenant.KindVport {
		d.rebuild(on)
		return
	}
	for _, ids := range c.byInterface {
		for id := range ids {
			v := s.Vports[id]
			if v == nil {
				continue // and looked at for that
			}
			sn := s.Subnets[v.SubnetID]
			if sn != nil && (on.ID == sn.ID || on.ID == sn.ZoneID || on.ID == sn.DomainID) {
				d.rebuild(tenant.Key{Kind: tenant.KindVport, ID: id})
			}
		}
	}
}

// page is a page of a policy; the zero value is none.
type page struct {
	policy string // ID
	number uint16
}

// repage counts an entry in its page. The first and the last entry of a page change the
// chain.
func (c *Compiler) repage(s *tenant.State, e *record, d *dirty) {
	now := page{}
	if en := s.Entries[e.key.ID]; en != nil {
		now = page{en.PolicyID, uint16(en.Priority / pageSize)}
	}
	if now == e.page {
		return
	}
	for p, by := range map[page]int{e.page: -1, now: +1} {
		if p == (page{}) {
			continue
		}
		if c.pages[p.policy] == nil {
			c.pages[p.policy] = map[uint16]int{}
		}
		n := c.pages[p.policy][p.number] + by
		if c.pages[p.policy][p.number] = n; n == 0 {
			delete(c.pages[p.policy], p.number)
		}
		if len(c.pages[p.policy]) == 0 {
			delete(c.pages, p.policy)
		}
		if po := s.Policies[p.policy]; po != nil && (n == 0 || n == by) {
			d.rebuild(tenant.Key{Kind: tenant.KindDomain, ID: po.DomainID})
		}
	}
	e.page = now
}

// pagesOf are the pages of a policy that have entries, in order.
func (c *Compiler) pagesOf(policyID string) []uint16 {
	return slices.Sorted(maps.Keys(c.pages[policyID]))
}
