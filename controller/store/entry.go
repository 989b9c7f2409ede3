package store

import (
	"fmt"
	"slices"
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
	numbers map[string]uint32 // by class
}

func enterpriseEntry(e *tenant.Enterprise) entry {
	return entry{object: e, kind: tenant.KindEnterprise, key: enterpriseKey(e.ID), name: e.Name,
		numbers: map[string]uint32{classCustomer: e.CustomerID}}
}

func domainEntry(d *tenant.Domain) entry {
	return entry{object: d, kind: tenant.KindDomain, key: domainKey(d.ID), name: d.Name,
		parent: tenant.Key{Kind: tenant.KindEnterprise, ID: d.EnterpriseID}, within: enterpriseKey(d.EnterpriseID),
		numbers: map[string]uint32{classVNI: d.VNI, classNumber: uint32(d.Number)}}
}

func zoneEntry(z *tenant.Zone) entry {
	return entry{object: z, kind: tenant.KindZone, key: zoneKey(z.DomainID, z.ID), name: z.Name,
		parent: tenant.Key{Kind: tenant.KindDomain, ID: z.DomainID}, within: domainKey(z.DomainID)}
}

func subnetEntry(n *tenant.Subnet) entry {
	return entry{object: n, kind: tenant.KindSubnet, key: subnetKey(n.DomainID, n.ID), name: n.Name,
		parent: tenant.Key{Kind: tenant.KindZone, ID: n.ZoneID}, within: zoneKey(n.DomainID, n.ZoneID),
		numbers: map[string]uint32{classVNI: n.VNI}}
}

// vportEntry has no name index: two hosts may each have a container of the same name.
func vportEntry(v *tenant.Vport) entry {
	e := entry{object: v, kind: tenant.KindVport, key: vportKey(v.DomainID, v.ID), name: v.Name}
	if !nowhere(v) {
		e.parent, e.within = tenant.Key{Kind: tenant.KindSubnet, ID: v.SubnetID}, subnetKey(v.DomainID, v.SubnetID)
	}
	return e
}

func (e entry) nameKey() string {
	if e.kind == tenant.KindVport {
		return ""
	}
	return nameKey(e.kind, e.parent.ID, e.name)
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
	m.Updated, m.Revision = m.Created, 0
}

// add plans a creation: name, ID, external ID and numbers are unique, the parent exists.
func (t *txn) add(st *tenant.State, e entry) error {
	m := e.Base()
	if err := e.Validate(); err != nil {
		return e.called(err)
	}
	if e.within != "" {
		t.exists(e.within)
	}
	if err := t.claimName(st, e); err != nil {
		return err
	}
	if holder := idHolder(st, m.ID); holder != "" {
		return e.called(fmt.Errorf("ID %s %w: %s has it", m.ID, tenant.ErrExists, holder))
	}
	t.claim(idKey(m.ID), e.key)
	if err := t.claimExternal(st, e); err != nil {
		return err
	}
	for class, n := range e.numbers {
		t.claim(numberKey(class, n), m.ID)
	}
	t.put(e.key, e.object)
	return nil
}

// change plans the update of have to want; parent and numbers are the same.
func (t *txn) change(st *tenant.State, have, want entry) error {
	if err := want.Validate(); err != nil {
		return want.called(err)
	}
	if have.name != want.name {
		if old := have.nameKey(); old != "" {
			t.delete(old)
		}
		if err := t.claimName(st, want); err != nil {
			return err
		}
	}
	if old := have.Base().ExternalID; old != want.Base().ExternalID {
		if old != "" {
			t.delete(externalKey(have.kind, old))
		}
		if err := t.claimExternal(st, want); err != nil {
			return err
		}
	}
	t.unchanged(have.key, have.Base().Revision)
	t.put(have.key, want.object)
	return nil
}

// remove plans the removal of an object and of all that points to it.
func (t *txn) remove(e entry) {
	m := e.Base()
	t.unchanged(e.key, m.Revision)
	t.delete(e.key, idKey(m.ID), guardKey(m.ID))
	if name := e.nameKey(); name != "" {
		t.delete(name)
	}
	if m.ExternalID != "" {
		t.delete(externalKey(e.kind, m.ExternalID))
	}
	for class, n := range e.numbers {
		t.delete(numberKey(class, n))
	}
}

