package vsd

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"nuage/controller/tenant"
)

var policyGroups = &spec[tenant.PolicyGroup]{
	called:  words{name: "policygroups", rest: "policygroup", parent: "domains"},
	objects: func(s *tenant.State) map[string]*tenant.PolicyGroup { return s.PolicyGroups },
	meta:    func(o *tenant.PolicyGroup) *tenant.Meta { return &o.Meta },
	within:  map[string]func(*tenant.PolicyGroup) string{"domains": func(o *tenant.PolicyGroup) string { return o.DomainID }},
	members: map[string]func(*tenant.State, *tenant.PolicyGroup, string) bool{
		"vports": func(s *tenant.State, g *tenant.PolicyGroup, id string) bool { return isMember(s, s.Vports[id], g.ID) },
	},
	adopt: func(_ *tenant.State, o *tenant.PolicyGroup, parentID string) { o.DomainID = parentID },
	fields: append(fixed[tenant.PolicyGroup](map[string]any{
		"type": "SOFTWARE", "external": false, "EVPNCommunityTag": nil, "templateID": nil, "assocPolicyGroupCategoryID": nil,
	}),
		required(text("name", func(o *tenant.PolicyGroup) *string { return &o.Name })),
		text("description", func(o *tenant.PolicyGroup) *string { return &o.Description }),
		derived("policyGroupID", func(_ *tenant.State, o *tenant.PolicyGroup) any { return int64(o.Number) }),
	),
	insert:   Store.CreatePolicyGroup,
	write:    Store.UpdatePolicyGroup,
	takeAway: Store.DeletePolicyGroup,
}

var networkMacros = &spec[tenant.NetworkMacro]{
	called:  words{name: "enterprisenetworks", rest: "enterprisenetwork", parent: "enterprises"},
	objects: func(s *tenant.State) map[string]*tenant.NetworkMacro { return s.NetworkMacros },
	meta:    func(o *tenant.NetworkMacro) *tenant.Meta { return &o.Meta },
	within:  map[string]func(*tenant.NetworkMacro) string{"enterprises": func(o *tenant.NetworkMacro) string { return o.EnterpriseID }},
	adopt:   func(_ *tenant.State, o *tenant.NetworkMacro, parentID string) { o.EnterpriseID = parentID },
	fields: append(fixed[tenant.NetworkMacro](map[string]any{"IPType": "IPV4", "IPv6Address": nil}),
		required(text("name", func(o *tenant.NetworkMacro) *string { return &o.Name })),
		text("description", func(o *tenant.NetworkMacro) *string { return &o.Description }),
		derived("address", func(_ *tenant.State, o *tenant.NetworkMacro) any { return addressText(o.CIDR.Addr()) }),
		derived("netmask", func(_ *tenant.State, o *tenant.NetworkMacro) any { return netmask(o.CIDR) }),
	),
	finish: func(o *tenant.NetworkMacro, b body) error {
		address, _, err := b.text("address")
		if err != nil {
			return err
		}
		mask, _, err := b.text("netmask")
		if err == nil && address+mask != "" {
			o.CIDR, err = joinCIDR(address, mask, o.CIDR)
		}
		return err
	},
	insert:   Store.CreateNetworkMacro,
	write:    Store.UpdateNetworkMacro,
	takeAway: Store.DeleteNetworkMacro,
}

const noDrafts = "there are no drafts: what is made is in force"

// aclTemplates are the policies of a direction.
func aclTemplates(d tenant.Direction) *spec[tenant.Policy] {
	return &spec[tenant.Policy]{
		called: words{name: string(d) + "acltemplates", rest: string(d) + "acltemplate", parent: "domains"},
		objects: func(s *tenant.State) map[string]*tenant.Policy {
			return some(s.Policies, func(p *tenant.Policy) bool { return p.Direction == d })
		},
		meta:   func(o *tenant.Policy) *tenant.Meta { return &o.Meta },
		within: map[string]func(*tenant.Policy) string{"domains": func(o *tenant.Policy) string { return o.DomainID }},
		adopt:  func(_ *tenant.State, o *tenant.Policy, parentID string) { o.DomainID, o.Direction = parentID, d },
		fields: append(fixed[tenant.Policy](map[string]any{
			"priorityType": "NONE", "autoGeneratePriority": false, "allowAddressSpoof": false,
			"defaultInstallACLImplicitRules": false, "associatedLiveEntityID": nil,
		}),
			only[tenant.Policy]("policyState", "LIVE", noDrafts),
			required(text("name", func(o *tenant.Policy) *string { return &o.Name })),
			text("description", func(o *tenant.Policy) *string { return &o.Description }),
			chosen("priority", func(o *tenant.Policy) *uint32 { return &o.Priority }),
			flagged("active", func(o *tenant.Policy) *bool { return &o.Active }),
			flagged("defaultAllowIP", func(o *tenant.Policy) *bool { return &o.DefaultAllowIP }),
			flagged("defaultAllowNonIP", func(o *tenant.Policy) *bool { return &o.DefaultAllowNonIP }),
		),
		insert:   insertPolicy,
		write:    Store.UpdatePolicy,
		takeAway: Store.DeletePolicy,
	}
}

