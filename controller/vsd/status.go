package vsd

import (
	"net/netip"
	"strings"
	"time"
)

// Status is the state of one host's plugin, as GET /nuage/v1/status gives it. An empty
// Error or Problem means that nothing is wrong.
type Status struct {
	// Problems is what is wrong on this host, a line each, put together from what follows;
	// empty while the host is healthy. The handler sets it.
	Problems []string   `json:"problems,omitempty"`
	Host     string     `json:"host"`
	Version  string     `json:"version"`
	VTEP     netip.Addr `json:"vtep,omitzero"`
	Started  time.Time  `json:"started"`
	// UptimeSeconds is how long ago Started is.
	UptimeSeconds int64          `json:"uptimeSeconds"`
	Settings      []SettingError `json:"settings,omitempty"`
	Store         StoreStatus    `json:"store"`
	Switch        SwitchStatus   `json:"switch"`
	Agent         AgentStatus    `json:"agent"`
	Docker        DockerStatus   `json:"docker"`
	// Endpoints and Networks are Docker's, on this host.
	Endpoints int `json:"endpoints"`
	Networks  int `json:"networks"`
	// HostsKnown and HostsAlive count the hosts of the fleet, this one among them; both are
	// 0 while the store does not say. The handler sets them.
	HostsKnown int `json:"hostsKnown"`
	HostsAlive int `json:"hostsAlive"`
	// Notes is anything else that an operator should know.
	Notes []string `json:"notes,omitempty"`
}

// SettingError is a setting that cannot be used as it is.
type SettingError struct {
	Name    string `json:"name"`
	Problem string `json:"problem"`
}

// StoreStatus is the tenant store, as this host sees it.
type StoreStatus struct {
	// Mode is "embedded" or "external".
	Mode      string   `json:"mode"`
	Endpoints []string `json:"endpoints,omitempty"`
	Ready     bool     `json:"ready"`
	Revision  int64    `json:"revision"`
	// Following is the number of domains that this host follows.
	Following int `json:"following"`
	// Serving is the HOST:PORT at which other hosts join this one; empty if none can.
	Serving string `json:"serving,omitempty"`
	// Joined is the HOST:PORT of the host that this one has joined; empty if none.
	Joined string `json:"joined,omitempty"`
	Error  string `json:"error,omitempty"`
}

// SwitchStatus is Open vSwitch and the bridge.
type SwitchStatus struct {
	Bridge    string `json:"bridge"`
	Datapath  string `json:"datapath"` // "system" or "netdev"
	Version   string `json:"version,omitempty"`
	Connected bool   `json:"connected"` // to OVSDB and to the bridge's OpenFlow socket
	Ports     int    `json:"ports"`
	Error     string `json:"error,omitempty"`
	// Tunnel is the way to other hosts.
	Tunnel TunnelStatus `json:"tunnel"`
}

// TunnelStatus is the VXLAN port of the bridge.
type TunnelStatus struct {
	Port string     `json:"port,omitempty"` // its name; empty if there is none
	VTEP netip.Addr `json:"vtep,omitzero"`  // its local address
	// Problem is why other hosts are not reached through it, and what to do about it.
	Problem string `json:"problem,omitempty"`
}

// AgentStatus is what programs the bridge.
type AgentStatus struct {
	// Revision is the store's revision that the bridge's flows stand for.
	Revision int64 `json:"revision"`
	Flows    int   `json:"flows"`
	// Notes are dangling references and other oddities of the tenant state.
	Notes []string `json:"notes,omitempty"`
	// Refused are objects whose flows the switch does not take: what they are of has no network.
	Refused []string `json:"refused,omitempty"`
	Error   string   `json:"error,omitempty"`
}

// DockerStatus is the Docker engine of this host.
type DockerStatus struct {
	Reachable bool   `json:"reachable"`
	Version   string `json:"version,omitempty"`
	Error     string `json:"error,omitempty"`
}

// problems are the lines of Status.Problems.
func (s *Status) problems() (lines []string) {
	add := func(is bool, what, why string) {
		if is {
			part, _, _ := strings.Cut(what, " ") // which an error may name itself
			lines = append(lines, strings.TrimSuffix(what+": "+strings.TrimPrefix(why, part+": "), ": "))
		}
	}
	for _, p := range s.Settings {
		add(true, "setting "+p.Name, p.Problem)
	}
	add(!s.Store.Ready, "store not ready", s.Store.Error)
	add(s.Store.Ready && s.Store.Error != "", "store", s.Store.Error)
	add(!s.Switch.Connected, "switch not connected", s.Switch.Error)
	add(s.Switch.Connected && s.Switch.Error != "", "switch", s.Switch.Error)
	add(s.Switch.Tunnel.Problem != "", "tunnel", s.Switch.Tunnel.Problem)
	add(s.Agent.Error != "", "agent", s.Agent.Error)
	for _, r := range s.Agent.Refused {
		add(true, "switch", r)
	}
	add(!s.Docker.Reachable, "Docker not reachable", s.Docker.Error)
	return lines
}
