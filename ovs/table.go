package ovs

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// tables are the monitored rows by table and UUID. A row is never changed, only
// replaced.
type tables struct {
	roots      map[string]*rootRow
	bridges    map[string]*bridgeRow
	ports      map[string]*portRow
	interfaces map[string]*interfaceRow
	qos        map[string]*qosRow
	queues     map[string]*queueRow
	datapaths  map[string]*datapathRow
	zones      map[string]*zoneRow
}

func newTables() tables {
	return tables{map[string]*rootRow{}, map[string]*bridgeRow{}, map[string]*portRow{}, map[string]*interfaceRow{},
		map[string]*qosRow{}, map[string]*queueRow{}, map[string]*datapathRow{}, map[string]*zoneRow{}}
}

// monitored is monitor_cond's request: the columns that fields below name. A column
// that ovs-vswitchd writes every few seconds (statistics) must not be among them.
func monitored() map[string]any {
	request := map[string]any{}
	for table, row := range map[string]record{"Open_vSwitch": &rootRow{}, "Bridge": &bridgeRow{},
		"Port": &portRow{}, "Interface": &interfaceRow{}, "QoS": &qosRow{}, "Queue": &queueRow{},
		"Datapath": &datapathRow{}, "CT_Zone": &zoneRow{}} {
		request[table] = []any{map[string]any{"columns": slices.Sorted(maps.Keys(row.fields()))}}
	}
	return request
}

// record is a row: where the value of each monitored column goes.
type record interface{ fields() map[string]target }

// target is the field of a column: *string, *int, *bool (also of an optional value,
// whose zero means none), *[]string for a set, *map[string]string.
type target any

func (r *rootRow) fields() map[string]target {
	return map[string]target{"bridges": &r.Bridges, "datapath_types": &r.DatapathTypes, "datapaths": &r.Datapaths,
		"ovs_version": &r.Version, "next_cfg": &r.NextCfg, "cur_cfg": &r.CurCfg}
}

func (r *bridgeRow) fields() map[string]target {
	return map[string]target{"name": &r.Name, "ports": &r.Ports, "datapath_type": &r.DatapathType,
		"datapath_id": &r.DatapathID, "fail_mode": &r.FailMode, "protocols": &r.Protocols,
		"mcast_snooping_enable": &r.McastSnooping, "stp_enable": &r.STP, "rstp_enable": &r.RSTP,
		"other_config": &r.OtherConfig, "external_ids": &r.ExternalIDs}
}

func (r *portRow) fields() map[string]target {
	return map[string]target{"name": &r.Name, "interfaces": &r.Interfaces, "qos": &r.QoS}
}

func (r *interfaceRow) fields() map[string]target {
	return map[string]target{"name": &r.Name, "type": &r.Type, "options": &r.Options, "ofport": &r.OFPort,
		"ofport_request": &r.OFPortRequest, "error": &r.Error, "external_ids": &r.ExternalIDs,
		"ifindex": &r.IfIndex, "mac_in_use": &r.MACInUse}
}

// change is one row of an update: exactly one of its members is there, and delete's is null.
type change struct {
	Initial, Insert, Modify map[string]json.RawMessage
}

// apply takes in an update2 (ovsdb-server(7) §4.1.14). After an error the tables are of
// no use.
func (t *tables) apply(update json.RawMessage) error {
	var u map[string]map[string]change
	if err := json.Unmarshal(update, &u); err != nil {
		return err
	}
	for table, rows := range u {
		for uuid, c := range rows {
			var err error
			switch table {
			case "Open_vSwitch":
				err = applyRow(t.roots, uuid, c)
			case "Bridge":
				err = applyRow(t.bridges, uuid, c)
			case "Port":
				err = applyRow(t.ports, uuid, c)
			case "Interface":
				err = applyRow(t.interfaces, uuid, c)
			case "QoS":
				err = applyRow(t.qos, uuid, c)
			case "Queue":
				err = applyRow(t.queues, uuid, c)
			case "Datapath":
				err = applyRow(t.datapaths, uuid, c)
			case "CT_Zone":
				err = applyRow(t.zones, uuid, c)
			}
			if err != nil {
				return fmt.Errorf("table %s: row %s: %w", table, uuid, err)
			}
		}
	}
	return nil
}

