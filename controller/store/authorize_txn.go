package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	maxValue = 64 << 10
	// maxCounters is of what a host has counted in one domain; it leaves room in the largest
	// request that is taken from a host.
	maxCounters = 768 << 10
	maxOps      = 128 // etcd's own limit
	maxNested   = 3
)

// denial is why a host may not do something.
type denial struct{ text string }

func (d *denial) Error() string { return d.text }

func deny(format string, args ...any) error { return &denial{fmt.Sprintf(format, args...)} }

// review decides whether a host may commit one transaction. A write is judged by its
// value, by what is there now and by what else the transaction writes; what was looked at
// becomes a condition of the transaction, so that the judgement holds when it commits.
//
// Every object's index keys come and go with it: a transaction must write exactly those.
// So no host can take a name, number or address that the store gave to another.
type review struct {
	host       string
	autocreate bool
	now        time.Time
	// read returns what the range holds, and the revision then.
	read func(key, end string) ([]*mvccpb.KeyValue, int64, error)
	// owns tells whether the etcd lease is the host's.
	owns func(lease int64) bool

	puts    map[string][]byte
	leased  map[string]int64 // keys that are put with a lease of etcd's
	deletes map[string]bool
	ranges  map[string]bool // prefixes to be deleted

	seen       map[string]*mvccpb.KeyValue
	conditions []*pb.Compare

	// What the objects of the transaction call for.
	claims  map[string]string // index keys that must be new, and their values
	guards  map[string]bool
	unindex map[string]bool // index keys that must go
	empties map[string]bool // prefixes that must be deleted
}

