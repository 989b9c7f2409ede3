// Package driver is the network driver of Docker's plugin protocol: networks are bound to
// tenant subnets, endpoints become vports with a veth on the bridge. Every effect is
// journalled before it happens, so that whatever dies in between is finished or undone
// later.
//
// A container that Docker gives no network is attached by the same means, and then the link
// is put into it, which Docker does otherwise.
//
// It never calls Docker, never decides what a packet may do, and programs no flow: it
// writes tenant state and waits until that is programmed.
package driver

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"nuage/controller/tenant"
	"nuage/driver/journal"
	"nuage/driver/link"
	"nuage/ipam"
)

// Store is the tenant store. Deleting what is unknown is nil.
type Store interface {
	Ready() error
	// Feed is the domains that this host follows, and its own networks.
	Feed() *tenant.Feed
	// Follow returns once Feed shows a domain; tenant.ErrNotFound if there is none.
	Follow(ctx context.Context, domainID string) error
	// Read is everything, as it is in the store now.
	Read(context.Context) (*tenant.State, error)
	EnsurePath(context.Context, tenant.PathSpec) (tenant.Path, error)
	// EnsurePolicyGroups makes the groups that are missing, or refuses them by name.
	EnsurePolicyGroups(ctx context.Context, domainID string, names []string, create bool) error
	ReleaseSubnet(ctx context.Context, subnetID string) error
	PutNetwork(context.Context, tenant.Network) error
	DeleteNetwork(ctx context.Context, id string) error
	BindVport(context.Context, tenant.Vport) (tenant.Vport, error)
	UpdateVport(context.Context, tenant.Vport) (tenant.Vport, error)
	DeleteVport(ctx context.Context, id string) error
}

// Switch is the bridge. Ensuring what is there and deleting what is not are nil.
type Switch interface {
	// Ready is nil while Ports is the truth and a port can be made.
	Ready() error
	// EnsurePort does not wait for the switch to use the port.
	EnsurePort(ctx context.Context, name string, externalIDs map[string]string) error
	DeletePort(ctx context.Context, name string) error
	// Ports are the external IDs of all ports by name, as last seen.
	Ports() map[string]map[string]string
	// Offload tells whether containers may leave checksums to the datapath.
	Offload() bool
}

// Flows is the agent. WaitProgrammed returns nil once the switch uses a vport's port and
// has confirmed its flows.
type Flows interface {
	WaitProgrammed(ctx context.Context, vportID string) error
}

// IPAM is the IPAM driver; see ipam.Driver.
type IPAM interface {
	Claim(context.Context, ipam.Network) (ipam.PoolRecord, error)
	Keep(context.Context, ipam.PoolRecord) error
	Forgo(space string, cidr netip.Prefix)
	Disclaim(ctx context.Context, networkID string) error
	Allocate(context.Context, tenant.Subnet, ipam.Request) (netip.Addr, error)
	Release(ctx context.Context, subnetID string, addr netip.Addr) error
	Settle(context.Context) error
}

// Links makes veth pairs; see link.Links.
type Links interface {
	Create(context.Context, link.Spec) error
	Move(context.Context, link.Inside) (string, error)
	Delete(name string) error
	List() ([]string, error)
	Has(name string) (bool, error)
}

// Journal keeps records durably; see journal.Journal.
type Journal interface {
	Apply(...journal.Op) error
	Get(kind, id string, v any) (bool, error)
	List(kind string, f func(id string, value []byte) error) error
}

// Config is what a Driver needs. All but the settings and Log must be given.
type Config struct {
	Host    string // this host's name in the store
	Store   Store
	IPAM    IPAM
	Ports   Switch
	Flows   Flows
	Links   Links
	Journal Journal

	Enterprise string // of networks that name none
	Autocreate bool   // make missing domains, zones, subnets and policy groups
	Scope      string // "local" (default) or "global"
	MTU        int    // of networks that name none; 0: as MaxMTU allows
	// MaxMTU is what the underlays of all hosts leave a container now; it is asked at every
	// attachment. Nil or 0: not known, and then nothing is refused.
	MaxMTU func() int
	// Problem is asked why Attach attaches nothing new; nil if it may.
	Problem func() error
	Log     logrus.FieldLogger
}

