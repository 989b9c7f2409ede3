// Package journal keeps the driver's durable records: what this host has begun and not
// finished, and what it has made. They are held in memory; on disk they are one file, to
// which every write is appended as JSON with a checksum, fsynced before a call returns.
//
// It knows nothing of what the records mean, and it never decides anything from them.
package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"unicode/utf8"
)

// ErrLocked is a journal that another process has open.
var ErrLocked = errors.New("locked by another process")

// ErrClosed is a journal used after Close.
var ErrClosed = errors.New("closed")

const (
	// maxName bounds kinds and IDs.
	maxName = 32 << 10
	// maxWrites bounds the JSON of one commit, so that a reader knows when a line cannot be one.
	maxWrites = 4 << 20
)

// Journal is a set of records named by kind and ID. It is safe for concurrent use;
// writes that meet share one fsync.
type Journal struct {
	moved string

	commit sync.Mutex // held while a batch is written
	log    *log       // guarded by commit

	queue   sync.Mutex // guards pending
	pending *batch

	memory  sync.RWMutex // guards records against readers; only the holder of commit writes them
	records table        // what is on disk; nil once closed
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
	j.memory.RLock()
	closed, value := j.records == nil, j.records[kind][id]
	j.memory.RUnlock()
	switch {
	case closed:
		return false, named(kind, id, ErrClosed)
	case value == nil:
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
	j.memory.RLock()
	closed, records := j.records == nil, maps.Clone(j.records[kind])
	j.memory.RUnlock()
	if closed {
		return named(kind, "", ErrClosed)
	}
	for _, id := range slices.Sorted(maps.Keys(records)) {
		if err := f(id, bytes.Clone(records[id])); err != nil {
			return err
		}
	}
	return nil
}

// Apply does several writes with one fsync: all of them or none. After an error none of
// them is there, now or after a restart; a disk that was full takes writes again as soon
// as there is room.
func (j *Journal) Apply(ops ...Op) error {
	if len(ops) == 0 {
		return nil
	}
	writes := make([]write, len(ops))
	for i, o := range ops {
		if !nameable(o.kind) || !nameable(o.id) {
			return named(o.kind, o.id, errors.New("not a record's name"))
		}
		writes[i] = write{Kind: o.kind, ID: o.id}
		if o.value == nil {
			continue
		}
		value, err := json.Marshal(o.value)
		if err != nil {
			return named(o.kind, o.id, err)
		}
		writes[i].Value = value
	}
	text, err := encode(writes)
	if err == nil && len(text) > maxWrites {
		err = fmt.Errorf("%d bytes are too many for one write", len(text))
	}
	if err == nil {
		err = j.join(writes, text)
	}
	if err != nil {
		return named(ops[0].kind, ops[0].id, err)
	}
	return nil
}

// nameable refuses what JSON would not give back as it was.
func nameable(s string) bool { return s != "" && len(s) <= maxName && utf8.ValidString(s) }

// Close waits for writes under way. Every later call is ErrClosed.
func (j *Journal) Close() error {
	j.commit.Lock()
	defer j.commit.Unlock()
	j.memory.Lock()
	closed := j.records == nil
	j.records = nil
	j.memory.Unlock()
	if closed {
		return nil
	}
	return j.log.close()
}

// Moved is where Open put a file that was damaged, or empty. The records that were last
// written before the damage are lost to this journal; whoever opened it should say so.
func (j *Journal) Moved() string { return j.moved }

// batch is the writes of one commit: one record of the file, whole or not there.
type batch struct {
	writes []write
	text   []byte // of the writes
	done   chan struct{}
	err    error
}

// join adds writes to the batch that waits for the present commit to end. The first to
// come commits for all, so that fifty endpoints at once do not pay fifty fsyncs.
func (j *Journal) join(writes []write, text []byte) error {
	j.queue.Lock()
	b := j.pending
	leader := b == nil || len(b.text)+1+len(text) > maxWrites
	if leader {
		b = &batch{done: make(chan struct{})}
		j.pending = b
	} else {
		b.text = append(b.text, ',')
	}
	b.writes, b.text = append(b.writes, writes...), append(b.text, text...)
	j.queue.Unlock()
	if !leader {
		<-b.done
		return b.err
	}
	j.commit.Lock()
	defer j.commit.Unlock()
	j.queue.Lock()
	if j.pending == b { // else it was full
		j.pending = nil
	}
	j.queue.Unlock()
	b.err = j.write(b)
	close(b.done)
	if b.err == nil {
		j.log.trim(j.records)
	}
	return b.err
}

func (j *Journal) write(b *batch) error {
	if j.records == nil {
		return ErrClosed
	}
	if err := j.log.append(b.text, j.records); err != nil {
		return err
	}
	j.memory.Lock()
	defer j.memory.Unlock()
	j.records.apply(b.writes)
	return nil
}

func named(kind, id string, err error) error {
	return fmt.Errorf("journal %s %s: %w", kind, id, err)
}
