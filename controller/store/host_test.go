package store

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuage/controller/tenant"
)

func quietLog() logrus.FieldLogger { log, _ := test.NewNullLogger(); return log }

func record(name, vtep string) tenant.Host {
	return tenant.Host{Meta: tenant.Meta{ID: name}, Name: name, VTEP: netip.MustParseAddr(vtep), Version: "1", MTU: 1500}
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := start(t, Config{Dir: dir, Host: "h1"})
	far, stop := startFar(t, dir, Config{Dir: t.TempDir(), Host: "h2", Alive: 2 * time.Second})
	ctx := context10(t)
	if err := far.Heartbeat(ctx, tenant.HostStatus{}); !errors.Is(err, tenant.ErrNotFound) {
		t.Errorf("a heartbeat of a host that is not registered: %v", err)
	}
	if err := far.PutHost(ctx, record("h2", "192.0.2.2")); err != nil {
		t.Fatal(err)
	}
	p := mustPath(t, far, spec("D", "10.0.1.0/24"))
	mustFollow(t, far, p.Domain.ID)
	beat := func() tenant.HostStatus {
		t.Helper()
		if err := far.Heartbeat(ctx, tenant.HostStatus{Version: "1", Programmed: 7}); err != nil {
			t.Fatal(err)
		}
		return *mustRead(t, s).HostStatus["h2"]
	}
	got := beat()
	if !got.Alive || got.Host != "h2" || got.Version != "1" || got.Programmed != 7 || !slices.Equal(got.Domains, []string{p.Domain.ID}) || time.Since(got.Seen) > 5*time.Second {
		t.Errorf("%+v", got)
	}
	until(t, "the host that is silent is dead", func() bool { return !mustRead(t, s).HostStatus["h2"].Alive })
	if dead := mustRead(t, s).HostStatus["h2"]; dead.Seen != got.Seen {
		t.Errorf("dead since %s, last seen %s", dead.Seen, got.Seen)
	}
	if got := beat(); !got.Alive {
		t.Error("a host that was silent does not become alive again")
	}
	s.Feed().View(func(st *tenant.State) {
		if h := st.Hosts["h2"]; h == nil || h.MTU != 1500 || len(st.HostStatus) != 0 {
			t.Errorf("the feed shows %+v and %d hosts' status", h, len(st.HostStatus))
		}
	})
	stop()
	if mustRead(t, s).HostStatus["h2"].Alive {
		t.Error("a host whose plugin has ended in order is alive")
	}
}

// TestOneNameTwoHosts: the name of a living host is not taken over, but by the same host's
// next process.
func TestOneNameTwoHosts(t *testing.T) {
	t.Parallel()
	dir, own := t.TempDir(), t.TempDir()
	s, _ := start(t, Config{Dir: dir, Host: "h1"})
	first, stop := startFar(t, dir, Config{Dir: own, Host: "h2", Alive: 2 * time.Second})
	second, _ := startFar(t, dir, Config{Dir: t.TempDir(), Host: "h2", Alive: 2 * time.Second})
	successor, _ := startFar(t, dir, Config{Dir: own, Host: "h2", Alive: 2 * time.Second})
	ctx := context10(t)
	if err := first.PutHost(ctx, record("h2", "192.0.2.2")); err != nil {
		t.Fatal(err)
	}
	for who, err := range map[string]error{
		"another host":       second.PutHost(ctx, record("h2", "192.0.2.3")),
		"another host again": second.PutHost(ctx, record("h2", "192.0.2.2")),
		"another's record":   s.PutHost(ctx, record("h2", "192.0.2.2")),
	} {
		const want = "host h2: another host of this name is alive at 192.0.2.2: every host needs a name of its own"
		if !errors.Is(err, tenant.ErrConflict) || err.Error() != want {
			t.Errorf("%s: %v", who, err)
		}
	}
	if err := successor.PutHost(ctx, record("h2", "192.0.2.4")); err != nil {
		t.Errorf("the same host after a crash: %v", err)
	}
	if err := successor.PutHost(ctx, record("h2", "192.0.2.4")); err != nil {
		t.Errorf("the same again: %v", err)
	}
	stop()
	if err := successor.Heartbeat(ctx, tenant.HostStatus{}); err != nil {
		t.Errorf("after the end of its predecessor: %v", err)
	}
	until(t, "the name is free", func() bool { return second.PutHost(ctx, record("h2", "192.0.2.3")) == nil })
	if err := successor.Heartbeat(ctx, tenant.HostStatus{}); !errors.Is(err, tenant.ErrConflict) {
		t.Errorf("a heartbeat of a host that has lost its name: %v", err)
	}
}

