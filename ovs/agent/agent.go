// Package agent keeps the flows of one host's bridge equal to what the tenant state and
// the bridge's ports call for: it watches both, recompiles what a change touches, and
// programs the difference; it reads the switch back and repairs drift. It keeps the ways to
// other hosts warm, and answers the packets that flows send to it.
//
// It never decides what a flow should be (package pipeline does), never writes tenant
// state, never makes a port, and never removes the last good flows because something
// that it needs is away.
package agent

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"nuage/controller/tenant"
	"nuage/ovs"
	"nuage/ovs/flow"
	"nuage/ovs/openflow"
	"nuage/ovs/pipeline"
)

// Switch is the bridge that is programmed: an *ovs.Bridge.
type Switch interface {
	Ports() map[string]ovs.Port
	// Changed is ready when ports or connections changed. The agent is its one receiver.
	Changed() <-chan struct{}
	Status() ovs.Status
	WaitPort(ctx context.Context, name string) (ovs.Port, error)
	Flows(ctx context.Context, filter ovs.FlowFilter) ([]flow.Stats, error)
	// Apply does all of the difference or nothing. An *openflow.Error in its error means
	// that the switch looked at it and refused.
	Apply(ctx context.Context, d flow.Diff) error
	// Meters, and what they have dropped; SetMeter changes one in place, DeleteMeter deletes
	// the flows that use it too.
	Meters(ctx context.Context) ([]openflow.Meter, error)
	MeterStats(ctx context.Context) ([]openflow.MeterStats, error)
	SetMeter(ctx context.Context, m openflow.Meter) error
	DeleteMeter(ctx context.Context, id uint32) error
	// ConntrackLimits bound the connections of zones; 0 is none.
	ConntrackLimits(ctx context.Context) (map[uint16]ovs.ConntrackLimit, error)
	SetConntrackLimit(ctx context.Context, zone uint16, limit uint32) error
	// UseZones says which zones flows use, and whose each is.
	UseZones(owners map[uint16]string)
	// SetShaping bounds what a port sends to its link, and returns when that is in force.
	SetShaping(ctx context.Context, port string, s ovs.Shape) error
	ClearShaping(ctx context.Context, port string) error
	// PacketIns are the packets that flows send here. The agent is their one receiver.
	PacketIns() <-chan openflow.PacketIn
	PacketOut(ctx context.Context, actions []flow.Action, packet []byte) error
}

// Config is what an Agent needs.
type Config struct {
	Host   string // name of this host, as vports name it
	Feed   *tenant.Feed
	Switch Switch
	Log    logrus.FieldLogger
	// DHCP is what vports are told that ask.
	DHCP DHCP
	// ConntrackLimit is how many connections each domain may have here; 0 is any number.
	ConntrackLimit uint32
	// Readback is how often all flows are read back and drift is repaired; a minute if 0.
	Readback time.Duration
}

const (
	defaultReadback = time.Minute
	firstPause      = 50 * time.Millisecond // after a failure, then doubled
	lastPause       = 2 * time.Second
	// patience bounds one exchange with the switch, so that one that hangs is a failure.
	patience = 10 * time.Second
)

// Status is how far the agent is.
type Status struct {
	// Revision is the state's revision that is programmed in full, but for Refused.
	Revision int64
	// Err is why the switch is not up to date; nil if it is. The last good flows stay.
	Err error
	// Flows is how many flows the switch has, as last known.
	Flows int
	// Notes say of objects why they have no flows.
	Notes map[tenant.Key]string
	// Refused are the objects whose flows the switch refused, with its words.
	Refused map[tenant.Key]error
	// Readback is when all flows were last read back; Repaired is how many flows have
	// been found missing, wrong or foreign by it, since the start and but for the first
	// reading of a connection.
	Readback time.Time
	Repaired int
	// Tunnel is what the switch says of the way to other hosts.
	Tunnel ovs.Tunnel
}

// Agent is one loop; start it with Run. The other methods may be called from any
// goroutine, also before Run.
type Agent struct {
	conf  Config
	kick  chan struct{}
	epoch uint64 // of the connection whose flows were read back; Run's alone
	seen  bool   // the ports, at least once; Run's alone

	counting *counting

	mu         sync.Mutex
	compiler   *pipeline.Compiler
	compiled   int64                 // the state's revision that the compiler has seen
	programmed flow.Set              // what the switch has, as last known
	suspect    bool                  // what is known of the switch is to be read back
	pending    map[flow.Key]struct{} // identities that may differ between desired and programmed
	refused    map[tenant.Key]error  // objects left out until they change or are read back
	has        equipment
	shapes     map[string]shaped // by port
	meterless  bool              // the switch has no meters for what flows show here
	status     Status            // without maps
	begun      uint64            // rounds of the loop
	done       uint64            // the last round that is over
	moved      chan struct{}     // closed and replaced after each round
}

