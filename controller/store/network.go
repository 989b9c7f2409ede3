package store

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"nuage/controller/tenant"
)

// PutNetwork writes a Docker network; Revision, if set, must be its last. Its subnet must
// exist. It is this host's unless it says another. The same again changes nothing.
func (s *Store) PutNetwork(ctx context.Context, n tenant.Network) error {
	if n.Host == "" {
		n.Host = s.config.Host
	}
	_, err := create(ctx, s, n, func(r *reader) error {
		return errors.Join(r.around(n.SubnetID), r.objects(networkKey(n.Host, n.ID)))
	}, func(st *tenant.State, t *txn, n *tenant.Network) error {
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
		return putWhole(s, tenant.KindNetwork, st.Networks[tenant.NetworkID(n.Host, n.ID)], n, networkKey(n.Host, n.ID), t)
	})
	return err
}

// DeleteNetwork removes this host's record of a Docker network. An unknown ID is fine.
func (s *Store) DeleteNetwork(ctx context.Context, id string) error {
	key := networkKey(s.config.Host, id)
	_, err := s.write(ctx, func(r *reader) error { return r.objects(key) }, func(st *tenant.State, t *txn) error {
		if have := st.Networks[tenant.NetworkID(s.config.Host, id)]; have != nil {
			t.unchanged(key, have.Revision)
			t.delete(key)
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
		m.Updated, m.Committed = m.Created, 0
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
