package driver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"nuage/controller/tenant"
	"nuage/ipam"
)

// Docker's keys in the options of CreateNetwork and CreateEndpoint.
const (
	keyGeneric  = "com.docker.network.generic"
	keyInternal = "com.docker.network.internal"
	keyIPv4     = "com.docker.network.enable_ipv4"
	keyIPv6     = "com.docker.network.enable_ipv6"
	keyPortMap  = "com.docker.network.portmap"
	keyIfName   = "com.docker.network.endpoint.ifname"
)

const spaceNull = "null" // the address space of Docker's null IPAM

// asked is what Docker asked of a network.
type asked struct {
	Options   ipam.Options `json:"options"`
	Space     string       `json:"space"`
	Pool      netip.Prefix `json:"pool,omitzero"`
	Gateway   netip.Addr   `json:"gateway,omitzero"`
	Auxiliary []netip.Addr `json:"auxiliary,omitempty"`
	Internal  bool         `json:"internal,omitempty"`
}

func (a asked) equal(o asked) bool { return reflect.DeepEqual(a, o) }

// mode is how the network gets its addresses. For Docker's own IPAM it is AddressDocker
// until the subnet is known.
func (a asked) mode() tenant.AddressMode {
	switch {
	case ipam.Owns(a.Space):
		return tenant.AddressTenant
	case a.Space == spaceNull && a.Pool == netip.PrefixFrom(netip.IPv4Unspecified(), 0):
		return tenant.AddressNull
	}
	return tenant.AddressDocker
}

// readNetwork reads the request of CreateNetwork. All its errors are tenant.ErrInvalid.
func readNetwork(req *CreateNetworkRequest) (a asked, err error) {
	if err := checkDockerID("network", req.NetworkID); err != nil {
		return a, err
	}
	a.Internal = isTrue(req.Options[keyInternal])
	v4, given4 := req.Options[keyIPv4]
	switch {
	case isTrue(req.Options[keyIPv6]) || len(req.IPv6Data) > 0:
		return a, tenant.Errorf(tenant.ErrInvalid, "IPv6 is not supported: create the network without --ipv6 and without an IPv6 --subnet")
	case given4 && !isTrue(v4) || len(req.IPv4Data) == 0 || req.IPv4Data[0] == nil:
		return a, tenant.Errorf(tenant.ErrInvalid, "a network needs IPv4: create it without --ipv4=false")
	case len(req.IPv4Data) > 1:
		return a, tenant.Errorf(tenant.ErrInvalid, "a network has one subnet, not %d: give one --subnet, and create a network for each of the others", len(req.IPv4Data))
	}
	data := req.IPv4Data[0]
	a.Space = data.AddressSpace
	pool, err := netip.ParsePrefix(data.Pool)
	if err != nil || !pool.Addr().Is4() {
		return a, tenant.Errorf(tenant.ErrInvalid, "the pool %q is not an IPv4 prefix", data.Pool)
	}
	a.Pool = pool.Masked()
	given, err := generic(req.Options[keyGeneric])
	if err != nil {
		return a, err
	}
	if a.Options, err = ipam.ParseOptions(given); err != nil {
		return a, err
	}
	if data.Gateway != "" {
		if a.Gateway, err = address(data.Gateway); err != nil {
			return a, fmt.Errorf("gateway: %w", err)
		}
	}
	for name, aux := range data.AuxAddresses {
		text, _ := aux.(string)
		addr, err := address(text)
		if err != nil {
			return a, fmt.Errorf("auxiliary address %s: %w", name, err)
		}
		a.Auxiliary = append(a.Auxiliary, addr)
	}
	slices.SortFunc(a.Auxiliary, netip.Addr.Compare)
	return a, nil
}

// generic is what the user gave with -o.
func generic(v any) (map[string]string, error) {
	given := map[string]string{}
	switch v := v.(type) {
	case nil:
	case map[string]any:
		for key, value := range v {
			text, ok := value.(string)
			if !ok {
				return nil, tenant.Errorf(tenant.ErrInvalid, "option %s is not text", key)
			}
			given[key] = text
		}
	default:
		return nil, tenant.Errorf(tenant.ErrInvalid, "%s is not a map of options", keyGeneric)
	}
	return given, nil
}

// isTrue reads a flag, which some engines send as text.
func isTrue(v any) bool { return v == true || v == "true" }

// address reads "ip" or "ip/len".
func address(s string) (netip.Addr, error) {
	text, _, _ := strings.Cut(s, "/")
	addr, err := netip.ParseAddr(text)
	if err != nil || !addr.Is4() {
		return netip.Addr{}, tenant.Errorf(tenant.ErrInvalid, "%q is not an IPv4 address", s)
	}
	return addr, nil
}

