package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	grpcstatus "google.golang.org/grpc/status"

	"nuage/controller/tenant"
)

// dump is all that is in etcd.
func dump(t testing.TB, s *Store) string {
	t.Helper()
	ses, err := s.acquire(context10(t))
	if err != nil {
		t.Fatal(err)
	}
	defer ses.release()
	resp, err := ses.client.Get(context10(t), "/", clientv3.WithFromKey())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, kv := range resp.Kvs {
		fmt.Fprintf(&b, "%s %d %s\n", kv.Key, kv.ModRevision, kv.Value)
	}
	return b.String()
}

func text(t testing.TB, v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// estate is what two hosts have in one domain.
type estate struct {
	t        testing.TB
	s        *Store
	victim   *Store
	own      *Store           // the attacker's
	cl       *clientv3.Client // the attacker's, h2
	p, other tenant.Path
	theirs   tenant.Vport // h1's, on 10.0.1.5
	mine     tenant.Vport // h2's, on 10.0.1.7
	shared   tenant.Path  // a subnet made for a network of h1
}

func newEstate(t testing.TB, autocreate bool) *estate {
	s, _ := runServing(t, Config{Autocreate: autocreate})
	e := &estate{t: t, s: s}
	ctx := context10(t)
	e.p = mustPath(t, s, spec("D", "10.0.1.0/24"))
	e.other = mustPath(t, s, spec("E", "10.0.1.0/24"))
	sp := spec("D", "10.0.2.0/24")
	sp.DockerOwned = true
	e.shared = mustPath(t, s, sp)
	e.victim = far(t, s, "h1")
	creds := join(t, s, "h2")
	own, _ := start(t, Config{Endpoints: creds.Endpoints, TLS: creds.TLS, Host: "h2"})
	e.cl, e.own = client(t, creds), own
	for _, h := range []struct {
		s  *Store
		v  *tenant.Vport
		ip string
	}{{e.victim, &e.theirs, "10.0.1.5"}, {own, &e.mine, "10.0.1.7"}} {
		v := newVport(e.p.Subnet, h.ip)
		v.Host, v.ExternalID = h.s.config.Host, "ext-"+h.s.config.Host
		bound, err := h.s.BindVport(ctx, v)
		if err != nil {
			t.Fatal(err)
		}
		*h.v = bound
	}
	n := tenant.Network{Meta: tenant.Meta{ID: "n1"}, SubnetID: e.shared.Subnet.ID, Host: "h1"}
	if err := e.victim.PutNetwork(ctx, n); err != nil {
		t.Fatal(err)
	}
	if err := e.victim.PutHost(ctx, tenant.Host{Meta: tenant.Meta{ID: "h1"}, Name: "h1", VTEP: netip.MustParseAddr("192.0.2.1")}); err != nil {
		t.Fatal(err)
	}
	newToken(t, s)
	return e
}

// vportPuts are the operations of a new vport of h2 with its lease.
func (e *estate) vportPuts(v tenant.Vport, l tenant.Lease) []clientv3.Op {
	v.DomainID, v.ZoneID = e.p.Domain.ID, e.p.Zone.ID
	ops := []clientv3.Op{
		clientv3.OpPut(vportKey(v.DomainID, v.ID), text(e.t, v)),
		clientv3.OpPut(idKey(v.ID), vportKey(v.DomainID, v.ID)),
		clientv3.OpPut(guardKey(v.SubnetID), ""),
	}
	if v.ExternalID != "" {
		ops = append(ops, clientv3.OpPut(externalKey(tenant.KindVport, v.ExternalID), v.ID))
	}
	if l.Address.IsValid() {
		ops = append(ops, clientv3.OpPut(leaseKey(&l), text(e.t, l)))
	}
	return ops
}

func (e *estate) vport(ip string) (tenant.Vport, tenant.Lease) {
	v := newVport(e.p.Subnet, ip)
	v.Host, v.Created = "h2", time.Now()
	return v, tenant.Lease{DomainID: e.p.Domain.ID, SubnetID: e.p.Subnet.ID, Address: v.IPv4, State: tenant.LeaseBound,
		Use: tenant.UseEndpoint, MAC: v.MAC, Host: "h2", VportID: v.ID}
}

// with is a new vport of h2 that f has changed.
func (e *estate) with(ip string, f func(*tenant.Vport, *tenant.Lease)) []clientv3.Op {
	v, l := e.vport(ip)
	f(&v, &l)
	return e.vportPuts(v, l)
}

// TestHostWritesOnlyItsOwn lets a host with a valid certificate try what is not its own.
// Each attempt is refused, and nothing in etcd changes.
func TestHostWritesOnlyItsOwn(t *testing.T) {
	t.Parallel()
	e := newEstate(t, true)
	put, del := clientv3.OpPut, clientv3.OpDelete
	ops := func(o ...clientv3.Op) []clientv3.Op { return o }
	d, sub := e.p.Domain.ID, e.p.Subnet.ID
	theirKey, mineKey := vportKey(d, e.theirs.ID), vportKey(d, e.mine.ID)
	theirLease := leaseKey(&tenant.Lease{DomainID: d, SubnetID: sub, Address: e.theirs.IPv4})
	mineLease := leaseKey(&tenant.Lease{DomainID: d, SubnetID: sub, Address: e.mine.IPv4})
	changed := func(v tenant.Vport, f func(*tenant.Vport)) string { f(&v); return text(t, v) }
	goes := func(v tenant.Vport) []clientv3.Op {
		return ops(del(vportKey(d, v.ID)), del(idKey(v.ID)), del(guardKey(v.ID)), del(externalKey(tenant.KindVport, v.ExternalID)))
	}
	freed, _ := json.Marshal(tenant.Lease{DomainID: d, SubnetID: sub, Address: e.mine.IPv4, State: tenant.LeaseResting, Use: tenant.UseEndpoint, Host: "h2"})
	domain := e.p.Domain
	domain.Name = "Renamed"
	zone := tenant.Zone{Meta: tenant.Meta{ID: uuid.NewString()}, DomainID: d, Name: "New", Number: 9}
	zoneOps := func(z tenant.Zone) []clientv3.Op {
		return ops(put(zoneKey(z.DomainID, z.ID), text(t, z)), put(idKey(z.ID), zoneKey(z.DomainID, z.ID)), put(nameKey(tenant.KindZone, z.DomainID, z.Name), z.ID),
			put(numberKey(classIn(classZone, z.DomainID), uint32(z.Number)), z.ID))
	}
	subnet := func(f func(*tenant.Subnet)) []clientv3.Op {
		n := tenant.Subnet{Meta: tenant.Meta{ID: uuid.NewString()}, DomainID: d, ZoneID: e.p.Zone.ID, Name: "new",
			CIDR: netip.MustParsePrefix("10.0.9.0/24"), Gateway: netip.MustParseAddr("10.0.9.1"), VNI: 900}
		f(&n)
		return ops(put(subnetKey(n.DomainID, n.ID), text(t, n)), put(idKey(n.ID), subnetKey(n.DomainID, n.ID)), put(nameKey(tenant.KindSubnet, n.ZoneID, n.Name), n.ID),
			put(numberKey(classVNI, n.VNI), n.ID), put(guardKey(n.DomainID), ""))
	}
	release := func(n tenant.Subnet) []clientv3.Op {
		return ops(del(subnetKey(n.DomainID, n.ID)), del(idKey(n.ID)), del(guardKey(n.ID)), del(nameKey(tenant.KindSubnet, n.ZoneID, n.Name)),
			del(numberKey(classVNI, n.VNI)), del(leasePrefix(n.DomainID, n.ID), clientv3.WithPrefix()))
	}
	theirLeaseID := clientv3.LeaseID(aliveLease(t, e.s, "h1"))
	before := dump(t, e.s)
	for name, try := range map[string][]clientv3.Op{
		"another's host record":              ops(put(hostKey("h1"), text(t, tenant.Host{Meta: tenant.Meta{ID: "h1"}, Name: "h1"}))),
		"own record in another's name":       ops(put(hostKey("h2"), text(t, tenant.Host{Meta: tenant.Meta{ID: "h2"}, Name: "h1"}))),
		"another's status":                   ops(put(statusKey("h1"), "{}")),
		"another's sign of life":             ops(put(aliveKey("h1"), "{}")),
		"ending another's life":              ops(del(aliveKey("h1"))),
		"deleting another's record":          ops(del(hostKey("h1"))),
		"another's network":                  ops(put(networkKey("h1", "n2"), text(t, tenant.Network{Meta: tenant.Meta{ID: "n2"}, Host: "h1", DomainID: d, ZoneID: e.p.Zone.ID, SubnetID: sub})), put(guardKey(sub), "")),
		"deleting another's network":         ops(del(networkKey("h1", "n1"))),
		"own network in another's name":      ops(put(networkKey("h2", "n2"), text(t, tenant.Network{Meta: tenant.Meta{ID: "n2"}, Host: "h1", DomainID: d, ZoneID: e.p.Zone.ID, SubnetID: sub})), put(guardKey(sub), "")),
		"a network unseen by its subnet":     ops(put(networkKey("h2", "n2"), text(t, tenant.Network{Meta: tenant.Meta{ID: "n2"}, Host: "h2", DomainID: d, ZoneID: e.p.Zone.ID, SubnetID: sub}))),
		"changing another's vport":           ops(put(theirKey, changed(e.theirs, func(v *tenant.Vport) { v.PolicyGroups = []string{"admin"} }))),
		"taking another's vport":             ops(put(theirKey, changed(e.theirs, func(v *tenant.Vport) { v.Host = "h2" }))),
		"deleting another's vport":           goes(e.theirs),
		"deleting all vports":                ops(del(domainPrefix(d)+"vports/", clientv3.WithPrefix())),
		"deleting everything":                ops(del(root, clientv3.WithPrefix())),
		"deleting from a key on":             ops(del(root, clientv3.WithFromKey())),
		"another's lease":                    ops(put(theirLease, text(t, tenant.Lease{DomainID: d, SubnetID: sub, Address: e.theirs.IPv4, State: tenant.LeaseBound, Use: tenant.UseEndpoint, Host: "h2"}))),
		"deleting another's lease":           ops(del(theirLease)),
		"a lease in another's name":          ops(put(leaseKey(&tenant.Lease{DomainID: d, SubnetID: sub, Address: netip.MustParseAddr("10.0.1.9")}), text(t, tenant.Lease{DomainID: d, SubnetID: sub, Address: netip.MustParseAddr("10.0.1.9"), State: tenant.LeaseReserved, Use: tenant.UseEndpoint, Host: "h1"})), put(guardKey(sub), "")),
		"a lease of another key":             ops(put(leaseKey(&tenant.Lease{DomainID: d, SubnetID: sub, Address: netip.MustParseAddr("10.0.1.9")}), text(t, tenant.Lease{DomainID: d, SubnetID: sub, Address: netip.MustParseAddr("10.0.1.10"), State: tenant.LeaseReserved, Use: tenant.UseEndpoint, Host: "h2"})), put(guardKey(sub), "")),
		"a vport on another's address":       e.with("10.0.1.5", func(*tenant.Vport, *tenant.Lease) {}),
		"a vport older than it is":           e.with("10.0.1.9", func(v *tenant.Vport, _ *tenant.Lease) { v.Created = time.Unix(0, 0) }),
		"a vport without a lease":            e.with("10.0.1.9", func(_ *tenant.Vport, l *tenant.Lease) { *l = tenant.Lease{} }),
		"a vport on another's lease":         e.with("10.0.1.5", func(_ *tenant.Vport, l *tenant.Lease) { *l = tenant.Lease{} }),
		"a vport in another's name":          e.with("10.0.1.9", func(v *tenant.Vport, l *tenant.Lease) { v.Host, l.Host = "h1", "h1" }),
		"a vport of nobody":                  e.with("10.0.1.9", func(v *tenant.Vport, _ *tenant.Lease) { v.Host = "" }),
		"a lease for another's vport":        e.with("10.0.1.9", func(_ *tenant.Vport, l *tenant.Lease) { l.VportID = e.theirs.ID }),
		"a lease for another MAC":            e.with("10.0.1.9", func(_ *tenant.Vport, l *tenant.Lease) { l.MAC = tenant.RandomMAC() }),
		"the gateway's address":              e.with("10.0.1.1", func(*tenant.Vport, *tenant.Lease) {}),
		"an address outside":                 e.with("10.0.3.9", func(*tenant.Vport, *tenant.Lease) {}),
		"a vport in no subnet":               e.with("10.0.1.9", func(v *tenant.Vport, l *tenant.Lease) { v.SubnetID = uuid.NewString(); l.SubnetID = v.SubnetID }),
		"a vport in another domain's subnet": e.with("10.0.1.9", func(v *tenant.Vport, l *tenant.Lease) { v.SubnetID, l.SubnetID = e.other.Subnet.ID, e.other.Subnet.ID }),
		"another's external ID":              e.with("10.0.1.9", func(v *tenant.Vport, _ *tenant.Lease) { v.ExternalID = "ext-h1" }),
		"another's ID":                       e.with("10.0.1.9", func(v *tenant.Vport, l *tenant.Lease) { v.ID = e.p.Domain.ID; l.VportID = v.ID }),
		"a vport without its ID's index":     slices.Delete(e.with("10.0.1.9", func(*tenant.Vport, *tenant.Lease) {}), 1, 2),
		"a vport unseen by its subnet":       slices.Delete(e.with("10.0.1.9", func(*tenant.Vport, *tenant.Lease) {}), 2, 3),
		"another address for the own vport":  ops(put(mineKey, changed(e.mine, func(v *tenant.Vport) { v.IPv4 = netip.MustParseAddr("10.0.1.5") }))),
		"another MAC for the own vport":      ops(put(mineKey, changed(e.mine, func(v *tenant.Vport) { v.MAC = e.theirs.MAC }))),
		"giving the own vport away":          ops(put(mineKey, changed(e.mine, func(v *tenant.Vport) { v.Host = "h1" }))),
		"taking the own vport's address":     ops(del(mineLease)),
		"resting the own vport's address":    ops(put(mineLease, string(freed))),
		"leaving the own vport's index":      goes(e.mine)[:1],
		"an index of nothing":                ops(put(idKey(uuid.NewString()), "x")),
		"a guard of nothing":                 ops(put(guardKey(sub), "")),
		"another's name":                     ops(put(nameKey(tenant.KindDomain, e.p.Enterprise.ID, "D"), e.other.Domain.ID)),
		"deleting an index":                  ops(del(nameKey(tenant.KindDomain, e.p.Enterprise.ID, "D"))),
		"deleting the index":                 ops(del(index, clientv3.WithPrefix())),
		"changing a domain":                  ops(put(domainKey(d), text(t, domain))),
		"deleting a domain":                  ops(del(domainKey(d)), del(idKey(d)), del(guardKey(d)), del(nameKey(tenant.KindDomain, e.p.Enterprise.ID, "D"))),
		"deleting a subnet":                  release(e.p.Subnet),
		"deleting another's subnet in use":   release(e.shared.Subnet),
		"a zone without its name's index":    slices.Delete(zoneOps(zone), 2, 3),
		"a zone without its number's index":  zoneOps(zone)[:3],
		"a zone without a number":            zoneOps(func() tenant.Zone { z := zone; z.Number = 0; return z }()),
		"a zone of a taken number":           zoneOps(func() tenant.Zone { z := zone; z.Number = e.p.Zone.Number; return z }()),
		"a zone of a taken name":             zoneOps(func() tenant.Zone { z := zone; z.Name = e.p.Zone.Name; return z }()),
		"a zone in no domain":                zoneOps(func() tenant.Zone { z := zone; z.DomainID = uuid.NewString(); return z }()),
		"a zone of a bad name":               zoneOps(func() tenant.Zone { z := zone; z.Name = "a\x1b[2Jb"; return z }()),
		"an overlapping subnet": subnet(func(n *tenant.Subnet) {
			n.CIDR = netip.MustParsePrefix("10.0.0.0/16")
			n.Gateway = netip.MustParseAddr("10.0.0.1")
		}),
		"a subnet of a taken VNI":     subnet(func(n *tenant.Subnet) { n.VNI = e.p.Subnet.VNI }),
		"a subnet without a VNI":      subnet(func(n *tenant.Subnet) { n.VNI = 0 }),
		"a token":                     ops(put(tokenKey("x"), "{}")),
		"the own generation":          ops(put(generationKey("h2"), "0")),
		"deleting the tokens":         ops(del(secrets, clientv3.WithPrefix())),
		"a key of nobody":             ops(put("/nuage/v1/other/x", "x")),
		"a key elsewhere":             ops(put("/etc/x", "x")),
		"a value that cannot be read": ops(put(mineKey, "{")),
		"a huge value":                ops(put(statusKey("h2"), strings.Repeat("x", maxValue+1))),
		"another's etcd lease":        ops(put(aliveKey("h2"), "{}", clientv3.WithLease(theirLeaseID))),
		"reading tokens":              ops(clientv3.OpGet(secrets, clientv3.WithPrefix())),
		"reading all":                 ops(clientv3.OpGet("/", clientv3.WithFromKey())),
		"reading above":               ops(clientv3.OpGet("/nuage/", clientv3.WithPrefix())),
		"reading on":                  ops(clientv3.OpGet(root, clientv3.WithFromKey())),
		"a nested write":              ops(clientv3.OpTxn(nil, ops(put(hostKey("h1"), "{}")), nil)),
		"a write nested in else":      ops(clientv3.OpTxn(nil, nil, ops(put(hostKey("h2"), "{}")))),
		"a nested look at tokens":     ops(clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(secrets).WithPrefix(), ">", 0)}, nil, nil)),
	} {
		resp, err := e.cl.Txn(context10(t)).Then(try...).Commit()
		if grpcstatus.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v, %v", name, resp, err)
		}
		if after := dump(t, e.s); after != before {
			t.Fatalf("%s changed:\n%s\nto\n%s", name, before, after)
		}
	}
	for name, try := range map[string]func(context.Context) error{
		"put of another":       func(ctx context.Context) error { _, err := e.cl.Put(ctx, hostKey("h1"), "{}"); return err },
		"put of a vport":       func(ctx context.Context) error { _, err := e.cl.Put(ctx, mineKey, text(t, e.mine)); return err },
		"delete of another":    func(ctx context.Context) error { _, err := e.cl.Delete(ctx, theirKey); return err },
		"get of tokens":        func(ctx context.Context) error { _, err := e.cl.Get(ctx, secrets, clientv3.WithPrefix()); return err },
		"compaction":           func(ctx context.Context) error { _, err := e.cl.Compact(ctx, 1); return err },
		"revoking another's":   func(ctx context.Context) error { _, err := e.cl.Revoke(ctx, theirLeaseID); return err },
		"asking for another's": func(ctx context.Context) error { _, err := e.cl.TimeToLive(ctx, theirLeaseID); return err },
		"listing leases":       func(ctx context.Context) error { _, err := e.cl.Leases(ctx); return err },
		"raising an alarm": func(ctx context.Context) error {
			_, err := pb.NewMaintenanceClient(e.cl.ActiveConnection()).Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE})
			return err
		},
		"write when not": func(ctx context.Context) error {
			_, err := e.cl.Txn(ctx).If(never).Else(put(hostKey("h2"), "{}")).Commit()
			return err
		},
		"compare of a secret": func(ctx context.Context) error {
			_, err := e.cl.Txn(ctx).If(clientv3.Compare(clientv3.Value(generationKey("h1")), "=", "1")).Commit()
			return err
		},
		"watch of tokens": func(ctx context.Context) error {
			w := <-e.cl.Watch(ctx, secrets, clientv3.WithPrefix())
			return w.Err()
		},
		"watch of all": func(ctx context.Context) error {
			w := <-e.cl.Watch(ctx, "/", clientv3.WithFromKey())
			return w.Err()
		},
		"a lease of a chosen ID": func(ctx context.Context) error {
			_, err := pb.NewLeaseClient(e.cl.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60, ID: 7})
			return err
		},
		"operations without content": func(ctx context.Context) error {
			_, err := pb.NewKVClient(e.cl.ActiveConnection()).Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{}}})
			return err
		},
		"too many operations": func(ctx context.Context) error {
			_, err := e.cl.Txn(ctx).Then(slices.Repeat(ops(clientv3.OpGet(root)), maxOps+1)...).Commit()
			return err
		},
		"a transaction nested without end": func(ctx context.Context) error {
			op := clientv3.OpGet(root)
			for range 100 {
				op = clientv3.OpTxn(nil, ops(op), nil)
			}
			_, err := e.cl.Txn(ctx).Then(op).Commit()
			return err
		},
		"a stream of a range": func(ctx context.Context) error {
			st, err := pb.NewKVClient(e.cl.ActiveConnection()).RangeStream(ctx, &pb.RangeRequest{Key: []byte(root)})
			if err == nil {
				_, err = st.Recv()
			}
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if err := try(ctx); grpcstatus.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		if after := dump(t, e.s); after != before {
			t.Fatalf("%s changed:\n%s\nto\n%s", name, before, after)
		}
	}
	// The same without what was wrong with it is taken.
	for name, try := range map[string][]clientv3.Op{
		"a vport":            e.with("10.0.1.9", func(*tenant.Vport, *tenant.Lease) {}),
		"a zone":             zoneOps(zone),
		"a subnet":           subnet(func(*tenant.Subnet) {}),
		"the own vport gone": append(goes(e.mine), put(mineLease, string(freed))),
		"the own status":     ops(put(statusKey("h2"), "{}")),
	} {
		if resp, err := e.cl.Txn(context10(t)).Then(try...).Commit(); err != nil || !resp.Succeeded {
			t.Errorf("%s: %v, %v", name, resp, err)
		}
	}
	if ttl, err := e.cl.KeepAliveOnce(context10(t), theirLeaseID); err == nil {
		t.Errorf("another's lease was kept alive: %v", ttl)
	}
	for name, try := range map[string]func(context.Context) error{
		"members":  func(ctx context.Context) error { _, err := e.cl.MemberList(ctx); return err },
		"snapshot": func(ctx context.Context) error { r, err := e.cl.Snapshot(ctx); return readErr(r, err) },
		"status": func(ctx context.Context) error {
			_, err := pb.NewMaintenanceClient(e.cl.ActiveConnection()).Status(ctx, &pb.StatusRequest{})
			return err
		},
		"users": func(ctx context.Context) error { _, err := e.cl.UserList(ctx); return err },
		"auth":  func(ctx context.Context) error { _, err := e.cl.AuthEnable(ctx); return err },
		"health": func(ctx context.Context) error {
			_, err := healthpb.NewHealthClient(e.cl.ActiveConnection()).Check(ctx, &healthpb.HealthCheckRequest{})
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if code := grpcstatus.Code(try(ctx)); code != codes.Unimplemented && code != codes.PermissionDenied {
			t.Errorf("%s: %v", name, code)
		}
		cancel()
	}
}

