package driver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	ipamapi "github.com/docker/go-plugins-helpers/ipam"
	"github.com/sirupsen/logrus/hooks/test"

	"nuage/controller/tenant"
	"nuage/driver/journal"
	"nuage/driver/link"
	"nuage/ipam"
)

var errDead = errors.New("the process is dead")

// mortal is a process that dies: after its last effect, the later ones do not happen.
type mortal struct {
	mu    sync.Mutex
	lives int // effects until death; negative: immortal
	last  string
	took  map[string][]time.Duration // per effect
}

// effect does f unless the process is dead. The effect that kills it happens, but nobody
// hears that it did.
func (p *mortal) effect(name string, f func() error) error {
	p.mu.Lock()
	if p.lives == 0 {
		p.mu.Unlock()
		return errDead
	}
	p.lives--
	dying := p.lives == 0
	p.last = name
	p.mu.Unlock()
	start := time.Now()
	err := f()
	p.mu.Lock()
	p.took[name] = append(p.took[name], time.Since(start))
	p.mu.Unlock()
	if dying {
		return errDead
	}
	return err
}

func (p *mortal) dead() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.lives == 0 }

func valued[T any](p *mortal, name string, f func() (T, error)) (v T, err error) {
	err = p.effect(name, func() (err error) { v, err = f(); return err })
	return v, err
}

type mortalStore struct {
	Store
	*mortal
}

func (s mortalStore) EnsurePath(ctx context.Context, spec tenant.PathSpec) (tenant.Path, error) {
	return valued(s.mortal, "EnsurePath", func() (tenant.Path, error) { return s.Store.EnsurePath(ctx, spec) })
}
func (s mortalStore) ReleaseSubnet(ctx context.Context, id string) error {
	return s.effect("ReleaseSubnet", func() error { return s.Store.ReleaseSubnet(ctx, id) })
}
func (s mortalStore) PutNetwork(ctx context.Context, n tenant.Network) error {
	return s.effect("PutNetwork", func() error { return s.Store.PutNetwork(ctx, n) })
}
func (s mortalStore) DeleteNetwork(ctx context.Context, id string) error {
	return s.effect("DeleteNetwork", func() error { return s.Store.DeleteNetwork(ctx, id) })
}
func (s mortalStore) BindVport(ctx context.Context, v tenant.Vport) (tenant.Vport, error) {
	return valued(s.mortal, "BindVport", func() (tenant.Vport, error) { return s.Store.BindVport(ctx, v) })
}
func (s mortalStore) DeleteVport(ctx context.Context, id string) error {
	return s.effect("DeleteVport", func() error { return s.Store.DeleteVport(ctx, id) })
}

type mortalSwitch struct {
	Switch
	*mortal
}

func (s mortalSwitch) EnsurePort(ctx context.Context, name string, ids map[string]string) error {
	return s.effect("EnsurePort", func() error { return s.Switch.EnsurePort(ctx, name, ids) })
}
func (s mortalSwitch) DeletePort(ctx context.Context, name string) error {
	return s.effect("DeletePort", func() error { return s.Switch.DeletePort(ctx, name) })
}

type mortalLinks struct {
	Links
	*mortal
}

func (s mortalLinks) Create(ctx context.Context, spec link.Spec) error {
	return s.effect("link", func() error { return s.Links.Create(ctx, spec) })
}
func (s mortalLinks) Move(ctx context.Context, in link.Inside) (string, error) {
	return valued(s.mortal, "move", func() (string, error) { return s.Links.Move(ctx, in) })
}
func (s mortalLinks) Delete(name string) error {
	return s.effect("unlink", func() error { return s.Links.Delete(name) })
}

type mortalJournal struct {
	Journal
	*mortal
}

func (s mortalJournal) Apply(ops ...journal.Op) error {
	return s.effect("record", func() error { return s.Journal.Apply(ops...) })
}

type mortalIPAM struct {
	IPAM
	*mortal
}

func (s mortalIPAM) Claim(ctx context.Context, n ipam.Network) (ipam.PoolRecord, error) {
	return valued(s.mortal, "Claim", func() (ipam.PoolRecord, error) { return s.IPAM.Claim(ctx, n) })
}
func (s mortalIPAM) Disclaim(ctx context.Context, id string) error {
	return s.effect("Disclaim", func() error { return s.IPAM.Disclaim(ctx, id) })
}
func (s mortalIPAM) Allocate(ctx context.Context, sub tenant.Subnet, r ipam.Request) (netip.Addr, error) {
	return valued(s.mortal, "Allocate", func() (netip.Addr, error) { return s.IPAM.Allocate(ctx, sub, r) })
}
func (s mortalIPAM) Release(ctx context.Context, subnet string, a netip.Addr) error {
	return s.effect("Release", func() error { return s.IPAM.Release(ctx, subnet, a) })
}

type mortalFlows struct {
	Flows
	*mortal
}

func (s mortalFlows) WaitProgrammed(ctx context.Context, vport string) error {
	return s.effect("WaitProgrammed", func() error { return s.Flows.WaitProgrammed(ctx, vport) })
}