// New is an agent that does nothing until Run.
func New(conf Config) *Agent {
	if conf.Readback == 0 {
		conf.Readback = defaultReadback
	}
	if conf.Log == nil {
		conf.Log = logrus.StandardLogger()
	}
	return &Agent{
		conf:       conf,
		kick:       make(chan struct{}, 1),
		compiler:   pipeline.NewCompiler(conf.Host),
		programmed: flow.Set{},
		pending:    map[flow.Key]struct{}{},
		refused:    map[tenant.Key]error{},
		has:        equipment{refused: map[openflow.Meter]bool{}, ours: map[uint16]struct{}{}},
		shapes:     map[string]shaped{},
		counting:   newCounting(),
		status:     Status{Err: fmt.Errorf("agent: not started")},
		moved:      make(chan struct{}),
	}
}

// Run programs the switch until ctx ends, and returns nil then. The flows stay as they
// are: a stopped agent changes nothing. Call it once.
func (a *Agent) Run(ctx context.Context) error {
	changes := a.conf.Feed.Subscribe()
	defer changes.Close()
	readback := time.NewTicker(a.conf.Readback)
	defer readback.Stop()
	retry := time.NewTimer(0)
	retry.Stop()
	defer retry.Stop()

	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { a.answer(ctx) })
	beside.Go(func() { a.keepPrimed(ctx) })
	beside.Go(func() { a.keepShaped(ctx) })

	a.distrust()
	pause := time.Duration(0)
	for ctx.Err() == nil {
		if err := a.round(ctx, changes); err != nil {
			pause = min(max(2*pause, firstPause), lastPause)
			retry.Reset(pause)
		} else {
			pause = 0
			retry.Stop()
		}
		select {
		case <-ctx.Done():
		case <-changes.C():
		case <-a.conf.Switch.Changed():
		case <-a.kick:
		case <-retry.C:
		case <-readback.C:
			a.distrust()
		}
	}
	return nil
}

// distrust has all flows read back in the next round.
func (a *Agent) distrust() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.suspect = true
}

// round looks at everything that may have changed, once.
func (a *Agent) round(ctx context.Context, changes *tenant.Subscription) error {
	a.mu.Lock()
	a.begun++
	a.mu.Unlock()
	err := a.compile(changes)
	if err == nil {
		err = a.program(ctx)
	}
	a.finish(err)
	return err
}

// compile brings the desired flows up to date. Changes are taken while the state stands
// still, so that none is seen before its objects. It is an error as long as the state or
// the ports have never been seen: nothing known is not the same as nothing there, and the
// flows of running containers stay.
func (a *Agent) compile(changes *tenant.Subscription) error {
	st := a.conf.Switch.Status() // before the ports, so that they are loaded if it is connected
	ports, tunnel := map[string]uint32{}, uint32(0)
	for name, p := range a.conf.Switch.Ports() {
		switch {
		case name == ovs.TunnelPort:
			tunnel = p.OFPort
		case p.OFPort != 0:
			ports[name] = p.OFPort
		}
	}
	a.conf.Feed.View(func(s *tenant.State) {
		keys := changes.Take()
		a.mu.Lock()
		defer a.mu.Unlock()
		a.compiler.SetPorts(ports, tunnel)
		a.compiler.SetShowMeters(!a.meterless)
		a.compiler.SetShaping(st.Datapath == ovs.System) // elsewhere one port's queue starves the others
		for _, k := range keys {
			delete(a.refused, k)
		}
		for _, id := range a.compiler.Update(s, keys) {
			a.pending[id] = struct{}{}
			a.reconsider(id)
		}
		a.compiled = s.Revision
		a.seen = a.seen || st.OVSDB.Connected
	})
	switch {
	case a.compiled == 0:
		return fmt.Errorf("tenant state: %w: it has not been loaded yet", tenant.ErrUnavailable)
	case !a.seen:
		return fmt.Errorf("ports: %w: %s", ovs.ErrUnavailable, st.OVSDB.Error)
	}
	return nil
}

// reconsider gives a refused object whose flows changed another chance. mu is held.
func (a *Agent) reconsider(id flow.Key) {
	if len(a.refused) == 0 {
		return
	}
	if k, ok := a.compiler.Owner(a.compiler.Flows()[id].Cookie); ok {
		delete(a.refused, k)
	}
	for k := range a.refused {
		if len(a.compiler.Fragment(k)) == 0 {
			delete(a.refused, k)
		}
	}
}

// finish publishes the outcome of a round.
func (a *Agent) finish(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil && (a.status.Err == nil || a.status.Err.Error() != err.Error()) {
		level := logrus.WarnLevel
		if a.status.Readback.IsZero() { // starting, like everybody else
			level = logrus.InfoLevel
		}
		a.conf.Log.WithError(err).Log(level, "flows are not up to date; the last good ones stay")
	}
	if err == nil {
		if a.status.Err != nil {
			a.conf.Log.WithField("flows", len(a.programmed)).Info("flows are up to date")
		}
		a.status.Revision = a.compiled
	}
	a.status.Err = err
	a.done = a.begun
	close(a.moved)
	a.moved = make(chan struct{})
}

// Status is how far the agent is now.
func (a *Agent) Status() Status {
	tunnel := a.conf.Switch.Status().Tunnel
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.status
	s.Tunnel = tunnel
	s.Flows = len(a.programmed)
	s.Notes = maps.Clone(a.compiler.Notes())
	s.Refused = maps.Clone(a.refused)
	return s
}
