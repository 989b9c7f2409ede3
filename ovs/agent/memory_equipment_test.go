package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"nuage/ovs"
	"nuage/ovs/flow"
	"nuage/ovs/openflow"
)

// gear is what a switch in memory has beside flows. It is as strict as the real one: a flow
// whose meter is not there is refused, and a deleted meter's flows go with it.
type gear struct {
	datapath string
	meters   map[uint32]openflow.Meter
	read     bool // the meters, since the last reboot: before it, an agent cannot know better
	dropped  map[uint32]openflow.MeterStats
	zones    map[uint16]uint32
	owners   map[uint16]string   // of conntrack zones
	counts   map[flow.Key]uint64 // packets
	changes  []string            // of meters and limits, in order
	badZone  error
	// badShape is why no port can be shaped.
	badShape error
}

func newGear() gear {
	return gear{meters: map[uint32]openflow.Meter{}, dropped: map[uint32]openflow.MeterStats{}, zones: map[uint16]uint32{}, counts: map[flow.Key]uint64{}}
}

func (m *memory) note(format string, args ...any) {
	m.gear.changes = append(m.gear.changes, fmt.Sprintf(format, args...))
}

func (m *memory) Meters(context.Context) ([]openflow.Meter, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return nil, ovs.ErrUnavailable
	}
	m.gear.read = true
	return slices.Collect(maps.Values(m.gear.meters)), nil
}

func (m *memory) MeterStats(context.Context) ([]openflow.MeterStats, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return nil, ovs.ErrUnavailable
	}
	return slices.Collect(maps.Values(m.gear.dropped)), nil
}

func (m *memory) SetMeter(_ context.Context, want openflow.Meter) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch has, exists := m.gear.meters[want.ID]; {
	case m.down:
		return ovs.ErrUnavailable
	case want.Rate == 0:
		return fmt.Errorf("meter %d: no rate", want.ID)
	case exists && has == want:
		m.defects = append(m.defects, fmt.Sprintf("sets meter %d as it is", want.ID))
	case m.refuseMeter != nil && m.refuseMeter(want):
		return fmt.Errorf("meter %d: %w", want.ID, &openflow.Error{Name: "OFPMMFC_OUT_OF_METERS"})
	}
	m.note("set %d", want.ID)
	m.gear.meters[want.ID], m.gear.dropped[want.ID] = want, openflow.MeterStats{ID: want.ID}
	return nil
}

func (m *memory) DeleteMeter(_ context.Context, id uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return ovs.ErrUnavailable
	}
	if _, exists := m.gear.meters[id]; !exists && m.gear.read {
		m.defects = append(m.defects, fmt.Sprintf("deletes meter %d, which is not there", id))
	}
	m.note("delete %d", id)
	delete(m.gear.meters, id)
	delete(m.gear.dropped, id)
	for k, f := range m.flows {
		if usedMeter(f) == id {
			m.defects = append(m.defects, fmt.Sprintf("deletes meter %d with its flow %v", id, f))
			delete(m.flows, k)
		}
	}
	return nil
}

// metered is whether the meters of a flow are there.
func (m *memory) metered(f flow.Flow) bool {
	for _, a := range f.Actions {
		if c, ok := a.(flow.Controller); ok && c.Meter != 0 && m.gear.meters[c.Meter].ID == 0 {
			return false
		}
	}
	id := usedMeter(f)
	return id == 0 || m.gear.meters[id].ID != 0
}

// usedMeter is the meter that a flow uses; 0 for none.
func usedMeter(f flow.Flow) uint32 {
	for _, a := range f.Actions {
		if m, ok := a.(flow.MeterAction); ok {
			return m.ID
		}
	}
	return 0
}

func (m *memory) ConntrackLimits(context.Context) (map[uint16]ovs.ConntrackLimit, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gear.badZone != nil {
		return nil, m.gear.badZone
	}
	limits := map[uint16]ovs.ConntrackLimit{}
	for zone, l := range m.gear.zones {
		limits[zone] = ovs.ConntrackLimit{Limit: l}
	}
	return limits, nil
}

func (m *memory) SetConntrackLimit(_ context.Context, zone uint16, limit uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gear.badZone != nil {
		return m.gear.badZone
	}
	m.note("zone %d %d", zone, limit)
	if m.gear.zones[zone] = limit; limit == 0 {
		delete(m.gear.zones, zone)
	}
	return nil
}

func (m *memory) PacketIns() <-chan openflow.PacketIn { return m.packets }

func (m *memory) PacketOut(_ context.Context, actions []flow.Action, packet []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return ovs.ErrUnavailable
	}
	m.sent = append(m.sent, sent{actions, packet})
	return nil
}

// sent is one PacketOut.
type sent struct {
	actions []flow.Action
	packet  []byte
}

func (m *memory) SetShaping(_ context.Context, name string, s ovs.Shape) error {
	return m.turnShape(name, s, ovs.ErrNoPort)
}

func (m *memory) ClearShaping(_ context.Context, name string) error {
	return m.turnShape(name, ovs.Shape{}, nil)
}

// turnShape does as the real switch does, which has rates in whole bytes.
func (m *memory) turnShape(name string, s ovs.Shape, absent error) error {
	defer m.do(func() {}) // outside of the lock
	m.mu.Lock()
	defer m.mu.Unlock()
	p, ok := m.ports[name]
	if !ok {
		return absent
	}
	if m.gear.badShape != nil {
		return m.gear.badShape
	}
	p.Shape = ovs.Shape{Rate: s.Rate &^ 7, Burst: s.Burst &^ 7}
	m.ports[name] = p
	m.note("shape %s %d", name, s.Rate)
	return nil
}

func (m *memory) UseZones(owners map[uint16]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gear.owners = owners
}
