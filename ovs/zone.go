package ovs

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"
)

// closedTime is for how many seconds a TCP connection is remembered that both sides have
// closed: long enough for last segments that are sent again. All that time it counts against
// its zone's limit; else it is 30 s in the userspace datapath, and 120 s in the kernel's.
const closedTime = 10

const (
	// zoneKey and ownerKey mark our rows of CT_Zone: the bridge, and who has the zone.
	zoneKey      = "nuage-zone"
	ownerKey     = "nuage-owner"
	timeoutAgain = 5 * time.Second
)

// UseZones says which conntrack zones flows use, and who has each. In these the bridge's
// datapath forgets closed TCP connections early. Of one that nobody has any more, or somebody
// else, it forgets all connections, also where that was said by an earlier process: what they
// were like is not known later, and is not the next owner's affair. So say it when the flows are
// there, or gone. A zone that somebody else has configured in the database is left alone.
//
// It returns at once: Run does it, tries again what fails, and says once why. The map is not
// to be changed.
func (b *Bridge) UseZones(owners map[uint16]string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.owners == nil || !maps.Equal(b.owners, owners) {
		b.owners = owners
		signal(b.reown)
	}
}

// keepZones does what UseZones asks for, until ctx ends.
func (b *Bridge) keepZones(ctx context.Context) error {
	var epoch uint64
	given := map[uint16]bool{} // timeouts, to this ovs-vswitchd
	complaint := ""
	for ctx.Err() == nil {
		b.mu.Lock()
		s, v, owners, moved := b.session, b.view, b.owners, b.moved
		if b.epoch != epoch {
			epoch = b.epoch
			clear(given)
		}
		b.mu.Unlock()
		next := time.Minute
		if plan := planZones(v, b.conf.Bridge, owners, given); s != nil && owners != nil && len(plan.ops) > 0 {
			err := b.turnZones(ctx, s, v, plan)
			if err == nil {
				for _, zone := range plan.gives {
					given[zone] = true
				}
				complaint = ""
				continue
			}
			if next = timeoutAgain; ctx.Err() == nil && err.Error() != complaint {
				complaint = err.Error()
				b.conf.Log.WithError(err).Warn("connections of domains are remembered for long")
			}
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-moved:
		case <-b.reown:
		case <-timer.C:
		}
		timer.Stop()
	}
	return ctx.Err()
}

// turnZones empties what is to be emptied before the database forgets it.
func (b *Bridge) turnZones(ctx context.Context, s *session, v view, plan zonePlan) error {
	ctx, cancel := context.WithTimeout(ctx, timeoutAgain)
	defer cancel()
	if len(plan.strays) > 0 {
		c, err := b.openflow()
		if err != nil {
			return err
		}
		for _, zone := range plan.strays {
			if err := b.explain(c.FlushZone(ctx, zone)); err != nil {
				return err
			}
		}
	}
	return b.commit(ctx, s, append(plan.ops, touch(v)))
}

type (
	datapathRow struct {
		UUID  string
		Zones map[string]string
	}
	zoneRow struct {
		UUID        string
		Timeouts    string // a row of CT_Timeout_Policy
		ExternalIDs map[string]string
	}
)

func (r *datapathRow) fields() map[string]target { return map[string]target{"ct_zones": &r.Zones} }

func (r *zoneRow) fields() map[string]target {
	return map[string]target{"timeout_policy": &r.Timeouts, "external_ids": &r.ExternalIDs}
}

func (r *datapathRow) identify(uuid string) { r.UUID = uuid }
func (r *zoneRow) identify(uuid string)     { r.UUID = uuid }

// lookZones notes the zones that the bridge's datapath has in the database.
func (t *tables) lookZones(v *view) {
	if v.root == nil || v.bridge == nil {
		return
	}
	row := t.datapaths[v.root.Datapaths[v.bridge.datapath()]]
	if row == nil {
		return
	}
	v.datapath, v.zones = row.UUID, make(map[uint16]*zoneRow, len(row.Zones))
	for number, id := range row.Zones {
		if zone, err := strconv.ParseUint(number, 10, 16); err == nil && t.zones[id] != nil {
			v.zones[uint16(zone)] = t.zones[id]
		}
	}
}

// zonePlan is the next transaction on the way to what UseZones asks for, the zones that have
// their timeouts by it, and those that are to be emptied before it.
type zonePlan struct {
	ops           []operation
	gives, strays []uint16
}

// planZones plans the next step. ovs-vswitchd ignores the timeouts with which it first sees a
// zone (from 3.3 to 3.7 at least: ct_zone_alloc in its bridge.c copies them, and later looks
// for a difference). So a zone is first made or left without, and gets its timeouts when
// ovs-vswitchd has gone over that.
func planZones(v view, bridge string, owners map[uint16]string, given map[uint16]bool) (p zonePlan) {
	if v.root == nil || v.bridge == nil {
		return p
	}
	var missing []uint16
	for _, zone := range slices.Sorted(maps.Keys(owners)) {
		row := v.zones[zone]
		switch {
		case row == nil:
			missing = append(missing, zone)
		case row.ExternalIDs[zoneKey] != bridge, row.ExternalIDs[ownerKey] != owners[zone]:
		case row.Timeouts != "" && !given[zone]:
			p.ops = append(p.ops, update("CT_Zone", row.UUID, columns{"timeout_policy": set([]string{})}))
		case row.Timeouts == "" && v.settled():
			p.ops = append(p.ops, update("CT_Zone", row.UUID, columns{"timeout_policy": named("timeouts")}))
			p.gives = append(p.gives, zone)
		}
	}
	if len(p.gives) > 0 {
		p.ops = append(p.ops, insert("CT_Timeout_Policy", "timeouts", columns{"timeouts": []any{"map",
			[]any{[]any{"tcp_close", closedTime}, []any{"tcp_time_wait", closedTime}}}}))
	}
	for zone, row := range v.zones {
		if owner, used := owners[zone]; row.ExternalIDs[zoneKey] == bridge && (!used || row.ExternalIDs[ownerKey] != owner) {
			p.strays = append(p.strays, zone)
		}
	}
	if len(p.strays) > 0 {
		slices.Sort(p.strays)
		p.ops = append(p.ops, mutate("Datapath", v.datapath, remove("ct_zones", []any{"set", p.strays})))
	}
	p.ops = append(p.ops, v.addZones(missing, bridge, owners)...)
	return p
}

// addZones makes rows of zones without timeouts. What nothing refers to any more of these
// tables, ovsdb-server deletes.
func (v view) addZones(zones []uint16, bridge string, owners map[uint16]string) (ops []operation) {
	if len(zones) == 0 {
		return nil
	}
	var pairs []any
	for _, zone := range zones {
		name := "zone" + strconv.Itoa(int(zone))
		ops = append(ops, insert("CT_Zone", name, columns{"external_ids": textMap(map[string]string{zoneKey: bridge, ownerKey: owners[zone]})}))
		pairs = append(pairs, []any{zone, named(name)})
	}
	if v.datapath != "" {
		return append(ops, mutate("Datapath", v.datapath, add("ct_zones", []any{"map", pairs})))
	}
	return append(ops, insert("Datapath", "datapath", columns{"datapath_version": "", "ct_zones": []any{"map", pairs}}),
		mutate("Open_vSwitch", v.root.UUID, add("datapaths", []any{"map", []any{[]any{v.bridge.datapath(), named("datapath")}}})))
}
