package driver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"nuage/controller/tenant"
	"nuage/driver/link"
	"nuage/ipam"
)

// CreateEndpoint makes the vport, the veth pair and the port of an endpoint. The same
// request again gets the same answer; another one under the same ID is
// tenant.ErrConflict. Docker sends no DeleteEndpoint after an error, so nothing is left
// then, or is removed as soon as the store and the switch allow.
func (d *Driver) CreateEndpoint(ctx context.Context, req *CreateEndpointRequest) (*CreateEndpointResponse, error) {
	if err := checkDockerID("endpoint", req.EndpointID); err != nil {
		return nil, err
	}
	ctx, cancel := begin(ctx, undoTime)
	defer cancel()
	unlock, err := d.locks.lock(ctx, "endpoint "+short(req.EndpointID))
	if err != nil {
		return nil, err
	}
	defer unlock()
	e, n, err := d.createEndpoint(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", short(req.EndpointID), err)
	}
	return answer(e, n), nil
}

func (d *Driver) createEndpoint(ctx context.Context, req *CreateEndpointRequest) (*endpoint, *network, error) {
	n, err := d.getNetwork(req.NetworkID)
	if err != nil {
		return nil, nil, err
	}
	if n == nil || !n.Made {
		if err := d.Store.Ready(); n == nil && err != nil {
			return nil, nil, fmt.Errorf("network %s is not known here: %w", short(req.NetworkID), err)
		}
		return nil, nil, tenant.Errorf(tenant.ErrNotFound, "network %s is not known here: remove it and create it again", short(req.NetworkID))
	}
	w, err := readEndpoint(req, &n.Network)
	if err != nil {
		return nil, nil, err
	}
	old, err := d.getEndpoint(req.EndpointID)
	if err != nil {
		return nil, nil, err
	}
	if old != nil && old.Made {
		if old.NetworkID != req.NetworkID || !old.Asked.equal(w) {
			return nil, nil, tenant.Errorf(tenant.ErrConflict, "exists already, with other options")
		}
		return old, n, nil
	}
	if old != nil { // an earlier attempt, or a removal, that was cut short
		if err := d.removeEndpoint(ctx, old); err != nil {
			return nil, nil, err
		}
	}
	// The first vport of a domain on this host brings the domain in.
	if err := d.Store.Follow(ctx, n.Network.DomainID); err != nil {
		return nil, nil, fmt.Errorf("network %s: %w", short(req.NetworkID), err)
	}
	e := d.newEndpoint(req, w, n)
	if err := d.Store.EnsurePolicyGroups(ctx, e.Vport.DomainID, e.Vport.PolicyGroups, d.Autocreate); err != nil {
		return nil, nil, err
	}
	if !e.Vport.IPv4.IsValid() {
		if err := d.choose(ctx, e, n); err != nil {
			return nil, nil, err
		}
	}
	if err := d.attach(ctx, e, n); err != nil {
		d.undo(ctx, e)
		return nil, nil, err
	}
	d.Log.WithFields(fields(e)).Info("endpoint attached")
	return e, n, nil
}

// undo takes back what was begun for an endpoint, now or later.
func (d *Driver) undo(ctx context.Context, e *endpoint) {
	ctx, cancel := undoing(ctx)
	defer cancel()
	e.Made = false
	if left := d.removeEndpoint(ctx, e); left != nil {
		d.Log.WithError(left).WithField("endpoint", short(e.id())).Warn("what was begun for a refused endpoint is removed later")
	}
}

func fields(e *endpoint) map[string]any {
	f := map[string]any{"vport": e.Vport.ID, "address": e.Vport.IPv4, "mac": e.Vport.MAC}
	if e.direct() {
		f["container"], f["name"] = short(e.id()), e.Vport.Owner.ContainerName
	} else {
		f["endpoint"] = short(e.id())
	}
	return f
}

// readEndpoint reads the request of CreateEndpoint.
func readEndpoint(req *CreateEndpointRequest, n *tenant.Network) (w wanted, err error) {
	given := req.Interface
	if given == nil {
		given = &EndpointInterface{}
	}
	if given.AddressIPv6 != "" {
		return w, tenant.Errorf(tenant.ErrInvalid, "IPv6 address %s: IPv6 is not supported", given.AddressIPv6)
	}
	if given.Address != "" {
		if w.Address, err = address(given.Address); err != nil {
			return w, err
		}
		if !n.CIDR.Contains(w.Address) {
			return w, tenant.Errorf(tenant.ErrInvalid, "address %s is not in the network's subnet %s", w.Address, n.CIDR)
		}
	} else if n.Mode != tenant.AddressNull {
		return w, tenant.Errorf(tenant.ErrInvalid, "Docker gave no IPv4 address")
	}
	if given.MacAddress != "" {
		if w.MAC, err = tenant.ParseMAC(given.MacAddress); err != nil {
			return w, err
		}
	}
	own := map[string]string{}
	for key, value := range req.Options {
		text, isText := value.(string)
		switch {
		case key == keyIfName:
			w.IfName = text
		case strings.HasPrefix(key, "com.docker."):
		case !isText:
			return w, tenant.Errorf(tenant.ErrInvalid, "option %s is not text", key)
		default:
			own[key] = text
		}
	}
	o, err := ipam.ParseOptions(own)
	if err != nil {
		return w, err
	}
	if o.Enterprise+o.Domain+o.Zone+o.Subnet+o.User != "" || o.MTU != 0 {
		return w, tenant.Errorf(tenant.ErrInvalid, "only policy-group can be given for one container; the others belong to the network")
	}
	w.PolicyGroups = o.PolicyGroups
	return w, nil
}

