package ovs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"
)

// PortSpec is a port that there should be. Its name is that of the link, at most 15
// characters.
type PortSpec struct {
	Name string
	// Type is the interface's type: "" for a link of the host, "internal", "vxlan" …;
	// Options are its options.
	Type        string
	Options     map[string]string
	ExternalIDs map[string]string
}

// Port is a port of the bridge, ours or not.
type Port struct {
	Name string
	Type string
	// OFPort is the number that was asked for until ovs-vswitchd confirms one; 0 if
	// none was asked for.
	OFPort      uint32
	Confirmed   bool
	ExternalIDs map[string]string // of the interface; not to be changed
	Error       string            // why ovs-vswitchd cannot use it: its link is gone, say
	Shape       Shape             // what SetShaping has set; zero if nothing
}

// EnsurePort makes the port if the bridge has none of that name, and returns it, without
// waiting for ovs-vswitchd. A new port asks for a number that no port has or had lately;
// a port that exists keeps its number unless it has an Error, gets the type and the options of the spec and the
// spec's external IDs beside those that it has. After a link was deleted and made again
// under its name, DeletePort comes first: its loss may not have been seen yet. It may be repeated and called
// concurrently, also for one name. Ports shows the port when it returns.
//
// A connection that is being restored is waited for shortly; then, or at ctx's end, the
// error wraps ErrUnavailable.
func (b *Bridge) EnsurePort(ctx context.Context, spec PortSpec) (Port, error) {
	if err := checkName(spec.Name); err != nil {
		return Port{}, err
	}
	var number uint32
	defer func() { b.drop(number) }()
	for {
		s, v, err := b.ready(ctx)
		if err != nil {
			return Port{}, fmt.Errorf("port %s: %w", spec.Name, err)
		}
		if owner, taken := v.elsewhere[spec.Name]; taken {
			return Port{}, fmt.Errorf("port %s: bridge %s has a port of that name", spec.Name, owner)
		}
		var ops []operation
		if m, exists := v.ports[spec.Name]; exists {
			if ops = b.alter(v, m, spec, &number); len(ops) == 0 {
				if m.Error != "" {
					m.OFPort = uint32(m.row.OFPortRequest)
				}
				return m.Port, nil
			}
		} else if number, err = b.take(spec.Name, v); err != nil {
			return Port{}, fmt.Errorf("port %s: %w", spec.Name, err)
		} else {
			ops = newPort(v, spec, number)
		}
		if err := b.commit(ctx, s, ops); err != nil {
			return Port{}, fmt.Errorf("port %s: %w", spec.Name, err)
		}
	}
}

func checkName(name string) error {
	if name == "" || len(name) > 15 {
		return fmt.Errorf("port %q: a name has 1 to 15 characters", name)
	}
	return nil
}

// newPort inserts a port. All rows hang on the bridge: if that is gone by then, the
// mutation touches nothing and the database drops the rest.
func newPort(v view, spec PortSpec, number uint32) []operation {
	row := columns{"name": spec.Name, "type": spec.Type, "ofport_request": int(number),
		"options": textMap(spec.Options), "external_ids": textMap(spec.ExternalIDs)}
	last := map[string]string{lastNumberKey: strconv.Itoa(int(number))}
	return []operation{
		insert("Interface", "iface", row),
		insert("Port", "port", columns{"name": spec.Name, "interfaces": named("iface")}),
		mutate("Bridge", v.bridge.UUID, append(putKeys("external_ids", last), add("ports", named("port")))...),
		touch(v),
	}
}

// alter makes an existing port as the spec says; no operation if it is.
func (b *Bridge) alter(v view, m member, spec PortSpec, number *uint32) []operation {
	row, ids := columns{}, map[string]string{}
	if m.row.Type != spec.Type {
		row["type"] = spec.Type
	}
	if !maps.Equal(m.row.Options, spec.Options) {
		row["options"] = textMap(spec.Options)
	}
	// Without a number: somebody made it, and ovs-vswitchd gave none yet. With an error: a
	// new number is what makes ovs-vswitchd open the link anew (see follow).
	asked := *number != 0 && m.row.OFPortRequest == int(*number)
	if (m.OFPort == 0 || m.Error != "") && !asked {
		if n, err := b.take(spec.Name, v); err == nil {
			*number, row["ofport_request"] = n, int(n)
		}
	}
	for k, value := range spec.ExternalIDs {
		if old, has := m.row.ExternalIDs[k]; !has || old != value {
			ids[k] = value
		}
	}
	var ops []operation
	if len(row) > 0 {
		ops = append(ops, update("Interface", m.row.UUID, row))
	}
	if len(ids) > 0 {
		ops = append(ops, mutate("Interface", m.row.UUID, putKeys("external_ids", ids)...))
	}
	if len(ops) > 0 {
		ops = append(ops, touch(v))
	}
	return ops
}

