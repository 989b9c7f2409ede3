package driver

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"

	"nuage/controller/tenant"
	"nuage/driver/link"
	"nuage/ipam"
)

// Direct is a container that Docker gives no network (--net=none) and that says itself
// where it belongs.
type Direct struct {
	ContainerID, ContainerName string
	// SandboxKey is Docker's name of the container's network namespace: another one at each
	// start. Netns is the path at which this process finds it.
	SandboxKey, Netns string

	Enterprise, Domain, Zone, Subnet, User string
	PolicyGroups                           []string
	StaticIP                               netip.Addr // not valid: any
	MAC                                    tenant.MAC // zero: derived from ContainerID
}

// spec is the subnet that the container means. No address is given, so that none is made.
func (c *Direct) spec(d *Driver) tenant.PathSpec {
	if c.Enterprise == "" {
		c.Enterprise = d.Enterprise
	}
	return tenant.PathSpec{Enterprise: c.Enterprise, Domain: c.Domain, Zone: c.Zone, Subnet: c.Subnet}
}

// mac is the same at each start: who asks with it again soon enough gets the address that
// rests since the stop.
func (c *Direct) mac() tenant.MAC {
	if !c.MAC.IsZero() {
		return c.MAC
	}
	sum := sha256.Sum256([]byte(c.ContainerID))
	m := tenant.MAC(sum[:6])
	m[0] = m[0]&^1 | 2
	return m
}

// Attach puts a container into a tenant's subnet: it makes vport, veth pair and port, waits
// until the flows are programmed and then moves the link into the container. It returns
// when the container can use it. One that is attached since its present start is left as it
// is, but for its name; what an earlier start has left is removed first. After an error
// nothing is left, or is removed as soon as the store and the switch allow: see Refuse. A
// namespace that is not there, since the container has just ended, is link.ErrNamespace.
// Unlike a verb it is ended by its context's cancellation, too.
func (d *Driver) Attach(ctx context.Context, c Direct) error {
	if err := checkDockerID("container", c.ContainerID); err != nil {
		return err
	}
	if e, err := d.getEndpoint(c.ContainerID); err != nil {
		return err
	} else if e.serves(&c) {
		// The last step of an earlier try may have failed.
		return errors.Join(d.Enrich(ctx, c.ContainerID, c.ContainerID, c.ContainerName), d.forget(ctx, c.ContainerID))
	}
	caller := ctx
	ctx, cancel := begin(ctx, undoTime)
	defer cancel()
	defer context.AfterFunc(caller, cancel)()
	unlock, err := d.locks.lock(ctx, "endpoint "+short(c.ContainerID))
	if err != nil {
		return err
	}
	defer unlock()
	e, name, err := d.attachDirect(ctx, &c)
	if err != nil {
		return err
	}
	d.Log.WithFields(fields(e)).WithField("interface", name).Info("container attached")
	// Only now, so that the container is never missing in a list.
	return d.forget(ctx, c.ContainerID)
}

// serves tells whether the record, which may be nil, is of the container's present start.
func (e *endpoint) serves(c *Direct) bool {
	return e != nil && e.Made && e.Vport.Owner.SandboxKey == c.SandboxKey
}

func (d *Driver) attachDirect(ctx context.Context, c *Direct) (*endpoint, string, error) {
	if err := d.Problem(); err != nil {
		return nil, "", err
	}
	if old, err := d.getEndpoint(c.ContainerID); err != nil {
		return nil, "", err
	} else if old != nil {
		old.Made = false
		if err := errors.Join(d.putEndpoint(old), d.removeEndpoint(ctx, old)); err != nil {
			return nil, "", old.attempted(err)
		}
	}
	path, err := d.Store.EnsurePath(ctx, c.spec(d))
	if err != nil {
		return nil, "", err
	}
	if err := d.Store.EnsurePolicyGroups(ctx, path.Domain.ID, c.PolicyGroups, d.Autocreate); err != nil {
		return nil, "", err
	}
	e := d.newDirect(c, &path)
	// The same MAC again gets the address that it had, while that rests.
	addr, err := d.IPAM.Allocate(ctx, path.Subnet, ipam.Request{MAC: e.Vport.MAC, Want: c.StaticIP, Name: c.ContainerName})
	if err != nil {
		return nil, "", err
	}
	e.Vport.IPv4, e.Reserved = addr, true
	name, err := d.enter(ctx, e, c, &path.Subnet)
	if err != nil {
		d.undo(ctx, e)
		return nil, "", e.attempted(err)
	}
	return e, name, nil
}