// insertPolicy gives a policy without a priority the next one, as VSD does.
func insertPolicy(st Store, ctx context.Context, p tenant.Policy) (tenant.Policy, error) {
	if p.Priority != 0 {
		return st.CreatePolicy(ctx, p)
	}
	for attempt := 1; ; attempt++ {
		s, err := st.Read(ctx)
		if err != nil {
			return p, err
		}
		p.Priority = 0
		s.Children(tenant.Key{Kind: tenant.KindDomain, ID: p.DomainID}, tenant.KindPolicy, func(id string) {
			if o := s.Policies[id]; o.Direction == p.Direction {
				p.Priority = max(p.Priority, o.Priority)
			}
		})
		p.Priority += 100
		made, err := st.CreatePolicy(ctx, p)
		if err == nil || !errors.Is(err, tenant.ErrExists) || attempt == writeAttempts {
			return made, err
		}
	}
}

func some[T any](all map[string]*T, is func(*T) bool) map[string]*T {
	m := map[string]*T{}
	for id, o := range all {
		if is(o) {
			m[id] = o
		}
	}
	return m
}

// isMember is whether a vport is in the policy group of an ID.
func isMember(s *tenant.State, v *tenant.Vport, groupID string) bool {
	g := s.PolicyGroups[groupID]
	if v == nil || g == nil || g.DomainID != v.DomainID {
		return false
	}
	for _, name := range v.PolicyGroups {
		if name == g.Name {
			return true
		}
	}
	return false
}

// qos are the rate limiters. VSD's rate limit of a QoS object is of what vports send, and so
// is one here unless its attribute direction, which VSD does not have, says EGRESS. It
// has no name of its own, and is always active: one that is not would be none.
var qos = &spec[tenant.RateLimiter]{
	called:  words{name: "qos", rest: "qos", parent: "domains", others: []string{"zones", "subnets", "vports"}},
	objects: func(s *tenant.State) map[string]*tenant.RateLimiter { return s.RateLimiters },
	meta:    func(o *tenant.RateLimiter) *tenant.Meta { return &o.Meta },
	within: map[string]func(*tenant.RateLimiter) string{
		"domains": limitedIn(tenant.KindDomain), "zones": limitedIn(tenant.KindZone),
		"subnets": limitedIn(tenant.KindSubnet), "vports": limitedIn(tenant.KindVport),
	},
	parentOf: func(o *tenant.RateLimiter) (word, id string) { return string(o.On.Kind), o.On.ID },
	adopt:    func(_ *tenant.State, o *tenant.RateLimiter, parentID string) { o.On.ID = parentID },
	initial:  func(o *tenant.RateLimiter) { o.Direction = tenant.Ingress },
	fields: append(fixed[tenant.RateLimiter](map[string]any{
		"rateLimitingActive": true, "active": true, "serviceClass": "NONE", "BUMRateLimitingActive": false, "FIPRateLimitingActive": false,
		"committedInformationRate": nil, "committedBurstSize": nil, "rewriteForwardingClass": false, "description": nil,
	}),
		derived("name", func(s *tenant.State, o *tenant.RateLimiter) any {
			return s.LimiterTarget(o) + " " + string(o.Direction)
		}),
		field[tenant.RateLimiter]{name: "direction",
			get: func(_ *tenant.State, o *tenant.RateLimiter) any { return strings.ToUpper(string(o.Direction)) },
			set: func(o *tenant.RateLimiter, v string) error {
				if v != "" {
					o.Direction = tenant.Direction(strings.ToLower(v))
				}
				return nil
			}},
		required(scaled("peak", 1e6, func(o *tenant.RateLimiter) *uint64 { return &o.Rate })),
		scaled("burst", 8e3, func(o *tenant.RateLimiter) *uint64 { return &o.Burst }),
	),
	finish: func(o *tenant.RateLimiter, b body) error {
		if parent, given, _ := b.text("parentType"); given && o.On.Kind == "" {
			o.On.Kind = tenant.Kind(parent + "s")
		}
		if v, given, err := b.text("rateLimitingActive"); err != nil || given && v == "false" {
			return badProperty("rateLimitingActive", "a rate limiter is in force as long as it is there: delete it instead")
		}
		return nil
	},
	insert:   Store.CreateRateLimiter,
	write:    Store.UpdateRateLimiter,
	takeAway: Store.DeleteRateLimiter,
}

