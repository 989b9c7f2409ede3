package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nuage/controller/tenant"
	"nuage/ovs"
	"nuage/ovs/flow"
	"nuage/ovs/openflow"
	"nuage/ovs/pipeline"
)

// memory is a switch in memory, for what a real one does not do on demand: fail at a
// chosen moment, before or after the effect. It is strict: nothing happens to a bundle
// of which a part is refused, and it reports an add that changes nothing, which would
// have reset a counter.
type memory struct {
	mu     sync.Mutex
	flows  flow.Set
	ports  map[string]ovs.Port
	epoch  uint64
	known  uint64 // the epoch that was read back: before it, an agent cannot know better
	down   bool
	blind  bool                  // the ports are not known yet
	fail   func(flow.Diff) error // before the effect
	lose   func(flow.Diff) error // after the effect: the answer is lost
	refuse func(flow.Flow) bool
	gear   gear

	refuseMeter func(openflow.Meter) bool
	defects     []string
	applied     int
	changed     chan struct{}
	packets     chan openflow.PacketIn
	sent        []sent
}

func newMemory() *memory {
	return &memory{flows: flow.Set{}, ports: map[string]ovs.Port{}, epoch: 1, changed: make(chan struct{}, 1),
		packets: make(chan openflow.PacketIn, 100), gear: newGear()}
}

func (m *memory) do(f func()) {
	m.mu.Lock()
	f()
	m.mu.Unlock()
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

func (m *memory) port(name string, n uint32) {
	m.do(func() { m.ports[name] = ovs.Port{Name: name, OFPort: n, Confirmed: true} })
}

// reboot loses all flows and what goes with them, as a restart of ovs-vswitchd does.
func (m *memory) reboot() { m.do(func() { m.flows, m.gear = flow.Set{}, newGear(); m.epoch++ }) }

func (m *memory) Ports() map[string]ovs.Port {
	m.mu.Lock()
	defer m.mu.Unlock()
	ports := map[string]ovs.Port{}
	for n, p := range m.ports {
		ports[n] = p
	}
	return ports
}

func (m *memory) Changed() <-chan struct{} { return m.changed }

func (m *memory) Status() ovs.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return ovs.Status{Epoch: m.epoch, Datapath: m.gear.datapath, OVSDB: ovs.Connection{Connected: !m.blind, Error: "no database"}, OpenFlow: ovs.Connection{Connected: !m.down, Error: "test says so"}}
}

func (m *memory) WaitPort(ctx context.Context, name string) (ovs.Port, error) {
	for {
		m.mu.Lock()
		p, ok := m.ports[name]
		m.mu.Unlock()
		switch {
		case !ok:
			return p, fmt.Errorf("port %s: %w", name, ovs.ErrNoPort)
		case p.Confirmed:
			return p, nil
		case ctx.Err() != nil:
			return p, ctx.Err()
		}
		time.Sleep(time.Millisecond)
	}
}

func (m *memory) Flows(_ context.Context, filter ovs.FlowFilter) ([]flow.Stats, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return nil, ovs.ErrUnavailable
	}
	if filter == (ovs.FlowFilter{}) {
		m.known = m.epoch
	}
	var all []flow.Stats
	for _, f := range m.flows {
		if (filter.Cookie == nil || *filter.Cookie == f.Cookie) && (filter.Table == nil || *filter.Table == f.Table) {
			all = append(all, flow.Stats{Flow: f, Packets: m.gear.counts[f.Key()], Bytes: 100 * m.gear.counts[f.Key()]})
		}
	}
	return all, nil
}

func (m *memory) Apply(_ context.Context, d flow.Diff) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return ovs.ErrUnavailable
	}
	if m.fail != nil {
		if err := m.fail(d); err != nil {
			return err
		}
	}
	for _, f := range d.Add {
		if m.refuse != nil && m.refuse(f) {
			return fmt.Errorf("apply: %w", &openflow.Error{Name: "OFPBMC_BAD_FIELD", Flow: &f})
		}
		if !m.metered(f) {
			return fmt.Errorf("apply: %w", &openflow.Error{Name: "OFPMMFC_INVALID_METER", Flow: &f})
		}
	}
	m.applied++
	for _, f := range d.Delete {
		if _, ok := m.flows[f.Key()]; !ok && m.known == m.epoch {
			m.defects = append(m.defects, fmt.Sprintf("deletes what is not there: %v", f))
		}
		delete(m.flows, f.Key())
		delete(m.gear.counts, f.Key())
	}
	for _, f := range d.Add {
		if have, ok := m.flows[f.Key()]; ok && have.Equal(f) && m.known == m.epoch {
			m.defects = append(m.defects, fmt.Sprintf("adds what is there: %v", f))
		}
		m.flows.Put(f)
	}
	if m.lose != nil {
		return m.lose(d)
	}
	return nil
}

