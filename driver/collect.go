package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"nuage/controller/tenant"
)

// Collect removes the networks and endpoints that Docker does not have, as if it had said
// so: it forgets its own while the plugin does not answer. Containers of Attach are not
// its business. networks are the IDs of all its
// networks of ours, endpoints of all endpoints of running containers. Nothing younger than
// grace is touched, which must be longer than the lists are old.
//
// The lists must be whole: a list that could not be read is no empty list, and must not
// come here.
func (d *Driver) Collect(ctx context.Context, networks, endpoints map[string]bool, grace time.Duration) (Report, error) {
	var r Report
	old := func(made bool, created time.Time) bool { return made && time.Since(created) > grace }
	es, err := d.endpoints()
	if err != nil {
		return r, err
	}
	var errs []error
	networks = maps.Clone(networks) // a network with a live endpoint is live
	if networks == nil {
		networks = map[string]bool{}
	}
	for id, e := range es {
		if endpoints[id] {
			networks[e.NetworkID] = true
		} else if old(e.Made, e.Created) && !e.direct() {
			err := d.DeleteEndpoint(ctx, &DeleteEndpointRequest{NetworkID: e.NetworkID, EndpointID: id})
			if err == nil {
				r.Removed = append(r.Removed, "endpoint "+short(id))
			}
			errs = append(errs, err)
		}
	}
	ns, err := d.networks()
	if err != nil {
		return r, err
	}
	for id, n := range ns {
		if old(n.Made, n.Created) && !networks[id] {
			err := d.DeleteNetwork(ctx, &DeleteNetworkRequest{NetworkID: id})
			if err == nil {
				r.Removed = append(r.Removed, "network "+short(id))
			}
			errs = append(errs, err)
		}
	}
	slices.Sort(r.Removed)
	if !r.empty() {
		d.Log.WithField("removed", r.Removed).Info("collected what Docker does not have any more")
	}
	return r, errors.Join(errs...)
}

// NameNetwork tells what Docker calls a network, which it does not tell its drivers. A network
// that is unknown, or known to be called so already, is nil; it costs one local read.
func (d *Driver) NameNetwork(ctx context.Context, id, name string) error {
	n, err := d.getNetwork(id)
	if err != nil || n == nil || !n.Made || n.Network.Name == name {
		return err
	}
	unlock, err := d.locks.lock(ctx, "network "+short(id))
	if err != nil {
		return err
	}
	defer unlock()
	if n, err = d.getNetwork(id); err != nil || n == nil || !n.Made {
		return err
	}
	n.Network.Name = name
	if err := d.Store.PutNetwork(ctx, n.Network); err != nil {
		return fmt.Errorf("network %s: %w", short(id), err)
	}
	return d.putNetwork(n)
}

// Enrich tells which container an endpoint belongs to: the vport gets its name. A
// container of Attach goes by its own ID, and may be called otherwise than before. An
// endpoint that is unknown, or known to be so already, is nil; it costs one local read.
func (d *Driver) Enrich(ctx context.Context, endpointID, containerID, containerName string) error {
	e, err := d.getEndpoint(endpointID)
	if err != nil || e == nil || !e.Made || e.Vport.Owner.ContainerID == containerID && e.Vport.Owner.ContainerName == containerName {
		return err
	}
	unlock, err := d.locks.lock(ctx, "endpoint "+short(endpointID))
	if err != nil {
		return err
	}
	defer unlock()
	if e, err = d.getEndpoint(endpointID); err != nil || e == nil || !e.Made {
		return err
	}
	e.Vport.Owner.ContainerID, e.Vport.Owner.ContainerName = containerID, containerName
	if tenant.ValidateName(containerName) == nil {
		e.Vport.Name = containerName
	}
	var now tenant.Vport
	d.Store.Feed().View(func(st *tenant.State) {
		if v := st.Vports[e.Vport.ID]; v != nil {
			now = *v
		}
	})
	if now.ID == "" {
		return nil // Reconcile puts it back first
	}
	now.Name, now.Owner = e.Vport.Name, e.Vport.Owner
	if _, err := d.Store.UpdateVport(ctx, now); err != nil {
		return fmt.Errorf("endpoint %s: %w", short(endpointID), err)
	}
	return d.putEndpoint(e)
}
