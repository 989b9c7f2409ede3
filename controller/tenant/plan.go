package tenant

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Op is what a step does to its object.
type Op string

// The operations of a plan. It deletes nothing but entries of policies: those of a policy
// whose entries a document lists, and that it does not list.
const (
	OpCreate Op = "create"
	OpUpdate Op = "update"
	OpDelete Op = "delete"
)

// Step is one write of a plan.
type Step struct {
	Op   Op
	Kind Kind
	// Path is the object's name after the names of what contains it, with slashes.
	Path string
	// Detail is what is written, for people: "10.85.85.0/24, gateway 10.85.85.1".
	Detail string
	// Object is the value to write: *Enterprise, *Domain, *Zone, *Subnet, *NetworkMacro,
	// *PolicyGroup, *Policy, *Entry or *RateLimiter. For an update it carries the revision
	// that the plan was made from, or none if an earlier step writes the same object; of a
	// deletion, the ID alone counts.
	Object any
}

// Plan returns the writes that bring the state to what the documents ask for, parents
// before children; none when everything is as asked. It changes nothing itself. Where
// the documents cannot be had, it returns no step and every reason at once, each with
// the line and the path of its object and wrapping ErrInvalid or ErrConflict. New
// objects get their IDs from newID, since children name their parents by ID.
//
// No step leaves a policy in force that is only half there: a new one is made inactive and
// becomes active once it has its entries, and entries go when all others are in place.
func Plan(s *State, docs []Document, newID func() string) ([]Step, error) {
	p := newPlanner(s, newID)
	for i := range docs {
		p.document(&docs[i])
	}
	// Policies and limiters may name what a later document defines.
	for i := range docs {
		p.policies(&docs[i])
	}
	p.reorder()
	for i := range docs {
		p.limiters(&docs[i])
	}
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	return p.steps, nil
}

// child is an object as users know it: a name in a parent.
type child struct{ parent, name string }

// planner carries the state as it will be after the steps planned so far.
type planner struct {
	state       *State
	newID       func() string
	enterprises map[child]*Enterprise
	domains     map[child]*Domain
	zones       map[child]*Zone
	subnets     map[child]*Subnet
	macros      map[child]*NetworkMacro
	groups      map[child]*PolicyGroup
	vports      map[string][]*Vport // by domain
	changes     policyChanges
	occupied    map[string]*prefixes // by domain
	asked       map[string]int       // what is defined → its line
	steps       []Step
	errs        []error
}

func newPlanner(s *State, newID func() string) *planner {
	p := &planner{
		state:       s,
		newID:       newID,
		enterprises: map[child]*Enterprise{},
		domains:     map[child]*Domain{},
		zones:       map[child]*Zone{},
		subnets:     map[child]*Subnet{},
		macros:      map[child]*NetworkMacro{},
		groups:      map[child]*PolicyGroup{},
		vports:      map[string][]*Vport{},
		occupied:    map[string]*prefixes{},
		asked:       map[string]int{},
	}
	for _, e := range s.Enterprises {
		p.enterprises[child{"", e.Name}] = e
	}
	for _, d := range s.Domains {
		p.domains[child{d.EnterpriseID, d.Name}] = d
	}
	for _, z := range s.Zones {
		p.zones[child{z.DomainID, z.Name}] = z
	}
	for _, n := range s.Subnets {
		p.subnets[child{n.ZoneID, n.Name}] = n
		p.in(n.DomainID).list = append(p.in(n.DomainID).list, n)
	}
	for _, m := range s.NetworkMacros {
		p.macros[child{m.EnterpriseID, m.Name}] = m
	}
	for _, g := range s.PolicyGroups {
		p.groups[child{g.DomainID, g.Name}] = g
	}
	for _, v := range s.Vports {
		p.vports[v.DomainID] = append(p.vports[v.DomainID], v)
	}
	for _, o := range p.occupied {
		o.sort()
	}
	return p
}

func (p *planner) in(domainID string) *prefixes {
	if p.occupied[domainID] == nil {
		p.occupied[domainID] = &prefixes{}
	}
	return p.occupied[domainID]
}

// fail records what is wrong with an object.
func (p *planner) fail(line int, parent, object string, err error) {
	if parent != "" {
		object = parent + ": " + object
	}
	p.errs = append(p.errs, fmt.Errorf("line %d: %s: %w", line, object, err))
}

// once refuses what the documents define a second time: which of two definitions
// counts must not depend on their order.
func (p *planner) once(line int, parent, object string) bool {
	key := parent + "\x00" + object
	if first, ok := p.asked[key]; ok {
		p.fail(line, parent, object, Errorf(ErrInvalid, "defined twice, first in line %d", first))
		return false
	}
	p.asked[key] = line
	return true
}

func (p *planner) document(d *Document) {
	if d.Description != nil && !p.once(d.Line, "", "description of enterprise "+d.Enterprise) {
		return
	}
	e := place(p, p.enterprises, target{KindEnterprise, "", d.Enterprise, "", d.Line, d.Description},
		Enterprise{Meta: Meta{ID: p.newID()}, Name: d.Enterprise}, func(e *Enterprise) *string { return &e.Description })
	for i := range d.NetworkMacros {
		p.macro(e, &d.NetworkMacros[i])
	}
	for i := range d.Domains {
		p.domain(e, &d.Domains[i])
	}
}

func (p *planner) domain(e *Enterprise, want *DomainEntry) {
	if !p.once(want.Line, e.Name, "domain "+want.Name) {
		return
	}
	d := place(p, p.domains, target{KindDomain, e.ID, want.Name, e.Name, want.Line, want.Description},
		Domain{Meta: Meta{ID: p.newID()}, EnterpriseID: e.ID, Name: want.Name}, func(d *Domain) *string { return &d.Description })
	for i := range want.Zones {
		p.zone(d, e.Name+"/"+d.Name, &want.Zones[i])
	}
	for i := range want.PolicyGroups {
		p.group(d, e.Name+"/"+d.Name, &want.PolicyGroups[i])
	}
}

