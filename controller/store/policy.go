package store

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nuage/controller/tenant"
)

var groups = class[tenant.PolicyGroup, *tenant.PolicyGroup]{
	kind:  tenant.KindPolicyGroup,
	entry: groupEntry,
	of:    func(st *tenant.State) map[string]*tenant.PolicyGroup { return st.PolicyGroups },
	fix: func(want, have *tenant.PolicyGroup) error {
		return errors.Join(fixed("domain", have.DomainID, &want.DomainID), fixed("number", have.Number, &want.Number))
	},
	read: func(r *reader, g, have *tenant.PolicyGroup) error {
		err := r.numbersIn(g.DomainID, classGroup, g.Number)
		if err == nil && have != nil && have.Name != g.Name {
			err = r.vports(g.DomainID)
		}
		return err
	},
	plan: func(st *tenant.State, t *txn, g, have *tenant.PolicyGroup) error {
		err := t.numberIn(st, classGroup, g.DomainID, &g.Number, tenant.MaxPolicyGroups)
		switch {
		case errors.Is(err, tenant.ErrExhausted):
			err = tenant.Errorf(tenant.ErrExhausted, "domain %s has %d policy groups, and can have no more: delete one that nothing needs (nuagectl get policygroups), or name zones, subnets or CIDRs in policies",
				st.Domains[g.DomainID].Name, tenant.MaxPolicyGroups)
		case err == nil && have != nil && have.Name != g.Name:
			return groupEntry(have).called(memberless(st, have))
		}
		return groupEntry(g).called(err)
	},
}

// memberless refuses a group that vports name.
func memberless(st *tenant.State, g *tenant.PolicyGroup) error {
	if members := contents(st, tenant.MemberKey(g.DomainID, g.Name), tenant.KindVport); members != "" {
		return tenant.Errorf(tenant.ErrConflict, "it has members: %s", members)
	}
	return nil
}

var macros = class[tenant.NetworkMacro, *tenant.NetworkMacro]{
	kind:  tenant.KindNetworkMacro,
	entry: macroEntry,
	of:    func(st *tenant.State) map[string]*tenant.NetworkMacro { return st.NetworkMacros },
	fix: func(want, have *tenant.NetworkMacro) error {
		return fixed("enterprise", have.EnterpriseID, &want.EnterpriseID)
	},
	read: func(r *reader, m, _ *tenant.NetworkMacro) error { return r.objects(enterpriseKey(m.EnterpriseID)) },
	plan: func(st *tenant.State, _ *txn, m, _ *tenant.NetworkMacro) error {
		if st.Enterprises[m.EnterpriseID] == nil {
			return macroEntry(m).called(notFound(tenant.KindEnterprise, m.EnterpriseID))
		}
		return nil
	},
}

var policies = class[tenant.Policy, *tenant.Policy]{
	kind:  tenant.KindPolicy,
	entry: policyEntry,
	of:    func(st *tenant.State) map[string]*tenant.Policy { return st.Policies },
	fix: func(want, have *tenant.Policy) error {
		return errors.Join(fixed("domain", have.DomainID, &want.DomainID), fixed("number", have.Number, &want.Number),
			fixed("direction", have.Direction, &want.Direction))
	},
	read: func(r *reader, p, _ *tenant.Policy) error { return r.numbersIn(p.DomainID, classPolicy, p.Number) },
	plan: func(st *tenant.State, t *txn, p, _ *tenant.Policy) error {
		err := t.numberIn(st, classPolicy, p.DomainID, &p.Number, 1<<16-1)
		if err == nil {
			err = st.CheckPolicy(p)
		}
		return policyEntry(p).called(err)
	},
}

var rules = class[tenant.Entry, *tenant.Entry]{
	kind:  tenant.KindEntry,
	entry: ruleEntry,
	of:    func(st *tenant.State) map[string]*tenant.Entry { return st.Entries },
	fix: func(want, have *tenant.Entry) error {
		return errors.Join(fixed("domain", have.DomainID, &want.DomainID), fixed("policy", have.PolicyID, &want.PolicyID))
	},
	read: func(r *reader, e, _ *tenant.Entry) (err error) {
		if p := r.st.Policies[e.PolicyID]; e.DomainID == "" && p != nil {
			e.DomainID = p.DomainID
		} else if e.DomainID == "" {
			if e.DomainID, err = r.object(e.PolicyID); err != nil {
				return err
			}
		}
		return r.objects(append(slices.Collect(maps.Values(ruleEntry(e).uses)),
			keyIn(e.DomainID, tenant.KindPolicy, e.PolicyID), domainKey(e.DomainID))...)
	},
	plan: func(st *tenant.State, _ *txn, e, _ *tenant.Entry) error {
		err := e.Validate()
		if p := st.Policies[e.PolicyID]; p != nil && e.DomainID == "" {
			e.DomainID = p.DomainID
		}
		if err == nil {
			err = st.CheckEntry(e)
		}
		return ruleEntry(e).called(err)
	},
}

// CreatePolicyGroup makes a policy group with a name unique in its domain, and a number.
// A domain has at most tenant.MaxPolicyGroups: one more is tenant.ErrExhausted.
func (s *Store) CreatePolicyGroup(ctx context.Context, g tenant.PolicyGroup) (tenant.PolicyGroup, error) {
	return groups.create(ctx, s, g)
}

