// Package ovs keeps one bridge of Open vSwitch and offers it to the agent and the
// driver: its ports and their shaping over OVSDB, its flows and meters over OpenFlow, and
// what only ovs-vswitchd's control socket has. It keeps both connections and the bridge
// itself by itself, whatever fails, and never runs a program.
//
// It never decides which port or flow there should be, never touches another bridge
// or a port that it was not asked for by name, and never destroys a bridge with ports.
package ovs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"nuage/ovs/openflow"
)

// ErrUnavailable is wrapped by every error that says that Open vSwitch does not answer
// now: try again. The message names the socket and the remedy.
var ErrUnavailable = errors.New("unavailable")

// ErrNoPort is wrapped by the error of WaitPort for a port that is not on the bridge.
var ErrNoPort = errors.New("no such port")

// unavailable is an ErrUnavailable whose message is all words.
type unavailable string

func (u unavailable) Error() string        { return string(u) }
func (u unavailable) Is(target error) bool { return target == ErrUnavailable }

// The datapaths that Config.Datapath names.
const (
	Auto   = "auto"   // the kernel's datapath where ovs-vswitchd can open it, else netdev
	System = "system" // the kernel's
	Netdev = "netdev" // userspace
)

const notStarted = "not started"

var errStopped = errors.New("stopped")

const (
	firstPause = 20 * time.Millisecond // before the first attempt to connect again, then doubled
	lastPause  = 250 * time.Millisecond
	// patience is how long a call for a port waits for a connection that is being
	// restored, so that the restart of a daemon is not an error to the user.
	patience    = 2 * time.Second
	dialTimeout = 5 * time.Second
)

// Config is what a Bridge needs to know.
type Config struct {
	DB       string // unix socket of ovsdb-server
	RunDir   string // where BRIDGE.mgmt is; the folder of DB if empty
	Bridge   string
	Datapath string // Auto if empty
	// VTEP is this host's address on the underlay. While it is valid, the bridge has the
	// TunnelPort, which sends from it.
	VTEP netip.Addr
	// LinkOf is the name of the link of the host that has an address, "" if none; nil asks
	// the kernel. It is for a bridge in another network namespace than this process.
	LinkOf func(netip.Addr) (string, error)
	Log    logrus.FieldLogger
}

// Bridge is one bridge and the connections to it. All methods may be called from any
// goroutine, also before and without Run; they then answer ErrUnavailable.
type Bridge struct {
	conf     Config
	hwaddr   string        // for a bridge that has none yet
	repaired time.Time     // when keepDB last repaired the bridge; its goroutine's own
	changed  chan struct{} // see Changed
	redial   chan struct{} // the bridge may be there now: do not wait out the pause
	packets  chan openflow.PacketIn
	reown    chan struct{} // owners has changed

	mu      sync.Mutex
	session *session // nil while not connected
	view    view     // the last that was seen, also while not connected
	problem string   // what is wrong with the bridge that keep may not repair
	tunnel  Tunnel
	numbers numbers
	owners  map[uint16]string // see UseZones; never changed, nil before it is called
	moved   chan struct{}     // closed and replaced when anything under mu has changed
	db      Connection
	of      Connection
	conn    *openflow.Conn // nil while not connected
	epoch   uint64
}

// Connection is the state of one of the two connections.
type Connection struct {
	Socket    string
	Connected bool
	Error     string    // why not connected, in words
	Since     time.Time // of the present state
}

// Status is the state of the bridge, for people and for the agent.
type Status struct {
	OVSDB, OpenFlow Connection
	Bridge          string
	Datapath        string // what the bridge has; "" while it is not known
	Version         string // of Open vSwitch
	// Epoch counts the OpenFlow connections. A new one means that the flows that were
	// read before may be gone.
	Epoch uint64
	// Problem is what keeps the bridge from being as configured, in words; "" if nothing.
	Problem string
	Tunnel  Tunnel
}

