package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/sirupsen/logrus"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuage/controller/tenant"
)

// restoreRoom and restoreBytes are how much one transaction may be that this process makes
// on the embedded etcd: a restoration is one. Other hosts' are bounded at the gate.
const (
	restoreRoom  = 1 << 20
	restoreBytes = MaxBackup
)

// MaxBackup is how large a backup can be; 10,000 vports are some 15 MB.
const MaxBackup = 128 << 20

// Restored is what a restoration has done, or would do.
type Restored struct {
	Created time.Time // when, where, by what version and at what revision the backup was made
	Host    string
	Version string
	From    int64
	// Revision is that of the state now; 0 if nothing was done.
	Revision int64
	// Put are the objects that are as in the backup now, Removed are those that came later.
	Put, Removed map[tenant.Kind]int
}

// Restore makes the state what it was when a backup was made, in one transaction: whoever
// follows a part of it sees all of that or nothing, and what others write meanwhile comes
// before or after. What came since is gone: hosts put back what they still have and what is
// still free, as after an eviction. A host that was evicted since is there again, but stays
// locked out. Where the hosts' authority is another than that of the backup, as on a new
// machine, it is replaced, unless hosts have joined by it: tenant.ErrConflict. A backup that
// is damaged, or of another format, is tenant.ErrInvalid. A dry run only tells. It may be
// repeated.
func (s *Store) Restore(ctx context.Context, text []byte, dryRun bool) (Restored, error) {
	if err := s.keeps("restore"); err != nil {
		return Restored{}, err
	}
	b, err := parseBackup(text)
	if err != nil {
		return Restored{}, err
	}
	for range maxAttempts {
		done, again, err := s.restore(ctx, &b, dryRun)
		if err != nil {
			return Restored{}, fmt.Errorf("restore: %w", err)
		}
		if !again {
			return done, nil
		}
	}
	return Restored{}, tenant.Errorf(tenant.ErrUnavailable, "restore: %d times others wrote meanwhile: try again when less is going on", maxAttempts)
}

func (s *Store) restore(ctx context.Context, b *backup, dryRun bool) (done Restored, again bool, err error) {
	ses, err := s.acquire(ctx)
	if err != nil {
		return done, false, err
	}
	defer ses.release()
	ctx, cancel := ses.bound(ctx)
	defer cancel()
	now, revision, err := s.standing(ctx, ses)
	if err != nil {
		return done, false, err
	}
	renew, err := s.otherAuthority(b, now)
	if err != nil || dryRun {
		return b.report(now), false, err
	}
	// The authority first: after a crash in between, the same again is still allowed.
	if renew {
		if err := s.takeAuthority(b); err != nil {
			return done, false, err
		}
	}
	at, err := s.replace(ctx, ses, b, now, revision)
	if err != nil || at == 0 {
		return done, true, err
	}
	s.log.WithFields(logrus.Fields{"revision": at, "backup": b.Created, "host": b.Host}).Info("the state was restored from a backup")
	done = b.report(now)
	done.Revision = at
	return done, false, s.awaitFollowed(ctx, ses, at)
}

// replace puts the backup in the place of what there was at a revision; 0 if there is more
// by now.
func (s *Store) replace(ctx context.Context, ses *session, b *backup, now map[string][]byte, revision int64) (int64, error) {
	operations, err := b.over(now)
	if err != nil {
		return 0, err
	}
	operations = append(operations, clientv3.OpPut(restoredKey, b.Created.Format(time.RFC3339)))
	var conditions []clientv3.Cmp
	for _, prefix := range backedUp {
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(prefix), "<", revision+1).WithPrefix())
	}
	resp, err := ses.client.Txn(ctx).If(conditions...).Then(operations...).Commit()
	if err != nil {
		return 0, s.unavailable(err)
	}
	if !resp.Succeeded {
		return 0, nil
	}
	return resp.Header.Revision, nil
}

// standing are the keys that there are now of what backups have, with the values of the
// generations alone.
func (s *Store) standing(ctx context.Context, ses *session) (now map[string][]byte, revision int64, err error) {
	now = map[string][]byte{}
	for _, prefix := range backedUp {
		opts := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithRev(revision)}
		if prefix != generationKey("") {
			opts = append(opts, clientv3.WithKeysOnly())
		}
		resp, err := ses.client.Get(ctx, prefix, opts...)
		if err != nil {
			return nil, 0, s.unavailable(err)
		}
		if revision == 0 {
			revision = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			now[string(kv.Key)] = kv.Value
		}
	}
	return now, revision, nil
}