func TestEvict(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := start(t, Config{Dir: dir, Host: "h1"})
	far, _ := startFar(t, dir, Config{Dir: t.TempDir(), Host: "h2", Alive: 2 * time.Second})
	ctx := context10(t)
	before := keys(t, s)
	if err := s.EvictHost(ctx, "nobody", false); err != nil {
		t.Errorf("a host that is not there: %v", err)
	}
	kept, owned := mustPath(t, s, spec("D", "10.0.1.0/24")).Subnet, spec("D", "10.0.2.0/24")
	owned.DockerOwned = true
	gone := mustPath(t, s, owned).Subnet
	if err := far.PutHost(ctx, record("h2", "192.0.2.2")); err != nil {
		t.Fatal(err)
	}
	shared := netip.MustParseAddr("10.0.1.250")
	for i, sub := range []tenant.Subnet{kept, gone} {
		if err := far.PutNetwork(ctx, tenant.Network{Meta: tenant.Meta{ID: fmt.Sprint("n", i)}, SubnetID: sub.ID, Auxiliary: []netip.Addr{shared}}); err != nil {
			t.Fatal(err)
		}
	}
	// A swarm's network has the same ID on every host, and is each host's own.
	err := s.PutNetwork(ctx, tenant.Network{Meta: tenant.Meta{ID: "n0"}, SubnetID: kept.ID, Auxiliary: []netip.Addr{shared}})
	if err := errors.Join(err, s.DeleteNetwork(ctx, "n1")); err != nil || len(mustRead(t, s).Networks) != 3 {
		t.Fatalf("networks are %v, %v", mustRead(t, s).Networks, err)
	}
	mine := newVport(kept, "10.0.1.200")
	if _, err := s.BindVport(ctx, mine); err != nil {
		t.Fatal(err)
	}
	theirs := func(l tenant.Lease) tenant.Lease { l.Host = "h2"; return l }
	aux := theirs(reservation(kept, shared.String(), tenant.MAC{}))
	aux.State, aux.Use = tenant.LeaseBound, tenant.UseAuxiliary
	var vports []tenant.Vport
	for i := range 3*evictBatch + 5 {
		v := newVport([]tenant.Subnet{kept, gone}[i%2], fmt.Sprintf("10.0.%d.%d", 1+i%2, 2+i))
		v.Host = "h2"
		if i%7 == 0 {
			v.ExternalID = fmt.Sprint("vm", i)
		}
		if _, err := far.BindVport(ctx, v); err != nil {
			t.Fatal(err)
		}
		vports = append(vports, v)
	}
	for _, l := range []tenant.Lease{aux, theirs(reservation(kept, "10.0.1.240", tenant.RandomMAC()))} {
		if _, err := far.PutLease(ctx, l); err != nil {
			t.Fatal(err)
		}
	}
	if err := far.Heartbeat(ctx, tenant.HostStatus{}); err != nil {
		t.Fatal(err)
	}
	if err := s.EvictHost(ctx, "h2", false); !errors.Is(err, tenant.ErrConflict) || !strings.Contains(err.Error(), "host h2 is alive") {
		t.Errorf("evicting the living: %v", err)
	}
	until(t, "it is dead", func() bool { return !alive(t, s, "h2") })
	for range 2 {
		if err := s.EvictHost(ctx, "h2", false); err != nil {
			t.Fatal(err)
		}
	}
	st := mustRead(t, s)
	if len(st.Vports) != 1 || len(st.Networks) != 1 || st.Hosts["h2"] != nil || st.HostStatus["h2"] != nil || st.Subnets[gone.ID] != nil {
		t.Errorf("after the eviction: %d vports, %d networks, %v, %v, %v", len(st.Vports), len(st.Networks), st.Hosts["h2"], st.HostStatus["h2"], st.Subnets[gone.ID])
	}
	for id, l := range st.Leases {
		switch {
		case l.VportID == mine.ID, l.State == tenant.LeaseResting:
		case l.Address == shared && l.Host == "h1":
		default:
			t.Errorf("lease %s is left: %+v", id, l)
		}
	}
	// It comes back: it registers by itself, and binds anew what it has.
	if err := far.Heartbeat(ctx, tenant.HostStatus{}); err != nil {
		t.Fatal(err)
	}
	for _, v := range vports {
		if v.SubnetID == kept.ID {
			if _, err := far.BindVport(ctx, v); err != nil {
				t.Errorf("a vport of a host that has come back: %v", err)
			}
		}
	}
	if !alive(t, s, "h2") || mustRead(t, s).Hosts["h2"] == nil {
		t.Error("a host that has come back is not registered")
	}
	if err := s.EvictHost(ctx, "h2", true); err != nil {
		t.Fatalf("by force: %v", err)
	}
	for _, err := range []error{s.DeleteNetwork(ctx, "n0"), s.DeleteVport(ctx, mine.ID), s.DeleteLease(ctx, *mustRead(t, s).Leases[tenant.LeaseID(kept.ID, shared.String())]),
		s.DeleteSubnet(ctx, kept.ID), s.DeleteZone(ctx, kept.ZoneID), s.DeleteDomain(ctx, kept.DomainID)} {
		if err != nil {
			t.Error(err)
		}
	}
	for id := range mustRead(t, s).Enterprises {
		if err := s.DeleteEnterprise(ctx, id); err != nil {
			t.Error(err)
		}
	}
	if after := keys(t, s); !slices.Equal(before, after) {
		t.Errorf("left behind: %v", after)
	}
}

