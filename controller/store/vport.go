package store

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"nuage/controller/tenant"
)

// BindVport puts a vport and binds the lease of its address to it, in one transaction. The
// address is taken if it has no lease, is resting, or is reserved by the same MAC or by
// none; otherwise it is tenant.ErrConflict naming who has it. The ID is the caller's: the
// same vport again is the same result, and one with the same ID, subnet, MAC and address
// but other details is updated. DomainID and ZoneID may be left out. A vport that only
// tells an Error needs no address, and no subnet where there is none: then only Read shows
// it. Its groups are what is given; AddressSpoofing and VirtualIPs stay unless some are
// given. It follows the domain.
func (s *Store) BindVport(ctx context.Context, v tenant.Vport) (tenant.Vport, error) {
	if nowhere(&v) {
		return s.bindNowhere(ctx, v)
	}
	domain, err := s.bring(ctx, v.SubnetID)
	if err != nil {
		return tenant.Vport{}, vportEntry(&v).called(err)
	}
	read := func(r *reader) error {
		err := r.address(tenant.Lease{SubnetID: v.SubnetID, Address: v.IPv4})
		return errors.Join(err, r.rivals(vportEntry(&v)))
	}
	return createIn(ctx, s, domain, v, read, func(st *tenant.State, t *txn, v *tenant.Vport) error {
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
		if err := errors.Join(s.bind(st, t, sub, v), vportEntry(v).called(virtualIPs(sub, v))); err != nil {
			return err
		}
		t.into(sub.ID)
		return t.add(st, vportEntry(v))
	})
}

// nowhere tells a vport that says why it is in no subnet.
func nowhere(v *tenant.Vport) bool {
	return v.Error != "" && v.SubnetID == "" && v.ZoneID == "" && v.DomainID == "" && !v.IPv4.IsValid()
}

