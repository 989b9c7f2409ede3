package tenant

import "fmt"

// State is the tenant state, or the part of it that a host follows. It is
// built by applying changes and keeps the indexes that the compiler walks. A State is
// not safe for concurrent use; Feed guards one.
type State struct {
	Revision    int64
	Enterprises map[string]*Enterprise
	Domains     map[string]*Domain
	Zones       map[string]*Zone
	Subnets     map[string]*Subnet
	Vports      map[string]*Vport
	Hosts       map[string]*Host
	Networks    map[string]*Network // by NetworkID
	Leases      map[string]*Lease   // by LeaseID

	PolicyGroups  map[string]*PolicyGroup
	NetworkMacros map[string]*NetworkMacro
	Policies      map[string]*Policy
	Entries       map[string]*Entry
	RateLimiters  map[string]*RateLimiter

	// HostStatus is by the host's name. Only a state read at once has it: it changes all the
	// time, so no feed shows it.
	HostStatus map[string]*HostStatus
	// Counters are by CountersID; the same holds for them.
	Counters map[string]*Counters

	children map[Key]map[Key]struct{}
}

// NewState is an empty state at revision 0.
func NewState() *State {
	return &State{
		Enterprises: map[string]*Enterprise{},
		Domains:     map[string]*Domain{},
		Zones:       map[string]*Zone{},
		Subnets:     map[string]*Subnet{},
		Vports:      map[string]*Vport{},
		Hosts:       map[string]*Host{},
		Networks:    map[string]*Network{},
		Leases:      map[string]*Lease{},

		PolicyGroups:  map[string]*PolicyGroup{},
		NetworkMacros: map[string]*NetworkMacro{},
		Policies:      map[string]*Policy{},
		Entries:       map[string]*Entry{},
		RateLimiters:  map[string]*RateLimiter{},

		HostStatus: map[string]*HostStatus{},
		children:   map[Key]map[Key]struct{}{},
	}
}

// Change is one object's new value; a nil Value is its removal. Value is a pointer to
// the type of Key.Kind (*Enterprise, *Domain …) and belongs to the State once applied:
// nobody may write to it afterwards.
type Change struct {
	Key   Key
	Value any
}

// Apply replaces or removes one object. Applying the same change twice is the same as
// once. A value of another type than the key's kind is a defect and panics.
func (s *State) Apply(c Change) {
	switch c.Key.Kind {
	case KindEnterprise:
		apply(s, s.Enterprises, c)
	case KindDomain:
		apply(s, s.Domains, c)
	case KindZone:
		apply(s, s.Zones, c)
	case KindSubnet:
		apply(s, s.Subnets, c)
	case KindVport:
		apply(s, s.Vports, c)
	case KindHost:
		apply(s, s.Hosts, c)
	case KindNetwork:
		apply(s, s.Networks, c)
	case KindLease:
		apply(s, s.Leases, c)
	case KindPolicyGroup:
		apply(s, s.PolicyGroups, c)
	case KindNetworkMacro:
		apply(s, s.NetworkMacros, c)
	case KindPolicy:
		apply(s, s.Policies, c)
	case KindEntry:
		apply(s, s.Entries, c)
	case KindRateLimiter:
		apply(s, s.RateLimiters, c)
	default:
		panic(fmt.Sprintf("tenant: unknown kind %q", c.Key.Kind))
	}
}

func apply[T any](s *State, objects map[string]*T, c Change) {
	if old := objects[c.Key.ID]; old != nil {
		for _, p := range parents(old) {
			delete(s.children[p], c.Key)
			if len(s.children[p]) == 0 {
				delete(s.children, p)
			}
		}
		delete(objects, c.Key.ID)
	}
	if c.Value == nil {
		return
	}
	v := c.Value.(*T)
	objects[c.Key.ID] = v
	for _, p := range parents(v) {
		if s.children[p] == nil {
			s.children[p] = map[Key]struct{}{}
		}
		s.children[p][c.Key] = struct{}{}
	}
}

// parents are the objects that v names, and whose change changes what v means.
func parents(v any) []Key {
	var ks []Key
	add := func(k Kind, id string) {
		if id != "" {
			ks = append(ks, Key{k, id})
		}
	}
	switch v := v.(type) {
	case *Domain:
		add(KindEnterprise, v.EnterpriseID)
	case *Zone:
		add(KindDomain, v.DomainID)
	case *Subnet:
		add(KindZone, v.ZoneID)
		add(KindDomain, v.DomainID)
	case *Vport:
		add(KindSubnet, v.SubnetID)
		add(KindHost, v.Host)
		for _, name := range v.PolicyGroups {
			ks = append(ks, MemberKey(v.DomainID, name))
		}
	case *PolicyGroup:
		add(KindDomain, v.DomainID)
	case *NetworkMacro:
		add(KindEnterprise, v.EnterpriseID)
	case *Policy:
		add(KindDomain, v.DomainID)
	case *Entry:
		add(KindPolicy, v.PolicyID)
		for _, side := range []Side{v.From, v.To} {
			if k, named := side.Key(); named {
				add(k.Kind, k.ID)
			}
		}
	case *RateLimiter:
		add(v.On.Kind, v.On.ID)
		if v.On != (Key{KindDomain, v.DomainID}) {
			add(KindDomain, v.DomainID)
		}
	case *Network:
		add(KindSubnet, v.SubnetID)
	case *Lease:
		add(KindSubnet, v.SubnetID)
	}
	return ks
}

// Children calls f with the key of each object of a kind that names k: the domains of an
// enterprise, the zones, subnets, policies and policy groups of a domain, the subnets of a
// zone, the vports, networks and addresses of a subnet, the vports of a host, the entries
// that name a zone, the vports of a MemberKey. The order is random.
func (s *State) Children(k Key, kind Kind, f func(id string)) {
	for c := range s.children[k] {
		if c.Kind == kind {
			f(c.ID)
		}
	}
}

// NetworkID is what a Docker network is by in a state: in a swarm several hosts have a network
// with the same ID of Docker's, each with a record of its own.
func NetworkID(host, dockerID string) string { return host + "/" + dockerID }

// LeaseID is the ID of the lease of an address of a subnet.
func LeaseID(subnetID, address string) string { return subnetID + "/" + address }
