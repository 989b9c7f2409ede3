package vsd

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"nuage/controller/tenant"
)

// The views are the objects as people ask for them: with the names of what contains
// them, with counts, and with a state in a word.

// Place names what contains an object, as far as it has such.
type Place struct {
	Enterprise string `json:"enterprise,omitempty"`
	Domain     string `json:"domain,omitempty"`
	Zone       string `json:"zone,omitempty"`
	Subnet     string `json:"subnet,omitempty"`
}

// EnterpriseView is an enterprise.
type EnterpriseView struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Description string    `json:"description,omitempty"`
	CustomerID  uint32    `json:"customerID"`
	Domains     int       `json:"domains"`
	Created     time.Time `json:"created"`
}

// DomainView is a domain.
type DomainView struct {
	Place
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	VNI         uint32 `json:"vni"`
	Zones       int    `json:"zones"`
	Subnets     int    `json:"subnets"`
	Vports      int    `json:"vports"`
	// OverLimit counts the packets of connections that hosts had no room to remember.
	OverLimit tenant.Counter `json:"overLimit"`
	Created   time.Time      `json:"created"`
}

// ZoneView is a zone.
type ZoneView struct {
	Place
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Description string    `json:"description,omitempty"`
	Subnets     int       `json:"subnets"`
	Vports      int       `json:"vports"`
	Created     time.Time `json:"created"`
}

// SubnetView is a subnet.
type SubnetView struct {
	Place
	ID          string       `json:"id"`
	Name        string       `json:"name"`
	Description string       `json:"description,omitempty"`
	Address     netip.Prefix `json:"address"`
	Gateway     netip.Addr   `json:"gateway"`
	VNI         uint32       `json:"vni"`
	Vports      int          `json:"vports"`
	Networks    int          `json:"networks"`
	DockerOwned bool         `json:"dockerOwned"`
	Created     time.Time    `json:"created"`
}

// VportView is a vport. State is "up", "down" (no port on a host), "failed", or "lost" (its
// host is not alive).
type VportView struct {
	Place
	ID           string           `json:"id"`
	Name         string           `json:"name"`
	Type         tenant.VportType `json:"type"`
	MAC          tenant.MAC       `json:"mac"`
	IPv4         netip.Addr       `json:"ipv4,omitzero"`
	Host         string           `json:"host,omitempty"`
	Interface    string           `json:"interface,omitempty"`
	PolicyGroups []string         `json:"policyGroups,omitempty"`
	// AddressSpoofing and VirtualIPs say what the vport may send from beside its own address;
	// SpoofDrops count what it sent all the same, Limited what its rate limiter dropped.
	AddressSpoofing bool               `json:"addressSpoofing,omitempty"`
	VirtualIPs      []tenant.VirtualIP `json:"virtualIPs,omitempty"`
	SpoofDrops      tenant.Counter     `json:"spoofDrops"`
	Limited         tenant.Counter     `json:"limited"`
	User            string             `json:"user,omitempty"`
	Owner           tenant.Owner       `json:"owner"`
	State           string             `json:"state"`
	Error           string             `json:"error,omitempty"`
	Created         time.Time          `json:"created"`
}

// NetworkView is a Docker network of one host.
type NetworkView struct {
	Place
	ID       string             `json:"id"`
	Name     string             `json:"name,omitempty"` // Docker's; empty until it was asked
	Host     string             `json:"host"`
	Mode     tenant.AddressMode `json:"mode"`
	Address  netip.Prefix       `json:"address"`
	Gateway  netip.Addr         `json:"gateway,omitzero"`
	Internal bool               `json:"internal"`
	MTU      int                `json:"mtu,omitempty"`
	Vports   int                `json:"vports"`
	Created  time.Time          `json:"created"`
}

// HostView is a Docker host. State is "alive", "not alive" (dead since Seen), or "unknown"
// for a host that has never told its status.
type HostView struct {
	Name    string     `json:"name"`
	VTEP    netip.Addr `json:"vtep,omitzero"`
	MTU     int        `json:"mtu,omitempty"`
	Version string     `json:"version,omitempty"`
	State   string     `json:"state"`
	Seen    time.Time  `json:"seen,omitzero"`
	Error   string     `json:"error,omitempty"`
	// Programmed is the revision that the host's switch is at.
	Programmed int64 `json:"programmed,omitempty"`
	// Domains present on the host, as Enterprise/Domain.
	Domains  []string  `json:"domains,omitempty"`
	Vports   int       `json:"vports"`
	Networks int       `json:"networks"`
	Created  time.Time `json:"created,omitzero"`
}

