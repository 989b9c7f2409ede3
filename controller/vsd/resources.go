package vsd

import (
	"fmt"
	"math/bits"
	"net"
	"net/netip"

	"nuage/controller/tenant"
)

// resources is the whole of VSD's API here. A new class of the model becomes an entry.
var resources = []resource{enterprises, domains, zones, subnets, vports, containerInterfaces,
	policyGroups, networkMacros, qos, virtualIPs,
	aclTemplates(tenant.Ingress), aclTemplates(tenant.Egress), aclEntries(tenant.Ingress), aclEntries(tenant.Egress)}

func resourceOf(word string) resource {
	for _, r := range resources {
		if r.words().name == word {
			return r
		}
	}
	return nil
}

// plain says why nothing can be encrypted.
const plain = "nothing is encrypted between hosts: the underlay has to see to that"

var enterprises = &spec[tenant.Enterprise]{
	called:  words{name: "enterprises", rest: "enterprise"},
	objects: func(s *tenant.State) map[string]*tenant.Enterprise { return s.Enterprises },
	meta:    func(o *tenant.Enterprise) *tenant.Meta { return &o.Meta },
	fields: append(fixed[tenant.Enterprise](map[string]any{
		"useGlobalMAC": true, "floatingIPsQuota": int64(0), "floatingIPsUsed": int64(0),
	}),
		required(text("name", func(o *tenant.Enterprise) *string { return &o.Name })),
		text("description", func(o *tenant.Enterprise) *string { return &o.Description }),
		chosen("customerID", func(o *tenant.Enterprise) *uint32 { return &o.CustomerID }),
	),
	insert:   Store.CreateEnterprise,
	write:    Store.UpdateEnterprise,
	takeAway: Store.DeleteEnterprise,
}

var domains = &spec[tenant.Domain]{
	called:  words{name: "domains", rest: "domain", parent: "enterprises"},
	objects: func(s *tenant.State) map[string]*tenant.Domain { return s.Domains },
	meta:    func(o *tenant.Domain) *tenant.Meta { return &o.Meta },
	within:  map[string]func(*tenant.Domain) string{"enterprises": func(o *tenant.Domain) string { return o.EnterpriseID }},
	adopt:   func(_ *tenant.State, o *tenant.Domain, parentID string) { o.EnterpriseID = parentID },
	fields: append(fixed[tenant.Domain](map[string]any{
		"tunnelType": "VXLAN", "PATEnabled": "DISABLED", "underlayEnabled": "DISABLED", "FIPUnderlay": false,
		"maintenanceMode": "DISABLED", "DPI": "DISABLED", "stretched": false, "ECMPCount": int64(1),
	}),
		only[tenant.Domain]("encryption", "DISABLED", plain),
		required(text("name", func(o *tenant.Domain) *string { return &o.Name })),
		text("description", func(o *tenant.Domain) *string { return &o.Description }),
		text("templateID", func(o *tenant.Domain) *string { return &o.TemplateID }),
		chosen("backHaulVNID", func(o *tenant.Domain) *uint32 { return &o.VNI }),
		derived("domainID", func(_ *tenant.State, o *tenant.Domain) any { return int64(o.Number) }),
		derived("enterpriseID", func(_ *tenant.State, o *tenant.Domain) any { return o.EnterpriseID }),
		derived("customerID", func(s *tenant.State, o *tenant.Domain) any {
			if e := s.Enterprises[o.EnterpriseID]; e != nil {
				return int64(e.CustomerID)
			}
			return nil
		}),
	),
	insert:   Store.CreateDomain,
	write:    Store.UpdateDomain,
	takeAway: Store.DeleteDomain,
}

