package tenant

import (
	"net/netip"
	"time"
)

// LeastUnderlayMTU is what leaves a container the 576 bytes that every host of IPv4 takes: all
// containers have the MTU of the narrowest underlay, so that less on one host would take the
// network from all.
const LeastUnderlayMTU = 626

// maxUnderlayMTU leaves a container the largest MTU that an interface can have.
const maxUnderlayMTU = 65535 + 50

// Host is a Docker host and its tunnel endpoint: what rarely changes of it.
type Host struct {
	Meta               // ID is the host's name
	Name    string     `json:"name"`
	VTEP    netip.Addr `json:"vtep,omitzero"`
	Version string     `json:"version,omitempty"`
	// MTU is the underlay's at the VTEP, from LeastUnderlayMTU; 0 if not known.
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

// Counter is what a switch has counted.
type Counter struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Counters are what one host's switch has counted in one domain, since it started or as
// long as it has kept count. A packet counts where its sender is.
type Counters struct {
	Host     string `json:"host"`
	DomainID string `json:"domainID"`
	// Seen is when the host told this, in UTC; set by the store.
	Seen time.Time `json:"seen"`
	// Entries are by ID, of entries with StatsLogging; Defaults by the ID of the policy whose
	// default decided; Limited by the ID of the vport whose rate limiter dropped.
	Entries  map[string]Counter `json:"entries,omitempty"`
	Defaults map[string]Counter `json:"defaults,omitempty"`
	Limited  map[string]Counter `json:"limited,omitempty"`
	// Drops are by the ID of a vport of this host, or of the domain, and the reason.
	Drops map[string]map[Reason]Counter `json:"drops,omitempty"`
}

// CountersID is the key of State.Counters.
func CountersID(host, domainID string) string { return host + "/" + domainID }
