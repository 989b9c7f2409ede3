package tenant

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

func (p *planner) macro(e *Enterprise, want *MacroEntry) {
	object := "network macro " + want.Name
	if !p.once(want.Line, e.Name, object) {
		return
	}
	at := child{e.ID, want.Name}
	have := p.macros[at]
	op, obj := OpCreate, NetworkMacro{Meta: Meta{ID: p.newID()}, EnterpriseID: e.ID, Name: want.Name}
	if have != nil {
		op, obj = OpUpdate, *have
	}
	obj.CIDR = want.Address
	if want.Description != nil {
		obj.Description = *want.Description
	}
	if have != nil && obj == *have {
		return
	}
	if err := obj.Validate(); err != nil {
		p.fail(want.Line, e.Name, object, err)
	}
	p.macros[at] = &obj
	p.steps = append(p.steps, Step{op, KindNetworkMacro, e.Name + "/" + want.Name, obj.CIDR.String() + described(want.Description), &obj})
}

func described(text *string) string {
	if text == nil {
		return ""
	}
	return fmt.Sprintf(", description %q", *text)
}

func (p *planner) group(d *Domain, parent string, want *GroupEntry) {
	if !p.once(want.Line, parent, "policy group "+want.Name) {
		return
	}
	made := p.groups[child{d.ID, want.Name}] == nil
	place(p, p.groups, target{KindPolicyGroup, d.ID, want.Name, parent, want.Line, want.Description},
		PolicyGroup{Meta: Meta{ID: p.newID()}, DomainID: d.ID, Name: want.Name}, func(g *PolicyGroup) *string { return &g.Description })
	if !made {
		return
	}
	n := 0
	for at := range p.groups {
		if at.parent == d.ID {
			n++
		}
	}
	if n > MaxPolicyGroups {
		p.fail(want.Line, parent, "policy group "+want.Name, Errorf(ErrExhausted, "a domain has at most %d policy groups", MaxPolicyGroups))
	}
}

// policyChanges are the policies that the documents ask for, and what is written for them.
type policyChanges struct {
	asked     []*policyChange
	deletions []Step
}

// policyChange is a policy as it is (nil if it is not there), as it is after the steps so
// far, and as it is to be.
type policyChange struct {
	have      *Policy
	now, want Policy
	parent    string
	line      int
	step      int // of its creation
}

// policies plans the policies of a document up to their entries. What is left of them to
// write is for reorder.
func (p *planner) policies(doc *Document) {
	e := p.enterprises[child{"", doc.Enterprise}]
	for i := range doc.Domains {
		d := p.domains[child{e.ID, doc.Domains[i].Name}]
		for j := range doc.Domains[i].Policies {
			p.policy(d, e.Name+"/"+d.Name, &doc.Domains[i].Policies[j])
		}
	}
}

func (p *planner) policy(d *Domain, parent string, want *PolicyEntry) {
	object := "policy " + want.Name
	if !p.once(want.Line, parent, object) {
		return
	}
	c := &policyChange{have: p.state.PolicyByName(d.ID, want.Name), parent: parent, line: want.Line}
	c.want = Policy{Meta: Meta{ID: p.newID()}, DomainID: d.ID, Name: want.Name, Direction: want.Direction, Active: true}
	if c.have != nil {
		c.want = *c.have
	}
	if c.want.Direction != want.Direction {
		p.fail(want.Line, parent, object, Errorf(ErrConflict, "it is an %s policy, which cannot become an %s one: delete it first", c.want.Direction, want.Direction))
	}
	c.want.Priority = want.Priority
	for _, choice := range []struct{ at, want *bool }{
		{&c.want.Active, want.Active}, {&c.want.DefaultAllowIP, want.DefaultAllowIP}, {&c.want.DefaultAllowNonIP, want.DefaultAllowNonIP},
	} {
		if choice.want != nil {
			*choice.at = *choice.want
		}
	}
	if want.Description != nil {
		c.want.Description = *want.Description
	}
	if err := c.want.Validate(); err != nil {
		p.fail(want.Line, parent, object, err)
	}
	c.now = c.want
	if c.have != nil {
		c.now = *c.have
	} else {
		c.now.Active = false
		c.step = len(p.steps)
		p.steps = append(p.steps, Step{Op: OpCreate, Kind: KindPolicy, Path: parent + "/" + want.Name})
	}
	p.changes.asked = append(p.changes.asked, c)
	if want.Rules != nil {
		p.rules(c, parent+"/"+want.Name, want.Rules)
	}
}