func (s *Store) bindNowhere(ctx context.Context, v tenant.Vport) (tenant.Vport, error) {
	read := func(r *reader) error { return r.rivals(vportEntry(&v)) }
	return createIn(ctx, s, "", v, read, func(st *tenant.State, t *txn, v *tenant.Vport) error {
		if err := errors.Join(v.Validate(), tenant.ValidateID(v.ID)); err != nil {
			return vportEntry(v).called(err)
		}
		switch have := st.Vports[v.ID]; {
		case have == nil && v.Revision != 0, have != nil && v.Revision != 0 && v.Revision != have.Revision:
			return vportEntry(v).called(tenant.ErrStale)
		case have == nil:
			s.born(&v.Meta)
			return t.add(st, vportEntry(v))
		case !nowhere(have):
			return vportEntry(have).called(tenant.Errorf(tenant.ErrConflict, "it is in a subnet and cannot leave it"))
		default:
			return s.changeVport(st, t, have, v)
		}
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
	if have != nil && have.State == tenant.LeaseReserved {
		l.Name = have.Name
	}
	t.unchanged(subnetKey(sub.DomainID, sub.ID), sub.Revision) // whose address it was checked against
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
	if !want.AddressSpoofing && len(want.VirtualIPs) == 0 { // who attaches a vport does not know of them
		want.AddressSpoofing, want.VirtualIPs = have.AddressSpoofing, have.VirtualIPs
	}
	return s.changeVport(st, t, have, want)
}

// UpdateVport changes a vport's name, host, interface, groups, address spoofing, virtual
// IPs, owner, user and error. A virtual IP is an address of the vport's subnet, and when it is
// given, none that another vport has as its own. Its subnet, MAC and address never change:
// another address is another vport. The lease of its address is the vport's host's.
func (s *Store) UpdateVport(ctx context.Context, v tenant.Vport) (tenant.Vport, error) {
	read := func(r *reader) error {
		err := r.rivals(vportEntry(&v))
		if have := r.st.Vports[v.ID]; err == nil && have != nil {
			err = r.objects(subnetKey(have.DomainID, have.SubnetID))
			for _, vip := range append([]tenant.VirtualIP{{IPv4: have.IPv4}}, fresh(have, &v)...) {
				err = errors.Join(err, r.lease(&tenant.Lease{DomainID: have.DomainID, SubnetID: have.SubnetID, Address: vip.IPv4}))
			}
		}
		return err
	}
	return createIn(ctx, s, s.domainOfVport(v.ID), v, read, func(st *tenant.State, t *txn, v *tenant.Vport) error {
		have, err := known(st, tenant.KindVport, st.Vports, v.Meta)
		if err != nil {
			return err
		}
		if err := errors.Join(fixed("domain", have.DomainID, &v.DomainID), fixed("zone", have.ZoneID, &v.ZoneID),
			fixed("subnet", have.SubnetID, &v.SubnetID), fixed("MAC address", have.MAC, &v.MAC),
			fixed("IPv4 address", have.IPv4, &v.IPv4), fixed("type", have.Type, &v.Type)); err != nil {
			return vportEntry(have).called(err)
		}
		for _, vip := range fresh(have, v) {
			if l := st.Leases[tenant.LeaseID(v.SubnetID, vip.IPv4.String())]; l != nil && l.VportID != "" {
				return vportEntry(have).called(tenant.Errorf(tenant.ErrConflict, "virtual IP %s is the address of %s", vip.IPv4, nameOf(st, tenant.Key{Kind: tenant.KindVport, ID: l.VportID})))
			}
		}
		return s.changeVport(st, t, have, v)
	})
}

// fresh are the virtual IPs that a vport does not have yet.
func fresh(have, want *tenant.Vport) []tenant.VirtualIP {
	return slices.DeleteFunc(slices.Clone(want.VirtualIPs), func(vip tenant.VirtualIP) bool {
		return slices.ContainsFunc(have.VirtualIPs, func(o tenant.VirtualIP) bool { return o.IPv4 == vip.IPv4 })
	})
}

func (s *Store) changeVport(st *tenant.State, t *txn, have, want *tenant.Vport) error {
	want.Meta = carry(&have.Meta, &want.Meta)
	if len(want.PolicyGroups) == 0 && len(have.PolicyGroups) == 0 {
		want.PolicyGroups = have.PolicyGroups
	}
	if len(want.VirtualIPs) == 0 && len(have.VirtualIPs) == 0 {
		want.VirtualIPs = have.VirtualIPs
	}
	if reflect.DeepEqual(have, want) {
		return nil
	}
	if err := virtualIPs(st.Subnets[want.SubnetID], want); err != nil {
		return vportEntry(want).called(err)
	}
	want.Updated = s.now()
	s.moveLease(st, t, have, want.Host)
	return t.change(st, vportEntry(have), vportEntry(want))
}

// virtualIPs refuses those that cannot be addresses of a vport of the subnet.
func virtualIPs(sub *tenant.Subnet, v *tenant.Vport) error {
	for _, vip := range v.VirtualIPs {
		if sub == nil {
			return notFound(tenant.KindSubnet, v.SubnetID)
		}
		if err := tenant.ValidateAddress(sub.CIDR, vip.IPv4); err != nil {
			return fmt.Errorf("virtual IP: %w", err)
		}
		if vip.IPv4 == sub.Gateway {
			return tenant.Errorf(tenant.ErrConflict, "virtual IP %s is the gateway of subnet %s", vip.IPv4, sub.Name)
		}
	}
	return nil
}

// moveLease plans that the lease of a vport's address is another host's.
func (s *Store) moveLease(st *tenant.State, t *txn, v *tenant.Vport, host string) {
	have := st.Leases[tenant.LeaseID(v.SubnetID, v.IPv4.String())]
	if have == nil || have.VportID != v.ID || have.Host == host {
		return
	}
	l := *have
	l.Host, l.Updated = host, s.now()
	t.lease(&l, have)
}

// detachVport plans that a lasting vport is attached nowhere.
func (s *Store) detachVport(st *tenant.State, t *txn, v *tenant.Vport) {
	w := *v
	w.Host, w.Interface, w.Error, w.Updated = "", "", "", s.now()
	s.moveLease(st, t, v, "")
	t.unchanged(vportEntry(v).key, v.Revision)
	t.put(vportEntry(v).key, &w)
}

// FindVport is the vport that has an ID or, if none has, an external ID, wherever it is; it
// is read from the store, since nobody here may follow its domain. tenant.ErrNotFound if
// there is none.
func (s *Store) FindVport(ctx context.Context, name string) (tenant.Vport, error) {
	ses, err := s.acquire(ctx)
	if err != nil {
		return tenant.Vport{}, err
	}
	defer ses.release()
	ctx, cancel := ses.bound(ctx)
	defer cancel()
	r := s.reader(ctx, ses)
	if _, err := r.object(name); err != nil {
		return tenant.Vport{}, err
	}
	if len(r.st.Vports) == 0 {
		if _, err := r.holders(externalKey(tenant.KindVport, name)); err != nil {
			return tenant.Vport{}, err
		}
	}
	for _, v := range r.st.Vports {
		return *v, nil
	}
	return tenant.Vport{}, notFound(tenant.KindVport, name)
}

// DeleteVport removes a vport with the rate limiters on it, and lets its address rest, in one transaction. An unknown ID
// is fine.
func (s *Store) DeleteVport(ctx context.Context, id string) error {
	read := func(r *reader) error {
		_, err := r.object(id)
		if v := r.st.Vports[id]; err == nil && v != nil {
			err = errors.Join(r.lease(&tenant.Lease{DomainID: v.DomainID, SubnetID: v.SubnetID, Address: v.IPv4}), r.limiters(tenant.KindVport, id))
		}
		return err
	}
	_, err := s.writeIn(ctx, s.domainOfVport(id), read, func(st *tenant.State, t *txn) error {
		v := st.Vports[id]
		if v != nil {
			s.removeVport(st, t, v)
		}
		return nil
	})
	return err
}

// removeVport plans the removal of a vport, whose address then rests.
func (s *Store) removeVport(st *tenant.State, t *txn, v *tenant.Vport) {
	t.remove(st, vportEntry(v))
	if have := st.Leases[tenant.LeaseID(v.SubnetID, v.IPv4.String())]; have != nil && have.VportID == v.ID {
		l := *have
		l.State, l.VportID, l.Expires = tenant.LeaseResting, "", s.now().Add(s.config.Rest)
		l.Updated = s.now()
		t.lease(&l, have)
	}
}

// domainOfVport is the domain of a vport that the feed shows, or empty.
func (s *Store) domainOfVport(id string) (domain string) {
	s.feed.View(func(st *tenant.State) {
		if v := st.Vports[id]; v != nil {
			domain = v.DomainID
		}
	})
	return domain
}