// UpdatePolicyGroup changes description and external ID and, while it has no members, the
// name, which is what members name it by.
func (s *Store) UpdatePolicyGroup(ctx context.Context, g tenant.PolicyGroup) (tenant.PolicyGroup, error) {
	return groups.update(ctx, s, g)
}

// DeletePolicyGroup removes a policy group without members that no entry names.
func (s *Store) DeletePolicyGroup(ctx context.Context, id string) error {
	return s.drop(ctx, tenant.KindPolicyGroup, id)
}

// CreateNetworkMacro makes a network macro with a name unique in its enterprise.
func (s *Store) CreateNetworkMacro(ctx context.Context, m tenant.NetworkMacro) (tenant.NetworkMacro, error) {
	return macros.create(ctx, s, m)
}

// UpdateNetworkMacro changes all but the enterprise.
func (s *Store) UpdateNetworkMacro(ctx context.Context, m tenant.NetworkMacro) (tenant.NetworkMacro, error) {
	return macros.update(ctx, s, m)
}

// DeleteNetworkMacro removes a network macro that no entry names.
func (s *Store) DeleteNetworkMacro(ctx context.Context, id string) error {
	return s.drop(ctx, tenant.KindNetworkMacro, id)
}

// CreatePolicy makes a policy with a name unique in its domain, a priority unique in its
// domain and direction, and a number.
func (s *Store) CreatePolicy(ctx context.Context, p tenant.Policy) (tenant.Policy, error) {
	return policies.create(ctx, s, p)
}

// UpdatePolicy changes all but domain, direction and number.
func (s *Store) UpdatePolicy(ctx context.Context, p tenant.Policy) (tenant.Policy, error) {
	return policies.update(ctx, s, p)
}

// ruleOps is how many operations the removal of an entry has at most.
const ruleOps = 7

// DeletePolicy removes a policy with its entries: in one transaction, or, if these are too
// many for one, first out of force and then a part at a time. After an error the rest is
// done by calling again.
func (s *Store) DeletePolicy(ctx context.Context, id string) error {
	for {
		all := false
		_, err := s.write(ctx, func(r *reader) error {
			batch := s.room()/ruleOps - 2
			kvs, err := r.get(r.at(namePrefix(tenant.KindEntry, id), clientv3.WithPrefix(), clientv3.WithLimit(int64(batch)+1)))
			all = len(kvs) <= batch
			ids := []string{id}
			for _, kv := range kvs[:min(len(kvs), batch)] {
				ids = append(ids, string(kv.Value))
			}
			return errors.Join(err, r.identified(ids...))
		}, func(st *tenant.State, t *txn) error {
			p := st.Policies[id]
			if p == nil {
				return notFound(tenant.KindPolicy, id)
			}
			for _, e := range st.Entries {
				t.remove(st, ruleEntry(e))
			}
			if all {
				t.still(namePrefix(tenant.KindEntry, id), st.Revision)
				t.remove(st, policyEntry(p))
			} else if p.Active {
				off := *p
				off.Active, off.Updated = false, s.now()
				return t.change(st, policyEntry(p), policyEntry(&off))
			}
			return nil
		})
		if all || err != nil {
			return err
		}
	}
}

// NextEntryPriority is a priority for an entry that comes after all others of a policy. Of
// two that ask at once, only one gets it: ask again after tenant.ErrExists.
func (s *Store) NextEntryPriority(ctx context.Context, policyID string) (uint32, error) {
	const step = 100
	ses, err := s.acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer ses.release()
	ctx, cancel := ses.bound(ctx)
	defer cancel()
	r := s.reader(ctx, ses)
	prefix := namePrefix(tenant.KindEntry, policyID)
	if err := r.identified(policyID); err != nil {
		return 0, err
	}
	kvs, err := r.get(r.at(prefix, clientv3.WithLastKey()...))
	switch {
	case err != nil:
		return 0, err
	case r.st.Policies[policyID] == nil:
		return 0, notFound(tenant.KindPolicy, policyID)
	case len(kvs) == 0:
		return step, nil
	}
	last, err := strconv.ParseUint(strings.TrimPrefix(string(kvs[0].Key), prefix), 10, 32)
	if err != nil || last > tenant.MaxPriority-step {
		return 0, tenant.Errorf(tenant.ErrExhausted, "%s: no priority is left after that of the last entry: name one", nameOf(r.st, tenant.Key{Kind: tenant.KindPolicy, ID: policyID}))
	}
	return uint32(last) + step, nil
}

// CreateEntry makes an entry with a priority unique in its policy; 0 is one: see
// NextEntryPriority. DomainID may be left out. What the entry names cannot be deleted
// while it is there.
func (s *Store) CreateEntry(ctx context.Context, e tenant.Entry) (tenant.Entry, error) {
	return rules.create(ctx, s, e)
}

// UpdateEntry changes all but the policy.
func (s *Store) UpdateEntry(ctx context.Context, e tenant.Entry) (tenant.Entry, error) {
	return rules.update(ctx, s, e)
}

// DeleteEntry removes an entry.
func (s *Store) DeleteEntry(ctx context.Context, id string) error {
	return s.drop(ctx, tenant.KindEntry, id)
}
