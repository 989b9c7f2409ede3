package pipeline

import (
	"fmt"

	"nuage/controller/tenant"
)

// claimsOf is what an object claims, and when it was created; nil if it does not exist.
// Every object claims its cookie. Only sound values are claimed: what is not sound gets
// no flows anyhow. A vport without a host or an address is attached nowhere and claims nothing
// more.
func claimsOf(s *tenant.State, k tenant.Key, host string, ports map[string]uint32) ([]claim, tenant.Age) {
	cs := []claim{{what: claimCookie, value: Cookie(k)}}
	switch k.Kind {
	case tenant.KindHost:
		if h := s.Hosts[k.ID]; h != nil {
			if h.VTEP.Is4() {
				cs = append(cs, vtepClaim(h.VTEP))
			}
			return cs, h.Age()
		}
	case tenant.KindDomain:
		if d := s.Domains[k.ID]; d != nil {
			return append(cs, claim{what: claimNumber, value: uint64(d.Number)}), d.Age()
		}
	case tenant.KindSubnet:
		if sn := s.Subnets[k.ID]; sn != nil {
			cs = append(cs, claim{what: claimVNI, value: uint64(sn.VNI)})
			if a := sn.CIDR.Addr(); a.Is4() {
				cs = append(cs, claim{claimPrefix, sn.DomainID, uint4(a)<<8 | uint64(sn.CIDR.Bits())})
			}
			if sn.Gateway.Is4() {
				cs = append(cs, addressClaim(sn.DomainID, sn.Gateway))
			}
			return cs, sn.Age()
		}
	case tenant.KindVport:
		v := s.Vports[k.ID]
		if v == nil {
			break
		}
		if v.Host == "" || !v.IPv4.IsValid() {
			return cs, v.Age()
		}
		cs = append(cs, macClaim(v.SubnetID, v.MAC))
		if sn := s.Subnets[v.SubnetID]; sn != nil {
			if v.IPv4.Is4() {
				cs = append(cs, addressClaim(sn.DomainID, v.IPv4))
			}
			for _, vip := range v.Virtual() {
				cs = append(cs, virtualClaim(sn.DomainID, vip.IPv4))
			}
		}
		if n, ok := ports[v.Interface]; ok && v.Host == host {
			cs = append(cs, claim{what: claimPort, value: uint64(n)})
		}
		return cs, v.Age()
	default:
		return policyClaims(s, k, cs)
	}
	return nil, tenant.Age{}
}

// resolve finds what an object's flows are made of. One that is not live has no flows, and
// the note says why, unless it needs none here. A note beside flows says what they cannot
// do.
func (c *Compiler) resolve(s *tenant.State, k tenant.Key) (o object, note string, live bool) {
	switch k.Kind {
	case kindSwitch:
		return object{tunnel: c.tunnel}, "", true
	case tenant.KindHost:
		o, note = c.resolveHost(s, s.Hosts[k.ID])
	case tenant.KindDomain:
		if o, note = c.resolveDomain(s, s.Domains[k.ID]); o.live() {
			o.chains, note = c.chains(s, o.domain)
		}
	case tenant.KindSubnet:
		if o, note = c.resolveSubnet(s, s.Subnets[k.ID]); o.live() {
			o.zone = c.zoneOf(s, o.subnet)
		}
	case tenant.KindVport:
		if o, note = c.resolveVport(s, s.Vports[k.ID]); o.live() {
			c.describe(s, &o)
		}
	case tenant.KindZone:
		o, note = c.resolveZone(s, s.Zones[k.ID])
	case tenant.KindPolicy:
		if o, note = c.resolvePolicy(s, s.Policies[k.ID]); o.live() {
			o.rules = c.decider(s, o.policy) == o.policy
		}
	case tenant.KindEntry:
		o, note = c.resolveEntry(s, s.Entries[k.ID])
	case tenant.KindPolicyGroup:
		note = c.groupNote(s, s.PolicyGroups[k.ID])
	case tenant.KindRateLimiter:
		note = c.limiterNote(s, s.RateLimiters[k.ID])
	}
	return o, note, o.live()
}

// resolveHost is another host that there is a tunnel to. This host needs none to itself,
// but others may have no way to it.
func (c *Compiler) resolveHost(s *tenant.State, h *tenant.Host) (object, string) {
	problem := c.noTunnel(s, h.ID)
	switch {
	case h.ID == c.host && !h.VTEP.IsValid(): // the only host, perhaps
		return object{}, ""
	case h.ID == c.host, problem != "":
		return object{}, problem
	case c.tunnel == 0:
		return object{}, ""
	}
	return object{vtep: h.VTEP, tunnel: c.tunnel, mtu: pathMTU(s.Hosts[c.host], h)}, ""
}

// noTunnel is why there is no way to a host; empty if there is one.
func (c *Compiler) noTunnel(s *tenant.State, host string) string {
	h := s.Hosts[host]
	problem := ""
	switch {
	case h == nil:
		problem = "it is not known"
	case !h.VTEP.IsValid():
		problem = "it has no VTEP"
	case !h.VTEP.Is4() || !h.VTEP.IsGlobalUnicast():
		problem = fmt.Sprintf("%v cannot be a VTEP", h.VTEP)
	default:
		problem = c.lost(s, tenant.Key{Kind: tenant.KindHost, ID: host})
	}
	if problem != "" {
		return fmt.Sprintf("host %s: %s", host, problem)
	}
	return ""
}

