package ovs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// protocols of a new bridge. OpenFlow14 is what we speak; the others are for people
// with ovs-ofctl, whose default is OpenFlow10.
var protocols = []string{"OpenFlow10", "OpenFlow13", "OpenFlow14", "OpenFlow15"}

const ownProtocol = "OpenFlow14"

// keep compares the bridge with what it should be. It returns the operations of one
// transaction that repair it, none if all is well, and what it must not repair, in words.
//
// asked is the next_cfg of a request that was made while the bridge had no datapath_id,
// 0 if none was.
//
// The datapath in mode auto: a new bridge gets the kernel's, unless ovs-vswitchd was
// built or started without it (Open_vSwitch.datapath_types lacks "system"). That column
// has "system" too where the kernel lacks the module; then ovs-vswitchd completes the
// configuration (cur_cfg reaches asked) without giving the bridge a datapath_id, and the
// bridge becomes netdev. The empty column alone says nothing: it is ephemeral, and empty
// after each restart of ovsdb-server until ovs-vswitchd is connected again. An existing
// bridge keeps a datapath that opens.
func keep(v view, name, datapath, hwaddr string, asked int) (ops []operation, problem string) {
	switch {
	case v.root == nil: // what `ovs-vsctl init` does, where nothing did it
		return []operation{insert("Open_vSwitch", "root", columns{})}, ""
	case v.bridge == nil:
		if owner, taken := v.elsewhere[name]; taken {
			return nil, fmt.Sprintf("bridge %s: a port of bridge %s has that name: remove it or choose another name", name, owner)
		}
		return create(v, name, firstDatapath(v, datapath), hwaddr), ""
	}
	failed := v.bridge.DatapathID == "" && asked > 0 && v.root.CurCfg >= asked
	row, problem := repairDatapath(v, datapath, failed)
	if v.bridge.FailMode != "secure" {
		row["fail_mode"] = "secure"
	}
	if len(v.bridge.Protocols) > 0 && !slices.Contains(v.bridge.Protocols, ownProtocol) {
		row["protocols"] = set(append(slices.Clone(v.bridge.Protocols), ownProtocol))
	}
	for column, on := range map[string]bool{"mcast_snooping_enable": v.bridge.McastSnooping,
		"stp_enable": v.bridge.STP, "rstp_enable": v.bridge.RSTP} {
		if on {
			row[column] = false
		}
	}
	if len(row) > 0 {
		ops = append(ops, update("Bridge", v.bridge.UUID, row))
	}
	lacks := map[string]string{}
	if v.bridge.OtherConfig["disable-in-band"] != "true" {
		lacks["disable-in-band"] = "true"
	}
	if v.bridge.OtherConfig["hwaddr"] == "" {
		lacks["hwaddr"] = hwaddr
	}
	if len(lacks) > 0 {
		ops = append(ops, mutate("Bridge", v.bridge.UUID, putKeys("other_config", lacks)...))
	}
	ops = append(ops, v.shaping.strays()...)
	if len(ops) > 0 || v.bridge.DatapathID == "" && asked == 0 {
		ops = append(ops, touch(v))
	}
	return ops, problem
}

func firstDatapath(v view, want string) string {
	if want != Auto {
		return want
	}
	if len(v.root.DatapathTypes) > 0 && !slices.Contains(v.root.DatapathTypes, System) {
		return Netdev
	}
	return System
}

// repairDatapath is the change of the datapath of an existing bridge, if one may be made.
func repairDatapath(v view, want string, failed bool) (columns, string) {
	row, has := columns{}, v.bridge.datapath()
	target := want
	if want == Auto {
		if target = has; failed && has == System {
			target = Netdev
		}
	}
	switch {
	case target == has && failed:
		return row, fmt.Sprintf("bridge %s: ovs-vswitchd could not open datapath %s: %s", v.bridge.Name, has, remedy(has))
	case target == has:
		return row, ""
	case len(v.ports) > 0 && !failed: // a datapath that never opened has no traffic to lose
		return row, fmt.Sprintf("bridge %s: it has datapath %s and ports (%s): not changed to %s: remove the ports or set the datapath to %s",
			v.bridge.Name, has, someNames(v), target, has)
	}
	row["datapath_type"] = target
	return row, ""
}

func remedy(datapath string) string {
	if datapath == System {
		return "load the kernel module openvswitch and restart openvswitch-switch, or set the datapath to netdev"
	}
	return "its log says why"
}

func someNames(v view) string {
	names := make([]string, 0, len(v.ports))
	for name := range v.ports {
		names = append(names, name)
	}
	slices.Sort(names)
	if len(names) > 3 {
		names = append(names[:3], "…")
	}
	return strings.Join(names, ", ")
}

// create makes the bridge. Its hardware address is fixed: left alone, it and the
// datapath ID follow the ports, and every change of the ID breaks all OpenFlow connections.
func create(v view, name, datapath, hwaddr string) []operation {
	return []operation{
		insert("Interface", "iface", columns{"name": name, "type": "internal"}),
		insert("Port", "port", columns{"name": name, "interfaces": named("iface")}),
		insert("Bridge", "bridge", columns{"name": name, "ports": named("port"), "datapath_type": datapath,
			"fail_mode": "secure", "protocols": set(protocols),
			"other_config": textMap(map[string]string{"disable-in-band": "true", "hwaddr": hwaddr})}),
		mutate("Open_vSwitch", v.root.UUID, add("bridges", named("bridge"))),
		touch(v),
	}
}

// repair makes one repair if one is needed and may be made now, and returns how long to
// wait for the next look if nothing happens. An error is the end of the session.
func (b *Bridge) repair(ctx context.Context, s *session) (time.Duration, error) {
	v := b.look()
	if v.bridge == nil || v.bridge.DatapathID != "" {
		s.asked = 0
	}
	ops, problem := keep(v, b.conf.Bridge, b.conf.Datapath, b.hwaddr, s.asked)
	if len(ops) == 0 {
		b.setProblem(problem)
		return time.Minute, nil
	}
	if wait := repairPause - time.Since(b.repaired); wait > 0 {
		return wait, nil
	}
	ctx, cancel := context.WithTimeout(ctx, repairTime)
	defer cancel()
	err := s.transact(ctx, ops)
	b.repaired = time.Now()
	var refused refusal
	switch {
	case errors.As(err, &refused):
		b.setProblem(fmt.Sprintf("bridge %s: cannot be made as configured: %v", b.conf.Bridge, err))
	case err != nil:
		return 0, err
	default:
		b.setProblem(problem)
		b.refresh(s)
		if v = b.look(); v.root != nil {
			s.asked = v.root.NextCfg
		}
		if len(ops) > 1 { // more than asking
			b.conf.Log.WithField("bridge", b.conf.Bridge).Info("made the bridge as configured")
		}
	}
	return repairPause, nil
}

func (b *Bridge) look() view {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.view
}

func (b *Bridge) setProblem(problem string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if problem == b.problem {
		return
	}
	if b.problem = problem; problem != "" {
		b.conf.Log.Error(problem)
	}
	b.move()
}
