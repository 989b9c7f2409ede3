package store

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"nuage/controller/tenant"
)

// object is a pointer to one of the model's types.
type object interface {
	Base() *tenant.Meta
	Validate() error
}

// entry is how an object lies in the store: its key, and the indexes that point to it.
type entry struct {
	object
	kind    tenant.Kind
	key     string
	name    string
	parent  tenant.Key        // zero for an enterprise
	within  string            // the parent's key
	unique  []string          // index keys that no other object has
	numbers map[string]uint32 // by class; 0 for one that it has not yet
	uses    map[string]string // ID → key of the other objects that it names
}

func enterpriseEntry(e *tenant.Enterprise) entry {
	return entry{object: e, kind: tenant.KindEnterprise, key: enterpriseKey(e.ID), name: e.Name,
		numbers: map[string]uint32{classCustomer: e.CustomerID}}.named("")
}

func macroEntry(m *tenant.NetworkMacro) entry {
	return entry{object: m, kind: tenant.KindNetworkMacro, key: macroKey(m.ID), name: m.Name,
		parent: tenant.Key{Kind: tenant.KindEnterprise, ID: m.EnterpriseID}, within: enterpriseKey(m.EnterpriseID)}.named(m.EnterpriseID)
}

func domainEntry(d *tenant.Domain) entry {
	return entry{object: d, kind: tenant.KindDomain, key: domainKey(d.ID), name: d.Name,
		parent: tenant.Key{Kind: tenant.KindEnterprise, ID: d.EnterpriseID}, within: enterpriseKey(d.EnterpriseID),
		numbers: map[string]uint32{classVNI: d.VNI, classNumber: uint32(d.Number)}}.named(d.EnterpriseID)
}

// inDomain is the entry of an object whose parent is its domain.
func inDomain(o object, kind tenant.Kind, domain, name string) entry {
	return entry{object: o, kind: kind, key: keyIn(domain, kind, o.Base().ID), name: name,
		parent: tenant.Key{Kind: tenant.KindDomain, ID: domain}, within: domainKey(domain)}.named(domain)
}

func zoneEntry(z *tenant.Zone) entry {
	return inDomain(z, tenant.KindZone, z.DomainID, z.Name).numbered(classZone, z.DomainID, z.Number)
}

func groupEntry(g *tenant.PolicyGroup) entry {
	return inDomain(g, tenant.KindPolicyGroup, g.DomainID, g.Name).numbered(classGroup, g.DomainID, g.Number)
}

func policyEntry(p *tenant.Policy) entry {
	e := inDomain(p, tenant.KindPolicy, p.DomainID, p.Name).numbered(classPolicy, p.DomainID, p.Number)
	e.unique = append(e.unique, priorityKey(p))
	return e
}

func subnetEntry(n *tenant.Subnet) entry {
	return entry{object: n, kind: tenant.KindSubnet, key: subnetKey(n.DomainID, n.ID), name: n.Name,
		parent: tenant.Key{Kind: tenant.KindZone, ID: n.ZoneID}, within: keyIn(n.DomainID, tenant.KindZone, n.ZoneID),
		numbers: map[string]uint32{classVNI: n.VNI}}.named(n.ZoneID)
}

// vportEntry has no name index: two hosts may each have a container of the same name.
func vportEntry(v *tenant.Vport) entry {
	e := entry{object: v, kind: tenant.KindVport, key: vportKey(v.DomainID, v.ID), name: v.Name}
	if !nowhere(v) {
		e.parent, e.within = tenant.Key{Kind: tenant.KindSubnet, ID: v.SubnetID}, subnetKey(v.DomainID, v.SubnetID)
	}
	return e
}

// ruleEntry is that of an entry of a policy, whose name is its priority.
func ruleEntry(r *tenant.Entry) entry {
	e := entry{object: r, kind: tenant.KindEntry, key: keyIn(r.DomainID, tenant.KindEntry, r.ID), name: strconv.FormatUint(uint64(r.Priority), 10),
		parent: tenant.Key{Kind: tenant.KindPolicy, ID: r.PolicyID}, within: keyIn(r.DomainID, tenant.KindPolicy, r.PolicyID),
		unique: []string{ruleKey(r.PolicyID, r.Priority)}, uses: map[string]string{}}
	for _, side := range []tenant.Side{r.From, r.To} {
		if k, named := side.Key(); named {
			e.uses[k.ID] = keyOf(r.DomainID, k)
		}
	}
	return e
}

