package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nuage/controller/tenant"
)

// startFar runs a store of another host on the etcd of the store in dir.
func startFar(t testing.TB, dir string, c Config) (s *Store, stop func()) {
	t.Helper()
	c.Endpoints = []string{"unix://" + filepath.Join(dir, socketName)}
	return start(t, c)
}

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// sizes is how many objects of each kind the feed shows.
func sizes(s *Store) (n map[tenant.Kind]int) {
	n = map[tenant.Kind]int{}
	s.Feed().View(func(st *tenant.State) {
		for kind, size := range map[tenant.Kind]int{
			tenant.KindEnterprise: len(st.Enterprises), tenant.KindDomain: len(st.Domains), tenant.KindZone: len(st.Zones),
			tenant.KindSubnet: len(st.Subnets), tenant.KindVport: len(st.Vports), tenant.KindLease: len(st.Leases),
			tenant.KindNetwork: len(st.Networks), tenant.KindHost: len(st.Hosts),
			tenant.KindPolicyGroup: len(st.PolicyGroups), tenant.KindNetworkMacro: len(st.NetworkMacros), tenant.KindPolicy: len(st.Policies),
			tenant.KindEntry: len(st.Entries), tenant.KindRateLimiter: len(st.RateLimiters),
		} {
			if size > 0 {
				n[kind] = size
			}
		}
	})
	return n
}

// watchers is how many watches the etcd servers of this process keep, as etcd counts them.
func watchers(t testing.TB, dir string) (n int) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, socketName))
	}, DisableKeepAlives: true}}
	resp, err := client.Get("http://etcd/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "etcd_debugging_mvcc_watcher_total %d", &n); err == nil {
			return n
		}
	}
	t.Fatal("etcd does not count its watches")
	return 0
}

func TestFollow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := start(t, Config{Dir: dir, Host: "h1"})
	far, _ := startFar(t, dir, Config{Host: "h2"})
	ctx := context10(t)
	p := mustPath(t, far, spec("D", "10.0.1.0/24"))
	if _, err := far.CreateZone(ctx, tenant.Zone{DomainID: p.Domain.ID, Name: "other"}); err != nil {
		t.Fatal(err)
	}
	if got, want := sizes(far), map[tenant.Kind]int{tenant.KindEnterprise: 1}; !reflect.DeepEqual(got, want) {
		t.Errorf("before following: %v", got)
	}
	if err := far.Follow(ctx, "00000000-0000-4000-8000-000000000000"); !errors.Is(err, tenant.ErrNotFound) {
		t.Errorf("following what is not there: %v", err)
	}
	if f := far.Following(); len(f.Domains) != 0 || f.Watches != 2 {
		t.Errorf("before following: %+v", f)
	}
	errs := make(chan error)
	for range 10 {
		go func() { errs <- far.Follow(ctx, p.Domain.ID) }()
	}
	for range 10 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	want := map[tenant.Kind]int{tenant.KindEnterprise: 1, tenant.KindDomain: 1, tenant.KindZone: 2, tenant.KindSubnet: 1}
	if got := sizes(far); !reflect.DeepEqual(got, want) {
		t.Errorf("followed: %v", got)
	}
	until(t, "one more watch", func() bool { f := far.Following(); return len(f.Domains) == 1 && f.Watches == 3 })
	v := newVport(p.Subnet, "10.0.1.5")
	if _, err := s.BindVport(ctx, v); err != nil {
		t.Fatal(err)
	}
	until(t, "the vport of another host is shown", func() bool { n := sizes(far); return n[tenant.KindVport] == 1 && n[tenant.KindLease] == 1 })
	// What this store writes in a followed domain is shown when the write returns.
	sub, err := far.CreateSubnet(ctx, tenant.Subnet{ZoneID: p.Zone.ID, Name: "n", CIDR: netip.MustParsePrefix("10.0.2.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	far.Feed().View(func(st *tenant.State) {
		if st.Subnets[sub.ID] == nil {
			t.Error("a subnet that was made in a followed domain is not shown")
		}
	})
	// So is what it finds there that others wrote.
	for i := range 50 {
		sp := spec("D", fmt.Sprintf("10.0.%d.0/24", 3+i))
		mustPath(t, s, sp)
		found := mustPath(t, far, sp)
		far.Feed().View(func(st *tenant.State) {
			if st.Subnets[found.Subnet.ID] == nil {
				t.Errorf("subnet %d was found and is not shown", i)
			}
		})
	}
}

