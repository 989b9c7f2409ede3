package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"nuage/controller/tenant"
)

// Leases is what the allocator needs of the store. A write returns once Feed shows it; one
// that is based on what changed meanwhile is tenant.ErrStale, and Feed shows that as well.
type Leases interface {
	// Feed is the domains that this host follows, and its own networks.
	Feed() *tenant.Feed
	// Follow returns once Feed shows a domain; tenant.ErrNotFound if there is none.
	Follow(ctx context.Context, domainID string) error
	// Read is everything, as it is in the store now.
	Read(context.Context) (*tenant.State, error)
	PutLease(context.Context, tenant.Lease) (tenant.Lease, error)
	DeleteLease(context.Context, tenant.Lease) error
}

// AllocatorConfig is what an Allocator needs. The times default to the model's.
type AllocatorConfig struct {
	Store Leases
	Host  string // the name of this host
	// Reservation is how long an address waits to be bound, Rest how long a released one
	// waits for reuse.
	Reservation, Rest time.Duration
	Now               func() time.Time
}

// Allocator gives out the addresses of subnets. An address belongs to whoever's lease the
// store accepted, so that any number of hosts may allocate at once: the one that comes
// second looks again. It is safe for concurrent use.
type Allocator struct {
	AllocatorConfig

	mu      sync.Mutex
	sub     *tenant.Subscription
	subnets map[string]*ledger
	virtual map[string]virtual // by the ID of the vport
	turns   turns
}