func (t *txn) claimName(st *tenant.State, e entry) error {
	key := e.nameKey()
	if key == "" {
		return nil
	}
	var taken bool
	switch e.kind {
	case tenant.KindEnterprise:
		taken = st.EnterpriseByName(e.name) != nil
	case tenant.KindDomain:
		taken = st.DomainByName(e.parent.ID, e.name) != nil
	case tenant.KindZone:
		taken = st.ZoneByName(e.parent.ID, e.name) != nil
	case tenant.KindSubnet:
		taken = st.SubnetByName(e.parent.ID, e.name) != nil
	}
	if taken {
		text := fmt.Sprintf("%s %s", e.kind.Noun(), e.name)
		if e.parent.ID != "" {
			text = nameOf(st, e.parent) + ": " + text
		}
		return fmt.Errorf("%s %w", text, tenant.ErrExists)
	}
	t.claim(key, e.Base().ID)
	return nil
}

func (t *txn) claimExternal(st *tenant.State, e entry) error {
	m := e.Base()
	if m.ExternalID == "" {
		return nil
	}
	if id := externalHolder(st, e.kind, m.ExternalID); id != "" {
		return e.called(fmt.Errorf("external ID %s %w: %s has it", m.ExternalID, tenant.ErrExists, nameOf(st, tenant.Key{Kind: e.kind, ID: id})))
	}
	t.claim(externalKey(e.kind, m.ExternalID), m.ID)
	return nil
}

// idHolder names the object that has the ID, if one has.
func idHolder(st *tenant.State, id string) string {
	for _, kind := range []tenant.Kind{tenant.KindEnterprise, tenant.KindDomain, tenant.KindZone, tenant.KindSubnet, tenant.KindVport} {
		if _, ok := baseOf(st, tenant.Key{Kind: kind, ID: id}); ok {
			return nameOf(st, tenant.Key{Kind: kind, ID: id})
		}
	}
	return ""
}

func externalHolder(st *tenant.State, kind tenant.Kind, external string) string {
	switch kind {
	case tenant.KindEnterprise:
		return externalIn(st.Enterprises, external)
	case tenant.KindDomain:
		return externalIn(st.Domains, external)
	case tenant.KindZone:
		return externalIn(st.Zones, external)
	case tenant.KindSubnet:
		return externalIn(st.Subnets, external)
	default:
		return externalIn(st.Vports, external)
	}
}

func externalIn[T any, P interface {
	*T
	object
}](objects map[string]P, external string) string {
	for id, v := range objects {
		if v.Base().ExternalID == external {
			return id
		}
	}
	return ""
}

// baseOf tells the name of an object that may have children or an ID of its own.
func baseOf(st *tenant.State, k tenant.Key) (name string, ok bool) {
	switch k.Kind {
	case tenant.KindEnterprise:
		if v := st.Enterprises[k.ID]; v != nil {
			return v.Name, true
		}
	case tenant.KindDomain:
		if v := st.Domains[k.ID]; v != nil {
			return v.Name, true
		}
	case tenant.KindZone:
		if v := st.Zones[k.ID]; v != nil {
			return v.Name, true
		}
	case tenant.KindSubnet:
		if v := st.Subnets[k.ID]; v != nil {
			return v.Name, true
		}
	case tenant.KindVport:
		if v := st.Vports[k.ID]; v != nil {
			return v.Name, true
		}
	}
	return k.ID, false
}

// nameOf is how messages call an object: by kind and name.
func nameOf(st *tenant.State, k tenant.Key) string {
	name, _ := baseOf(st, k)
	return k.Kind.Noun() + " " + name
}

// contents says what is in an object; empty if nothing is.
func contents(st *tenant.State, k tenant.Key, kinds ...tenant.Kind) string {
	var names []string
	for _, kind := range kinds {
		st.Children(k, kind, func(id string) { names = append(names, nameOf(st, tenant.Key{Kind: kind, ID: id})) })
	}
	const shown = 3
	slices.Sort(names)
	if len(names) > shown {
		names = append(names[:shown], fmt.Sprintf("%d more", len(names)-shown))
	}
	return strings.Join(names, ", ")
}

func notFound(kind tenant.Kind, id string) error {
	return fmt.Errorf("%s %s %w", kind.Noun(), id, tenant.ErrNotFound)
}

// known checks that an object to be changed is there, and still what the caller has read.
func known[T any, P interface {
	*T
	object
}](st *tenant.State, kind tenant.Kind, objects map[string]P, m tenant.Meta) (P, error) {
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