// limiterEntry is that of a rate limiter, whose name is its direction.
func limiterEntry(l *tenant.RateLimiter) entry {
	return entry{object: l, kind: tenant.KindRateLimiter, key: keyIn(l.DomainID, tenant.KindRateLimiter, l.ID), name: string(l.Direction),
		parent: l.On, within: keyOf(l.DomainID, l.On)}.named(l.On.ID)
}

// named gives the entry an index by its name, which is unique in the parent.
func (e entry) named(parent string) entry {
	e.unique = []string{nameKey(e.kind, parent, e.name)}
	return e
}

// numbered gives the entry a number that is unique in its domain.
func (e entry) numbered(class, domain string, n uint16) entry {
	e.numbers = map[string]uint32{classIn(class, domain): uint32(n)}
	return e
}

// called puts the object's name before what is said of it.
func (e entry) called(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", e.kind.Noun(), e.name, err)
}

// born gives a new object its ID and times.
func (s *Store) born(m *tenant.Meta) {
	if m.ID == "" {
		m.ID = uuid.NewString()
	}
	m.Created = s.now()
	m.Updated, m.Revision, m.Committed = m.Created, 0, 0
}

// add plans a creation: name, ID, external ID and numbers are unique, the parent and what
// it names exist.
func (t *txn) add(st *tenant.State, e entry) error {
	m := e.Base()
	if err := e.Validate(); err != nil {
		return e.called(err)
	}
	if e.within != "" {
		t.exists(e.within)
	}
	if key := t.held[idKey(m.ID)]; key != "" {
		k, _ := parseKey(key)
		return e.called(fmt.Errorf("ID %s %w: %s has it", m.ID, tenant.ErrExists, nameOf(st, k)))
	}
	t.claim(idKey(m.ID), e.key)
	if err := t.reindex(st, entry{}, e); err != nil {
		return err
	}
	t.put(e.key, e.object)
	return nil
}

// change plans the update of have to want; the parent is the same.
func (t *txn) change(st *tenant.State, have, want entry) error {
	if err := want.Validate(); err != nil {
		return want.called(err)
	}
	if err := t.reindex(st, have, want); err != nil {
		return err
	}
	t.unchanged(have.key, have.Base().Revision)
	t.put(have.key, want.object)
	return nil
}

// remove plans the removal of an object, of all that points to it, and of the rate
// limiters on it.
func (t *txn) remove(st *tenant.State, e entry) {
	m := e.Base()
	t.unchanged(e.key, m.Revision)
	t.delete(e.key, idKey(m.ID), guardKey(m.ID))
	for _, key := range e.index() {
		t.unclaim(key)
	}
	for id := range e.uses {
		t.delete(usesKey(id, m.ID))
	}
	t.unlimit(st, e)
}

// index are the index keys that hold the object's ID.
func (e entry) index() []string {
	keys := slices.Clone(e.unique)
	if external := e.Base().ExternalID; external != "" {
		keys = append(keys, externalKey(e.kind, external))
	}
	for class, n := range e.numbers {
		if n != 0 {
			keys = append(keys, numberKey(class, n))
		}
	}
	return keys
}

// reindex plans the indexes of want in the place of those of have, which may be none.
func (t *txn) reindex(st *tenant.State, have, want entry) error {
	id := want.Base().ID
	var old []string
	if have.object != nil {
		old = have.index()
	}
	now := want.index()
	for _, key := range old {
		if !slices.Contains(now, key) {
			t.unclaim(key)
		}
	}
	for _, key := range now {
		if slices.Contains(old, key) {
			continue
		}
		if holder := t.held[key]; holder != "" && holder != id {
			return want.taken(st, key, holder)
		}
		t.claim(key, id)
	}
	for used := range have.uses {
		if _, still := want.uses[used]; !still {
			t.delete(usesKey(used, id))
		}
	}
	for used, key := range want.uses {
		if _, already := have.uses[used]; !already {
			t.exists(key)
			t.set(usesKey(used, id), "")
		}
	}
	return nil
}

