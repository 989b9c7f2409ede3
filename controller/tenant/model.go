// Package tenant is the model of a company's tenant networks: enterprises,
// domains, zones, subnets, vports, address leases, hosts and Docker networks,
// the policies and rate limiters that hold between them, with their names, their
// validation, the State that the compiler reads and the verdict that it owes.
//
// It is values and pure functions only: it never does input or output, never
// reads a clock and never imports another package of the project.
package tenant

import (
	"cmp"
	"net/netip"
	"time"
)

// Kind names one class of object. The values are the plural words of the store's
// keys and of `nuagectl get`.
type Kind string

// The kinds of object, in order of containment.
const (
	KindEnterprise   Kind = "enterprises"
	KindNetworkMacro Kind = "networkmacros"
	KindDomain       Kind = "domains"
	KindZone         Kind = "zones"
	KindSubnet       Kind = "subnets"
	KindPolicyGroup  Kind = "policygroups"
	KindPolicy       Kind = "policies"
	KindEntry        Kind = "entries"
	KindRateLimiter  Kind = "ratelimiters"
	KindVport        Kind = "vports"
	KindHost         Kind = "hosts"
	KindNetwork      Kind = "networks"
	KindLease        Kind = "addresses"
)

// Key identifies an object over all kinds.
type Key struct {
	Kind Kind
	ID   string
}

// Meta is what every stored object has.
type Meta struct {
	// ID is a lower-case UUID, except for hosts (the host's name), Docker networks
	// (Docker's network ID) and leases (the subnet's ID, a slash, the address).
	ID string `json:"id"`
	// Created and Updated are set by the store, in UTC.
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
	// ExternalID is a name that another system knows the object by; unique, or empty.
	ExternalID string `json:"externalID,omitempty"`
	// Revision is the store's revision of the last change of this object. Writes are
	// conditional on it. It is not part of the stored value.
	Revision int64 `json:"-"`
	// Committed is the store's revision at which the object came to be. It is not part of the
	// stored value.
	Committed int64 `json:"-"`
}

// Age is since when there is an object.
type Age struct {
	Committed int64
	Created   time.Time
}

// Age is since when there is the object.
func (m *Meta) Age() Age { return Age{m.Committed, m.Created} }

// Compare orders by what the store has committed first, whatever the clocks of hosts say.
func (a Age) Compare(o Age) int {
	return cmp.Or(cmp.Compare(a.Committed, o.Committed), a.Created.Compare(o.Created))
}

// Compare orders objects that contradict each other, the one that was there first before the
// other.
func (m *Meta) Compare(o *Meta) int {
	return cmp.Or(m.Age().Compare(o.Age()), cmp.Compare(m.ID, o.ID))
}

// Base is the Meta itself, for code that handles objects of every kind.
func (m *Meta) Base() *Meta { return m }

// Enterprise is a tenant: the owner of domains.
type Enterprise struct {
	Meta
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// CustomerID is VSD's number of the enterprise, from 10000 up, unique.
	CustomerID uint32 `json:"customerID"`
}

// Domain is one L3 VRF of an enterprise. Its addresses are its own: two domains
// may use the same ones.
type Domain struct {
	Meta
	EnterpriseID string `json:"enterpriseID"`
	Name         string `json:"name"`
	Description  string `json:"description,omitempty"`
	// TemplateID is kept for clients of VSD's API that insist on one.
	TemplateID string `json:"templateID,omitempty"`
	// VNI is the domain's VXLAN identifier (VSD: backHaulVNID), 1..2^24-1, unique over
	// domains and subnets.
	VNI uint32 `json:"vni"`
	// Number identifies the domain inside a switch: the domain register and the
	// conntrack zone. 1..32767 (the upper half is left for NAT zones), unique.
	Number uint16 `json:"number"`
}

// Zone is a group of subnets of a domain that policy speaks of.
type Zone struct {
	Meta
	DomainID    string `json:"domainID"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// Number is the zone's in its domain, 1..MaxZoneNumber: the switch's name for it.
	Number uint16 `json:"number"`
}

// Subnet is one IPv4 prefix of a domain, in a zone.
type Subnet struct {
	Meta
	DomainID    string `json:"domainID"`
	ZoneID      string `json:"zoneID"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// CIDR is the prefix in canonical form (host bits zero). Subnets of one domain
	// never overlap.
	CIDR netip.Prefix `json:"cidr"`
	// Gateway is the address that the distributed router answers for; it is never
	// leased to a vport.
	Gateway netip.Addr `json:"gateway"`
	// VNI is the subnet's VXLAN identifier, unique over domains and subnets.
	VNI uint32 `json:"vni"`
	// DockerOwned marks a subnet made for a Docker network that named none and used
	// Docker's own IPAM: it goes with the last network bound to it. One that the nuage
	// IPAM makes is so until its network is there.
	DockerOwned bool `json:"dockerOwned,omitempty"`
}

// VportType is what is attached.
type VportType string

// The types of vport.
const (
	VportContainer VportType = "CONTAINER"
	VportVM        VportType = "VM"
)

