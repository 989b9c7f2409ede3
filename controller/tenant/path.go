package tenant

import "net/netip"

// PathSpec names a subnet as a user does: by the names of what contains it, or by its
// CIDR in a zone. Empty means not said.
type PathSpec struct {
	Enterprise, Domain, Zone, Subnet string
	CIDR                             netip.Prefix
	Gateway                          netip.Addr
	// Create makes what is missing; otherwise it is ErrNotFound with the remedy.
	Create bool
	// DockerOwned is set on a subnet that is made, see Subnet.DockerOwned.
	DockerOwned bool
}

// Path is a subnet with all that contains it.
type Path struct {
	Enterprise Enterprise
	Domain     Domain
	Zone       Zone
	Subnet     Subnet
}
