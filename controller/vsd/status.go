package vsd

import (
	"net/netip"
	"time"
)

// Status is the state of one host's plugin, as GET /nuage/v1/status gives it. An empty
// Error or Problem means that nothing is wrong.
type Status struct {
	Host    string     `json:"host"`
	Version string     `json:"version"`
	VTEP    netip.Addr `json:"vtep,omitzero"`
	Started time.Time  `json:"started"`
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
	Error     string   `json:"error,omitempty"`
}

// SwitchStatus is Open vSwitch and the bridge.
type SwitchStatus struct {
	Bridge    string `json:"bridge"`
	Datapath  string `json:"datapath"` // "system" or "netdev"
	Version   string `json:"version,omitempty"`
	Connected bool   `json:"connected"` // to OVSDB and to the bridge's OpenFlow socket
	Ports     int    `json:"ports"`
	Error     string `json:"error,omitempty"`
}

// AgentStatus is what programs the bridge.
type AgentStatus struct {
	// Revision is the store's revision that the bridge's flows stand for.
	Revision int64 `json:"revision"`
	Flows    int   `json:"flows"`
	// Notes are dangling references and other oddities of the tenant state.
	Notes []string `json:"notes,omitempty"`
	Error string   `json:"error,omitempty"`
}

// DockerStatus is the Docker engine of this host.
type DockerStatus struct {
	Reachable bool   `json:"reachable"`
	Version   string `json:"version,omitempty"`
	Error     string `json:"error,omitempty"`
}
