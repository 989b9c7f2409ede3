package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"nuage/controller/tenant"
	"nuage/driver/link"
)

// Report is what Reconcile and Collect did, each entry a noun and its name.
type Report struct {
	Removed  []string // what was half made, half removed, or of nobody
	Restored []string // what was missing in the store or on the switch
	Adopted  []string // what the store knew and the journal had lost
}

func (r *Report) empty() bool { return len(r.Removed)+len(r.Restored)+len(r.Adopted) == 0 }

// Reconcile finishes what verbs have begun and not finished, and makes the store and the
// switch agree with what Docker was told: it undoes half-made networks and endpoints,
// completes removals, puts back what the store or the switch has lost, takes back from
// the store what the journal has lost, and removes ports and links of ours that nobody
// has. What a verb is working on is left alone. Call it when the process starts, when the
// store or the switch come back, and every minute.
//
// While the store or the switch are away it does nothing and returns why. It goes on past
// other errors and returns them joined; the next call tries again. An endpoint
// whose link is gone (the host was rebooted) is removed: containers get new endpoints.
func (d *Driver) Reconcile(ctx context.Context) (Report, error) {
	var r Report
	// Only who sees everything can tell what is missing, and what is nobody's.
	if err := errors.Join(d.Store.Ready(), d.Ports.Ready()); err != nil {
		return r, err
	}
	// A network goes only after its endpoints.
	err := errors.Join(d.reconcileEndpoints(ctx, &r), d.reconcileNetworks(ctx, &r), d.adopt(ctx, &r), d.sweep(ctx, &r))
	if !r.empty() {
		d.Log.WithFields(map[string]any{"removed": r.Removed, "restored": r.Restored, "adopted": r.Adopted}).Info("reconciled")
	}
	return r, err
}

// each calls f with every ID that no verb is working on, with its lock held.
func (d *Driver) each(ctx context.Context, noun string, ids []string, f func(id string) error) error {
	slices.Sort(ids)
	var errs []error
	for _, id := range ids {
		if ctx.Err() != nil {
			errs = append(errs, ctx.Err())
			break
		}
		unlock, _ := d.locks.try(noun + " " + short(id))
		if unlock == nil {
			continue
		}
		err := f(id)
		unlock()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", noun, short(id), err))
		}
	}
	return errors.Join(errs...)
}

func (d *Driver) reconcileNetworks(ctx context.Context, r *Report) error {
	all, err := d.networks()
	if err != nil {
		return err
	}
	return d.each(ctx, "network", slices.Collect(maps.Keys(all)), func(id string) error {
		n, err := d.getNetwork(id)
		if err != nil || n == nil {
			return err
		}
		if !n.Made {
			if err := d.removeNetwork(ctx, n); err != nil {
				return err
			}
			r.Removed = append(r.Removed, "network "+short(id))
			return nil
		}
		var known bool
		d.Store.Feed().View(func(st *tenant.State) { known = st.Networks[id] != nil })
		if known {
			return nil
		}
		if err := d.Store.PutNetwork(ctx, n.Network); err != nil {
			return err
		}
		r.Restored = append(r.Restored, "network "+short(id))
		return nil
	})
}

func (d *Driver) reconcileEndpoints(ctx context.Context, r *Report) error {
	all, err := d.endpoints()
	if err != nil {
		return err
	}
	return d.each(ctx, "endpoint", slices.Collect(maps.Keys(all)), func(id string) error {
		e, err := d.getEndpoint(id)
		if err != nil || e == nil {
			return err
		}
		if e.Made {
			links, err := d.Links.List()
			if err != nil {
				return err
			}
			if slices.Contains(links, e.Vport.Interface) {
				return d.restore(ctx, r, e)
			}
			e.Made = false
			if err := d.putEndpoint(e); err != nil {
				return err
			}
		}
		if err := d.removeEndpoint(ctx, e); err != nil {
			return err
		}
		r.Removed = append(r.Removed, "endpoint "+short(id))
		return nil
	})
}

