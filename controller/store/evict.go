package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"nuage/controller/tenant"
)

// evictBatch is how many vports or leases one transaction frees at most, each with as many
// as 14 operations.
const evictBatch = 8

// EvictHost removes a host for good: its vports, leases, networks, the subnets that were
// made for these, its status, its counters and its record. The addresses of its vports rest. It is
// tenant.ErrConflict while the host is alive, unless force. What is freed is freed a batch
// at a time; after an error the rest is done by calling again, and a name that nothing is
// left of is fine. A host that joined by a token must join again, by a new one; any other
// that comes back registers anew. Hosts that are served by another cannot evict:
// tenant.ErrDenied.
func (s *Store) EvictHost(ctx context.Context, name string, force bool) error {
	if err := (tenant.Host{Meta: tenant.Meta{ID: name}}).Validate(); err != nil {
		return fmt.Errorf("host: %w", err)
	}
	// Twice: what came between the first look and its end is found by the second.
	for range 2 {
		st, err := s.Read(ctx)
		if err != nil {
			return err
		}
		e := &eviction{store: s, name: name, force: force, st: st}
		if err := e.check(st); err != nil {
			return err
		}
		if err := s.withdraw(ctx, name); err != nil {
			return fmt.Errorf("host %s: %w", name, err)
		}
		if err := e.run(ctx); err != nil {
			return fmt.Errorf("host %s: %w", name, err)
		}
	}
	return nil
}

// eviction frees what one look at the state has found of a host.
type eviction struct {
	store *Store
	name  string
	force bool
	st    *tenant.State
}

func (e *eviction) check(st *tenant.State) error {
	if status := st.HostStatus[e.name]; status != nil && status.Alive && !e.force {
		return tenant.Errorf(tenant.ErrConflict, "host %s is alive: stop its plugin first, or force it", e.name)
	}
	return nil
}

func (e *eviction) run(ctx context.Context) error {
	var vports []*tenant.Vport
	for _, v := range e.st.Vports {
		if v.Host == e.name {
			vports = append(vports, v)
		}
	}
	var leases []*tenant.Lease
	for _, l := range e.st.Leases {
		if l.Host == e.name && l.VportID == "" && l.State != tenant.LeaseResting {
			leases = append(leases, l)
		}
	}
	e.store.sweepLater(e.st, e.name)
	var networks []*tenant.Network
	for _, n := range e.st.Networks {
		if n.Host == e.name {
			networks = append(networks, n)
		}
	}
	for _, free := range []func() error{
		func() error {
			return batches(vports, func(some []*tenant.Vport) error { return e.freeVports(ctx, some) })
		},
		func() error {
			return batches(leases, func(some []*tenant.Lease) error { return e.freeLeases(ctx, some) })
		},
		func() error {
			return batches(networks, func(some []*tenant.Network) error { return e.freeNetworks(ctx, some) })
		},
		func() error { return e.freeSubnets(ctx, networks) },
		func() error { return e.freeRecord(ctx) },
	} {
		if err := free(); err != nil {
			return err
		}
	}
	return nil
}

func batches[T any](all []T, do func([]T) error) error {
	for some := range slices.Chunk(all, evictBatch) {
		if err := do(some); err != nil {
			return err
		}
	}
	return nil
}

// write is Store.write on the condition that the host is not alive.
func (e *eviction) write(ctx context.Context, read func(*reader) error, plan func(*tenant.State, *txn)) error {
	alive := false
	_, err := e.store.write(ctx, func(r *reader) error {
		kvs, err := r.get(r.at(aliveKey(e.name)))
		alive = len(kvs) > 0
		return errors.Join(err, read(r))
	}, func(st *tenant.State, t *txn) error {
		if !e.force {
			if alive {
				return tenant.Errorf(tenant.ErrConflict, "it has come back")
			}
			t.absent(aliveKey(e.name))
		}
		plan(st, t)
		return nil
	})
	return err
}

func objects(keys []string) func(*reader) error {
	return func(r *reader) error { return r.objects(keys...) }
}

func (e *eviction) freeVports(ctx context.Context, vports []*tenant.Vport) error {
	var keys, ids []string
	for _, v := range vports {
		ids = append(ids, v.ID)
		keys = append(keys, vportKey(v.DomainID, v.ID))
		if v.IPv4.IsValid() {
			keys = append(keys, leaseKey(&tenant.Lease{DomainID: v.DomainID, SubnetID: v.SubnetID, Address: v.IPv4}))
		}
	}
	read := func(r *reader) error { return errors.Join(r.objects(keys...), r.limiters(tenant.KindVport, ids...)) }
	return e.write(ctx, read, func(st *tenant.State, t *txn) {
		for _, v := range st.Vports {
			switch {
			case v.Host != e.name:
			case v.Lasting:
				e.store.detachVport(st, t, v)
			default:
				e.store.removeVport(st, t, v)
			}
		}
	})
}

func (e *eviction) freeLeases(ctx context.Context, leases []*tenant.Lease) error {
	var keys []string
	for _, l := range leases {
		keys = append(keys, leaseKey(l))
	}
	return e.write(ctx, objects(keys), func(st *tenant.State, t *txn) {
		for _, l := range st.Leases {
			if l.Host != e.name || l.VportID != "" || l.State == tenant.LeaseResting {
				continue
			}
			if other := e.setAside(l); other != "" {
				kept := *l
				kept.Host = other
				t.lease(&kept, l)
				continue
			}
			t.unchanged(leaseKey(l), l.Revision)
			t.delete(leaseKey(l))
		}
	})
}

// setAside is another host, a network of which has set the address aside as well.
func (e *eviction) setAside(l *tenant.Lease) (host string) {
	if l.Use != tenant.UseAuxiliary {
		return ""
	}
	e.st.Children(tenant.Key{Kind: tenant.KindSubnet, ID: l.SubnetID}, tenant.KindNetwork, func(id string) {
		if n := e.st.Networks[id]; n.Host != e.name && slices.Contains(n.Auxiliary, l.Address) {
			host = n.Host
		}
	})
	return host
}

func (e *eviction) freeNetworks(ctx context.Context, networks []*tenant.Network) error {
	var keys []string
	for _, n := range networks {
		keys = append(keys, networkKey(e.name, n.ID))
	}
	return e.write(ctx, objects(keys), func(st *tenant.State, t *txn) {
		for _, n := range st.Networks {
			key := networkKey(e.name, n.ID)
			t.unchanged(key, n.Revision)
			t.delete(key)
		}
	})
}

func (e *eviction) freeSubnets(ctx context.Context, networks []*tenant.Network) error {
	done := map[string]bool{}
	for _, n := range networks {
		if sub := e.st.Subnets[n.SubnetID]; sub != nil && sub.DockerOwned && !done[sub.ID] {
			done[sub.ID] = true
			if err := e.store.ReleaseSubnet(ctx, sub.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *eviction) freeRecord(ctx context.Context) error {
	return e.write(ctx, objects([]string{hostKey(e.name)}), func(st *tenant.State, t *txn) {
		if h := st.Hosts[e.name]; h != nil {
			t.unchanged(hostKey(e.name), h.Revision)
			t.delete(hostKey(e.name))
		}
		t.delete(statusKey(e.name), aliveKey(e.name))
		t.deletePrefix(countersPrefix(e.name))
	})
}