// TestLinger: a domain is followed while this host has a vport or an address in it and a
// while longer; then all of it goes, and what rests there is swept nevertheless.
func TestLinger(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const linger = 300 * time.Millisecond
	s, _ := start(t, Config{Dir: dir, Host: "h1"})
	far, _ := startFar(t, dir, Config{Host: "h2", Linger: linger, Rest: 2 * linger, Reservation: 3 * linger})
	ctx := context10(t)
	p := mustPath(t, s, spec("D", "10.0.1.0/24"))
	if _, err := s.BindVport(ctx, newVport(p.Subnet, "10.0.1.9")); err != nil {
		t.Fatal(err)
	}
	sub := far.Feed().Subscribe()
	defer sub.Close()
	for round := range 2 {
		l := reservation(p.Subnet, "10.0.1.5", tenant.RandomMAC())
		l.Host = "h2"
		if _, err := far.PutLease(ctx, l); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * linger)
		if len(far.Following().Domains) != 1 {
			t.Fatal("a domain in which this host has reserved an address is not followed")
		}
		v := newVport(p.Subnet, "10.0.1.5")
		v.Host, v.MAC = "h2", l.MAC
		if _, err := far.BindVport(ctx, v); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * linger)
		if len(far.Following().Domains) != 1 {
			t.Fatal("a domain in which this host has a vport is not followed")
		}
		if err := far.DeleteVport(ctx, v.ID); err != nil {
			t.Fatal(err)
		}
		shown := map[tenant.Key]bool{}
		far.Feed().View(func(st *tenant.State) {
			shown[tenant.Key{Kind: tenant.KindDomain, ID: p.Domain.ID}] = true
			for id := range st.Vports {
				shown[tenant.Key{Kind: tenant.KindVport, ID: id}] = true
			}
			for id := range st.Leases {
				shown[tenant.Key{Kind: tenant.KindLease, ID: id}] = true
			}
		})
		if len(shown) != 4 {
			t.Fatalf("shown: %v", shown)
		}
		sub.Take()
		began := time.Now()
		until(t, "the domain is left", func() bool { return len(far.Following().Domains) == 0 })
		if took := time.Since(began); took < linger*9/10 || took > 4*linger {
			t.Errorf("left after %s", took)
		}
		for _, k := range sub.Take() {
			delete(shown, k)
		}
		if len(shown) > 0 {
			t.Errorf("round %d: left without word of %v", round, shown)
		}
		if got := sizes(far); !reflect.DeepEqual(got, map[tenant.Kind]int{tenant.KindEnterprise: 1}) {
			t.Errorf("after leaving: %v", got)
		}
		until(t, "the watch has ended", func() bool { return far.Following().Watches == 2 })
		until(t, "the address is free", func() bool { return len(mustRead(t, s).Leases) == 1 })
	}
}

// TestElsewhereCostsNothing: 500 domains of another host are no watch, no object and no
// publication here, and what happens in them neither.
func TestElsewhereCostsNothing(t *testing.T) {
	const domains = 100
	dir := t.TempDir()
	elsewhere, _ := start(t, Config{Dir: dir, Host: "h1"})
	before := watchers(t, dir) - 2
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var paths []tenant.Path
	for i := range domains {
		p := mustPath(t, elsewhere, spec(fmt.Sprint("D", i), "10.0.1.0/24"))
		if _, err := elsewhere.BindVport(ctx, newVport(p.Subnet, "10.0.1.5")); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, p)
	}
	until(t, "the other host watches its domains", func() bool { return watchers(t, dir)-before == domains+2 })
	far, _ := startFar(t, dir, Config{Host: "h2"})
	own := mustPath(t, far, spec("Own", "10.0.1.0/24"))
	mustFollow(t, far, own.Domain.ID)
	until(t, "three more watches", func() bool { return watchers(t, dir)-before == domains+2+3 })
	if f := far.Following(); f.Watches != 3 || len(f.Domains) != 1 {
		t.Errorf("%+v", f)
	}
	want := map[tenant.Kind]int{tenant.KindEnterprise: 1, tenant.KindDomain: 1, tenant.KindZone: 1, tenant.KindSubnet: 1}
	if got := sizes(far); !reflect.DeepEqual(got, want) {
		t.Errorf("the feed shows %v", got)
	}
	sub := far.Feed().Subscribe()
	defer sub.Close()
	sub.Take()
	_, moved := far.Feed().Revision()
	for i, p := range paths {
		if _, err := elsewhere.BindVport(ctx, newVport(p.Subnet, "10.0.1.6")); err != nil {
			t.Fatal(err)
		}
		if i%10 == 0 {
			p.Zone.Name = "renamed"
			if _, err := elsewhere.UpdateZone(ctx, p.Zone); err != nil {
				t.Fatal(err)
			}
		}
	}
	time.Sleep(200 * time.Millisecond)
	select {
	case <-moved:
		t.Error("what happens elsewhere is published here")
	default:
	}
	if keys := sub.Take(); len(keys) > 0 {
		t.Errorf("%d objects elsewhere are told here", len(keys))
	}
	if n := len(mustRead(t, far).Vports); n != 2*domains {
		t.Errorf("%d vports are read", n)
	}
}