// row is a view with what it is selected and ordered by.
type row struct {
	Place
	name, id string
	also     string // another name that it is found by, or empty
	view     any
	order    string // before the name; empty for most
}

var views = map[tenant.Kind]func(*tenant.State) []row{
	tenant.KindEnterprise: enterpriseRows,
	tenant.KindDomain:     domainRows,
	tenant.KindZone:       zoneRows,
	tenant.KindSubnet:     subnetRows,
	tenant.KindVport:      vportRows,
	tenant.KindNetwork:    networkRows,
	tenant.KindHost:       hostRows,

	tenant.KindPolicyGroup:  groupRows,
	tenant.KindNetworkMacro: macroRows,
	tenant.KindPolicy:       policyRows,
	tenant.KindEntry:        entryRows,
	tenant.KindRateLimiter:  limiterRows,
}

// serveView serves the list of one kind, those in the enterprise, domain, zone and subnet
// of the query's names, and of the name. A name is also the ID, for vports the container's
// name, and for networks the beginning of Docker's ID.
func (a *api) serveView(w http.ResponseWriter, r *http.Request) {
	list, err := a.view(r)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, list)
}

func (a *api) view(r *http.Request) ([]any, error) {
	kind := tenant.Kind(r.PathValue("kind"))
	rows := views[kind]
	if rows == nil {
		return nil, tenant.Errorf(tenant.ErrNotFound, "no resource %s", r.URL.Path)
	}
	q, err := parameters(r, "enterprise", "domain", "zone", "subnet", "name")
	if err != nil {
		return nil, err
	}
	s, err := a.read(r.Context())
	if err != nil {
		return nil, err
	}
	all := rows(s)
	slices.SortFunc(all, func(x, y row) int {
		return cmp.Or(cmp.Compare(x.Enterprise, y.Enterprise), cmp.Compare(x.Domain, y.Domain), cmp.Compare(x.Zone, y.Zone),
			cmp.Compare(x.Subnet, y.Subnet), cmp.Compare(x.order, y.order), cmp.Compare(x.name, y.name), cmp.Compare(x.id, y.id))
	})
	list := []any{}
	for _, x := range all {
		if x.selected(kind, q) {
			list = append(list, x.view)
		}
	}
	return list, nil
}

func (x row) selected(kind tenant.Kind, q map[string]string) bool {
	is := func(want, have string) bool { return want == "" || want == have }
	name := q["name"]
	return is(q["enterprise"], x.Enterprise) && is(q["domain"], x.Domain) && is(q["zone"], x.Zone) && is(q["subnet"], x.Subnet) &&
		(is(name, x.name) || is(name, x.id) || is(name, x.also) || kind == tenant.KindNetwork && strings.HasPrefix(x.id, name))
}

// placeOf names what contains an object of these IDs; an unknown one is shown as its ID.
func placeOf(s *tenant.State, domainID, zoneID, subnetID string) Place {
	p := Place{Domain: domainID, Zone: zoneID, Subnet: subnetID}
	if d := s.Domains[domainID]; d != nil {
		p.Domain = d.Name
		p.Enterprise = d.EnterpriseID
		if e := s.Enterprises[d.EnterpriseID]; e != nil {
			p.Enterprise = e.Name
		}
	}
	if z := s.Zones[zoneID]; z != nil {
		p.Zone = z.Name
	}
	if n := s.Subnets[subnetID]; n != nil {
		p.Subnet = n.Name
	}
	return p
}

func count(s *tenant.State, kind tenant.Kind, id string, children tenant.Kind) (n int) {
	s.Children(tenant.Key{Kind: kind, ID: id}, children, func(string) { n++ })
	return n
}

// tally counts vports by what each is in.
func tally(s *tenant.State, in func(*tenant.Vport) string) map[string]int {
	m := map[string]int{}
	for _, v := range s.Vports {
		m[in(v)]++
	}
	return m
}

func enterpriseRows(s *tenant.State) (rows []row) {
	for id, e := range s.Enterprises {
		v := EnterpriseView{id, e.Name, e.Description, e.CustomerID, count(s, tenant.KindEnterprise, id, tenant.KindDomain), e.Created}
		rows = append(rows, row{Place{Enterprise: e.Name}, e.Name, id, "", v, ""})
	}
	return rows
}

func domainRows(s *tenant.State) (rows []row) {
	vports, sums := tally(s, func(v *tenant.Vport) string { return v.DomainID }), addUp(s)
	for id, d := range s.Domains {
		p := Place{Enterprise: placeOf(s, id, "", "").Enterprise}
		v := DomainView{p, id, d.Name, d.Description, d.VNI,
			count(s, tenant.KindDomain, id, tenant.KindZone), count(s, tenant.KindDomain, id, tenant.KindSubnet), vports[id], sums.overLimit[id], d.Created}
		p.Domain = d.Name
		rows = append(rows, row{p, d.Name, id, "", v, ""})
	}
	return rows
}

