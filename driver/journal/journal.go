// Package journal keeps the driver's durable records: what this host has begun and not
// finished, and what it has made. One bbolt file, JSON values, fsynced before a call
// returns.
//
// It knows nothing of what the records mean, and it never decides anything from them.
package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// ErrLocked is a journal that another process has open.
var ErrLocked = errors.New("locked by another process")

// ErrClosed is a journal used after Close.
var ErrClosed = errors.New("closed")

// Journal is a set of records named by kind and ID. It is safe for concurrent use;
// writes that meet share one fsync.
type Journal struct {
	db    *bbolt.DB
	moved string

	commit  sync.Mutex // held while a batch is written
	queue   sync.Mutex // guards pending
	pending *batch
}

// Op is one write of Apply.
type Op struct {
	kind, id string
	value    any // nil: delete
}

// Set writes v as JSON under kind and id.
func Set(kind, id string, v any) Op { return Op{kind, id, v} }

// Drop removes a record; one that is not there is fine.
func Drop(kind, id string) Op { return Op{kind: kind, id: id} }

// Put writes v as JSON, durable on return.
func (j *Journal) Put(kind, id string, v any) error { return j.Apply(Set(kind, id, v)) }

// Delete removes a record, durable on return. One that is not there is fine.
func (j *Journal) Delete(kind, id string) error { return j.Apply(Drop(kind, id)) }

// Get reads a record into v and reports whether there is one.
func (j *Journal) Get(kind, id string, v any) (bool, error) {
	var value []byte
	err := guarded(func() error {
		return j.db.View(func(tx *bbolt.Tx) error {
			if b := tx.Bucket([]byte(kind)); b != nil {
				value = append(value, b.Get([]byte(id))...)
			}
			return nil
		})
	})
	if err != nil {
		return false, named(kind, id, err)
	}
	if value == nil {
		return false, nil
	}
	if err := json.Unmarshal(value, v); err != nil {
		return false, named(kind, id, err)
	}
	return true, nil
}

// List calls f with every record of a kind, in order of ID, as they were when List
// began; f may write to the journal and keep value. f's error ends the walk and is returned.
func (j *Journal) List(kind string, f func(id string, value []byte) error) error {
	type record struct {
		id    string
		value []byte
	}
	var records []record
	err := guarded(func() error {
		return j.db.View(func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte(kind))
			if b == nil {
				return nil
			}
			return b.ForEach(func(k, v []byte) error {
				records = append(records, record{string(k), append([]byte(nil), v...)})
				return nil
			})
		})
	})
	if err != nil {
		return named(kind, "", err)
	}
	for _, r := range records {
		if err := f(r.id, r.value); err != nil {
			return err
		}
	}
	return nil
}

// Apply does several writes with one fsync: all of them or none.
func (j *Journal) Apply(ops ...Op) error {
	if len(ops) == 0 {
		return nil
	}
	writes := make([]write, len(ops))
	for i, o := range ops {
		if o.kind == "" || o.id == "" || len(o.id) > bbolt.MaxKeySize {
			return named(o.kind, o.id, errors.New("not a record's name"))
		}
		writes[i] = write{kind: []byte(o.kind), id: []byte(o.id)}
		if o.value == nil {
			continue
		}
		value, err := json.Marshal(o.value)
		if err != nil {
			return named(o.kind, o.id, err)
		}
		writes[i].value = value
	}
	return j.join(writes)
}

// Close waits for writes under way. Every later call is ErrClosed.
func (j *Journal) Close() error {
	j.commit.Lock()
	defer j.commit.Unlock()
	return j.db.Close()
}

// Moved is where Open put a file that it could not read, or empty. Its records are lost
// to this journal; whoever opened it should say so.
func (j *Journal) Moved() string { return j.moved }

type write struct{ kind, id, value []byte }

type batch struct {
	writes []write
	done   chan struct{}
	err    error
}

// join adds writes to the batch that waits for the present commit to end. The first to
// come commits for all, so that fifty endpoints at once do not pay fifty fsyncs.
func (j *Journal) join(writes []write) error {
	j.queue.Lock()
	leader := j.pending == nil
	if leader {
		j.pending = &batch{done: make(chan struct{})}
	}
	b := j.pending
	b.writes = append(b.writes, writes...)
	j.queue.Unlock()
	if !leader {
		<-b.done
		return b.err
	}
	j.commit.Lock()
	defer j.commit.Unlock()
	j.queue.Lock()
	j.pending = nil
	j.queue.Unlock()
	b.err = j.write(b.writes)
	close(b.done)
	return b.err
}

func (j *Journal) write(writes []write) error {
	err := guarded(func() error {
		return j.db.Update(func(tx *bbolt.Tx) error {
			for _, w := range writes {
				b, err := tx.CreateBucketIfNotExists(w.kind)
				if err != nil {
					return err
				}
				if w.value == nil {
					err = b.Delete(w.id)
				} else {
					err = b.Put(w.id, w.value)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return named(string(writes[0].kind), string(writes[0].id), err)
	}
	return nil
}

func named(kind, id string, err error) error {
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		err = ErrClosed
	}
	return fmt.Errorf("journal %s %s: %w", kind, id, err)
}
