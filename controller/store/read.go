package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuage/controller/tenant"
)

// page is how many objects one request of a listing asks for.
const page = 2000

// Read is the whole state with the hosts' status and counters, as of one revision, which no write that
// has returned is newer than. It belongs to the caller. It costs as much as the state is
// large: it is for people and their tools, not for an attachment.
func (s *Store) Read(ctx context.Context) (*tenant.State, error) {
	ses, err := s.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer ses.release()
	ctx, cancel := ses.bound(ctx)
	defer cancel()
	st, alive := tenant.NewState(), map[string]bool{}
	st.Counters = map[string]*tenant.Counters{}
	st.Revision, err = scan(ctx, ses.client, 0, wholeFrom, wholeTo, func(kv *mvccpb.KeyValue) {
		key, value := string(kv.Key), kv.Value
		if host, ok := strings.CutPrefix(key, aliveKey("")); ok {
			alive[host] = true
		} else if host, ok := strings.CutPrefix(key, statusKey("")); ok {
			s.readStatus(st, host, value)
		} else if counters, ok := strings.CutPrefix(key, root+"counters/"); ok {
			s.readCounters(st, counters, value)
		} else if c, ok := s.change(kv, false); ok {
			st.Apply(c)
		}
	})
	if err != nil {
		return nil, s.unavailable(err)
	}
	for host := range alive {
		if st.HostStatus[host] == nil {
			st.HostStatus[host] = &tenant.HostStatus{Host: host}
		}
		st.HostStatus[host].Alive = true
	}
	return st, nil
}

func (s *Store) readStatus(st *tenant.State, host string, value []byte) {
	status := &tenant.HostStatus{}
	if err := json.Unmarshal(value, status); err != nil {
		s.log.WithError(err).WithField("host", host).Error("the status of a host cannot be read and is ignored")
		return
	}
	status.Host = host
	st.HostStatus[host] = status
}

// scan calls f with all keys in [from, to) as of one revision, which it returns: the given
// one, or the newest for 0.
func scan(ctx context.Context, client *clientv3.Client, revision int64, from, to string, f func(*mvccpb.KeyValue)) (int64, error) {
	for {
		resp, err := client.Get(ctx, from, clientv3.WithRange(to), clientv3.WithLimit(page), clientv3.WithRev(revision))
		if err != nil {
			return 0, fmt.Errorf("reading: %w", err)
		}
		if revision == 0 {
			revision = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			f(kv)
		}
		if !resp.More {
			return revision, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}
