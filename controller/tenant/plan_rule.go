package tenant

import (
	"fmt"
	"slices"
	"strings"
)

// rules plans the entries of a policy. Those that it has and that are not listed are
// deleted when all else is done.
func (p *planner) rules(c *policyChange, parent string, rules Rules) {
	have, listed := map[uint32]*Entry{}, map[uint32]int{}
	for _, e := range p.state.PolicyEntries(c.want.ID) {
		have[e.Priority] = e
	}
	for i := range rules {
		r := &rules[i]
		name := fmt.Sprintf("entry %d", r.Entry.Priority)
		if first, twice := listed[r.Entry.Priority]; twice {
			p.fail(r.Line, parent, name, Errorf(ErrInvalid, "another entry of the policy has this priority, in line %d", first))
			continue
		}
		listed[r.Entry.Priority] = r.Line
		old := have[r.Entry.Priority]
		op, obj := OpCreate, r.Entry
		if old != nil {
			op, obj.Meta = OpUpdate, old.Meta
		} else {
			obj.ID = p.newID()
		}
		obj.DomainID, obj.PolicyID = c.want.DomainID, c.want.ID
		ok := p.sides(r, &obj, parent, name)
		if err := obj.Validate(); ok && err != nil {
			p.fail(r.Line, parent, name, err)
		}
		if old == nil || obj != *old {
			p.steps = append(p.steps, Step{op, KindEntry, entryPath(parent, obj.Priority), r.String(), &obj})
		}
	}
	for _, e := range p.state.PolicyEntries(c.want.ID) {
		if _, kept := listed[e.Priority]; !kept {
			p.changes.deletions = append(p.changes.deletions,
				Step{OpDelete, KindEntry, entryPath(parent, e.Priority), "not in the file any more: " + p.state.RuleOf(e).String(), e})
		}
	}
}

func entryPath(parent string, priority uint32) string {
	return fmt.Sprintf("%s/%d", parent, priority)
}

func (p *planner) sides(r *RuleEntry, obj *Entry, parent, name string) bool {
	ok := true
	for _, s := range []struct {
		word string
		from SideEntry
		to   *Side
	}{{"from", r.From, &obj.From}, {"to", r.To, &obj.To}} {
		id, err := p.sideID(obj.DomainID, s.from)
		if err != nil {
			p.fail(r.Line, parent, name, fmt.Errorf("%s: %w", s.word, err))
			ok = false
		}
		*s.to = Side{Kind: s.from.Kind, ID: id, CIDR: s.from.CIDR}
	}
	return ok
}

// sideID is the ID of what a side names in a domain; empty if it names no object.
func (p *planner) sideID(domainID string, s SideEntry) (string, error) {
	switch s.Kind {
	case SidePolicyGroup:
		return lookUp(p.groups, KindPolicyGroup, domainID, s.Name, "domain "+p.domainName(domainID))
	case SideZone:
		return lookUp(p.zones, KindZone, domainID, s.Name, "domain "+p.domainName(domainID))
	case SideNetworkMacro:
		enterprise := p.domainOf(domainID).EnterpriseID
		return lookUp(p.macros, KindNetworkMacro, enterprise, s.Name, "enterprise "+p.enterpriseName(enterprise))
	case SideSubnet:
		return p.subnetID(domainID, s.Name)
	}
	return "", nil
}

func (p *planner) domainOf(id string) *Domain {
	for _, d := range p.domains {
		if d.ID == id {
			return d
		}
	}
	return &Domain{Name: id}
}

func (p *planner) domainName(id string) string { return p.domainOf(id).Name }

func (p *planner) enterpriseName(id string) string {
	for _, e := range p.enterprises {
		if e.ID == id {
			return e.Name
		}
	}
	return id
}

// lookUp is the ID of a named object of a parent. What is not there is told apart from
// what another parent has.
func lookUp[T any, P interface {
	*T
	Base() *Meta
}](index map[child]P, kind Kind, parent, name, where string) (string, error) {
	if o := index[child{parent, name}]; o != nil {
		return o.Base().ID, nil
	}
	var have []string
	elsewhere := false
	for at := range index {
		if at.parent == parent {
			have = append(have, at.name)
		}
		elsewhere = elsewhere || at.name == name
	}
	text := fmt.Sprintf("%s %s not found in %s", kind.Noun(), name, where)
	switch {
	case elsewhere:
		text += ", only in another"
	case len(have) > 0 && len(have) <= 20:
		slices.Sort(have)
		text += ", which has " + strings.Join(have, ", ")
	}
	return "", Errorf(ErrInvalid, "%s", text)
}

