package pipeline

import (
	"slices"

	"nuage/controller/tenant"
)

// dirty is the objects to look at again, in the order in which they were found: those of
// the queue and all that depends on them, and those that are only to be rebuilt.
type dirty struct {
	seen, light map[tenant.Key]struct{}
	queue       []tenant.Key
}

func (d *dirty) touch(k tenant.Key) {
	if order(k.Kind) < 0 {
		return
	}
	if _, ok := d.seen[k]; !ok {
		d.seen[k] = struct{}{}
		d.queue = append(d.queue, k)
	}
}

// rebuild has an object's flows computed anew, but nothing that depends on it.
func (d *dirty) rebuild(k tenant.Key) { d.light[k] = struct{}{} }

func (d *dirty) all() []tenant.Key {
	keys := d.queue
	for k := range d.light {
		if _, ok := d.seen[k]; !ok {
			keys = append(keys, k)
		}
	}
	return keys
}

// dependents touches the objects whose fragments depend directly on k's object.
func (c *Compiler) dependents(s *tenant.State, k tenant.Key, d *dirty) {
	var on []tenant.Kind
	switch k.Kind {
	case tenant.KindHost:
		if k.ID == c.host { // whose MTU counts on the way to each other
			c.everyHost(s, d.touch)
			return
		}
		on = []tenant.Kind{tenant.KindVport}
	case tenant.KindDomain:
		on = []tenant.Kind{tenant.KindZone, tenant.KindSubnet, tenant.KindPolicyGroup, tenant.KindPolicy, tenant.KindRateLimiter}
	case tenant.KindZone:
		on = []tenant.Kind{tenant.KindSubnet, tenant.KindEntry}
	case tenant.KindSubnet:
		on = []tenant.Kind{tenant.KindVport, tenant.KindEntry}
	case tenant.KindNetworkMacro, tenant.KindPolicy:
		on = []tenant.Kind{tenant.KindEntry}
	case tenant.KindPolicyGroup:
		on = []tenant.Kind{tenant.KindEntry}
		if g := s.PolicyGroups[k.ID]; g != nil {
			c.members(s, tenant.MemberKey(g.DomainID, g.Name), d)
		}
	case tenant.KindRateLimiter:
		if l := s.RateLimiters[k.ID]; l != nil {
			c.limited(s, l.On, d)
		}
	}
	for _, kind := range on {
		s.Children(k, kind, func(id string) { d.touch(tenant.Key{Kind: kind, ID: id}) })
	}
}

func (c *Compiler) everyHost(s *tenant.State, f func(tenant.Key)) {
	for id := range s.Hosts {
		f(tenant.Key{Kind: tenant.KindHost, ID: id})
	}
}

// restate brings the indexes up to date with k's object, and touches the objects whose
// standing that changes: rivals, and a domain that is now present or no longer.
func (c *Compiler) restate(s *tenant.State, k tenant.Key, d *dirty) {
	cs, since := claimsOf(s, k, c.host, c.ports)
	if cs == nil && c.records[k] == nil {
		return
	}
	e := c.record(k)
	if since.Compare(e.since) != 0 {
		// The order among rivals changes with it: leave, and come again.
		for _, o := range c.reclaim(e, nil) {
			d.touch(o.key)
		}
		e.since = since
	}
	for _, o := range c.reclaim(e, cs) {
		d.touch(o.key)
	}
	for _, cl := range cs { // whose notes have this one's name
		if r := c.claims[cl]; r.first == e {
			for _, o := range r.others {
				d.touch(o.key)
			}
		}
	}
	switch k.Kind {
	case tenant.KindVport:
		c.relocate(s, e, d)
	case tenant.KindPolicyGroup, tenant.KindRateLimiter, tenant.KindPolicy, tenant.KindEntry:
		c.realign(s, e, d)
	}
}

func (c *Compiler) record(k tenant.Key) *record {
	e := c.records[k]
	if e == nil {
		e = &record{key: k}
		c.records[k] = e
	}
	return e
}

// reclaim replaces the claims of e and returns the rivals whose standing may change.
func (c *Compiler) reclaim(e *record, now []claim) []*record {
	var touched []*record
	changed := func(cl claim, rivals []*record) {
		touched = append(touched, rivals...)
		if cl.what == claimAddress { // which comes before one that is virtual
			if v := c.claims[claim{claimVirtual, cl.in, cl.value}].first; v != nil {
				touched = append(touched, v)
			}
		}
	}
	for _, cl := range e.claims {
		if !slices.Contains(now, cl) {
			changed(cl, c.claims.remove(cl, e))
		}
	}
	for _, cl := range now {
		if !slices.Contains(e.claims, cl) {
			changed(cl, c.claims.add(cl, e))
		}
	}
	e.claims = now
	return touched
}

// relocate counts a vport of this host in its domain, and finds it by its interface.
func (c *Compiler) relocate(s *tenant.State, e *record, d *dirty) {
	domain, iface := "", ""
	if v := s.Vports[e.key.ID]; v != nil && v.Host == c.host {
		iface = v.Interface
		if sn := s.Subnets[v.SubnetID]; sn != nil {
			domain = sn.DomainID
		}
	}
	if domain != e.domain {
		c.count(e.domain, -1, d)
		c.count(domain, +1, d)
		e.domain = domain
	}
	if iface != e.iface {
		delete(c.byInterface[e.iface], e.key.ID)
		if len(c.byInterface[e.iface]) == 0 {
			delete(c.byInterface, e.iface)
		}
		if iface != "" {
			if c.byInterface[iface] == nil {
				c.byInterface[iface] = map[string]struct{}{}
			}
			c.byInterface[iface][e.key.ID] = struct{}{}
		}
		e.iface = iface
	}
}

func (c *Compiler) count(domain string, by int, d *dirty) {
	if domain == "" {
		return
	}
	was := c.local[domain]
	if c.local[domain] = was + by; was+by == 0 {
		delete(c.local, domain)
	}
	if was == 0 || was+by == 0 {
		d.touch(tenant.Key{Kind: tenant.KindDomain, ID: domain})
	}
}
