package driver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ipamapi "github.com/docker/go-plugins-helpers/ipam"

	"nuage/controller/tenant"
	"nuage/driver/link"
)

var web = with(app1, "subnet", "Web")

// tenantNetwork is `docker network create --ipam-driver nuage` as an engine does it.
func (r *rig) tenantNetwork(n int, cidr string, options m) (pool string) {
	r.t.Helper()
	p, err := r.ipam.RequestPool(bg, decode[ipamapi.RequestPoolRequest](m{"AddressSpace": "nuage", "Pool": cidr, "Options": options}))
	r.ok(err)
	gw, err := r.ipam.RequestAddress(bg, &ipamapi.RequestAddressRequest{PoolID: p.PoolID, Options: map[string]string{"RequestAddressType": "com.docker.network.gateway"}})
	r.ok(err)
	r.ok(r.CreateNetwork(bg, decode[CreateNetworkRequest](m{"NetworkID": netID(n), "IPv4Data": ipv4("nuage", p.Pool, gw.Address)})))
	return p.PoolID
}

// start is `docker run`, with --ip unless want is empty, as far as the address and the
// endpoint go; what fails is undone as engines do.
func (r *rig) start(ctx context.Context, pool string, network, n int, want string) (addr string, err error) {
	mac := fmt.Sprintf("02:42:00:00:%02x:%02x", n>>8, n&255)
	a, err := r.ipam.RequestAddress(ctx, &ipamapi.RequestAddressRequest{PoolID: pool, Address: want, Options: map[string]string{"com.docker.network.endpoint.macaddress": mac}})
	if err != nil {
		return "", err
	}
	addr, _, _ = strings.Cut(a.Address, "/")
	req := epRequest(network, n, a.Address)
	req.Interface.MacAddress = mac
	if _, err := r.CreateEndpoint(ctx, req); err != nil {
		return "", errors.Join(err, r.ipam.ReleaseAddress(ctx, &ipamapi.ReleaseAddressRequest{PoolID: pool, Address: addr}))
	}
	return addr, nil
}

// up is start and Join.
func (r *rig) up(pool string, network, n int, want string) string {
	r.t.Helper()
	addr, err := r.start(bg, pool, network, n, want)
	r.ok(err)
	_, err = r.Join(bg, &JoinRequest{NetworkID: netID(network), EndpointID: epID(n)})
	r.ok(err)
	return addr
}

// down is `docker stop`.
func (r *rig) down(pool string, network, n int, addr string) error {
	return errors.Join(r.Leave(bg, &LeaveRequest{NetworkID: netID(network), EndpointID: epID(n)}),
		r.DeleteEndpoint(bg, &DeleteEndpointRequest{NetworkID: netID(network), EndpointID: epID(n)}),
		r.ipam.ReleaseAddress(bg, &ipamapi.ReleaseAddressRequest{PoolID: pool, Address: addr}))
}

// remove is `docker network rm`.
func (r *rig) remove(pool string, network int, gateway string) error {
	return errors.Join(r.ipam.ReleaseAddress(bg, &ipamapi.ReleaseAddressRequest{PoolID: pool, Address: gateway}),
		r.ipam.ReleasePool(bg, &ipamapi.ReleasePoolRequest{PoolID: pool}), r.DeleteNetwork(bg, &DeleteNetworkRequest{NetworkID: netID(network)}))
}

// leaseOf is the lease of an address of subnet Web.
func (r *rig) leaseOf(addr string) tenant.Lease {
	r.t.Helper()
	if l := r.everything().Leases[tenant.LeaseID(r.pathOf("DockerZone").Subnet.ID, addr)]; l != nil {
		return *l
	}
	return tenant.Lease{}
}

