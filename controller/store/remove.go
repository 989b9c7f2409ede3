package store

import (
	"context"
	"errors"

	"nuage/controller/tenant"
)

// DeleteEnterprise removes an enterprise without domains and network macros.
func (s *Store) DeleteEnterprise(ctx context.Context, id string) error {
	return s.drop(ctx, tenant.KindEnterprise, id)
}

// DeleteDomain removes a domain without zones, policies and policy groups, with the rate
// limiters on it.
func (s *Store) DeleteDomain(ctx context.Context, id string) error {
	return s.drop(ctx, tenant.KindDomain, id)
}

// DeleteZone removes a zone without subnets that no entry names, with the rate limiters on
// it.
func (s *Store) DeleteZone(ctx context.Context, id string) error {
	return s.drop(ctx, tenant.KindZone, id)
}

// DeleteSubnet removes a subnet that no vport, network or endpoint's address uses and no
// entry names, with the leases that are left in it and the rate limiters on it.
func (s *Store) DeleteSubnet(ctx context.Context, id string) error {
	_, err := s.write(ctx, func(r *reader) error { return r.inside(id) }, func(st *tenant.State, t *txn) error {
		n := st.Subnets[id]
		if n == nil {
			return notFound(tenant.KindSubnet, id)
		}
		if err := t.unused(st, n); err != nil {
			return err
		}
		if err := t.unnamed(st, id); err != nil {
			return subnetEntry(n).called(err)
		}
		t.removeSubnet(st, n)
		return nil
	})
	return err
}

// ReleaseSubnet removes a subnet that was made for a Docker network, once no network and
// no vport uses it and no entry names it. In every other case, and for an unknown ID, it does nothing.
func (s *Store) ReleaseSubnet(ctx context.Context, id string) error {
	_, err := s.write(ctx, func(r *reader) error { return r.inside(id) }, func(st *tenant.State, t *txn) error {
		n := st.Subnets[id]
		if n == nil || !n.DockerOwned {
			return nil
		}
		if contents(st, tenant.Key{Kind: tenant.KindSubnet, ID: id}, tenant.KindVport, tenant.KindNetwork) != "" {
			return nil
		}
		if t.unnamed(st, id) != nil {
			return nil
		}
		t.quiet(id, st.Revision)
		t.removeSubnet(st, n)
		return nil
	})
	return err
}

// inside reads a subnet with its domain and all that may be in it.
func (r *reader) inside(id string) error {
	err := r.around(id)
	if sub := r.st.Subnets[id]; err == nil && sub != nil {
		err = errors.Join(r.contents(sub.DomainID), r.dependents(tenant.KindSubnet, id))
	}
	return err
}

func (t *txn) removeSubnet(st *tenant.State, n *tenant.Subnet) {
	t.remove(st, subnetEntry(n))
	t.deletePrefix(leasePrefix(n.DomainID, n.ID))
}

// unused plans that nothing is in the subnet, or comes into it.
func (t *txn) unused(st *tenant.State, n *tenant.Subnet) error {
	k := tenant.Key{Kind: tenant.KindSubnet, ID: n.ID}
	in := contents(st, k, tenant.KindVport, tenant.KindNetwork)
	if in == "" {
		st.Children(k, tenant.KindLease, func(id string) {
			if l := st.Leases[id]; l.Use == tenant.UseEndpoint && l.State != tenant.LeaseResting {
				in = "address " + l.Address.String() + " (" + string(l.State) + ")"
			}
		})
	}
	if in != "" {
		return subnetEntry(n).called(tenant.Errorf(tenant.ErrConflict, "in use by %s", in))
	}
	t.quiet(n.ID, st.Revision)
	return nil
}
