package driver

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	ipamapi "github.com/docker/go-plugins-helpers/ipam"

	"nuage/controller/tenant"
	"nuage/ipam"
)

// swarmNetwork is what swarm's agent does on a node when its first task of a network comes:
// the network has one ID on all nodes, and the options that AllocateNetwork answered.
func (r *rig) swarmNetwork(options map[string]string) (pool string) {
	r.t.Helper()
	local := with(app1, "com.docker.network.ipam.serial", "true")
	p, err := r.ipam.RequestPool(bg, decode[ipamapi.RequestPoolRequest](m{"AddressSpace": ipam.SpaceLocal, "Pool": "10.77.1.0/24", "Options": local}))
	r.ok(err)
	gw, err := r.ipam.RequestAddress(bg, &ipamapi.RequestAddressRequest{PoolID: p.PoolID, Address: "10.77.1.1", Options: map[string]string{"RequestAddressType": "com.docker.network.gateway"}})
	r.ok(err)
	r.ok(r.CreateNetwork(bg, decode[CreateNetworkRequest](m{"NetworkID": netID(1), "Options": m{keyGeneric: options},
		"IPv4Data": ipv4(ipam.SpaceLocal, p.Pool, gw.Address)})))
	return p.PoolID
}

// A swarm with scope global: the manager, which is a node too, decides over the addresses
// of tasks on both nodes, in one process with its own agent. Manager and nodes take a
// network away in either order.
func TestSwarmOfTwoNodes(t *testing.T) {
	for _, first := range []string{"manager", "nodes"} {
		t.Run(first+" first", func(t *testing.T) {
			nodes := newFleet(t, 2)
			for _, r := range nodes {
				r.global = true
				r.restart()
			}
			manager := nodes[0]
			if c, err := manager.Capabilities(bg); err != nil || c.Scope != "global" {
				t.Fatalf("%+v, %v", c, err)
			}
			manager.subnet("DockerZone", "swarm", "10.77.1.0/24")
			serial := map[string]string{"com.docker.network.ipam.serial": "true", "domain": "App1", "zone": "DockerZone"}
			p, err := manager.ipam.RequestPool(bg, &ipamapi.RequestPoolRequest{AddressSpace: ipam.SpaceGlobal, Options: serial})
			manager.ok(err)
			lease := func(options map[string]string) string {
				t.Helper()
				a, err := manager.ipam.RequestAddress(bg, &ipamapi.RequestAddressRequest{PoolID: p.PoolID, Options: options})
				manager.ok(err)
				addr, _, _ := strings.Cut(a.Address, "/")
				return addr
			}
			gateway := maps.Clone(serial)
			gateway["RequestAddressType"] = "com.docker.network.gateway"
			if got := lease(gateway); got != "10.77.1.1" {
				t.Errorf("gateway %s", got)
			}
			answer, err := manager.AllocateNetwork(bg, decode[AllocateNetworkRequest](m{"NetworkID": netID(1), "Options": m{"domain": "App1"},
				"IPv4Data": []m{{"AddressSpace": "", "Gateway": "10.77.1.1/24", "Pool": "10.77.1.0/24"}}}))
			manager.ok(err)
			vip, tasks := lease(serial), []string{lease(serial), lease(serial)}
			if vip == tasks[0] || vip == tasks[1] || tasks[0] == tasks[1] {
				t.Fatalf("VIP %s, tasks %v", vip, tasks)
			}

			pools := make([]string, len(nodes))
			for i, r := range nodes {
				pools[i] = r.swarmNetwork(answer.Options)
				if got := r.up(pools[i], 1, 10+i, tasks[i]); got != tasks[i] {
					t.Errorf("node %d: task at %s, want %s", i, got, tasks[i])
				}
			}
			for i, r := range nodes {
				if n, v := r.network(1), r.vport(10+i); n.Host != r.host || v.IPv4.String() != tasks[i] || v.Host != r.host {
					t.Errorf("node %d: network %+v, vport %+v", i, n, v)
				}
				r.reconcile()
			}

			free := func() error {
				var errs []error
				for _, a := range append([]string{vip, "10.77.1.1"}, tasks...) {
					errs = append(errs, manager.ipam.ReleaseAddress(bg, &ipamapi.ReleaseAddressRequest{PoolID: p.PoolID, Address: a}))
				}
				return errors.Join(append(errs, manager.FreeNetwork(bg, decode[FreeNetworkRequest](m{"NetworkID": netID(1)})), manager.ipam.ReleasePool(bg, &ipamapi.ReleasePoolRequest{PoolID: p.PoolID}))...)
			}
			leave := func() error {
				var errs []error
				for i, r := range nodes {
					errs = append(errs, r.down(pools[i], 1, 10+i, tasks[i]))
					if i == 0 && nodes[1].network(1).ID == "" {
						t.Error("the first node has taken the other's network")
					}
					errs = append(errs, r.remove(pools[i], 1, "10.77.1.1"))
					r.Wait()
				}
				return errors.Join(errs...)
			}
			if first == "manager" {
				manager.ok(errors.Join(free(), leave()))
			} else {
				manager.ok(errors.Join(leave(), free()))
			}
			for _, r := range nodes {
				r.expect("after all, " + r.host)
				r.reconcile()
				r.expect("settled, " + r.host)
			}
		})
	}
}

