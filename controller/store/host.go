package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuage/controller/tenant"
)

// aliveTime is how long a host counts as alive after its last sign.
const aliveTime = 15 * time.Second

// self is this host's presence: what tells others that it is alive, and that its name is
// taken.
type self struct {
	turn     chan struct{} // holds one token while a registration or heartbeat is under way
	instance string
	lease    clientv3.LeaseID // 0 for none
	host     *tenant.Host     // as registered last
	// The revision of the last restoration, as told with the last heartbeat, and the one
	// after which this host has looked at what it has: see revisit.
	restored int64
	visited  atomic.Int64
}

func (p *self) take(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return tenant.Errorf(tenant.ErrUnavailable, "store: this host is still being registered")
	}
}

func (p *self) give() { <-p.turn }

// sign is the value of an alive key.
type sign struct {
	// Instance tells two hosts of one name from one host that has restarted.
	Instance string `json:"instance"`
}

// PutHost writes a host; Revision, if set, must be its last. The same again changes nothing.
// The name of another host that is alive is tenant.ErrConflict, and so is the VTEP of another
// host, alive or not: packets for the one would go to the other. To write this host is to
// be alive for a while, which Heartbeat prolongs.
func (s *Store) PutHost(ctx context.Context, h tenant.Host) error {
	if err := h.Validate(); err != nil {
		return fmt.Errorf("host: %w", err)
	}
	own := h.ID == s.config.Host
	if !own {
		return s.putHost(ctx, h, nil)
	}
	if err := s.self.take(ctx); err != nil {
		return err
	}
	defer s.self.give()
	if err := s.present(ctx, &h); err != nil {
		return err
	}
	h.Revision = 0 // of the next registration
	s.self.host = &h
	return nil
}

// putHost writes a host, and with it the sign of life that is given.
func (s *Store) putHost(ctx context.Context, h tenant.Host, life func(*txn, *tenant.State, *mvccpb.KeyValue) error) error {
	var alive *mvccpb.KeyValue
	read := func(r *reader) error {
		alive = nil
		kvs, err := r.get(r.at(hostKey(""), clientv3.WithPrefix()), r.at(aliveKey(h.ID)))
		for _, kv := range kvs {
			if string(kv.Key) == aliveKey(h.ID) {
				alive = kv
			}
		}
		return err
	}
	_, err := create(ctx, s, h, read, func(st *tenant.State, t *txn, h *tenant.Host) error {
		if life == nil && alive != nil {
			return nameTaken(st, h.ID)
		}
		if err := putWhole(s, tenant.KindHost, st.Hosts[h.ID], h, hostKey(h.ID), t); err != nil {
			return err
		}
		if len(t.operations) > 0 && h.VTEP.IsValid() {
			for _, other := range st.Hosts {
				if sameVTEP(h, other) {
					return tenant.Errorf(tenant.ErrConflict, "host %s: VTEP %s is host %s's: give this host an underlay address of its own, or evict %s if it is gone", h.ID, h.VTEP, other.ID, other.ID)
				}
			}
			t.still(hostKey(""), st.Revision)
		}
		if life == nil {
			t.absent(aliveKey(h.ID))
			return nil
		}
		return life(t, st, alive)
	})
	return err
}

// sameVTEP tells whether another host has the VTEP of h.
func sameVTEP(h, other *tenant.Host) bool {
	return other.ID != h.ID && other.VTEP.IsValid() && other.VTEP.Unmap() == h.VTEP.Unmap()
}

func nameTaken(st *tenant.State, name string) error {
	at := ""
	if h := st.Hosts[name]; h != nil && h.VTEP.IsValid() {
		at = " at " + h.VTEP.String()
	}
	return tenant.Errorf(tenant.ErrConflict, "host %s: another host of this name is alive%s: every host needs a name of its own", name, at)
}

// present registers h, or, for nil, what was registered last, with a sign of life.
func (s *Store) present(ctx context.Context, h *tenant.Host) error {
	want, err := s.sign()
	if err != nil {
		return err
	}
	lease, err := s.prolong(ctx)
	if err != nil {
		return err
	}
	life := func(t *txn, st *tenant.State, have *mvccpb.KeyValue) error {
		key := aliveKey(s.config.Host)
		switch {
		case have == nil:
			t.absent(key)
		case string(have.Value) != want:
			return nameTaken(st, s.config.Host)
		case len(t.operations) == 0 && clientv3.LeaseID(have.Lease) == lease:
			return nil // alive and as registered
		default:
			t.unchanged(key, have.ModRevision)
		}
		t.operations = append(t.operations, clientv3.OpPut(key, want, clientv3.WithLease(lease)))
		return nil
	}
	return s.putHost(ctx, *h, life)
}

// sign is this host's value of its alive key. The instance outlives this process, so that
// its successor need not wait until the name is free, but not this boot of the machine, so
// that a copy of the machine is another host.
func (s *Store) sign() (string, error) {
	if s.self.instance == "" {
		kept, err := s.kept()
		if err != nil {
			return "", err
		}
		boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // another system has none: then copies are not told
		s.self.instance = strings.TrimSpace(kept + " " + string(boot))
	}
	b, err := json.Marshal(sign{s.self.instance})
	return string(b), err
}

