package store

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"nuage/controller/tenant"
)

// BindVport puts a vport and binds the lease of its address to it, in one transaction. The
// address is taken if it has no lease, is resting, or is reserved by the same MAC or by
// none; otherwise it is tenant.ErrConflict naming who has it. The ID is the caller's: the
// same vport again is the same result, and one with the same ID, subnet, MAC and address
// but other details is updated. DomainID and ZoneID may be left out. A vport that only
// tells an Error needs no address.
func (s *Store) BindVport(ctx context.Context, v tenant.Vport) (tenant.Vport, error) {
	return create(ctx, s, v, func(st *tenant.State, t *txn, v *tenant.Vport) error {
		sub := st.Subnets[v.SubnetID]
		if sub == nil {
			return vportEntry(v).called(notFound(tenant.KindSubnet, v.SubnetID))
		}
		if err := errors.Join(v.Validate(), tenant.ValidateID(v.ID),
			fixed("the subnet's domain", sub.DomainID, &v.DomainID), fixed("the subnet's zone", sub.ZoneID, &v.ZoneID)); err != nil {
			return vportEntry(v).called(err)
		}
		if have := st.Vports[v.ID]; have != nil {
			return s.rebind(st, t, have, v)
		}
		if v.Revision != 0 {
			return vportEntry(v).called(tenant.ErrStale)
		}
		s.born(&v.Meta)
		if err := s.bind(st, t, sub, v); err != nil {
			return err
		}
		t.into(sub.ID)
		return t.add(st, vportEntry(v))
	})
}

// bind plans that the lease of v's address is v's.
func (s *Store) bind(st *tenant.State, t *txn, sub *tenant.Subnet, v *tenant.Vport) error {
	if !v.IPv4.IsValid() {
		return nil
	}
	taken := func(format string, args ...any) error {
		return subnetEntry(sub).called(tenant.Errorf(tenant.ErrConflict, "address %s "+format, append([]any{v.IPv4}, args...)...))
	}
	if err := tenant.ValidateAddress(sub.CIDR, v.IPv4); err != nil {
		return subnetEntry(sub).called(err)
	}
	if v.IPv4 == sub.Gateway {
		return taken("is the gateway")
	}
	l := tenant.Lease{DomainID: sub.DomainID, SubnetID: sub.ID, Address: v.IPv4}
	l.ID = tenant.LeaseID(sub.ID, v.IPv4.String())
	have := st.Leases[l.ID]
	switch {
	case have == nil || have.State == tenant.LeaseResting:
	case have.VportID == v.ID:
		return nil
	case have.VportID != "":
		return taken("in use by %s", nameOf(st, tenant.Key{Kind: tenant.KindVport, ID: have.VportID}))
	case have.Use != tenant.UseEndpoint:
		return taken("is set aside (%s)", have.Use)
	case !have.MAC.IsZero() && have.MAC != v.MAC && (have.State == tenant.LeaseBound || s.now().Before(have.Expires)):
		return taken("is %s for %s", have.State, have.MAC)
	}
	l.State, l.Use, l.MAC, l.Host, l.VportID = tenant.LeaseBound, tenant.UseEndpoint, v.MAC, v.Host, v.ID
	s.dated(&l, have)
	t.lease(&l, have)
	return nil
}

// rebind plans what a vport that is there already needs to become want.
func (s *Store) rebind(st *tenant.State, t *txn, have, want *tenant.Vport) error {
	if want.Revision != 0 && want.Revision != have.Revision {
		return vportEntry(have).called(tenant.ErrStale)
	}
	if have.SubnetID != want.SubnetID || have.IPv4.IsValid() && (have.IPv4 != want.IPv4 || have.MAC != want.MAC) {
		return vportEntry(have).called(tenant.Errorf(tenant.ErrConflict, "it has address %s and MAC %s in subnet %s, which cannot change",
			have.IPv4, have.MAC, nameOf(st, tenant.Key{Kind: tenant.KindSubnet, ID: have.SubnetID})))
	}
	if err := s.bind(st, t, st.Subnets[want.SubnetID], want); err != nil {
		return err
	}
	return s.changeVport(st, t, have, want)
}

// UpdateVport changes a vport's name, host, interface, groups, owner, user and error. Its
// subnet, MAC and address never change: another address is another vport.
func (s *Store) UpdateVport(ctx context.Context, v tenant.Vport) (tenant.Vport, error) {
	return create(ctx, s, v, func(st *tenant.State, t *txn, v *tenant.Vport) error {
		have, err := known(st, tenant.KindVport, st.Vports, v.Meta)
		if err != nil {
			return err
		}
		if err := errors.Join(fixed("domain", have.DomainID, &v.DomainID), fixed("zone", have.ZoneID, &v.ZoneID),
			fixed("subnet", have.SubnetID, &v.SubnetID), fixed("MAC address", have.MAC, &v.MAC),
			fixed("IPv4 address", have.IPv4, &v.IPv4), fixed("type", have.Type, &v.Type)); err != nil {
			return vportEntry(have).called(err)
		}
		return s.changeVport(st, t, have, v)
	})
}

