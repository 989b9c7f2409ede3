package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"nuage/controller/tenant"
)

// Owns tells whether an address space is this driver's, so that the pools of a network are.
func Owns(space string) bool { return space == SpaceLocal || space == SpaceGlobal }

// Network is what CreateNetwork tells of a network that needs its pool.
type Network struct {
	ID      string // Docker's
	Space   string
	CIDR    netip.Prefix
	Gateway netip.Addr // not valid: not said
	// Options are the network driver's own (-o).
	Options Options
}

func (n *Network) place() place { return place{n.Space, n.CIDR} }

// Claim is the pool of a network that is being created. Docker does not say which one it
// is: it is one with the network's space, prefix and gateway, and options that do not
// contradict the network's. Of several it is the one requested last, since requests for one
// prefix are let through one after the other; where even that leaves a doubt, Claim refuses,
// for the other one may be another tenant's, and forgoes the request. The record's options are merged with the
// network's. Claiming for the same network again gives the same pool; Disclaim undoes it.
//
// Errors: tenant.ErrInvalid if the options contradict the pool's, ErrConflict if the
// gateway does or it cannot be told which pool is meant, ErrNotFound if there is none.
func (d *Driver) Claim(_ context.Context, n Network) (PoolRecord, error) {
	d.claimMu.Lock()
	defer d.claimMu.Unlock()
	rs, err := d.records()
	if err != nil {
		return PoolRecord{}, err
	}
	r, err := d.choose(rs, &n)
	if err != nil {
		d.Forgo(n.Space, n.CIDR)
		return PoolRecord{}, err
	}
	merged, err := Merge(n.Options, r.Options)
	if err != nil {
		return PoolRecord{}, err
	}
	err = d.change(r.ID, func(now *PoolRecord) {
		if r.Networks = now.Networks; !slices.Contains(r.Networks, n.ID) {
			r.Networks = append(r.Networks, n.ID)
		}
		*now = r
	})
	r.Options = merged
	return r, err
}

// Forgo tells that a network was refused before it claimed the pool requested for it, so
// that requests of other pools with its prefix need not wait for it. What is unknown is fine.
func (d *Driver) Forgo(space string, cidr netip.Prefix) {
	if pool := d.asked.next(place{space, cidr}); pool != "" {
		d.abandon(pool)
	}
}

func (d *Driver) choose(rs []PoolRecord, n *Network) (PoolRecord, error) {
	for _, r := range rs {
		if slices.Contains(r.Networks, n.ID) {
			return r, nil
		}
	}
	here := slices.DeleteFunc(rs, func(r PoolRecord) bool { return r.place() != n.place() })
	fitting := slices.DeleteFunc(slices.Clone(here), func(r PoolRecord) bool { return r.refuse(n) != nil })
	find := func(pool string) int {
		return slices.IndexFunc(fitting, func(r PoolRecord) bool { return r.ID == pool })
	}
	pool, err := d.asked.claim(n.place(), func(pool string) bool { return find(pool) >= 0 })
	switch {
	case err != nil:
		return PoolRecord{}, err
	case pool != "":
		return fitting[find(pool)], nil
	case len(fitting) == 1:
		return fitting[0], nil
	case len(fitting) > 1:
		return PoolRecord{}, ambiguous(n.place())
	case len(here) > 0:
		return PoolRecord{}, here[0].refuse(n)
	}
	return PoolRecord{}, tenant.Errorf(tenant.ErrNotFound, "no pool %s was requested of the nuage IPAM driver on this host", n.CIDR)
}

// refuse says why a pool in the network's place is not the network's, if it is not.
func (r *PoolRecord) refuse(n *Network) error {
	if n.Gateway.IsValid() && n.Gateway != r.Gateway {
		return tenant.Errorf(tenant.ErrConflict, "subnet %s (%s) has gateway %s, not %s", r.Options.Subnet, r.CIDR, r.Gateway, n.Gateway)
	}
	_, err := Merge(n.Options, r.Options)
	return err
}

// Disclaim undoes Claim when a network could not be created or goes away, and frees the
// auxiliary addresses that no other network sets aside. It comes before the store forgets
// the network, whose auxiliary addresses it reads there. Repeating it, and a network that
// claimed nothing, are fine.
func (d *Driver) Disclaim(ctx context.Context, networkID string) error {
	rs, err := d.records()
	if err != nil {
		return err
	}
	for _, r := range rs {
		if !slices.Contains(r.Networks, networkID) {
			continue
		}
		err := d.change(r.ID, func(r *PoolRecord) {
			r.Networks = slices.DeleteFunc(r.Networks, func(n string) bool { return n == networkID })
			if len(r.Networks) == 0 && !d.asked.waits(r.place(), r.ID) {
				r.ID = ""
			}
		})
		if err != nil {
			return err
		}
	}
	return d.freeAuxiliary(ctx, networkID)
}

func (d *Driver) freeAuxiliary(ctx context.Context, networkID string) error {
	var n tenant.Network
	d.c.Store.Feed().View(func(st *tenant.State) {
		if have := st.Networks[tenant.NetworkID(d.c.Host, networkID)]; have != nil {
			n = *have
		}
	})
	if len(n.Auxiliary) == 0 {
		return nil
	}
	if err := d.c.Store.Follow(ctx, n.DomainID); err != nil {
		if errors.Is(err, tenant.ErrNotFound) {
			return nil
		}
		return fmt.Errorf("network %s: %w", networkID, err)
	}
	for _, addr := range n.Auxiliary {
		l := d.lease(n.SubnetID, addr)
		if l.ID == "" || l.Use != tenant.UseAuxiliary {
			continue
		}
		aside, err := d.setAside(ctx, n.SubnetID, addr, networkID)
		if err == nil && !aside {
			err = d.c.Store.DeleteLease(ctx, l)
		}
		if err != nil && !errors.Is(err, tenant.ErrStale) {
			return fmt.Errorf("network %s: auxiliary address %s: %w", networkID, addr, err)
		}
	}
	return nil
}
