package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"nuage/controller/tenant"
)

// part is a range of keys that the feed shows: what every host needs, this host's
// networks, or one domain. Each has a watch of its own, in a stream of its own, so that
// one part can be asked for progress whatever the others do.
type part struct {
	name     string // of the stream; a domain's ID
	from, to string
	here     // of a domain

	// All below are guarded by Store.mu.
	at    int64         // the feed shows everything up to this revision
	moved chan struct{} // closed and replaced when at moves on, closed when the watch ends
}

// watch is what etcd tells of a part.
type watch = clientv3.WatchChan

const (
	commonPart   = "common"
	networksPart = "networks"
	// macroTime is how long entries wait for the network macros that they name.
	macroTime = 5 * time.Second
)

func newPart(name, from, to string) *part {
	return &part{name: name, from: from, to: to, moved: make(chan struct{})}
}

// commonRange is that of enterprises, hosts and network macros, between which nothing else
// lies.
func commonRange() (from, to string) {
	return enterpriseKey(""), prefixEnd(macroKey(""))
}

// partOf is the name of the part that a key belongs to; empty for a key that none has.
func (s *Store) partOf(key string) string {
	if rest, ok := strings.CutPrefix(key, root+"domains/"); ok {
		domain, _, _ := strings.Cut(rest, "/")
		return domain
	}
	switch from, to := commonRange(); {
	case key >= from && key < to:
		return commonPart
	case strings.HasPrefix(key, networkPrefix(s.config.Host)):
		return networksPart
	}
	return ""
}

// watch is what keeps a part: the events after the revision at which it was made.
func (ses *session) watch(ctx context.Context, p *part) (watch, error) {
	w := ses.client.Watch(watchContext(ctx, p), p.from, clientv3.WithRange(p.to), clientv3.WithCreatedNotify())
	select {
	case resp, ok := <-w:
		if err := resp.Err(); err != nil {
			return nil, fmt.Errorf("watching: %w", err)
		}
		if !ok {
			return nil, fmt.Errorf("watching: %w", context.Cause(ctx))
		}
		return w, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("watching: %w", context.Cause(ctx))
	}
}

// watchContext marks ctx so that a member that has lost its leader ends the watch, and so
// that the part has a stream to itself. Requests for progress carry the same marks, or they
// would ask another stream: one that has watches of several parts would not answer while
// one of them is new.
func watchContext(ctx context.Context, p *part) context.Context {
	return metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(ctx), "nuage-part", p.name)
}

// list reads parts as of one revision: what is there, and the removal of what the feed
// shows and is not.
func (s *Store) list(ctx context.Context, client *clientv3.Client, parts ...*part) (revision int64, changes []tenant.Change, err error) {
	gone := s.shown(parts...)
	for _, p := range parts {
		revision, err = scan(ctx, client, revision, p.from, p.to, func(kv *mvccpb.KeyValue) {
			if c, ok := s.change(kv, false); ok {
				delete(gone, c.Key)
				changes = append(changes, c)
			}
		})
		if err != nil {
			return 0, nil, err
		}
	}
	for k := range gone {
		changes = append(changes, tenant.Change{Key: k})
	}
	return revision, changes, nil
}

// publish puts changes of parts into the feed, which then shows them up to the revision.
func (s *Store) publish(revision int64, changes []tenant.Change, parts ...*part) {
	s.feed.Publish(revision, changes...)
	s.reached(revision, parts...)
}

// reached notes that the feed shows parts up to the revision.
func (s *Store) reached(revision int64, parts ...*part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range parts {
		p.at = max(p.at, revision)
		close(p.moved)
		p.moved = make(chan struct{})
	}
}

// keep publishes what a watch says of a part, until ctx or the watch ends. A watch that has
// fallen behind what etcd remembers is replaced, and the part listed anew.
func (s *Store) keep(ctx context.Context, ses *session, p *part, watch watch) error {
	for {
		err := s.consume(ctx, ses, p, watch)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			return errors.New("watching: the watch has ended")
		case !errors.Is(err, rpctypes.ErrCompacted):
			return fmt.Errorf("watching: %w", err)
		}
		if watch, err = ses.watch(ctx, p); err != nil {
			return err
		}
		revision, changes, err := s.list(ctx, ses.client, p)
		if err != nil {
			return err
		}
		s.awaitMacros(ctx, ses, revision, changes)
		s.publish(revision, changes, p)
	}
}

