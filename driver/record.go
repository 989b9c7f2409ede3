package driver

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"nuage/controller/tenant"
	"nuage/driver/journal"
	"nuage/driver/link"
)

// The journal's kinds.
const (
	kindNetwork  = "networks"
	kindEndpoint = "endpoints"
	kindRefusal  = "refusals"
)

// A record that is not Made and that no verb is working on is to be removed, with all that
// it may have brought about: either its making was not finished, or its removal was not.

// network is the record of a Docker network.
type network struct {
	Made    bool      `json:"made"`
	Created time.Time `json:"created"`
	Asked   asked     `json:"asked"`
	// Path names the subnet, and is what it may be made from while Network is not known yet.
	Path tenant.PathSpec `json:"path"`
	// MTU is what the options say; 0 if nothing.
	MTU int `json:"mtu,omitempty"`
	// Network is what is in the store.
	Network tenant.Network `json:"network"`
}

// endpoint is the record of an attachment: of an endpoint of Docker's, or of a container
// that Docker gave no network, whose NetworkID and Asked are empty.
type endpoint struct {
	Made      bool      `json:"made"`
	Created   time.Time `json:"created"`
	NetworkID string    `json:"networkID"`
	Asked     wanted    `json:"asked"`
	// Vport is what is in the store. Its ID, MAC and address never change.
	Vport tenant.Vport `json:"vport"`
	// Reserved tells that the driver leased the address itself.
	Reserved bool `json:"reserved,omitempty"`
}

// wanted is what Docker asked of an endpoint.
type wanted struct {
	Address      netip.Addr `json:"address,omitzero"`
	MAC          tenant.MAC `json:"mac"`
	PolicyGroups []string   `json:"policyGroups,omitempty"`
	IfName       string     `json:"ifname,omitempty"`
}

func (w wanted) equal(o wanted) bool {
	return w.Address == o.Address && w.MAC == o.MAC && w.IfName == o.IfName && slices.Equal(w.PolicyGroups, o.PolicyGroups)
}

// id is what Docker calls what is attached: the endpoint, or the container.
func (e *endpoint) id() string { return ownerID(e.Vport.Owner) }

func ownerID(o tenant.Owner) string { return cmp.Or(o.EndpointID, o.ContainerID) }

// direct tells that Docker has no endpoint of it.
func (e *endpoint) direct() bool { return e.Vport.Owner.EndpointID == "" }

// names are the ends of the endpoint's veth pair.
func (e *endpoint) names() (host, container string) { return link.Names(linkID(&e.Vport)) }

// linkID is what the links' names are made of. A container that is attached again, at its
// next start or since the first attempt failed, gets links of other names: the switch
// would go on with the link that was, and hear nothing from the new one.
func linkID(v *tenant.Vport) string {
	if v.Owner.EndpointID != "" || len(v.Owner.ContainerID) < 7 || len(v.ID) < 4 {
		return v.Owner.EndpointID
	}
	return v.Owner.ContainerID[:7] + v.ID[:4]
}

// Keys of the external IDs of our ports.
const (
	portEndpoint  = "nuage-endpoint"
	portContainer = "nuage-container"
	portVport     = "nuage-vport"
)

func (e *endpoint) externalIDs() map[string]string {
	ids := map[string]string{portEndpoint: e.id(), portVport: e.Vport.ID, "attached-mac": e.Vport.MAC.String()}
	if e.direct() {
		delete(ids, portEndpoint)
		ids[portContainer] = e.id()
	}
	return ids
}

func (d *Driver) putNetwork(n *network) error {
	return d.Journal.Apply(journal.Set(kindNetwork, n.Network.ID, n))
}

func (d *Driver) putEndpoint(e *endpoint) error {
	return d.Journal.Apply(journal.Set(kindEndpoint, e.id(), e))
}

// getNetwork is the record of a network, nil if there is none. A network that the journal
// has lost and the store has not is taken from there.
func (d *Driver) getNetwork(id string) (*network, error) {
	n := new(network)
	if ok, err := d.Journal.Get(kindNetwork, id, n); err != nil || ok {
		return n, err
	}
	var found *tenant.Network
	d.Store.Feed().View(func(st *tenant.State) {
		if t := st.Networks[tenant.NetworkID(d.Host, id)]; t != nil {
			found = new(tenant.Network)
			*found = *t
		}
	})
	if found == nil {
		return nil, nil
	}
	n = &network{Made: true, Created: time.Now().UTC(), MTU: found.MTU, Network: *found}
	return n, d.putNetwork(n)
}

// getEndpoint is the record of an endpoint, nil if there is none.
func (d *Driver) getEndpoint(id string) (*endpoint, error) {
	e := new(endpoint)
	ok, err := d.Journal.Get(kindEndpoint, id, e)
	if err != nil || !ok {
		return nil, err
	}
	return e, nil
}

func (d *Driver) networks() (map[string]*network, error) {
	return records[network](d.Journal, kindNetwork)
}

func (d *Driver) endpoints() (map[string]*endpoint, error) {
	return records[endpoint](d.Journal, kindEndpoint)
}

func records[T any](j Journal, kind string) (map[string]*T, error) {
	all := map[string]*T{}
	err := j.List(kind, func(id string, value []byte) error {
		r := new(T)
		if err := json.Unmarshal(value, r); err != nil {
			return fmt.Errorf("journal %s %s: %w", kind, id, err)
		}
		all[id] = r
		return nil
	})
	return all, err
}
