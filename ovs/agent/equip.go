package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"nuage/controller/tenant"
	"nuage/ovs/flow"
	"nuage/ovs/openflow"
	"nuage/ovs/pipeline"
)

// What flows show is bounded before it costs the agent anything; each answer and each line
// has a bound of its own beside.
var (
	// packetsToAgent is the bound of what no domain's meter bounds.
	packetsToAgent = openflow.Meter{ID: openflow.ControllerMeter, Rate: 2000, Burst: 1000, Packets: true}
	perDomain      = openflow.Meter{Rate: 500, Burst: 500, Packets: true}
)

// equipment is what the switch has beside flows, as last known: meters, which it loses with
// them, and the bounds of conntrack zones. It is guarded by the Agent's mu; only Run changes
// the switch.
type equipment struct {
	meters  map[uint32]openflow.Meter
	refused map[openflow.Meter]bool // by the switch; until they are read back
	// zones are the limits of conntrack zones; nil if they could not be read. The switch may
	// have limits that are not ours: those of ours are those that were set here.
	zones map[uint16]uint32
	ours  map[uint16]struct{}
	why   string // the last complaint about zones
}

// readEquipment replaces what is known of the equipment by what the switch says, and
// returns how much of it is not as it was left.
func (a *Agent) readEquipment(ctx context.Context) (drift int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	all, err := a.conf.Switch.Meters(ctx)
	if err != nil {
		return 0, fmt.Errorf("switch: %w", err)
	}
	meters := make(map[uint32]openflow.Meter, len(all))
	for _, m := range all {
		meters[m.ID] = m
	}
	zones := a.readZones(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, m := range a.has.meters {
		if meters[id] != m {
			drift++
		}
	}
	for id := range meters {
		if _, known := a.has.meters[id]; !known && id != openflow.SlowpathMeter {
			drift++
		}
	}
	for zone := range a.has.ours {
		if zones != nil && zones[zone] != a.has.zones[zone] {
			drift++
		}
	}
	a.has.meters, a.has.zones = meters, zones
	clear(a.has.refused)
	return drift, nil
}

// readZones are the limits of conntrack zones; nil if they cannot be read. That is no
// reason to keep flows from the switch.
func (a *Agent) readZones(ctx context.Context) map[uint16]uint32 {
	all, err := a.conf.Switch.ConntrackLimits(ctx)
	if a.complain(err); err != nil {
		return nil
	}
	zones := make(map[uint16]uint32, len(all))
	for zone, l := range all {
		zones[zone] = l.Limit
	}
	return zones
}

// complain says once why conntrack zones are not bounded.
func (a *Agent) complain(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	why := ""
	if err != nil {
		why = err.Error()
	}
	if why != a.has.why && why != "" {
		a.conf.Log.WithError(err).Warn("the connections of domains are not bounded")
	}
	a.has.why = why
}

// equip makes what flows rely on, before they are programmed. A meter that the switch
// refuses keeps its vport's flows as they are.
func (a *Agent) equip(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	without := a.meterless // only Run writes it
	lacking := a.lackingMeters()
	a.countMeters(ctx, a.metersThere(lacking))
	for _, m := range lacking {
		err := a.conf.Switch.SetMeter(ctx, m)
		var refusal *openflow.Error
		if err != nil && !errors.As(err, &refusal) {
			a.distrust()
			return fmt.Errorf("switch: %w", err)
		}
		a.noteMeter(m, err)
	}
	if a.meterless && !without {
		return errors.New("switch: it has no meters for packets to the agent: compiling without")
	}
	a.boundZones(ctx)
	return nil
}

// lackingMeters are those that the switch has not, or otherwise.
func (a *Agent) lackingMeters() (lacking []openflow.Meter) {
	a.mu.Lock()
	defer a.mu.Unlock()
	lacks := func(m openflow.Meter) {
		if a.has.meters[m.ID] != m && !a.has.refused[m] {
			lacking = append(lacking, m)
		}
	}
	lacks(packetsToAgent)
	for id := range a.compiler.ShowMeters() {
		m := perDomain
		m.ID = id
		lacks(m)
	}
	for id, r := range a.compiler.Meters() {
		lacks(meter(id, r))
	}
	return lacking
}

// metersThere are the numbers of those meters that the switch has, if otherwise.
func (a *Agent) metersThere(ms []openflow.Meter) (ids []uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range ms {
		if _, there := a.has.meters[m.ID]; there {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// metered is whether the meter by which a flow shows packets is there. Unlike one that a
// flow's packets pass, its deletion leaves the flow, which does not see another of that
// number: it is to be programmed anew. mu is held.
func (a *Agent) metered(f flow.Flow) bool {
	for _, action := range f.Actions {
		if c, ok := action.(flow.Controller); ok && c.Meter != 0 && a.has.meters[c.Meter].ID == 0 {
			return false
		}
	}
	return true
}

// leastBurst is a packet as large as a sender's segmentation makes them that is left to the
// link: one that is larger than the whole burst would never pass.
const leastBurst = 600 // kbit

// meter is a limit in the switch's units.
func meter(id uint32, l pipeline.Limit) openflow.Meter {
	kilo := func(bits uint64) uint32 { return uint32(min(bits/1000, 1<<32-1)) }
	return openflow.Meter{ID: id, Rate: max(kilo(l.Rate), 1), Burst: max(kilo(l.Burst), leastBurst)}
}

// noteMeter notes that the switch has a meter now, or has refused it.
func (a *Agent) noteMeter(m openflow.Meter, refusal error) {
	a.counting.forgetMeter(m.ID)
	a.mu.Lock()
	defer a.mu.Unlock()
	id, known := a.compiler.MeteredVport(m.ID)
	k := tenant.Key{Kind: tenant.KindVport, ID: id}
	switch {
	case refusal == nil:
		a.has.meters[m.ID] = m
		delete(a.refused, k)
		return
	case m == packetsToAgent || a.compiler.ShowMeters()[m.ID] != "":
		a.meterless = true
	case known:
		a.refused[k] = fmt.Errorf("rate limiter: %w", refusal)
	}
	a.has.refused[m] = true
	a.conf.Log.WithError(refusal).WithField("vport", id).Error("the switch refuses a meter")
}

// dismantle removes what nothing relies on any more, after the flows are programmed: the
// switch deletes a deleted meter's flows, and packets would fill an emptied zone again.
func (a *Agent) dismantle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a.conf.Switch.UseZones(a.usedZones())
	idle := a.idleMeters()
	a.countMeters(ctx, idle)
	for _, id := range idle {
		if err := a.conf.Switch.DeleteMeter(ctx, id); err != nil {
			a.distrust()
			return fmt.Errorf("switch: %w", err)
		}
		a.mu.Lock()
		delete(a.has.meters, id)
		a.mu.Unlock()
		a.counting.forgetMeter(id)
	}
	return nil
}

// idleMeters are those that should not be there, but for those that the flows of a refused
// object still use.
func (a *Agent) idleMeters() (idle []uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	limits, shows := a.compiler.Meters(), a.compiler.ShowMeters()
	for id := range a.has.meters {
		_, limited := limits[id]
		_, shown := shows[id]
		if !limited && !shown && id != packetsToAgent.ID && id != openflow.SlowpathMeter {
			idle = append(idle, id)
		}
	}
	if len(idle) == 0 || len(a.refused) == 0 {
		return idle
	}
	used := map[uint32]bool{}
	for _, f := range a.programmed {
		if len(f.Actions) > 0 {
			if m, ok := f.Actions[0].(flow.MeterAction); ok {
				used[m.ID] = true
			}
		}
	}
	free := idle[:0]
	for _, id := range idle {
		if !used[id] {
			free = append(free, id)
		}
	}
	return free
}

// boundZones sets the limits of the zones in use, and removes those that were set here of
// zones that are not. What it cannot do it tries again when the switch is read back.
func (a *Agent) boundZones(ctx context.Context) {
	for zone, limit := range a.lackingLimits() {
		err := a.conf.Switch.SetConntrackLimit(ctx, zone, limit)
		if a.complain(err); err != nil {
			a.mu.Lock()
			a.has.zones = nil
			a.mu.Unlock()
			return
		}
		a.mu.Lock()
		if a.has.zones[zone] = limit; limit == 0 {
			delete(a.has.zones, zone)
			delete(a.has.ours, zone)
		} else {
			a.has.ours[zone] = struct{}{}
		}
		a.mu.Unlock()
	}
}

func (a *Agent) usedZones() map[uint16]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.compiler.Zones())
}

func (a *Agent) lackingLimits() map[uint16]uint32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.has.zones == nil {
		return nil
	}
	lacking := map[uint16]uint32{}
	for zone := range a.has.ours {
		lacking[zone] = 0
	}
	for zone := range a.compiler.Zones() {
		lacking[zone] = a.conf.ConntrackLimit
	}
	maps.DeleteFunc(lacking, func(zone uint16, limit uint32) bool { return a.has.zones[zone] == limit })
	return lacking
}
