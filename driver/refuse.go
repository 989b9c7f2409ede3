package driver

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"nuage/controller/tenant"
	"nuage/driver/journal"
)

// Refuse tells in the store why a container is not attached: by a vport without address
// that says so, in the subnet that the container means, or in none where that does not
// exist. The same again changes nothing. Attach and Detach take it back.
func (d *Driver) Refuse(ctx context.Context, c Direct, cause error) error {
	ctx, cancel := begin(ctx, 0)
	defer cancel()
	unlock, err := d.locks.lock(ctx, "endpoint "+short(c.ContainerID))
	if err != nil {
		return err
	}
	defer unlock()
	if err := d.refuse(ctx, &c, cause); err != nil {
		return fmt.Errorf("container %s: %w", c.ContainerName, err)
	}
	return nil
}

func (d *Driver) refuse(ctx context.Context, c *Direct, cause error) error {
	path, err := d.Store.EnsurePath(ctx, c.spec(d))
	if errors.Is(err, tenant.ErrUnavailable) {
		return err
	}
	v, err := d.refusal(c.ContainerID)
	if err != nil {
		return err
	}
	if v != nil && v.SubnetID != path.Subnet.ID {
		if err := d.Store.DeleteVport(ctx, v.ID); err != nil {
			return err
		}
		v = nil
	}
	if v == nil {
		v = &tenant.Vport{Meta: tenant.Meta{ID: uuid.NewString()}, DomainID: path.Domain.ID, ZoneID: path.Zone.ID, SubnetID: path.Subnet.ID,
			Type: tenant.VportContainer, Host: d.Host, PolicyGroups: c.PolicyGroups, User: c.User}
		if path.Subnet.ID == "" {
			v.DomainID, v.ZoneID = "", ""
		}
	}
	v.Name, v.Owner, v.Error = c.vportName(), c.owner(), fmt.Sprintf("%.500s", cause)
	if err := d.Journal.Apply(journal.Set(kindRefusal, c.ContainerID, v)); err != nil {
		return err
	}
	_, err = d.Store.BindVport(ctx, *v)
	return err
}

// refusal is the vport that Refuse has made for a container, nil if there is none.
func (d *Driver) refusal(containerID string) (*tenant.Vport, error) {
	v := new(tenant.Vport)
	if ok, err := d.Journal.Get(kindRefusal, containerID, v); err != nil || !ok {
		return nil, err
	}
	return v, nil
}

// Refused are the vports that tell of containers which name no subnet that exists: such a
// vport is in no domain, so that no state that a host follows has it.
func (d *Driver) Refused() (nowhere []tenant.Vport, err error) {
	told, err := records[tenant.Vport](d.Journal, kindRefusal)
	for _, v := range told {
		if v.SubnetID == "" {
			nowhere = append(nowhere, *v)
		}
	}
	return nowhere, err
}

// forget takes back what Refuse has told.
func (d *Driver) forget(ctx context.Context, containerID string) error {
	v, err := d.refusal(containerID)
	if err != nil || v == nil {
		return err
	}
	if err := d.Store.DeleteVport(ctx, v.ID); err != nil {
		return err
	}
	return d.Journal.Apply(journal.Drop(kindRefusal, containerID))
}

// refused tells a vport of Refuse's from others.
func refused(v *tenant.Vport) bool {
	return v.Owner.EndpointID == "" && v.Owner.ContainerID != "" && v.Interface == "" && v.Error != ""
}

// forgetRefusals removes vports of Refuse's that the journal has lost. The record comes
// before the vport, and the vports are looked at before the records.
func (d *Driver) forgetRefusals(ctx context.Context, r *Report, vports []tenant.Vport) error {
	var errs []error
	for _, v := range vports {
		known, err := d.refusal(v.Owner.ContainerID)
		if err == nil && (known == nil || known.ID != v.ID) {
			if err = d.Store.DeleteVport(ctx, v.ID); err == nil {
				r.Removed = append(r.Removed, "vport "+v.Name)
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
