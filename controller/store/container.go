package store

import (
	"context"
	"errors"

	"nuage/controller/tenant"
)

// CreateEnterprise makes an enterprise with a unique name and customer ID.
func (s *Store) CreateEnterprise(ctx context.Context, e tenant.Enterprise) (tenant.Enterprise, error) {
	s.born(&e.Meta)
	return create(ctx, s, e, func(r *reader) error {
		return errors.Join(r.rivals(enterpriseEntry(&e)), r.used(classCustomer))
	}, addEnterprise)
}

// CreateDomain makes a domain with a name unique in its enterprise, a VNI and a number.
func (s *Store) CreateDomain(ctx context.Context, d tenant.Domain) (tenant.Domain, error) {
	s.born(&d.Meta)
	return create(ctx, s, d, func(r *reader) error {
		return errors.Join(r.around(d.EnterpriseID), r.rivals(domainEntry(&d)), r.used(classVNI, classNumber))
	}, addDomain)
}

// CreateZone makes a zone with a name unique in its domain.
func (s *Store) CreateZone(ctx context.Context, z tenant.Zone) (tenant.Zone, error) {
	s.born(&z.Meta)
	return create(ctx, s, z, func(r *reader) error {
		return errors.Join(r.around(z.DomainID), r.rivals(zoneEntry(&z)))
	}, addZone)
}

// CreateSubnet makes a subnet with a name unique in its zone and a CIDR that overlaps no
// other of its domain. DomainID may be left out; the gateway is the first host address
// unless given.
func (s *Store) CreateSubnet(ctx context.Context, n tenant.Subnet) (tenant.Subnet, error) {
	s.born(&n.Meta)
	return create(ctx, s, n, func(r *reader) error {
		return errors.Join(r.around(n.ZoneID), r.rivals(subnetEntry(&n)), r.used(classVNI))
	}, addSubnet)
}

// create commits what plan makes of a copy of v, anew at each attempt.
func create[T any, P interface {
	*T
	object
}](ctx context.Context, s *Store, v T, read func(*reader) error, plan func(*tenant.State, *txn, P) error) (T, error) {
	return createIn(ctx, s, "", v, read, plan)
}

// createIn is create for what is all in one domain.
func createIn[T any, P interface {
	*T
	object
}](ctx context.Context, s *Store, domain string, v T, read func(*reader) error, plan func(*tenant.State, *txn, P) error) (T, error) {
	var made T
	revision, err := s.writeIn(ctx, domain, read, func(st *tenant.State, t *txn) error {
		made = v
		return plan(st, t, &made)
	})
	if err != nil {
		var none T
		return none, err
	}
	if revision != 0 {
		P(&made).Base().Revision = revision
	}
	return made, nil
}

func addEnterprise(st *tenant.State, t *txn, e *tenant.Enterprise) (err error) {
	if err := e.Validate(); err != nil {
		return enterpriseEntry(e).called(err)
	}
	if e.CustomerID, err = t.customerID(st, e.CustomerID); err != nil {
		return enterpriseEntry(e).called(err)
	}
	return t.add(st, enterpriseEntry(e))
}

func addDomain(st *tenant.State, t *txn, d *tenant.Domain) error {
	if st.Enterprises[d.EnterpriseID] == nil && !t.made[enterpriseKey(d.EnterpriseID)] {
		return domainEntry(d).called(notFound(tenant.KindEnterprise, d.EnterpriseID))
	}
	err := d.Validate()
	if err == nil {
		d.VNI, err = t.vni(st, d.VNI)
	}
	if err == nil {
		d.Number, err = t.domainNumber(st, d.Number)
	}
	if err != nil {
		return domainEntry(d).called(err)
	}
	return t.add(st, domainEntry(d))
}

func addZone(st *tenant.State, t *txn, z *tenant.Zone) error {
	if st.Domains[z.DomainID] == nil && !t.made[domainKey(z.DomainID)] {
		return zoneEntry(z).called(notFound(tenant.KindDomain, z.DomainID))
	}
	return t.add(st, zoneEntry(z))
}

func addSubnet(st *tenant.State, t *txn, n *tenant.Subnet) error {
	if z := st.Zones[n.ZoneID]; z != nil {
		if err := fixed("the zone's domain", z.DomainID, &n.DomainID); err != nil {
			return subnetEntry(n).called(err)
		}
	} else if !t.made[zoneKey(n.DomainID, n.ZoneID)] {
		return subnetEntry(n).called(notFound(tenant.KindZone, n.ZoneID))
	}
	if !n.Gateway.IsValid() && n.CIDR.IsValid() {
		n.Gateway = tenant.FirstHost(n.CIDR)
	}
	err := n.Validate()
	if err == nil {
		n.VNI, err = t.vni(st, n.VNI)
	}
	if err != nil {
		return subnetEntry(n).called(err)
	}
	if err := t.place(st, n); err != nil {
		return err
	}
	return t.add(st, subnetEntry(n))
}

