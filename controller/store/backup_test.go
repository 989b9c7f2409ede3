package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nuage/controller/tenant"
)

// backedUpDump is all that backups have, without revisions.
func backedUpDump(t testing.TB, s *Store) string {
	t.Helper()
	b, err := parseBackup(mustBackup(t, s))
	if err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	for _, p := range b.pairs {
		fmt.Fprintf(&lines, "%s %s\n", p.Key, p.Value)
	}
	return lines.String()
}

func mustBackup(t testing.TB, s *Store) []byte {
	t.Helper()
	text, err := s.Backup(contextMinute(t), "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func mustRestore(t testing.TB, s *Store, text []byte) Restored {
	t.Helper()
	done, err := s.Restore(contextMinute(t), text, false)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// furnish gives a store something of every kind.
func furnish(t *testing.T, s *Store) ward {
	t.Helper()
	ctx := context10(t)
	w := newWard(t, s, "D")
	rule := w.entry(10, side(tenant.SidePolicyGroup, w.web.ID), side(tenant.SideZone, w.p.Zone.ID))
	if _, err := s.CreateEntry(ctx, rule); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateRateLimiter(ctx, w.limiter(tenant.KindSubnet, w.p.Subnet.ID, tenant.Ingress)); err != nil {
		t.Fatal(err)
	}
	v := newVport(w.p.Subnet, "10.0.1.5")
	v.Host, v.ExternalID, v.PolicyGroups = "h1", "vm", []string{w.web.Name}
	if _, err := s.BindVport(ctx, v); err != nil {
		t.Fatal(err)
	}
	if _, err := s.BindVport(ctx, failed("h1")); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(s.PutHost(ctx, record("h1", "192.0.2.1")), s.Heartbeat(ctx, tenant.HostStatus{Version: "now"}),
		s.PutNetwork(ctx, tenant.Network{Meta: tenant.Meta{ID: "n1"}, SubnetID: w.p.Subnet.ID}))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestRestore: whatever came after a backup, the state is then what it was, in the store, in
// the feed, and after a restart.
func TestRestore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, stop := start(t, Config{Dir: dir, Host: "h1", Linger: time.Hour})
	far, farEnds := startFar(t, dir, Config{Host: "h2", Linger: time.Hour})
	ctx := contextMinute(t)
	w := furnish(t, s)
	mustFollow(t, far, w.p.Domain.ID)
	backup, before := mustBackup(t, s), backedUpDump(t, s)

	for i := range 20 {
		v := newVport(w.p.Subnet, fmt.Sprint("10.0.1.", 20+i))
		v.Host = "h2"
		if _, err := far.BindVport(ctx, v); err != nil {
			t.Fatal(err)
		}
	}
	for id, v := range mustRead(t, s).Vports {
		if v.Host == "h1" {
			if err := s.DeleteVport(ctx, id); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustPath(t, s, spec("Later", "10.0.1.0/24"))
	for id := range mustRead(t, s).Policies {
		if err := s.DeletePolicy(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(s.DeleteNetwork(ctx, "n1"), s.PutHost(ctx, record("h1", "192.0.2.7")), far.PutHost(ctx, record("h2", "192.0.2.1")))
	if err != nil {
		t.Fatal(err)
	}

	changed := backedUpDump(t, s)
	would, err := s.Restore(ctx, backup, true)
	if err != nil || would.Put[tenant.KindVport] != 2 || would.Removed[tenant.KindVport] != 20 || would.Removed[tenant.KindHost] != 1 || would.Revision != 0 {
		t.Errorf("a dry run: %+v, %v", would, err)
	}
	if backedUpDump(t, s) != changed {
		t.Error("a dry run has changed something")
	}
	for range 2 { // the second time there is nothing to do
		done := mustRestore(t, s, backup)
		if after := backedUpDump(t, s); after != before {
			t.Fatalf("restored:\n%s\ninstead of\n%s", after, before)
		}
		if !strings.Contains(dump(t, s), aliveKey("h1")) || mustRead(t, s).HostStatus["h1"].Version != "now" {
			t.Error("the sign of life or the status is gone")
		}
		for name, s := range map[string]*Store{"here": s, "on another host": far} {
			if err := s.catchUpWith(ctx, commonPart, w.p.Domain.ID); err != nil {
				t.Fatal(err)
			}
			s.Feed().View(func(st *tenant.State) {
				vports := 0
				st.Children(tenant.Key{Kind: tenant.KindSubnet, ID: w.p.Subnet.ID}, tenant.KindVport, func(string) { vports++ })
				if st.Revision < done.Revision || vports != 1 || len(st.Entries) != 1 || st.Hosts["h1"].VTEP.String() != "192.0.2.1" || st.Hosts["h2"] != nil {
					t.Errorf("the feed %s shows revision %d, %d vports, %d entries, hosts %v", name, st.Revision, vports, len(st.Entries), st.Hosts)
				}
			})
		}
	}
	// Who was planned on what was before is planned anew; names and numbers are free again.
	if _, err := far.BindVport(ctx, newVport(w.p.Subnet, "10.0.1.20")); err != nil {
		t.Error(err)
	}
	mustPath(t, s, spec("Later", "10.0.1.0/24"))
	mustRestore(t, s, backup)

	farEnds()
	stop()
	s, _ = start(t, Config{Dir: dir, Host: "h1"})
	if after := backedUpDump(t, s); after != before {
		t.Errorf("after a restart:\n%s\ninstead of\n%s", after, before)
	}
}

// TestRestoreRefuses: what is not a whole backup of this format changes nothing.
func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	s, _ := start(t, Config{Dir: t.TempDir(), Host: "h1"})
	furnish(t, s)
	good := mustBackup(t, s)
	before := dump(t, s)
	lines := bytes.SplitAfter(good, []byte("\n"))
	join := func(lines ...[]byte) []byte { return bytes.Join(lines, nil) }
	resealed := func(text []byte) []byte {
		end, _ := json.Marshal(backupEnd{digest(text)})
		return append(bytes.Clone(text), append(end, '\n')...)
	}
	pair := func(key string) []byte {
		line, _ := json.Marshal(backupPair{[]byte(key), []byte("x")})
		return append(line, '\n')
	}
	body := join(lines[:len(lines)-2]...)
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	more := bytes.Replace(lines[0], []byte(`"keys":`), []byte(`"keys":1`), 1)
	for name, c := range map[string]struct {
		text []byte
		want string
	}{
		"nothing":             {nil, "not a backup"},
		"a file of ours":      {[]byte("enterprise: E\n"), "not a backup"},
		"other JSON":          {[]byte("{}\n"), "not a backup"},
		"cut by a line":       {join(lines[:len(lines)-2]...), "damaged"},
		"cut in a line":       {good[:len(good)-10], "damaged"},
		"a head alone":        {lines[0], "damaged"},
		"one bit":             {flipped, "damaged"},
		"a line less":         {join(append([][]byte{lines[0]}, lines[2:]...)...), "damaged"},
		"two backups":         {append(bytes.Clone(good), good...), "damaged"},
		"a newer one":         {bytes.Replace(good, []byte(`"nuageBackup":1`), []byte(`"nuageBackup":2`), 1), "nuage 1.2.3 and has format 2; this version has format 1"},
		"a secret's key":      {resealed(join(lines[0], pair(tokenKey("x")))), "damaged"},
		"another's key":       {resealed(join(lines[0], pair("/etc/x"))), "damaged"},
		"a sign of life":      {resealed(join(lines[0], pair(aliveKey("h9")))), "damaged"},
		"keys out of order":   {resealed(join(lines[0], pair(hostKey("b")), pair(hostKey("a")))), "damaged"},
		"a wrong count":       {resealed(join(append([][]byte{more}, lines[1:len(lines)-2]...)...)), "damaged"},
		"a line of no JSON":   {resealed(append(bytes.Clone(body), "x\n"...)), "damaged"},
		"a bad authority":     {resealed(bytes.Replace(body, []byte(`"keys"`), []byte(`"authority":"x","keys"`), 1)), "authority cannot be read"},
		"the sum of no lines": {[]byte(`{"nuageBackup":1}`), "damaged"},
	} {
		if _, err := s.Restore(contextMinute(t), c.text, false); !errors.Is(err, tenant.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if dump(t, s) != before {
			t.Fatalf("%s has changed the state", name)
		}
	}
	if _, err := s.Restore(contextMinute(t), resealed(body), true); err != nil {
		t.Errorf("the same again: %v", err)
	}
}

// TestRestoreElsewhere: on a new machine, with an authority of its own, a backup brings the
// fleet back: hosts that have joined go on with their certificates, and the evicted stay out.
func TestRestoreElsewhere(t *testing.T) {
	t.Parallel()
	old := filepath.Join(t.TempDir(), "etcd")
	s, stop := servingRefused(t, Config{Dir: old, Listen: "127.0.0.1:0"})
	addr, _ := s.Serving()
	early := mustBackup(t, s)
	p := mustPath(t, s, spec("D", "10.0.1.0/24"))
	c, gone := join(t, s, "h1"), join(t, s, "h2")
	far, err := run(t, Config{Endpoints: c.Endpoints, TLS: c.TLS, Host: "h1", Linger: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx := contextMinute(t)
	if _, err := far.BindVport(ctx, newVport(p.Subnet, "10.0.1.5")); err != nil {
		t.Fatal(err)
	}
	if err := far.PutHost(ctx, record("h1", "192.0.2.1")); err != nil {
		t.Fatal(err)
	}
	withBoth := mustBackup(t, s)
	if err := s.EvictHost(ctx, "h2", false); err != nil {
		t.Fatal(err)
	}
	refused := func(why string) {
		t.Helper()
		if _, err := client(t, gone).Get(context10(t), root); err == nil || !strings.Contains(err.Error(), "withdrawn") {
			t.Errorf("the evicted host %s: %v", why, err)
		}
	}
	refused("after its eviction")
	mustRestore(t, s, withBoth)
	refused("after a backup of before was restored")
	backup, before := mustBackup(t, s), backedUpDump(t, s)
	for _, f := range []*Store{far} {
		for what, err := range map[string]error{"backup": second(f.Backup(ctx, "")), "restore": second(f.Restore(ctx, backup, false))} {
			if !errors.Is(err, tenant.ErrConflict) || !strings.Contains(err.Error(), "run `nuagectl "+what+"` there") {
				t.Errorf("%s on a joined host: %v", what, err)
			}
		}
	}
	stop()

	dir := filepath.Join(t.TempDir(), "etcd")
	fresh, stop := servingRefused(t, Config{Dir: dir, Listen: addr})
	if _, err := fresh.Restore(ctx, backup, true); err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, c).Get(context10(t), root); err == nil {
		t.Error("a dry run has replaced the authority")
	}
	mustRestore(t, fresh, backup)
	waitServing(t, fresh)
	if after := backedUpDump(t, fresh); after != before {
		t.Errorf("restored:\n%s\ninstead of\n%s", after, before)
	}
	waitReady(t, far)
	refused("on the new machine")
	if _, err := far.BindVport(ctx, newVport(p.Subnet, "10.0.1.6")); err != nil {
		t.Error(err)
	}
	if err := far.Heartbeat(ctx, tenant.HostStatus{}); err != nil {
		t.Error(err)
	}
	if at, now := feedRevision(far), mustRead(t, fresh).Revision; at > now {
		t.Errorf("the feed is at revision %d, of the store that was; the store is at %d", at, now)
	}
	join(t, fresh, "h3")

	// The authority is kept, with its mode, by the next process too.
	stop()
	fresh, _ = servingRefused(t, Config{Dir: dir, Listen: addr})
	waitReady(t, far)
	if st, err := os.Stat(fresh.authorityFile()); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	mustRestore(t, fresh, early) // of the same authority
	if _, err := client(t, c).Get(context10(t), root); err != nil {
		t.Errorf("a host that joined after the backup: %v", err)
	}

	// Another fleet, that hosts have joined, is not locked out.
	other, _ := serving(t, Config{})
	mustBackupOther := mustBackup(t, other)
	d := join(t, other, "h1")
	if _, err := other.Restore(ctx, backup, false); !errors.Is(err, tenant.ErrConflict) || !strings.Contains(err.Error(), "another fleet") {
		t.Errorf("a backup of another fleet: %v", err)
	}
	if _, err := client(t, d).Get(context10(t), root); err != nil {
		t.Error(err)
	}
	mustRestore(t, other, mustBackupOther)
}

// servingRefused is serving for a store that refuses somebody.
func servingRefused(t testing.TB, c Config) (s *Store, stop func()) {
	t.Helper()
	c.Host, c.Autocreate, c.Log = "serving", true, quietLog()
	s = New(c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.Run(ctx); close(done) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	waitReady(t, s)
	waitServing(t, s)
	return s, stop
}

func feedRevision(s *Store) int64 {
	r, _ := s.Feed().Revision()
	return r
}

// TestRestoreWhileOthersWrite: a restoration and the writes of others are one after the other:
// every vport has its lease and every lease its vport at all times.
func TestRestoreWhileOthersWrite(t *testing.T) {
	t.Parallel()
	s, _ := serving(t, Config{Autocreate: true, Rest: time.Hour})
	p := mustPath(t, s, spec("D", "10.0.0.0/16"))
	a, b := far(t, s, "h1"), far(t, s, "h2")
	ctx, cancel := context.WithCancel(contextMinute(t))
	for i := range 200 {
		if _, err := s.BindVport(ctx, newVport(p.Subnet, fmt.Sprintf("10.0.1.%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	backup := mustBackup(t, s)
	var writers sync.WaitGroup
	for n, f := range []*Store{a, b} {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				v := newVport(p.Subnet, fmt.Sprintf("10.0.%d.%d", 2+n, 2+i%200))
				v.Host = f.config.Host
				_, err := f.BindVport(ctx, v)
				if err == nil && i%3 == 0 {
					err = f.DeleteVport(ctx, v.ID)
				}
				if err != nil && !errors.Is(err, tenant.ErrConflict) && ctx.Err() == nil {
					t.Error(err)
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	for range 5 {
		mustRestore(t, s, backup)
		whole(t, mustRead(t, s), 200)
		time.Sleep(100 * time.Millisecond)
	}
	cancel()
	writers.Wait()
	whole(t, mustRead(t, s), 200)
	if err := a.catchUpWith(contextMinute(t), p.Domain.ID); err != nil {
		t.Fatal(err)
	}
	a.Feed().View(func(st *tenant.State) { whole(t, st, 200) })
}

// TestRestoreOvertaken: what others write between the look and the transaction is seen by the
// next look, and what they delete is there again.
func TestRestoreOvertaken(t *testing.T) {
	t.Parallel()
	s, _ := start(t, Config{Dir: t.TempDir(), Host: "h1"})
	w := furnish(t, s)
	ctx := contextMinute(t)
	before := backedUpDump(t, s)
	b, err := parseBackup(mustBackup(t, s))
	if err != nil {
		t.Fatal(err)
	}
	ses, err := s.acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer ses.release()
	now, revision, err := s.standing(ctx, ses)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.BindVport(ctx, newVport(w.p.Subnet, "10.0.1.9")); err != nil {
		t.Fatal(err)
	}
	between := backedUpDump(t, s)
	if at, err := s.replace(ctx, ses, &b, now, revision); err != nil || at != 0 || backedUpDump(t, s) != between {
		t.Errorf("a vport came in between: %d, %v", at, err)
	}
	if now, revision, err = s.standing(ctx, ses); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteNetwork(ctx, "n1"); err != nil {
		t.Fatal(err)
	}
	if at, err := s.replace(ctx, ses, &b, now, revision); err != nil || at == 0 || backedUpDump(t, s) != before {
		t.Errorf("a network went in between: %d, %v", at, err)
	}
}

// whole checks that addresses and vports belong together, and that there are some at least.
func whole(t *testing.T, st *tenant.State, least int) {
	t.Helper()
	if len(st.Vports) < least {
		t.Errorf("%d vports", len(st.Vports))
	}
	for id, v := range st.Vports {
		if l := st.Leases[tenant.LeaseID(v.SubnetID, v.IPv4.String())]; l == nil || l.VportID != id {
			t.Errorf("vport %s at %s: its lease is %+v", id, v.IPv4, l)
		}
	}
	for id, l := range st.Leases {
		if v := st.Vports[l.VportID]; l.VportID != "" && (v == nil || v.IPv4 != l.Address) {
			t.Errorf("lease %s: its vport is %+v", id, v)
		}
	}
}

// TestRestoredVportsAreSeen: a host that has long left a domain follows it again when a
// restoration gives it vports there, so that they can be removed.
func TestRestoredVportsAreSeen(t *testing.T) {
	t.Parallel()
	s, _ := serving(t, Config{Autocreate: true})
	p := mustPath(t, s, spec("D", "10.0.1.0/24"))
	c := join(t, s, "h1")
	f, _ := start(t, Config{Endpoints: c.Endpoints, TLS: c.TLS, Host: "h1", Linger: 10 * time.Millisecond})
	ctx := contextMinute(t)
	if err := f.PutHost(ctx, record("h1", "192.0.2.1")); err != nil {
		t.Fatal(err)
	}
	v := newVport(p.Subnet, "10.0.1.5")
	v.Host = "h1"
	if _, err := f.BindVport(ctx, v); err != nil {
		t.Fatal(err)
	}
	backup := mustBackup(t, s)
	if err := f.DeleteVport(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	until(t, "the domain is left", func() bool { return len(f.Following().Domains) == 0 })
	done := mustRestore(t, s, backup)
	if err := f.Heartbeat(ctx, tenant.HostStatus{}); err != nil || f.Restored() != done.Revision {
		t.Fatalf("told of revision %d instead of %d: %v", f.Restored(), done.Revision, err)
	}
	f.Feed().View(func(st *tenant.State) {
		if st.Vports[v.ID] == nil {
			t.Error("the host does not see the vport that it has again")
		}
	})
	if err := f.DeleteVport(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	until(t, "the domain is left", func() bool { return len(f.Following().Domains) == 0 })
	if err := f.Heartbeat(ctx, tenant.HostStatus{}); err != nil || len(f.Following().Domains) != 0 {
		t.Errorf("it looks again and again: %v, %v", f.Following(), err)
	}
}

// BenchmarkRestore is a backup and a restoration of 10,000 vports that another host follows.
func BenchmarkRestore(b *testing.B) {
	s, _ := serving(b, Config{Autocreate: true})
	p := mustPath(b, s, spec("D", "10.0.0.0/16"))
	fill(b, s, p.Subnet, 10_000)
	f := far(b, s, "h1")
	if err := f.Follow(contextMinute(b), p.Domain.ID); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		began := time.Now()
		text := mustBackup(b, s)
		backup := time.Since(began)
		began = time.Now()
		done := mustRestore(b, s, text)
		restore := time.Since(began)
		for feedRevision(f) < done.Revision {
			time.Sleep(time.Millisecond)
		}
		b.ReportMetric(float64(len(text))/1e6, "MB")
		b.ReportMetric(float64(backup.Milliseconds()), "ms-backup")
		b.ReportMetric(float64(restore.Milliseconds()), "ms-restore")
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms-elsewhere")
		b.ReportMetric(resident(b), "MB-resident")
	}
}

// TestRestoreOldBackup: what an earlier version has written is still read. With NUAGE_GOLDEN=1
// the file is written anew, which only another format is a reason for.
func TestRestoreOldBackup(t *testing.T) {
	t.Parallel()
	file := fmt.Sprintf("testdata/backup.%d", backupFormat)
	s, _ := start(t, Config{Dir: t.TempDir(), Host: "h1"})
	if os.Getenv("NUAGE_GOLDEN") == "1" {
		furnish(t, s)
		if err := os.WriteFile(file, mustBackup(t, s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	mustRestore(t, s, text)
	st := mustRead(t, s)
	complete := len(st.Domains) == 1 && len(st.Subnets) == 1 && len(st.Entries) == 1 && len(st.RateLimiters) == 1 && len(st.Vports) == 2 && len(st.Leases) == 1 && len(st.Networks) == 1
	if !complete || st.Hosts["h1"].VTEP.String() != "192.0.2.1" {
		t.Errorf("%+v", st)
	}
	for _, d := range st.Domains {
		if err := s.DeleteDomain(contextMinute(t), d.ID); !errors.Is(err, tenant.ErrConflict) {
			t.Errorf("deleting a domain that is in use: %v", err)
		}
	}
}
