package store

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"nuage/controller/tenant"
)

func TestRefusals(t *testing.T) {
	t.Parallel()
	s, _ := start(t, Config{Dir: t.TempDir()})
	ctx := context10(t)
	p := mustPath(t, s, tenant.PathSpec{Enterprise: "Acme", Domain: "App1", Zone: "DockerZone", Subnet: "db",
		CIDR: netip.MustParsePrefix("10.0.1.0/24"), Create: true})
	mustPath(t, s, tenant.PathSpec{Enterprise: "Acme", Domain: "App2", Zone: "Z", Subnet: "db",
		CIDR: netip.MustParsePrefix("10.0.1.0/24"), Create: true})
	v := newVport(p.Subnet, "10.0.1.9")
	v.ExternalID = "vm-1@cms"
	if _, err := s.BindVport(ctx, v); err != nil {
		t.Fatal(err)
	}
	subnet := func(cidr string) tenant.Subnet {
		return tenant.Subnet{ZoneID: p.Zone.ID, Name: "web", CIDR: netip.MustParsePrefix(cidr)}
	}
	with := func(n tenant.Subnet, f func(*tenant.Subnet)) tenant.Subnet { f(&n); return n }
	createSubnet := func(n tenant.Subnet) error { _, err := s.CreateSubnet(ctx, n); return err }
	bind := func(f func(*tenant.Vport)) error {
		v := newVport(p.Subnet, "10.0.1.10")
		f(&v)
		_, err := s.BindVport(ctx, v)
		return err
	}
	const nobody = "00000000-0000-4000-8000-000000000000"
	for _, c := range []struct {
		class error
		text  string
		err   error
	}{
		{tenant.ErrExists, "domain App1: zone DockerZone already exists", second(s.CreateZone(ctx, tenant.Zone{DomainID: p.Domain.ID, Name: "DockerZone"}))},
		{tenant.ErrExists, "enterprise Acme already exists", second(s.CreateEnterprise(ctx, tenant.Enterprise{Name: "Acme"}))},
		{tenant.ErrExists, "enterprise B: customer ID 10000 already exists: enterprise Acme has it", second(s.CreateEnterprise(ctx, tenant.Enterprise{Name: "B", CustomerID: 10000}))},
		{tenant.ErrInvalid, "enterprise B: customerID 9999 is below 10000", second(s.CreateEnterprise(ctx, tenant.Enterprise{Name: "B", CustomerID: 9999}))},
		{tenant.ErrInvalid, `enterprise -x: the name "-x" begins with a dash`, second(s.CreateEnterprise(ctx, tenant.Enterprise{Name: "-x"}))},
		{tenant.ErrExists, "enterprise Acme: domain App1 already exists", second(s.CreateDomain(ctx, tenant.Domain{EnterpriseID: p.Enterprise.ID, Name: "App1"}))},
		{tenant.ErrExists, "domain B: VNI 1 already exists: domain App1 has it", second(s.CreateDomain(ctx, tenant.Domain{EnterpriseID: p.Enterprise.ID, Name: "B", VNI: 1}))},
		{tenant.ErrNotFound, "domain B: enterprise " + nobody + " not found", second(s.CreateDomain(ctx, tenant.Domain{EnterpriseID: nobody, Name: "B"}))},
		{tenant.ErrExists, "zone B: ID " + p.Domain.ID + " already exists: domain App1 has it", second(s.CreateZone(ctx, tenant.Zone{Meta: tenant.Meta{ID: p.Domain.ID}, DomainID: p.Domain.ID, Name: "B"}))},
		{tenant.ErrConflict, "subnet web: 10.0.1.0/25 overlaps subnet db (10.0.1.0/24) in domain App1", createSubnet(subnet("10.0.1.0/25"))},
		{tenant.ErrConflict, "subnet web: 10.0.0.0/16 overlaps subnet db (10.0.1.0/24) in domain App1", createSubnet(subnet("10.0.0.0/16"))},
		{tenant.ErrInvalid, "subnet web: 10.0.2.1/24 has host bits set; its prefix is 10.0.2.0/24", createSubnet(subnet("10.0.2.1/24"))},
		{tenant.ErrInvalid, "subnet web: 10.0.2.0/31: a subnet is between /8 and /30", createSubnet(subnet("10.0.2.0/31"))},
		{tenant.ErrInvalid, "subnet web: 169.254.0.0/24 lies in 169.254.0.0/16, which tenants cannot use", createSubnet(subnet("169.254.0.0/24"))},
		{tenant.ErrInvalid, "subnet web: gateway: 10.0.2.255 is the broadcast address of 10.0.2.0/24",
			createSubnet(with(subnet("10.0.2.0/24"), func(n *tenant.Subnet) { n.Gateway = netip.MustParseAddr("10.0.2.255") }))},
		{tenant.ErrInvalid, "subnet web: VNI 16777216 is above 16777215",
			createSubnet(with(subnet("10.0.2.0/24"), func(n *tenant.Subnet) { n.VNI = 1 << 24 }))},
		{tenant.ErrConflict, "enterprise Acme: not empty: it has domain App1, domain App2", s.DeleteEnterprise(ctx, p.Enterprise.ID)},
		{tenant.ErrConflict, "domain App1: not empty: it has zone DockerZone", s.DeleteDomain(ctx, p.Domain.ID)},
		{tenant.ErrConflict, "zone DockerZone: not empty: it has subnet db", s.DeleteZone(ctx, p.Zone.ID)},
		{tenant.ErrConflict, "subnet db: in use by vport web", s.DeleteSubnet(ctx, p.Subnet.ID)},
		{tenant.ErrNotFound, "zone " + nobody + " not found", s.DeleteZone(ctx, nobody)},
		{tenant.ErrConflict, "subnet db: address 10.0.1.9 in use by vport web", bind(func(v *tenant.Vport) { v.IPv4 = netip.MustParseAddr("10.0.1.9") })},
		{tenant.ErrConflict, "subnet db: address 10.0.1.1 is the gateway", bind(func(v *tenant.Vport) { v.IPv4 = netip.MustParseAddr("10.0.1.1") })},
		{tenant.ErrInvalid, "subnet db: 10.0.2.1 is not in 10.0.1.0/24", bind(func(v *tenant.Vport) { v.IPv4 = netip.MustParseAddr("10.0.2.1") })},
		{tenant.ErrExists, "vport web: external ID vm-1@cms already exists: vport web has it", bind(func(v *tenant.Vport) { v.ExternalID = "vm-1@cms" })},
		{tenant.ErrNotFound, "vport web: subnet " + nobody + " not found", bind(func(v *tenant.Vport) { v.SubnetID = nobody })},
		{tenant.ErrInvalid, "vport web: no MAC address", bind(func(v *tenant.Vport) { v.MAC = tenant.MAC{} })},
		{tenant.ErrNotFound, "network n1: subnet " + nobody + " not found", s.PutNetwork(ctx, tenant.Network{Meta: tenant.Meta{ID: "n1"}, SubnetID: nobody})},
	} {
		if !errors.Is(c.err, c.class) || c.err.Error() != c.text {
			t.Errorf("want %v: %s\n got %v", c.class, c.text, c.err)
		}
	}
}

