package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// txn is one etcd transaction being planned. Each condition says what the plan relied on.
type txn struct {
	conditions []clientv3.Cmp
	operations []clientv3.Op
	at         map[string]int               // key that the transaction writes → its operation
	made       map[string]bool              // keys that the transaction itself writes; false: deletes
	used       map[string]map[uint32]string // class → number in use → the ID that has it
	held       map[string]string            // index key → what it was seen to hold
	err        error
}

func newTxn() *txn { return &txn{at: map[string]int{}, made: map[string]bool{}} }

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

// still: no key of the prefix was written after the revision.
func (t *txn) still(prefix string, revision int64) {
	t.conditions = append(t.conditions, clientv3.Compare(clientv3.ModRevision(prefix), "<", revision+1).WithPrefix())
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

func (t *txn) set(key, value string) { t.write(key, clientv3.OpPut(key, value), true) }

func (t *txn) delete(keys ...string) {
	for _, key := range keys {
		t.write(key, clientv3.OpDelete(key), false)
	}
}

// write adds an operation. Of several on one key, which etcd would refuse, the last counts:
// that is what they come to.
func (t *txn) write(key string, op clientv3.Op, there bool) {
	t.made[key] = there
	if i, again := t.at[key]; again {
		t.operations[i] = op
		return
	}
	t.at[key] = len(t.operations)
	t.operations = append(t.operations, op)
}

func (t *txn) deletePrefix(prefix string) {
	t.operations = append(t.operations, clientv3.OpDelete(prefix, clientv3.WithPrefix()))
}

// claim takes a unique index key for the object id. One that the transaction itself has
// given free was seen to be held by what it changes.
func (t *txn) claim(key, id string) {
	if _, ours := t.made[key]; !ours {
		t.absent(key)
	}
	t.set(key, id)
	if t.held != nil {
		t.held[key] = id
	}
}

// unclaim gives a unique index key free.
func (t *txn) unclaim(key string) {
	t.delete(key)
	delete(t.held, key)
}

// under are the index keys of a prefix among those held, without the prefix, in order.
func under(held map[string]string, prefix string) (rest []string) {
	for key := range held {
		if r, ok := strings.CutPrefix(key, prefix); ok {
			rest = append(rest, r)
		}
	}
	slices.Sort(rest)
	return rest
}