// place plans that no other subnet of the domain overlaps n, or comes to.
func (t *txn) place(st *tenant.State, n *tenant.Subnet) error {
	if err := st.CheckOverlap(n); err != nil {
		return err
	}
	t.quiet(n.DomainID, st.Revision)
	t.into(n.DomainID)
	return nil
}

// UpdateEnterprise changes name, description and external ID.
func (s *Store) UpdateEnterprise(ctx context.Context, e tenant.Enterprise) (tenant.Enterprise, error) {
	return create(ctx, s, e, func(r *reader) error {
		return errors.Join(r.around(e.ID), r.rivals(enterpriseEntry(&e)))
	}, func(st *tenant.State, t *txn, e *tenant.Enterprise) error {
		have, err := known(st, tenant.KindEnterprise, st.Enterprises, e.Meta)
		if err != nil {
			return err
		}
		if err := fixed("customerID", have.CustomerID, &e.CustomerID); err != nil {
			return enterpriseEntry(have).called(err)
		}
		return update(s, st, t, *have, e, enterpriseEntry)
	})
}

// UpdateDomain changes name, description, external ID and template.
func (s *Store) UpdateDomain(ctx context.Context, d tenant.Domain) (tenant.Domain, error) {
	return create(ctx, s, d, func(r *reader) error {
		err := r.around(d.ID)
		want := d
		if have := r.st.Domains[d.ID]; have != nil {
			want.EnterpriseID = have.EnterpriseID
		}
		return errors.Join(err, r.rivals(domainEntry(&want)))
	}, func(st *tenant.State, t *txn, d *tenant.Domain) error {
		have, err := known(st, tenant.KindDomain, st.Domains, d.Meta)
		if err != nil {
			return err
		}
		if err := errors.Join(fixed("enterprise", have.EnterpriseID, &d.EnterpriseID),
			fixed("VNI", have.VNI, &d.VNI), fixed("number", have.Number, &d.Number)); err != nil {
			return domainEntry(have).called(err)
		}
		return update(s, st, t, *have, d, domainEntry)
	})
}

// UpdateZone changes name, description and external ID.
func (s *Store) UpdateZone(ctx context.Context, z tenant.Zone) (tenant.Zone, error) {
	return create(ctx, s, z, func(r *reader) error {
		return errors.Join(r.around(z.ID), r.rivals(zoneEntry(&z)))
	}, func(st *tenant.State, t *txn, z *tenant.Zone) error {
		have, err := known(st, tenant.KindZone, st.Zones, z.Meta)
		if err != nil {
			return err
		}
		if err := fixed("domain", have.DomainID, &z.DomainID); err != nil {
			return zoneEntry(have).called(err)
		}
		return update(s, st, t, *have, z, zoneEntry)
	})
}

// UpdateSubnet changes name, description, external ID and DockerOwned, and, while nothing
// uses the subnet, its CIDR and gateway.
func (s *Store) UpdateSubnet(ctx context.Context, n tenant.Subnet) (tenant.Subnet, error) {
	return create(ctx, s, n, func(r *reader) error {
		if err := errors.Join(r.around(n.ID), r.rivals(subnetEntry(&n))); err != nil {
			return err
		}
		if have := r.st.Subnets[n.ID]; have != nil && (n.CIDR != have.CIDR || n.Gateway != have.Gateway) {
			return r.contents(have.DomainID)
		}
		return nil
	}, func(st *tenant.State, t *txn, n *tenant.Subnet) error {
		have, err := known(st, tenant.KindSubnet, st.Subnets, n.Meta)
		if err != nil {
			return err
		}
		if err := errors.Join(fixed("domain", have.DomainID, &n.DomainID),
			fixed("zone", have.ZoneID, &n.ZoneID), fixed("VNI", have.VNI, &n.VNI)); err != nil {
			return subnetEntry(have).called(err)
		}
		if n.CIDR != have.CIDR || n.Gateway != have.Gateway {
			if err := t.unused(st, have); err != nil {
				return err
			}
			if err := t.place(st, n); err != nil {
				return err
			}
			t.deletePrefix(leasePrefix(have.DomainID, have.ID))
		}
		return update(s, st, t, *have, n, subnetEntry)
	})
}

// update plans the change of have to want, unless they are the same.
func update[T comparable, P interface {
	*T
	object
}](s *Store, st *tenant.State, t *txn, have T, want P, entryOf func(P) entry) error {
	*want.Base() = carry(P(&have).Base(), want.Base())
	if *want == have {
		return nil
	}
	want.Base().Updated = s.now()
	return t.change(st, entryOf(&have), entryOf(want))
}

// carry is the Meta of an update: what is known of the object, with the new external ID.
func carry(have, want *tenant.Meta) tenant.Meta {
	m := *have
	m.ExternalID = want.ExternalID
	return m
}