// over are the operations that put the backup in the place of what there is now. Everything
// is put, also what is there already: it may go until the transaction commits, and what
// others have planned on the state of before has to fail.
func (b *backup) over(now map[string][]byte) (operations []clientv3.Op, err error) {
	kept := map[string]bool{}
	for _, p := range b.pairs {
		key, value := string(p.Key), p.Value
		if backedUpBy(key) == generationKey("") {
			if value, err = later(value, now[key]); err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
		}
		kept[key] = true
		operations = append(operations, clientv3.OpPut(key, string(value)))
	}
	for _, key := range slices.Sorted(maps.Keys(now)) {
		if !kept[key] && backedUpBy(key) != generationKey("") {
			operations = append(operations, clientv3.OpDelete(key))
		}
	}
	return operations, nil
}

// later is the higher of a host's generations: what was withdrawn stays so.
func later(then, now []byte) ([]byte, error) {
	var a, b uint64
	err := json.Unmarshal(then, &a)
	if err == nil && now != nil {
		err = json.Unmarshal(now, &b)
	}
	if b > a {
		then = now
	}
	return then, err
}

func (b *backup) report(now map[string][]byte) Restored {
	done := Restored{Created: b.Created, Host: b.Host, Version: b.Version, From: b.Revision, Put: map[tenant.Kind]int{}, Removed: map[tenant.Kind]int{}}
	kept := map[string]bool{}
	for _, p := range b.pairs {
		kept[string(p.Key)] = true
		if k, ok := parseKey(string(p.Key)); ok {
			done.Put[k.Kind]++
		}
	}
	for key := range now {
		if k, ok := parseKey(key); ok && !kept[key] {
			done.Removed[k.Kind]++
		}
	}
	return done
}

// otherAuthority tells whether the backup's authority is to take the place of this host's.
func (s *Store) otherAuthority(b *backup, now map[string][]byte) (bool, error) {
	if b.Authority == "" {
		return false, nil
	}
	if certificate, _, err := parsePair([]byte(b.Authority)); err != nil || !certificate.IsCA {
		return false, tenant.Errorf(tenant.ErrInvalid, "the backup's certificate authority cannot be read")
	}
	have, err := os.ReadFile(s.authorityFile())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case err != nil:
		return false, err
	case string(have) == b.Authority:
		return false, nil
	}
	for key := range now {
		if backedUpBy(key) == generationKey("") {
			return false, tenant.Errorf(tenant.ErrConflict, "the backup is of another fleet: its certificate authority is another, and hosts have joined this one")
		}
	}
	return true, nil
}

// takeAuthority replaces this host's authority; who is served is served by it from now on.
func (s *Store) takeAuthority(b *backup) error {
	if err := os.MkdirAll(s.authorityDir(), 0o700); err != nil {
		return err
	}
	if err := writeFile(s.authorityFile(), []byte(b.Authority)); err != nil {
		return err
	}
	s.log.Info("the certificate authority was restored from a backup")
	s.port.reopen()
	return nil
}

// awaitFollowed waits until the feed shows the revision of all that it follows.
func (s *Store) awaitFollowed(ctx context.Context, ses *session, revision int64) error {
	s.mu.Lock()
	parts := append([]*part{s.common, s.networks}, slices.Collect(maps.Values(s.domains))...)
	s.mu.Unlock()
	for _, p := range parts {
		if err := s.await(ctx, ses, p, revision, true); err != nil {
			return err
		}
	}
	return nil
}

// revisit follows every domain that this host has vports in, when the state was restored since it was
// last told so: one that it has left long ago may have some of its vports again, which are to be
// seen by those who remove them. Called with the turn of self.
func (s *Store) revisit(ctx context.Context) error {
	if s.self.restored == s.self.visited.Load() {
		return nil
	}
	st, err := s.Read(ctx)
	if err != nil {
		return err
	}
	domains := map[string]bool{}
	st.Children(tenant.Key{Kind: tenant.KindHost, ID: s.config.Host}, tenant.KindVport, func(id string) {
		domains[st.Vports[id].DomainID] = true
	})
	delete(domains, "") // those in no domain
	for id := range domains {
		if err := s.Follow(ctx, id); err != nil && !errors.Is(err, tenant.ErrNotFound) {
			return err
		}
	}
	s.self.visited.Store(s.self.restored)
	return nil
}

// Restored is the revision of the last restoration that this host was told of, with a
// heartbeat; 0 if there was none. The feed then shows all domains that this host has vports
// in, as far as there still are some.
func (s *Store) Restored() int64 { return s.self.visited.Load() }
