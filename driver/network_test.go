package driver

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	ipamapi "github.com/docker/go-plugins-helpers/ipam"

	"nuage/controller/tenant"
	"nuage/driver/link"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func with(options m, more ...string) m {
	all := m{}
	for k, v := range options {
		all[k] = v
	}
	for i := 0; i < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	return all
}

func (r *rig) network(n int) (found tenant.Network) {
	r.store.Feed().View(func(st *tenant.State) {
		if s := st.Networks[tenant.NetworkID(r.Host, netID(n))]; s != nil {
			found = *s
		}
	})
	return found
}

// What a user did wrong is said in words, with the flags that are right, and leaves nothing.
func TestCreateNetworkRefuses(t *testing.T) {
	r := newRig(t)
	web := r.subnet("DockerZone", "Web", "10.85.85.0/24")
	r.subnet("OtherZone", "Other", "10.86.86.0/24")
	r.subnet("TwoZone", "one", "10.1.1.0/24")
	r.subnet("TwoZone", "two", "10.1.2.0/24")
	before := r.world()
	for name, c := range map[string]struct {
		req   *CreateNetworkRequest
		class error
		says  []string
	}{
		"nothing said":             {netRequest(1, "172.18.0.0/16", "172.18.0.1/16", m{}), tenant.ErrInvalid, []string{"-o domain=…, -o zone=… missing", "docker network create -d nuage -o enterprise=DCEnterprise -o domain=App1 -o zone=DockerZone web"}},
		"no zone":                  {netRequest(1, "172.18.0.0/16", "172.18.0.1/16", m{"domain": "App1"}), tenant.ErrInvalid, []string{"-o zone=… missing"}},
		"another CIDR":             {netRequest(1, "172.18.0.0/16", "172.18.0.1/16", with(app1, "subnet", "Web")), tenant.ErrConflict, []string{"--subnet 10.85.85.0/24 --gateway 10.85.85.1", "--ipam-driver nuage --ipam-opt domain=App1 --ipam-opt zone=DockerZone --ipam-opt subnet=Web"}},
		"another gateway":          {netRequest(1, "10.85.85.0/24", "10.85.85.254/24", app1), tenant.ErrConflict, []string{"gateway 10.85.85.1, not 10.85.85.254", "--gateway 10.85.85.1"}},
		"overlap":                  {netRequest(1, "10.85.0.0/16", "10.85.0.1/16", app1), tenant.ErrConflict, []string{"overlaps subnet Web (10.85.85.0/24)", "--ipam-driver nuage"}},
		"a subnet of another zone": {netRequest(1, "10.86.86.0/24", "10.86.86.1/24", app1), tenant.ErrConflict, []string{"OtherZone"}},
		"null without a subnet":    {nullRequest(1, m{"domain": "App1", "zone": "EmptyZone"}), tenant.ErrNotFound, []string{"has no subnet"}},
		"null with two subnets":    {nullRequest(1, m{"domain": "App1", "zone": "TwoZone"}), tenant.ErrInvalid, []string{"-o subnet=NAME (one, two)"}},
		"null, unknown subnet":     {nullRequest(1, with(app1, "subnet", "Nix")), tenant.ErrNotFound, []string{"Nix", "create it first"}},
		"pool never requested":     {decode[CreateNetworkRequest](m{"NetworkID": netID(1), "IPv4Data": ipv4("nuage", "10.85.85.0/24", "10.85.85.1/24")}), tenant.ErrNotFound, []string{"10.85.85.0/24"}},
	} {
		err := r.CreateNetwork(bg, c.req)
		if !errors.Is(err, c.class) {
			t.Errorf("%s: %v, want %v", name, err, c.class)
			continue
		}
		for _, s := range c.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %q does not say %q", name, err, s)
			}
		}
	}
	r.expect("after refusals", before...)

	// Bound to the tenant's own subnet, which stays when the network goes.
	r.ok(r.CreateNetwork(bg, netRequest(1, "10.85.85.0/24", "10.85.85.1/24", app1)))
	if n := r.network(1); n.Mode != tenant.AddressExisting || n.SubnetID != web.Subnet.ID || n.MTU != DefaultMTU {
		t.Errorf("bound: %+v", n)
	}
	err := r.CreateNetwork(bg, netRequest(1, "10.85.85.0/24", "10.85.85.1/24", with(app1, "mtu", "1400")))
	if !errors.Is(err, tenant.ErrConflict) {
		t.Errorf("the same ID with other options: %v", err)
	}
	r.ok(r.DeleteNetwork(bg, &DeleteNetworkRequest{NetworkID: netID(1)}))
	r.expect("after the network", before...)
}

