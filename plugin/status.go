package main

import (
	"fmt"
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
	a := n.agent.Status()
	s.Agent = vsd.AgentStatus{Revision: a.Revision, Flows: a.Flows, Error: text(a.Err)}
	for key, note := range a.Notes {
		s.Agent.Notes = append(s.Agent.Notes, fmt.Sprintf("%s %s: %s", key.Kind, key.ID, note))
	}
	for key, err := range a.Refused {
		s.Agent.Notes = append(s.Agent.Notes, fmt.Sprintf("%s %s: refused by the switch: %v", key.Kind, key.ID, err))
	}
	version, err := n.engine.status()
	s.Docker = vsd.DockerStatus{Reachable: err == nil && version != "", Version: version, Error: text(err)}
	return s
}

func (n *node) storeStatus(s *vsd.Status) {
	s.Store = vsd.StoreStatus{Mode: "embedded", Endpoints: n.settings.Store}
	if len(n.settings.Store) > 0 || len(n.joined.Endpoints) > 0 {
		s.Store.Mode = "external"
	}
	if len(n.joined.Endpoints) > 0 {
		s.Store.Joined = strings.TrimPrefix(n.joined.Endpoints[0], "https://")
	}
	if serving, err := n.store.Serving(); err == nil {
		s.Store.Serving = serving
	} else if n.settings.Listen != "" {
		s.Notes = append(s.Notes, "other hosts cannot join: "+err.Error())
	}
	s.Store.Following = len(n.store.Following().Domains)
	err := n.store.Ready()
	s.Store.Ready, s.Store.Error = err == nil, text(err)
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