func (s *Store) consume(ctx context.Context, ses *session, p *part, watch watch) error {
	for resp := range watch {
		if err := resp.Err(); err != nil {
			return err
		}
		// The header's revision may be ahead of the events while a watch catches up; only
		// a notice without events promises that all up to it was delivered.
		revision := resp.Header.Revision
		changes := make([]tenant.Change, 0, len(resp.Events))
		for _, ev := range resp.Events {
			revision = ev.Kv.ModRevision
			if revision <= p.at {
				continue // the listing had it
			}
			if c, ok := s.change(ev.Kv, ev.Type == clientv3.EventTypeDelete); ok {
				changes = append(changes, c)
			}
		}
		s.awaitMacros(ctx, ses, revision, changes)
		s.publish(revision, changes, p)
	}
	return nil
}

// awaitMacros waits, not for ever, until the feed shows the network macros that
// entries among the changes name. One that was made with its entry comes by another watch,
// perhaps later, and until then an entry that denies would deny nothing.
func (s *Store) awaitMacros(ctx context.Context, ses *session, revision int64, changes []tenant.Change) {
	lacking := false
	s.feed.View(func(st *tenant.State) {
		for _, c := range changes {
			e, _ := c.Value.(*tenant.Entry)
			if e == nil {
				continue
			}
			for _, side := range []tenant.Side{e.From, e.To} {
				k, _ := side.Key()
				lacking = lacking || k.Kind == tenant.KindNetworkMacro && st.NetworkMacros[k.ID] == nil
			}
		}
	})
	if lacking {
		ctx, cancel := context.WithTimeout(ctx, macroTime)
		defer cancel()
		_ = s.await(ctx, ses, s.common, revision, true) // an entry is better late than never
	}
}

// change is what a key of etcd means; ok is false if it is not an object, or one that
// cannot be read.
func (s *Store) change(kv *mvccpb.KeyValue, deleted bool) (c tenant.Change, ok bool) {
	if c.Key, ok = parseKey(string(kv.Key)); !ok || deleted {
		return c, ok
	}
	var err error
	if c.Value, err = decode(c.Key, kv); err != nil {
		s.log.WithError(err).WithField("key", string(kv.Key)).Error("an object in the store cannot be read and is ignored")
		return c, false
	}
	return c, true
}

// shown is the set of all keys of parts in the feed.
func (s *Store) shown(parts ...*part) map[tenant.Key]struct{} {
	names := map[string]bool{}
	for _, p := range parts {
		names[p.name] = true
	}
	keys := map[tenant.Key]struct{}{}
	s.feed.View(func(st *tenant.State) {
		if names[commonPart] {
			shownOf(keys, tenant.KindEnterprise, st.Enterprises, nil)
			shownOf(keys, tenant.KindHost, st.Hosts, nil)
			shownOf(keys, tenant.KindNetworkMacro, st.NetworkMacros, nil)
		}
		if names[networksPart] {
			shownOf(keys, tenant.KindNetwork, st.Networks, nil)
		}
		shownOf(keys, tenant.KindDomain, st.Domains, func(v *tenant.Domain) bool { return names[v.ID] })
		shownOf(keys, tenant.KindZone, st.Zones, func(v *tenant.Zone) bool { return names[v.DomainID] })
		shownOf(keys, tenant.KindSubnet, st.Subnets, func(v *tenant.Subnet) bool { return names[v.DomainID] })
		shownOf(keys, tenant.KindVport, st.Vports, func(v *tenant.Vport) bool { return names[v.DomainID] })
		shownOf(keys, tenant.KindPolicyGroup, st.PolicyGroups, func(v *tenant.PolicyGroup) bool { return names[v.DomainID] })
		shownOf(keys, tenant.KindPolicy, st.Policies, func(v *tenant.Policy) bool { return names[v.DomainID] })
		shownOf(keys, tenant.KindEntry, st.Entries, func(v *tenant.Entry) bool { return names[v.DomainID] })
		shownOf(keys, tenant.KindRateLimiter, st.RateLimiters, func(v *tenant.RateLimiter) bool { return names[v.DomainID] })
		shownOf(keys, tenant.KindLease, st.Leases, func(v *tenant.Lease) bool { return names[v.DomainID] })
	})
	return keys
}

func shownOf[T any](keys map[tenant.Key]struct{}, kind tenant.Kind, objects map[string]*T, ok func(*T) bool) {
	for id, v := range objects {
		if ok == nil || ok(v) {
			keys[tenant.Key{Kind: kind, ID: id}] = struct{}{}
		}
	}
}