func applyRow[R any, P interface {
	*R
	record
	identify(uuid string)
}](rows map[string]*R, uuid string, c change) error {
	row := P(new(R))
	row.identify(uuid)
	columns := c.Initial
	switch {
	case c.Insert != nil:
		columns = c.Insert
	case c.Modify != nil:
		columns = c.Modify
		old, known := rows[uuid]
		if !known {
			return fmt.Errorf("changed but never seen")
		}
		*row = *old
	case c.Initial == nil:
		delete(rows, uuid)
		return nil
	}
	fields := row.fields()
	for column, v := range columns {
		if f, ours := fields[column]; ours {
			if err := assign(f, v, c.Modify != nil); err != nil {
				return fmt.Errorf("column %s: %w", column, err)
			}
		}
	}
	rows[uuid] = row
	return nil
}

func (r *rootRow) identify(uuid string)      { r.UUID = uuid }
func (r *bridgeRow) identify(uuid string)    { r.UUID = uuid }
func (r *portRow) identify(uuid string)      { r.UUID = uuid }
func (r *interfaceRow) identify(uuid string) { r.UUID = uuid }

// assign decodes a value of RFC 7047 §5.1 into a field. In a modification, a set is the
// elements that came or went, and a map the keys that came, went (with the value they
// had) or changed; anything else is the new value.
func assign(f target, v json.RawMessage, difference bool) error {
	if m, ok := f.(*map[string]string); ok {
		return assignMap(m, v, difference)
	}
	atoms, err := elements(v)
	if err != nil {
		return err
	}
	if s, ok := f.(*[]string); ok {
		return assignSet(s, atoms, difference)
	}
	if len(atoms) > 1 {
		return fmt.Errorf("%d values where there can be one", len(atoms))
	}
	var atom json.RawMessage
	if len(atoms) == 1 {
		atom = atoms[0]
	}
	switch f := f.(type) {
	case *string:
		*f, err = text(atom)
		return err
	case *bool:
		*f = false
		return unmarshalIf(atom, f)
	case *int:
		*f = 0
		return unmarshalIf(atom, f)
	}
	return fmt.Errorf("no way to hold it in %T", f)
}

func unmarshalIf(v json.RawMessage, to any) error {
	if v == nil {
		return nil
	}
	return json.Unmarshal(v, to)
}

// elements are the atoms of a set; a set of one is written as the atom alone.
func elements(v json.RawMessage) ([]json.RawMessage, error) {
	if len(v) == 0 || v[0] != '[' {
		return []json.RawMessage{v}, nil
	}
	var tagged [2]json.RawMessage
	if err := json.Unmarshal(v, &tagged); err != nil {
		return nil, err
	}
	if string(tagged[0]) != `"set"` { // ["uuid", "…"]
		return []json.RawMessage{v}, nil
	}
	var atoms []json.RawMessage
	return atoms, json.Unmarshal(tagged[1], &atoms)
}

func assignSet(s *[]string, atoms []json.RawMessage, difference bool) error {
	texts := make([]string, len(atoms))
	for i, a := range atoms {
		var err error
		if texts[i], err = text(a); err != nil {
			return err
		}
	}
	if !difference {
		*s = texts
		return nil
	}
	came := map[string]bool{}
	for _, t := range texts {
		came[t] = true
	}
	next := make([]string, 0, len(*s)+len(texts))
	for _, old := range *s {
		if came[old] {
			delete(came, old)
		} else {
			next = append(next, old)
		}
	}
	*s = slices.AppendSeq(next, maps.Keys(came))
	return nil
}

// text is an atom as text: a string, the UUID of a row, or anything else as it is written.
func text(atom json.RawMessage) (s string, err error) {
	switch {
	case len(atom) > 0 && atom[0] == '"':
		err = json.Unmarshal(atom, &s)
	case len(atom) > 0 && atom[0] == '[':
		var uuid [2]string
		err = json.Unmarshal(atom, &uuid)
		s = uuid[1]
	default:
		s = string(atom)
	}
	return s, err
}

func assignMap(m *map[string]string, v json.RawMessage, difference bool) error {
	var tagged [2]json.RawMessage
	var pairs [][2]json.RawMessage
	if err := json.Unmarshal(v, &tagged); err != nil {
		return err
	}
	if err := json.Unmarshal(tagged[1], &pairs); err != nil {
		return err
	}
	next := map[string]string{}
	if difference {
		maps.Copy(next, *m)
	}
	for _, p := range pairs {
		key, err := text(p[0])
		if err != nil {
			return err
		}
		value, err := text(p[1])
		if err != nil {
			return err
		}
		if old, has := next[key]; difference && has && old == value {
			delete(next, key)
		} else {
			next[key] = value
		}
	}
	*m = next
	return nil
}
