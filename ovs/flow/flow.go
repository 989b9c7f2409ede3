// Package flow is the typed form of Open vSwitch flows: fields, matches, actions,
// flows, sets of flows and the difference of two sets, with one canonical form each, so
// that what is desired and what a switch reports compare exactly.
//
// It never talks to a switch and knows nothing of tenants. Flow.String prints what
// `ovs-ofctl -O OpenFlow14 --no-stats --no-names dump-flows` prints.
package flow

import (
	"cmp"
	"slices"
	"time"
)

// Flow is one entry of a flow table. Its identity is (Table, Priority, Match); its
// value Cookie and Actions. An empty Actions list drops.
type Flow struct {
	Table    Table
	Priority uint16
	Cookie   uint64 // any but the one of all ones, which OpenFlow reserves
	Match    Match
	Actions  []Action
	// Foreign is what a switch reported beside (timeouts, flags), as text. A flow with
	// it differs from every flow without.
	Foreign string
}

// Key is a flow's identity, comparable.
type Key struct {
	Table    Table
	Priority uint16
	Match    Match
}

// Key is the flow's identity.
func (f Flow) Key() Key { return Key{f.Table, f.Priority, f.Match} }

// Equal reports whether the flows have the same identity and the same value.
func (f Flow) Equal(g Flow) bool { return f.Key() == g.Key() && f.sameValue(g) }

func (f Flow) sameValue(g Flow) bool {
	return f.Cookie == g.Cookie && f.Foreign == g.Foreign && EqualActions(f.Actions, g.Actions)
}

// Compare orders keys as packets meet flows: by table, the highest priority first; then
// by match.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Table, o.Table), cmp.Compare(o.Priority, k.Priority), k.Match.compare(o.Match))
}

// Stats is a flow as a switch reports it.
type Stats struct {
	Flow
	Packets, Bytes uint64
	Duration       time.Duration // since the flow was added
}

// Set is flows by identity.
type Set map[Key]Flow

// NewSet is the set of flows; of flows with one identity the last.
func NewSet(fs ...Flow) Set {
	s := make(Set, len(fs))
	for _, f := range fs {
		s.Put(f)
	}
	return s
}

// Put adds a flow, in place of one with the same identity.
func (s Set) Put(f Flow) { s[f.Key()] = f }

// Sorted is the flows in the order of their keys.
func (s Set) Sorted() []Flow {
	fs := make([]Flow, 0, len(s))
	for _, f := range s {
		fs = append(fs, f)
	}
	sortFlows(fs)
	return fs
}

func sortFlows(fs []Flow) {
	slices.SortFunc(fs, func(a, b Flow) int { return a.Key().Compare(b.Key()) })
}

// Diff is what turns one Set into another: Delete strictly by identity, then Add
// (an Add of an existing identity replaces its value). Both are in the order of keys.
type Diff struct{ Add, Delete []Flow }

// NewDiff is the least that turns actual into desired.
func NewDiff(actual, desired Set) Diff {
	var d Diff
	for k, f := range desired {
		if have, ok := actual[k]; !ok || !have.sameValue(f) {
			d.Add = append(d.Add, f)
		}
	}
	for k, f := range actual {
		if _, ok := desired[k]; !ok {
			d.Delete = append(d.Delete, f)
		}
	}
	sortFlows(d.Add)
	sortFlows(d.Delete)
	return d
}

// Empty reports whether there is nothing to do.
func (d Diff) Empty() bool { return len(d.Add) == 0 && len(d.Delete) == 0 }
