package store

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nuage/controller/tenant"
)

// mirror keeps the feed equal to what etcd holds: it lists everything at one revision and
// follows from there. It calls synced after the listing, and returns when the watch has
// ended, to be called again. What vanished meanwhile is published as removed.
func (s *Store) mirror(ctx context.Context, client *clientv3.Client, synced func()) error {
	revision, err := s.list(ctx, client)
	if err != nil {
		return fmt.Errorf("listing: %w", err)
	}
	ctx, cancel := context.WithCancel(watchContext(ctx))
	defer cancel()
	watch := client.Watch(ctx, root, clientv3.WithPrefix(), clientv3.WithRev(revision+1), clientv3.WithCreatedNotify())
	for resp := range watch {
		if err := resp.Err(); err != nil {
			return fmt.Errorf("watching: %w", err)
		}
		if resp.Created {
			synced()
			continue
		}
		// The header's revision may be ahead of the events while a watch catches up; only
		// a notice without events promises that all up to it was delivered.
		revision := resp.Header.Revision
		changes := make([]tenant.Change, 0, len(resp.Events))
		for _, ev := range resp.Events {
			revision = ev.Kv.ModRevision
			if c, ok := s.change(string(ev.Kv.Key), ev.Kv.Value, ev.Kv.ModRevision, ev.Type == clientv3.EventTypeDelete); ok {
				changes = append(changes, c)
			}
		}
		s.feed.Publish(revision, changes...)
	}
	return fmt.Errorf("watching: %w", context.Cause(ctx))
}

// watchContext marks ctx so that a member that has lost its leader ends the watch. Requests
// for progress must carry the same mark, or they would ask another stream.
func watchContext(ctx context.Context) context.Context { return clientv3.WithRequireLeader(ctx) }

// list publishes everything as of one revision, and the removal of all else.
func (s *Store) list(ctx context.Context, client *clientv3.Client) (int64, error) {
	var changes []tenant.Change
	gone := s.shown()
	var revision int64
	for from := root; ; {
		opts := []clientv3.OpOption{clientv3.WithRange(clientv3.GetPrefixRangeEnd(root)), clientv3.WithLimit(page)}
		if revision != 0 {
			opts = append(opts, clientv3.WithRev(revision))
		}
		resp, err := client.Get(ctx, from, opts...)
		if err != nil {
			return 0, err
		}
		if revision == 0 {
			revision = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			if c, ok := s.change(string(kv.Key), kv.Value, kv.ModRevision, false); ok {
				delete(gone, c.Key)
				changes = append(changes, c)
			}
		}
		if !resp.More {
			break
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
	for k := range gone {
		changes = append(changes, tenant.Change{Key: k})
	}
	s.feed.Publish(revision, changes...)
	return revision, nil
}

// change is what a key of etcd means; ok is false if it is not an object, or one that
// cannot be read.
func (s *Store) change(key string, value []byte, revision int64, deleted bool) (c tenant.Change, ok bool) {
	if c.Key, ok = parseKey(key); !ok || deleted {
		return c, ok
	}
	var err error
	if c.Value, err = decode(c.Key, value, revision); err != nil {
		s.log.WithError(err).WithField("key", key).Error("an object in the store cannot be read and is ignored")
		return c, false
	}
	return c, true
}

// shown is the set of all keys in the feed.
func (s *Store) shown() map[tenant.Key]struct{} {
	keys := map[tenant.Key]struct{}{}
	s.feed.View(func(st *tenant.State) {
		shownOf(keys, tenant.KindEnterprise, st.Enterprises)
		shownOf(keys, tenant.KindDomain, st.Domains)
		shownOf(keys, tenant.KindZone, st.Zones)
		shownOf(keys, tenant.KindSubnet, st.Subnets)
		shownOf(keys, tenant.KindVport, st.Vports)
		shownOf(keys, tenant.KindHost, st.Hosts)
		shownOf(keys, tenant.KindNetwork, st.Networks)
		shownOf(keys, tenant.KindLease, st.Leases)
	})
	return keys
}

func shownOf[T any](keys map[tenant.Key]struct{}, kind tenant.Kind, objects map[string]*T) {
	for id := range objects {
		keys[tenant.Key{Kind: kind, ID: id}] = struct{}{}
	}
}
