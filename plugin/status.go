package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"nuage/controller/tenant"
	"nuage/controller/vsd"
)

// status is what `nuagectl status` shows. It looks at what is known and asks nobody.
func (n *node) status() vsd.Status {
	s := vsd.Status{Host: n.host, Version: version, VTEP: n.settings.VTEP, Started: n.started,
		UptimeSeconds: int64(time.Since(n.started).Seconds())}
	s.Settings = settingErrors(n.settings)
	n.storeStatus(&s)
	sw := n.bridge.Status()
	s.Switch = vsd.SwitchStatus{Bridge: sw.Bridge, Datapath: sw.Datapath, Version: sw.Version, Ports: len(n.bridge.Ports()),
		Connected: sw.OVSDB.Connected && sw.OpenFlow.Connected}
	for _, problem := range []string{sw.OVSDB.Error, sw.OpenFlow.Error, sw.Problem} {
		if problem != "" && s.Switch.Error == "" {
			s.Switch.Error = problem
		}
	}
	s.Switch.Tunnel = vsd.TunnelStatus{Port: sw.Tunnel.Port, VTEP: n.vtep(), Problem: sw.Tunnel.Problem}
	if !n.alone() && !n.vtep().IsValid() && !n.settings.NoVTEP {
		s.Switch.Tunnel.Problem = "this host has no VTEP, since it has no default route: set NUAGE_VTEP to its underlay address or interface"
	}
	a := n.agent.Status()
	s.Agent = vsd.AgentStatus{Revision: a.Revision, Flows: a.Flows, Error: text(a.Err)}
	n.store.Feed().View(func(st *tenant.State) { s.Agent.Notes = notes(st, n.host, a.Notes) })
	for key, err := range a.Refused {
		s.Agent.Refused = append(s.Agent.Refused, fmt.Sprintf("%s %s: refused by the switch: %v", key.Kind, key.ID, err))
	}
	slices.Sort(s.Agent.Refused)
	nowhere, err := n.driver.Refused()
	if err != nil {
		s.Notes = append(s.Notes, err.Error())
	}
	for _, v := range nowhere {
		s.Agent.Notes = append(s.Agent.Notes, refusal(&v))
	}
	slices.Sort(s.Agent.Notes)
	version, err := n.engine.status()
	s.Docker = vsd.DockerStatus{Reachable: err == nil && version != "", Version: version, Error: text(err)}
	return s
}

// notes are the compiler's, and what was refused on this host that it does not see, such as a
// machine that goes on where it was; and the hosts whose MTU is of no use.
func notes(st *tenant.State, host string, compiled map[tenant.Key]string) (all []string) {
	for key, note := range compiled {
		all = append(all, fmt.Sprintf("%s %s: %s", key.Kind, key.ID, note))
	}
	st.Children(tenant.Key{Kind: tenant.KindHost, ID: host}, tenant.KindVport, func(id string) {
		key := tenant.Key{Kind: tenant.KindVport, ID: id}
		if v := st.Vports[id]; v != nil && v.Error != "" && compiled[key] == "" {
			all = append(all, refusal(v))
		}
	})
	for _, h := range st.Hosts {
		if err := h.Validate(); err != nil {
			all = append(all, fmt.Sprintf("%s %s: its record is not heeded for containers' MTU: %v", tenant.KindHost, h.ID, err))
		}
	}
	return all
}

func refusal(v *tenant.Vport) string {
	return fmt.Sprintf("%s %s: vport %s: %s", tenant.KindVport, v.ID, v.Name, v.Error)
}

func (n *node) storeStatus(s *vsd.Status) {
	s.Store = vsd.StoreStatus{Mode: "embedded", Endpoints: n.settings.Store}
	if len(n.settings.Store) > 0 || len(n.joined.Endpoints) > 0 {
		s.Store.Mode = "external"
	}
	if len(n.joined.Endpoints) > 0 {
		s.Store.Joined = strings.TrimPrefix(n.joined.Endpoints[0], "https://")
	}
	serving, served := n.store.Serving()
	if s.Store.Serving = serving; served != nil {
		served = fmt.Errorf("other hosts are not served: %w", served)
	}
	s.Store.Following = len(n.store.Following().Domains)
	err := storeError(n.store.Ready(), n.joined.TokenRefused)
	s.Store.Ready, s.Store.Error = err == nil, text(err)
	if err == nil {
		s.Store.Error = text(errors.Join(n.denied(), served))
	}
	n.store.Feed().View(func(st *tenant.State) {
		s.Store.Revision = st.Revision
		here := tenant.Key{Kind: tenant.KindHost, ID: n.host}
		st.Children(here, tenant.KindVport, func(string) { s.Endpoints++ })
		for _, network := range st.Networks {
			if network.Host == n.host {
				s.Networks++
			}
		}
	})
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