func limitedIn(kind tenant.Kind) func(*tenant.RateLimiter) string {
	return func(o *tenant.RateLimiter) string {
		if o.On.Kind != kind {
			return ""
		}
		return o.On.ID
	}
}

// scaled is a number of bits that the client has in a larger unit, as text with decimals.
func scaled(name string, unit float64, at func(*tenant.RateLimiter) *uint64) field[tenant.RateLimiter] {
	return field[tenant.RateLimiter]{name: name,
		get: func(_ *tenant.State, o *tenant.RateLimiter) any {
			if *at(o) == 0 {
				return nil
			}
			return strconv.FormatFloat(float64(*at(o))/unit, 'f', -1, 64)
		},
		set: func(o *tenant.RateLimiter, v string) error {
			if v == "" {
				*at(o) = 0
				return nil
			}
			n, err := strconv.ParseFloat(v, 64)
			if bits := n * unit; err != nil || !(bits >= 0 && bits <= tenant.MaxRate) {
				return badProperty(name, "%q is not a number in its range", v)
			}
			*at(o) = uint64(math.Round(n * unit))
			return nil
		}}
}

// virtualIP is a virtual IP as an object of its own.
type virtualIP struct {
	tenant.Meta
	tenant.VirtualIP
	vport *tenant.Vport
}

// virtualIPs are parts of vports: making and removing one writes the vport.
var virtualIPs = &spec[virtualIP]{
	called:  words{name: "virtualips", rest: "virtualip", parent: "vports", unlisted: true, given: "make another instead"},
	objects: allVirtualIPs,
	meta:    func(o *virtualIP) *tenant.Meta { return &o.Meta },
	within:  map[string]func(*virtualIP) string{"vports": func(o *virtualIP) string { return o.vport.ID }},
	adopt:   func(s *tenant.State, o *virtualIP, parentID string) { o.vport = s.Vports[parentID] },
	fields: []field[virtualIP]{
		required(field[virtualIP]{name: "virtualIP",
			get: func(_ *tenant.State, o *virtualIP) any { return o.IPv4.String() },
			set: func(o *virtualIP, v string) (err error) {
				if o.IPv4, err = netip.ParseAddr(v); err != nil || !o.IPv4.Is4() {
					return badProperty("virtualIP", "%q is not an IPv4 address", v)
				}
				return nil
			}}),
		{name: "MAC",
			get: func(_ *tenant.State, o *virtualIP) any {
				if o.MAC.IsZero() {
					return o.vport.MAC.String()
				}
				return o.MAC.String()
			},
			set: func(o *virtualIP, v string) error {
				if v == "" {
					return nil
				}
				if err := o.MAC.UnmarshalText([]byte(v)); err != nil {
					return badProperty("MAC", "%v", err)
				}
				return nil
			}},
		derived("IPType", func(*tenant.State, *virtualIP) any { return "IPV4" }),
	},
	insert: func(st Store, ctx context.Context, o virtualIP) (virtualIP, error) {
		now, err := changeVport(st, ctx, o.vport, func(v *tenant.Vport) error {
			v.VirtualIPs = append(slices.Clone(v.VirtualIPs), o.VirtualIP)
			if err := v.Validate(); err != nil {
				return &propertyError{"virtualIP", err}
			}
			return nil
		})
		o.Meta = virtualMeta(&now, o.VirtualIP)
		return o, err
	},
	takeAway: func(st Store, ctx context.Context, id string) error {
		s, err := st.Read(ctx)
		if err != nil {
			return err
		}
		o := allVirtualIPs(s)[id]
		if o == nil {
			return notFound("virtualip", id)
		}
		_, err = changeVport(st, ctx, o.vport, func(v *tenant.Vport) error {
			v.VirtualIPs = slices.DeleteFunc(slices.Clone(v.VirtualIPs), func(vip tenant.VirtualIP) bool { return vip.IPv4 == o.IPv4 })
			return nil
		})
		return err
	},
}

// changeVport makes a change to a vport, as it is when it is written.
func changeVport(st Store, ctx context.Context, have *tenant.Vport, change func(*tenant.Vport) error) (tenant.Vport, error) {
	for attempt := 1; ; attempt++ {
		v := *have
		if err := change(&v); err != nil {
			return v, err
		}
		now, err := st.UpdateVport(ctx, v)
		if !errors.Is(err, tenant.ErrStale) || attempt == writeAttempts {
			return now, err
		}
		s, err := st.Read(ctx)
		if err != nil {
			return v, err
		}
		if have = s.Vports[v.ID]; have == nil {
			return v, notFound("vport", v.ID)
		}
	}
}