// newEndpoint decides all that stays the same however often the verb comes. A policy group
// given for the container takes the place of the network's.
func (d *Driver) newEndpoint(req *CreateEndpointRequest, w wanted, n *network) *endpoint {
	e := &endpoint{Created: time.Now().UTC(), NetworkID: req.NetworkID, Asked: w}
	groups := w.PolicyGroups
	if len(groups) == 0 {
		groups = n.Network.PolicyGroups
	}
	mac := w.MAC
	if mac.IsZero() {
		mac = tenant.RandomMAC()
	}
	host, _ := link.Names(req.EndpointID)
	e.Vport = tenant.Vport{
		Meta:     tenant.Meta{ID: uuid.NewString()},
		DomainID: n.Network.DomainID, ZoneID: n.Network.ZoneID, SubnetID: n.Network.SubnetID,
		Name: "ep-" + short(req.EndpointID), Type: tenant.VportContainer, MAC: mac, IPv4: w.Address,
		Host: d.Host, Interface: host, PolicyGroups: groups, User: n.Network.User,
		Owner: tenant.Owner{EndpointID: req.EndpointID, NetworkID: req.NetworkID},
	}
	if w.Address.IsValid() {
		// Newer engines tell the container's name when they ask for its address.
		d.Store.Feed().View(func(st *tenant.State) {
			l := st.Leases[tenant.LeaseID(n.Network.SubnetID, w.Address.String())]
			if l != nil && l.MAC == mac && tenant.ValidateName(l.Name) == nil {
				e.Vport.Name, e.Vport.Owner.ContainerName = l.Name, l.Name
			}
		})
	}
	return e
}

// attach brings an endpoint about: first the record, then the effects, then that they are
// done. What it has begun when it fails is undo's.
func (d *Driver) attach(ctx context.Context, e *endpoint, n *network) error {
	if err := d.putEndpoint(e); err != nil {
		return err
	}
	err := d.connect(ctx, e, d.mtu(n))
	if errors.Is(err, tenant.ErrConflict) && n.Network.Mode != tenant.AddressTenant && n.Network.Mode != tenant.AddressNull {
		err = fmt.Errorf("%w: Docker's own IPAM does not know what other hosts and networks give out; use disjoint --ip-range, or --ipam-driver nuage", err)
	}
	if err != nil {
		return err
	}
	return d.made(e)
}

// connect binds the vport, and makes the veth pair and its port, at once since they do not
// need each other.
func (d *Driver) connect(ctx context.Context, e *endpoint, mtu int) error {
	// No shared cancellation: an effect that is cut off in the middle may happen all the same.
	var both errgroup.Group
	both.Go(func() error { _, err := d.Store.BindVport(ctx, e.Vport); return err })
	both.Go(func() error { return d.plug(ctx, e, mtu) })
	return both.Wait()
}

// made declares an endpoint attached.
func (d *Driver) made(e *endpoint) error {
	e.Made = true
	err := d.putEndpoint(e)
	e.Made = err == nil
	return err
}

// choose leases an address where Docker has no IPAM. A reservation that nobody binds lapses.
func (d *Driver) choose(ctx context.Context, e *endpoint, n *network) error {
	var sub *tenant.Subnet
	d.Store.Feed().View(func(st *tenant.State) {
		if s := st.Subnets[n.Network.SubnetID]; s != nil {
			sub = new(tenant.Subnet)
			*sub = *s
		}
	})
	if sub == nil {
		if err := d.Store.Ready(); err != nil {
			return err
		}
		return tenant.Errorf(tenant.ErrNotFound, "the subnet of network %s does not exist any more", short(e.NetworkID))
	}
	addr, err := d.IPAM.Allocate(ctx, *sub, ipam.Request{MAC: e.Vport.MAC})
	e.Vport.IPv4, e.Reserved = addr, err == nil
	return err
}

// plug makes the veth pair and its port on the switch.
func (d *Driver) plug(ctx context.Context, e *endpoint, mtu int) error {
	host, container := e.names()
	spec := link.Spec{Name: host, Peer: container, MAC: e.Vport.MAC[:], MTU: mtu, Offload: d.Ports.Offload()}
	if err := d.Links.Create(ctx, spec); err != nil {
		return err
	}
	return d.Ports.EnsurePort(ctx, host, e.externalIDs())
}