func zoneRows(s *tenant.State) (rows []row) {
	vports := tally(s, func(v *tenant.Vport) string { return v.ZoneID })
	for id, z := range s.Zones {
		p := placeOf(s, z.DomainID, "", "")
		v := ZoneView{p, id, z.Name, z.Description, count(s, tenant.KindZone, id, tenant.KindSubnet), vports[id], z.Created}
		p.Zone = z.Name
		rows = append(rows, row{p, z.Name, id, "", v, ""})
	}
	return rows
}

func subnetRows(s *tenant.State) (rows []row) {
	for id, n := range s.Subnets {
		p := placeOf(s, n.DomainID, n.ZoneID, "")
		v := SubnetView{p, id, n.Name, n.Description, n.CIDR, n.Gateway, n.VNI,
			count(s, tenant.KindSubnet, id, tenant.KindVport), count(s, tenant.KindSubnet, id, tenant.KindNetwork), n.DockerOwned, n.Created}
		p.Subnet = n.Name
		rows = append(rows, row{p, n.Name, id, "", v, ""})
	}
	return rows
}

func vportRows(s *tenant.State) (rows []row) {
	sums := addUp(s)
	for id, v := range s.Vports {
		p := placeOf(s, v.DomainID, v.ZoneID, v.SubnetID)
		rows = append(rows, row{p, v.Name, id, v.Owner.ContainerName, VportView{p, id, v.Name, v.Type, v.MAC, v.IPv4, v.Host, v.Interface,
			v.PolicyGroups, v.AddressSpoofing, v.VirtualIPs, sums.spoofed[id], sums.limited[id], v.User, v.Owner, vportState(s, v), v.Error, v.Created}, ""})
	}
	return rows
}

func networkRows(s *tenant.State) (rows []row) {
	vports := tally(s, func(v *tenant.Vport) string { return tenant.NetworkID(v.Host, v.Owner.NetworkID) })
	for id, n := range s.Networks {
		p := placeOf(s, n.DomainID, n.ZoneID, n.SubnetID)
		rows = append(rows, row{p, n.Name, n.ID, "", NetworkView{p, n.ID, n.Name, n.Host, n.Mode, n.CIDR, n.Gateway, n.Internal, n.MTU, vports[id], n.Created}, ""})
	}
	return rows
}

func hostRows(s *tenant.State) (rows []row) {
	networks := map[string]int{}
	for _, n := range s.Networks {
		networks[n.Host]++
	}
	for name := range hostNames(s) {
		v := HostView{Name: name, State: hostState(s, name), Vports: count(s, tenant.KindHost, name, tenant.KindVport), Networks: networks[name]}
		if h := s.Hosts[name]; h != nil {
			v.VTEP, v.MTU, v.Version, v.Created = h.VTEP, h.MTU, h.Version, h.Created
		}
		if told := s.HostStatus[name]; told != nil {
			v.Version = cmp.Or(told.Version, v.Version)
			v.Seen, v.Error, v.Programmed = told.Seen.Truncate(time.Second), told.Error, told.Programmed
			for _, id := range told.Domains {
				p := placeOf(s, id, "", "")
				v.Domains = append(v.Domains, strings.TrimPrefix(p.Enterprise+"/"+p.Domain, "/"))
			}
			slices.Sort(v.Domains)
		}
		rows = append(rows, row{Place{}, name, name, "", v, ""})
	}
	return rows
}

// hostNames are the hosts that have registered, and those that tell a status all the same.
func hostNames(s *tenant.State) map[string]struct{} {
	names := map[string]struct{}{}
	for name := range s.Hosts {
		names[name] = struct{}{}
	}
	for name := range s.HostStatus {
		names[name] = struct{}{}
	}
	return names
}

// The states of a host and of a vport, as HostView and VportView say.
const (
	hostAlive   = "alive"
	hostDead    = "not alive"
	hostUnknown = "unknown"

	vportUp     = "up"
	vportDown   = "down"
	vportFailed = "failed"
	vportLost   = "lost"
)

func hostState(s *tenant.State, name string) string {
	switch told := s.HostStatus[name]; {
	case told == nil:
		return hostUnknown
	case told.Alive:
		return hostAlive
	}
	return hostDead
}

func vportState(s *tenant.State, v *tenant.Vport) string {
	switch {
	case v.Error != "":
		return vportFailed
	case v.Interface == "":
		return vportDown
	case hostState(s, v.Host) == hostDead:
		return vportLost
	}
	return vportUp
}
