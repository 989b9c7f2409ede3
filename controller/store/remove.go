package store

import (
	"context"
	"errors"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nuage/controller/tenant"
)

// DeleteEnterprise removes an enterprise without domains.
func (s *Store) DeleteEnterprise(ctx context.Context, id string) error {
	_, err := s.write(ctx, func(r *reader) error {
		_, err := r.holders(namePrefix(tenant.KindDomain, id), clientv3.WithPrefix())
		return errors.Join(err, r.around(id))
	}, func(st *tenant.State, t *txn) error {
		e := st.Enterprises[id]
		if e == nil {
			return notFound(tenant.KindEnterprise, id)
		}
		return t.removeEmpty(st, enterpriseEntry(e), tenant.KindDomain)
	})
	return err
}

// DeleteDomain removes a domain without zones.
func (s *Store) DeleteDomain(ctx context.Context, id string) error {
	_, err := s.write(ctx, func(r *reader) error { return r.around(id) }, func(st *tenant.State, t *txn) error {
		d := st.Domains[id]
		if d == nil {
			return notFound(tenant.KindDomain, id)
		}
		return t.removeEmpty(st, domainEntry(d), tenant.KindZone)
	})
	return err
}

// DeleteZone removes a zone without subnets.
func (s *Store) DeleteZone(ctx context.Context, id string) error {
	_, err := s.write(ctx, func(r *reader) error { return r.around(id) }, func(st *tenant.State, t *txn) error {
		z := st.Zones[id]
		if z == nil {
			return notFound(tenant.KindZone, id)
		}
		return t.removeEmpty(st, zoneEntry(z), tenant.KindSubnet)
	})
	return err
}

// DeleteSubnet removes a subnet that no vport, network or endpoint's address uses, with
// the leases that are left in it.
func (s *Store) DeleteSubnet(ctx context.Context, id string) error {
	_, err := s.write(ctx, func(r *reader) error { return r.inside(id) }, func(st *tenant.State, t *txn) error {
		n := st.Subnets[id]
		if n == nil {
			return notFound(tenant.KindSubnet, id)
		}
		if err := t.unused(st, n); err != nil {
			return err
		}
		t.removeSubnet(n)
		return nil
	})
	return err
}

// ReleaseSubnet removes a subnet that was made for a Docker network, once no network and
// no vport uses it. In every other case, and for an unknown ID, it does nothing.
func (s *Store) ReleaseSubnet(ctx context.Context, id string) error {
	_, err := s.write(ctx, func(r *reader) error { return r.inside(id) }, func(st *tenant.State, t *txn) error {
		n := st.Subnets[id]
		if n == nil || !n.DockerOwned {
			return nil
		}
		if contents(st, tenant.Key{Kind: tenant.KindSubnet, ID: id}, tenant.KindVport, tenant.KindNetwork) != "" {
			return nil
		}
		t.quiet(id, st.Revision)
		t.removeSubnet(n)
		return nil
	})
	return err
}

// inside reads a subnet with its domain and all that may be in it.
func (r *reader) inside(id string) error {
	err := r.around(id)
	if sub := r.st.Subnets[id]; err == nil && sub != nil {
		err = r.contents(sub.DomainID)
	}
	return err
}

func (t *txn) removeEmpty(st *tenant.State, e entry, kind tenant.Kind) error {
	id := e.Base().ID
	if in := contents(st, tenant.Key{Kind: e.kind, ID: id}, kind); in != "" {
		return e.called(tenant.Errorf(tenant.ErrConflict, "not empty: it has %s", in))
	}
	t.empty(namePrefix(kind, id))
	t.remove(e)
	return nil
}

func (t *txn) removeSubnet(n *tenant.Subnet) {
	t.remove(subnetEntry(n))
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