// restore puts back the vport and the port of an endpoint.
func (d *Driver) restore(ctx context.Context, r *Report, e *endpoint) error {
	var known bool
	d.Store.Feed().View(func(st *tenant.State) { known = st.Vports[e.Vport.ID] != nil })
	var vport, port error
	if !known {
		if _, vport = d.Store.BindVport(ctx, e.Vport); vport == nil {
			r.Restored = append(r.Restored, "vport "+e.Vport.Name)
		}
	}
	if _, there := d.Ports.Ports()[e.Vport.Interface]; !there {
		if port = d.Ports.EnsurePort(ctx, e.Vport.Interface, e.externalIDs()); port == nil {
			r.Restored = append(r.Restored, "port "+e.Vport.Interface)
		}
	}
	return errors.Join(vport, port)
}

// adopt takes from the store what the journal has lost: the networks of this host, and its
// vports whose link still exists. A vport without a link is removed.
func (d *Driver) adopt(ctx context.Context, r *Report) error {
	var networks []string
	vports := map[string]string{} // endpoint ID → vport ID
	d.Store.Feed().View(func(st *tenant.State) {
		for id, n := range st.Networks {
			if n.Host == d.Host {
				networks = append(networks, id)
			}
		}
		st.Children(tenant.Key{Kind: tenant.KindHost, ID: d.Host}, tenant.KindVport, func(id string) {
			if eid := st.Vports[id].Owner.EndpointID; checkDockerID("endpoint", eid) == nil {
				vports[eid] = id
			}
		})
	})
	known, err := d.networks()
	if err != nil {
		return err
	}
	networks = slices.DeleteFunc(networks, func(id string) bool { return known[id] != nil })
	adopted := d.each(ctx, "network", networks, func(id string) error {
		n, err := d.getNetwork(id) // which adopts it, if it still is there
		if err == nil && n != nil {
			r.Adopted = append(r.Adopted, "network "+short(id))
		}
		return err
	})
	return errors.Join(adopted, d.each(ctx, "endpoint", slices.Collect(maps.Keys(vports)), func(id string) error {
		return d.adoptEndpoint(ctx, r, id, vports[id])
	}))
}

func (d *Driver) adoptEndpoint(ctx context.Context, r *Report, id, vportID string) error {
	if e, err := d.getEndpoint(id); err != nil || e != nil && e.Vport.ID == vportID {
		return err
	}
	e := &endpoint{Created: time.Now().UTC()}
	d.Store.Feed().View(func(st *tenant.State) {
		if v := st.Vports[vportID]; v != nil {
			e.Vport = *v
			e.Vport.PolicyGroups = slices.Clone(v.PolicyGroups)
		}
	})
	host, _ := link.Names(id)
	if e.Vport.Interface != host {
		return nil // deleted meanwhile, or not one of ours
	}
	links, err := d.Links.List()
	if err != nil {
		return err
	}
	if !slices.Contains(links, host) {
		if err := d.Store.DeleteVport(ctx, vportID); err != nil {
			return err
		}
		r.Removed = append(r.Removed, "vport "+e.Vport.Name)
		return nil
	}
	e.NetworkID, e.Made = e.Vport.Owner.NetworkID, true
	e.Asked = wanted{Address: e.Vport.IPv4, MAC: e.Vport.MAC}
	if err := d.putEndpoint(e); err != nil {
		return err
	}
	r.Adopted = append(r.Adopted, "endpoint "+short(id))
	return nil
}

// sweep removes the links and ports of ours that belong to no endpoint. It looks at them
// before it looks at the records: what has an effect has a record already.
func (d *Driver) sweep(ctx context.Context, r *Report) error {
	links, err := d.Links.List()
	if err != nil {
		return err
	}
	ports := d.Ports.Ports()
	all, err := d.endpoints()
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, e := range all {
		wanted[e.Vport.Interface] = true
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(ports)) {
		if ports[name][portEndpoint] == "" || wanted[name] || !strings.HasPrefix(name, "nu") {
			continue
		}
		err := d.Ports.DeletePort(ctx, name)
		if err == nil {
			r.Removed = append(r.Removed, "port "+name)
		}
		errs = append(errs, err)
	}
	for _, name := range links {
		if wanted[name] {
			continue
		}
		err := d.Links.Delete(name)
		if err == nil {
			r.Removed = append(r.Removed, "link "+name)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Collect removes the networks and endpoints that Docker does not have, as if it had said
// so: it forgets its own while the plugin does not answer. networks are the IDs of all its
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
		} else if old(e.Made, e.Created) {
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

// Enrich tells which container an endpoint belongs to: the vport gets its name. An
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
