package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	api "github.com/docker/go-plugins-helpers/ipam"
	"github.com/sirupsen/logrus"

	"nuage/controller/tenant"
)

// What Docker says in the options of a request.
const (
	requestType    = "RequestAddressType"
	gatewayType    = "com.docker.network.gateway"
	endpointMAC    = "com.docker.network.endpoint.macaddress"
	endpointName   = "com.docker.network.endpoint.name"
	storePatience  = 3 * time.Second
	storePoll      = 20 * time.Millisecond
	awayTime       = time.Second // how long a release waits for the store
	repetitionTime = 2 * time.Minute
)

// Store is what the driver needs of the tenant store beyond leases.
type Store interface {
	Leases
	// Ready is nil, or why the store cannot be used now; it wraps tenant.ErrUnavailable.
	Ready() error
	// EnsurePath finds a subnet, or makes what is missing if the spec says so.
	EnsurePath(context.Context, tenant.PathSpec) (tenant.Path, error)
	UpdateSubnet(context.Context, tenant.Subnet) (tenant.Subnet, error)
	// ReleaseSubnet removes a subnet that was made for a Docker network and that nothing uses.
	ReleaseSubnet(ctx context.Context, subnetID string) error
}

// Config is what a Driver needs.
type Config struct {
	Store   Store
	Records Records
	Host    string // the name of this host
	// Enterprise is the one of networks that name none.
	Enterprise string
	// Autocreate lets a pool request make a domain, zone and subnet that do not exist.
	Autocreate bool
	// Global is set where the network driver has scope global, for swarm.
	Global bool
	// Reservation and Rest default to the model's times, Now to the clock.
	Reservation, Rest time.Duration
	Now               func() time.Time
	Log               logrus.FieldLogger
}

// Driver answers the verbs of Docker's IPAM protocol. A verb may come twice, out of order
// and for what does not exist; what takes something away then succeeds. All methods end
// with their context, and are safe for concurrent use.
//
// A pool brings no domain to this host: what its networks need is in its record. An address
// does.
type Driver struct {
	*Allocator
	c     Config
	asked *asked
	owed  owed

	recordsMu sync.Mutex // one change of a record at a time
	claimMu   sync.Mutex // one claim at a time

	mu      sync.Mutex
	greeted time.Time                // when dockerd last began to talk to this driver
	unready time.Time                // since when the store has been away; zero while it is not
	made    map[string]tenant.Subnet // what was made for a pool request, by ID
}

// New makes a driver; it does nothing until asked.
func New(c Config) *Driver {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	return &Driver{
		Allocator: NewAllocator(AllocatorConfig{Store: c.Store, Host: c.Host, Reservation: c.Reservation, Rest: c.Rest, Now: c.Now}),
		c:         c,
		asked:     newAsked(c.Now),
		made:      map[string]tenant.Subnet{},
	}
}

// Capabilities is the answer to IpamDriver.GetCapabilities.
type Capabilities struct {
	// RequiresMACAddress makes engines choose the MAC before they ask for the address, so
	// that address and endpoint can be joined.
	RequiresMACAddress bool
	// RequiresRequestReplay makes engines repeat their pool and address requests when they
	// start. Repetitions change nothing that is as it should be.
	RequiresRequestReplay bool
}

// Capabilities also marks the time at which an engine that has just started repeats its
// requests.
func (d *Driver) Capabilities(context.Context) (*Capabilities, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.greeted = d.c.Now()
	return &Capabilities{RequiresMACAddress: true, RequiresRequestReplay: true}, nil
}

// DefaultAddressSpaces names one space twice, unless swarm needs two.
func (d *Driver) DefaultAddressSpaces(context.Context) (*api.AddressSpacesResponse, error) {
	global := SpaceLocal
	if d.c.Global {
		global = SpaceGlobal
	}
	return &api.AddressSpacesResponse{LocalDefaultAddressSpace: SpaceLocal, GlobalDefaultAddressSpace: global}, nil
}