// wrong compares the switch with the state.
func (m *memory) wrong(feed *tenant.Feed) string {
	ports := map[string]uint32{}
	for n, p := range m.Ports() {
		ports[n] = p.OFPort
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.defects) > 0 {
		return strings.Join(m.defects, "; ")
	}
	return difference(m.flows, desired(feed, ports))
}

// Whatever happens in whatever order, in the end the switch has what the last state
// calls for.
func TestConverges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m, feed := newMemory(), tenant.NewFeed()
		a, stop := start(t, Config{Feed: feed, Switch: m})
		defer stop()
		feed.Publish(1, base()...)
		revision := int64(1)
		for range rapid.IntRange(1, 20).Draw(rt, "steps") {
			n := rapid.IntRange(2, 8).Draw(rt, "n")
			iface := fmt.Sprintf("nu%d", n)
			revision++
			switch rapid.IntRange(0, 11).Draw(rt, "step") {
			case 0, 1, 2:
				feed.Publish(revision, vport(n, iface))
			case 3:
				feed.Publish(revision, vport(n, ""))
			case 4:
				feed.Publish(revision, without(tenant.KindVport, fmt.Sprintf("v%d", n)))
			case 5, 6:
				m.port(iface, uint32(rapid.IntRange(1, 12).Draw(rt, "port")))
			case 7:
				m.do(func() { delete(m.ports, iface) })
			case 8:
				m.reboot()
			case 9:
				down := rapid.Bool().Draw(rt, "down")
				m.do(func() { m.down = down })
			case 10:
				times := rapid.IntRange(1, 3).Draw(rt, "times")
				fail := func(flow.Diff) error {
					if times--; times >= 0 {
						return errors.New("connection broken")
					}
					return nil
				}
				after := rapid.Bool().Draw(rt, "after the effect")
				m.do(func() {
					if after {
						m.lose = fail
					} else {
						m.fail = fail
					}
				})
			case 11:
				feed.Publish(revision, without(tenant.KindSubnet, "web"))
				revision++
				feed.Publish(revision, base()...)
			}
			if rapid.Bool().Draw(rt, "pause") {
				time.Sleep(time.Millisecond)
			}
		}
		m.do(func() { m.down = false })
		eventually(t, 10*time.Second, func() string { return m.wrong(feed) })
		eventually(t, 10*time.Second, func() string {
			published, _ := feed.Revision()
			if s := a.Status(); s.Err != nil || s.Revision != published {
				return fmt.Sprintf("status is %+v, revision %d", s, published)
			}
			return ""
		})
	})
}

func TestRefusedObjectStopsNoOther(t *testing.T) {
	m, feed := newMemory(), tenant.NewFeed()
	bad := map[uint64]bool{}
	for _, id := range []string{"v7", "v30"} {
		bad[pipeline.Cookie(tenant.Key{Kind: tenant.KindVport, ID: id})] = true
	}
	m.refuse = func(f flow.Flow) bool { return bad[f.Cookie] }
	changes := base()
	for n := 2; n < 60; n++ {
		iface := fmt.Sprintf("nu%d", n)
		m.port(iface, uint32(n))
		changes = append(changes, vport(n, iface))
	}
	feed.Publish(5, changes...)
	a, _ := start(t, Config{Feed: feed, Switch: m})
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for n := 2; n < 60; n++ {
		err := a.WaitProgrammed(ctx, fmt.Sprintf("v%d", n))
		if n != 7 && n != 30 {
			if err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("vport web-v%d: ", n)) || !strings.Contains(err.Error(), "OFPBMC_BAD_FIELD") {
			t.Errorf("a refused vport: %v", err)
		}
	}
	s := a.Status()
	if len(s.Refused) != 2 || s.Err != nil || s.Revision != 5 {
		t.Errorf("status %+v", s)
	}
	// The switch changes its mind: what changes is tried again at once, what is gone is
	// forgotten.
	m.do(func() { m.refuse = nil })
	feed.Publish(6, vport(7, "nu7"))
	if err := a.WaitProgrammed(ctx, "v7"); err != nil {
		t.Error(err)
	}
	feed.Publish(7, without(tenant.KindVport, "v30"))
	eventually(t, 5*time.Second, func() string {
		if s := a.Status(); len(s.Refused) != 0 {
			return fmt.Sprint(s.Refused)
		}
		return m.wrong(feed)
	})
}

