package store

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nuage/controller/tenant"
)

// pointer is what an object of the model is stored through.
type pointer[T any] interface {
	*T
	object
}

// class is what the store knows of one kind of object that people write.
type class[T comparable, P pointer[T]] struct {
	kind  tenant.Kind
	entry func(P) entry
	of    func(*tenant.State) map[string]P
	// fix refuses the change of what cannot change, and completes what is left out.
	fix func(want, have P) error
	// read reads what plan looks at beside the object and its rivals; have is nil for a new
	// object. It may complete want.
	read func(r *reader, want, have P) error
	// plan completes want and checks it against other objects.
	plan func(st *tenant.State, t *txn, want, have P) error
}

func (c class[T, P]) create(ctx context.Context, s *Store, v T) (T, error) {
	s.born(P(&v).Base())
	return c.write(ctx, s, v, true, c.add)
}

func (c class[T, P]) update(ctx context.Context, s *Store, v T) (T, error) {
	return c.write(ctx, s, v, false, c.change(s))
}

func (c class[T, P]) write(ctx context.Context, s *Store, v T, fresh bool, plan func(*tenant.State, *txn, P) error) (T, error) {
	return create(ctx, s, v, func(r *reader) error {
		e, ok, err := c.look(r, v, fresh)
		if err != nil || !ok {
			return err
		}
		return r.rivals(e)
	}, plan)
}

// look reads what the plan of an object looks at, and returns the object's entry, whose
// rivals are to be read; none for what the plan refuses anyway.
func (c class[T, P]) look(r *reader, v T, fresh bool) (e entry, ok bool, err error) {
	var have P
	if !fresh {
		id := P(&v).Base().ID
		if _, err := r.object(id); err != nil {
			return e, false, err
		}
		if have = c.of(r.st)[id]; have == nil || c.fix(&v, have) != nil {
			return e, false, nil
		}
	}
	err = c.read(r, &v, have)
	return c.entry(&v), err == nil, err
}

// add plans the creation of an object, on a state that it is added to.
func (c class[T, P]) add(st *tenant.State, t *txn, v P) error {
	if err := c.plan(st, t, v, nil); err != nil {
		return err
	}
	if err := t.add(st, c.entry(v)); err != nil {
		return err
	}
	st.Apply(tenant.Change{Key: tenant.Key{Kind: c.kind, ID: P(v).Base().ID}, Value: (*T)(v)}) // for what the transaction makes beside
	return nil
}

// change plans the update of an object, unless it is as wanted, on a state that it is
// changed in.
func (c class[T, P]) change(s *Store) func(*tenant.State, *txn, P) error {
	return func(st *tenant.State, t *txn, want P) error {
		have, err := known(st, c.kind, c.of(st), *want.Base())
		if err != nil {
			return err
		}
		if err := c.fix(want, have); err != nil {
			return c.entry(have).called(err)
		}
		if err := c.plan(st, t, want, have); err != nil {
			return err
		}
		*want.Base() = carry(have.Base(), want.Base())
		if *want == *have {
			return nil
		}
		want.Base().Updated = s.now()
		if err := t.change(st, c.entry(have), c.entry(want)); err != nil {
			return err
		}
		st.Apply(tenant.Change{Key: tenant.Key{Kind: c.kind, ID: have.Base().ID}, Value: (*T)(want)})
		return nil
	}
}

// create commits what plan makes of a copy of v, anew at each attempt.
func create[T any, P pointer[T]](ctx context.Context, s *Store, v T, read func(*reader) error, plan func(*tenant.State, *txn, P) error) (T, error) {
	return createIn(ctx, s, "", v, read, plan)
}

// createIn is create for what is all in one domain.
func createIn[T any, P pointer[T]](ctx context.Context, s *Store, domain string, v T, read func(*reader) error, plan func(*tenant.State, *txn, P) error) (T, error) {
	var made T
	revision, err := s.writeIn(ctx, domain, read, func(st *tenant.State, t *txn) error {
		made = v
		return plan(st, t, &made)
	})
	if err != nil {
		var none T
		return none, err
	}
	if revision != 0 {
		m := P(&made).Base()
		m.Revision = revision
		if m.Committed == 0 {
			m.Committed = revision
		}
	}
	return made, nil
}

// carry is the Meta of an update: what is known of the object, with the new external ID.
func carry(have, want *tenant.Meta) tenant.Meta {
	m := *have
	m.ExternalID = want.ExternalID
	return m
}

// holds are the kinds of object that must not be in one that is removed.
var holds = map[tenant.Kind][]tenant.Kind{
	tenant.KindEnterprise: {tenant.KindDomain, tenant.KindNetworkMacro},
	tenant.KindDomain:     {tenant.KindZone, tenant.KindPolicy, tenant.KindPolicyGroup},
	tenant.KindZone:       {tenant.KindSubnet},
}

// drop removes an object that has nothing in it and that no other names.
func (s *Store) drop(ctx context.Context, kind tenant.Kind, id string) error {
	_, err := s.write(ctx, func(r *reader) error { return r.dependents(kind, id) }, func(st *tenant.State, t *txn) error {
		e, ok := entryOf(st, tenant.Key{Kind: kind, ID: id})
		if !ok {
			return notFound(kind, id)
		}
		err := t.idle(st, e)
		if g := st.PolicyGroups[id]; err == nil && g != nil {
			err = memberless(st, g)
		}
		if err != nil {
			return e.called(err)
		}
		t.remove(st, e)
		return nil
	})
	return err
}

// dependents reads an object and what keeps it from being removed.
func (r *reader) dependents(kind tenant.Kind, id string) error {
	ops := []clientv3.Op{r.at(usesPrefix(id), clientv3.WithPrefix(), clientv3.WithKeysOnly())}
	for _, in := range holds[kind] {
		ops = append(ops, r.at(namePrefix(in, id), clientv3.WithPrefix()))
	}
	if _, err := r.get(ops...); err != nil {
		return err
	}
	users := under(r.held, usesPrefix(id))
	if err := r.identified(append(users[:min(len(users), shownNames)], id)...); err != nil {
		return err
	}
	for _, e := range r.st.Entries {
		if err := r.identified(e.PolicyID); err != nil {
			return err
		}
	}
	if g := r.st.PolicyGroups[id]; g != nil {
		return r.vports(g.DomainID)
	}
	return r.limiters(kind, id)
}

// idle plans that nothing is in the object or names it, or comes to.
func (t *txn) idle(st *tenant.State, e entry) error {
	id := e.Base().ID
	var in []string
	for _, kind := range holds[e.kind] {
		prefix := namePrefix(kind, id)
		for _, name := range under(t.held, prefix) {
			in = append(in, kind.Noun()+" "+name)
		}
		t.empty(prefix)
	}
	if len(in) > 0 {
		return tenant.Errorf(tenant.ErrConflict, "not empty: it has %s", some(in, len(in)))
	}
	return t.unnamed(st, id)
}

// unnamed plans that no other object names the one that has the ID, or comes to.
func (t *txn) unnamed(st *tenant.State, id string) error {
	if users := under(t.held, usesPrefix(id)); len(users) > 0 {
		var by []string
		for _, user := range users[:min(len(users), shownNames)] {
			by = append(by, holder(st, user))
		}
		return tenant.Errorf(tenant.ErrConflict, "in use by %s", some(by, len(users)))
	}
	t.empty(usesPrefix(id))
	return nil
}
