package store

import (
	"slices"
	"time"

	"nuage/controller/tenant"
)

// putVport judges a vport: it is the host's, or a lasting one that leaves it, and its
// address is leased to it.
func (r *review) putVport(key, domain string, value []byte) error {
	v, err := read[tenant.Vport](value)
	if err != nil {
		return err
	}
	e := vportEntry(v)
	switch {
	case v.Host != r.host && !(v.Host == "" && v.Lasting):
		return deny("it is host %q's", v.Host)
	case e.key != key || tenant.ValidateID(v.ID) != nil:
		return deny("the value is another vport's")
	}
	have, err := r.get(key)
	if err != nil {
		return err
	}
	switch {
	case have == nil && (v.AddressSpoofing || len(v.VirtualIPs) > 0):
		return errTrusted
	case have == nil && v.Lasting:
		return deny("a lasting vport is made where the tenants are administered")
	case have == nil && r.now.Sub(v.Created) > clockSkew: // of two with one MAC that were restored together the older has it
		return deny("it was not created at %s: look after this host's clock", v.Created.Format(time.RFC3339))
	case have == nil:
		if !nowhere(v) {
			r.guards[guardKey(v.SubnetID)] = true
		}
		err = r.comes(e)
	default:
		err = r.changeVport(have.Value, v)
	}
	if err != nil || nowhere(v) {
		return err
	}
	sub, err := r.subnet(domain, v.SubnetID)
	switch {
	case err != nil:
		return err
	case sub.ZoneID != v.ZoneID:
		return deny("the subnet is in another zone")
	case !v.IPv4.IsValid():
		return nil
	case v.IPv4 == sub.Gateway:
		return deny("%s is the gateway", v.IPv4)
	}
	if err := tenant.ValidateAddress(sub.CIDR, v.IPv4); err != nil {
		return deny("%v", err)
	}
	held, err := r.there(leaseKey(&tenant.Lease{DomainID: domain, SubnetID: v.SubnetID, Address: v.IPv4}))
	if err != nil {
		return err
	}
	l, err := read[tenant.Lease](held)
	if err == nil && (l.VportID != v.ID || l.State != tenant.LeaseBound || l.Host != v.Host) {
		err = deny("%s is not leased to it", v.IPv4)
	}
	return err
}

// errTrusted: with them a host would take the addresses of others.
var errTrusted = deny("address spoofing and virtual IPs are set where the tenants are administered")

// changeVport judges the change of a vport to v.
func (r *review) changeVport(have []byte, v *tenant.Vport) error {
	h, err := read[tenant.Vport](have)
	switch {
	case err != nil:
		return err
	case h.Host != r.host && !(h.Host == "" && h.Lasting):
		return deny("it is host %q's", h.Host)
	case h.Lasting != v.Lasting || h.Lasting && (h.ExternalID != v.ExternalID || h.Name != v.Name):
		return deny("how long it lasts, and what a lasting vport is called, cannot change")
	case h.AddressSpoofing != v.AddressSpoofing || !slices.Equal(h.VirtualIPs, v.VirtualIPs):
		return errTrusted
	case h.SubnetID != v.SubnetID || h.IPv4.IsValid() && (h.IPv4 != v.IPv4 || h.MAC != v.MAC):
		return deny("its subnet, address and MAC cannot change")
	case !h.Created.Equal(v.Created):
		return deny("when it was created cannot change")
	case h.ExternalID == v.ExternalID:
		return nil
	}
	if h.ExternalID != "" {
		r.unindex[externalKey(tenant.KindVport, h.ExternalID)] = true
	}
	if v.ExternalID != "" {
		r.claims[externalKey(tenant.KindVport, v.ExternalID)] = v.ID
	}
	return nil
}

func (r *review) removeVport(key string) error {
	have, err := r.get(key)
	if err != nil || have == nil {
		return err
	}
	v, err := read[tenant.Vport](have.Value)
	if err != nil {
		return err
	}
	if v.Host != r.host {
		return deny("it is host %q's", v.Host)
	}
	return r.goes(v.DomainID, vportEntry(v))
}

// putLease judges a lease: it is the host's, and what it replaces may be replaced.
func (r *review) putLease(key, domain string, value []byte) error {
	l, err := read[tenant.Lease](value)
	switch {
	case err != nil:
		return err
	case l.Host != r.host && !(l.Host == "" && l.VportID != ""):
		return deny("it is host %q's", l.Host)
	case l.DomainID != domain || leaseKey(l) != key:
		return deny("the value is another address's")
	case l.VportID != "" && l.State != tenant.LeaseBound:
		return deny("a vport's address is bound")
	}
	sub, err := r.subnet(domain, l.SubnetID)
	if err == nil {
		if verr := tenant.ValidateAddress(sub.CIDR, l.Address); verr != nil {
			err = deny("%v", verr)
		}
	}
	if err != nil {
		return err
	}
	have, err := r.get(key)
	if err != nil {
		return err
	}
	if have == nil {
		r.guards[guardKey(l.SubnetID)] = true
	} else if err := r.replaceLease(have.Value, l); err != nil {
		return err
	}
	if l.VportID == "" {
		return nil
	}
	holder, err := r.there(vportKey(domain, l.VportID))
	if err != nil {
		return err
	}
	v, err := read[tenant.Vport](holder)
	if err == nil && (v.Host != l.Host || v.SubnetID != l.SubnetID || v.IPv4 != l.Address || v.MAC != l.MAC) {
		err = deny("vport %s has not this address", l.VportID)
	}
	return err
}

// replaceLease judges that l, or nothing if it is nil, takes the place of a lease.
func (r *review) replaceLease(have []byte, l *tenant.Lease) error {
	h, err := read[tenant.Lease](have)
	if err != nil {
		return err
	}
	over := h.State != tenant.LeaseBound && r.now.Add(sweepSkew).After(h.Expires)
	switch {
	case h.Host == r.host || over:
	case h.Host == "" && h.VportID != "" && l != nil && l.VportID == h.VportID:
		// Of a lasting vport that comes to this host.
	case l != nil && h.State == tenant.LeaseResting:
	case l != nil && h.State == tenant.LeaseReserved && h.MAC.IsZero() && h.Use == tenant.UseEndpoint:
		// Reserved for whichever host the task is started on.
	default:
		return deny("%s for host %q", h.State, h.Host)
	}
	if h.VportID == "" || l != nil && l.VportID == h.VportID {
		return nil
	}
	// The address leaves its vport only with it.
	holder := vportKey(h.DomainID, h.VportID)
	if r.deletes[holder] {
		return nil
	}
	v, err := r.get(holder)
	if err == nil && v != nil {
		err = deny("it is vport %s's", h.VportID)
	}
	return err
}

func (r *review) removeLease(key string) error {
	have, err := r.get(key)
	if err != nil || have == nil {
		return err
	}
	return r.replaceLease(have.Value, nil)
}
