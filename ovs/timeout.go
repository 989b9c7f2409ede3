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
	// zoneKey marks our rows of CT_Zone; its value is the bridge.
	zoneKey      = "nuage-zone"
	timeoutAgain = 5 * time.Second
)

// ForgetClosed has the bridge's datapath forget closed TCP connections early in these conntrack
// zones, and in no others that were named before, also by an earlier process. It does not touch
// a zone that somebody else has configured in the database. It returns at once: Run does it,
// tries again what fails, and says once why.
func (b *Bridge) ForgetClosed(zones []uint16) {
	b.mu.Lock()
	defer b.mu.Unlock()
	brief := make(map[uint16]bool, len(zones))
	for _, zone := range zones {
		brief[zone] = true
	}
	if b.brief == nil || !maps.Equal(b.brief, brief) {
		b.brief = brief
		signal(b.retime)
	}
}

// keepTimeouts does what ForgetClosed asks for, until ctx ends.
func (b *Bridge) keepTimeouts(ctx context.Context) error {
	var epoch uint64
	given := map[uint16]bool{} // to this ovs-vswitchd
	complaint := ""
	for ctx.Err() == nil {
		b.mu.Lock()
		s, v, brief, moved := b.session, b.view, b.brief, b.moved
		if b.epoch != epoch {
			epoch = b.epoch
			clear(given)
		}
		b.mu.Unlock()
		next := time.Minute
		if ops, gives := retime(v, b.conf.Bridge, brief, given); s != nil && brief != nil && len(ops) > 0 {
			err := b.commit(ctx, s, append(ops, touch(v)))
			if err == nil {
				for _, zone := range gives {
					given[zone] = true
				}
				complaint = ""
				continue
			}
			if next = timeoutAgain; ctx.Err() == nil && err.Error() != complaint {
				complaint = err.Error()
				b.conf.Log.WithError(err).Warn("closed connections are remembered for long")
			}
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-moved:
		case <-b.retime:
		case <-timer.C:
		}
		timer.Stop()
	}
	return ctx.Err()
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

// retime is the next transaction on the way to early ends in the zones brief and in no other
// of ours, and the zones that have theirs by it.
//
// ovs-vswitchd ignores the timeouts with which it first sees a zone (from 3.3 to 3.7 at least:
// ct_zone_alloc in its bridge.c copies them, and later looks for a difference). So a zone is
// first made or left without, and gets its timeouts when ovs-vswitchd has gone over that.
func retime(v view, bridge string, brief, given map[uint16]bool) (ops []operation, gives []uint16) {
	if v.root == nil || v.bridge == nil {
		return nil, nil
	}
	var missing []uint16
	for _, zone := range slices.Sorted(maps.Keys(brief)) {
		row := v.zones[zone]
		switch {
		case row == nil:
			missing = append(missing, zone)
		case row.ExternalIDs[zoneKey] != bridge:
		case row.Timeouts != "" && !given[zone]:
			ops = append(ops, update("CT_Zone", row.UUID, columns{"timeout_policy": set([]string{})}))
		case row.Timeouts == "" && v.settled():
			ops = append(ops, update("CT_Zone", row.UUID, columns{"timeout_policy": named("timeouts")}))
			gives = append(gives, zone)
		}
	}
	if len(gives) > 0 {
		ops = append(ops, insert("CT_Timeout_Policy", "timeouts", columns{"timeouts": []any{"map",
			[]any{[]any{"tcp_close", closedTime}, []any{"tcp_time_wait", closedTime}}}}))
	}
	return append(ops, append(v.addZones(missing, bridge), v.dropZones(brief, bridge)...)...), gives
}

// addZones makes rows of zones without timeouts. What nothing refers to any more of these
// tables, ovsdb-server deletes.
func (v view) addZones(zones []uint16, bridge string) (ops []operation) {
	if len(zones) == 0 {
		return nil
	}
	var pairs []any
	for _, zone := range zones {
		name := "zone" + strconv.Itoa(int(zone))
		ops = append(ops, insert("CT_Zone", name, columns{"external_ids": textMap(map[string]string{zoneKey: bridge})}))
		pairs = append(pairs, []any{zone, named(name)})
	}
	if v.datapath != "" {
		return append(ops, mutate("Datapath", v.datapath, add("ct_zones", []any{"map", pairs})))
	}
	return append(ops, insert("Datapath", "datapath", columns{"datapath_version": "", "ct_zones": []any{"map", pairs}}),
		mutate("Open_vSwitch", v.root.UUID, add("datapaths", []any{"map", []any{[]any{v.bridge.datapath(), named("datapath")}}})))
}

func (v view) dropZones(brief map[uint16]bool, bridge string) []operation {
	var strays []uint16
	for zone, row := range v.zones {
		if row.ExternalIDs[zoneKey] == bridge && !brief[zone] {
			strays = append(strays, zone)
		}
	}
	if len(strays) == 0 {
		return nil
	}
	slices.Sort(strays)
	return []operation{mutate("Datapath", v.datapath, remove("ct_zones", []any{"set", strays}))}
}
