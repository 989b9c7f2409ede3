package tenant

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// PathSpec names a subnet as a user does: by the names of what contains it, by its CIDR in
// a zone, or by the zone alone if that has only one. Empty means not said.
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

// Resolve decides what a PathSpec means in the state. The path's objects that have an ID
// exist; those that have none are to be made, from the outside in, with the fields that
// Resolve has set. Objects to be made appear only if spec.Create.
//
// The enterprise, the domain and the zone are named. A subnet is named, or found by its
// exact CIDR in the zone, or is the only one of the zone that does not come and go with
// Docker networks; a CIDR or gateway given beside must be the subnet's own. A subnet is
// made if its CIDR is given; one that has no name is called after its CIDR.
func (s *State) Resolve(spec PathSpec) (Path, error) {
	if err := spec.check(); err != nil {
		return Path{}, err
	}
	p := Path{
		Enterprise: Enterprise{Name: spec.Enterprise},
		Domain:     Domain{Name: spec.Domain},
		Zone:       Zone{Name: spec.Zone},
	}
	if e := s.EnterpriseByName(spec.Enterprise); e != nil {
		p.Enterprise = *e
	}
	if d := s.DomainByName(p.Enterprise.ID, spec.Domain); d != nil {
		p.Domain = *d
	}
	if z := s.ZoneByName(p.Domain.ID, spec.Zone); z != nil {
		p.Zone = *z
	}
	var err error
	if p.Subnet, err = s.resolveSubnet(p, spec); err != nil {
		return Path{}, err
	}
	if missing := p.missing(); missing != "" && !spec.Create {
		return Path{}, Errorf(ErrNotFound, "%s not found: create it first (nuagectl apply), or allow making it on the fly (NUAGE_AUTOCREATE=true)", missing)
	}
	return p, nil
}

func (spec PathSpec) check() error {
	for _, n := range []struct {
		kind Kind
		name string
	}{{KindEnterprise, spec.Enterprise}, {KindDomain, spec.Domain}, {KindZone, spec.Zone}} {
		if n.name == "" {
			return Errorf(ErrInvalid, "no %s given: a subnet is named by enterprise, domain and zone, and by subnet or CIDR", n.kind.Noun())
		}
		if err := ValidateName(n.name); err != nil {
			return fmt.Errorf("%s: %w", n.kind.Noun(), err)
		}
	}
	if spec.Subnet != "" {
		if err := ValidateName(spec.Subnet); err != nil {
			return fmt.Errorf("subnet: %w", err)
		}
	}
	if !spec.CIDR.IsValid() {
		return nil
	}
	if err := ValidateCIDR(spec.CIDR); err != nil {
		return err
	}
	if spec.Gateway.IsValid() {
		if err := ValidateAddress(spec.CIDR, spec.Gateway); err != nil {
			return Errorf(ErrInvalid, "gateway: %v", err)
		}
	}
	return nil
}

// resolveSubnet finds the subnet of spec, or says what to make of it.
func (s *State) resolveSubnet(p Path, spec PathSpec) (Subnet, error) {
	if !spec.CIDR.IsValid() && p.Zone.ID == "" { // then the subnet is not what to look for
		return Subnet{}, Errorf(ErrNotFound, "%s not found: create it first (nuagectl apply)", p.missing())
	}
	if spec.Subnet != "" {
		if sub := s.SubnetByName(p.Zone.ID, spec.Subnet); sub != nil {
			return *sub, sub.agrees(spec)
		}
		if !spec.CIDR.IsValid() {
			where := fmt.Sprintf("subnet %s not found in zone %s of domain %s", spec.Subnet, spec.Zone, spec.Domain)
			if spec.Create {
				return Subnet{}, Errorf(ErrNotFound, "%s, and no CIDR given to make it", where)
			}
			return Subnet{}, Errorf(ErrNotFound, "%s: create it first (nuagectl apply)", where)
		}
	}
	if !spec.CIDR.IsValid() {
		sub, err := s.onlySubnet(p.Zone.ID, spec)
		if err != nil {
			return Subnet{}, err
		}
		return *sub, sub.agrees(spec)
	}
	made := Subnet{Name: spec.Subnet, CIDR: spec.CIDR, Gateway: spec.Gateway, DockerOwned: spec.DockerOwned}
	if made.Name == "" {
		made.Name = strings.ReplaceAll(spec.CIDR.String(), "/", "-")
	}
	if !made.Gateway.IsValid() {
		made.Gateway = FirstHost(spec.CIDR)
	}
	if p.Domain.ID == "" {
		return made, nil
	}
	other := s.SubnetOverlapping(p.Domain.ID, spec.CIDR)
	switch {
	case other == nil:
		return made, nil
	case other.CIDR != spec.CIDR || spec.Subnet != "":
		return Subnet{}, s.overlap(&made, other)
	case other.ZoneID != p.Zone.ID:
		return Subnet{}, Errorf(ErrConflict, "%s is subnet %s of zone %s in domain %s, not of zone %s",
			spec.CIDR, other.Name, s.zoneName(other.ZoneID), spec.Domain, spec.Zone)
	}
	return *other, other.agrees(spec)
}