// Three hosts make the same network and fill it together: no address is given twice, none
// is lost, and the subnet is full when it is full.
func TestThreeHostsFillASubnet(t *testing.T) {
	hosts := newFleet(t, 3)
	const each, free = 4, 253
	pools := make([]string, len(hosts))
	var wg sync.WaitGroup
	for i, r := range hosts {
		wg.Go(func() { pools[i] = r.tenantNetwork(i+1, "10.85.85.0/24", web) })
	}
	wg.Wait()
	if pools[0] != pools[1] || pools[1] != pools[2] {
		t.Fatalf("different pools: %q", pools)
	}
	type container struct{ host, n int }
	var mu sync.Mutex
	running := map[string]container{}
	for i, r := range hosts {
		for w := range each {
			wg.Go(func() {
				for n := 1 + w; ; n += each {
					addr, err := r.start(bg, pools[i], i+1, (i+1)<<12+n, "")
					if errors.Is(err, tenant.ErrExhausted) {
						return
					}
					if err != nil {
						t.Errorf("%s: %v", r.host, err)
						return
					}
					mu.Lock()
					if other, ok := running[addr]; ok {
						t.Errorf("%s given to %v and to host %d", addr, other, i)
					}
					running[addr] = container{i, (i+1)<<12 + n}
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	perHost := map[int]int{}
	for _, c := range running {
		perHost[c.host]++
	}
	t.Logf("addresses per host: %v", perHost)
	if len(running) != free || len(perHost) != 3 {
		t.Errorf("%d of %d addresses were given out, by %d hosts", len(running), free, len(perHost))
	}
	st := hosts[0].everything()
	vports := map[netip.Addr]string{}
	for _, v := range st.Vports {
		if hosts[0].pathOf("DockerZone").Subnet.ID != v.SubnetID {
			continue
		}
		if other, ok := vports[v.IPv4]; ok {
			t.Errorf("%s has vports %s and %s", v.IPv4, other, v.Name)
		}
		vports[v.IPv4] = v.Name
		if l := st.Leases[tenant.LeaseID(v.SubnetID, v.IPv4.String())]; l == nil || l.VportID != v.ID || l.Host != v.Host {
			t.Errorf("vport %s on %s: lease %+v", v.IPv4, v.Host, l)
		}
	}
	if len(vports) != free {
		t.Errorf("%d vports", len(vports))
	}
	for addr, c := range running {
		wg.Go(func() {
			if err := hosts[c.host].down(pools[c.host], c.host+1, c.n, addr); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, r := range hosts {
		r.Wait()
		r.ok(r.remove(pools[i], i+1, "10.85.85.1"))
	}
	for _, r := range hosts {
		r.reconcile() // a busy machine leaves some of it for later
	}
	for _, r := range hosts {
		r.expect("after all, " + r.host)
	}
}

// While etcd is away what runs goes on, what is new is refused in time, and what goes is
// let go; when it is back all is settled.
func TestEtcdAway(t *testing.T) {
	for name, cut := range map[string]func(*cable){"stopped": (*cable).stop, "silent": (*cable).silence} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.subnet("DockerZone", "Web", "10.85.85.0/24")
			pool := r.tenantNetwork(1, "10.85.85.0/24", web)
			stays, goes := r.up(pool, 1, 1, ""), r.up(pool, 1, 2, "")
			r.ok(r.CreateNetwork(bg, netRequest(2, "172.18.0.0/16", "172.18.0.1/16", app1)))
			flows := r.flowsOf(stays)

			cut(r.cable)
			within := func(what string, limit time.Duration, f func() error) {
				t.Helper()
				start := time.Now()
				if err := f(); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				if took := time.Since(start); took > limit {
					t.Errorf("%s took %s", what, took)
				}
			}
			brief, cancel := context.WithTimeout(bg, 2*time.Second)
			defer cancel()
			within("docker run", 2500*time.Millisecond, func() error {
				return unavailable(r.start(brief, pool, 1, 3, ""))
			})
			brief2, cancel := context.WithTimeout(bg, 2*time.Second)
			defer cancel()
			within("CreateEndpoint", 2500*time.Millisecond, func() error {
				return unavailable(r.CreateEndpoint(brief2, epRequest(2, 4, "172.18.0.2/16")))
			})
			within("docker stop", 2500*time.Millisecond, func() error { return r.down(pool, 1, 2, goes) })
			within("docker network rm", 2500*time.Millisecond, func() error { return r.DeleteNetwork(bg, &DeleteNetworkRequest{NetworkID: netID(2)}) })
			brief3, cancel := context.WithTimeout(bg, time.Second)
			defer cancel()
			if rep, err := r.Reconcile(brief3); err == nil || len(rep.Removed) > 0 {
				t.Errorf("Reconcile: %+v, %v", rep, err)
			}
			if got := r.flowsOf(stays); got != flows || flows == 0 {
				t.Errorf("the running container has %d flows, it had %d", got, flows)
			}

			r.ok(r.cable.heal())
			r.eventually("the store is back", func() bool { return r.store.Ready() == nil })
			r.Wait()
			r.eventually("all is settled", func() bool { _, err := r.Reconcile(bg); return err == nil })
			// What etcd did not answer in time may have happened: such a reservation lapses.
			r.eventually("no address is reserved", func() bool { return !strings.Contains(strings.Join(r.stored(), "|"), " reserved") })
			r.expect("settled", append(attachedWorld(1, stays), "store-network "+short(netID(1)), "record network "+short(netID(1))+" made=true")...)
			if got := r.flowsOf(stays); got != flows {
				t.Errorf("the running container has %d flows, it had %d", got, flows)
			}
			r.ok(r.down(pool, 1, 1, stays))
			r.Wait()
			r.ok(r.remove(pool, 1, "10.85.85.1"))
			r.expect("nothing")
		})
	}
}

// unavailable is nil for a refusal that says it is the store that does not answer.
func unavailable[T any](_ T, err error) error {
	if !errors.Is(err, tenant.ErrUnavailable) || !strings.Contains(err.Error(), "store: ") {
		return fmt.Errorf("done, or refused with: %v", err)
	}
	return nil
}

// blindStore is a store that sees nothing: its feed is empty, and it follows only if told.
type blindStore struct {
	Store
	feed    *tenant.Feed
	follows error
}

func (s *blindStore) Feed() *tenant.Feed                   { return s.feed }
func (s *blindStore) Follow(context.Context, string) error { return s.follows }

// What is not seen is not gone: an empty feed removes nothing, whatever the store says.
func TestReconcileOfWhatIsNotSeen(t *testing.T) {
	r := newRig(t)
	world := r.two()
	for name, s := range map[string]Store{
		"domains not followed":   &blindStore{r.store, tenant.NewFeed(), tenant.Errorf(tenant.ErrUnavailable, "store: etcd does not answer")},
		"followed, but empty":    &blindStore{r.store, tenant.NewFeed(), nil},
		"away since the start":   &awayStore{Store: &blindStore{r.store, tenant.NewFeed(), errAway}, away: true},
		"domain said to be gone": &blindStore{r.store, tenant.NewFeed(), tenant.Errorf(tenant.ErrNotFound, "domain not found")},
	} {
		d := r.newDriver(quiet(), func(c *Config) { c.Store = s })
		rep, err := d.Reconcile(bg)
		if len(rep.Removed) > 0 || err == nil && name != "followed, but empty" {
			t.Errorf("%s: %+v, %v", name, rep, err)
		}
		r.expect(name, world...)
	}
	// The same with an empty journal, which knows no link and no port.
	r.Driver.Wait()
	r.journal.Close()
	r.dir = t.TempDir()
	r.openJournal()
	var links []string
	for _, follows := range []error{errAway, nil} {
		s := &blindStore{r.store, tenant.NewFeed(), follows}
		d := r.newDriver(quiet(), func(c *Config) { c.Store = s })
		rep, err := d.Reconcile(bg)
		if len(rep.Removed) > 0 || err == nil {
			t.Errorf("empty journal, Follow says %v: %+v, %v", follows, rep, err)
		}
		if links, _ = r.links.List(); len(links) != 2 {
			t.Fatalf("empty journal, Follow says %v: links %v", follows, links)
		}
	}
	r.Driver = r.newDriver(r.Driver.Log, nil)
	r.reconcile()
	r.expect("adopted", world...)
}

// A host that was given up and comes back keeps what is still free, and does not disturb
// who has got the rest.
func TestEvictedHost(t *testing.T) {
	hosts := newFleet(t, 2)
	a, b := hosts[0], hosts[1]
	pool := a.tenantNetwork(1, "10.85.85.0/24", web)
	b.tenantNetwork(2, "10.85.85.0/24", web)
	kept, lost := a.up(pool, 1, 1, ""), a.up(pool, 1, 2, "")
	if _, err := b.start(bg, pool, 2, 3, lost); !errors.Is(err, tenant.ErrConflict) || !strings.Contains(err.Error(), "on host "+a.host) {
		t.Errorf("an address of another host: %v", err)
	}
	if a.portFlows(1) == 0 || a.portFlows(2) == 0 {
		t.Fatal("the ports have no flows before")
	}
	a.ok(b.store.EvictHost(bg, a.host, true))
	b.up(pool, 2, 3, lost)
	moved := b.vport(3)

	rep := a.reconcile()
	if strings.Join(rep.Closed, " ") != "vport ep-"+short(epID(2)) || !slices.Contains(rep.Restored, "vport ep-"+short(epID(1))) || len(rep.Removed) > 0 {
		t.Errorf("Reconcile: %+v", rep)
	}
	v := a.vport(2)
	if v.IPv4.IsValid() || !strings.Contains(v.Error, "address "+lost+" in use by vport "+moved.Name) {
		t.Errorf("the vport that lost its address: %+v", v)
	}
	if !strings.Contains(logged(a), "another vport has got the address") {
		t.Errorf("the log does not say it: %s", logged(a))
	}
	a.eventually("one port is open, the other closed", func() bool { return a.portFlows(1) > 0 && a.portFlows(2) == 0 })
	if l := a.leaseOf(lost); l.VportID != moved.ID || l.Host != b.host {
		t.Errorf("the lease of the address that moved: %+v", l)
	}
	if l := a.leaseOf(kept); l.VportID != a.vport(1).ID || a.vport(1).Error != "" {
		t.Errorf("the lease of the address that was kept: %+v", l)
	}
	if rep := a.reconcile(); !rep.empty() {
		t.Errorf("a further Reconcile: %+v", rep)
	}

	// The other gives the address up: the container here has it back.
	a.ok(b.down(pool, 2, 3, lost))
	a.eventually("the address is back", func() bool { a.reconcile(); return a.vport(2).IPv4.String() == lost })
	if v := a.vport(2); v.Error != "" || a.leaseOf(lost).VportID != v.ID {
		t.Errorf("the vport that got its address back: %+v", v)
	}
	_, err := a.Join(bg, &JoinRequest{NetworkID: netID(1), EndpointID: epID(2)})
	a.ok(err)

	// And what is closed when its container stops takes nothing with it.
	a.ok(b.store.EvictHost(bg, a.host, true))
	b.up(pool, 2, 4, lost)
	a.reconcile()
	a.ok(a.down(pool, 1, 2, lost))
	if l := a.leaseOf(lost); l.VportID != b.vport(4).ID || l.State != tenant.LeaseBound {
		t.Errorf("the lease after the closed one has gone: %+v", l)
	}
	a.ok(errors.Join(a.down(pool, 1, 1, kept), b.down(pool, 2, 4, lost)))
	for i, r := range hosts {
		r.Wait()
		r.ok(r.remove(pool, i+1, "10.85.85.1"))
	}
	a.expect("nothing")
	b.expect("nothing")
}

// A host that dies holds its addresses until it is given up, or is back and says that its
// containers are gone; then they are the next one's at once.
func TestAddressMoves(t *testing.T) {
	hosts := newFleet(t, 2)
	a, b := hosts[0], hosts[1]
	pool := a.tenantNetwork(1, "10.85.85.0/24", web)
	b.tenantNetwork(2, "10.85.85.0/24", web)
	const db = "10.85.85.20"
	a.up(pool, 1, 1, db)
	a.ok(a.down(pool, 1, 1, db))
	b.up(pool, 2, 2, db) // at once, though the address rests
	a.ok(b.down(pool, 2, 2, db))
	a.up(pool, 1, 3, db)

	// The machine reboots: no links, no containers, the journal as it was.
	host := a.vport(3).Interface
	a.run("ip", "-n", a.ns, "link", "del", host)
	a.restart()
	if _, err := b.start(bg, pool, 2, 4, db); !errors.Is(err, tenant.ErrConflict) {
		t.Errorf("while the dead host has it: %v", err)
	}
	a.reconcile()
	b.up(pool, 2, 5, db)
	a.reconcile()
	// dockerd then takes back the endpoint that it remembers.
	a.ok(a.down(pool, 1, 3, db))
	var has []string
	for _, v := range a.everything().Vports {
		if v.IPv4.String() == db && v.SubnetID == a.pathOf("DockerZone").Subnet.ID {
			has = append(has, v.Host)
		}
	}
	if l := a.leaseOf(db); strings.Join(has, " ") != b.host || l.VportID != b.vport(5).ID || l.State != tenant.LeaseBound {
		t.Errorf("the address is at %v, its lease %+v", has, l)
	}
}

// logged is all that a host's log says.
func logged(r *rig) string {
	var all strings.Builder
	for _, e := range r.log.AllEntries() {
		fmt.Fprintf(&all, "%s: %s %v\n", e.Level, e.Message, e.Data)
	}
	return all.String()
}

// portFlows counts the flows for packets from an endpoint's port.
func (r *rig) portFlows(n int) int {
	host, _ := link.Names(epID(n))
	return r.flowsOf(fmt.Sprintf("in_port=%d ", r.bridge.Ports()[host].OFPort)) + r.flowsOf(fmt.Sprintf("in_port=%d,", r.bridge.Ports()[host].OFPort))
}
