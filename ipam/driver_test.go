package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	api "github.com/docker/go-plugins-helpers/ipam"
	"pgregory.net/rapid"

	"nuage/controller/store"
	"nuage/controller/tenant"
)

func app1(more ...string) map[string]string {
	o := map[string]string{"domain": "App1", "zone": "DockerZone"}
	for i := 0; i < len(more); i += 2 {
		o[more[i]] = more[i+1]
	}
	return o
}

func TestRequestPool(t *testing.T) {
	s := realStore(t)
	makeSubnet(t, s, "DCEnterprise", "App1", "DockerZone", "PrivateSubnet", "10.85.85.0/24")
	makeSubnet(t, s, "DCEnterprise", "App1", "VMZone", "VMSubnet", "10.34.49.0/24")
	makeSubnet(t, s, "DCEnterprise", "App1", "Two", "b", "10.2.0.0/24")
	makeSubnet(t, s, "DCEnterprise", "App1", "Two", "a", "10.1.0.0/24")
	auto, frozen := newEngine(t, s, false), newEngine(t, s, false)
	frozen.config.Autocreate = false
	frozen.driver = New(frozen.config)
	homeless := newEngine(t, s, false)
	homeless.config.Enterprise = ""
	homeless.driver = New(homeless.config)

	type request = api.RequestPoolRequest
	for _, c := range []struct {
		name  string
		on    *engine
		req   request
		want  string
		class error
		err   string
	}{
		{"only subnet of the zone", frozen, request{Options: app1()}, "10.85.85.0/24", nil, ""},
		{"by name", frozen, request{Options: app1("subnet", "PrivateSubnet")}, "10.85.85.0/24", nil, ""},
		{"by prefix", frozen, request{Pool: "10.85.85.0/24", Options: app1()}, "10.85.85.0/24", nil, ""},
		{"by prefix with host bits", frozen, request{Pool: "10.85.85.7/24", Options: app1()}, "10.85.85.0/24", nil, ""},
		{"by both", frozen, request{Pool: "10.85.85.0/24", Options: app1("NUAGE-NETWORK", "PrivateSubnet")}, "10.85.85.0/24", nil, ""},
		{"range", frozen, request{Pool: "10.85.85.0/24", SubPool: "10.85.85.128/25", Options: app1()}, "10.85.85.0/24", nil, ""},
		{"one of two by name", frozen, request{Options: map[string]string{"domain": "App1", "zone": "Two", "subnet": "b"}}, "10.2.0.0/24", nil, ""},
		// Made for a network that does not come: gone with the pool.
		{"made", auto, request{Pool: "10.7.0.0/24", Options: app1("subnet", "new")}, "10.7.0.0/24", nil, ""},
		{"all made", auto, request{Pool: "10.85.85.0/24", Options: map[string]string{"enterprise": "E2", "domain": "D", "zone": "Z"}}, "10.85.85.0/24", nil, ""},

		{"unknown key", auto, request{Options: app1("colour", "red")}, "", tenant.ErrInvalid, `unknown option "colour": known are domain,`},
		{"no domain", auto, request{Options: map[string]string{"zone": "Z"}}, "", tenant.ErrInvalid, "no domain given: pass --ipam-opt domain=NAME"},
		{"no zone", auto, request{Options: map[string]string{"domain": "D"}}, "", tenant.ErrInvalid, "no zone given"},
		{"no enterprise", homeless, request{Options: app1()}, "", tenant.ErrInvalid, "no enterprise given"},
		{"foreign space", auto, request{AddressSpace: "LocalDefault", Options: app1()}, "", tenant.ErrInvalid, `address space "LocalDefault"`},
		{"IPv6", auto, request{V6: true, Options: app1()}, "", tenant.ErrInvalid, "no IPv6 yet"},
		{"IPv6 prefix", auto, request{Pool: "fd00::/64", Options: app1()}, "", tenant.ErrInvalid, "no IPv6 yet"},
		{"garbage prefix", auto, request{Pool: "10.0.0/24", Options: app1()}, "", tenant.ErrInvalid, `--subnet "10.0.0/24" is not an IPv4 prefix`},
		{"garbage range", auto, request{Pool: "10.85.85.0/24", SubPool: "x", Options: app1()}, "", tenant.ErrInvalid, `--ip-range "x"`},
		{"range outside", auto, request{Pool: "10.85.85.0/24", SubPool: "10.85.86.0/25", Options: app1()}, "", tenant.ErrInvalid, "--ip-range 10.85.86.0/25 is not in subnet PrivateSubnet (10.85.85.0/24)"},
		{"range around", auto, request{Pool: "10.85.85.0/24", SubPool: "10.85.0.0/16", Options: app1()}, "", tenant.ErrInvalid, "is not in subnet"},
		{"prefix of nobody", auto, request{Pool: "224.0.0.0/24", Options: app1()}, "", tenant.ErrInvalid, "tenants cannot use"},
		{"missing domain", frozen, request{Pool: "10.85.85.0/24", Options: map[string]string{"domain": "Nope", "zone": "Z"}}, "", tenant.ErrNotFound, "domain Nope of enterprise DCEnterprise not found: create it first"},
		{"zone of another subnet", auto, request{Pool: "10.85.85.0/24", Options: map[string]string{"domain": "App1", "zone": "Nope"}}, "", tenant.ErrConflict, "10.85.85.0/24 is subnet PrivateSubnet of zone DockerZone in domain App1, not of zone Nope"},
		{"missing zone", frozen, request{Pool: "10.8.0.0/24", Options: map[string]string{"domain": "App1", "zone": "Nope"}}, "", tenant.ErrNotFound, "zone Nope of domain App1 not found: create it first"},
		{"missing subnet", frozen, request{Pool: "10.8.0.0/24", Options: app1()}, "", tenant.ErrNotFound, "not found: create it first"},
		{"empty zone", auto, request{Options: map[string]string{"domain": "App1", "zone": "Empty"}}, "", tenant.ErrNotFound, "zone Empty of domain App1 has no subnet: pass --subnet CIDR to make one"},
		{"name without prefix", auto, request{Options: app1("subnet", "nope")}, "", tenant.ErrNotFound, "zone DockerZone of domain App1 has no subnet nope (PrivateSubnet 10.85.85.0/24): pass --subnet CIDR to make it"},
		{"two subnets", auto, request{Options: map[string]string{"domain": "App1", "zone": "Two"}}, "", tenant.ErrConflict, "zone Two of domain App1 has 2 subnets (a 10.1.0.0/24, b 10.2.0.0/24): pass --ipam-opt subnet=NAME"},
		{"other prefix", auto, request{Pool: "10.9.0.0/24", Options: app1("subnet", "PrivateSubnet")}, "", tenant.ErrConflict, "subnet PrivateSubnet is 10.85.85.0/24, not 10.9.0.0/24: pass --subnet 10.85.85.0/24"},
		{"other name", auto, request{Pool: "10.85.85.0/24", Options: app1("subnet", "x")}, "", tenant.ErrConflict, "10.85.85.0/24 is subnet PrivateSubnet, not x: pass --ipam-opt subnet=PrivateSubnet"},
		{"overlap", auto, request{Pool: "10.85.0.0/16", Options: app1()}, "", tenant.ErrConflict, "overlaps subnet PrivateSubnet (10.85.85.0/24) in domain App1"},
		{"other zone's", auto, request{Pool: "10.34.49.0/24", Options: app1()}, "", tenant.ErrConflict, "VMSubnet"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.req.AddressSpace == "" {
				c.req.AddressSpace = SpaceLocal
			}
			got, err := c.on.driver.RequestPool(ctx, &c.req)
			mustFail(t, err, c.class, c.err)
			if err != nil {
				return
			}
			if got.Pool != c.want {
				t.Errorf("pool %s, want %s", got.Pool, c.want)
			}
			again, err := c.on.driver.RequestPool(ctx, &c.req)
			if err != nil || again.PoolID != got.PoolID || again.Pool != got.Pool {
				t.Errorf("again: %+v, %v", again, err)
			}
			for range 3 {
				if err := c.on.driver.ReleasePool(ctx, &api.ReleasePoolRequest{PoolID: got.PoolID}); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func (e *engine) address(pool, want, mac string, options ...string) (string, error) {
	o := map[string]string{}
	if mac != "" {
		o[endpointMAC] = mac
	}
	for i := 0; i < len(options); i += 2 {
		o[options[i]] = options[i+1]
	}
	got, err := e.driver.RequestAddress(ctx, &api.RequestAddressRequest{PoolID: pool, Address: want, Options: o})
	if err != nil {
		return "", err
	}
	return got.Address, nil
}

func (e *engine) gateway(pool, want string) (string, error) {
	return e.address(pool, want, "", requestType, gatewayType)
}

// create makes a network as an engine does, and returns its pool.
func (e *engine) create(networkID, cidr string, ipamOpts, driverOpts map[string]string) (PoolRecord, error) {
	p, err := e.pool(cidr, ipamOpts)
	if err != nil {
		return PoolRecord{}, err
	}
	undo := func(err error) (PoolRecord, error) {
		return PoolRecord{}, errors.Join(err, e.driver.ReleasePool(ctx, &api.ReleasePoolRequest{PoolID: p.PoolID}))
	}
	gw, err := e.gateway(p.PoolID, "")
	if err != nil {
		return undo(err)
	}
	said, err := ParseOptions(driverOpts)
	if err != nil {
		return undo(err)
	}
	r, err := e.driver.Claim(ctx, Network{networkID, SpaceLocal, prefix(p.Pool), prefix(gw).Addr(), said})
	if err != nil {
		return undo(err)
	}
	return r, nil
}

func TestTenantsWithOnePrefixAtOnce(t *testing.T) {
	e := newEngine(t, realStore(t), false)
	const n = 12
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			o := map[string]string{"enterprise": fmt.Sprint("E", i), "domain": "App1", "zone": "Z", "subnet": "web", "policy-group": fmt.Sprint("g", i)}
			r, err := e.create(fmt.Sprint("n", i), "10.85.85.0/24", o, nil)
			if err != nil {
				t.Errorf("tenant %d: %v", i, err)
			} else if r.Options.Enterprise != o["enterprise"] || r.Options.PolicyGroups[0] != o["policy-group"] {
				t.Errorf("tenant %d got the pool of %s", i, r.Options.Enterprise)
			}
		})
	}
	wg.Wait()
	// Each has its own addresses, the same ones.
	rs, err := e.driver.records()
	if err != nil || len(rs) != n {
		t.Fatal(len(rs), err)
	}
	for i, r := range rs {
		if a, err := e.address(r.ID, "", mac(i).String()); err != nil || a != "10.85.85.2/24" {
			t.Errorf("%s: %s, %v", r.Options.Enterprise, a, err)
		}
	}
}

func TestClaim(t *testing.T) {
	e := newEngine(t, realStore(t), false)
	tenantOf := func(name string) map[string]string {
		return map[string]string{"enterprise": name, "domain": "D", "zone": "Z", "subnet": "web"}
	}
	one, err := e.create("n1", "10.0.0.0/24", tenantOf("E1"), map[string]string{"user": "anna", "domain": "D"})
	if err != nil || one.Options.User != "anna" || one.Options.Subnet != "web" {
		t.Fatalf("%+v, %v", one, err)
	}
	if _, err := e.create("n2", "10.0.0.0/24", tenantOf("E2"), nil); err != nil {
		t.Fatal(err)
	}
	claim := func(id, gateway string, said Options) (PoolRecord, error) {
		return e.driver.Claim(ctx, Network{id, SpaceLocal, prefix("10.0.0.0/24"), addr(gateway), said})
	}
	for range 2 {
		if r, err := claim("n1", "10.0.0.1", Options{}); err != nil || r.Options.Enterprise != "E1" {
			t.Errorf("claimed again: %+v, %v", r, err)
		}
	}
	_, err = claim("n3", "10.0.0.1", Options{})
	mustFail(t, err, tenant.ErrConflict, "several tenants have a pool 10.0.0.0/24 on this host")
	if r, err := claim("n3", "10.0.0.1", Options{Enterprise: "E2"}); err != nil || r.Options.Enterprise != "E2" {
		t.Errorf("%+v, %v", r, err)
	}
	_, err = claim("n4", "10.0.0.1", Options{Enterprise: "E3"})
	mustFail(t, err, tenant.ErrInvalid, "enterprise is said twice")
	_, err = claim("n4", "10.0.0.9", Options{})
	mustFail(t, err, tenant.ErrConflict, "subnet web (10.0.0.0/24) has gateway 10.0.0.1, not 10.0.0.9")
	_, err = e.driver.Claim(ctx, Network{ID: "n4", Space: SpaceLocal, CIDR: prefix("10.3.0.0/24")})
	mustFail(t, err, tenant.ErrNotFound, "no pool 10.3.0.0/24 was requested")

	_, err = e.create("n5", "10.0.0.0/24", tenantOf("E1"), map[string]string{"zone": "other"})
	mustFail(t, err, tenant.ErrInvalid, `option zone is said twice, as "other" and as "Z"`)

	for range 2 {
		for _, n := range []string{"n1", "n2", "n3", "never"} {
			if err := e.driver.Disclaim(ctx, n); err != nil {
				t.Error(err)
			}
		}
	}
	e.lookAtPools(nil)
}

func TestAnotherNetworkWithTheSamePoolSurvivesTheRemovalOfTheFirst(t *testing.T) {
	e := newEngine(t, realStore(t), false)
	o := app1("subnet", "web")
	r, err := e.create("n1", "10.0.0.0/24", o, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := e.create("n2", "10.0.0.0/24", o, nil); err != nil || again.ID != r.ID {
		t.Fatal(again, err)
	}
	if err := errors.Join(e.driver.ReleasePool(ctx, &api.ReleasePoolRequest{PoolID: r.ID}), e.driver.Disclaim(ctx, "n1")); err != nil {
		t.Fatal(err)
	}
	e.vars["$web"] = r.ID
	e.lookAtPools([]string{"$web"})
	if _, err := e.address(r.ID, "", mac(1).String()); err != nil {
		t.Error(err)
	}
}

func TestGateway(t *testing.T) {
	s := realStore(t)
	makeSubnet(t, s, "DCEnterprise", "App1", "DockerZone", "web", "10.85.85.0/24")
	e := newEngine(t, s, false)
	p, err := e.pool("", app1())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want, got string
		class     error
		err       string
	}{
		{"", "10.85.85.1/24", nil, ""},
		{"10.85.85.1", "10.85.85.1/24", nil, ""},
		{"10.85.85.254", "", tenant.ErrConflict, "subnet web (10.85.85.0/24) has gateway 10.85.85.1, not 10.85.85.254: pass --gateway 10.85.85.1, or leave --gateway out"},
		{"10.85.85", "", tenant.ErrInvalid, `"10.85.85" is not an IPv4 address`},
	} {
		for range 2 {
			got, err := e.gateway(p.PoolID, c.want)
			mustFail(t, err, c.class, c.err)
			if got != c.got {
				t.Errorf("gateway %q: %s, want %s", c.want, got, c.got)
			}
		}
	}

	made, err := e.pool("10.1.0.0/24", app1("subnet", "made"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got, err := e.gateway(made.PoolID, "10.1.0.254"); err != nil || got != "10.1.0.254/24" {
			t.Fatalf("gateway of a subnet that was just made: %s, %v", got, err)
		}
	}
	if r, err := e.driver.Claim(ctx, Network{"n", SpaceLocal, prefix("10.1.0.0/24"), addr("10.1.0.254"), Options{}}); err != nil || r.Gateway != addr("10.1.0.254") {
		t.Error(r, err)
	}
	_, err = e.gateway(made.PoolID, "10.1.0.253")
	mustFail(t, err, tenant.ErrConflict, "has gateway 10.1.0.254, not 10.1.0.253")
	// Once a network has begun with the subnet's gateway, it is settled.
	settled, err := e.pool("10.4.0.0/24", app1("subnet", "settled"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := e.gateway(settled.PoolID, ""); err != nil || got != "10.4.0.1/24" {
		t.Fatal(got, err)
	}
	_, err = e.gateway(settled.PoolID, "10.4.0.254")
	mustFail(t, err, tenant.ErrConflict, "has gateway 10.4.0.1, not 10.4.0.254")
	bad, err := e.pool("10.2.0.0/24", app1("subnet", "bad"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.gateway(bad.PoolID, "10.3.0.1")
	mustFail(t, err, tenant.ErrInvalid, "10.3.0.1 is not in 10.2.0.0/24")
	// What swarm's manager has made stays: the networks come on other hosts.
	swarm := newEngine(t, s, true)
	for cidr, gateway := range map[string]string{"10.5.0.0/24": "10.5.0.1", "10.6.0.0/24": "10.6.0.254"} {
		p, err := swarm.driver.RequestPool(ctx, &api.RequestPoolRequest{AddressSpace: SpaceGlobal, Pool: cidr, Options: app1()})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := swarm.gateway(p.PoolID, gateway); err != nil || got != gateway+"/24" {
			t.Errorf("gateway for a swarm: %s, %v", got, err)
		}
		path, err := s.EnsurePath(ctx, tenant.PathSpec{Enterprise: "DCEnterprise", Domain: "App1", Zone: "DockerZone", CIDR: prefix(cidr)})
		if err != nil || path.Subnet.Gateway != addr(gateway) || path.Subnet.DockerOwned {
			t.Errorf("subnet for a swarm: %+v, %v", path.Subnet, err)
		}
	}
}

func TestPoolRequestsDoNotLoop(t *testing.T) {
	s := realStore(t)
	makeSubnet(t, s, "DCEnterprise", "App1", "DockerZone", "web", "10.85.85.0/24")
	e := newEngine(t, s, false)
	var held []string
	var err error
	for len(held) < 100 { // as an engine up to 26 does when a route overlaps the pool
		var p *api.RequestPoolResponse
		if p, err = e.pool("", app1()); err != nil {
			break
		}
		held = append(held, p.PoolID)
	}
	mustFail(t, err, tenant.ErrConflict, "subnet web (10.85.85.0/24) overlaps a route or a nameserver of this host, so Docker does not accept it by itself: pass --subnet 10.85.85.0/24")
	for _, p := range held {
		if err := e.driver.ReleasePool(ctx, &api.ReleasePoolRequest{PoolID: p}); err != nil {
			t.Error(err)
		}
	}
	if _, err := e.create("n1", "10.85.85.0/24", app1(), nil); err != nil {
		t.Errorf("with --subnet: %v", err)
	}
	for i := range 3 * loopCalls { // one network after the other is no loop
		if _, err := e.create(fmt.Sprint("m", i), "", app1(), nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnknownAndGarbage(t *testing.T) {
	s := realStore(t)
	sub := makeSubnet(t, s, "DCEnterprise", "App1", "DockerZone", "web", "10.85.85.0/24")
	e := newEngine(t, s, false)
	good := poolID{space: SpaceLocal, domainID: sub.DomainID, subnetID: sub.ID, variant: "plain"}.String()
	nobody := poolID{space: SpaceLocal, domainID: sub.DomainID, subnetID: vportID("nobody"), variant: "plain"}.String()
	nowhere := poolID{space: SpaceLocal, domainID: vportID("nowhere"), subnetID: sub.ID, variant: "plain"}.String()
	both := sub.DomainID + "/" + sub.ID
	for _, id := range []string{"", "x", "a/b/c/d/e", "nuage/" + both, "other/" + both + "/all/plain", "nuage/../../all/plain", "nuage/" + both + "/10.0.0.0-99/plain", "nuage/" + both + "/fd00::-64/plain", strings.Repeat("/", 1<<16), nobody, nowhere} {
		if err := e.driver.ReleasePool(ctx, &api.ReleasePoolRequest{PoolID: id}); err != nil {
			t.Errorf("ReleasePool %.40q: %v", id, err)
		}
		if err := e.driver.ReleaseAddress(ctx, &api.ReleaseAddressRequest{PoolID: id, Address: "10.0.0.1"}); err != nil {
			t.Errorf("ReleaseAddress %.40q: %v", id, err)
		}
		_, err := e.address(id, "", mac(1).String())
		mustFail(t, err, tenant.ErrNotFound, "remove the network and create it again")
	}
	for _, a := range []string{"10.85.85.77", "10.9.9.9", "10.85.85.1", "10.85.85.0"} {
		if err := e.driver.ReleaseAddress(ctx, &api.ReleaseAddressRequest{PoolID: good, Address: a}); err != nil {
			t.Errorf("ReleaseAddress %s: %v", a, err)
		}
	}
	for _, a := range []string{"x", "fd00::1", "::ffff:10.85.85.2", "10.85.85.2/24"} {
		_, err := e.address(good, a, mac(1).String())
		mustFail(t, err, tenant.ErrInvalid, "is not an IPv4 address")
	}
	for _, m := range []string{"x", "01:00:5e:00:00:01", "02:42:00:00:00:00:00:01"} {
		_, err := e.address(good, "", m)
		mustFail(t, err, tenant.ErrInvalid, "MAC address")
	}
}

func TestPoolIDsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := poolID{
			space: rapid.SampledFrom([]string{SpaceLocal, SpaceGlobal}).Draw(t, "space"), domainID: vportID(rapid.String().Draw(t, "domain")), subnetID: vportID(rapid.String().Draw(t, "subnet")),
			variant: variant(Options{User: rapid.String().Draw(t, "user"), MTU: rapid.IntRange(0, 2).Draw(t, "mtu")}),
		}
		if rapid.Bool().Draw(t, "ranged") {
			id.rng = netip.PrefixFrom(address(rapid.Uint32().Draw(t, "address")), rapid.IntRange(0, 32).Draw(t, "bits"))
		}
		if got, err := parsePoolID(id.String()); err != nil || got != id {
			t.Fatalf("%s reads back as %+v, %v", id, got, err)
		}
		text := rapid.String().Draw(t, "text")
		if got, err := parsePoolID(text); err == nil && got.String() != text {
			t.Fatalf("%q reads as %s", text, got)
		}
		if o, err := ParseOptions(map[string]string{text: text}); err != nil && !errors.Is(err, tenant.ErrInvalid) {
			t.Fatalf("%q: %+v, %v", text, o, err)
		}
	})
}

func TestSubnetDeletedUnderAPool(t *testing.T) {
	s := realStore(t)
	e := newEngine(t, s, false)
	r, err := e.create("n1", "10.0.0.0/24", app1("subnet", "web"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteSubnet(ctx, r.SubnetID); err != nil {
		t.Fatal(err)
	}
	const text = "subnet web (10.0.0.0/24) of zone DockerZone in domain App1 no longer exists: remove the network and create it again"
	_, err = e.address(r.ID, "", mac(1).String())
	mustFail(t, err, tenant.ErrNotFound, text)
	// An engine that repeats its requests does not bring it back.
	if _, err := e.driver.Capabilities(ctx); err != nil {
		t.Fatal(err)
	}
	if p, err := e.pool("10.0.0.0/24", app1("subnet", "web")); err != nil || p.PoolID != r.ID {
		t.Errorf("the pool again: %+v, %v", p, err)
	}
	_, err = e.address(r.ID, "", mac(1).String())
	mustFail(t, err, tenant.ErrNotFound, text)
	if err := errors.Join(e.driver.ReleaseAddress(ctx, &api.ReleaseAddressRequest{PoolID: r.ID, Address: "10.0.0.2"}),
		e.driver.ReleasePool(ctx, &api.ReleasePoolRequest{PoolID: r.ID}), e.driver.Disclaim(ctx, "n1")); err != nil {
		t.Error(err)
	}
	e.lookAtPools(nil)
}

// TestStoreAway drives a driver whose store was never started.
func TestStoreAway(t *testing.T) {
	real := newEngine(t, realStore(t), false)
	r, err := real.create("n1", "10.0.0.0/24", app1("subnet", "web"), nil)
	if err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, store.New(store.Config{Dir: t.TempDir(), Host: "h1", Log: quiet()}), false)
	e.config.Records = real.config.Records
	e.driver = New(e.config)

	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	_, err = e.driver.RequestAddress(short, &api.RequestAddressRequest{PoolID: r.ID, Options: map[string]string{endpointMAC: mac(1).String()}})
	mustFail(t, err, tenant.ErrUnavailable, "store")
	if short.Err() == nil {
		t.Error("did not wait for the store")
	}
	e.clock.forward(storePatience)
	start := time.Now()
	for range 100 {
		_, err := e.address(r.ID, "", mac(1).String())
		if !errors.Is(err, tenant.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	_, err = e.pool("10.1.0.0/24", app1())
	if !errors.Is(err, tenant.ErrUnavailable) {
		t.Error(err)
	}
	// An engine that starts gets its pools back all the same, and can take networks away.
	if p, err := e.pool("10.0.0.0/24", app1("subnet", "web")); err != nil || p.PoolID != r.ID {
		t.Errorf("%+v, %v", p, err)
	}
	if err := errors.Join(e.driver.ReleaseAddress(ctx, &api.ReleaseAddressRequest{PoolID: r.ID, Address: "10.0.0.2"}),
		e.driver.ReleasePool(ctx, &api.ReleasePoolRequest{PoolID: r.ID}), e.driver.Disclaim(ctx, "n1")); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("a hundred calls with the store away took %s", took)
	}
}

func TestMACsAreOneOwnersEach(t *testing.T) {
	e := newEngine(t, realStore(t), false)
	r, err := e.create("n1", "10.0.0.0/24", app1("subnet", "web"), nil)
	if err != nil {
		t.Fatal(err)
	}
	m := mac(1)
	first, err := e.address(r.ID, "", m.String())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := e.address(r.ID, "", m.String()); err != nil || again != first {
		t.Errorf("asked again: %s, %v; want %s", again, err, first)
	}
	sub := tenant.Subnet{Meta: tenant.Meta{ID: r.SubnetID}}
	attach(t, e.store, sub, prefix(first).Addr(), m, "db-1", "h1")
	_, err = e.address(r.ID, "", m.String())
	mustFail(t, err, tenant.ErrConflict, "MAC address "+m.String()+" in use by vport db-1")
	if err := e.driver.ReleaseAddress(ctx, &api.ReleaseAddressRequest{PoolID: r.ID, Address: prefix(first).Addr().String()}); err != nil {
		t.Fatal(err)
	}
	if l, ok := leaseAt(e.store, sub.ID, prefix(first).Addr()); !ok || l.State != tenant.LeaseBound {
		t.Errorf("the address of a vport that is still there was released: %+v", l)
	}
}

// BenchmarkPutLease is what the store alone takes of BenchmarkRequestAddress.
func BenchmarkPutLease(b *testing.B) {
	s := realStore(b)
	sub := makeSubnet(b, s, "E", "D", "Z", "web", "10.0.0.0/14")
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		l := tenant.Lease{SubnetID: sub.ID, Address: address(number(sub.CIDR.Addr()) + 2 + uint32(i)), State: tenant.LeaseBound, MAC: mac(i), Host: "h1", Use: tenant.UseEndpoint}
		if _, err := s.PutLease(ctx, l); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	report(b, took)
}

func BenchmarkRequestAddress(b *testing.B) {
	for _, others := range []int{0, 10000} {
		b.Run(fmt.Sprintf("beside %d", others), func(b *testing.B) {
			e := newEngine(b, realStore(b), false)
			r, err := e.create("n1", "10.0.0.0/14", app1("subnet", "web"), nil)
			if err != nil {
				b.Fatal(err)
			}
			sub := tenant.Subnet{Meta: tenant.Meta{ID: r.SubnetID}}
			fill(b, e, sub, others)
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				start := time.Now()
				if _, err := e.address(r.ID, "", mac(1<<20+i).String()); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
			}
			report(b, took)
		})
	}
}