// DefaultMTU leaves VXLAN over IPv4 its 50 bytes of the usual 1500, for who knows nothing
// of the underlay.
const DefaultMTU = 1450

const (
	// verbTime bounds a verb that comes without a deadline.
	verbTime = 9 * time.Second
	// undoTime is what an attaching verb leaves of its time for undoing.
	undoTime = 1500 * time.Millisecond
	// awayTime is how long a detaching verb waits for a store or a switch that is away. What
	// is not done by then is done by Reconcile.
	awayTime = time.Second
	// goneTime is the same for the switch when one has waited in vain.
	goneTime = 20 * time.Millisecond
	// itemTime bounds what Reconcile does for one network or endpoint: verbs wait for it.
	itemTime = 3 * time.Second
)

// Driver answers the verbs. All methods are safe for concurrent use: calls for one network
// or endpoint pass one after the other, calls for different ones at once. A verb ends at
// its context's deadline, but is not ended by its cancellation: Docker repeats a broken
// call without its contents, so what was begun is finished.
type Driver struct {
	Config
	locks locks
	// rest is what verbs leave to be done after their answer.
	rest sync.WaitGroup
	// waited is set while the switch is away and a removal has waited for it.
	waited atomic.Bool
	// surveyed is set once this process has seen all vports of its host.
	surveyed atomic.Bool
}

// New makes a driver; it does nothing until called.
func New(c Config) *Driver {
	if c.Scope == "" {
		c.Scope = "local"
	}
	if c.Log == nil {
		c.Log = logrus.StandardLogger()
	}
	if c.Problem == nil {
		c.Problem = func() error { return nil }
	}
	return &Driver{Config: c, locks: locks{held: map[string]chan struct{}{}}}
}

// Wait returns when everything that verbs left to be done after their answer has ended.
// Call it before closing the journal; if the process dies instead, Reconcile does the rest.
func (d *Driver) Wait() { d.rest.Wait() }

// begin is the context of a verb: the caller's deadline, but not its cancellation.
func begin(ctx context.Context, reserve time.Duration) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(verbTime)
	}
	reserve = max(0, min(reserve, time.Until(deadline)/4)) // of a short time too, something is for doing
	ctx = context.WithValue(context.WithoutCancel(ctx), deadlineKey{}, deadline)
	return context.WithDeadline(ctx, deadline.Add(-reserve))
}

// deadlineKey is where begin notes the deadline of the whole verb.
type deadlineKey struct{}

// undoing is the context of undoing what a verb has begun: what it has reserved for that.
func undoing(ctx context.Context) (context.Context, context.CancelFunc) {
	end := time.Now().Add(undoTime)
	if deadline, ok := ctx.Value(deadlineKey{}).(time.Time); ok && deadline.Before(end) {
		end = deadline
	}
	return context.WithDeadline(context.WithoutCancel(ctx), end)
}

// locks lets one caller at a time pass for each key.
type locks struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when let go
}

// lock waits for the key until ctx ends.
func (l *locks) lock(ctx context.Context, key string) (func(), error) {
	for {
		unlock, busy := l.try(key)
		if unlock != nil {
			return unlock, nil
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, tenant.Errorf(tenant.ErrUnavailable, "%s: an earlier call for it is still being worked on", key)
		}
	}
}

// try returns the key's unlock function, or what is closed when it is worth trying again.
func (l *locks) try(key string) (func(), <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if busy := l.held[key]; busy != nil {
		return nil, busy
	}
	mine := make(chan struct{})
	l.held[key] = mine
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.held, key)
		close(mine)
	}, nil
}

// short is how an ID of Docker is written for people.
func short(id string) string { return fmt.Sprintf("%.12s", id) }
