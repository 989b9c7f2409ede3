package tenant

import (
	"cmp"
	"net/netip"
	"slices"
)

// PolicyGroupByName is the domain's policy group of that name, or nil.
func (s *State) PolicyGroupByName(domainID, name string) *PolicyGroup {
	return firstChild(s, Key{KindDomain, domainID}, KindPolicyGroup, s.PolicyGroups, func(g *PolicyGroup) bool { return g.Name == name })
}

// PolicyByName is the domain's policy of that name, or nil.
func (s *State) PolicyByName(domainID, name string) *Policy {
	return firstChild(s, Key{KindDomain, domainID}, KindPolicy, s.Policies, func(p *Policy) bool { return p.Name == name })
}

// NetworkMacroByName is the enterprise's network macro of that name, or nil.
func (s *State) NetworkMacroByName(enterpriseID, name string) *NetworkMacro {
	return firstChild(s, Key{KindEnterprise, enterpriseID}, KindNetworkMacro, s.NetworkMacros, func(m *NetworkMacro) bool { return m.Name == name })
}

// EntryByPriority is the policy's entry of that priority, or nil.
func (s *State) EntryByPriority(policyID string, priority uint32) *Entry {
	return firstChild(s, Key{KindPolicy, policyID}, KindEntry, s.Entries, func(e *Entry) bool { return e.PolicyID == policyID && e.Priority == priority })
}

// LimiterOn is the limiter of an object for a direction, or nil.
func (s *State) LimiterOn(on Key, d Direction) *RateLimiter {
	return firstChild(s, on, KindRateLimiter, s.RateLimiters, func(l *RateLimiter) bool { return l.On == on && l.Direction == d })
}

// Limiter is the limiter that counts for a vport: of all that apply, the nearest object's;
// nil if there is none.
func (s *State) Limiter(v *Vport, d Direction) *RateLimiter {
	for _, on := range []Key{{KindVport, v.ID}, {KindSubnet, v.SubnetID}, {KindZone, s.zoneOf(v.SubnetID)}, {KindDomain, v.DomainID}} {
		if l := s.LimiterOn(on, d); l != nil {
			return l
		}
	}
	return nil
}

// zoneOf is the ID of a subnet's zone.
func (s *State) zoneOf(subnetID string) string {
	if sn := s.Subnets[subnetID]; sn != nil {
		return sn.ZoneID
	}
	return ""
}

// ActivePolicies are the policies that count in a domain for a direction, in the order in
// which they are asked.
func (s *State) ActivePolicies(domainID string, d Direction) []*Policy {
	var ps []*Policy
	s.Children(Key{KindDomain, domainID}, KindPolicy, func(id string) {
		if p := s.Policies[id]; p.Active && p.Direction == d {
			ps = append(ps, p)
		}
	})
	slices.SortFunc(ps, func(a, b *Policy) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), a.Compare(&b.Meta))
	})
	return ps
}

// PolicyEntries are the entries of a policy in the order in which they are asked.
func (s *State) PolicyEntries(policyID string) []*Entry {
	var es []*Entry
	s.Children(Key{KindPolicy, policyID}, KindEntry, func(id string) {
		if e := s.Entries[id]; e.PolicyID == policyID {
			es = append(es, e)
		}
	})
	slices.SortFunc(es, func(a, b *Entry) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), a.Compare(&b.Meta))
	})
	return es
}

// vportAt is the attached vport of a domain that has an address; nil if none has.
func (s *State) vportAt(domainID string, a netip.Addr) *Vport {
	for _, v := range s.Vports {
		if sn := s.Subnets[v.SubnetID]; sn != nil && sn.DomainID == domainID && v.Host != "" && v.IPv4 == a {
			return v
		}
	}
	return nil
}

// Holder is the attached vport of a domain that is sent what is for an address: whose own it
// is, or who receives for it as a virtual IP; nil if there is none.
func (s *State) Holder(domainID string, a netip.Addr) *Vport {
	if v := s.vportAt(domainID, a); v != nil {
		return v
	}
	v, _ := s.receives(domainID, a)
	return v
}

// subnetAt is the subnet of a domain that an address lies in; nil if it lies in none.
func (s *State) subnetAt(domainID string, a netip.Addr) *Subnet {
	return firstChild(s, Key{KindDomain, domainID}, KindSubnet, s.Subnets, func(n *Subnet) bool { return n.CIDR.Contains(a) })
}