// With --config-only and --config-from each node makes the network by its own, with scope
// local and one network ID on all.
func TestConfigFromOnTwoNodes(t *testing.T) {
	nodes := newFleet(t, 2)
	nodes[0].subnet("DockerZone", "swarm", "10.77.1.0/24")
	var pools, addrs []string
	for i, r := range nodes {
		pools = append(pools, r.swarmNetwork(map[string]string{"domain": "App1", "zone": "DockerZone"}))
		addrs = append(addrs, r.up(pools[i], 1, 20+i, ""))
	}
	if addrs[0] == addrs[1] || pools[0] != pools[1] {
		t.Errorf("addresses %v of pools %v", addrs, pools)
	}
	a, b := nodes[0], nodes[1]
	a.ok(a.down(pools[0], 1, 20, addrs[0]))
	a.Wait()
	a.ok(a.remove(pools[0], 1, "10.77.1.1"))
	b.reconcile()
	want := append(attachedWorld(21, addrs[1]), "store-network "+short(netID(1)), "record network "+short(netID(1))+" made=true")
	b.expect("the other node's", want...)
	b.ok(b.down(pools[1], 1, 21, addrs[1]))
	b.Wait()
	b.ok(b.remove(pools[1], 1, "10.77.1.1"))
	b.expect("nothing")
}

// A host with networks and no containers follows no domain; its first vport brings the
// domain in before Join returns, and the last takes it along.
func TestFirstVportBringsTheDomainIn(t *testing.T) {
	hosts := newFleet(t, 2)
	a, b := hosts[0], hosts[1]
	follows := func(r *rig, want ...string) bool { return slices.Equal(r.store.Following().Domains, want) }
	pool := a.tenantNetwork(1, "10.85.85.0/24", web)
	b.tenantNetwork(2, "10.85.85.0/24", web)
	b.ok(b.CreateNetwork(bg, netRequest(3, "172.18.0.0/16", "172.18.0.1/16", app1)))
	b.ok(b.CreateNetwork(bg, nullRequest(4, with(app1, "subnet", "Web"))))
	b.ok(b.CreateNetwork(bg, nullRequest(5, app1)))
	b.reconcile()
	b.restart()
	b.reconcile()
	domain := a.pathOf("DockerZone").Domain.ID
	addr := a.up(pool, 1, 1, "")
	if !follows(a, domain) || a.flowsOf(addr) == 0 {
		t.Errorf("with a vport the host follows %v", a.store.Following().Domains)
	}
	if !follows(b) {
		t.Errorf("with networks only the host follows %v", b.store.Following().Domains)
	}
	for n, f := range map[int]func() error{
		11: func() error { _, err := b.start(bg, pool, 2, 11, ""); return err },
		12: func() error { _, err := b.CreateEndpoint(bg, epRequest(3, 12, "172.18.0.2/16")); return err },
		13: func() error { _, err := b.CreateEndpoint(bg, epRequest(5, 13, "")); return err },
	} {
		b.eventually("the domain is left again", func() bool { return follows(b) })
		b.ok(f())
		v := b.vport(n)
		_, err := b.Join(bg, &JoinRequest{NetworkID: v.Owner.NetworkID, EndpointID: epID(n)})
		b.ok(err)
		var seen bool
		b.store.Feed().View(func(st *tenant.State) { seen = st.Vports[v.ID] != nil && st.Vports[a.vport(1).ID] != nil })
		if !seen || !follows(b, domain) || b.flowsOf(v.IPv4.String()) == 0 {
			t.Errorf("after Join of %d the host follows %v and does not know both vports", n, b.store.Following().Domains)
		}
		b.ok(b.down(pool, 2, n, v.IPv4.String()))
		b.Wait()
	}
	b.eventually("the domain is left at last", func() bool { return follows(b) })
	// What is deleted without the domain being followed is deleted all the same.
	for n := 2; n <= 5; n++ {
		b.ok(b.DeleteNetwork(bg, &DeleteNetworkRequest{NetworkID: netID(n)}))
	}
	b.expect("only the other's", slices.DeleteFunc(a.stored(), func(s string) bool { return strings.HasPrefix(s, "store-network") })...)
	if !follows(b) {
		t.Errorf("removing networks the host follows %v", b.store.Following().Domains)
	}
}