// A network is called as docker network ls calls it.
func TestSubnetOfANetwork(t *testing.T) {
	t.Parallel()
	s, _ := start(t, Config{Dir: t.TempDir(), Host: "node1"})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p := mustPath(t, s, spec("App1", "10.0.1.0/24"))
	id := strings.Repeat("0123456789abcdef", 4)
	for name, want := range map[string]string{"": "network 0123456789ab on host node1", "web": "network web on host node1"} {
		if err := s.PutNetwork(ctx, tenant.Network{Meta: tenant.Meta{ID: id}, Name: name, SubnetID: p.Subnet.ID}); err != nil {
			t.Fatal(err)
		}
		if err := s.DeleteSubnet(ctx, p.Subnet.ID); err == nil || !strings.HasSuffix(err.Error(), ": in use by "+want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestUpdate(t *testing.T) {
	t.Parallel()
	s, _ := start(t, Config{Dir: t.TempDir()})
	ctx := context10(t)
	p := mustPath(t, s, spec("App1", "10.0.1.0/24"))
	z := p.Zone
	z.Name, z.ExternalID = "Front", "z@cms"
	renamed, err := s.UpdateZone(ctx, z)
	if err != nil || renamed.Revision <= p.Zone.Revision || renamed.Created != p.Zone.Created {
		t.Fatalf("rename: %+v, %v", renamed, err)
	}
	if again, err := s.UpdateZone(ctx, renamed); err != nil || again != renamed {
		t.Errorf("the same again changes something: %+v, %v", again, err)
	}
	if _, err := s.UpdateZone(ctx, z); !errors.Is(err, tenant.ErrStale) {
		t.Errorf("an update of an old revision: %v", err)
	}
	// The old name and no other is free again.
	if _, err := s.CreateZone(ctx, tenant.Zone{DomainID: p.Domain.ID, Name: "Z"}); err != nil {
		t.Error(err)
	}
	if _, err := s.CreateZone(ctx, tenant.Zone{DomainID: p.Domain.ID, Name: "Front"}); !errors.Is(err, tenant.ErrExists) {
		t.Errorf("a taken name: %v", err)
	}
	moved := p.Subnet
	moved.ZoneID = "elsewhere"
	if _, err := s.UpdateSubnet(ctx, moved); !errors.Is(err, tenant.ErrInvalid) {
		t.Errorf("moving a subnet: %v", err)
	}
	sub := p.Subnet
	sub.CIDR, sub.Gateway = netip.MustParsePrefix("10.0.2.0/24"), netip.MustParseAddr("10.0.2.1")
	sub, err = s.UpdateSubnet(ctx, sub)
	if err != nil {
		t.Fatalf("changing the CIDR of an unused subnet: %v", err)
	}
	if _, err := s.BindVport(ctx, newVport(sub, "10.0.2.2")); err != nil {
		t.Fatal(err)
	}
	sub.Gateway = netip.MustParseAddr("10.0.2.3")
	if _, err := s.UpdateSubnet(ctx, sub); !errors.Is(err, tenant.ErrConflict) {
		t.Errorf("changing the gateway of a used subnet: %v", err)
	}
}

func TestDeletionFreesEverything(t *testing.T) {
	t.Parallel()
	s, _ := start(t, Config{Dir: t.TempDir()})
	ctx := context10(t)
	for range 2 {
		p := mustPath(t, s, tenant.PathSpec{Enterprise: "E", Domain: "D", Zone: "Z", Subnet: "a/b", Create: true, CIDR: netip.MustParsePrefix("10.0.1.0/24")})
		v := newVport(p.Subnet, "10.0.1.7")
		v.ExternalID = "x"
		if _, err := s.BindVport(ctx, v); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{s.DeleteVport(ctx, v.ID), s.DeleteVport(ctx, v.ID), s.DeleteSubnet(ctx, p.Subnet.ID),
			s.DeleteZone(ctx, p.Zone.ID), s.DeleteDomain(ctx, p.Domain.ID), s.DeleteEnterprise(ctx, p.Enterprise.ID)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		ses, err := s.acquire(ctx)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := ses.client.Get(ctx, "/nuage/", all()...)
		ses.release()
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range resp.Kvs {
			// The guard of an enterprise's or zone's children is written by none of them.
			t.Errorf("left behind: %s", kv.Key)
		}
	}
}

// TestConcurrentCreation lets many make the same and overlapping things at once: one of
// each wins, the others are told so, and all numbers are unique.
func TestConcurrentCreation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := start(t, Config{Dir: dir})
	far, _ := start(t, Config{Endpoints: []string{"unix://" + dir + "/etcd.sock"}})
	ctx := context10(t)
	const workers = 8
	var wg sync.WaitGroup
	paths := make([]tenant.Path, workers)
	made := make([]int, workers)
	for w := range workers {
		st := []*Store{s, far}[w%2]
		wg.Go(func() {
			var err error
			if paths[w], err = st.EnsurePath(ctx, spec("Shared", "10.1.0.0/16")); err != nil {
				t.Errorf("EnsurePath: %v", err)
				return
			}
			d, err := st.CreateDomain(ctx, tenant.Domain{EnterpriseID: paths[w].Enterprise.ID, Name: fmt.Sprint("Own ", w)})
			if err != nil {
				t.Errorf("CreateDomain: %v", err)
				return
			}
			if _, err := st.CreateZone(ctx, tenant.Zone{DomainID: d.ID, Name: "Z"}); err != nil {
				t.Errorf("CreateZone: %v", err)
			}
		})
	}
	wg.Wait()
	for w := range workers {
		st := []*Store{s, far}[w%2]
		wg.Go(func() {
			// Prefixes of different length that all overlap one another. Given VNIs keep the
			// choice of one from serialising the creations.
			for i := range 6 {
				_, err := st.CreateSubnet(ctx, tenant.Subnet{ZoneID: paths[w].Zone.ID, Name: fmt.Sprintf("s%d-%d", w, i), VNI: uint32(1000 + 10*w + i),
					CIDR: netip.PrefixFrom(netip.MustParseAddr("10.2.0.0"), 16+i)})
				switch {
				case err == nil:
					made[w]++
				case !errors.Is(err, tenant.ErrConflict) || !strings.Contains(err.Error(), "overlaps"):
					t.Errorf("CreateSubnet: %v", err)
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for w := range workers {
		total += made[w]
		if paths[w].Subnet.ID != paths[0].Subnet.ID {
			t.Errorf("EnsurePath made two subnets: %s and %s", paths[w].Subnet.ID, paths[0].Subnet.ID)
		}
	}
	if total != 1 {
		t.Errorf("%d overlapping subnets were made", total)
	}
	for _, store := range []*Store{s, far} {
		func(st *tenant.State) {
			if len(st.Enterprises) != 1 || len(st.Domains) != workers+1 || len(st.Subnets) != 2 {
				t.Errorf("%d enterprises, %d domains, %d subnets", len(st.Enterprises), len(st.Domains), len(st.Subnets))
			}
			vnis, numbers := map[uint32]bool{}, map[uint16]bool{}
			for _, d := range st.Domains {
				vnis[d.VNI], numbers[d.Number] = true, true
			}
			for _, n := range st.Subnets {
				vnis[n.VNI] = true
			}
			if len(vnis) != len(st.Domains)+len(st.Subnets) || len(numbers) != len(st.Domains) || vnis[0] || numbers[0] {
				t.Errorf("numbers are not unique: %v %v", vnis, numbers)
			}
		}(mustRead(t, store))
	}
}

// TestParentAndChild races the creation of a child with the deletion of its parent:
// exactly one of them happens.
func TestParentAndChild(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := start(t, Config{Dir: dir})
	far, _ := start(t, Config{Endpoints: []string{"unix://" + dir + "/etcd.sock"}})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for i := range 20 {
		p := mustPath(t, s, spec(fmt.Sprint("D", i), "10.0.1.0/24"))
		if err := far.catchUpNow(ctx); err != nil {
			t.Fatal(err)
		}
		race := []struct{ child, parent func() error }{
			{func() error { _, err := far.BindVport(ctx, newVport(p.Subnet, "10.0.1.7")); return err },
				func() error { return s.DeleteSubnet(ctx, p.Subnet.ID) }},
			{func() error {
				return far.PutNetwork(ctx, tenant.Network{Meta: tenant.Meta{ID: fmt.Sprint("n", i)}, SubnetID: p.Subnet.ID})
			}, func() error { return s.DeleteSubnet(ctx, p.Subnet.ID) }},
			{func() error {
				_, err := far.CreateSubnet(ctx, tenant.Subnet{ZoneID: p.Zone.ID, Name: "n", CIDR: netip.MustParsePrefix("10.0.2.0/24")})
				return err
			}, func() error { _ = s.DeleteSubnet(ctx, p.Subnet.ID); return s.DeleteZone(ctx, p.Zone.ID) }},
		}[i%3]
		var wg sync.WaitGroup
		var childErr, parentErr error
		wg.Go(func() { childErr = race.child() })
		wg.Go(func() { parentErr = race.parent() })
		wg.Wait()
		switch {
		case childErr == nil && errors.Is(parentErr, tenant.ErrConflict):
		case parentErr == nil && errors.Is(childErr, tenant.ErrNotFound):
		default:
			t.Errorf("round %d: child: %v; parent: %v", i, childErr, parentErr)
		}
	}
}

func TestNumberWraps(t *testing.T) {
	s := tenant.NewState()
	used := map[uint32]string{1: "a", 2: "b", 4: "c", 5: "d"}
	with := func() *txn {
		tx := newTxn()
		tx.used = map[string]map[uint32]string{classVNI: used}
		return tx
	}
	for _, c := range []struct{ hi, want uint32 }{{6, 6}, {5, 3}} {
		if n, err := with().number(classVNI, 0, 1, c.hi, s); n != c.want || err != nil {
			t.Errorf("below %d: %d, %v", c.hi, n, err)
		}
	}
	used[3] = "e"
	if _, err := with().number(classVNI, 0, 1, 5, s); !errors.Is(err, tenant.ErrExhausted) {
		t.Errorf("all in use: %v", err)
	}
	tx := with()
	a, _ := tx.number(classVNI, 0, 1, 9, s)
	if b, err := tx.number(classVNI, 0, 1, 9, s); err != nil || a == b {
		t.Errorf("one transaction took %d twice (%v)", a, err)
	}
}

// catchUpNow waits until the feed shows what any store has written so far of what this one
// follows.
func (s *Store) catchUpNow(ctx context.Context) error {
	return s.catchUpWith(ctx, append(s.Following().Domains, commonPart, networksPart)...)
}

func (s *Store) catchUpWith(ctx context.Context, parts ...string) (err error) {
	ses, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer ses.release()
	for _, name := range parts {
		if p := s.part(name); p != nil {
			err = errors.Join(err, s.catchUp(ctx, ses, p))
		}
	}
	return err
}

// What was decided by a subnet's address is not written when that has changed meanwhile.
func TestAddressOfAChangedSubnet(t *testing.T) {
	t.Parallel()
	s, _ := start(t, Config{Dir: t.TempDir()})
	ctx := context10(t)
	sub := mustPath(t, s, spec("App1", "10.0.1.0/24")).Subnet
	seen := mustRead(t, s)
	now := sub
	now.CIDR, now.Gateway = netip.MustParsePrefix("10.0.2.0/24"), netip.MustParseAddr("10.0.2.1")
	if _, err := s.UpdateSubnet(ctx, now); err != nil {
		t.Fatal(err)
	}
	v := newVport(sub, "10.0.1.2")
	plan := newTxn()
	if err := s.bind(seen, plan, seen.Subnets[sub.ID], &v); err != nil {
		t.Fatal(err)
	}
	ses, err := s.acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer ses.release()
	if resp, err := ses.client.Txn(ctx).If(plan.conditions...).Then(plan.operations...).Commit(); err != nil || resp.Succeeded {
		t.Errorf("a vport has an address that its subnet no longer has: %v", err)
	}
}
