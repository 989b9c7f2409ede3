package store

import (
	"context"
	"errors"
	"slices"

	"github.com/google/uuid"

	"nuage/controller/tenant"
)

// EnsurePath finds the subnet that spec names, as tenant.State.Resolve says, or, if
// spec.Create, makes all that is missing in one transaction. Of many that ensure the same
// path at once, one makes it and all get it. The domain is not followed for it.
func (s *Store) EnsurePath(ctx context.Context, spec tenant.PathSpec) (tenant.Path, error) {
	var p tenant.Path
	there := spec
	there.Create = false
	err := s.Ready()
	s.feed.View(func(st *tenant.State) {
		if err == nil {
			p, err = st.Resolve(there)
		}
	})
	if err == nil {
		return p, nil
	}
	var made []*tenant.Meta
	revision, err := s.write(ctx, func(r *reader) error { return r.path(spec) }, func(st *tenant.State, t *txn) (err error) {
		if p, err = st.Resolve(spec); err != nil {
			return err
		}
		made, err = s.make(st, t, &p)
		return err
	})
	if err != nil {
		return tenant.Path{}, err
	}
	for _, m := range made {
		m.Revision, m.Committed = revision, revision
	}
	return p, nil
}

// path reads what there is of a path, and the numbers for what there is not.
func (r *reader) path(spec tenant.PathSpec) error {
	ids, err := r.holders(nameKey(tenant.KindEnterprise, "", spec.Enterprise))
	if err == nil && len(ids) > 0 {
		ids, err = r.holders(nameKey(tenant.KindDomain, ids[0], spec.Domain))
	}
	if err == nil && len(ids) > 0 {
		err = errors.Join(r.around(ids[0]), r.used(classIn(classZone, ids[0])))
	}
	if err != nil || !spec.Create {
		return err
	}
	if p, err := r.st.Resolve(spec); err != nil || p.Subnet.ID != "" {
		return nil // the plan will say the same
	}
	return r.used(classVNI, classNumber, classCustomer)
}

// make plans the objects of a path that have no ID yet.
func (s *Store) make(st *tenant.State, t *txn, p *tenant.Path) (made []*tenant.Meta, err error) {
	missing := func(m *tenant.Meta) bool {
		if m.ID != "" || err != nil {
			return false
		}
		m.ID, m.Created = uuid.NewString(), s.now()
		m.Updated = m.Created
		made = append(made, m)
		return true
	}
	if missing(&p.Enterprise.Meta) {
		err = enterprises.add(st, t, &p.Enterprise)
	}
	if missing(&p.Domain.Meta) {
		p.Domain.EnterpriseID = p.Enterprise.ID
		err = domains.add(st, t, &p.Domain)
	}
	if missing(&p.Zone.Meta) {
		p.Zone.DomainID = p.Domain.ID
		err = zones.add(st, t, &p.Zone)
	}
	if missing(&p.Subnet.Meta) {
		p.Subnet.DomainID, p.Subnet.ZoneID = p.Domain.ID, p.Zone.ID
		err = subnets.add(st, t, &p.Subnet)
	}
	return made, err
}

// EnsurePolicyGroups finds the policy groups of a domain that are named, or, if create,
// makes those that are missing, in one transaction; else these are tenant.ErrNotFound.
func (s *Store) EnsurePolicyGroups(ctx context.Context, domainID string, names []string, create bool) error {
	if len(names) == 0 {
		return nil
	}
	missing := func(st *tenant.State) (missing []string) {
		for _, name := range names {
			if st.PolicyGroupByName(domainID, name) == nil && !slices.Contains(missing, name) {
				missing = append(missing, name)
			}
		}
		return missing
	}
	all := s.Ready() == nil
	s.feed.View(func(st *tenant.State) { all = all && len(missing(st)) == 0 })
	if all {
		return nil
	}
	_, err := s.write(ctx, func(r *reader) error {
		var wanted []entry
		for _, name := range names {
			wanted = append(wanted, groupEntry(&tenant.PolicyGroup{DomainID: domainID, Name: name}))
		}
		return errors.Join(r.rivals(wanted...), r.numbersIn(domainID, classGroup, 0))
	}, func(st *tenant.State, t *txn) error {
		for _, name := range missing(st) {
			if !create {
				return tenant.Errorf(tenant.ErrNotFound, "policy group %s not found in %s: create it first (nuagectl apply), or allow making it on the fly (NUAGE_AUTOCREATE=true)",
					name, nameOf(st, tenant.Key{Kind: tenant.KindDomain, ID: domainID}))
			}
			g := tenant.PolicyGroup{DomainID: domainID, Name: name}
			s.born(&g.Meta)
			if err := groups.add(st, t, &g); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}