// TestCompacted: a watch that has fallen behind what etcd remembers is replaced; what
// vanished meanwhile is published as removed, and what comes then is followed.
func TestCompacted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := start(t, Config{Dir: dir, Host: "h1"})
	far, _ := startFar(t, dir, Config{Host: "h2"})
	ctx := context10(t)
	path := mustPath(t, s, spec("D", "10.0.0.0/24"))
	ses, err := far.acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer ses.release()
	if _, err := ses.client.Compact(ctx, path.Subnet.Revision); err != nil {
		t.Fatal(err)
	}
	p := newDomain(path.Domain.ID)
	ghost := &tenant.Vport{Meta: tenant.Meta{ID: "ghost"}, DomainID: path.Domain.ID, SubnetID: path.Subnet.ID}
	other := &tenant.Vport{Meta: tenant.Meta{ID: "other"}, DomainID: "elsewhere"}
	for _, v := range []*tenant.Vport{ghost, other} {
		far.feed.Publish(0, tenant.Change{Key: tenant.Key{Kind: tenant.KindVport, ID: v.ID}, Value: v})
	}
	sub := far.feed.Subscribe()
	defer sub.Close()
	sub.Take()
	old := ses.client.Watch(watchContext(ctx, p), p.from, clientv3.WithRange(p.to), clientv3.WithRev(1))
	go far.keep(ctx, ses, p, old)
	until(t, "the domain is listed", func() bool { return sizes(far)[tenant.KindSubnet] == 1 })
	told := map[string]bool{}
	for _, k := range sub.Take() {
		told[k.ID] = true
	}
	if !told["ghost"] || told["other"] || sizes(far)[tenant.KindVport] != 1 {
		t.Errorf("told of %v; the feed shows %v", told, sizes(far))
	}
	if _, err := s.BindVport(ctx, newVport(path.Subnet, "10.0.0.5")); err != nil {
		t.Fatal(err)
	}
	until(t, "a new vport is shown", func() bool { return sizes(far)[tenant.KindVport] == 2 })
}

// TestRecall: a store that starts shows what this host is in from its first publication
// on, whether it finds that in its directory or, without one, by its networks.
func TestRecall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := start(t, Config{Dir: dir, Host: "h1"})
	ctx := context10(t)
	for name, lost := range map[string]bool{"the same directory": false, "a new directory": true} {
		t.Run(name, func(t *testing.T) {
			c := Config{Dir: t.TempDir(), Host: "h2"}
			far, stop := startFar(t, dir, c)
			p := mustPath(t, s, spec(name, "10.0.1.0/24"))
			v := newVport(p.Subnet, "10.0.1.5")
			v.Host = "h2"
			if _, err := far.BindVport(ctx, v); err != nil {
				t.Fatal(err)
			}
			if lost {
				c.Dir = t.TempDir()
				if err := far.PutNetwork(ctx, tenant.Network{Meta: tenant.Meta{ID: "n"}, SubnetID: p.Subnet.ID}); err != nil {
					t.Fatal(err)
				}
			}
			stop()
			c.Endpoints, c.Log = []string{"unix://" + filepath.Join(dir, socketName)}, quietLog()
			again := New(c)
			_, moved := again.Feed().Revision()
			go again.Run(t.Context())
			<-moved
			again.Feed().View(func(st *tenant.State) {
				if st.Revision == 0 || st.Vports[v.ID] == nil || st.Subnets[p.Subnet.ID] == nil {
					t.Errorf("the first publication lacks the vport: %+v", st)
				}
			})
			waitReady(t, again)
		})
	}
}
