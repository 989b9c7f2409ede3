package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"nuage/controller/tenant"
	"nuage/driver/journal"
	"nuage/ipam"
)

// Capabilities answers GetCapabilities. Connectivity is global since a tenant's subnet is
// on all hosts: so swarm tells the names of services to all of them.
func (d *Driver) Capabilities(context.Context) (*Capabilities, error) {
	return &Capabilities{Scope: d.Scope, ConnectivityScope: "global"}, nil
}

// CreateNetwork binds a Docker network to a tenant subnet, which is made if it may be.
// The same request again is a success; another one under the same ID is
// tenant.ErrConflict. After an error the network is not bound, and no subnet is left that
// was made for it alone.
func (d *Driver) CreateNetwork(ctx context.Context, req *CreateNetworkRequest) error {
	a, err := readNetwork(req)
	if err != nil {
		if a.mode() == tenant.AddressTenant {
			d.IPAM.Forgo(a.Space, a.Pool)
		}
		return err
	}
	ctx, cancel := begin(ctx, undoTime)
	defer cancel()
	unlock, err := d.locks.lock(ctx, "network "+short(req.NetworkID))
	if err != nil {
		return err
	}
	defer unlock()
	if err := d.createNetwork(ctx, req.NetworkID, a); err != nil {
		return fmt.Errorf("network %s: %w", short(req.NetworkID), err)
	}
	return nil
}

func (d *Driver) createNetwork(ctx context.Context, id string, a asked) error {
	old, err := d.getNetwork(id)
	if err != nil {
		return err
	}
	if old != nil && old.Made {
		if old.Asked.equal(a) {
			return nil
		}
		return tenant.Errorf(tenant.ErrConflict, "exists already, with other options")
	}
	if old != nil { // an earlier attempt, or a removal, that was cut short
		if err := d.removeNetwork(ctx, old); err != nil {
			return err
		}
	}
	n := &network{Created: time.Now().UTC(), Asked: a}
	n.Network = tenant.Network{Meta: tenant.Meta{ID: id}, Host: d.Host, Mode: a.mode(), Internal: a.Internal, Auxiliary: a.Auxiliary}
	if n.Network.Mode != tenant.AddressTenant { // there the pool says
		if n.Path, err = d.spec(a); err != nil {
			return err
		}
	}
	if err := d.bind(ctx, n); err != nil {
		undo, cancel := undoing(ctx)
		defer cancel()
		if left := d.removeNetwork(undo, n); left != nil {
			d.Log.WithError(left).WithField("network", short(id)).Warn("what was begun for a refused network is removed later")
		}
		return err
	}
	d.Log.WithField("network", short(id)).WithField("subnet", n.Network.CIDR.String()).WithField("mode", string(n.Network.Mode)).Info("network bound")
	return nil
}

// bind makes n, the record first. What it has begun when it fails is removeNetwork's to undo.
func (d *Driver) bind(ctx context.Context, n *network) error {
	if err := d.putNetwork(n); err != nil {
		return err
	}
	if n.Network.Mode == tenant.AddressTenant {
		return d.bindPool(ctx, n)
	}
	for {
		path, err := d.Store.EnsurePath(ctx, n.Path)
		if err != nil {
			return d.advise(ctx, n, err)
		}
		n.Path.Subnet = path.Subnet.Name
		if n.Network.Mode != tenant.AddressNull {
			n.Network.Mode = tenant.AddressExisting
			if path.Subnet.DockerOwned {
				n.Network.Mode = tenant.AddressDocker
			}
		}
		n.Network.EnterpriseID, n.Network.DomainID, n.Network.ZoneID = path.Enterprise.ID, path.Domain.ID, path.Zone.ID
		err = d.finish(ctx, n, path.Subnet, n.Asked.Options)
		// The last network of another host may just have taken the subnet with it.
		if !errors.Is(err, tenant.ErrNotFound) || !path.Subnet.DockerOwned || ctx.Err() != nil {
			return err
		}
	}
}

// bindPool binds a network to the pool that Docker has requested for it from our IPAM.
func (d *Driver) bindPool(ctx context.Context, n *network) error {
	pool, err := d.IPAM.Claim(ctx, ipam.Network{ID: n.Network.ID, Space: n.Asked.Space, CIDR: n.Asked.Pool, Gateway: n.Asked.Gateway, Options: n.Asked.Options})
	if err != nil {
		return err
	}
	o := pool.Options
	n.Path = tenant.PathSpec{Enterprise: o.Enterprise, Domain: o.Domain, Zone: o.Zone, Subnet: o.Subnet}
	n.Network.EnterpriseID, n.Network.DomainID, n.Network.ZoneID = pool.EnterpriseID, pool.DomainID, pool.ZoneID
	err = d.finish(ctx, n, tenant.Subnet{Meta: tenant.Meta{ID: pool.SubnetID}, CIDR: pool.CIDR, Gateway: pool.Gateway}, o)
	if err == nil && pool.Made {
		err = d.IPAM.Keep(ctx, pool)
	}
	if errors.Is(err, tenant.ErrNotFound) {
		err = fmt.Errorf("the subnet of pool %s does not exist any more: %w", pool.CIDR, err)
	}
	return err
}

