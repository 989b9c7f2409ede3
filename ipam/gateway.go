package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"nuage/controller/tenant"
)

// gateway is the subnet's gateway, which has no lease: nobody else can get the address. One
// that the user wants becomes the subnet's if that was made for this very pool.
func (d *Driver) gateway(ctx context.Context, id poolID, want netip.Addr) (netip.Prefix, error) {
	d.mu.Lock()
	sub, ours := d.made[id.subnetID]
	delete(d.made, id.subnetID)
	d.mu.Unlock()
	var r PoolRecord
	known, err := d.c.Records.Get(kindPool, id.String(), &r)
	switch {
	case err != nil:
		return netip.Prefix{}, err
	case ours:
	case known:
		sub.Name, sub.CIDR, sub.Gateway = r.Options.Subnet, r.CIDR, r.Gateway
	default:
		if sub, err = d.subnet(ctx, id); err != nil {
			return netip.Prefix{}, err
		}
	}
	was := sub
	if ours && id.space == SpaceGlobal {
		sub.DockerOwned = false // the networks come later, on swarm's nodes
	}
	if want.IsValid() && want != sub.Gateway {
		if !ours {
			return netip.Prefix{}, tenant.Errorf(tenant.ErrConflict, "subnet %s (%s) has gateway %s, not %s: pass --gateway %s, or leave --gateway out", sub.Name, sub.CIDR, sub.Gateway, want, sub.Gateway)
		}
		sub.Gateway = want
	}
	answer := netip.PrefixFrom(sub.Gateway, sub.CIDR.Bits())
	if sub == was {
		return answer, nil
	}
	_, err = d.c.Store.UpdateSubnet(ctx, sub)
	if errors.Is(err, tenant.ErrDenied) && sub.Gateway == was.Gateway { // by a serving host that is older
		return answer, nil
	} else if err != nil {
		return answer, fmt.Errorf("gateway %s: %w", sub.Gateway, err)
	}
	return answer, d.change(id.String(), func(r *PoolRecord) {
		if r.ID != "" {
			r.Gateway = sub.Gateway
		}
	})
}
