package store

import (
	"context"
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
}

func (s *Store) reader(ctx context.Context, ses *session) *reader {
	return &reader{ctx: ctx, client: ses.client, store: s, st: tenant.NewState(), numbers: map[string]map[uint32]string{}}
}

// get reads ranges, in one request. Of the keys of objects the objects come into the state.
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
			if c, ok := r.store.change(string(kv.Key), kv.Value, kv.ModRevision, false); ok {
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

// objects reads the objects of the keys.
func (r *reader) objects(keys ...string) error {
	const most = 100
	for len(keys) > 0 {
		n := min(len(keys), most)
		ops := make([]clientv3.Op, n)
		for i, key := range keys[:n] {
			ops[i] = r.at(key)
		}
		if _, err := r.get(ops...); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

// object reads the object that has the ID, if one has, and returns its domain if it is in one.
func (r *reader) object(id string) (domain string, err error) {
	kvs, err := r.get(r.at(idKey(id)))
	if err != nil || len(kvs) == 0 {
		return "", err
	}
	key := string(kvs[0].Value)
	if rest, ok := strings.CutPrefix(key, root+"domains/"); ok {
		domain, _, _ = strings.Cut(rest, "/")
	}
	return domain, r.objects(key)
}

// around reads the object that has the ID and, if it is in a domain, the domain with its
// enterprise, zones and subnets.
func (r *reader) around(id string) error {
	domain, err := r.object(id)
	if err != nil || domain == "" {
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

// holders reads the objects that index keys point to; with an option, those of a range.
func (r *reader) holders(key string, opts ...clientv3.OpOption) (ids []string, err error) {
	kvs, err := r.get(r.at(key, opts...))
	if err != nil {
		return nil, err
	}
	for _, kv := range kvs {
		id := string(kv.Value)
		ids = append(ids, id)
		if _, err := r.object(id); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// rivals reads the objects that have what e claims: its ID, name, external ID, numbers.
func (r *reader) rivals(e entry) error {
	var keys []string
	if name := e.nameKey(); name != "" {
		keys = append(keys, name)
	}
	if m := e.Base(); m.ExternalID != "" {
		keys = append(keys, externalKey(e.kind, m.ExternalID))
	}
	for class, n := range e.numbers {
		if n != 0 {
			keys = append(keys, numberKey(class, n))
		}
	}
	for _, key := range keys {
		if _, err := r.holders(key); err != nil {
			return err
		}
	}
	_, err := r.object(e.Base().ID)
	return err
}

// used reads the numbers of classes that are in use.
func (r *reader) used(classes ...string) error {
	for _, class := range classes {
		prefix := numberPrefix(class)
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
		if err := r.scan(prefix, prefixEnd(prefix)); err != nil {
			return err
		}
	}
	return nil
}

// scan reads all objects of a range.
func (r *reader) scan(from, to string) error {
	revision, err := scan(r.ctx, r.client, r.st.Revision, from, to, func(key string, value []byte, revision int64) {
		if c, ok := r.store.change(key, value, revision, false); ok {
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
