package store

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuage/controller/tenant"
)

// reader collects what one plan looks at, read from etcd as of one revision, in a state of
// its own: what is not asked for is not in it.
type reader struct {
	ctx    context.Context
	client *clientv3.Client
	store  *Store
	st     *tenant.State // Revision is 0 before the first request
	// numbers are those in use, of the classes asked for, with their holders' IDs.
	numbers map[string]map[uint32]string
	held    map[string]string // index keys that were read, with what they hold
	asked   map[string]bool   // what was read already: keys, and prefixes of what lies around
}

func (s *Store) reader(ctx context.Context, ses *session) *reader {
	return &reader{ctx: ctx, client: ses.client, store: s, st: tenant.NewState(), numbers: map[string]map[uint32]string{}, held: map[string]string{}, asked: map[string]bool{}}
}

// get reads ranges, in one request. Of the keys of objects the objects come into the state,
// of those of indexes what they hold into held.
func (r *reader) get(ops ...clientv3.Op) ([]*mvccpb.KeyValue, error) {
	resp, err := r.client.Txn(r.ctx).Then(ops...).Commit()
	if err != nil {
		return nil, r.store.refused(err)
	}
	if r.st.Revision == 0 {
		r.st.Revision = resp.Header.Revision
	}
	var kvs []*mvccpb.KeyValue
	for _, one := range resp.Responses {
		for _, kv := range one.GetResponseRange().Kvs {
			kvs = append(kvs, kv)
			if strings.HasPrefix(string(kv.Key), index) {
				r.held[string(kv.Key)] = string(kv.Value)
			} else if c, ok := r.store.change(kv, false); ok {
				r.st.Apply(c)
			}
		}
	}
	return kvs, nil
}

// at is the request for one key, or with an option for more, as of the reader's revision.
func (r *reader) at(key string, opts ...clientv3.OpOption) clientv3.Op {
	return clientv3.OpGet(key, append(opts, clientv3.WithRev(r.st.Revision))...)
}

// first tells whether something has not been asked for before.
func (r *reader) first(what string) bool {
	asked := r.asked[what]
	r.asked[what] = true
	return !asked
}

// objects reads the objects, or indexes, of the keys.
func (r *reader) objects(keys ...string) error {
	const most = 100
	keys = slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return !r.first(key) })
	for some := range slices.Chunk(keys, most) {
		ops := make([]clientv3.Op, len(some))
		for i, key := range some {
			ops[i] = r.at(key)
		}
		if _, err := r.get(ops...); err != nil {
			return err
		}
	}
	return nil
}

// identified reads the objects that have the IDs, as far as one has.
func (r *reader) identified(ids ...string) error {
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = idKey(id)
	}
	if err := r.objects(keys...); err != nil {
		return err
	}
	var objects []string
	for _, key := range keys {
		if object := r.held[key]; object != "" {
			objects = append(objects, object)
		}
	}
	return r.objects(objects...)
}

// object reads the object that has the ID, if one has, and returns its domain if it is in one.
func (r *reader) object(id string) (domain string, err error) {
	err = r.identified(id)
	if rest, ok := strings.CutPrefix(r.held[idKey(id)], root+"domains/"); ok {
		domain, _, _ = strings.Cut(rest, "/")
	}
	return domain, err
}

// around reads the object that has the ID and, if it is in a domain, the domain with its
// enterprise, zones and subnets.
func (r *reader) around(id string) error {
	domain, err := r.object(id)
	if err != nil || domain == "" || !r.first(domainPrefix(domain)) {
		return err
	}
	prefix := domainPrefix(domain)
	all := clientv3.WithPrefix()
	if _, err := r.get(r.at(prefix+"domain/", all), r.at(prefix+"zones/", all), r.at(prefix+"subnets/", all)); err != nil {
		return err
	}
	if d := r.st.Domains[domain]; d != nil {
		return r.objects(enterpriseKey(d.EnterpriseID))
	}
	return nil
}

// holders reads the objects that an index key points to, or those of a range.
func (r *reader) holders(key string, opts ...clientv3.OpOption) (ids []string, err error) {
	kvs, err := r.get(r.at(key, opts...))
	if err != nil {
		return nil, err
	}
	for _, kv := range kvs {
		ids = append(ids, string(kv.Value))
	}
	return ids, r.identified(ids...)
}

// rivals reads the objects that have what the entries claim: ID, names, external ID, numbers.
func (r *reader) rivals(entries ...entry) error {
	var keys []string
	for _, e := range entries {
		keys = append(keys, idKey(e.Base().ID))
		keys = append(keys, e.index()...)
	}
	if err := r.objects(keys...); err != nil {
		return err
	}
	var ids []string
	for _, key := range keys {
		switch held := r.held[key]; {
		case held == "":
		case strings.HasPrefix(key, idKey("")):
			ids = append(ids, strings.TrimPrefix(key, idKey("")))
		default:
			ids = append(ids, held)
		}
	}
	return r.identified(ids...)
}

// used reads the numbers of classes that are in use.
func (r *reader) used(classes ...string) error {
	for _, class := range classes {
		prefix := numberPrefix(class)
		if !r.first(prefix) {
			continue
		}
		kvs, err := r.get(r.at(prefix, clientv3.WithPrefix()))
		if err != nil {
			return err
		}
		r.numbers[class] = make(map[uint32]string, len(kvs))
		for _, kv := range kvs {
			if n, err := strconv.ParseUint(strings.TrimPrefix(string(kv.Key), prefix), 10, 32); err == nil {
				r.numbers[class][uint32(n)] = string(kv.Value)
			}
		}
	}
	return nil
}

// contents reads all vports and leases of a domain, and the networks of all hosts.
func (r *reader) contents(domain string) error {
	for _, prefix := range []string{domainPrefix(domain), root + "networks/"} {
		if !r.first("all of " + prefix) {
			continue
		}
		if err := r.scan(prefix, prefixEnd(prefix)); err != nil {
			return err
		}
	}
	return nil
}

// vports reads all vports of a domain.
func (r *reader) vports(domain string) error {
	prefix := keyIn(domain, tenant.KindVport, "")
	return r.scan(prefix, prefixEnd(prefix))
}

// scan reads all objects of a range.
func (r *reader) scan(from, to string) error {
	revision, err := scan(r.ctx, r.client, r.st.Revision, from, to, func(kv *mvccpb.KeyValue) {
		if c, ok := r.store.change(kv, false); ok {
			r.st.Apply(c)
		}
	})
	if err != nil {
		return r.store.refused(err)
	}
	r.st.Revision = revision
	return nil
}

// lease reads the lease of an address and the vport that has it.
func (r *reader) lease(l *tenant.Lease) error {
	if sub := r.st.Subnets[l.SubnetID]; sub != nil {
		l.DomainID = sub.DomainID
	}
	if err := r.objects(leaseKey(l)); err != nil {
		return err
	}
	if have := r.st.Leases[tenant.LeaseID(l.SubnetID, l.Address.String())]; have != nil && have.VportID != "" {
		return r.objects(vportKey(have.DomainID, have.VportID))
	}
	return nil
}
