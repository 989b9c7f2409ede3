package pipeline

import (
	"fmt"
	"time"

	"nuage/controller/tenant"
)

// claimsOf is what an object claims, and when it was created; nil if it does not exist.
// Every object claims its cookie. Only sound values are claimed: what is not sound gets
// no flows anyhow. A vport without a host is attached nowhere and claims nothing more.
func claimsOf(s *tenant.State, k tenant.Key, host string, ports map[string]uint32) ([]claim, time.Time) {
	cs := []claim{{what: claimCookie, value: Cookie(k)}}
	switch k.Kind {
	case tenant.KindDomain:
		if d := s.Domains[k.ID]; d != nil {
			return append(cs, claim{what: claimNumber, value: uint64(d.Number)}), d.Created
		}
	case tenant.KindSubnet:
		if sn := s.Subnets[k.ID]; sn != nil {
			cs = append(cs, claim{what: claimVNI, value: uint64(sn.VNI)})
			if sn.Gateway.Is4() {
				cs = append(cs, addressClaim(sn.DomainID, sn.Gateway))
			}
			return cs, sn.Created
		}
	case tenant.KindVport:
		v := s.Vports[k.ID]
		if v == nil {
			break
		}
		if v.Host == "" {
			return cs, v.Created
		}
		cs = append(cs, macClaim(v.SubnetID, v.MAC))
		if sn := s.Subnets[v.SubnetID]; sn != nil && v.IPv4.Is4() {
			cs = append(cs, addressClaim(sn.DomainID, v.IPv4))
		}
		if n, ok := ports[v.Interface]; ok && v.Host == host {
			cs = append(cs, claim{what: claimPort, value: uint64(n)})
		}
		return cs, v.Created
	}
	return nil, time.Time{}
}

// resolve finds what an object's flows are made of. Without a domain in the result the
// object has no flows, and the note says why, unless it needs none here.
func (c *Compiler) resolve(s *tenant.State, k tenant.Key) (object, string) {
	switch k.Kind {
	case tenant.KindDomain:
		return c.resolveDomain(s, s.Domains[k.ID])
	case tenant.KindSubnet:
		return c.resolveSubnet(s, s.Subnets[k.ID])
	default:
		return c.resolveVport(s, s.Vports[k.ID])
	}
}

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
	case sn == nil && here:
		return object{}, fmt.Sprintf("vport %s: subnet %s does not exist", v.Name, v.SubnetID)
	case sn == nil || c.local[sn.DomainID] == 0:
		return object{}, ""
	}
	o, _ := c.resolveSubnet(s, sn)
	if here {
		o.port = c.ports[v.Interface]
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
	return o, ""
}

// lost says which of an object's claims another object has; empty if it has them all.
func (c *Compiler) lost(s *tenant.State, k tenant.Key) string {
	e := c.entries[k]
	if e == nil {
		return "not looked at yet"
	}
	for _, cl := range e.claims {
		if first := c.claims[cl].first; first != e {
			return fmt.Sprintf("%v belongs to %s, which was there first", cl, nameOf(s, first.key))
		}
	}
	return ""
}

func nameOf(s *tenant.State, k tenant.Key) string {
	switch {
	case k.Kind == tenant.KindDomain && s.Domains[k.ID] != nil:
		return "domain " + s.Domains[k.ID].Name
	case k.Kind == tenant.KindSubnet && s.Subnets[k.ID] != nil:
		return "subnet " + s.Subnets[k.ID].Name
	case k.Kind == tenant.KindVport && s.Vports[k.ID] != nil:
		return "vport " + s.Vports[k.ID].Name
	default:
		return string(k.Kind) + " " + k.ID
	}
}

// The ranges of the numbers in registers and in OpenFlow.
const (
	maxNumber         = 1<<15 - 1
	maxVNI            = 1<<24 - 1
	firstReservedPort = 0xff00
)
