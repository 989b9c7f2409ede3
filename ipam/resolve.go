package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	api "github.com/docker/go-plugins-helpers/ipam"
	"github.com/sirupsen/logrus"

	"nuage/controller/tenant"
)

// wanted is a pool request, read and checked as far as the state does not matter.
type wanted struct {
	space string
	cidr  netip.Prefix // not valid: automatic
	rng   netip.Prefix
	said  Options
}

func (w wanted) auto() bool { return !w.cidr.IsValid() }

func (d *Driver) parse(req *api.RequestPoolRequest) (wanted, error) {
	w := wanted{space: req.AddressSpace}
	if w.space != SpaceLocal && w.space != SpaceGlobal {
		return w, tenant.Errorf(tenant.ErrInvalid, "address space %q is not one of this IPAM driver", w.space)
	}
	if req.V6 || strings.Contains(req.Pool, ":") {
		return w, tenant.Errorf(tenant.ErrInvalid, "tenant subnets have no IPv6 yet: create the network without --ipv6 and without an IPv6 --subnet")
	}
	var err error
	if w.cidr, err = parsePrefix("--subnet", req.Pool); err != nil {
		return w, err
	}
	if w.rng, err = parsePrefix("--ip-range", req.SubPool); err != nil {
		return w, err
	}
	if w.said, err = ParseOptions(req.Options); err != nil {
		return w, err
	}
	if w.said.Enterprise == "" {
		w.said.Enterprise = d.c.Enterprise
	}
	return w, nil
}

func parsePrefix(flag, s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() {
		return netip.Prefix{}, tenant.Errorf(tenant.ErrInvalid, "%s %q is not an IPv4 prefix such as 10.85.85.0/24", flag, s)
	}
	return p.Masked(), nil
}

// repetition finds the pool that the engine has already and asks for once more because it
// has just started, or while the store is away. Such an answer needs no store, brings no
// domain to this host, and makes no subnet that was deleted meanwhile.
func (d *Driver) repetition(w wanted) (PoolRecord, bool, error) {
	if w.auto() || !d.starting() && d.c.Store.Ready() == nil {
		return PoolRecord{}, false, nil
	}
	rs, err := d.records()
	if err != nil {
		return PoolRecord{}, false, err
	}
	rs = slices.DeleteFunc(rs, func(r PoolRecord) bool {
		_, err := Merge(w.said, r.Options)
		return err != nil || len(r.Networks) == 0 || r.place() != place{w.space, w.cidr} || r.Range != w.rng || variant(r.Options) != variant(w.said)
	})
	if len(rs) != 1 {
		return PoolRecord{}, false, nil
	}
	return rs[0], true, nil
}

// starting tells whether an engine has greeted so lately that it may be repeating its
// requests.
func (d *Driver) starting() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.greeted.IsZero() && d.c.Now().Sub(d.greeted) < repetitionTime
}

// resolve finds the subnet that is wanted, or makes it.
func (d *Driver) resolve(ctx context.Context, w wanted) (PoolRecord, error) {
	for _, f := range []struct{ name, value string }{{"enterprise", w.said.Enterprise}, {"domain", w.said.Domain}, {"zone", w.said.Zone}} {
		if f.value == "" {
			return PoolRecord{}, tenant.Errorf(tenant.ErrInvalid, "no %s given: pass --ipam-opt %s=NAME (Docker gives -o only to the network driver, after the pool was requested)", f.name, f.name)
		}
	}
	if err := d.ready(ctx); err != nil {
		return PoolRecord{}, err
	}
	spec := tenant.PathSpec{Enterprise: w.said.Enterprise, Domain: w.said.Domain, Zone: w.said.Zone, Subnet: w.said.Subnet, CIDR: w.cidr}
	path, err := d.c.Store.EnsurePath(ctx, spec)
	made := errors.Is(err, tenant.ErrNotFound) && spec.CIDR.IsValid() && d.c.Autocreate
	if made {
		if path, err = d.make(ctx, spec); err != nil {
			return PoolRecord{}, err
		}
	}
	if err != nil {
		return PoolRecord{}, d.advise(ctx, spec, err)
	}
	rec, err := newRecord(w, path)
	if rec.Made = made && err == nil; made && err != nil {
		d.unmake(ctx, path.Subnet.ID)
	}
	return rec, err
}

