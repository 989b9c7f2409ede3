package tenant

import (
	"net/netip"
	"time"
)

// Host is a Docker host and its tunnel endpoint: what rarely changes of it.
type Host struct {
	Meta               // ID is the host's name
	Name    string     `json:"name"`
	VTEP    netip.Addr `json:"vtep,omitzero"`
	Version string     `json:"version,omitempty"`
	// MTU is the underlay's at the VTEP; 0 if not known.
	MTU int `json:"mtu,omitempty"`
}

// HostStatus is what a host's plugin tells of itself every few seconds.
type HostStatus struct {
	Host    string `json:"host"`
	Version string `json:"version,omitempty"`
	// Seen is when the host told this, in UTC; set by the store.
	Seen time.Time `json:"seen"`
	// Programmed is the revision of the tenant state that the host's switch is at.
	Programmed int64 `json:"programmed,omitempty"`
	// Domains are the IDs of the domains present on the host, in order; the store sets
	// them if nil.
	Domains []string `json:"domains,omitempty"`
	// Error is what is wrong with the host; empty if nothing is.
	Error string `json:"error,omitempty"`
	// Alive is whether the host's plugin runs and reaches the store now. One that is not
	// alive is dead since Seen. It is not part of the stored value.
	Alive bool `json:"-"`
}