// RequestPool finds the subnet that the options and the prefix mean, or makes it, and
// answers its prefix. Equal requests get equal answers.
//
// Errors: tenant.ErrInvalid for what can never be, ErrNotFound for what is not there and
// may not be made, ErrConflict for a contradiction with what is there or while another
// network with the same prefix is being made, ErrUnavailable.
func (d *Driver) RequestPool(ctx context.Context, req *api.RequestPoolRequest) (*api.RequestPoolResponse, error) {
	w, err := d.parse(req)
	if err != nil {
		return nil, err
	}
	rec, repeated, err := d.repetition(w)
	if err == nil && !repeated {
		rec, err = d.resolve(ctx, w)
	}
	if err != nil {
		return nil, err
	}
	if w.auto() && d.asked.looping(rec.ID) {
		return nil, tenant.Errorf(tenant.ErrConflict, "subnet %s (%s) overlaps a route or a nameserver of this host, so Docker does not accept it by itself: pass --subnet %s", rec.Options.Subnet, rec.CIDR, rec.CIDR)
	}
	if w.space == SpaceLocal { // otherwise no network follows
		err = d.expect(ctx, rec, repeated)
	}
	if err != nil {
		return nil, err
	}
	return &api.RequestPoolResponse{PoolID: rec.ID, Pool: rec.CIDR.String()}, nil
}

// expect records the pool for the network that will claim it, when it is its turn.
func (d *Driver) expect(ctx context.Context, rec PoolRecord, repeated bool) error {
	if err := d.asked.ask(ctx, rec.place(), rec.ID, repeated); err != nil {
		return err
	}
	rec.Requested = d.c.Now().UTC()
	err := d.change(rec.ID, func(r *PoolRecord) {
		rec.Networks, rec.Made = r.Networks, rec.Made || r.Made
		*r = rec
	})
	if err != nil {
		d.asked.withdraw(rec.place(), rec.ID)
	}
	return err
}

// ReleasePool forgets a pool that no network has claimed. The subnet stays, since it is the
// tenant's, unless it was made for the network that was then refused. An unknown pool is fine.
func (d *Driver) ReleasePool(ctx context.Context, req *api.ReleasePoolRequest) error {
	var was PoolRecord
	err := d.change(req.PoolID, func(r *PoolRecord) {
		if len(r.Networks) > 0 {
			return // Disclaim follows, or another network has the pool
		}
		d.asked.withdraw(r.place(), req.PoolID)
		if !d.asked.waits(r.place(), req.PoolID) {
			was, r.ID = *r, ""
		}
	})
	if err == nil && was.Made {
		d.unmake(ctx, was.SubnetID)
	}
	return err
}

// RequestAddress answers the gateway's address, or leases one: for an endpoint until it is
// bound, for an auxiliary address or swarm's manager until it is released. Errors are those
// of Allocate, and tenant.ErrNotFound for a pool whose subnet is gone.
func (d *Driver) RequestAddress(ctx context.Context, req *api.RequestAddressRequest) (*api.RequestAddressResponse, error) {
	id, err := parsePoolID(req.PoolID)
	if err != nil {
		return nil, err
	}
	d.asked.moved(req.PoolID)
	var want netip.Addr
	if req.Address != "" {
		if want, err = parseAddress(req.Address); err != nil {
			return nil, err
		}
	}
	mac := req.Options[endpointMAC]
	var addr netip.Prefix
	if req.Options[requestType] == gatewayType {
		addr, err = d.gateway(ctx, id, want)
	} else {
		addr, err = d.address(ctx, id, want, mac, req.Options[endpointName])
	}
	if err != nil {
		if mac == "" {
			d.abandon(req.PoolID)
		}
		return nil, err
	}
	return &api.RequestAddressResponse{Address: addr.String()}, nil
}

// address leases an address of a pool.
func (d *Driver) address(ctx context.Context, id poolID, want netip.Addr, mac, name string) (netip.Prefix, error) {
	r := Request{Want: want, Range: id.rng, Name: name, Swarm: d.c.Global, Repeated: d.starting()}
	if mac != "" {
		var err error
		if r.MAC, err = tenant.ParseMAC(mac); err != nil {
			return netip.Prefix{}, err
		}
	}
	switch {
	case !r.MAC.IsZero():
	case id.space == SpaceGlobal:
		r.Held = true
	case want.IsValid():
		// An auxiliary address of a new network; or, after a restart of the engine, any
		// address that one of its networks has.
		r.Use, r.Held = tenant.UseAuxiliary, true
	}
	sub, err := d.subnet(ctx, id)
	if err != nil {
		return netip.Prefix{}, err
	}
	var addr netip.Addr
	err = d.owed.forgive(ctx, d, release{id.domainID, id.subnetID, want}, func() (err error) {
		addr, err = d.Allocate(ctx, sub, r)
		return err
	})
	return netip.PrefixFrom(addr, sub.CIDR.Bits()), err
}