// mortalDriver is a driver that dies after so many effects.
func (r *rig) mortalDriver(lives int) (*Driver, *mortal) {
	p := &mortal{lives: lives, took: map[string][]time.Duration{}}
	log, _ := test.NewNullLogger()
	return r.newDriver(log, func(c *Config) {
		c.Store, c.Ports, c.Links = mortalStore{c.Store, p}, mortalSwitch{c.Ports, p}, mortalLinks{c.Links, p}
		c.Journal, c.IPAM, c.Flows = mortalJournal{c.Journal, p}, mortalIPAM{c.IPAM, p}, mortalFlows{c.Flows, p}
	}), p
}

// Whatever effect a verb dies after, the next process leaves nothing half made, and Docker
// may repeat the verb or undo it.
func TestDeathAfterEachEffect(t *testing.T) {
	r := newRig(t)
	r.subnet("NullZone", "nulls", "10.77.0.0/24")
	network := func(d *Driver) error {
		return d.CreateNetwork(bg, netRequest(1, "172.18.0.0/16", "172.18.0.1/16", app1))
	}
	null := func(d *Driver) error {
		return d.CreateNetwork(bg, nullRequest(1, m{"domain": "App1", "zone": "NullZone"}))
	}
	endpoint := func(address string) func(d *Driver) error {
		return func(d *Driver) error {
			_, err := d.CreateEndpoint(bg, epRequest(1, 1, address))
			return err
		}
	}
	gone := func(d *Driver) error { err := d.DeleteEndpoint(bg, del(1)); d.Wait(); return err }
	unbound := func(d *Driver) error { return d.DeleteNetwork(bg, &DeleteNetworkRequest{NetworkID: netID(1)}) }
	r.subnet("DockerZone", "Web", "10.85.85.0/24")
	request := func(*Driver) error {
		_, err := r.ipam.RequestPool(bg, decode[ipamapi.RequestPoolRequest](m{"AddressSpace": "nuage", "Options": with(app1, "subnet", "Web")}))
		return err
	}
	tenants := func(d *Driver) error {
		return d.CreateNetwork(bg, decode[CreateNetworkRequest](m{"NetworkID": netID(1), "IPv4Data": ipv4("nuage", "10.85.85.0/24", "10.85.85.1/24")}))
	}
	type step = func(*Driver) error

	for name, c := range map[string]struct {
		before  []step
		verb    step
		nothing []string // the world if the verb's object is not there
		all     []string // and if it is
	}{
		"CreateNetwork":         {nil, network, nil, boundWorld(1, "172.18.0.0/16")},
		"CreateNetwork, tenant": {[]step{request}, tenants, nil, []string{"store-network " + short(netID(1)), "record network " + short(netID(1)) + " made=true"}},
		"DeleteNetwork":         {[]step{network}, unbound, nil, boundWorld(1, "172.18.0.0/16")},
		"CreateEndpoint":        {[]step{network}, endpoint("172.18.0.2/16"), boundWorld(1, "172.18.0.0/16"), append(boundWorld(1, "172.18.0.0/16"), attachedWorld(1, "172.18.0.2")...)},
		"DeleteEndpoint":        {[]step{network, endpoint("172.18.0.2/16")}, gone, boundWorld(1, "172.18.0.0/16"), append(boundWorld(1, "172.18.0.0/16"), attachedWorld(1, "172.18.0.2")...)},
		"CreateEndpoint, null":  {[]step{null}, endpoint(""), boundWorld(1, "")[:0:0], nil},
	} {
		for lives := 1; ; lives++ {
			for _, f := range c.before {
				r.ok(f(r.Driver))
			}
			d, p := r.mortalDriver(lives)
			c.verb(d)
			d.Wait()
			finished := !p.dead()
			r.restart()
			at := fmt.Sprintf("%s dead after effect %d (%s)", name, lives, p.last)
			for range 2 {
				if _, err := r.Reconcile(bg); err != nil {
					t.Fatalf("%s: Reconcile: %v", at, err)
				}
			}
			world := strings.Join(r.world(), "|")
			if c.all != nil {
				if a, b := sorted(c.nothing), sorted(c.all); world != a && world != b {
					t.Errorf("%s: half made:\n got %s\nwant %s\n  or %s", at, world, a, b)
				}
			} else if n := strings.Count(world, short(epID(1)[:11])); n != 0 && n != 4 {
				t.Errorf("%s: half made: %s", at, world)
			}
			if rep, err := r.Reconcile(bg); err != nil || !rep.empty() {
				t.Errorf("%s: a further Reconcile: %+v %v", at, rep, err)
			}
			// Docker repeats the verb, or undoes it. A pool it would ask for anew.
			if strings.HasSuffix(name, "tenant") {
				r.ok(request(r.Driver))
			}
			r.ok(c.verb(r.Driver))
			r.ok(gone(r.Driver))
			r.ok(unbound(r.Driver))
			rest := r.world()
			// A null network's address that was reserved and never bound lapses by itself.
			for len(rest) > 0 && strings.HasSuffix(rest[0], " reserved") {
				r.ok(r.ipam.Release(bg, r.pathOf("NullZone").Subnet.ID, netip.MustParseAddr(strings.Fields(rest[0])[1])))
				rest = rest[1:]
			}
			if len(rest) > 0 {
				t.Fatalf("%s: left over: %q", at, rest)
			}
			if finished {
				if lives < 4 {
					t.Errorf("%s had only %d effects", name, lives-1)
				}
				t.Logf("%s: died after each of %d effects", name, lives-1)
				break
			}
		}
	}
}

func sorted(world []string) string {
	w := append([]string(nil), world...)
	return strings.Join(sortStrings(w), "|")
}