// finish writes the network to the store and then declares it made.
func (d *Driver) finish(ctx context.Context, n *network, sub tenant.Subnet, o ipam.Options) error {
	n.Network.SubnetID, n.Network.CIDR, n.Network.Gateway = sub.ID, sub.CIDR, sub.Gateway
	n.Network.PolicyGroups, n.Network.User = o.PolicyGroups, o.User
	if err := d.checkMTU(o.MTU); err != nil {
		return err
	}
	n.MTU, n.Network.MTU = o.MTU, d.saidMTU(o.MTU)
	if err := d.Store.EnsurePolicyGroups(ctx, n.Network.DomainID, o.PolicyGroups, d.Autocreate); err != nil {
		return err
	}
	if err := d.Store.PutNetwork(ctx, n.Network); err != nil {
		return err
	}
	n.Made = true
	err := d.putNetwork(n)
	n.Made = err == nil
	return err
}

// DeleteNetwork unbinds a network, and deletes its subnet if that was made for Docker and
// nothing else uses it. An unknown network is nil. While the store is away it is nil too,
// and Reconcile does the rest.
func (d *Driver) DeleteNetwork(ctx context.Context, req *DeleteNetworkRequest) error {
	ctx, cancel := begin(ctx, 0)
	defer cancel()
	unlock, err := d.locks.lock(ctx, "network "+short(req.NetworkID))
	if err != nil {
		return err
	}
	defer unlock()
	return d.deleteNetwork(ctx, req.NetworkID)
}

// deleteNetwork is called with the network's lock held.
func (d *Driver) deleteNetwork(ctx context.Context, id string) error {
	n, err := d.getNetwork(id)
	if err != nil || n == nil {
		return err
	}
	n.Made = false
	if err := d.putNetwork(n); err != nil {
		return err
	}
	// Docker removes the endpoints first. Those that it forgot while we were away go now.
	all, err := d.endpoints()
	if err != nil {
		return err
	}
	for eid, e := range all {
		if e.NetworkID == id && e.Made {
			if err := d.DeleteEndpoint(ctx, &DeleteEndpointRequest{NetworkID: id, EndpointID: eid}); err != nil {
				return err
			}
		}
	}
	away, cancel := context.WithTimeout(ctx, awayTime)
	defer cancel()
	if err := d.removeNetwork(away, n); err != nil {
		d.Log.WithError(err).WithField("network", short(id)).Warn("the network's removal is finished later")
	}
	return nil
}

// removeNetwork takes back all that a network may have brought about, and its record. It
// is called with the network's lock held.
func (d *Driver) removeNetwork(ctx context.Context, n *network) error {
	if err := d.Store.Ready(); err != nil {
		return err
	}
	all, err := d.endpoints()
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.NetworkID != n.Network.ID {
			continue
		}
		if e.Made {
			return tenant.Errorf(tenant.ErrConflict, "vport %s is still on it", e.Vport.Name)
		}
		// Its subnet could not go before it, and later nobody would come back for that.
		if err := d.Store.DeleteVport(ctx, e.Vport.ID); err != nil {
			return err
		}
	}
	if err := d.IPAM.Disclaim(ctx, n.Network.ID); err != nil {
		return err
	}
	if err := d.Store.DeleteNetwork(ctx, n.Network.ID); err != nil {
		return err
	}
	subnet := n.Network.SubnetID
	if subnet == "" && n.Path.DockerOwned {
		spec := n.Path
		spec.Create = false
		path, err := d.Store.EnsurePath(ctx, spec)
		if errors.Is(err, tenant.ErrUnavailable) {
			return err
		}
		subnet = path.Subnet.ID // empty if it was not made
	}
	if subnet != "" {
		if err := d.Store.ReleaseSubnet(ctx, subnet); err != nil && !errors.Is(err, tenant.ErrNotFound) {
			return err
		}
	}
	return d.Journal.Apply(journal.Drop(kindNetwork, n.Network.ID))
}

// AllocateNetwork is asked of swarm's manager. What it answers is what the nodes get as
// the network's options, so it answers what was given, once that is found right.
func (d *Driver) AllocateNetwork(_ context.Context, req *AllocateNetworkRequest) (*AllocateNetworkResponse, error) {
	o, err := ipam.ParseOptions(req.Options)
	if err == nil {
		err = d.checkMTU(o.MTU)
	}
	if err != nil {
		return nil, err
	}
	options := maps.Clone(req.Options)
	if options == nil {
		options = map[string]string{}
	}
	return &AllocateNetworkResponse{Options: options}, nil
}

// FreeNetwork has nothing to free: the manager keeps nothing.
func (d *Driver) FreeNetwork(context.Context, *FreeNetworkRequest) error { return nil }