// Vport is one attachment to a subnet, on one host.
type Vport struct {
	Meta
	DomainID string     `json:"domainID"`
	ZoneID   string     `json:"zoneID"`
	SubnetID string     `json:"subnetID"`
	Name     string     `json:"name"`
	Type     VportType  `json:"type"`
	MAC      MAC        `json:"mac"`
	IPv4     netip.Addr `json:"ipv4"`
	// Host is the name of the host that has the port; empty while it has none.
	Host string `json:"host,omitempty"`
	// Interface is the name of the port on the host's bridge.
	Interface string `json:"interface,omitempty"`
	// PolicyGroups are names of policy groups of the domain.
	PolicyGroups []string `json:"policyGroups,omitempty"`
	// AddressSpoofing lets the vport send with any IPv4 and MAC address. What it sends is
	// judged by the addresses that it uses.
	AddressSpoofing bool `json:"addressSpoofing,omitempty"`
	// VirtualIPs are addresses that the vport may send from beside its own.
	VirtualIPs []VirtualIP `json:"virtualIPs,omitempty"`
	// User is the name that the attachment was made for (NUAGE-USER), if any.
	User string `json:"user,omitempty"`
	// Owner says what the vport is for, in Docker's words.
	Owner Owner `json:"owner"`
	// Lasting is set on a vport that was made for a machine to come: it and its address stay
	// when what is attached to it goes.
	Lasting bool `json:"lasting,omitempty"`
	// Error is why the vport could not be attached; empty when it is.
	Error string `json:"error,omitempty"`
}

// Owner is what a vport is for. Which fields are set depends on how it came to be.
type Owner struct {
	EndpointID    string `json:"endpointID,omitempty"`
	NetworkID     string `json:"networkID,omitempty"`
	SandboxKey    string `json:"sandboxKey,omitempty"`
	ContainerID   string `json:"containerID,omitempty"`
	ContainerName string `json:"containerName,omitempty"`
	VMUUID        string `json:"vmUUID,omitempty"`
}

// LeaseState is the life of an address: reserved, then bound, then resting.
type LeaseState string

// The states of a lease. An address without a lease is free.
const (
	// LeaseReserved was asked for and is not in use yet; it lapses at Expires.
	LeaseReserved LeaseState = "reserved"
	// LeaseBound is used by a vport, a gateway or an auxiliary address; it stays until released.
	LeaseBound LeaseState = "bound"
	// LeaseResting was released and may be given out again from Expires on.
	LeaseResting LeaseState = "resting"
)

// What a lease is for.
const (
	UseGateway   = "gateway"
	UseAuxiliary = "auxiliary"
	UseEndpoint  = "endpoint"
)

// How long a reservation waits to be bound, and how long a released address waits before
// it is given out again.
const (
	ReservationTime = 60 * time.Second
	RestTime        = 60 * time.Second
)

// Lease is one address of a subnet that is not free.
type Lease struct {
	Meta
	DomainID string     `json:"domainID"`
	SubnetID string     `json:"subnetID"`
	Address  netip.Addr `json:"address"`
	State    LeaseState `json:"state"`
	// MAC is who reserved it; zero for a gateway, an auxiliary address or a swarm task.
	MAC MAC `json:"mac"`
	// Host is the host whose Docker asked for it.
	Host string `json:"host,omitempty"`
	// VportID is set once bound to a vport.
	VportID string `json:"vportID,omitempty"`
	// Use is UseGateway, UseAuxiliary or UseEndpoint.
	Use string `json:"use"`
	// Name is what Docker calls the endpoint when it asks for the address; engines before
	// 29 do not say.
	Name string `json:"name,omitempty"`
	// Expires ends a reservation or a rest, in UTC; zero for a bound lease.
	Expires time.Time `json:"expires,omitzero"`
}

// AddressMode is how a Docker network gets its addresses (design, section 8).
type AddressMode string

// The four ways of addressing.
const (
	AddressDocker   AddressMode = "docker"   // Docker's IPAM; the subnet was made for it
	AddressExisting AddressMode = "existing" // Docker's IPAM with --subnet of an existing subnet
	AddressTenant   AddressMode = "tenant"   // the nuage IPAM
	AddressNull     AddressMode = "null"     // the null IPAM: the driver picks the address
)

// Network is a Docker network of one host, bound to a subnet.
type Network struct {
	Meta // ID is Docker's network ID
	// Name is what Docker calls it, on this host; empty until Docker was asked: its drivers
	// are only told the ID.
	Name         string       `json:"name,omitempty"`
	Host         string       `json:"host"`
	EnterpriseID string       `json:"enterpriseID"`
	DomainID     string       `json:"domainID"`
	ZoneID       string       `json:"zoneID"`
	SubnetID     string       `json:"subnetID"`
	Mode         AddressMode  `json:"mode"`
	CIDR         netip.Prefix `json:"cidr"`
	Gateway      netip.Addr   `json:"gateway,omitzero"`
	Internal     bool         `json:"internal,omitempty"`
	MTU          int          `json:"mtu,omitempty"`
	PolicyGroups []string     `json:"policyGroups,omitempty"`
	User         string       `json:"user,omitempty"`
	// Auxiliary are the addresses that the network set aside (--aux-address).
	Auxiliary []netip.Addr `json:"auxiliary,omitempty"`
}