// subnetID finds a subnet of a domain by its name, or by its zone's name, a slash and its
// name.
func (p *planner) subnetID(domainID, name string) (string, error) {
	var found []*Subnet
	for _, z := range p.zones {
		if z.DomainID != domainID {
			continue
		}
		if n := p.subnets[child{z.ID, name}]; n != nil {
			found = append(found, n)
		}
		if own, cut := strings.CutPrefix(name, z.Name+"/"); cut {
			if n := p.subnets[child{z.ID, own}]; n != nil {
				found = append(found, n)
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0].ID, nil
	case 0:
		return "", Errorf(ErrInvalid, "subnet %s not found in domain %s", name, p.domainName(domainID))
	}
	return "", Errorf(ErrInvalid, "there are %d subnets %s in domain %s: name it ZONE/SUBNET", len(found), name, p.domainName(domainID))
}

// vportID finds a vport of a domain by its name or its container's, perhaps after its
// subnet's name and a slash.
func (p *planner) vportID(domainID, name string) (string, error) {
	var found []string
	for _, v := range p.vports[domainID] {
		subnet := ""
		if n := p.state.Subnets[v.SubnetID]; n != nil {
			subnet = n.Name + "/"
		}
		for _, called := range []string{v.Name, subnet + v.Name, v.Owner.ContainerName, v.ID} {
			if called == name && !slices.Contains(found, v.ID) {
				found = append(found, v.ID)
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", Errorf(ErrInvalid, "vport %s not found in domain %s", name, p.domainName(domainID))
	}
	return "", Errorf(ErrInvalid, "there are %d vports %s in domain %s: name it SUBNET/VPORT, or by its ID", len(found), name, p.domainName(domainID))
}

func (p *planner) limiters(doc *Document) {
	e := p.enterprises[child{"", doc.Enterprise}]
	for i := range doc.Domains {
		d := p.domains[child{e.ID, doc.Domains[i].Name}]
		for j := range doc.Domains[i].RateLimiters {
			p.limiter(d, e.Name+"/"+d.Name, &doc.Domains[i].RateLimiters[j])
		}
	}
}

func (p *planner) limiter(d *Domain, parent string, want *LimiterEntry) {
	object := fmt.Sprintf("%s of %s", want.Direction, want.target())
	on, err := p.limitedKey(d, want)
	if err != nil {
		p.fail(want.Line, parent, "rate limiter: "+object, err)
		return
	}
	key := on.ID + string(want.Direction) // it may be named in two ways
	if first, twice := p.asked[key]; twice {
		p.fail(want.Line, parent, "rate limiter: "+object, Errorf(ErrInvalid, "defined twice, first in line %d", first))
		return
	}
	p.asked[key] = want.Line
	op, obj := OpCreate, RateLimiter{Meta: Meta{ID: p.newID()}}
	have := p.state.LimiterOn(on, want.Direction)
	if have != nil {
		op, obj.Meta = OpUpdate, have.Meta
	}
	obj.DomainID, obj.On, obj.Direction, obj.Rate, obj.Burst = d.ID, on, want.Direction, want.Rate, want.Burst
	if have != nil && obj == *have {
		return
	}
	if err := obj.Validate(); err != nil {
		p.fail(want.Line, parent, "rate limiter: "+object, err)
	}
	detail := FormatRate(obj.Rate)
	if obj.Burst != 0 {
		detail += ", burst " + FormatRate(obj.Burst)
	}
	p.steps = append(p.steps, Step{op, KindRateLimiter, parent + "/" + object, detail, &obj})
}

func (p *planner) limitedKey(d *Domain, want *LimiterEntry) (Key, error) {
	var id string
	var err error
	switch want.On {
	case KindDomain:
		id = d.ID
	case KindZone:
		id, err = lookUp(p.zones, KindZone, d.ID, want.Name, "domain "+d.Name)
	case KindSubnet:
		id, err = p.subnetID(d.ID, want.Name)
	case KindVport:
		id, err = p.vportID(d.ID, want.Name)
	}
	return Key{want.On, id}, err
}

// target is what the limiter is on, in words.
func (l *LimiterEntry) target() string { return strings.TrimSpace(l.On.Noun() + " " + l.Name) }
