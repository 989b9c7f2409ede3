package tenant

// State is the tenant state of the domains present on a host, at one revision. It is
// built by applying changes and has the indexes that the compiler walks. A State is not
// safe for concurrent use; package store guards its own.
type State struct {
	Revision    int64
	Enterprises map[string]*Enterprise
	Domains     map[string]*Domain
	Zones       map[string]*Zone
	Subnets     map[string]*Subnet
	Vports      map[string]*Vport
	Hosts       map[string]*Host
	Networks    map[string]*Network
	Leases      map[string]*Lease // by subnet ID, slash, address

	zonesByDomain   map[string]set
	subnetsByDomain map[string]set
	vportsBySubnet  map[string]set
	vportsByHost    map[string]set
	leasesBySubnet  map[string]set
}

type set map[string]struct{}

// Change is one object's new value; a nil Value is its removal.
type Change struct {
	Key   Key
	Value any // *Enterprise, *Domain … by Key.Kind, or nil
}