func TestAutocreateOff(t *testing.T) {
	r := newRig(t)
	d := r.newDriver(r.Log, func(c *Config) { c.Autocreate = false })
	err := d.CreateNetwork(bg, netRequest(1, "172.18.0.0/16", "172.18.0.1/16", app1))
	if !errors.Is(err, tenant.ErrNotFound) || !strings.Contains(err.Error(), "NUAGE_AUTOCREATE") {
		t.Errorf("got %v", err)
	}
	if r.everything().EnterpriseByName(r.enterprise) != nil {
		t.Error("something was made")
	}
	r.subnet("DockerZone", "Web", "10.85.85.0/24")
	r.ok(d.CreateNetwork(bg, netRequest(1, "10.85.85.0/24", "10.85.85.1/24", app1)))
}

// What is said with --ipam-opt counts for the network, and what is said twice must agree.
func TestOptionsOfThePoolAreTheNetworks(t *testing.T) {
	r := newRig(t)
	r.subnet("DockerZone", "Web", "10.85.85.0/24")
	pool, err := r.ipam.RequestPool(bg, decode[ipamapi.RequestPoolRequest](m{"AddressSpace": "nuage", "Options": with(app1, "subnet", "Web", "mtu", "1300", "policy-group", "web", "user", "me")}))
	r.ok(err)
	create := func(options m) error {
		return r.CreateNetwork(bg, decode[CreateNetworkRequest](m{"NetworkID": netID(1), "Options": m{keyGeneric: options}, "IPv4Data": ipv4("nuage", pool.Pool, "10.85.85.1/24")}))
	}
	if err := create(m{"zone": "Elsewhere"}); err == nil || !strings.Contains(err.Error(), "Elsewhere") {
		t.Errorf("contradiction: %v", err)
	}
	r.ok(create(m{"zone": "DockerZone"}))
	n := r.network(1)
	if n.Mode != tenant.AddressTenant || n.MTU != 1300 || n.User != "me" || strings.Join(n.PolicyGroups, " ") != "web" {
		t.Errorf("network: %+v", n)
	}
	// A container's own group takes the place of the network's.
	req := epRequest(1, 1, "10.85.85.7/24")
	_, err = r.CreateEndpoint(bg, req)
	r.ok(err)
	req = epRequest(1, 2, "10.85.85.8/24")
	req.Options["policy-group"] = "db"
	_, err = r.CreateEndpoint(bg, req)
	r.ok(err)
	if a, b := r.vport(1), r.vport(2); strings.Join(a.PolicyGroups, " ") != "web" || strings.Join(b.PolicyGroups, " ") != "db" || a.User != "me" {
		t.Errorf("groups %v and %v, user %q", a.PolicyGroups, b.PolicyGroups, a.User)
	}
	// Groups that were missing are there now; where nothing is made on the fly they are refused.
	r.store.Feed().View(func(st *tenant.State) {
		for _, name := range []string{"web", "db"} {
			if st.PolicyGroupByName(n.DomainID, name) == nil {
				t.Errorf("no policy group %s", name)
			}
		}
	})
	off := r.newDriver(r.Log, func(c *Config) { c.Autocreate = false })
	req = epRequest(1, 3, "10.85.85.9/24")
	req.Options["policy-group"] = "typo"
	if _, err := off.CreateEndpoint(bg, req); !errors.Is(err, tenant.ErrNotFound) || !strings.Contains(err.Error(), "policy group typo not found") {
		t.Errorf("an unknown group: %v", err)
	}
	out := r.run("ip", "-n", r.ns, "-o", "link", "show", r.vport(1).Interface)
	if !strings.Contains(out, "mtu 1300") {
		t.Errorf("MTU: %s", out)
	}
}

