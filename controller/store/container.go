package store

import (
	"context"
	"errors"

	"nuage/controller/tenant"
)

var enterprises = class[tenant.Enterprise, *tenant.Enterprise]{
	kind:  tenant.KindEnterprise,
	entry: enterpriseEntry,
	of:    func(st *tenant.State) map[string]*tenant.Enterprise { return st.Enterprises },
	fix: func(want, have *tenant.Enterprise) error {
		return fixed("customerID", have.CustomerID, &want.CustomerID)
	},
	read: func(r *reader, _, have *tenant.Enterprise) error {
		if have != nil {
			return nil
		}
		return r.used(classCustomer)
	},
	plan: func(st *tenant.State, t *txn, e, have *tenant.Enterprise) (err error) {
		if have == nil {
			e.CustomerID, err = t.customerID(st, e.CustomerID)
		}
		return enterpriseEntry(e).called(err)
	},
}

var domains = class[tenant.Domain, *tenant.Domain]{
	kind:  tenant.KindDomain,
	entry: domainEntry,
	of:    func(st *tenant.State) map[string]*tenant.Domain { return st.Domains },
	fix: func(want, have *tenant.Domain) error {
		return errors.Join(fixed("enterprise", have.EnterpriseID, &want.EnterpriseID),
			fixed("VNI", have.VNI, &want.VNI), fixed("number", have.Number, &want.Number))
	},
	read: func(r *reader, d, have *tenant.Domain) error {
		if err := r.objects(enterpriseKey(d.EnterpriseID)); err != nil || have != nil {
			return err
		}
		return r.used(classVNI, classNumber)
	},
	plan: func(st *tenant.State, t *txn, d, have *tenant.Domain) (err error) {
		switch {
		case have != nil:
			return nil
		case st.Enterprises[d.EnterpriseID] == nil:
			err = notFound(tenant.KindEnterprise, d.EnterpriseID)
		default:
			err = d.Validate()
		}
		if err == nil {
			d.VNI, err = t.vni(st, d.VNI)
		}
		if err == nil {
			d.Number, err = t.domainNumber(st, d.Number)
		}
		return domainEntry(d).called(err)
	},
}

// zones: one made before zones had numbers gets its own with the next change.
var zones = class[tenant.Zone, *tenant.Zone]{
	kind:  tenant.KindZone,
	entry: zoneEntry,
	of:    func(st *tenant.State) map[string]*tenant.Zone { return st.Zones },
	fix: func(want, have *tenant.Zone) error {
		if have.Number == 0 {
			want.Number = 0
		}
		return errors.Join(fixed("domain", have.DomainID, &want.DomainID), fixed("number", have.Number, &want.Number))
	},
	read: func(r *reader, z, _ *tenant.Zone) error { return r.numbersIn(z.DomainID, classZone, z.Number) },
	plan: func(st *tenant.State, t *txn, z, _ *tenant.Zone) (err error) {
		return zoneEntry(z).called(t.numberIn(st, classZone, z.DomainID, &z.Number, tenant.MaxZoneNumber))
	},
}

var subnets = class[tenant.Subnet, *tenant.Subnet]{
	kind:  tenant.KindSubnet,
	entry: subnetEntry,
	of:    func(st *tenant.State) map[string]*tenant.Subnet { return st.Subnets },
	fix: func(want, have *tenant.Subnet) error {
		return errors.Join(fixed("domain", have.DomainID, &want.DomainID),
			fixed("zone", have.ZoneID, &want.ZoneID), fixed("VNI", have.VNI, &want.VNI))
	},
	read: func(r *reader, n, have *tenant.Subnet) error {
		if have == nil {
			return errors.Join(r.around(n.ZoneID), r.around(n.DomainID), r.used(classVNI))
		}
		if n.CIDR == have.CIDR && n.Gateway == have.Gateway {
			return nil
		}
		return errors.Join(r.around(n.ID), r.contents(n.DomainID))
	},
	plan: func(st *tenant.State, t *txn, n, have *tenant.Subnet) error {
		if have == nil {
			return planSubnet(st, t, n)
		}
		if n.CIDR == have.CIDR && n.Gateway == have.Gateway {
			return nil
		}
		if err := t.unused(st, have); err != nil {
			return err
		}
		t.deletePrefix(leasePrefix(have.DomainID, have.ID))
		return t.place(st, n)
	},
}

// planSubnet completes a new subnet and finds it room.
func planSubnet(st *tenant.State, t *txn, n *tenant.Subnet) error {
	z := st.Zones[n.ZoneID]
	if z == nil {
		return subnetEntry(n).called(notFound(tenant.KindZone, n.ZoneID))
	}
	err := fixed("the zone's domain", z.DomainID, &n.DomainID)
	if !n.Gateway.IsValid() && n.CIDR.IsValid() {
		n.Gateway = tenant.FirstHost(n.CIDR)
	}
	if err == nil {
		err = n.Validate()
	}
	if err == nil {
		n.VNI, err = t.vni(st, n.VNI)
	}
	if err != nil {
		return subnetEntry(n).called(err)
	}
	return t.place(st, n)
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

// CreateEnterprise makes an enterprise with a unique name and customer ID.
func (s *Store) CreateEnterprise(ctx context.Context, e tenant.Enterprise) (tenant.Enterprise, error) {
	return enterprises.create(ctx, s, e)
}

// UpdateEnterprise changes name, description and external ID.
func (s *Store) UpdateEnterprise(ctx context.Context, e tenant.Enterprise) (tenant.Enterprise, error) {
	return enterprises.update(ctx, s, e)
}

// CreateDomain makes a domain with a name unique in its enterprise, a VNI and a number.
func (s *Store) CreateDomain(ctx context.Context, d tenant.Domain) (tenant.Domain, error) {
	return domains.create(ctx, s, d)
}

// UpdateDomain changes name, description, external ID and template.
func (s *Store) UpdateDomain(ctx context.Context, d tenant.Domain) (tenant.Domain, error) {
	return domains.update(ctx, s, d)
}

// CreateZone makes a zone with a name and a number unique in its domain.
func (s *Store) CreateZone(ctx context.Context, z tenant.Zone) (tenant.Zone, error) {
	return zones.create(ctx, s, z)
}

// UpdateZone changes name, description and external ID.
func (s *Store) UpdateZone(ctx context.Context, z tenant.Zone) (tenant.Zone, error) {
	return zones.update(ctx, s, z)
}

// CreateSubnet makes a subnet with a name unique in its zone and a CIDR that overlaps no
// other of its domain. DomainID may be left out; the gateway is the first host address
// unless given.
func (s *Store) CreateSubnet(ctx context.Context, n tenant.Subnet) (tenant.Subnet, error) {
	return subnets.create(ctx, s, n)
}

// UpdateSubnet changes name, description, external ID and DockerOwned, and, while nothing
// uses the subnet, its CIDR and gateway.
func (s *Store) UpdateSubnet(ctx context.Context, n tenant.Subnet) (tenant.Subnet, error) {
	return subnets.update(ctx, s, n)
}