// make makes a subnet and all that contains it. Until its network is there (see Keep) it is one
// that goes by itself.
func (d *Driver) make(ctx context.Context, spec tenant.PathSpec) (tenant.Path, error) {
	spec.Create, spec.DockerOwned = true, true
	path, err := d.c.Store.EnsurePath(ctx, spec)
	if err != nil {
		return path, d.advise(ctx, spec, err)
	}
	d.mu.Lock()
	d.made[path.Subnet.ID] = path.Subnet
	d.mu.Unlock()
	d.c.Log.WithFields(logrus.Fields{"enterprise": spec.Enterprise, "domain": spec.Domain, "zone": spec.Zone, "subnet": path.Subnet.Name, "cidr": spec.CIDR}).
		Info("made a subnet for a pool request")
	return path, nil
}

// unmake takes a subnet back that was made for a network which does not come. What uses it
// keeps it.
func (d *Driver) unmake(ctx context.Context, subnetID string) {
	d.mu.Lock()
	delete(d.made, subnetID)
	d.mu.Unlock()
	if err := d.c.Store.ReleaseSubnet(ctx, subnetID); err != nil && !errors.Is(err, tenant.ErrNotFound) {
		d.c.Log.WithError(err).WithField("subnet", subnetID).Warn("a subnet stays that was made for a network which was refused")
	}
}

// Keep makes the subnet stay that was made for a network which is there now: from here on it
// is the tenant's.
func (d *Driver) Keep(ctx context.Context, r PoolRecord) error {
	o := r.Options
	for {
		path, err := d.c.Store.EnsurePath(ctx, tenant.PathSpec{Enterprise: o.Enterprise, Domain: o.Domain, Zone: o.Zone, Subnet: o.Subnet})
		if err == nil && path.Subnet.ID == r.SubnetID && path.Subnet.DockerOwned {
			path.Subnet.DockerOwned = false
			_, err = d.c.Store.UpdateSubnet(ctx, path.Subnet)
		}
		switch {
		case err == nil:
			return d.change(r.ID, func(r *PoolRecord) { r.Made = false })
		case errors.Is(err, tenant.ErrDenied): // by a serving host that is older
			d.c.Log.WithError(err).WithField("subnet", o.Subnet).Warn("a subnet will go with its last network")
			return nil
		case !errors.Is(err, tenant.ErrStale) || ctx.Err() != nil: // else another host was faster
			return fmt.Errorf("subnet %s: %w", o.Subnet, err)
		}
	}
}

func newRecord(w wanted, p tenant.Path) (PoolRecord, error) {
	sub := p.Subnet
	if w.rng.IsValid() && (!sub.CIDR.Contains(w.rng.Addr()) || w.rng.Bits() < sub.CIDR.Bits()) {
		return PoolRecord{}, tenant.Errorf(tenant.ErrInvalid, "--ip-range %s is not in subnet %s (%s)", w.rng, sub.Name, sub.CIDR)
	}
	id := poolID{space: w.space, domainID: p.Domain.ID, subnetID: sub.ID, rng: w.rng, variant: variant(w.said)}
	o := w.said
	o.Enterprise, o.Domain, o.Zone, o.Subnet = p.Enterprise.Name, p.Domain.Name, p.Zone.Name, sub.Name
	return PoolRecord{
		ID: id.String(), Space: w.space,
		EnterpriseID: p.Enterprise.ID, DomainID: p.Domain.ID, ZoneID: p.Zone.ID, SubnetID: sub.ID,
		CIDR: sub.CIDR, Gateway: sub.Gateway, Range: w.rng, Options: o,
	}, nil
}