// abandon notes that the network for which a pool was requested will not be made. Where no
// network has the pool, ReleasePool says so.
func (d *Driver) abandon(pool string) {
	var r PoolRecord
	if ok, err := d.c.Records.Get(kindPool, pool, &r); err == nil && ok && len(r.Networks) > 0 {
		d.asked.withdraw(r.place(), pool)
	}
}

// ReleaseAddress gives back an address, see Allocator.Release. The gateway's, an unknown
// one, and one of an unknown pool are fine. While the store is away it is fine too, and
// Settle does the rest.
func (d *Driver) ReleaseAddress(ctx context.Context, req *api.ReleaseAddressRequest) error {
	id, err := parsePoolID(req.PoolID)
	if err != nil {
		return nil // nobody can have an address of it
	}
	addr, err := parseAddress(req.Address)
	if err != nil {
		return err
	}
	var r PoolRecord
	if ok, err := d.c.Records.Get(kindPool, req.PoolID, &r); err == nil && ok && r.Gateway == addr {
		return nil // it has no lease, and needs no domain looked at
	}
	away, cancel := context.WithTimeout(ctx, awayTime)
	defer cancel()
	if err = d.c.Store.Ready(); err == nil {
		err = d.release(away, id, addr)
	}
	if errors.Is(err, tenant.ErrUnavailable) {
		d.c.Log.WithError(err).WithField("address", addr.String()).Warn("the address is released later")
		return d.owed.note(d, release{id.domainID, id.subnetID, addr}, id.space)
	}
	return err
}

func (d *Driver) release(ctx context.Context, id poolID, addr netip.Addr) error {
	if err := d.c.Store.Follow(ctx, id.domainID); err != nil {
		if errors.Is(err, tenant.ErrNotFound) {
			return nil
		}
		return err
	}
	l := d.lease(id.subnetID, addr)
	if l.ID != "" && held(&l) && l.Use == tenant.UseEndpoint && id.space != SpaceGlobal {
		return nil // the node is done with it, the manager is not
	}
	return d.Release(ctx, id.subnetID, addr)
}

func parseAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return a, tenant.Errorf(tenant.ErrInvalid, "%q is not an IPv4 address", s)
	}
	return a, nil
}

// subnet is the subnet behind a pool, whose domain this host follows from now on.
func (d *Driver) subnet(ctx context.Context, id poolID) (sub tenant.Subnet, err error) {
	if err := d.ready(ctx); err != nil {
		return sub, err
	}
	switch err := d.c.Store.Follow(ctx, id.domainID); {
	case errors.Is(err, tenant.ErrNotFound):
		return sub, d.gone(id.String())
	case err != nil:
		return sub, err
	}
	d.c.Store.Feed().View(func(st *tenant.State) {
		if s := st.Subnets[id.subnetID]; s != nil {
			sub = *s
		}
	})
	if sub.ID == "" {
		return sub, d.gone(id.String())
	}
	return sub, nil
}

func (d *Driver) gone(pool string) error {
	name := "of pool " + pool
	var r PoolRecord
	if ok, err := d.c.Records.Get(kindPool, pool, &r); err == nil && ok {
		name = fmt.Sprintf("%s (%s) of zone %s in domain %s", r.Options.Subnet, r.CIDR, r.Options.Zone, r.Options.Domain)
	}
	return tenant.Errorf(tenant.ErrNotFound, "subnet %s no longer exists: remove the network and create it again", name)
}

// ready waits for the store, but only for a while after it went away: an engine that starts
// a hundred containers meanwhile gets a hundred errors soon.
func (d *Driver) ready(ctx context.Context) error {
	for {
		err := d.c.Store.Ready()
		d.mu.Lock()
		switch {
		case err == nil:
			d.unready = time.Time{}
		case d.unready.IsZero():
			d.unready = d.c.Now()
		}
		late := err != nil && d.c.Now().Sub(d.unready) >= storePatience
		d.mu.Unlock()
		if err == nil || late {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(storePoll):
		}
	}
}