var zones = &spec[tenant.Zone]{
	called:  words{name: "zones", rest: "zone", parent: "domains"},
	objects: func(s *tenant.State) map[string]*tenant.Zone { return s.Zones },
	meta:    func(o *tenant.Zone) *tenant.Meta { return &o.Meta },
	within:  map[string]func(*tenant.Zone) string{"domains": func(o *tenant.Zone) string { return o.DomainID }},
	adopt:   func(_ *tenant.State, o *tenant.Zone, parentID string) { o.DomainID = parentID },
	fields: append(fixed[tenant.Zone](map[string]any{
		"publicZone": false, "maintenanceMode": "DISABLED", "DPI": "INHERITED",
		"address": nil, "netmask": nil, "templateID": nil,
	}),
		only[tenant.Zone]("encryption", "INHERITED", plain, "DISABLED"),
		required(text("name", func(o *tenant.Zone) *string { return &o.Name })),
		text("description", func(o *tenant.Zone) *string { return &o.Description }),
	),
	insert:   Store.CreateZone,
	write:    Store.UpdateZone,
	takeAway: Store.DeleteZone,
}

var subnets = &spec[tenant.Subnet]{
	called:  words{name: "subnets", rest: "subnet", parent: "zones"},
	objects: func(s *tenant.State) map[string]*tenant.Subnet { return s.Subnets },
	meta:    func(o *tenant.Subnet) *tenant.Meta { return &o.Meta },
	within: map[string]func(*tenant.Subnet) string{
		"zones":   func(o *tenant.Subnet) string { return o.ZoneID },
		"domains": func(o *tenant.Subnet) string { return o.DomainID },
	},
	adopt: func(s *tenant.State, o *tenant.Subnet, parentID string) {
		o.ZoneID = parentID
		if z := s.Zones[parentID]; z != nil {
			o.DomainID = z.DomainID
		}
	},
	fields: append(fixed[tenant.Subnet](map[string]any{
		"IPType": "IPV4", "PATEnabled": "INHERITED", "underlayEnabled": "INHERITED", "DPI": "INHERITED",
		"maintenanceMode": "DISABLED", "resourceType": "STANDARD", "useGlobalMAC": "ENABLED", "splitSubnet": false,
		"templateID": nil, "gatewayMACAddress": tenant.GatewayMAC.String(),
	}),
		only[tenant.Subnet]("encryption", "INHERITED", plain, "DISABLED"),
		required(text("name", func(o *tenant.Subnet) *string { return &o.Name })),
		text("description", func(o *tenant.Subnet) *string { return &o.Description }),
		derived("address", func(_ *tenant.State, o *tenant.Subnet) any { return addressText(o.CIDR.Addr()) }),
		derived("netmask", func(_ *tenant.State, o *tenant.Subnet) any { return netmask(o.CIDR) }),
		derived("gateway", func(_ *tenant.State, o *tenant.Subnet) any { return addressText(o.Gateway) }),
		chosen("vnId", func(o *tenant.Subnet) *uint32 { return &o.VNI }),
	),
	finish:   subnetAddresses,
	insert:   Store.CreateSubnet,
	write:    Store.UpdateSubnet,
	takeAway: Store.DeleteSubnet,
}