// advise puts Docker's flags into the refusal of a path, where the state explains it.
func (d *Driver) advise(ctx context.Context, spec tenant.PathSpec, refusal error) error {
	if errors.Is(refusal, tenant.ErrUnavailable) {
		return refusal
	}
	st, err := d.c.Store.Read(ctx)
	if err != nil {
		return refusal
	}
	if err := contradiction(st, spec); err != nil {
		return err
	}
	return refusal
}

// contradiction says, with Docker's flags, why the subnets of the zone do not allow what
// spec asks for; nil if that is not the reason.
func contradiction(st *tenant.State, spec tenant.PathSpec) error {
	subnets := subnetsOf(st, spec)
	named := slices.IndexFunc(subnets, func(s *tenant.Subnet) bool { return s.Name == spec.Subnet })
	same := slices.IndexFunc(subnets, func(s *tenant.Subnet) bool { return s.CIDR == spec.CIDR })
	switch {
	case named >= 0 && spec.CIDR.IsValid() && named != same:
		sub := subnets[named]
		return tenant.Errorf(tenant.ErrConflict, "subnet %s is %s, not %s: pass --subnet %s, or leave --subnet out", sub.Name, sub.CIDR, spec.CIDR, sub.CIDR)
	case named >= 0:
		return nil
	case spec.Subnet != "" && same >= 0:
		sub := subnets[same]
		return tenant.Errorf(tenant.ErrConflict, "%s is subnet %s, not %s: pass --ipam-opt subnet=%s, or leave it out", sub.CIDR, sub.Name, spec.Subnet, sub.Name)
	case spec.CIDR.IsValid():
		return nil
	case spec.Subnet != "":
		return tenant.Errorf(tenant.ErrNotFound, "zone %s of domain %s has no subnet %s%s: pass --subnet CIDR to make it, or the name of another", spec.Zone, spec.Domain, spec.Subnet, listed(subnets))
	}
	lasting := slices.DeleteFunc(subnets, func(s *tenant.Subnet) bool { return s.DockerOwned })
	switch len(lasting) {
	case 0:
		return tenant.Errorf(tenant.ErrNotFound, "zone %s of domain %s has no subnet: pass --subnet CIDR to make one", spec.Zone, spec.Domain)
	case 1:
		return nil
	}
	return tenant.Errorf(tenant.ErrConflict, "zone %s of domain %s has %d subnets%s: pass --ipam-opt subnet=NAME or --subnet CIDR", spec.Zone, spec.Domain, len(lasting), listed(lasting))
}

// subnetsOf is the subnets of the zone that spec names, by name; none if there is no zone.
func subnetsOf(st *tenant.State, spec tenant.PathSpec) []*tenant.Subnet {
	e := st.EnterpriseByName(spec.Enterprise)
	if e == nil {
		return nil
	}
	dom := st.DomainByName(e.ID, spec.Domain)
	if dom == nil {
		return nil
	}
	zone := st.ZoneByName(dom.ID, spec.Zone)
	if zone == nil {
		return nil
	}
	var subnets []*tenant.Subnet
	st.Children(tenant.Key{Kind: tenant.KindZone, ID: zone.ID}, tenant.KindSubnet, func(id string) {
		subnets = append(subnets, st.Subnets[id])
	})
	slices.SortFunc(subnets, func(a, b *tenant.Subnet) int { return strings.Compare(a.Name, b.Name) })
	return subnets
}

// listed is a list of subnets in brackets, cut to what a message can hold.
func listed(subnets []*tenant.Subnet) string {
	if len(subnets) == 0 {
		return ""
	}
	const most = 10
	var texts []string
	for _, s := range subnets[:min(most, len(subnets))] {
		texts = append(texts, fmt.Sprintf("%s %s", s.Name, s.CIDR))
	}
	if len(subnets) > most {
		texts = append(texts, "…")
	}
	return " (" + strings.Join(texts, ", ") + ")"
}