func (p *planner) zone(d *Domain, parent string, want *ZoneEntry) {
	if !p.once(want.Line, parent, "zone "+want.Name) {
		return
	}
	z := place(p, p.zones, target{KindZone, d.ID, want.Name, parent, want.Line, want.Description},
		Zone{Meta: Meta{ID: p.newID()}, DomainID: d.ID, Name: want.Name}, func(z *Zone) *string { return &z.Description })
	for i := range want.Subnets {
		p.subnet(z, parent+"/"+z.Name, &want.Subnets[i])
	}
}

// target says which object place is about, and the description asked for, if any.
type target struct {
	kind                   Kind
	parentID, name, parent string
	line                   int
	description            *string
}

// place plans what brings an object that has nothing but a name and a description to
// what is asked, and returns it as it will be.
func place[T interface{ Validate() error }](p *planner, index map[child]*T, t target, fresh T, describe func(*T) *string) *T {
	at := child{t.parentID, t.name}
	op, obj := OpCreate, fresh
	if have := index[at]; have != nil {
		if t.description == nil || *describe(have) == *t.description {
			return have
		}
		op, obj = OpUpdate, *have
	}
	detail := ""
	if t.description != nil {
		*describe(&obj) = *t.description
		detail = fmt.Sprintf("description %q", *t.description)
	}
	if err := obj.Validate(); err != nil {
		p.fail(t.line, t.parent, t.kind.Noun()+" "+t.name, err)
	}
	index[at] = &obj
	p.steps = append(p.steps, Step{op, t.kind, strings.TrimPrefix(t.parent+"/"+t.name, "/"), detail, &obj})
	return &obj
}

func (p *planner) subnet(z *Zone, parent string, want *SubnetEntry) {
	if !p.once(want.Line, parent, "subnet "+want.Name) {
		return
	}
	at := child{z.ID, want.Name}
	have := p.subnets[at]
	op, obj := OpCreate, Subnet{Meta: Meta{ID: p.newID()}, DomainID: z.DomainID, ZoneID: z.ID, Name: want.Name}
	if have != nil {
		op, obj = OpUpdate, *have
	}
	changed := adjust(&obj, want)
	if have != nil && len(changed) == 0 {
		return
	}
	err := obj.Validate()
	if err == nil {
		err = p.movable(have, &obj)
	}
	if err == nil {
		err = p.in(z.DomainID).replace(have, &obj)
	}
	if err != nil {
		p.fail(want.Line, parent, "subnet "+want.Name, err)
		return
	}
	p.subnets[at] = &obj
	p.steps = append(p.steps, Step{op, KindSubnet, parent + "/" + want.Name, strings.Join(changed, ", "), &obj})
}

// adjust writes what is asked into obj and says what that changed.
func adjust(obj *Subnet, want *SubnetEntry) (changed []string) {
	gateway := want.Gateway
	if obj.CIDR != want.Address {
		obj.CIDR = want.Address
		changed = append(changed, want.Address.String())
		if !gateway.IsValid() && want.Address.Addr().Is4() {
			gateway = FirstHost(want.Address)
		}
	}
	if gateway.IsValid() && obj.Gateway != gateway {
		obj.Gateway = gateway
		changed = append(changed, "gateway "+gateway.String())
	}
	if want.Description != nil && obj.Description != *want.Description {
		obj.Description = *want.Description
		changed = append(changed, fmt.Sprintf("description %q", obj.Description))
	}
	if obj.DockerOwned {
		// Who writes a subnet down wants it to outlive the network it was made for.
		obj.DockerOwned = false
		changed = append(changed, "kept when its last network goes")
	}
	return changed
}

// movable refuses other addresses for a subnet that something relies on.
func (p *planner) movable(have, want *Subnet) error {
	if have == nil || have.CIDR == want.CIDR && have.Gateway == want.Gateway {
		return nil
	}
	vports, networks := 0, 0
	k := Key{KindSubnet, have.ID}
	p.state.Children(k, KindVport, func(string) { vports++ })
	p.state.Children(k, KindNetwork, func(string) { networks++ })
	if vports+networks == 0 {
		return nil
	}
	return Errorf(ErrConflict, "it is %s with gateway %s, which cannot change while it has %d vports and %d Docker networks",
		have.CIDR, have.Gateway, vports, networks)
}

// prefixes are the subnets of one domain in order of address. They never overlap, so
// that only the neighbours of a prefix can overlap it.
type prefixes struct{ list []*Subnet }

func order(a, b *Subnet) int { return a.CIDR.Addr().Compare(b.CIDR.Addr()) }

func (o *prefixes) sort() { slices.SortFunc(o.list, order) }

// replace puts obj in the place of have, which may be nil, unless obj overlaps another.
func (o *prefixes) replace(have, obj *Subnet) error {
	if have != nil {
		if i, found := slices.BinarySearchFunc(o.list, have, order); found {
			o.list = slices.Delete(o.list, i, i+1)
		}
	}
	i, _ := slices.BinarySearchFunc(o.list, obj, order)
	for _, j := range []int{i - 1, i} {
		if j >= 0 && j < len(o.list) && o.list[j].CIDR.Overlaps(obj.CIDR) {
			return Errorf(ErrConflict, "%s overlaps subnet %s (%s) of the same domain", obj.CIDR, o.list[j].Name, o.list[j].CIDR)
		}
	}
	o.list = slices.Insert(o.list, i, obj)
	return nil
}