// taken says that another object has an index key of e.
func (e entry) taken(st *tenant.State, key, id string) error {
	if slices.Contains(e.unique, key) {
		text := fmt.Sprintf("%s %s", e.kind.Noun(), e.name)
		if e.parent.ID != "" {
			text = nameOf(st, e.parent) + ": " + text
		}
		return fmt.Errorf("%s %w", text, tenant.ErrExists)
	}
	what := "external ID " + e.Base().ExternalID
	for class, n := range e.numbers {
		if numberKey(class, n) == key {
			what = fmt.Sprintf("%s %d", wordOf(class), n)
		}
	}
	return e.called(fmt.Errorf("%s %w: %s has it", what, tenant.ErrExists, holder(st, id)))
}

// entryOf is the entry of an object of the state that has an ID of its own.
func entryOf(st *tenant.State, k tenant.Key) (e entry, ok bool) {
	switch k.Kind {
	case tenant.KindEnterprise:
		return found(st.Enterprises[k.ID], enterpriseEntry)
	case tenant.KindNetworkMacro:
		return found(st.NetworkMacros[k.ID], macroEntry)
	case tenant.KindDomain:
		return found(st.Domains[k.ID], domainEntry)
	case tenant.KindZone:
		return found(st.Zones[k.ID], zoneEntry)
	case tenant.KindSubnet:
		return found(st.Subnets[k.ID], subnetEntry)
	case tenant.KindVport:
		return found(st.Vports[k.ID], vportEntry)
	case tenant.KindPolicyGroup:
		return found(st.PolicyGroups[k.ID], groupEntry)
	case tenant.KindPolicy:
		return found(st.Policies[k.ID], policyEntry)
	case tenant.KindEntry:
		return found(st.Entries[k.ID], ruleEntry)
	case tenant.KindRateLimiter:
		return found(st.RateLimiters[k.ID], limiterEntry)
	}
	return entry{}, false
}

func found[T any](o *T, of func(*T) entry) (entry, bool) {
	if o == nil {
		return entry{}, false
	}
	return of(o), true
}

// nameOf is how messages call an object: by kind and name.
func nameOf(st *tenant.State, k tenant.Key) string {
	e, ok := entryOf(st, k)
	n := st.Networks[k.ID]
	switch {
	case k.Kind == tenant.KindNetwork && n != nil: // called as docker network ls does
		return fmt.Sprintf("network %s on host %s", cmp.Or(n.Name, n.ID[:min(12, len(n.ID))]), n.Host)
	case !ok:
		return k.Kind.Noun() + " " + k.ID
	case k.Kind == tenant.KindEntry:
		return "entry " + e.name + " of " + nameOf(st, e.parent)
	}
	return k.Kind.Noun() + " " + e.name
}

// contents says what is in an object; empty if nothing is.
func contents(st *tenant.State, k tenant.Key, kinds ...tenant.Kind) string {
	var names []string
	for _, kind := range kinds {
		st.Children(k, kind, func(id string) { names = append(names, nameOf(st, tenant.Key{Kind: kind, ID: id})) })
	}
	return some(names, len(names))
}

// shownNames is how many names a message has at most.
const shownNames = 3

// some is a text of names, some of which may be left out already.
func some(names []string, all int) string {
	slices.Sort(names)
	names = names[:min(len(names), shownNames)]
	if more := all - len(names); more > 0 {
		names = append(slices.Clip(names), fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

func notFound(kind tenant.Kind, id string) error {
	return fmt.Errorf("%s %s %w", kind.Noun(), id, tenant.ErrNotFound)
}

// known checks that an object to be changed is there, and still what the caller has read.
func known[T any, P pointer[T]](st *tenant.State, kind tenant.Kind, objects map[string]P, m tenant.Meta) (P, error) {
	have := objects[m.ID]
	if have == nil {
		return nil, notFound(kind, m.ID)
	}
	if m.Revision != 0 && m.Revision != have.Base().Revision {
		return nil, fmt.Errorf("%s %w", nameOf(st, tenant.Key{Kind: kind, ID: m.ID}), tenant.ErrStale)
	}
	return have, nil
}

// fixed refuses the change of something that cannot change. Zero means: as it is.
func fixed[V comparable](what string, have V, want *V) error {
	var zero V
	if *want == zero {
		*want = have
	}
	if *want != have {
		return tenant.Errorf(tenant.ErrInvalid, "%s is %v and cannot change to %v", what, have, *want)
	}
	return nil
}
