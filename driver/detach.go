package driver

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"nuage/controller/tenant"
	"nuage/driver/journal"
)

// Leave has nothing to do: the container's end went with its namespace, or comes back from
// it, and DeleteEndpoint follows.
func (d *Driver) Leave(context.Context, *LeaveRequest) error { return nil }

// DeleteEndpoint removes port and vport before it returns, and the veth pair right after:
// the kernel takes its time for that. An unknown endpoint is nil. While the store or the
// switch are away it is nil too, and Reconcile does the rest.
func (d *Driver) DeleteEndpoint(ctx context.Context, req *DeleteEndpointRequest) error {
	return d.detach(ctx, req.EndpointID)
}

func (d *Driver) detach(ctx context.Context, id string) error {
	ctx, cancel := begin(ctx, 0)
	defer cancel()
	unlock, err := d.locks.lock(ctx, "endpoint "+short(id))
	if err != nil {
		return err
	}
	defer unlock()
	e, err := d.getEndpoint(id)
	if err != nil || e == nil {
		return err
	}
	// Docker goes on whatever is answered, so a journal that cannot be written stops nothing:
	// an endpoint whose link is gone is removed by Reconcile.
	e.Made = false
	unwritten := d.putEndpoint(e)
	away, cancel := context.WithTimeout(ctx, awayTime)
	defer cancel()
	bridge, cancel := context.WithTimeout(ctx, d.patience())
	defer cancel()
	left := errors.Join(unwritten, d.unplug(away, bridge, e))
	if left != nil {
		d.Log.WithError(left).WithFields(fields(e)).Warn("the endpoint's removal is finished later")
	} else {
		d.Log.WithFields(fields(e)).Info("endpoint detached")
	}
	d.rest.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), itemTime)
		defer cancel()
		unlock, err := d.locks.lock(ctx, "endpoint "+short(id))
		if err != nil {
			return
		}
		defer unlock()
		// Docker may have sent the endpoint again meanwhile.
		if now, err := d.getEndpoint(id); err != nil || now == nil || now.Made {
			return
		}
		if left != nil { // on a busy host a little more time does
			left = d.unplug(ctx, ctx, e)
		}
		if err := d.unlink(e, left == nil); err != nil {
			d.Log.WithError(err).WithFields(fields(e)).Warn("the endpoint's removal is finished later")
		}
	})
	return nil
}

// patience is how long a removal waits for the switch. While that is away one of them waits:
// an engine that boots removes all that its containers had, one after the other.
func (d *Driver) patience() time.Duration {
	if d.Ports.Ready() == nil {
		d.waited.Store(false)
	} else if d.waited.Swap(true) {
		return goneTime
	}
	return awayTime
}

// unplug removes port and vport, with which the address begins to rest. The switch has a time
// of its own.
func (d *Driver) unplug(ctx, bridge context.Context, e *endpoint) error {
	var port, vport error
	var both errgroup.Group
	both.Go(func() error { port = d.Ports.DeletePort(bridge, e.Vport.Interface); return nil })
	both.Go(func() error {
		if vport = d.Store.DeleteVport(ctx, e.Vport.ID); vport == nil && e.direct() {
			vport = d.releaseSubnet(ctx, e.Vport.SubnetID)
		}
		return nil
	})
	both.Wait()
	return errors.Join(port, vport)
}

// releaseSubnet removes a subnet that came with a Docker network which is gone by now.
func (d *Driver) releaseSubnet(ctx context.Context, id string) error {
	var dockers bool
	d.Store.Feed().View(func(st *tenant.State) { dockers = st.Subnets[id] != nil && st.Subnets[id].DockerOwned })
	if !dockers {
		return nil
	}
	return d.Store.ReleaseSubnet(ctx, id)
}

// unlink removes the veth pair and, if nothing else is left, the record.
func (d *Driver) unlink(e *endpoint, last bool) error {
	if err := d.Links.Delete(e.Vport.Interface); err != nil || !last {
		return err
	}
	return d.Journal.Apply(journal.Drop(kindEndpoint, e.id()))
}

// removeEndpoint takes back all that an endpoint may have brought about, and its record.
// It is called with the endpoint's lock held, and may be repeated.
func (d *Driver) removeEndpoint(ctx context.Context, e *endpoint) error {
	err := d.unplug(ctx, ctx, e)
	if err == nil && e.Reserved { // and perhaps never bound
		err = d.IPAM.Release(ctx, e.Vport.SubnetID, e.Vport.IPv4)
	}
	return errors.Join(err, d.unlink(e, err == nil))
}