// An agent that does not know the state or the ports yet must not take that for an empty
// world and cut off what runs.
func TestStartsBlind(t *testing.T) {
	m, feed := newMemory(), tenant.NewFeed()
	stale := flow.Flow{Table: 3, Cookie: 9}
	m.flows.Put(stale)
	m.blind = true
	a, _ := start(t, Config{Feed: feed, Switch: m, Readback: 5 * time.Millisecond})
	untouched := func(why string) {
		t.Helper()
		time.Sleep(50 * time.Millisecond)
		err := a.Status().Err
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.flows) != 1 || m.applied != 0 {
			t.Errorf("%d flows while nothing is known: %v", len(m.flows), m.flows)
		}
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("status says %v, want %q", err, why)
		}
	}
	untouched("tenant state: unavailable: it has not been loaded yet")
	feed.Publish(1, append(base(), vport(2, "nu2"))...)
	untouched("ports: unavailable: no database")
	m.do(func() { m.blind = false; m.ports["nu2"] = ovs.Port{Name: "nu2", OFPort: 2, Confirmed: true} })
	eventually(t, 5*time.Second, func() string { return m.wrong(feed) })
	m.do(func() { m.blind = true })
	feed.Publish(2, vport(3, "nu2"))
	eventually(t, 5*time.Second, func() string { return m.wrong(feed) })
}

func TestReadbackTriesRefusedObjectsAgain(t *testing.T) {
	m, feed := newMemory(), tenant.NewFeed()
	m.port("nu2", 2)
	m.refuse = func(f flow.Flow) bool { return f.Table == 10 && f.Priority == 100 }
	feed.Publish(1, append(base(), vport(2, "nu2"))...)
	a, _ := start(t, Config{Feed: feed, Switch: m, Readback: 20 * time.Millisecond})
	eventually(t, 5*time.Second, func() string {
		if s := a.Status(); len(s.Refused) != 1 {
			return fmt.Sprint(s.Refused)
		}
		return ""
	})
	m.mu.Lock()
	m.refuse = nil
	m.mu.Unlock()
	eventually(t, 5*time.Second, func() string { return m.wrong(feed) })
}

func TestWaitSaysWhatIsMissing(t *testing.T) {
	m, feed := newMemory(), tenant.NewFeed()
	changes := append(base(), vport(2, "nu2"), vport(3, "nu3"), vport(4, ""), vport(5, "nu5"), vport(6, "nu6"))
	taken := vport(7, "nu7")
	taken.Value.(*tenant.Vport).IPv4 = vport(2, "").Value.(*tenant.Vport).IPv4
	feed.Publish(1, append(changes, taken)...)
	m.port("nu2", 2)
	m.port("nu5", 5)
	m.port("nu7", 7)
	m.do(func() { m.ports["nu6"] = ovs.Port{Name: "nu6", OFPort: 6} })
	a, _ := start(t, Config{Feed: feed, Switch: m})
	check := func(id, want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		err := a.WaitProgrammed(ctx, id)
		if want == "" && err == nil {
			return
		}
		if err == nil || !strings.Contains(err.Error(), want) || want == "" {
			t.Errorf("%s: %v, want %q", id, err, want)
		}
	}
	check("v2", "")
	check("v3", "vport web-v3: port nu3: no such port")
	check("v4", `vport web-v4: it is on host "host-2"`)
	check("v6", "vport web-v6: port nu6 not confirmed by ovs-vswitchd")
	check("v7", "address 10.0.0.2 belongs to vport web-v2")
	check("v99", "vport v99: not found")
	m.do(func() { m.down = true })
	check("v5", "vport web-v5: flows not programmed: switch: unavailable: test says so")
	m.do(func() { m.down = false })
	check("v5", "")
	// Somebody takes a flow away and nobody says so: the wait itself finds out.
	k := tenant.Key{Kind: tenant.KindVport, ID: "v5"}
	m.mu.Lock()
	for id, f := range m.flows {
		if f.Cookie == pipeline.Cookie(k) {
			delete(m.flows, id)
		}
	}
	m.mu.Unlock()
	check("v5", "")
	if r := a.Status().Repaired; r == 0 {
		t.Error("the repair is not counted")
	}
}