// checkDockerID accepts what Docker makes, and what is safe in names of links and keys: only
// swarm's networks have letters that hexadecimal numbers have not.
func checkDockerID(noun, id string) error {
	ok, last := len(id) >= 12 && len(id) <= 64, byte('f')
	if noun == "network" {
		last = 'z'
	}
	for _, c := range []byte(id) {
		ok = ok && ('0' <= c && c <= '9' || 'a' <= c && c <= last)
	}
	if !ok {
		return tenant.Errorf(tenant.ErrInvalid, "%s %.80q: not an ID of Docker", noun, id)
	}
	return nil
}

const example = "docker network create -d nuage -o enterprise=DCEnterprise -o domain=App1 -o zone=DockerZone web"

// spec is the subnet that a network means, for Docker's and for the null IPAM.
func (d *Driver) spec(a asked) (tenant.PathSpec, error) {
	o := a.Options
	if o.Enterprise == "" {
		o.Enterprise = d.Enterprise
	}
	var missing []string
	for name, value := range map[string]string{"domain": o.Domain, "zone": o.Zone, "enterprise": o.Enterprise} {
		if value == "" {
			missing = append(missing, "-o "+name+"=…")
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return tenant.PathSpec{}, tenant.Errorf(tenant.ErrInvalid, "%s missing: a network belongs to a domain and a zone of an enterprise, as in: %s", strings.Join(missing, ", "), example)
	}
	spec := tenant.PathSpec{Enterprise: o.Enterprise, Domain: o.Domain, Zone: o.Zone, Subnet: o.Subnet}
	if a.mode() == tenant.AddressNull {
		return spec, nil
	}
	spec.CIDR, spec.Gateway = a.Pool, a.Gateway
	spec.Create = d.Autocreate
	// A subnet that the user named is the user's; one that came with Docker's choice of
	// addresses goes with the network.
	spec.DockerOwned = o.Subnet == ""
	return spec, nil
}

// zoneOf finds the domain and the zone that spec names, each nil if it does not exist.
func zoneOf(st *tenant.State, spec tenant.PathSpec) (*tenant.Domain, *tenant.Zone) {
	e := st.EnterpriseByName(spec.Enterprise)
	if e == nil {
		return nil, nil
	}
	dom := st.DomainByName(e.ID, spec.Domain)
	if dom == nil {
		return nil, nil
	}
	return dom, st.ZoneByName(dom.ID, spec.Zone)
}

// ambiguous says which subnets a network without Docker's IPAM, which names none, could mean.
func ambiguous(st *tenant.State, spec tenant.PathSpec, refusal error) error {
	var names []string
	if _, z := zoneOf(st, spec); z != nil {
		st.Children(tenant.Key{Kind: tenant.KindZone, ID: z.ID}, tenant.KindSubnet, func(id string) {
			if sub := st.Subnets[id]; !sub.DockerOwned { // those come and go with other networks
				names = append(names, sub.Name)
			}
		})
	}
	slices.Sort(names)
	switch len(names) {
	case 1:
		return refusal
	case 0:
		return tenant.Errorf(tenant.ErrNotFound, "zone %s of domain %s has no subnet: create one first (nuagectl apply), or use Docker's IPAM (without --ipam-driver null)", spec.Zone, spec.Domain)
	}
	return tenant.Errorf(tenant.ErrInvalid, "zone %s of domain %s has several subnets: say which with -o subnet=NAME (%s)", spec.Zone, spec.Domain, strings.Join(names, ", "))
}

// advise adds to the refusal of a network's path the flags that would be right, where the
// state tells them.
func (d *Driver) advise(ctx context.Context, n *network, refusal error) error {
	docker := n.Network.Mode == tenant.AddressDocker && errors.Is(refusal, tenant.ErrConflict)
	unnamed := n.Network.Mode == tenant.AddressNull && n.Path.Subnet == "" && !errors.Is(refusal, tenant.ErrUnavailable)
	if !docker && !unnamed {
		return refusal
	}
	st, err := d.Store.Read(ctx)
	switch {
	case err != nil:
		return refusal
	case docker:
		return suggest(st, n.Path, refusal)
	}
	return ambiguous(st, n.Path, refusal)
}

// suggest names the flags that fit the subnet in the way of spec.
func suggest(st *tenant.State, spec tenant.PathSpec, err error) error {
	by := fmt.Sprintf("--ipam-driver nuage --ipam-opt domain=%s --ipam-opt zone=%s", spec.Domain, spec.Zone)
	var sub *tenant.Subnet
	if dom, z := zoneOf(st, spec); z != nil {
		if sub = st.SubnetOverlapping(dom.ID, spec.CIDR); spec.Subnet != "" {
			sub = st.SubnetByName(z.ID, spec.Subnet)
		}
		if sub != nil && sub.ZoneID != z.ID {
			sub = nil
		}
	}
	if sub == nil {
		return fmt.Errorf("%w: choose another prefix with --subnet and --gateway, or have the tenant's addresses with %s", err, by)
	}
	return fmt.Errorf("%w: use --subnet %s --gateway %s, or have the tenant's addresses with %s --ipam-opt subnet=%s", err, sub.CIDR, sub.Gateway, by, sub.Name)
}
