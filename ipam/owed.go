package ipam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"nuage/controller/tenant"
)

const kindRelease = "releases"

// release names an address that is to be given back.
type release struct {
	DomainID string     `json:"domainID"`
	SubnetID string     `json:"subnetID"`
	Address  netip.Addr `json:"address"`
}

func (r release) key() string { return r.SubnetID + "/" + r.Address.String() }

// debt is the record of a release that could not be made when it was asked for.
type debt struct {
	release
	Space string    `json:"space"`
	Asked time.Time `json:"asked"`
}

// owed is the addresses that engines have given back while the store was away. The zero
// value is ready; it is safe for concurrent use.
type owed struct {
	mu   sync.Mutex
	keys map[string]bool // nil until read from the records
}

// load reads which releases are recorded. Called with o.mu held.
func (o *owed) load(d *Driver) error {
	if o.keys != nil {
		return nil
	}
	keys := map[string]bool{}
	err := d.c.Records.List(kindRelease, func(id string, _ []byte) error {
		keys[id] = true
		return nil
	})
	if err == nil {
		o.keys = keys
	}
	return err
}

// note records a release for Settle.
func (o *owed) note(d *Driver, r release, space string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.load(d); err != nil {
		return err
	}
	if err := d.c.Records.Put(kindRelease, r.key(), debt{r, space, d.c.Now().UTC()}); err != nil {
		return fmt.Errorf("address %s: %w", r.Address, err)
	}
	o.keys[r.key()] = true
	return nil
}

// forgive calls f, which leases the address, and then drops what is owed of it: its new
// user has the lease.
func (o *owed) forgive(ctx context.Context, d *Driver, r release, f func() error) error {
	o.mu.Lock()
	err := o.load(d)
	due := o.keys[r.key()]
	o.mu.Unlock()
	if err != nil || !due {
		return errors.Join(err, f())
	}
	done, err := d.turns.wait(ctx, r.key()) // it is not settled and given out at once
	if err != nil {
		return tenant.Errorf(tenant.ErrUnavailable, "address %s: an earlier release of it is being made", r.Address)
	}
	defer done()
	if err := f(); err != nil {
		return err
	}
	return o.drop(d, r)
}

func (o *owed) drop(d *Driver, r release) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := d.c.Records.Delete(kindRelease, r.key()); err != nil {
		return fmt.Errorf("address %s: %w", r.Address, err)
	}
	delete(o.keys, r.key())
	return nil
}

// Settle gives back the addresses that could not be when engines released them. One that
// was leased anew since then stays. Call it when the store is back; what cannot be settled
// now is an error, and is tried again by the next call.
func (d *Driver) Settle(ctx context.Context) error {
	var debts []debt
	err := d.c.Records.List(kindRelease, func(id string, value []byte) error {
		var one debt
		if err := json.Unmarshal(value, &one); err != nil {
			return fmt.Errorf("release %s: %w", id, err)
		}
		debts = append(debts, one)
		return nil
	})
	errs := []error{err}
	for _, one := range debts {
		errs = append(errs, d.settle(ctx, one))
	}
	return errors.Join(errs...)
}

func (d *Driver) settle(ctx context.Context, one debt) error {
	done, err := d.turns.wait(ctx, one.key())
	if err != nil {
		return fmt.Errorf("release %s: %w", one.key(), err)
	}
	defer done()
	// Meanwhile it may have been forgiven.
	if ok, err := d.c.Records.Get(kindRelease, one.key(), new(debt)); err != nil || !ok {
		return err
	}
	if err := d.c.Store.Follow(ctx, one.DomainID); err != nil && !errors.Is(err, tenant.ErrNotFound) {
		return fmt.Errorf("release %s: %w", one.key(), err)
	}
	if l := d.lease(one.SubnetID, one.Address); l.ID != "" && !l.Updated.After(one.Asked) {
		id := poolID{space: one.Space, domainID: one.DomainID, subnetID: one.SubnetID}
		if err := d.release(ctx, id, one.Address); err != nil {
			return fmt.Errorf("release %s: %w", one.key(), err)
		}
	}
	return d.owed.drop(d, one.release)
}