var vports = &spec[tenant.Vport]{
	called:  words{name: "vports", rest: "vport", parent: "subnets", unlisted: true},
	objects: func(s *tenant.State) map[string]*tenant.Vport { return s.Vports },
	meta:    func(o *tenant.Vport) *tenant.Meta { return &o.Meta },
	within: map[string]func(*tenant.Vport) string{
		"subnets": func(o *tenant.Vport) string { return o.SubnetID },
		"zones":   func(o *tenant.Vport) string { return o.ZoneID },
		"domains": func(o *tenant.Vport) string { return o.DomainID },
	},
	members: map[string]func(*tenant.State, *tenant.Vport, string) bool{"policygroups": isMember},
	adopt:   func(_ *tenant.State, o *tenant.Vport, parentID string) { o.SubnetID = parentID },
	initial: newMachine,
	finish:  finishMachine,
	fields: append(append(fixed[tenant.Vport](map[string]any{
		"active": true, "subType": "NONE", "systemType": "SOFTWARE", "DPI": "INHERITED",
	}), machineFields...),
		required(text("name", func(o *tenant.Vport) *string { return &o.Name })),
		kept(field[tenant.Vport]{name: "addressSpoofing",
			get: func(_ *tenant.State, o *tenant.Vport) any {
				if o.AddressSpoofing {
					return "ENABLED"
				}
				return "INHERITED"
			},
			set: func(o *tenant.Vport, v string) (err error) { o.AddressSpoofing, err = spoofing(v); return err }}),
		derived("operationalState", func(s *tenant.State, o *tenant.Vport) any { return operationalStates[vportState(s, o)] }),
		derived("hasAttachedInterfaces", func(_ *tenant.State, o *tenant.Vport) any { return o.Interface != "" }),
		derived("domainID", func(_ *tenant.State, o *tenant.Vport) any { return o.DomainID }),
		derived("domainName", func(s *tenant.State, o *tenant.Vport) any { return domainName(s, o) }),
		derived("zoneID", func(_ *tenant.State, o *tenant.Vport) any { return o.ZoneID }),
		derived("subnetVNID", func(s *tenant.State, o *tenant.Vport) any {
			if n := s.Subnets[o.SubnetID]; n != nil {
				return int64(n.VNI)
			}
			return nil
		}),
	),
	insert:   insertMachine,
	write:    Store.UpdateVport,
	takeAway: Store.DeleteVport,
	mayDelete: func(s *tenant.State, o *tenant.Vport) error {
		switch {
		case o.Interface == "":
			return nil
		case vportState(s, o) == vportLost:
			return tenant.Errorf(tenant.ErrConflict, "vport %s is attached on host %s, which is not alive: delete the host if it is gone for good (nuagectl delete host %s)", o.Name, o.Host, o.Host)
		}
		if o.Type == tenant.VportVM {
			return tenant.Errorf(tenant.ErrConflict, "vport %s is attached on host %s: remove interface %s from the bridge there", o.Name, o.Host, o.Interface)
		}
		return tenant.Errorf(tenant.ErrConflict, "vport %s is attached on host %s: disconnect its container there (docker network disconnect)", o.Name, o.Host)
	},
}

// containerInterfaces are the vports of containers once more, with their addresses: VSD
// has those on the interface.
var containerInterfaces = &spec[tenant.Vport]{
	called: words{name: "containerinterfaces", rest: "containerinterface", parent: "vports", given: "it comes and goes with the container"},
	objects: func(s *tenant.State) map[string]*tenant.Vport {
		m := map[string]*tenant.Vport{}
		for id, v := range s.Vports {
			if v.Type == tenant.VportContainer {
				m[id] = v
			}
		}
		return m
	},
	meta: func(o *tenant.Vport) *tenant.Meta { return &o.Meta },
	within: map[string]func(*tenant.Vport) string{
		"vports":  func(o *tenant.Vport) string { return o.ID },
		"subnets": func(o *tenant.Vport) string { return o.SubnetID },
		"zones":   func(o *tenant.Vport) string { return o.ZoneID },
		"domains": func(o *tenant.Vport) string { return o.DomainID },
	},
	fields: []field[tenant.Vport]{
		derived("name", func(_ *tenant.State, o *tenant.Vport) any { return o.Name }),
		derived("MAC", func(_ *tenant.State, o *tenant.Vport) any { return orNull(o.MAC.String()) }),
		derived("IPAddress", func(_ *tenant.State, o *tenant.Vport) any { return addressText(o.IPv4) }),
		derived("netmask", inSubnet(func(n *tenant.Subnet) any { return netmask(n.CIDR) })),
		derived("gateway", inSubnet(func(n *tenant.Subnet) any { return addressText(n.Gateway) })),
		derived("networkName", inSubnet(func(n *tenant.Subnet) any { return n.Name })),
		derived("attachedNetworkID", func(_ *tenant.State, o *tenant.Vport) any { return o.SubnetID }),
		derived("attachedNetworkType", func(*tenant.State, *tenant.Vport) any { return "SUBNET" }),
		derived("VPortID", func(_ *tenant.State, o *tenant.Vport) any { return o.ID }),
		derived("VPortName", func(_ *tenant.State, o *tenant.Vport) any { return o.Name }),
		derived("domainID", func(_ *tenant.State, o *tenant.Vport) any { return o.DomainID }),
		derived("domainName", func(s *tenant.State, o *tenant.Vport) any { return domainName(s, o) }),
		derived("zoneID", func(_ *tenant.State, o *tenant.Vport) any { return o.ZoneID }),
		derived("zoneName", func(s *tenant.State, o *tenant.Vport) any {
			if z := s.Zones[o.ZoneID]; z != nil {
				return z.Name
			}
			return nil
		}),
		derived("containerUUID", func(_ *tenant.State, o *tenant.Vport) any { return orNull(o.Owner.ContainerID) }),
		derived("endpointID", func(_ *tenant.State, o *tenant.Vport) any { return orNull(o.Owner.EndpointID) }),
		derived("networkID", func(_ *tenant.State, o *tenant.Vport) any { return orNull(o.Owner.NetworkID) }),
	},
}