// The subnet that was made for Docker goes with the last network on it, not with the first.
func TestDockersSubnetGoesWithTheLastNetwork(t *testing.T) {
	r := newRig(t)
	r.ok(r.CreateNetwork(bg, netRequest(1, "172.18.0.0/16", "172.18.0.1/16", app1)))
	r.ok(r.CreateNetwork(bg, netRequest(2, "172.18.0.0/16", "172.18.0.1/16", app1)))
	r.ok(r.DeleteNetwork(bg, &DeleteNetworkRequest{NetworkID: netID(1)}))
	if _, err := r.CreateEndpoint(bg, epRequest(1, 1, "172.18.0.2/16")); !errors.Is(err, tenant.ErrNotFound) {
		t.Errorf("an endpoint on a deleted network: %v", err)
	}
	r.expect("one of two", boundWorld(2, "172.18.0.0/16")...)
	r.ok(r.DeleteNetwork(bg, &DeleteNetworkRequest{NetworkID: netID(2)}))
	r.expect("none")
}

// A container gets what the underlays of all hosts leave when it is attached, unless less
// is said; more than that is refused.
func TestMTU(t *testing.T) {
	r := newRig(t)
	limit := 0
	d := r.newDriver(r.Log, func(c *Config) { c.MaxMTU = func() int { return limit } })
	small := r.newDriver(r.Log, func(c *Config) { c.MaxMTU, c.MTU = func() int { return limit }, 1400 })
	mtuOf := func(n int) string {
		t.Helper()
		host, _ := link.Names(epID(n))
		f := strings.Fields(r.run("ip", "-n", r.ns, "-o", "link", "show", host))
		return f[slices.Index(f, "mtu")+1]
	}
	r.ok(d.CreateNetwork(bg, netRequest(1, "172.18.0.0/16", "172.18.0.1/16", app1)))
	r.ok(d.CreateNetwork(bg, netRequest(2, "172.19.0.0/16", "172.19.0.1/16", with(app1, "mtu", "9000"))))
	limit = 8950
	err := d.CreateNetwork(bg, netRequest(3, "172.20.0.0/16", "172.20.0.1/16", with(app1, "mtu", "9000")))
	if !errors.Is(err, tenant.ErrInvalid) || !strings.Contains(err.Error(), "mtu 9000: at most 8950") {
		t.Errorf("too large: %v", err)
	}
	if _, err := d.AllocateNetwork(bg, &AllocateNetworkRequest{Options: map[string]string{"mtu": "9000"}}); !errors.Is(err, tenant.ErrInvalid) {
		t.Errorf("too large for a swarm: %v", err)
	}
	r.ok(d.CreateNetwork(bg, netRequest(4, "172.21.0.0/16", "172.21.0.1/16", with(app1, "mtu", "1300"))))
	for i, c := range []struct {
		d       *Driver
		network int
		limit   int
		want    string
	}{
		{d, 1, 8950, "8950"}, {d, 1, 1450, "1450"}, {d, 1, 0, "1450"}, {d, 2, 8950, "8950"}, {d, 2, 0, "9000"},
		{d, 4, 8950, "1300"}, {d, 4, 1250, "1250"}, {small, 1, 8950, "1400"}, {small, 1, 1350, "1350"}, {small, 4, 8950, "1300"},
	} {
		limit = c.limit
		address := fmt.Sprintf("172.%d.0.%d/16", 17+c.network, 2+i)
		_, err := c.d.CreateEndpoint(bg, epRequest(c.network, i, address))
		r.ok(err)
		if got := mtuOf(i); got != c.want {
			t.Errorf("network %d, limit %d: mtu %s, want %s", c.network, c.limit, got, c.want)
		}
	}
}

