// Package vm makes vports of the virtual machines whose interfaces somebody else (libvirt,
// OpenStack, a script) puts on this host's bridge: what an interface's external IDs say is
// what there should be, the vports of this host in the store are what there is, and each
// round makes the second agree with the first. What became of an interface is written
// beside what its maker wrote.
//
// It never makes or removes a port, never touches one of the driver's, never takes an
// address from a machine on another host, and programs no flow.
package vm

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"nuage/controller/tenant"
	"nuage/ipam"
	"nuage/ovs"
)

// Store is the tenant store. Deleting what is unknown is nil.
type Store interface {
	Ready() error
	// Feed is the domains that this host follows.
	Feed() *tenant.Feed
	// Follow returns once Feed shows a domain.
	Follow(ctx context.Context, domainID string) error
	// Read is everything, as it is in the store now.
	Read(context.Context) (*tenant.State, error)
	EnsurePath(context.Context, tenant.PathSpec) (tenant.Path, error)
	EnsurePolicyGroups(ctx context.Context, domainID string, names []string, create bool) error
	// FindVport is the vport of an ID or external ID, wherever it is.
	FindVport(ctx context.Context, name string) (tenant.Vport, error)
	BindVport(context.Context, tenant.Vport) (tenant.Vport, error)
	UpdateVport(context.Context, tenant.Vport) (tenant.Vport, error)
	DeleteVport(ctx context.Context, id string) error
}

// Switch is the bridge; see ovs.Bridge.
type Switch interface {
	Status() ovs.Status
	Ports() map[string]ovs.Port
	Moved() <-chan struct{}
	Annotate(ctx context.Context, name string, ids map[string]string) error
}

// Addresses leases them; see ipam.Allocator.
type Addresses interface {
	Allocate(context.Context, tenant.Subnet, ipam.Request) (netip.Addr, error)
	Release(ctx context.Context, subnetID string, addr netip.Addr) error
}

// Flows is the agent. WaitProgrammed returns nil once the switch has a vport's flows.
type Flows interface {
	WaitProgrammed(ctx context.Context, vportID string) error
}

// Config is what a Watcher needs.
type Config struct {
	Host      string // this host's name in the store
	Store     Store
	Switch    Switch
	Addresses Addresses
	Flows     Flows

	Enterprise string // of machines that name none
	Autocreate bool   // make missing domains, zones and subnets
	// Refuse is asked at each attachment whether there is a reason against any; nil for none.
	Refuse func() error
	// Grace is how long a link may be gone from under its port before that counts as
	// removed; 10 s if 0.
	Grace time.Duration
	Log   logrus.FieldLogger
}

const (
	defaultGrace = 10 * time.Second
	// look is how often everything is looked at when nothing seems to have happened.
	look = 10 * time.Second
	// breath is between two rounds, for what comes in bursts.
	breath = 20 * time.Millisecond
	// attempt bounds what a round does for one machine, and wait how long of it the flows may
	// take.
	attempt = 10 * time.Second
	wait    = 5 * time.Second
	// atOnce is how many machines are attached at the same time.
	atOnce = 8
	// A machine that cannot be attached is tried again after firstPause, then twice as long,
	// up to lastPause; one that waits for another to leave, up to waitPause.
	firstPause = 250 * time.Millisecond
	waitPause  = time.Second
	lastPause  = 15 * time.Second
)

// Watcher is one loop; start it with Run. The other methods may be called from any
// goroutine, also before Run.
type Watcher struct {
	Config
	kick chan struct{}
	// surveyed is set once all is known that this host has of machines; Run's.
	surveyed bool

	mu       sync.Mutex
	gone     map[string]time.Time // since when a port has no link
	troubles map[string]*trouble  // by port
	settled  map[string]settled   // by port
	nowhere  map[string]string    // vports by port that tell an error and are in no subnet: the feed has them not
	declined map[string]refusal   // by vport, whose machine does not take its address
}

// refusal is an address that a machine has declined. It counts until then at least, however
// often the machine takes the address and declines it again: each change is written to the store.
type refusal struct {
	until time.Time
	taken bool // meanwhile
}

// holds is whether the refusal still counts.
func (r refusal) holds(now time.Time) bool { return !r.taken || now.Before(r.until) }

// declineHold is how long a refusal counts at least.
var declineHold = 30 * time.Second

// trouble is a machine that could not be attached.
type trouble struct {
	machine machine
	err     error
	pause   time.Duration
	next    time.Time
}

// New is a watcher that does nothing until Run.
func New(c Config) *Watcher {
	if c.Grace == 0 {
		c.Grace = defaultGrace
	}
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	return &Watcher{Config: c, kick: make(chan struct{}, 1), gone: map[string]time.Time{},
		troubles: map[string]*trouble{}, settled: map[string]settled{}, nowhere: map[string]string{}, declined: map[string]refusal{}}
}

// Run attaches and detaches machines until ctx ends, and returns nil then. What is attached
// stays.
func (w *Watcher) Run(ctx context.Context) error {
	changes := w.Store.Feed().Subscribe()
	defer changes.Close()
	for ctx.Err() == nil {
		moved := w.Switch.Moved()
		changes.Take()
		timer := time.NewTimer(w.round(ctx))
		select {
		case <-ctx.Done():
		case <-moved:
		case <-changes.C():
		case <-w.kick:
		case <-timer.C:
		}
		timer.Stop()
		select {
		case <-ctx.Done():
		case <-time.After(breath):
		}
	}
	return nil
}

// Told takes note that a vport's machine was given its address by DHCP, or declined it. It
// does not wait. What a container says is nothing.
func (w *Watcher) Told(vportID string, declined bool) {
	if declined && !w.machine(vportID) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r, known := w.declined[vportID]
	switch now := time.Now(); {
	case !known && !declined, known && r.holds(now) && r.taken == !declined: // nothing new, however often
		return
	case known && r.holds(now):
		r.taken = !declined
		w.declined[vportID] = r
	case declined:
		w.declined[vportID] = refusal{until: now.Add(declineHold)}
		w.Log.WithField("vport", vportID).Warn("a machine declines its address: it says that somebody else has it")
	default:
		delete(w.declined, vportID)
	}
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// machine is whether a vport is a machine's.
func (w *Watcher) machine(vportID string) (is bool) {
	w.Store.Feed().View(func(st *tenant.State) {
		v := st.Vports[vportID]
		is = v != nil && v.Type == tenant.VportVM
	})
	return is
}
