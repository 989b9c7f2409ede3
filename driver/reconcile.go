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
)

// Report is what Reconcile and Collect did, each entry a noun and its name.
type Report struct {
	Removed  []string // what was half made, half removed, or of nobody
	Restored []string // what was missing in the store or on the switch
	Adopted  []string // what the store knew and the journal had lost
	Closed   []string // what lost its address to another while this host was given up
}

func (r *Report) empty() bool {
	return len(r.Removed)+len(r.Restored)+len(r.Adopted)+len(r.Closed) == 0
}

// Reconcile finishes what verbs have begun and not finished, and makes the store and the
// switch agree with what Docker was told: it undoes half-made networks and endpoints,
// completes removals, puts back what the store or the switch has lost, takes back from
// the store what the journal has lost, and removes ports and links of ours that nobody
// has. What a verb is working on is left alone. Call it when the process starts, when the
// store or the switch come back, and every minute.
//
// While the store or the switch are away it does nothing and returns why; and nothing is
// taken for gone that this host does not follow or has not seen yet. It goes on past
// other errors and returns them joined; the next call tries again. An endpoint
// whose link is gone (the host was rebooted) is removed: containers get new endpoints. One
// whose vport is gone (the host was evicted) gets it back, unless its address is another's
// by now: then its port stays closed, and the vport says why.
func (d *Driver) Reconcile(ctx context.Context) (Report, error) {
	var r Report
	// Only who sees everything can tell what is missing, and what is nobody's.
	if err := errors.Join(d.Store.Ready(), d.Ports.Ready()); err != nil {
		return r, err
	}
	if err := d.survey(ctx, &r); err != nil {
		return r, err
	}
	// A network goes only after its endpoints.
	err := errors.Join(d.reconcileEndpoints(ctx, &r), d.reconcileNetworks(ctx, &r), d.IPAM.Settle(ctx))
	// What is nobody's is known only after all that the store knows has been taken over.
	lost := d.adopt(ctx, &r)
	if lost == nil {
		lost = d.sweep(ctx, &r)
	}
	err = errors.Join(err, lost)
	if !r.empty() {
		d.Log.WithFields(map[string]any{"removed": r.Removed, "restored": r.Restored, "adopted": r.Adopted, "closed": r.Closed}).Info("reconciled")
	}
	return r, err
}

// survey brings in, once a process, the domains that this host has vports in and the
// journal may have lost: what follows then finds them in the feed.
func (d *Driver) survey(ctx context.Context, r *Report) error {
	if d.surveyed.Load() {
		return nil
	}
	st, err := d.Store.Read(ctx)
	if err != nil {
		return err
	}
	domains := map[string]bool{}
	var nowhere []tenant.Vport // in no domain, so that the feed never shows them
	st.Children(tenant.Key{Kind: tenant.KindHost, ID: d.Host}, tenant.KindVport, func(id string) {
		if v := st.Vports[id]; v.DomainID != "" {
			domains[v.DomainID] = true
		} else if refused(v) {
			nowhere = append(nowhere, *v)
		}
	})
	if err := d.forgetRefusals(ctx, r, nowhere); err != nil {
		return err
	}
	for id := range domains {
		err := d.Store.Follow(ctx, id)
		if errors.Is(err, tenant.ErrNotFound) {
			continue
		}
		var shown bool
		d.Store.Feed().View(func(st *tenant.State) { shown = st.Domains[id] != nil })
		if err == nil && !shown {
			err = tenant.Errorf(tenant.ErrUnavailable, "domain %s is not seen yet", id)
		}
		if err != nil {
			return err
		}
	}
	d.surveyed.Store(true)
	return nil
}

// each calls f with every ID that no verb is working on, with its lock held.
func (d *Driver) each(ctx context.Context, noun string, ids []string, f func(ctx context.Context, id string) error) error {
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
		item, cancel := context.WithTimeout(ctx, itemTime)
		err := f(item, id)
		cancel()
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
	return d.each(ctx, "network", slices.Collect(maps.Keys(all)), func(ctx context.Context, id string) error {
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
		d.Store.Feed().View(func(st *tenant.State) { known = st.Networks[tenant.NetworkID(d.Host, id)] != nil })
		if known {
			return nil
		}
		if err := d.Store.PutNetwork(ctx, n.Network); err != nil {
			return d.deleted(n.Path, err)
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
	return d.each(ctx, "endpoint", slices.Collect(maps.Keys(all)), func(ctx context.Context, id string) error {
		e, err := d.getEndpoint(id)
		if err != nil || e == nil {
			return err
		}
		if e.Made {
			there, err := d.Links.Has(e.Vport.Interface)
			if err != nil {
				return err
			}
			if there {
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

// adopt takes from the store what the journal has lost: the networks of this host, and its
// vports whose link still exists. A vport without a link is removed.
func (d *Driver) adopt(ctx context.Context, r *Report) error {
	var networks []string
	vports := map[string]string{} // record ID → vport ID
	var refusals []tenant.Vport
	d.Store.Feed().View(func(st *tenant.State) {
		for _, n := range st.Networks {
			if n.Host == d.Host {
				networks = append(networks, n.ID)
			}
		}
		st.Children(tenant.Key{Kind: tenant.KindHost, ID: d.Host}, tenant.KindVport, func(id string) {
			v := st.Vports[id]
			if of := ownerID(v.Owner); refused(v) {
				refusals = append(refusals, *v)
			} else if checkDockerID("endpoint", of) == nil {
				vports[of] = id
			}
		})
	})
	known, err := d.networks()
	if err != nil {
		return err
	}
	networks = slices.DeleteFunc(networks, func(id string) bool { return known[id] != nil })
	adopted := d.each(ctx, "network", networks, func(_ context.Context, id string) error {
		n, err := d.getNetwork(id) // which adopts it, if it still is there
		if err == nil && n != nil {
			r.Adopted = append(r.Adopted, "network "+short(id))
		}
		return err
	})
	return errors.Join(adopted, d.forgetRefusals(ctx, r, refusals), d.each(ctx, "endpoint", slices.Collect(maps.Keys(vports)), func(ctx context.Context, id string) error {
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
	if e.Vport.ID == "" {
		return nil // deleted meanwhile
	}
	host, _ := e.names()
	if e.Vport.Interface != host {
		return nil // not one of ours
	}
	there, err := d.Links.Has(host)
	if err != nil {
		return err
	}
	if !there {
		if err := d.Store.DeleteVport(ctx, vportID); err != nil {
			return err
		}
		if err := d.Store.ReleaseSubnet(ctx, e.Vport.SubnetID); err != nil && !errors.Is(err, tenant.ErrNotFound) {
			return err // its network may have gone before
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
		ours := ports[name][portEndpoint] != "" || ports[name][portContainer] != ""
		if !ours || wanted[name] || !strings.HasPrefix(name, "nu") {
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