// New returns a Bridge that does nothing until Run.
func New(conf Config) *Bridge {
	if conf.RunDir == "" {
		conf.RunDir = filepath.Dir(conf.DB)
	}
	if conf.Datapath == "" {
		conf.Datapath = Auto
	}
	if conf.Log == nil {
		conf.Log = logrus.StandardLogger()
	}
	if conf.LinkOf == nil {
		conf.LinkOf = linkOf
	}
	now := time.Now()
	b := &Bridge{conf: conf, hwaddr: randomMAC(), changed: make(chan struct{}, 1), redial: make(chan struct{}, 1),
		reown:   make(chan struct{}, 1),
		packets: make(chan openflow.PacketIn, packetBuffer), moved: make(chan struct{}),
		db: Connection{Socket: conf.DB, Error: notStarted, Since: now},
		of: Connection{Socket: filepath.Join(conf.RunDir, conf.Bridge+".mgmt"), Error: notStarted, Since: now}}
	if conf.VTEP.IsValid() {
		b.tunnel = Tunnel{Port: TunnelPort, Problem: notStarted}
	}
	return b
}

func randomMAC() string {
	mac := make(net.HardwareAddr, 6)
	rand.Read(mac)
	mac[0] = 0x02 // locally administered, unicast
	return mac.String()
}

// Run keeps the bridge and both connections until ctx ends, and then returns nil. What
// fails is logged once a cause and tried again; a setting that can never work is an
// error at once.
func (b *Bridge) Run(ctx context.Context) error {
	if err := b.conf.check(); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return b.keepDB(ctx) })
	group.Go(func() error { return b.keepOpenFlow(ctx) })
	group.Go(func() error { return b.keepTunnel(ctx) })
	group.Go(func() error { return b.keepZones(ctx) })
	if err := group.Wait(); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

func (c *Config) check() error {
	switch {
	case c.DB == "":
		return errors.New("bridge: no socket of ovsdb-server is configured")
	case c.Bridge == "":
		return errors.New("bridge: no name is configured")
	case len(c.Bridge) > 15:
		return fmt.Errorf("bridge %s: the name of a link has at most 15 characters", c.Bridge)
	case c.Datapath != Auto && c.Datapath != System && c.Datapath != Netdev:
		return fmt.Errorf("bridge %s: datapath %q is none of auto, system, netdev", c.Bridge, c.Datapath)
	case c.VTEP.IsValid() && !c.VTEP.Is4():
		return fmt.Errorf("bridge %s: VTEP %v is not an IPv4 address", c.Bridge, c.VTEP)
	}
	return nil
}

// Changed is ready when the ports or a connection have changed since it was last
// received from: look again at Ports and Status. Several changes may be one signal. It
// is one channel, for one receiver.
func (b *Bridge) Changed() <-chan struct{} { return b.changed }

// Status tells how the bridge is now.
func (b *Bridge) Status() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Status{OVSDB: b.db, OpenFlow: b.of, Bridge: b.conf.Bridge, Epoch: b.epoch, Problem: b.problem, Tunnel: b.tunnel}
	if b.view.root != nil {
		s.Version = b.view.root.Version
	}
	if b.view.bridge != nil {
		s.Datapath = b.view.bridge.datapath()
	}
	return s
}

// move wakes everybody who waits for a change. mu is held.
func (b *Bridge) move() {
	close(b.moved)
	b.moved = make(chan struct{})
	signal(b.changed)
}

// signal leaves one token in a channel of capacity one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// set notes the state of a connection and tells whether it has come or gone. The reason
// may change without that: the attempts to connect again fail in various ways.
func (c *Connection) set(connected bool, reason string) bool {
	news := c.Connected != connected || c.Error == notStarted
	if c.Connected, c.Error = connected, reason; news {
		c.Since = time.Now()
	}
	return news
}

// pause waits between two attempts: longer each time, or until wake or ctx's end.
type pause struct{ next time.Duration }

func (p *pause) wait(ctx context.Context, wake <-chan struct{}) {
	p.next = min(max(2*p.next, firstPause), lastPause)
	timer := time.NewTimer(p.next)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-timer.C:
	}
}