func alive(t *testing.T, s *Store, host string) bool {
	status := mustRead(t, s).HostStatus[host]
	return status != nil && status.Alive
}

// keys are all keys of etcd.
func keys(t *testing.T, s *Store) (keys []string) {
	t.Helper()
	ses, err := s.acquire(context10(t))
	if err != nil {
		t.Fatal(err)
	}
	defer ses.release()
	resp, err := ses.client.Get(context10(t), "/nuage/", all()...)
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

// TestJoinedHost: what a host says of itself and follows is what the serving host allows.
func TestJoinedHost(t *testing.T) {
	t.Parallel()
	s, _ := serving(t, Config{Autocreate: true, Rest: 200 * time.Millisecond})
	h2 := far(t, s, "h2")
	ctx := context10(t)
	if err := h2.PutHost(ctx, record("h2", "192.0.2.2")); err != nil {
		t.Fatal(err)
	}
	p := mustPath(t, h2, spec("D", "10.0.1.0/24"))
	v := newVport(p.Subnet, "10.0.1.5")
	v.Host = "h2"
	if _, err := h2.BindVport(ctx, v); err != nil {
		t.Fatal(err)
	}
	if err := h2.PutNetwork(ctx, tenant.Network{Meta: tenant.Meta{ID: "n"}, SubnetID: p.Subnet.ID}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := h2.Heartbeat(ctx, tenant.HostStatus{}); err != nil {
			t.Fatal(err)
		}
	}
	if !alive(t, h2, "h2") {
		t.Error("the host is not alive")
	}
	if err := h2.DeleteVport(ctx, v.ID); err != nil {
		t.Error(err)
	}
	until(t, "the address is free", func() bool { return len(mustRead(t, h2).Leases) == 0 })
}

// TestOneVTEPOneHost: no two hosts have one underlay address, whoever writes and however
// many at once; a host that is evicted has none.
func TestOneVTEPOneHost(t *testing.T) {
	t.Parallel()
	s, _ := runServing(t, Config{Autocreate: true})
	c := join(t, s, "h2")
	h2, err := run(t, Config{Endpoints: c.Endpoints, TLS: c.TLS, Host: "h2"}) // which is evicted, and says so
	if err != nil {
		t.Fatal(err)
	}
	h3 := far(t, s, "h3")
	ctx := context10(t)
	for _, err := range []error{s.PutHost(ctx, record("serving", "192.0.2.1")), h2.PutHost(ctx, record("h2", "192.0.2.2")), h3.PutHost(ctx, record("h3", "192.0.2.3")),
		s.PutHost(ctx, tenant.Host{Meta: tenant.Meta{ID: "blind"}, Name: "blind"}), s.PutHost(ctx, tenant.Host{Meta: tenant.Meta{ID: "new"}, Name: "new"})} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, try := range map[string]error{
		"h3: VTEP 192.0.2.2 is host h2's":           h3.PutHost(ctx, record("h3", "192.0.2.2")),
		"h3: VTEP 192.0.2.1 is host serving's":      h3.PutHost(ctx, record("h3", "192.0.2.1")),
		"h3: VTEP ::ffff:192.0.2.2 is host h2's":    h3.PutHost(ctx, record("h3", "::ffff:192.0.2.2")),
		"serving: VTEP 192.0.2.3 is host h3's":      s.PutHost(ctx, record("serving", "192.0.2.3")),
		"new: VTEP 192.0.2.3 is host h3's":          s.PutHost(ctx, record("new", "192.0.2.3")),
		"another: VTEP 192.0.2.1 is host serving's": s.PutHost(ctx, record("another", "192.0.2.1")),
		"h2: VTEP 192.0.2.1 is host serving's":      h2.PutHost(ctx, record("h2", "192.0.2.1")),
	} {
		if !errors.Is(try, tenant.ErrConflict) || !strings.Contains(try.Error(), "host "+name) {
			t.Errorf("want %q, got %v", name, try)
		}
	}
	st := mustRead(t, s)
	if st.Hosts["h3"].VTEP != record("", "192.0.2.3").VTEP || st.Hosts["another"] != nil {
		t.Errorf("a refused record was written: %+v, %+v", st.Hosts["h3"], st.Hosts["another"])
	}
	// The serving host looks itself, whatever a host does.
	write := func(cl *clientv3.Client, name, vtep string) (bool, error) {
		resp, err := cl.Txn(ctx).Then(clientv3.OpPut(hostKey(name), text(t, record(name, vtep)))).Commit()
		return err == nil && resp.Succeeded, err
	}
	cl := client(t, join(t, s, "h4"))
	if ok, err := write(cl, "h4", "192.0.2.2"); ok || err == nil || !strings.Contains(err.Error(), "VTEP 192.0.2.2 is host h2's") {
		t.Errorf("h4 writes another's VTEP: %v", err)
	}
	if ok, err := write(cl, "h4", "192.0.2.4"); !ok {
		t.Errorf("h4 writes its own: %v", err)
	}
	if err := s.EvictHost(ctx, "h2", true); err != nil {
		t.Fatal(err)
	}
	if err := h3.PutHost(ctx, record("h3", "192.0.2.2")); err != nil {
		t.Errorf("the VTEP of a host that was evicted: %v", err)
	}

	var cls []*clientv3.Client
	for i := range 6 {
		cls = append(cls, client(t, join(t, s, fmt.Sprint("bare", i))))
	}
	for round := range 10 {
		vtep := fmt.Sprint("192.0.2.", 100+round)
		var winners atomic.Int32
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i, cl := range cls {
			wg.Go(func() {
				<-start
				if err := s.PutHost(ctx, record(fmt.Sprint("racer", i), vtep)); err == nil {
					winners.Add(1)
				} else if !errors.Is(err, tenant.ErrConflict) {
					t.Error(err)
				}
			})
			wg.Go(func() {
				<-start
				ok, err := write(cl, fmt.Sprint("bare", i), vtep)
				for !ok && err == nil { // somebody was faster
					ok, err = write(cl, fmt.Sprint("bare", i), vtep)
				}
				if ok {
					winners.Add(1)
				}
			})
		}
		close(start)
		wg.Wait()
		if winners.Load() != 1 {
			t.Errorf("%d hosts have got VTEP %s", winners.Load(), vtep)
		}
	}
}