// onlySubnet is the zone's subnet for who names none.
func (s *State) onlySubnet(zoneID string, spec PathSpec) (only *Subnet, err error) {
	var names []string
	s.Children(Key{KindZone, zoneID}, KindSubnet, func(id string) {
		if sub := s.Subnets[id]; !sub.DockerOwned {
			only = sub
			names = append(names, sub.Name)
		}
	})
	switch len(names) {
	case 0:
		return nil, Errorf(ErrNotFound, "zone %s of domain %s has no subnet, and no CIDR given to make one", spec.Zone, spec.Domain)
	case 1:
		return only, nil
	}
	slices.Sort(names)
	return nil, Errorf(ErrConflict, "zone %s of domain %s has several subnets, and neither a name nor a CIDR given: %s", spec.Zone, spec.Domain, strings.Join(names, ", "))
}

// agrees tells whether a CIDR and gateway that the user gave are the subnet's.
func (sub *Subnet) agrees(spec PathSpec) error {
	if spec.CIDR.IsValid() && spec.CIDR != sub.CIDR {
		return Errorf(ErrConflict, "subnet %s is %s, not %s", sub.Name, sub.CIDR, spec.CIDR)
	}
	if spec.Gateway.IsValid() && spec.Gateway != sub.Gateway {
		return Errorf(ErrConflict, "subnet %s (%s) has gateway %s, not %s", sub.Name, sub.CIDR, sub.Gateway, spec.Gateway)
	}
	return nil
}

// missing names the outermost object of the path that does not exist, or is empty.
func (p Path) missing() string {
	switch {
	case p.Enterprise.ID == "":
		return "enterprise " + p.Enterprise.Name
	case p.Domain.ID == "":
		return fmt.Sprintf("domain %s of enterprise %s", p.Domain.Name, p.Enterprise.Name)
	case p.Zone.ID == "":
		return fmt.Sprintf("zone %s of domain %s", p.Zone.Name, p.Domain.Name)
	case p.Subnet.ID == "":
		return fmt.Sprintf("subnet %s (%s) of zone %s in domain %s", p.Subnet.Name, p.Subnet.CIDR, p.Zone.Name, p.Domain.Name)
	}
	return ""
}

// CheckOverlap is an ErrConflict naming the subnet of the same domain that sub overlaps.
func (s *State) CheckOverlap(sub *Subnet) error {
	if other := s.SubnetOverlapping(sub.DomainID, sub.CIDR); other != nil && other.ID != sub.ID {
		return s.overlap(sub, other)
	}
	return nil
}

func (s *State) overlap(sub, other *Subnet) error {
	domain := other.DomainID
	if d := s.Domains[domain]; d != nil {
		domain = d.Name
	}
	return Errorf(ErrConflict, "subnet %s: %s overlaps subnet %s (%s) in domain %s", sub.Name, sub.CIDR, other.Name, other.CIDR, domain)
}

func (s *State) zoneName(id string) string {
	if z := s.Zones[id]; z != nil {
		return z.Name
	}
	return id
}

// EnterpriseByName is the enterprise of that name, or nil.
func (s *State) EnterpriseByName(name string) *Enterprise {
	for _, e := range s.Enterprises {
		if e.Name == name {
			return e
		}
	}
	return nil
}

// DomainByName is the enterprise's domain of that name, or nil.
func (s *State) DomainByName(enterpriseID, name string) *Domain {
	return firstChild(s, Key{KindEnterprise, enterpriseID}, KindDomain, s.Domains, func(d *Domain) bool { return d.Name == name })
}

// ZoneByName is the domain's zone of that name, or nil.
func (s *State) ZoneByName(domainID, name string) *Zone {
	return firstChild(s, Key{KindDomain, domainID}, KindZone, s.Zones, func(z *Zone) bool { return z.Name == name })
}

// SubnetByName is the zone's subnet of that name, or nil.
func (s *State) SubnetByName(zoneID, name string) *Subnet {
	return firstChild(s, Key{KindZone, zoneID}, KindSubnet, s.Subnets, func(n *Subnet) bool { return n.Name == name })
}

// SubnetOverlapping is a subnet of the domain that shares addresses with the prefix, or nil.
func (s *State) SubnetOverlapping(domainID string, p netip.Prefix) *Subnet {
	return firstChild(s, Key{KindDomain, domainID}, KindSubnet, s.Subnets, func(n *Subnet) bool { return n.CIDR.Overlaps(p) })
}

func firstChild[T any](s *State, parent Key, kind Kind, objects map[string]*T, ok func(*T) bool) *T {
	for k := range s.children[parent] {
		if k.Kind == kind && ok(objects[k.ID]) {
			return objects[k.ID]
		}
	}
	return nil
}