// A refused network whose pool other networks have holds up no request of another pool:
// Docker's ReleasePool does not tell it from the removal of one of these.
func TestARefusedNetworkHoldsUpNoOther(t *testing.T) {
	r := newRig(t)
	r.subnet("DockerZone", "Web", "10.85.85.0/24")
	ask := func(sub string) *ipamapi.RequestPoolResponse {
		t.Helper()
		started := time.Now()
		pool, err := r.ipam.RequestPool(bg, decode[ipamapi.RequestPoolRequest](m{"AddressSpace": "nuage", "Pool": "10.85.85.0/24", "SubPool": sub, "Options": app1}))
		if r.ok(err); time.Since(started) > 2*time.Second {
			t.Errorf("a pool with range %q took %s", sub, time.Since(started))
		}
		return pool
	}
	create := func(n int, options m) error {
		return r.CreateNetwork(bg, decode[CreateNetworkRequest](m{"NetworkID": netID(n), "Options": m{keyGeneric: options}, "IPv4Data": ipv4("nuage", "10.85.85.0/24", "10.85.85.1/24")}))
	}
	ask("")
	r.ok(create(1, m{}))
	for i, wrong := range []m{{"zone": "Elsewhere"}, {"mtu": "many"}} {
		pool := ask("")
		if create(2, wrong) == nil {
			t.Errorf("%v was accepted", wrong)
		}
		r.ok(r.ipam.ReleasePool(bg, &ipamapi.ReleasePoolRequest{PoolID: pool.PoolID}))
		ask("10.85.85.128/30")
		r.ok(create(3+i, m{}))
	}
}

// A refused command leaves no subnet that was made for it, whose gateway would stand in the way
// of the next one; one that a network came to is the tenant's, and outlives the network.
func TestSubnetMadeForARefusedNetworkGoes(t *testing.T) {
	r := newRig(t)
	d := r.newDriver(r.Log, func(c *Config) { c.MaxMTU = func() int { return 1450 } })
	command := func(gateway string, options m) error {
		pool, err := r.ipam.RequestPool(bg, decode[ipamapi.RequestPoolRequest](m{"AddressSpace": "nuage", "Pool": "10.86.0.0/24", "Options": app1}))
		r.ok(err)
		_, err = r.ipam.RequestAddress(bg, decode[ipamapi.RequestAddressRequest](m{"PoolID": pool.PoolID, "Address": gateway, "Options": m{"RequestAddressType": "com.docker.network.gateway"}}))
		if err == nil {
			err = d.CreateNetwork(bg, decode[CreateNetworkRequest](m{"NetworkID": netID(1), "Options": m{keyGeneric: options}, "IPv4Data": ipv4("nuage", pool.Pool, gateway+"/24")}))
		}
		if err != nil { // as engines do, and when the network goes
			r.ok(r.ipam.ReleaseAddress(bg, &ipamapi.ReleaseAddressRequest{PoolID: pool.PoolID, Address: gateway}))
			r.ok(r.ipam.ReleasePool(bg, &ipamapi.ReleasePoolRequest{PoolID: pool.PoolID}))
		}
		return err
	}
	subnet := func() *tenant.Subnet {
		st := r.everything()
		if e := st.EnterpriseByName(r.enterprise); e != nil {
			return st.SubnetOverlapping(st.DomainByName(e.ID, "App1").ID, netip.MustParsePrefix("10.86.0.0/24"))
		}
		return nil
	}
	for gateway, wrong := range map[string]m{"10.86.0.1": {"zone": "Elsewhere"}, "10.86.0.2": {"mtu": "many"}, "10.86.0.3": {"mtu": "9000"}} {
		if command(gateway, wrong) == nil {
			t.Errorf("%v was accepted", wrong)
		}
		if sub := subnet(); sub != nil {
			t.Errorf("after a network with %v was refused: subnet %+v", wrong, sub)
		}
	}
	r.ok(command("10.86.0.254", m{}))
	r.ok(d.DeleteNetwork(bg, &DeleteNetworkRequest{NetworkID: netID(1)}))
	if sub := subnet(); sub == nil || sub.Gateway.String() != "10.86.0.254" || sub.DockerOwned {
		t.Errorf("after its network went: subnet %+v", sub)
	}
}
