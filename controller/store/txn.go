package store

import (
	"context"
	"encoding/json"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nuage/controller/tenant"
)

// maxAttempts bounds how often a write is planned anew because others were faster. Each
// failure means that another write went through, so reaching it takes a storm or an index
// that contradicts the objects.
const maxAttempts = 100

// txn is one etcd transaction being planned. Each condition says what the plan relied on.
type txn struct {
	conditions []clientv3.Cmp
	operations []clientv3.Op
	made       map[string]bool   // keys that the transaction itself writes
	numbers    map[string]uint32 // class → highest number taken by the transaction itself
	err        error
}

func newTxn() *txn { return &txn{made: map[string]bool{}, numbers: map[string]uint32{}} }

// absent: nobody has the key.
func (t *txn) absent(key string) {
	t.conditions = append(t.conditions, clientv3.Compare(clientv3.CreateRevision(key), "=", 0))
}

// exists: the key is there, whatever its value; keys made here count.
func (t *txn) exists(key string) {
	if !t.made[key] {
		t.conditions = append(t.conditions, clientv3.Compare(clientv3.CreateRevision(key), ">", 0))
	}
}

// unchanged: the key was last written at the revision.
func (t *txn) unchanged(key string, revision int64) {
	t.conditions = append(t.conditions, clientv3.Compare(clientv3.ModRevision(key), "=", revision))
}

// quiet: nothing was put into the object after the revision.
func (t *txn) quiet(id string, revision int64) {
	t.conditions = append(t.conditions, clientv3.Compare(clientv3.ModRevision(guardKey(id)), "<", revision+1))
}

// empty: no key has the prefix.
func (t *txn) empty(prefix string) {
	t.conditions = append(t.conditions, clientv3.Compare(clientv3.CreateRevision(prefix), "=", 0).WithPrefix())
}

// into marks that something is put into the object: see quiet.
func (t *txn) into(id string) {
	if key := guardKey(id); !t.made[key] {
		t.set(key, "")
	}
}

func (t *txn) put(key string, value any) {
	b, err := json.Marshal(value)
	if err != nil {
		t.err = fmt.Errorf("store: %s: %w", key, err)
	}
	t.set(key, string(b))
}

func (t *txn) set(key, value string) {
	t.made[key] = true
	t.operations = append(t.operations, clientv3.OpPut(key, value))
}

func (t *txn) delete(keys ...string) {
	for _, key := range keys {
		t.operations = append(t.operations, clientv3.OpDelete(key))
	}
}

func (t *txn) deletePrefix(prefix string) {
	t.operations = append(t.operations, clientv3.OpDelete(prefix, clientv3.WithPrefix()))
}

// claim takes a unique index key for the object id.
func (t *txn) claim(key, id string) {
	t.absent(key)
	t.set(key, id)
}

// write plans a transaction on the present state and commits it, and plans it anew on the
// newer state while others are faster. It returns the revision once the feed shows it, or
// 0 for a plan without operations, which commits nothing. The error of a plan counts only
// if the state that it saw was the newest.
func (s *Store) write(ctx context.Context, plan func(*tenant.State, *txn) error) (int64, error) {
	current := false
	for range maxAttempts {
		ses, err := s.acquire(ctx)
		if err != nil {
			return 0, err
		}
		revision, again, err := s.attempt(ctx, ses, plan, &current)
		ses.release()
		if !again || err != nil {
			return revision, err
		}
	}
	return 0, tenant.Errorf(tenant.ErrUnavailable, "store: %d transactions in a row were overtaken by others", maxAttempts)
}

func (s *Store) attempt(ctx context.Context, ses *session, plan func(*tenant.State, *txn) error, current *bool) (revision int64, again bool, err error) {
	ctx, cancel := ses.bound(ctx)
	defer cancel()
	t := newTxn()
	s.feed.View(func(st *tenant.State) { err = plan(st, t) })
	switch {
	case err != nil && !*current:
		*current = true
		if serr := s.catchUp(ctx, ses); serr != nil {
			return 0, false, serr
		}
		return 0, true, nil
	case err == nil:
		err = t.err
	}
	if err != nil || len(t.operations) == 0 {
		return 0, false, err
	}
	resp, err := ses.client.Txn(ctx).If(t.conditions...).Then(t.operations...).Commit()
	if err != nil {
		return 0, false, s.refused(err)
	}
	if !resp.Succeeded {
		*current = true
		return 0, true, s.await(ctx, ses, resp.Header.Revision, true)
	}
	return resp.Header.Revision, false, s.await(ctx, ses, resp.Header.Revision, false)
}

// catchUp waits until the feed shows all that is committed now.
func (s *Store) catchUp(ctx context.Context, ses *session) error {
	resp, err := ses.client.Get(ctx, root, clientv3.WithCountOnly())
	if err != nil {
		return s.unavailable(err)
	}
	return s.await(ctx, ses, resp.Header.Revision, true)
}

// await waits until the feed has reached the revision. A revision that may hold no event
// of ours is asked for, since the watch would not report it by itself.
func (s *Store) await(ctx context.Context, ses *session, revision int64, ask bool) error {
	for {
		at, moved := s.feed.Revision()
		if at >= revision {
			return nil
		}
		if ask {
			if err := ses.client.RequestProgress(watchContext(ses.ctx)); err != nil {
				return s.unavailable(err)
			}
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return s.unavailable(context.Cause(ctx))
		}
	}
}