// mtu is that of a container of n attached now: what was said, as far as the underlay lets.
func (d *Driver) mtu(n *network) int {
	said, limit := d.saidMTU(n.MTU), d.maxMTU()
	if limit > 0 && said > limit {
		d.Log.WithField("network", short(n.Network.ID)).Warnf("mtu %d does not pass between the hosts any more: a container gets %d", said, limit)
		return limit
	}
	return said
}

// MTUOf is the MTU of a vport that is attached now: what its network's option says, 0 for
// none, as far as the underlay lets.
func (d *Driver) MTUOf(option int) int {
	said, limit := d.saidMTU(option), d.maxMTU()
	if limit > 0 {
		return min(said, limit)
	}
	return said
}

// saidMTU is an option's MTU, or where there is none the one of NUAGE_MTU or the largest.
func (d *Driver) saidMTU(option int) int {
	limit := d.maxMTU()
	switch {
	case option != 0:
		return option
	case d.MTU != 0 && (limit == 0 || d.MTU < limit):
		return d.MTU
	case limit != 0:
		return limit
	}
	return DefaultMTU
}

func (d *Driver) maxMTU() int {
	if d.MaxMTU == nil {
		return 0
	}
	return d.MaxMTU()
}

// checkMTU refuses an option that the underlay cannot keep.
func (d *Driver) checkMTU(option int) error {
	if limit := d.maxMTU(); limit > 0 && option > limit {
		return tenant.Errorf(tenant.ErrInvalid, "mtu %d: at most %d passes between the hosts, which is the smallest MTU of their underlays less what VXLAN adds", option, limit)
	}
	return nil
}

// answer says what the driver chose, and nothing that Docker gave: that would be refused.
func answer(e *endpoint, n *network) *CreateEndpointResponse {
	r := &CreateEndpointResponse{Interface: &EndpointInterface{}}
	if e.Asked.MAC.IsZero() {
		r.Interface.MacAddress = e.Vport.MAC.String()
	}
	if !e.Asked.Address.IsValid() {
		r.Interface.Address = netip.PrefixFrom(e.Vport.IPv4, n.Network.CIDR.Bits()).String()
	}
	return r
}

// Join waits until the switch has the endpoint's port and flows, and tells Docker which
// link to move. If they do not come in time, the error says why; Docker then sends
// DeleteEndpoint. There is always a gateway or none at all: never docker_gwbridge.
func (d *Driver) Join(ctx context.Context, req *JoinRequest) (*JoinResponse, error) {
	ctx, cancel := begin(ctx, 0)
	defer cancel()
	unlock, err := d.locks.lock(ctx, "endpoint "+short(req.EndpointID))
	if err != nil {
		return nil, err
	}
	defer unlock()
	r, err := d.join(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", short(req.EndpointID), err)
	}
	return r, nil
}

func (d *Driver) join(ctx context.Context, req *JoinRequest) (*JoinResponse, error) {
	e, err := d.getEndpoint(req.EndpointID)
	if err != nil {
		return nil, err
	}
	if e == nil || !e.Made {
		return nil, tenant.Errorf(tenant.ErrNotFound, "not known here: start the container again")
	}
	n, err := d.getNetwork(e.NetworkID)
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, tenant.Errorf(tenant.ErrNotFound, "its network %s is not known here", short(e.NetworkID))
	}
	if err := d.Flows.WaitProgrammed(ctx, e.Vport.ID); err != nil {
		return nil, fmt.Errorf("not on the network yet: %w", err)
	}
	_, container := e.names()
	if published(req.Options) {
		d.Log.WithFields(fields(e)).Info("published ports (-p) need no mapping: the container's own address serves them inside its domain, and the host opens none")
	}
	r := &JoinResponse{InterfaceName: InterfaceName{SrcName: container, DstPrefix: "eth", DstName: e.Asked.IfName}, DisableGatewayService: true}
	if !n.Network.Internal {
		r.Gateway = n.Network.Gateway.String()
	}
	return r, nil
}

func published(options map[string]any) bool {
	ports, _ := options[keyPortMap].([]any)
	return len(ports) > 0
}

// EndpointInfo tells what is known here of an endpoint; nothing of an unknown one.
func (d *Driver) EndpointInfo(_ context.Context, req *InfoRequest) (*InfoResponse, error) {
	e, err := d.getEndpoint(req.EndpointID)
	if err != nil {
		return nil, err
	}
	value := map[string]string{}
	if e != nil {
		value["vport"], value["interface"], value["host"] = e.Vport.ID, e.Vport.Interface, d.Host
	}
	return &InfoResponse{Value: value}, nil
}

// ProgramExternalConnectivity has nothing to do: no port is ever mapped.
func (d *Driver) ProgramExternalConnectivity(context.Context, *ProgramRequest) error { return nil }

// RevokeExternalConnectivity has nothing to undo.
func (d *Driver) RevokeExternalConnectivity(context.Context, *RevokeRequest) error { return nil }

// DiscoverNew is about swarm's nodes; hosts find each other in the store.
func (d *Driver) DiscoverNew(context.Context, *Discovery) error { return nil }

// DiscoverDelete is about swarm's nodes, too.
func (d *Driver) DiscoverDelete(context.Context, *Discovery) error { return nil }
