package tenant

import (
	"cmp"
	"slices"
)

// Export returns the documents that bring an empty state to what s contains, one an
// enterprise, in order of name; only the domain of that name if domain is not empty.
// Subnets that belong to a Docker network are left out, as are the rate limiters of those
// and of vports: they come and go with containers. An entry of a policy that names such a
// subnet is there, and needs it.
func Export(s *State, domain string) []Document {
	var docs []Document
	for _, e := range sorted(s.Enterprises, func(e *Enterprise) string { return e.Name }) {
		d := Document{Enterprise: e.Name, Description: said(e.Description)}
		for _, m := range under(s, Key{KindEnterprise, e.ID}, KindNetworkMacro, s.NetworkMacros, func(m *NetworkMacro) string { return m.Name }) {
			d.NetworkMacros = append(d.NetworkMacros, MacroEntry{Name: m.Name, Description: said(m.Description), Address: m.CIDR})
		}
		for _, dom := range under(s, Key{KindEnterprise, e.ID}, KindDomain, s.Domains, func(d *Domain) string { return d.Name }) {
			if domain == "" || dom.Name == domain {
				d.Domains = append(d.Domains, exportDomain(s, dom))
			}
		}
		if domain == "" || len(d.Domains) > 0 {
			docs = append(docs, d)
		}
	}
	return docs
}

func exportDomain(s *State, d *Domain) DomainEntry {
	entry := DomainEntry{Name: d.Name, Description: said(d.Description)}
	for _, z := range under(s, Key{KindDomain, d.ID}, KindZone, s.Zones, func(z *Zone) string { return z.Name }) {
		zone := ZoneEntry{Name: z.Name, Description: said(z.Description)}
		for _, n := range under(s, Key{KindZone, z.ID}, KindSubnet, s.Subnets, func(n *Subnet) string { return n.Name }) {
			if !n.DockerOwned {
				zone.Subnets = append(zone.Subnets, SubnetEntry{Name: n.Name, Description: said(n.Description), Address: n.CIDR, Gateway: n.Gateway})
			}
		}
		entry.Zones = append(entry.Zones, zone)
	}
	exportPolicies(s, d, &entry)
	return entry
}

// said is the text as a document mentions it: not at all if there is none.
func said(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func sorted[T any](objects map[string]*T, name func(*T) string) []*T {
	list := make([]*T, 0, len(objects))
	for _, o := range objects {
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b *T) int { return cmp.Compare(name(a), name(b)) })
	return list
}

func under[T any](s *State, k Key, kind Kind, objects map[string]*T, name func(*T) string) []*T {
	var list []*T
	s.Children(k, kind, func(id string) {
		if o := objects[id]; o != nil {
			list = append(list, o)
		}
	})
	slices.SortFunc(list, func(a, b *T) int { return cmp.Compare(name(a), name(b)) })
	return list
}
