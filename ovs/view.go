package ovs

import "maps"

// The monitored rows. An optional value that is absent is the zero value.
type (
	rootRow struct {
		UUID            string
		Bridges         []string
		DatapathTypes   []string
		Datapaths       map[string]string // rows of Datapath, by type
		Version         string
		NextCfg, CurCfg int
	}
	bridgeRow struct {
		UUID, Name               string
		Ports                    []string
		DatapathType, DatapathID string
		FailMode                 string
		Protocols                []string
		McastSnooping, STP, RSTP bool
		OtherConfig, ExternalIDs map[string]string
	}
	portRow struct {
		UUID, Name string
		Interfaces []string
		QoS        string
	}
	interfaceRow struct {
		UUID, Name, Type     string
		Options, ExternalIDs map[string]string
		OFPort               int // 0 until ovs-vswitchd has chosen, -1 if it cannot
		OFPortRequest        int
		Error                string
		IfIndex              string // ephemeral, as MACInUse is: empty until ovs-vswitchd writes it
		MACInUse             string
	}
)

func (r *bridgeRow) datapath() string {
	if r.DatapathType == "" {
		return System
	}
	return r.DatapathType
}

// view is what the database says of one bridge, immutable once made.
type view struct {
	root   *rootRow
	bridge *bridgeRow        // nil: the bridge does not exist
	ports  map[string]member // by interface name, without the bridge's own port
	// elsewhere has the names that no port of ours can have, and the bridges that have
	// them: names are unique among all bridges, bonds and bridges' own ports included.
	elsewhere map[string]string
	// internal has the links that bridges, this one included, made for the host itself, and
	// the datapath of that bridge.
	internal map[string]string
	shaping  shaping
	datapath string // the row of the bridge's Datapath; "" if there is none
	zones    map[uint16]*zoneRow
}

// member is a port of the bridge.
type member struct {
	Port
	row  *interfaceRow
	port *portRow
	link string // the last index of its link that was seen
	deaf bool   // see follow
}

// look is the view of one bridge.
func (t *tables) look(name string) view {
	v := view{ports: map[string]member{}, elsewhere: map[string]string{}, internal: map[string]string{}, shaping: t.shaping(name)}
	for _, root := range t.roots {
		v.root = root
	}
	for _, bridge := range t.bridges {
		if bridge.Name == name {
			v.bridge = bridge
		}
		for _, id := range bridge.Ports {
			if port := t.ports[id]; port != nil {
				t.lookPort(&v, name, bridge, port)
			}
		}
	}
	t.lookZones(&v)
	return v
}

func (t *tables) lookPort(v *view, name string, bridge *bridgeRow, port *portRow) {
	for _, id := range port.Interfaces {
		row := t.interfaces[id]
		if row != nil && row.Type == "internal" {
			v.internal[row.Name] = bridge.datapath()
		}
		switch {
		case row == nil:
		case bridge.Name != name:
			v.elsewhere[row.Name] = bridge.Name
		case row.Name != name:
			m := member{Port: row.toPort(), row: row, port: port}
			m.Shape = v.shaping.shape(port)
			v.ports[row.Name] = m
		}
	}
	if _, shown := v.ports[port.Name]; !shown {
		v.elsewhere[port.Name] = bridge.Name
	}
}

func (r *interfaceRow) toPort() Port {
	p := Port{Name: r.Name, Type: r.Type, ExternalIDs: r.ExternalIDs, Error: r.Error}
	if r.OFPort > 0 {
		p.OFPort, p.Confirmed = uint32(r.OFPort), true
	} else {
		p.OFPort = uint32(r.OFPortRequest)
	}
	switch {
	case p.Error != "":
	case r.OFPort < 0:
		p.Error = "ovs-vswitchd could not add it; its log says why"
	case r.vanished():
		p.Error, p.Confirmed = "its link has vanished", false
	}
	return p
}

// vanished tells whether the link of a port has gone since ovs-vswitchd took it up, which
// the userspace datapath does not call an error. (A dummy has no index, but an address.)
func (r *interfaceRow) vanished() bool {
	return r.IfIndex == "0" && r.MACInUse == "" && r.OFPort > 0
}

// follow carries over what only a sequence of views tells: in the userspace datapath a
// port stays with a link that was deleted, and is deaf to another of the same name,
// until ovs-vswitchd opens it anew for another number.
func (v view) follow(old view) {
	for name, m := range v.ports {
		m.link = m.row.IfIndex
		before, known := old.ports[name]
		if known && before.row.UUID == m.row.UUID && before.row.OFPort == m.row.OFPort {
			if m.link == "" || m.link == "0" {
				m.link = before.link
			}
			m.deaf = before.deaf || v.bridge.datapath() == Netdev && before.link != "" && m.link != before.link
		}
		if m.deaf && m.Error == "" {
			m.Error, m.Confirmed = "its link was deleted and another made", false
		}
		v.ports[name] = m
	}
}

// samePorts tells whether two views are the same to a reader of Ports.
func samePorts(a, b view) bool {
	return (a.bridge == nil) == (b.bridge == nil) && maps.EqualFunc(a.ports, b.ports, func(x, y member) bool {
		return x.OFPort == y.OFPort && x.Confirmed == y.Confirmed && x.Type == y.Type && x.Shape == y.Shape &&
			x.Error == y.Error && maps.Equal(x.ExternalIDs, y.ExternalIDs)
	})
}

// settled tells whether ovs-vswitchd has acted on all that was asked of it until now.
func (v view) settled() bool { return v.root != nil && v.root.CurCfg >= v.root.NextCfg }
