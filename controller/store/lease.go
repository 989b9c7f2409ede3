package store

import (
	"context"
	"fmt"
	"time"

	"nuage/controller/tenant"
)

// PutLease writes a lease if it is what the caller has read: absent for Revision 0,
// unchanged since Revision otherwise. Else it is tenant.ErrStale, and the feed then shows
// what is there. A reservation or a rest without Expires gets the usual time. A lease that
// a vport holds changes with the vport only: tenant.ErrConflict. It follows the domain.
func (s *Store) PutLease(ctx context.Context, l tenant.Lease) (tenant.Lease, error) {
	domain, err := s.bring(ctx, l.SubnetID)
	if err != nil {
		return tenant.Lease{}, fmt.Errorf("address %s: %w", l.Address, err)
	}
	return createIn(ctx, s, domain, l, func(r *reader) error { return r.address(l) }, func(st *tenant.State, t *txn, l *tenant.Lease) error {
		sub, have, err := leaseOf(st, l)
		if err != nil {
			return err
		}
		if err := l.Validate(); err != nil {
			return fmt.Errorf("address %s: %w", l.Address, err)
		}
		if err := tenant.ValidateAddress(sub.CIDR, l.Address); err != nil {
			return subnetEntry(sub).called(err)
		}
		if l.VportID != "" {
			return tenant.Errorf(tenant.ErrInvalid, "subnet %s: address %s: only BindVport gives an address to a vport", sub.Name, l.Address)
		}
		t.unchanged(subnetKey(sub.DomainID, sub.ID), sub.Revision)
		s.dated(l, have)
		t.lease(l, have)
		return nil
	})
}

// DeleteLease frees an address, under the same condition as PutLease. One that has no
// lease is free already.
func (s *Store) DeleteLease(ctx context.Context, l tenant.Lease) error {
	_, err := s.writeIn(ctx, s.domainOf(l.SubnetID), func(r *reader) error { return r.address(l) }, func(st *tenant.State, t *txn) error {
		l := l
		if st.Leases[tenant.LeaseID(l.SubnetID, l.Address.String())] == nil {
			return nil
		}
		_, have, err := leaseOf(st, &l)
		if err != nil {
			return err
		}
		t.unchanged(leaseKey(have), have.Revision)
		t.delete(leaseKey(have))
		return nil
	})
	return err
}

// bring follows the domain of a subnet.
func (s *Store) bring(ctx context.Context, subnetID string) (domain string, err error) {
	if domain = s.domainOf(subnetID); domain == "" {
		if domain, err = s.lookUp(ctx, subnetID); err != nil {
			return "", err
		}
		if domain == "" {
			return "", notFound(tenant.KindSubnet, subnetID)
		}
	}
	return domain, s.Follow(ctx, domain)
}

// domainOf is the domain of a subnet that the feed shows, or empty.
func (s *Store) domainOf(subnetID string) (domain string) {
	s.feed.View(func(st *tenant.State) {
		if sub := st.Subnets[subnetID]; sub != nil {
			domain = sub.DomainID
		}
	})
	return domain
}

// lookUp reads which domain an object is in; empty if in none, or if there is none.
func (s *Store) lookUp(ctx context.Context, id string) (string, error) {
	ses, err := s.acquire(ctx)
	if err != nil {
		return "", err
	}
	defer ses.release()
	ctx, cancel := ses.bound(ctx)
	defer cancel()
	return s.reader(ctx, ses).object(id)
}

// address reads a subnet and the lease of an address of it.
func (r *reader) address(l tenant.Lease) error {
	if err := r.around(l.SubnetID); err != nil || r.st.Subnets[l.SubnetID] == nil {
		return err
	}
	return r.lease(&l)
}

// leaseOf completes l and returns its subnet and what the state has in its place, if that
// is what the caller has read.
func leaseOf(st *tenant.State, l *tenant.Lease) (*tenant.Subnet, *tenant.Lease, error) {
	sub := st.Subnets[l.SubnetID]
	if sub == nil {
		return nil, nil, fmt.Errorf("address %s: %w", l.Address, notFound(tenant.KindSubnet, l.SubnetID))
	}
	l.ID, l.DomainID = tenant.LeaseID(l.SubnetID, l.Address.String()), sub.DomainID
	have := st.Leases[l.ID]
	switch {
	case have == nil && l.Revision == 0:
	case have == nil, have.Revision != l.Revision:
		return nil, nil, fmt.Errorf("subnet %s: address %s %w", sub.Name, l.Address, tenant.ErrStale)
	case have.VportID != "":
		return nil, nil, tenant.Errorf(tenant.ErrConflict, "subnet %s: address %s is in use by %s", sub.Name, l.Address,
			nameOf(st, tenant.Key{Kind: tenant.KindVport, ID: have.VportID}))
	}
	return sub, have, nil
}

// dated sets the times of a lease that takes the place of have, which may be nil.
func (s *Store) dated(l, have *tenant.Lease) {
	now := s.now()
	l.Created, l.Updated, l.Committed = now, now, 0
	if have != nil {
		l.Created, l.Committed = have.Created, have.Committed
	}
	switch {
	case l.State == tenant.LeaseBound:
		l.Expires = time.Time{}
	case !l.Expires.IsZero():
	case l.State == tenant.LeaseReserved:
		l.Expires = now.Add(s.config.Reservation)
	case l.State == tenant.LeaseResting:
		l.Expires = now.Add(s.config.Rest)
	}
}

// lease plans that l takes the place of have, which may be nil.
func (t *txn) lease(l, have *tenant.Lease) {
	key := leaseKey(l)
	if have == nil {
		t.absent(key)
		t.exists(subnetKey(l.DomainID, l.SubnetID))
		t.into(l.SubnetID)
	} else {
		t.unchanged(key, have.Revision)
	}
	t.put(key, l)
}