func readErr(r io.ReadCloser, err error) error {
	if err == nil {
		defer r.Close()
		_, err = io.ReadAll(r)
	}
	return err
}

// aliveLease is the lease of a host's sign of life.
func aliveLease(t testing.TB, s *Store, host string) int64 {
	t.Helper()
	ses, err := s.acquire(context10(t))
	if err != nil {
		t.Fatal(err)
	}
	defer ses.release()
	resp, err := ses.client.Get(context10(t), aliveKey(host))
	if err != nil || len(resp.Kvs) == 0 || resp.Kvs[0].Lease == 0 {
		t.Fatalf("host %s has no sign of life: %v, %v", host, resp, err)
	}
	return resp.Kvs[0].Lease
}

// TestFirstByTheStore: of two vports with one MAC the one that the store had first is first,
// also where the other's host has a clock that is behind, or says so.
func TestFirstByTheStore(t *testing.T) {
	t.Parallel()
	e := newEstate(t, true)
	v, l := e.vport("10.0.1.9")
	v.MAC, l.MAC, v.Created = e.theirs.MAC, e.theirs.MAC, e.theirs.Created.Add(-clockSkew+time.Minute)
	resp, err := e.cl.Txn(context10(t)).Then(e.vportPuts(v, l)...).Commit()
	if err != nil || !resp.Succeeded {
		t.Fatalf("%v, %v", resp, err)
	}
	first := func(st *tenant.State) {
		t.Helper()
		theirs, late := st.Vports[e.theirs.ID], st.Vports[v.ID]
		if theirs == nil || late == nil || theirs.Compare(&late.Meta) >= 0 || theirs.Committed != e.theirs.Committed || late.Committed != resp.Header.Revision {
			t.Errorf("%+v is not before %+v", theirs, late)
		}
	}
	first(mustRead(t, e.s))
	if err := e.victim.catchUpWith(context10(t), e.p.Domain.ID); err != nil {
		t.Fatal(err)
	}
	e.victim.Feed().View(first)
	// A change makes nothing younger.
	changed, err := e.victim.UpdateVport(context10(t), change(e.theirs, func(v *tenant.Vport) { v.Name = "renamed" }))
	if err != nil || changed.Committed != e.theirs.Committed {
		t.Errorf("%+v, %v", changed, err)
	}
	first(mustRead(t, e.s))
}