// txn returns the conditions to be added to the transaction, or a denial.
func (r *review) txn(req *pb.TxnRequest) ([]*pb.Compare, error) {
	r.puts, r.deletes, r.ranges = map[string][]byte{}, map[string]bool{}, map[string]bool{}
	r.leased = map[string]int64{}
	r.seen, r.claims = map[string]*mvccpb.KeyValue{}, map[string]string{}
	r.guards, r.unindex, r.empties = map[string]bool{}, map[string]bool{}, map[string]bool{}
	if err := r.take(req); err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(r.puts)) {
		if !strings.HasPrefix(key, index) {
			if err := r.put(key, r.puts[key]); err != nil {
				return nil, within(err, "put", key)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(r.deletes)) {
		if !strings.HasPrefix(key, index) {
			if err := r.remove(key); err != nil {
				return nil, within(err, "delete", key)
			}
		}
	}
	if err := r.indexes(); err != nil {
		return nil, err
	}
	return r.added(req.Compare), nil
}

// within says of which key a denial is.
func within(err error, verb, key string) error {
	if d := (*denial)(nil); errors.As(err, &d) {
		return deny("%s %s: %s", verb, key, d.text)
	}
	return err
}

// take reads what the transaction writes. All but the operations of success must only read.
func (r *review) take(req *pb.TxnRequest) error {
	if len(req.Compare) > maxOps || len(req.Success) > maxOps || len(req.Failure) > maxOps {
		return deny("more than %d operations", maxOps)
	}
	if err := readsOnly(req.Compare, nil, req.Failure, 0); err != nil {
		return err
	}
	for _, op := range req.Success {
		switch o := op.GetRequest().(type) {
		case *pb.RequestOp_RequestPut:
			if err := r.takePut(o.RequestPut); err != nil {
				return err
			}
		case *pb.RequestOp_RequestDeleteRange:
			key, end := string(o.RequestDeleteRange.GetKey()), string(o.RequestDeleteRange.GetRangeEnd())
			switch {
			case end == "" && o.RequestDeleteRange.GetRangeEnd() != nil:
				return errEndless
			case end == "":
				r.deletes[key] = true
			case end == clientv3.GetPrefixRangeEnd(key):
				r.ranges[key] = true
			default:
				return deny("delete a range from %s", key)
			}
		default:
			if err := readsOnly(nil, nil, []*pb.RequestOp{op}, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *review) takePut(p *pb.PutRequest) error {
	key := string(p.GetKey())
	switch {
	case p.GetIgnoreLease() || p.GetIgnoreValue():
		return deny("put %s without its value", key)
	case len(p.GetValue()) > maxValue && !(len(p.GetValue()) <= maxCounters && strings.HasPrefix(key, countersPrefix(r.host))):
		return deny("put %s: more than %d bytes", key, maxValue)
	case p.GetLease() != 0 && !strings.HasPrefix(key, talkPrefix) && (key != aliveKey(r.host) || !r.owns(p.GetLease())):
		return deny("put %s with a lease", key)
	}
	if _, twice := r.puts[key]; twice {
		return deny("put %s twice", key)
	}
	r.puts[key], r.leased[key] = p.GetValue(), p.GetLease()
	return nil
}

// readsOnly refuses all that writes, or reads what hosts may not read.
func readsOnly(compare []*pb.Compare, success, failure []*pb.RequestOp, depth int) error {
	for _, c := range compare {
		if err := readable(c.GetKey(), c.GetRangeEnd()); err != nil {
			return err
		}
	}
	for _, ops := range [][]*pb.RequestOp{success, failure} {
		if len(ops) > maxOps || depth > maxNested {
			return deny("a transaction nested too deeply, or too large")
		}
		for _, op := range ops {
			var err error
			switch o := op.GetRequest().(type) {
			case *pb.RequestOp_RequestRange:
				err = readable(o.RequestRange.GetKey(), o.RequestRange.GetRangeEnd())
			case *pb.RequestOp_RequestTxn:
				err = readsOnly(o.RequestTxn.GetCompare(), o.RequestTxn.GetSuccess(), o.RequestTxn.GetFailure(), depth+1)
			default:
				err = deny("a write in a nested transaction, or in what is done when a condition fails")
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// errEndless: inside etcd an end that is there but empty means all keys that follow, so
// that a request with it would reach further than it seems to.
var errEndless = deny("a range with an empty end")

// readable refuses what lies outside of the objects and their index: the secrets do.
func readable(key, end []byte) error {
	if end != nil && len(end) == 0 {
		return errEndless
	}
	for _, prefix := range []string{root, index} {
		if !strings.HasPrefix(string(key), prefix) {
			continue
		}
		// An end of "\x00" means: to the end of all keys; it sorts before every prefix.
		if len(end) == 0 || string(end) > string(key) && string(end) <= clientv3.GetPrefixRangeEnd(prefix) {
			return nil
		}
	}
	return deny("read %.200q", key)
}

// indexes checks that the transaction writes the index keys that its objects call for, and
// no others.
func (r *review) indexes() error {
	for key, value := range r.puts {
		if !strings.HasPrefix(key, index) {
			continue
		}
		if want, ok := r.claims[key]; ok && want == string(value) || r.guards[key] && len(value) == 0 {
			continue
		}
		return deny("put %s: no object of the transaction has this index", key)
	}
	for key := range r.deletes {
		if strings.HasPrefix(key, index) && !r.unindex[key] {
			return deny("delete %s: no object of the transaction has this index", key)
		}
	}
	for key := range r.claims {
		if _, ok := r.puts[key]; !ok {
			return deny("the index %s is missing", key)
		}
		if have, err := r.get(key); err != nil {
			return err
		} else if have != nil {
			return deny("the index %s is another's", key)
		}
	}
	for key := range r.guards {
		if _, ok := r.puts[key]; !ok {
			return deny("the index %s is missing", key)
		}
	}
	for key := range r.unindex {
		if !r.deletes[key] {
			return deny("the index %s is left behind", key)
		}
	}
	for prefix := range r.empties {
		if !r.ranges[prefix] {
			return deny("what is in %s is left behind", prefix)
		}
	}
	for prefix := range r.ranges {
		if !r.empties[prefix] {
			return deny("delete all of %s", prefix)
		}
	}
	return nil
}

// get is what is there now, and stays there until the transaction commits.
func (r *review) get(key string) (*mvccpb.KeyValue, error) {
	if kv, ok := r.seen[key]; ok {
		return kv, nil
	}
	kvs, _, err := r.read(key, "")
	if err != nil {
		return nil, err
	}
	var kv *mvccpb.KeyValue
	if len(kvs) > 0 {
		kv = kvs[0]
	}
	r.seen[key] = kv
	r.conditions = append(r.conditions, revisionIs(key, pb.Compare_EQUAL, kv.GetModRevision()))
	return kv, nil
}

// quiet: nothing is put into the object after the revision.
func (r *review) quiet(id string, revision int64) {
	r.conditions = append(r.conditions, revisionIs(guardKey(id), pb.Compare_LESS, revision+1))
}

// nothingIn: no key has the prefix.
func nothingIn(prefix string) *pb.Compare {
	return &pb.Compare{Key: []byte(prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(prefix)), Target: pb.Compare_CREATE,
		Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_CreateRevision{}}
}

func revisionIs(key string, result pb.Compare_CompareResult, revision int64) *pb.Compare {
	return &pb.Compare{Key: []byte(key), Target: pb.Compare_MOD, Result: result, TargetUnion: &pb.Compare_ModRevision{ModRevision: revision}}
}

// added are the conditions that the transaction has not by itself.
func (r *review) added(has []*pb.Compare) []*pb.Compare {
	text := func(c *pb.Compare) string {
		return fmt.Sprintf("%q %q %d %d %d", c.GetKey(), c.GetRangeEnd(), c.GetTarget(), c.GetResult(), c.GetModRevision())
	}
	known := map[string]bool{}
	for _, c := range has {
		if c.GetTarget() == pb.Compare_MOD {
			known[text(c)] = true
		}
	}
	return slices.DeleteFunc(r.conditions, func(c *pb.Compare) bool { return known[text(c)] })
}

// judge reviews the transaction and returns it with the conditions of the review. A denial
// that only the transaction's own conditions keep from being committed, as when another
// host was faster, is the answer of a transaction that did not succeed.
func (r *review) judge(ctx context.Context, kv pb.KVServer, req *pb.TxnRequest) (forward *pb.TxnRequest, answer *pb.TxnResponse, err error) {
	conditions, err := r.txn(req)
	if err == nil && len(req.Compare)+len(conditions) > maxOps {
		err = deny("more than %d conditions", maxOps)
	}
	if err == nil {
		return &pb.TxnRequest{Compare: append(slices.Clone(req.Compare), conditions...), Success: req.Success, Failure: req.Failure}, nil, nil
	}
	if d := (*denial)(nil); !errors.As(err, &d) || len(req.Compare) == 0 || len(req.Compare) > maxOps || readsOnly(req.Compare, nil, req.Failure, 0) != nil {
		return nil, nil, err
	}
	answer, terr := kv.Txn(ctx, &pb.TxnRequest{Compare: req.Compare, Failure: req.Failure})
	if terr == nil && !answer.Succeeded {
		return nil, answer, nil
	}
	return nil, nil, err
}
