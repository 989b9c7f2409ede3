package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nuage/controller/tenant"
)

// countersBytes is how much one transaction writes of counters, unless one alone is more.
const countersBytes = 512 << 10

// PutCounters tells others what this host's switch has counted in each domain; Host and
// Seen it sets. What it told before of other domains is gone then. No feed shows it: see
// Read. A host that is not registered is tenant.ErrNotFound.
func (s *Store) PutCounters(ctx context.Context, all []tenant.Counters) error {
	host := s.config.Host
	values, now := map[string]string{}, s.now()
	for _, c := range all {
		c.Host, c.Seen = host, now
		b, err := json.Marshal(c)
		switch {
		case err != nil:
			return fmt.Errorf("counters: %w", err)
		case tenant.ValidateID(c.DomainID) != nil:
			return tenant.Errorf(tenant.ErrInvalid, "counters: %q is not a domain's ID", c.DomainID)
		case len(b) > maxCounters:
			return tenant.Errorf(tenant.ErrInvalid, "counters of domain %s: %d bytes are more than %d", c.DomainID, len(b), maxCounters)
		}
		values[countersKey(host, c.DomainID)] = string(b)
	}
	keys := slices.Sorted(maps.Keys(values))
	for done := false; !done; {
		n, size := 0, 0
		for n < len(keys) && n < maxOps/2 && (n == 0 || size+len(values[keys[n]]) <= countersBytes) {
			size += len(values[keys[n]])
			n++
		}
		done = n == len(keys)
		if err := s.putCounters(ctx, values, keys[:n], done); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

// putCounters writes some of the values and, with the last, removes what else there is.
func (s *Store) putCounters(ctx context.Context, values map[string]string, keys []string, last bool) error {
	host := s.config.Host
	var old []string
	_, err := s.write(ctx, func(r *reader) error {
		old = nil
		kvs, err := r.get(r.at(hostKey(host)), r.at(countersPrefix(host), clientv3.WithPrefix(), clientv3.WithKeysOnly()))
		for _, kv := range kvs {
			if _, kept := values[string(kv.Key)]; last && !kept && strings.HasPrefix(string(kv.Key), countersPrefix(host)) {
				old = append(old, string(kv.Key))
			}
		}
		return err
	}, func(st *tenant.State, t *txn) error {
		if st.Hosts[host] == nil {
			return fmt.Errorf("host %s: %w: it has not been registered", host, tenant.ErrNotFound)
		}
		t.exists(hostKey(host))
		for _, key := range keys {
			t.set(key, values[key])
		}
		t.delete(old[:min(len(old), maxOps/2)]...) // what is left then is the next one's
		return nil
	})
	return err
}

// readCounters reads what a host has told of a domain.
func (s *Store) readCounters(st *tenant.State, key string, value []byte) {
	host, domain, _ := strings.Cut(key, "/")
	c := &tenant.Counters{}
	if err := json.Unmarshal(value, c); err != nil {
		s.log.WithError(err).WithField("host", host).Error("the counters of a host cannot be read and are ignored")
		return
	}
	c.Host, c.DomainID = host, domain
	st.Counters[tenant.CountersID(host, domain)] = c
}