var never = clientv3.Compare(clientv3.CreateRevision(root), ">", 0)

func TestReadable(t *testing.T) {
	for _, c := range []struct {
		key, end string
		ok       bool
	}{
		{root, "", true}, {root + "x", "", true}, {root, prefixEnd(root), true}, {index, prefixEnd(index), true}, {root + "a", root + "b", true},
		{"", "", false}, {"/", "", false}, {root, "\x00", false}, {root, index, false}, {root, prefixEnd(root) + "x", false},
		{secrets, "", false}, {"/nuage/", prefixEnd(root), false}, {index, prefixEnd(secrets), false}, {root + "b", root + "a", false},
	} {
		var end []byte
		if c.end != "" {
			end = []byte(c.end)
		}
		if err := readable([]byte(c.key), end); (err == nil) != c.ok {
			t.Errorf("from %q to %q: %v", c.key, c.end, err)
		}
	}
	if readable([]byte(root), []byte{}) == nil {
		t.Error("an end that is there but empty is taken")
	}
}

// TestAutocreateOff: without it a host makes nothing that belongs to no host.
func TestAutocreateOff(t *testing.T) {
	t.Parallel()
	s, log := runServing(t, Config{})
	p := mustPath(t, s, spec("D", "10.0.1.0/24"))
	h1 := far(t, s, "h1")
	for _, sp := range []tenant.PathSpec{spec("E", "10.0.1.0/24"), spec("D", "10.0.2.0/24")} {
		if _, err := h1.EnsurePath(context10(t), sp); !errors.Is(err, tenant.ErrDenied) || !strings.Contains(err.Error(), "NUAGE_AUTOCREATE") {
			t.Errorf("making %s: %v", sp.CIDR, err)
		}
	}
	if !log.has("NUAGE_AUTOCREATE") || !log.has("h1") {
		t.Errorf("logged: %q", log.lines)
	}
	if found, err := h1.EnsurePath(context10(t), spec("D", "10.0.1.0/24")); err != nil || found != p {
		t.Errorf("finding what is there: %+v, %v", found, err)
	}
	if _, err := h1.BindVport(context10(t), newVport(p.Subnet, "10.0.1.5")); err != nil {
		t.Error(err)
	}
}