// operationalStates are VSD's words.
var operationalStates = map[string]string{vportUp: "UP", vportDown: "INIT", vportFailed: "DOWN", vportLost: "DOWN"}

func domainName(s *tenant.State, o *tenant.Vport) any {
	if d := s.Domains[o.DomainID]; d != nil {
		return d.Name
	}
	return nil
}

func inSubnet(get func(*tenant.Subnet) any) func(*tenant.State, *tenant.Vport) any {
	return func(s *tenant.State, o *tenant.Vport) any {
		if n := s.Subnets[o.SubnetID]; n != nil {
			return get(n)
		}
		return nil
	}
}

func addressText(a netip.Addr) any {
	if !a.IsValid() {
		return nil
	}
	return a.String()
}

func netmask(p netip.Prefix) any {
	if !p.IsValid() {
		return nil
	}
	return net.IP(net.CIDRMask(p.Bits(), p.Addr().BitLen())).String()
}

// subnetAddresses sets CIDR and gateway from VSD's three attributes. What is not given
// stays; a new CIDR without a gateway has its first host address as gateway.
func subnetAddresses(o *tenant.Subnet, b body) error {
	address, hasAddress, err := b.text("address")
	if err != nil {
		return err
	}
	mask, hasMask, err := b.text("netmask")
	if err != nil {
		return err
	}
	gateway, _, err := b.text("gateway")
	if err != nil {
		return err
	}
	cidr := o.CIDR
	if hasAddress && address != "" || hasMask && mask != "" {
		if cidr, err = joinCIDR(address, mask, o.CIDR); err != nil {
			return err
		}
	}
	if !cidr.IsValid() {
		return badProperty("address", "the address of the subnet is missing")
	}
	if cidr != o.CIDR {
		o.CIDR, o.Gateway = cidr, tenant.FirstHost(cidr)
	}
	if gateway == "" {
		return nil
	}
	a, err := netip.ParseAddr(gateway)
	if err != nil {
		return badProperty("gateway", "%q is not an IPv4 address", gateway)
	}
	o.Gateway = a
	return nil
}

// joinCIDR is the prefix of an address and a netmask, each taken from old if it is empty.
func joinCIDR(address, mask string, old netip.Prefix) (netip.Prefix, error) {
	a, n := old.Addr(), old.Bits()
	var err error
	if address != "" {
		if a, err = netip.ParseAddr(address); err != nil || !a.Is4() {
			return netip.Prefix{}, badProperty("address", "%q is not an IPv4 address", address)
		}
	}
	if mask != "" {
		if n, err = maskBits(mask); err != nil {
			return netip.Prefix{}, &propertyError{"netmask", err}
		}
	}
	if n < 0 {
		return netip.Prefix{}, badProperty("netmask", "the netmask of the subnet is missing")
	}
	return netip.PrefixFrom(a, n), nil
}

func maskBits(mask string) (int, error) {
	a, err := netip.ParseAddr(mask)
	if err == nil && a.Is4() {
		b := a.As4()
		v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		if n := bits.LeadingZeros32(^v); v<<n == 0 {
			return n, nil
		}
	}
	return 0, fmt.Errorf("%w: %q is not a netmask such as 255.255.255.0", tenant.ErrInvalid, mask)
}
