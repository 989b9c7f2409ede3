package pipeline

import (
	"fmt"

	"nuage/controller/tenant"
)

// nameOf is what a note calls an object.
func nameOf(s *tenant.State, k tenant.Key) string {
	name := k.ID
	switch k.Kind {
	case tenant.KindDomain:
		if d := s.Domains[k.ID]; d != nil {
			name = d.Name
		}
	case tenant.KindZone:
		if z := s.Zones[k.ID]; z != nil {
			name = z.Name
		}
	case tenant.KindSubnet:
		if sn := s.Subnets[k.ID]; sn != nil {
			name = sn.Name
		}
	case tenant.KindPolicyGroup:
		if g := s.PolicyGroups[k.ID]; g != nil {
			name = g.Name
		}
	case tenant.KindPolicy:
		if p := s.Policies[k.ID]; p != nil {
			name = p.Name
		}
	case tenant.KindEntry:
		if e := s.Entries[k.ID]; e != nil {
			name = fmt.Sprintf("%d of %s", e.Priority, nameOf(s, tenant.Key{Kind: tenant.KindPolicy, ID: e.PolicyID}))
		}
	case tenant.KindVport:
		if v := s.Vports[k.ID]; v != nil {
			name = v.Name
		}
	}
	return k.Kind.Noun() + " " + name
}
