package driver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"nuage/controller/tenant"
)

// restore puts back the vport and the port of an endpoint.
func (d *Driver) restore(ctx context.Context, r *Report, e *endpoint) error {
	vport := d.restoreVport(ctx, r, e)
	var port error
	if _, there := d.Ports.Ports()[e.Vport.Interface]; !there {
		if port = d.Ports.EnsurePort(ctx, e.Vport.Interface, e.externalIDs()); port == nil {
			r.Restored = append(r.Restored, "port "+e.Vport.Interface)
		}
	}
	return errors.Join(vport, port)
}

// restoreVport gives an endpoint back the vport that the store has lost or that was freed
// with the whole host, if its address is still free.
func (d *Driver) restoreVport(ctx context.Context, r *Report, e *endpoint) error {
	if err := d.Store.Follow(ctx, e.Vport.DomainID); err != nil {
		return d.deletedUnder(e, err)
	}
	var have tenant.Vport
	d.Store.Feed().View(func(st *tenant.State) {
		if v := st.Vports[e.Vport.ID]; v != nil {
			have = *v
		}
	})
	if have.ID != "" && have.IPv4.IsValid() {
		return nil
	}
	_, err := d.Store.BindVport(ctx, e.Vport)
	switch {
	case errors.Is(err, tenant.ErrConflict):
		return d.close(ctx, r, e, have.Error, err)
	case err != nil:
		return d.deletedUnder(e, err)
	}
	r.Restored = append(r.Restored, "vport "+e.Vport.Name)
	return nil
}

// close leaves a vport without an address in the place of an endpoint's, which says why:
// no flow is ever made for its port. was is what the vport says already.
func (d *Driver) close(ctx context.Context, r *Report, e *endpoint, was string, cause error) error {
	v := e.Vport
	v.IPv4 = netip.Addr{}
	v.Error = fmt.Sprintf("%v: its container has no network any more, start it again", cause)
	if v.Error == was {
		return nil
	}
	if _, err := d.Store.BindVport(ctx, v); err != nil {
		return err
	}
	r.Closed = append(r.Closed, "vport "+v.Name)
	d.Log.WithFields(fields(e)).WithError(cause).Error("this host was given up and another vport has got the address: the container here is cut off, start it again")
	return nil
}

// deletedUnder says what to do about an endpoint whose subnet or domain is gone.
func (d *Driver) deletedUnder(e *endpoint, err error) error {
	if !errors.Is(err, tenant.ErrNotFound) {
		return err
	}
	return fmt.Errorf("its container has no network any more, for the subnet was deleted: %w", err)
}

// deleted says what to do about a network whose subnet is gone.
func (d *Driver) deleted(path tenant.PathSpec, err error) error {
	if !errors.Is(err, tenant.ErrNotFound) {
		return err
	}
	return fmt.Errorf("subnet %s of zone %s in domain %s was deleted under it, remove the network and create it again: %w", path.Subnet, path.Zone, path.Domain, err)
}