// difference says in words what is not the same, and for a new policy, all that matters.
func difference(have *Policy, want Policy) string {
	var parts []string
	if have == nil {
		have = &Policy{Priority: want.Priority + 1}
		parts = append(parts, string(want.Direction))
	}
	if have.Priority != want.Priority {
		parts = append(parts, fmt.Sprintf("priority %d", want.Priority))
	}
	for _, choice := range []struct {
		name      string
		have, now bool
	}{{"active", have.Active, want.Active}, {"defaultAllowIP", have.DefaultAllowIP, want.DefaultAllowIP}, {"defaultAllowNonIP", have.DefaultAllowNonIP, want.DefaultAllowNonIP}} {
		if choice.have != choice.now {
			parts = append(parts, fmt.Sprintf("%s %t", choice.name, choice.now))
		}
	}
	if have.Description != want.Description {
		parts = append(parts, fmt.Sprintf("description %q", want.Description))
	}
	return strings.Join(parts, ", ")
}

// slot is what one policy of a domain can have.
type slot struct {
	domainID  string
	direction Direction
	priority  uint32
}

func slotOf(p *Policy) slot { return slot{p.DomainID, p.Direction, p.Priority} }

// reorder writes what is left of the policies: priorities, defaults, and whether they are
// active. No two policies of a direction ever have one priority, so that a policy waits
// until another has left its own; where they wait for each other, one steps aside.
func (p *planner) reorder() {
	taken := map[slot]string{}
	for id, o := range p.state.Policies {
		taken[slotOf(o)] = id
	}
	if !p.distinct() {
		return
	}
	for _, c := range p.changes.asked {
		if c.have != nil {
			continue
		}
		// It is made inactive, so that it may begin with any priority.
		if taken[slotOf(&c.now)] != "" {
			c.now.Priority = free(taken, slotOf(&c.now))
		}
		taken[slotOf(&c.now)] = c.now.ID
		made := c.now
		p.steps[c.step].Object, p.steps[c.step].Detail = &made, difference(nil, made)
		if c.want.Active {
			p.steps[c.step].Detail += ", inactive until its entries are there"
		}
	}
	move := func(c *policyChange, to Policy, why string) {
		delete(taken, slotOf(&c.now))
		taken[slotOf(&to)] = to.ID
		p.steps = append(p.steps, Step{OpUpdate, KindPolicy, c.parent + "/" + to.Name, difference(&c.now, to) + why, &to})
		c.now, c.want.Revision = to, 0
		c.now.Revision = 0
	}
	waiting := slices.DeleteFunc(slices.Clone(p.changes.asked), func(c *policyChange) bool { return c.now == c.want })
	for len(waiting) > 0 {
		n := len(waiting)
		waiting = slices.DeleteFunc(waiting, func(c *policyChange) bool {
			if holder := taken[slotOf(&c.want)]; holder != "" && holder != c.want.ID {
				return false
			}
			move(c, c.want, "")
			return true
		})
		if len(waiting) == n {
			aside := waiting[0].now
			aside.Priority = free(taken, slotOf(&aside))
			move(waiting[0], aside, " for a moment, to make room")
		}
	}
	p.steps = append(p.steps, p.changes.deletions...)
}

// free is a priority that no policy has, below all others where that can be.
func free(taken map[slot]string, s slot) uint32 {
	top := uint32(0)
	for o := range taken {
		if o.domainID == s.domainID && o.direction == s.direction {
			top = max(top, o.priority)
		}
	}
	for s.priority = min(top+1, MaxPriority); taken[s] != ""; s.priority-- {
	}
	return s.priority
}

// distinct refuses priorities that two policies would have in the end.
func (p *planner) distinct() bool {
	end := maps.Clone(p.state.Policies)
	for _, c := range p.changes.asked {
		delete(end, c.want.ID)
	}
	names := map[slot]string{}
	for _, o := range end {
		names[slotOf(o)] = o.Name
	}
	fine := true
	for _, c := range p.changes.asked {
		s := slotOf(&c.want)
		if other, is := names[s]; is {
			p.fail(c.line, c.parent, "policy "+c.want.Name, Errorf(ErrConflict, "priority %d is that of %s policy %s", s.priority, s.direction, other))
			fine = false
		}
		names[s] = c.want.Name
	}
	return fine
}