// attempted is why an attempt to attach has failed, in words that the next attempt has as
// well: so it is told once. The names of links and the vport's ID are another's then.
func (e *endpoint) attempted(err error) error {
	host, container := e.names()
	same := strings.NewReplacer(host, host[:9]+"…", container, container[:9]+"…", e.Vport.ID, e.Vport.Name)
	return &attempt{same.Replace(err.Error()), err}
}

type attempt struct {
	text  string
	cause error
}

func (a *attempt) Error() string { return a.text }
func (a *attempt) Unwrap() error { return a.cause }

func (d *Driver) newDirect(c *Direct, path *tenant.Path) *endpoint {
	e := &endpoint{Created: time.Now().UTC()}
	e.Vport = tenant.Vport{
		Meta:     tenant.Meta{ID: uuid.NewString()},
		DomainID: path.Domain.ID, ZoneID: path.Zone.ID, SubnetID: path.Subnet.ID,
		Name: c.vportName(), Type: tenant.VportContainer, MAC: c.mac(), Host: d.Host,
		PolicyGroups: c.PolicyGroups, User: c.User, Owner: c.owner(),
	}
	e.Vport.Interface, _ = e.names()
	return e
}

func (c *Direct) owner() tenant.Owner {
	return tenant.Owner{ContainerID: c.ContainerID, ContainerName: c.ContainerName, SandboxKey: c.SandboxKey}
}

func (c *Direct) vportName() string {
	if tenant.ValidateName(c.ContainerName) != nil {
		return "container-" + short(c.ContainerID)
	}
	return c.ContainerName
}

// enter brings the attachment about. What it has begun when it fails is undo's.
func (d *Driver) enter(ctx context.Context, e *endpoint, c *Direct, sub *tenant.Subnet) (string, error) {
	if err := d.putEndpoint(e); err != nil {
		return "", err
	}
	if err := d.connect(ctx, e, d.saidMTU(0)); err != nil {
		return "", err
	}
	if err := d.Flows.WaitProgrammed(ctx, e.Vport.ID); err != nil {
		return "", fmt.Errorf("not on the network yet: %w", err)
	}
	host, container := e.names()
	name, err := d.Links.Move(ctx, link.Inside{Name: host, Peer: container, Netns: c.Netns,
		Address: netip.PrefixFrom(e.Vport.IPv4, sub.CIDR.Bits()), Gateway: sub.Gateway})
	if err != nil {
		return "", err
	}
	return name, d.made(e)
}

// Detach takes a container's attachment back, or what Refuse has told about it, by
// DeleteEndpoint's rules. An unknown container is nil, and costs two local reads.
func (d *Driver) Detach(ctx context.Context, containerID string) error {
	e, err := d.getEndpoint(containerID)
	if err == nil && e != nil {
		err = d.detach(ctx, containerID)
	}
	if err != nil {
		return err
	}
	return d.forget(ctx, containerID)
}

// Containers are the IDs of all containers that are attached, or that Refuse has told of.
func (d *Driver) Containers() ([]string, error) {
	all, err := d.endpoints()
	if err != nil {
		return nil, err
	}
	var ids []string
	for id, e := range all {
		if e.direct() {
			ids = append(ids, id)
		}
	}
	told, err := records[tenant.Vport](d.Journal, kindRefusal)
	for id := range told {
		if all[id] == nil {
			ids = append(ids, id)
		}
	}
	return ids, err
}