// kept is an ID that is made once and kept in the store's directory, if it has one.
func (s *Store) kept() (string, error) {
	if s.config.Dir == "" {
		return uuid.NewString(), nil
	}
	file := filepath.Join(s.config.Dir, "instance")
	b, err := os.ReadFile(file)
	if id := strings.TrimSpace(string(b)); err == nil && tenant.ValidateID(id) == nil {
		return id, nil
	}
	id := uuid.NewString()
	return id, os.WriteFile(file, []byte(id+"\n"), 0o600)
}

// prolong keeps the lease of the sign of life, or grants one where there is none any more.
func (s *Store) prolong(ctx context.Context) (clientv3.LeaseID, error) {
	ses, err := s.acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer ses.release()
	ctx, cancel := ses.bound(ctx)
	defer cancel()
	if s.self.lease != 0 {
		_, err := ses.client.KeepAliveOnce(ctx, s.self.lease)
		if err == nil {
			return s.self.lease, nil
		}
		if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return 0, s.refused(err)
		}
	}
	resp, err := ses.client.Grant(ctx, int64(s.config.Alive/time.Second))
	if err != nil {
		return 0, s.refused(err)
	}
	s.self.lease = resp.ID
	return resp.ID, nil
}

// Heartbeat tells others that this host is alive, and its status, whose Host, Seen and, if
// nil, Domains it sets. To be called every few seconds, well below the 15 after which a
// host that is not heard of counts as dead. A host that was registered and is so no more,
// as after an eviction, is registered again. Another living host of the same name is
// tenant.ErrConflict.
func (s *Store) Heartbeat(ctx context.Context, status tenant.HostStatus) error {
	if err := s.self.take(ctx); err != nil {
		return err
	}
	defer s.self.give()
	want, err := s.sign()
	if err != nil {
		return err
	}
	if _, err := s.prolong(ctx); err != nil {
		return err
	}
	host := s.config.Host
	status.Host, status.Seen = host, s.now()
	if status.Domains == nil {
		status.Domains = s.Following().Domains
	}
	// Twice: the second time after having registered.
	for range 2 {
		var here bool
		if here, err = s.tell(ctx, want, status); err != nil {
			return err
		}
		if here {
			return s.revisit(ctx)
		}
		if s.self.host == nil {
			return fmt.Errorf("host %s: %w: it has not been registered", host, tenant.ErrNotFound)
		}
		if err = s.present(ctx, s.self.host); err != nil {
			return err
		}
	}
	return tenant.Errorf(tenant.ErrUnavailable, "host %s: removed while it was being registered", host)
}

// tell writes the status if the host is registered and its sign of life stands.
func (s *Store) tell(ctx context.Context, want string, status tenant.HostStatus) (here bool, err error) {
	ses, err := s.acquire(ctx)
	if err != nil {
		return false, err
	}
	defer ses.release()
	ctx, cancel := ses.bound(ctx)
	defer cancel()
	t := newTxn()
	t.exists(hostKey(status.Host))
	t.conditions = append(t.conditions, clientv3.Compare(clientv3.Value(aliveKey(status.Host)), "=", want))
	t.put(statusKey(status.Host), status)
	if t.err != nil {
		return false, t.err
	}
	resp, err := ses.client.Txn(ctx).If(t.conditions...).Then(append(t.operations, clientv3.OpGet(restoredKey))...).Commit()
	if err != nil {
		return false, s.refused(err)
	}
	if resp.Succeeded {
		s.self.restored = 0
		for _, kv := range resp.Responses[len(resp.Responses)-1].GetResponseRange().Kvs {
			s.self.restored = kv.ModRevision
		}
	}
	return resp.Succeeded, nil
}

// goodbye ends the sign of life, so that others need not wait to see that this host is gone.
func (s *Store) goodbye(conn *connection) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.self.take(ctx) != nil {
		return
	}
	defer s.self.give()
	if s.self.lease == 0 {
		return
	}
	_, _ = conn.client.Revoke(ctx, s.self.lease) // else it lapses by itself
	s.self.lease = 0
}

// DeleteHost removes the record of a host with its counters, and nothing else of it: see
// EvictHost. An unknown one is fine.
func (s *Store) DeleteHost(ctx context.Context, id string) error {
	_, err := s.write(ctx, func(r *reader) error { return r.objects(hostKey(id)) }, func(st *tenant.State, t *txn) error {
		if have := st.Hosts[id]; have != nil {
			t.unchanged(hostKey(id), have.Revision)
			t.delete(hostKey(id))
			t.deletePrefix(countersPrefix(id))
		}
		return nil
	})
	return err
}

// status reads what a host has told last.
func (r *reader) status(host string) (status tenant.HostStatus, err error) {
	kvs, err := r.get(r.at(statusKey(host)))
	if err == nil && len(kvs) > 0 {
		if err := json.Unmarshal(kvs[0].Value, &status); err != nil {
			r.store.log.WithError(err).WithField("host", host).Error("the status of a host cannot be read and is ignored")
			return tenant.HostStatus{}, nil
		}
	}
	return status, err
}