// commit runs operations and takes their effect into the view. That somebody else was
// faster, or that the connection broke, is no error: look again and decide anew.
func (b *Bridge) commit(ctx context.Context, s *session, ops []operation) error {
	err := s.transact(ctx, ops)
	var refused refusal
	switch {
	case err == nil, errors.As(err, &refused) && refused.taken():
		b.refresh(s)
		return nil
	case errors.Is(err, errLost):
		b.leave(s)
		return nil
	case errors.As(err, &refused):
		return err
	}
	return fmt.Errorf("%w (%w)", unavailable("ovsdb-server at "+b.conf.DB+" has not answered in time: look after openvswitch-switch"), err)
}

// leave makes nobody use a lost session again before keepDB has noticed.
func (b *Bridge) leave(s *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.session == s {
		b.session = nil
	}
}

// ready waits until the bridge is there, but no longer than patience.
func (b *Bridge) ready(ctx context.Context) (*session, view, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		b.mu.Lock()
		s, v, moved, reason, problem := b.session, b.view, b.moved, b.db.Error, b.problem
		b.mu.Unlock()
		if s != nil && v.root != nil && v.bridge != nil {
			return s, v, nil
		}
		switch {
		case s != nil && problem != "":
			reason = problem
		case s != nil || reason == "":
			reason = fmt.Sprintf("bridge %s is not there yet", b.conf.Bridge)
		}
		select {
		case <-moved:
		case <-timer.C:
			return nil, view{}, unavailable(reason)
		case <-ctx.Done():
			return nil, view{}, fmt.Errorf("%w (%w)", unavailable(reason), context.Cause(ctx))
		}
	}
}

func (b *Bridge) take(name string, v view) (uint32, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.numbers.take(name, v)
}

func (b *Bridge) drop(number uint32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.numbers.drop(number)
}

// WaitPort waits until ovs-vswitchd has confirmed the port's number and serves the
// bridge: what the database has is older than the last restart otherwise. It returns an error
// at once when ovs-vswitchd cannot use the port, with the reason; when the port is not on
// the bridge (ErrNoPort); and at ctx's end (ErrUnavailable).
//
// ovs-vswitchd goes over all ports at each change, in the userspace datapath with a
// linear search for each, and answers nobody meanwhile: 2 ms with 10 ports, 20 with 200.
func (b *Bridge) WaitPort(ctx context.Context, name string) (Port, error) {
	s, v, err := b.ready(ctx)
	if err != nil {
		return Port{}, fmt.Errorf("port %s: %w", name, err)
	}
	if m, exists := v.ports[name]; exists && m.Error != "" {
		// The error may be older than the link: let ovs-vswitchd look again.
		if err := b.commit(ctx, s, []operation{touch(v)}); err != nil {
			return Port{}, fmt.Errorf("port %s: %w", name, err)
		}
	}
	for {
		b.mu.Lock()
		m, exists := b.view.ports[name]
		settled, moved, of := b.view.settled(), b.moved, b.of
		b.mu.Unlock()
		switch {
		case !exists:
			return Port{}, fmt.Errorf("port %s: %w on bridge %s", name, ErrNoPort, b.conf.Bridge)
		case m.Confirmed && m.Error == "" && of.Connected:
			return m.Port, nil
		case m.Error != "" && settled:
			return m.Port, fmt.Errorf("port %s: ovs-vswitchd cannot use it: %s", name, m.Error)
		}
		select {
		case <-moved:
		case <-ctx.Done():
			reason := "ovs-vswitchd has not taken up the port in time"
			if !of.Connected {
				reason = of.Error
			}
			return m.Port, fmt.Errorf("port %s: %w (%w)", name, unavailable(reason), context.Cause(ctx))
		}
	}
}

// DeletePort removes the port; a port that is not there is nil. Ports shows it no more
// when it returns. It waits for a connection as EnsurePort does.
func (b *Bridge) DeletePort(ctx context.Context, name string) error {
	if name == b.conf.Bridge {
		return fmt.Errorf("port %s: it is the bridge's own", name)
	}
	for {
		s, v, err := b.ready(ctx)
		if err != nil {
			return fmt.Errorf("port %s: %w", name, err)
		}
		m, exists := v.ports[name]
		if !exists {
			return nil
		}
		if m.port.Name != name {
			return fmt.Errorf("port %s: it is part of the bond %s", name, m.port.Name)
		}
		ops := []operation{mutate("Bridge", v.bridge.UUID, remove("ports", uuid(m.port.UUID))), touch(v)}
		ops = append(ops, v.shaping.drop(m.port)...)
		if err := b.commit(ctx, s, ops); err != nil {
			return fmt.Errorf("port %s: %w", name, err)
		}
	}
}

// Ports are the ports of the bridge by name, without the bridge's own, as last seen;
// also while there is no connection.
func (b *Bridge) Ports() map[string]Port {
	v := b.look()
	ports := make(map[string]Port, len(v.ports))
	for name, m := range v.ports {
		ports[name] = m.Port
	}
	return ports
}