func (s *Store) changeVport(st *tenant.State, t *txn, have, want *tenant.Vport) error {
	want.Meta = carry(&have.Meta, &want.Meta)
	if len(want.PolicyGroups) == 0 && len(have.PolicyGroups) == 0 {
		want.PolicyGroups = have.PolicyGroups
	}
	if reflect.DeepEqual(have, want) {
		return nil
	}
	want.Updated = s.now()
	return t.change(st, vportEntry(have), vportEntry(want))
}

// DeleteVport removes a vport and lets its address rest, in one transaction. An unknown ID
// is fine.
func (s *Store) DeleteVport(ctx context.Context, id string) error {
	_, err := s.write(ctx, func(st *tenant.State, t *txn) error {
		v := st.Vports[id]
		if v == nil {
			return nil
		}
		t.remove(vportEntry(v))
		if have := st.Leases[tenant.LeaseID(v.SubnetID, v.IPv4.String())]; have != nil && have.VportID == id {
			l := *have
			l.State, l.VportID, l.Expires = tenant.LeaseResting, "", s.now().Add(s.config.Rest)
			l.Updated = s.now()
			t.lease(&l, have)
		}
		return nil
	})
	return err
}

// PutNetwork writes a Docker network; Revision, if set, must be its last. Its subnet must
// exist. The same again changes nothing.
func (s *Store) PutNetwork(ctx context.Context, n tenant.Network) error {
	_, err := create(ctx, s, n, func(st *tenant.State, t *txn, n *tenant.Network) error {
		if err := n.Validate(); err != nil {
			return fmt.Errorf("network: %w", err)
		}
		sub := st.Subnets[n.SubnetID]
		if sub == nil {
			return fmt.Errorf("network %s: %w", n.ID, notFound(tenant.KindSubnet, n.SubnetID))
		}
		n.DomainID, n.ZoneID = sub.DomainID, sub.ZoneID
		t.exists(subnetKey(sub.DomainID, sub.ID))
		t.into(sub.ID)
		return putWhole(s, tenant.KindNetwork, st.Networks[n.ID], n, networkKey(n.Host, n.ID), t)
	})
	return err
}

// DeleteNetwork removes a Docker network. An unknown ID is fine.
func (s *Store) DeleteNetwork(ctx context.Context, id string) error {
	_, err := s.write(ctx, func(st *tenant.State, t *txn) error {
		if have := st.Networks[id]; have != nil {
			key := networkKey(have.Host, id)
			t.unchanged(key, have.Revision)
			t.delete(key)
		}
		return nil
	})
	return err
}

// PutHost writes a host; Revision, if set, must be its last. The same again changes nothing.
func (s *Store) PutHost(ctx context.Context, h tenant.Host) error {
	_, err := create(ctx, s, h, func(st *tenant.State, t *txn, h *tenant.Host) error {
		if err := h.Validate(); err != nil {
			return fmt.Errorf("host: %w", err)
		}
		return putWhole(s, tenant.KindHost, st.Hosts[h.ID], h, hostKey(h.ID), t)
	})
	return err
}

// DeleteHost removes a host. An unknown one is fine.
func (s *Store) DeleteHost(ctx context.Context, id string) error {
	_, err := s.write(ctx, func(st *tenant.State, t *txn) error {
		if have := st.Hosts[id]; have != nil {
			t.unchanged(hostKey(id), have.Revision)
			t.delete(hostKey(id))
		}
		return nil
	})
	return err
}

// putWhole plans that want takes the place of have, which may be nil; if they are equal it
// drops what was planned.
func putWhole[P object](s *Store, kind tenant.Kind, have, want P, key string, t *txn) error {
	m := want.Base()
	if reflect.ValueOf(have).IsNil() {
		if m.Revision != 0 {
			return fmt.Errorf("%s %s %w", kind.Noun(), m.ID, tenant.ErrStale)
		}
		m.Created = s.now()
		m.Updated = m.Created
		t.absent(key)
		t.put(key, want)
		return nil
	}
	h := have.Base()
	if m.Revision != 0 && m.Revision != h.Revision {
		return fmt.Errorf("%s %s %w", kind.Noun(), m.ID, tenant.ErrStale)
	}
	*m = carry(h, m)
	if reflect.DeepEqual(have, want) {
		*t = *newTxn()
		return nil
	}
	m.Updated = s.now()
	t.unchanged(key, h.Revision)
	t.put(key, want)
	return nil
}