// NewAllocator makes an allocator; it does nothing until asked.
func NewAllocator(c AllocatorConfig) *Allocator {
	if c.Reservation == 0 {
		c.Reservation = tenant.ReservationTime
	}
	if c.Rest == 0 {
		c.Rest = tenant.RestTime
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Allocator{AllocatorConfig: c, sub: c.Store.Feed().Subscribe(), subnets: map[string]*ledger{}, virtual: map[string]virtual{}, turns: turns{held: map[string]chan struct{}{}}}
}

// Request says which address is asked for, and for whom.
type Request struct {
	// MAC is the interface that will have the address; zero if Docker does not say.
	MAC tenant.MAC
	// Want is the address asked for by name. Without it the allocator chooses, out of
	// Range if that is valid.
	Want  netip.Addr
	Range netip.Prefix
	// Use is tenant.UseEndpoint, which is the default, or tenant.UseAuxiliary.
	Use string
	// Name is what Docker calls the endpoint, where it says so.
	Name string
	// Held leases stay until released. The others lapse unless a vport binds them.
	Held bool
	// Swarm is set where swarm's manager decides over addresses: what it holds may be
	// asked for again, by itself and by the node that runs the task.
	Swarm bool
	// Repeated is set while an engine that has just started repeats all that it has asked
	// for, of which it does not say what it is for.
	Repeated bool
}

// Allocate leases an address of the subnet. A MAC that asks again gets the address that it
// has reserved, or that it had and that rests, so repeating a call is harmless; a MAC that
// a vport uses in this subnet is refused. An address asked for by name may be resting, but
// not somebody else's. Without MAC, an address that this host has a lease of is a
// success: so engines repeat their requests after a restart. Only then can an auxiliary
// address be one that an endpoint has.
//
// Errors: tenant.ErrInvalid for an address that the subnet cannot give, ErrConflict for
// one in use, naming by whom, ErrExhausted, ErrUnavailable.
func (a *Allocator) Allocate(ctx context.Context, sub tenant.Subnet, req Request) (netip.Addr, error) {
	if req.Use == "" {
		req.Use = tenant.UseEndpoint
	}
	if err := checkRequest(&sub, req); err != nil {
		return netip.Addr{}, err
	}
	// One at a time a subnet: otherwise all that come together would try the same address.
	done, err := a.turns.wait(ctx, sub.ID)
	if err != nil {
		return netip.Addr{}, tenant.Errorf(tenant.ErrUnavailable, "subnet %s: no address within the time allowed: %v", sub.Name, err)
	}
	defer done()
	if err := a.Store.Follow(ctx, sub.DomainID); err != nil {
		return netip.Addr{}, fmt.Errorf("subnet %s: %w", sub.Name, err)
	}
	for {
		p, err := a.plan(&sub, req)
		if err != nil && a.outdated(ctx, p.against) {
			continue
		}
		if err != nil {
			return netip.Addr{}, err
		}
		if p.have {
			return p.lease.Address, nil
		}
		_, err = a.Store.PutLease(ctx, p.lease)
		switch {
		case err == nil:
			a.took(sub.ID, p)
			return p.lease.Address, nil
		case !errors.Is(err, tenant.ErrStale) || ctx.Err() != nil:
			return netip.Addr{}, err
		}
	}
}

func checkRequest(sub *tenant.Subnet, req Request) error {
	if !req.Want.IsValid() {
		return nil
	}
	switch err := tenant.ValidateAddress(sub.CIDR, req.Want); {
	case !sub.CIDR.Contains(req.Want):
		return tenant.Errorf(tenant.ErrInvalid, "address %s is not in subnet %s (%s)", req.Want, sub.Name, sub.CIDR)
	case err != nil:
		return tenant.Errorf(tenant.ErrInvalid, "subnet %s: %v", sub.Name, err)
	case req.Want == sub.Gateway:
		return tenant.Errorf(tenant.ErrConflict, "address %s is the gateway of subnet %s", req.Want, sub.Name)
	}
	return nil
}

// plan is what one look at the state proposes.
type plan struct {
	lease tenant.Lease // to put, if not had already
	have  bool
	auto  bool // the address was the allocator's choice
	span  span
	// against is the lease of another that stands in the way.
	against tenant.Lease
}

// outdated tells whether a lease that stands in the way is no longer what the store has;
// the feed then shows what it has. The vport may have left another host just now, and the
// feed be a moment behind. What a vport has is never overwritten.
func (a *Allocator) outdated(ctx context.Context, l tenant.Lease) bool {
	if l.VportID == "" {
		return false
	}
	l.VportID = ""
	_, err := a.Store.PutLease(ctx, l)
	return errors.Is(err, tenant.ErrStale) && ctx.Err() == nil
}

func (a *Allocator) plan(sub *tenant.Subnet, req Request) (p plan, err error) {
	p.span = usable(sub, req.Range)
	a.view(func(st *tenant.State) {
		l, now := a.ledger(sub.ID), a.Now().UTC()
		want := req.Want
		if !want.IsValid() {
			if want, err = own(st, l, sub, req, p.span, now); err != nil {
				p.against = *st.Leases[tenant.LeaseID(sub.ID, want.String())]
				return
			}
		}
		if p.auto = !want.IsValid(); p.auto {
			var ok bool
			if want, ok = l.next(p.span, now); !ok {
				err = exhausted(sub, l, p.span)
				return
			}
		}
		old := st.Leases[tenant.LeaseID(sub.ID, want.String())]
		if old != nil && !lapsed(old, now) && !p.auto {
			if p.have, err = a.admits(st, sub, old, req); err != nil || p.have {
				p.lease, p.against = *old, *old
				return
			}
		}
		p.lease = a.leaseFor(sub, want, req, now)
		if old != nil {
			p.lease.Meta = old.Meta
		}
	})
	return p, err
}

func (a *Allocator) leaseFor(sub *tenant.Subnet, addr netip.Addr, req Request, now time.Time) tenant.Lease {
	l := tenant.Lease{
		Meta:     tenant.Meta{ID: tenant.LeaseID(sub.ID, addr.String())},
		DomainID: sub.DomainID, SubnetID: sub.ID, Address: addr,
		State: tenant.LeaseReserved, MAC: req.MAC, Host: a.Host, Use: req.Use, Name: req.Name,
		Expires: now.Add(a.Reservation),
	}
	if req.Held {
		l.State, l.Expires = tenant.LeaseBound, time.Time{}
	}
	return l
}

// Release gives back an address that this host leased and no vport uses. A reservation
// is free at once, since nobody has had the address; one that was held rests. What a
// vport has goes when the vport goes, and an auxiliary address when no network sets it
// aside any more; those, an address of another host, one without a lease and one of a
// domain that is not followed are a success in which nothing happens. Repeating it is fine.
func (a *Allocator) Release(ctx context.Context, subnetID string, addr netip.Addr) error {
	for {
		lease := a.lease(subnetID, addr)
		if lease.ID == "" || lease.Host != a.Host || lease.VportID != "" || lease.State == tenant.LeaseResting {
			return nil
		}
		if lease.Use == tenant.UseAuxiliary {
			if aside, err := a.setAside(ctx, subnetID, addr, ""); err != nil || aside {
				return err
			}
		}
		err := a.drop(ctx, lease)
		if err == nil || !errors.Is(err, tenant.ErrStale) || ctx.Err() != nil {
			return err
		}
	}
}

// lease is an address's lease as the feed shows it; without an ID if it shows none.
func (a *Allocator) lease(subnetID string, addr netip.Addr) (lease tenant.Lease) {
	a.Store.Feed().View(func(st *tenant.State) {
		if l := st.Leases[tenant.LeaseID(subnetID, addr.String())]; l != nil {
			lease = *l
		}
	})
	return lease
}

func (a *Allocator) drop(ctx context.Context, lease tenant.Lease) error {
	if lease.State == tenant.LeaseBound && lease.Use == tenant.UseEndpoint {
		lease.State, lease.Expires = tenant.LeaseResting, a.Now().UTC().Add(a.Rest)
		_, err := a.Store.PutLease(ctx, lease)
		return err
	}
	return a.Store.DeleteLease(ctx, lease)
}

// setAside tells whether a network on the subnet, other than one of this host's, has an
// auxiliary address. The feed would not do: it has only this host's networks.
func (a *Allocator) setAside(ctx context.Context, subnetID string, addr netip.Addr, other string) (found bool, err error) {
	st, err := a.Store.Read(ctx)
	if err != nil {
		return false, err
	}
	for _, n := range st.Networks {
		found = found || n.SubnetID == subnetID && !(n.ID == other && n.Host == a.Host) && slices.Contains(n.Auxiliary, addr)
	}
	return found, nil
}

// view calls f with the state, when the ledgers agree with it.
func (a *Allocator) view(f func(*tenant.State)) {
	a.Store.Feed().View(func(st *tenant.State) {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, k := range a.sub.Take() {
			switch k.Kind {
			case tenant.KindLease:
				a.look(st, k.ID)
			case tenant.KindVport:
				a.reserve(st.Vports[k.ID], k.ID)
			case tenant.KindSubnet:
				if st.Subnets[k.ID] == nil {
					delete(a.subnets, k.ID)
				}
			}
		}
		f(st)
	})
}

func (a *Allocator) look(st *tenant.State, leaseID string) {
	if l := st.Leases[leaseID]; l != nil {
		a.ledger(l.SubnetID).set(l)
		return
	}
	subnetID, text, _ := strings.Cut(leaseID, "/")
	if addr, err := netip.ParseAddr(text); err == nil && addr.Is4() && a.subnets[subnetID] != nil {
		a.subnets[subnetID].remove(addr)
	}
}

// ledger is called with a.mu held.
func (a *Allocator) ledger(subnetID string) *ledger {
	l := a.subnets[subnetID]
	if l == nil {
		l = newLedger()
		a.subnets[subnetID] = l
	}
	return l
}

func (a *Allocator) took(subnetID string, p plan) {
	if !p.auto {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ledger(subnetID).chosen(p.span, p.lease.Address)
}