// pathMTU is the largest IPv4 packet of a vport that fits through a tunnel from here to
// there; 0 if either host has not said how wide its underlay is.
func pathMTU(here, there *tenant.Host) int {
	if here == nil || here.MTU == 0 || there.MTU == 0 {
		return 0
	}
	return min(max(min(here.MTU, there.MTU)-encapsulation, leastMTU), mostMTU)
}

// What a tunnel adds to a packet, and the bounds within which its MTU makes sense: IPv4's
// least, and what fits into the fields that carry it.
const (
	encapsulation = 50
	leastMTU      = 68
	mostMTU       = 65000
)

func (c *Compiler) resolveDomain(s *tenant.State, d *tenant.Domain) (object, string) {
	if c.local[d.ID] == 0 {
		return object{}, ""
	}
	if d.Number == 0 || d.Number > maxNumber {
		return object{}, fmt.Sprintf("domain %s: number %d is not in 1..%d", d.Name, d.Number, maxNumber)
	}
	if lost := c.lost(s, tenant.Key{Kind: tenant.KindDomain, ID: d.ID}); lost != "" {
		return object{}, fmt.Sprintf("domain %s: %s", d.Name, lost)
	}
	return object{domain: d}, ""
}

func (c *Compiler) resolveSubnet(s *tenant.State, sn *tenant.Subnet) (object, string) {
	if c.local[sn.DomainID] == 0 {
		return object{}, ""
	}
	d := s.Domains[sn.DomainID]
	if d == nil {
		return object{}, fmt.Sprintf("subnet %s: domain %s does not exist", sn.Name, sn.DomainID)
	}
	o, _ := c.resolveDomain(s, d)
	problem := ""
	switch {
	case o.domain == nil:
		problem = fmt.Sprintf("domain %s has no flows", d.Name)
	case sn.VNI == 0 || sn.VNI > maxVNI:
		problem = fmt.Sprintf("VNI %d is not in 1..%d", sn.VNI, maxVNI)
	case !sn.CIDR.Addr().Is4() || !sn.Gateway.Is4() || !sn.CIDR.Contains(sn.Gateway):
		problem = fmt.Sprintf("gateway %v is not an IPv4 address of %v", sn.Gateway, sn.CIDR)
	default:
		problem = c.lost(s, tenant.Key{Kind: tenant.KindSubnet, ID: sn.ID})
	}
	if problem != "" {
		return object{}, fmt.Sprintf("subnet %s: %s", sn.Name, problem)
	}
	o.subnet = sn
	return o, ""
}

func (c *Compiler) resolveVport(s *tenant.State, v *tenant.Vport) (object, string) {
	here := v.Host == c.host
	sn := s.Subnets[v.SubnetID]
	switch {
	case v.Host == "":
		return object{}, ""
	case v.Error != "" && !v.IPv4.IsValid() && here:
		return object{}, fmt.Sprintf("vport %s: not attached: %s", v.Name, v.Error)
	case v.Error != "" && !v.IPv4.IsValid(): // its own host says it
		return object{}, ""
	case sn == nil && here:
		return object{}, fmt.Sprintf("vport %s: subnet %s does not exist", v.Name, v.SubnetID)
	case sn == nil || c.local[sn.DomainID] == 0:
		return object{}, ""
	}
	o, _ := c.resolveSubnet(s, sn)
	unreachable := ""
	if here {
		o.port = c.ports[v.Interface]
	} else if unreachable = c.noTunnel(s, v.Host); unreachable == "" {
		o.vtep = s.Hosts[v.Host].VTEP
	}
	problem := ""
	switch {
	case o.subnet == nil:
		problem = fmt.Sprintf("subnet %s has no flows", sn.Name)
	case v.DomainID != sn.DomainID:
		problem = fmt.Sprintf("subnet %s is of another domain", sn.Name)
	case v.MAC.IsZero() || v.MAC[0]&1 != 0 || v.MAC == tenant.GatewayMAC:
		problem = fmt.Sprintf("MAC %q is not one for a vport", v.MAC)
	case !v.IPv4.Is4() || !sn.CIDR.Contains(v.IPv4):
		problem = fmt.Sprintf("address %v is not an IPv4 address of %v", v.IPv4, sn.CIDR)
	case here && (o.port == 0 || o.port >= firstReservedPort):
		problem = fmt.Sprintf("port %q is not on the bridge", v.Interface)
	default:
		problem = c.lost(s, tenant.Key{Kind: tenant.KindVport, ID: v.ID})
	}
	if problem != "" {
		return object{}, fmt.Sprintf("vport %s: %s", v.Name, problem)
	}
	o.vport = v
	if unreachable != "" {
		return o, fmt.Sprintf("vport %s: not reachable: %s", v.Name, unreachable)
	}
	return o, ""
}

// lost says which of an object's claims another object has; empty if it has them all.
func (c *Compiler) lost(s *tenant.State, k tenant.Key) string {
	e := c.records[k]
	if e == nil {
		return "not looked at yet"
	}
	for _, cl := range e.claims {
		if cl.what == claimVirtual { // of several vports that name one, all may send from it
			continue
		}
		if first := c.claims[cl].first; first != e {
			return fmt.Sprintf("%v belongs to %s, which was there first", cl, nameOf(s, first.key))
		}
	}
	return ""
}

// The ranges of the numbers in registers and in OpenFlow.
const (
	maxNumber         = 1<<15 - 1
	maxVNI            = 1<<24 - 1
	firstReservedPort = 0xff00
)
