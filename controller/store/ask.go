package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuage/controller/tenant"
)

const (
	maxQuestion = 4 << 10
	// maxAsking is how many questions this host has open, so that its leases stay few.
	maxAsking = 8
	// askLease is how many seconds a question and its answer stay at most that nobody waits for.
	askLease   = 5
	revokeTime = 500 * time.Millisecond
	// Of the hosts that ask, maxHeard are heard at once; those of one are answered answerPace
	// apart, and maxAnswered of all at once.
	maxHeard    = 1024
	maxAnswered = 4
	answerPace  = 20 * time.Millisecond
	answerTime  = 3 * time.Second
)

// MaxAnswer is how many bytes an answer may have.
const MaxAnswer = maxValue

// Ask asks another host, and returns what its Config.Answer says. It waits as long as ctx
// lasts. A host that is not registered is tenant.ErrNotFound; one whose plugin does not run,
// or does not answer in time, as one of an older version, is tenant.ErrUnavailable. Nothing
// of a question is left in the store, whatever ends meanwhile.
func (s *Store) Ask(ctx context.Context, host string, question []byte) ([]byte, error) {
	begin := time.Now()
	switch {
	case host == s.config.Host:
		return nil, tenant.Errorf(tenant.ErrInvalid, "host %s: a host does not ask itself", host)
	case len(question) > maxQuestion:
		return nil, tenant.Errorf(tenant.ErrInvalid, "host %s: a question of %d bytes is more than %d", host, len(question), maxQuestion)
	}
	var slot int
	select {
	case slot = <-s.asking:
		defer func() { s.asking <- slot }()
	case <-ctx.Done():
		return nil, tenant.Errorf(tenant.ErrUnavailable, "host %s: not asked: %d other questions are not answered yet", host, maxAsking)
	}
	ses, err := s.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer ses.release()
	ctx, cancel := ses.bound(ctx)
	defer cancel()
	seen, err := s.living(ctx, ses, host)
	for again := err == nil; again; {
		var answer []byte
		attempt, cancel := context.WithTimeout(ctx, askLease*time.Second) // when the question lapses
		answer, err = s.exchange(attempt, ses, host, slot, string(question))
		again = attempt.Err() != nil && ctx.Err() == nil
		cancel()
		if err == nil {
			return answer, nil
		}
	}
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return nil, tenant.Errorf(tenant.ErrUnavailable, "host %s: no answer within %s%s", host, time.Since(begin).Round(100*time.Millisecond), lastSeen("; its plugin was last heard of at ", seen))
	}
	return nil, err
}

func lastSeen(words string, seen time.Time) string {
	if seen.IsZero() {
		return ""
	}
	return words + seen.UTC().Format(time.RFC3339)
}

// living is nil for a host whose plugin runs, as far as the store knows, and says when it
// was heard of last.
func (s *Store) living(ctx context.Context, ses *session, host string) (seen time.Time, err error) {
	r := s.reader(ctx, ses)
	status, err := r.status(host)
	if err != nil {
		return seen, err
	}
	kvs, err := r.get(r.at(hostKey(host)), r.at(aliveKey(host)))
	alive := slices.ContainsFunc(kvs, func(kv *mvccpb.KeyValue) bool { return string(kv.Key) == aliveKey(host) })
	switch {
	case err != nil:
	case r.st.Hosts[host] == nil:
		err = tenant.Errorf(tenant.ErrNotFound, "host %s: there is no such host", host)
	case !alive:
		err = tenant.Errorf(tenant.ErrUnavailable, "host %s: its plugin is not alive%s", host, lastSeen(" since ", status.Seen))
	}
	return status.Seen, err
}

// exchange puts the question and waits for the answer. What is there of an earlier question
// of this slot is older than this one, and no answer to it can follow.
func (s *Store) exchange(ctx context.Context, ses *session, host string, slot int, question string) ([]byte, error) {
	lease, err := ses.client.Grant(ctx, askLease)
	if err != nil {
		return nil, s.refused(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(ses.ctx, revokeTime)
		defer cancel()
		_, _ = ses.client.Revoke(ctx, lease.ID) // else it lapses by itself
	}()
	resp, err := ses.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(hostKey(host)), ">", 0)).
		Then(clientv3.OpPut(askedKey(host, s.config.Host, slot), question, clientv3.WithLease(lease.ID))).Commit()
	if err == nil && !resp.Succeeded {
		err = tenant.Errorf(tenant.ErrUnavailable, "host %s: it changes just now; ask again", host)
	}
	if err != nil {
		return nil, s.refused(err)
	}
	watch := ses.client.Watch(ctx, answeredKey(host, s.config.Host, slot), clientv3.WithRev(resp.Header.Revision+1), clientv3.WithFilterDelete())
	for got := range watch {
		for _, ev := range got.Events {
			if len(ev.Kv.Value) > MaxAnswer {
				return nil, tenant.Errorf(tenant.ErrUnavailable, "host %s: an answer of %d bytes is more than %d", host, len(ev.Kv.Value), MaxAnswer)
			}
			return ev.Kv.Value, nil
		}
		if err := got.Err(); err != nil {
			return nil, s.refused(fmt.Errorf("watching: %w", err))
		}
	}
	return nil, s.unavailable(context.Cause(ctx))
}

// hear answers what other hosts ask, until the session ends: what is asked already, and what
// comes. A watch that fails is made anew.
func (s *Store) hear(ses *session) {
	s.count(1)
	defer s.count(-1)
	d := &desk{store: s, ses: ses, heard: map[string]map[int]*mvccpb.KeyValue{}, free: make(chan struct{}, maxAnswered)}
	defer d.working.Wait()
	prefix := askedPrefix(s.config.Host)
	for ses.ctx.Err() == nil {
		if now, err := ses.client.Get(ses.ctx, prefix, clientv3.WithPrefix(), clientv3.WithLimit(page)); err == nil {
			for _, kv := range now.Kvs {
				d.take(kv)
			}
			ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ses.ctx))
			for got := range ses.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithFilterDelete(), clientv3.WithRev(now.Header.Revision+1)) {
				for _, ev := range got.Events {
					d.take(ev.Kv)
				}
			}
			cancel()
		}
		select {
		case <-ses.ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// desk is where the questions of others wait. A host may put as many as it likes: of those by
// one key only the newest is known, and all of a host's take turns.
type desk struct {
	store   *Store
	ses     *session
	free    chan struct{} // holds one token for each question that is being answered
	working sync.WaitGroup

	mu    sync.Mutex
	heard map[string]map[int]*mvccpb.KeyValue // by who asks, while that is worked on, and slot
}

func (d *desk) take(question *mvccpb.KeyValue) {
	key := string(question.Key)
	asker, slot, ok := parseAsked(d.store.config.Host, key)
	if !ok || question.Lease == 0 || len(question.Value) > maxQuestion {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	waiting := d.heard[asker]
	switch {
	case waiting != nil:
	case len(d.heard) >= maxHeard:
		return
	default:
		waiting = map[int]*mvccpb.KeyValue{}
		d.heard[asker] = waiting
		d.working.Go(func() { d.work(asker) })
	}
	waiting[slot] = question
}

// work answers what a host asks until nothing more comes.
func (d *desk) work(asker string) {
	for {
		slot, question := d.next(asker)
		if question == nil {
			return
		}
		d.answer(asker, slot, question)
		select {
		case <-d.ses.ctx.Done():
		case <-time.After(answerPace):
		}
	}
}

// next takes a question of a host, and forgets the host if there is none.
func (d *desk) next(asker string) (slot int, question *mvccpb.KeyValue) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for slot, question := range d.heard[asker] {
		if d.ses.ctx.Err() == nil {
			delete(d.heard[asker], slot)
			return slot, question
		}
	}
	delete(d.heard, asker)
	return 0, nil
}

// answer puts the answer beside the question, for as long as that is the one that is asked.
func (d *desk) answer(asker string, slot int, question *mvccpb.KeyValue) {
	ctx, cancel := context.WithTimeout(d.ses.ctx, answerTime)
	defer cancel()
	select {
	case d.free <- struct{}{}:
		defer func() { <-d.free }()
	case <-ctx.Done():
		return
	}
	host := d.store.config.Host
	answer := d.store.config.Answer(ctx, asker, question.Value)
	if len(answer) > MaxAnswer {
		d.store.log.WithField("host", asker).Errorf("an answer of %d bytes to another host is more than %d and is not given", len(answer), MaxAnswer)
		return
	}
	_, err := d.ses.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(string(question.Key)), "=", question.ModRevision)).
		Then(clientv3.OpPut(answeredKey(host, asker, slot), string(answer), clientv3.WithLease(clientv3.LeaseID(question.Lease)))).Commit()
	if err != nil {
		d.store.log.WithError(err).WithField("host", asker).Debug("another host is not answered")
	}
}

// parseAsked takes apart the key of a question to a host.
func parseAsked(host, key string) (asker string, slot int, ok bool) {
	asker, last, _ := strings.Cut(strings.TrimPrefix(key, askedPrefix(host)), "/")
	if len(last) != 1 || last[0] < '0' || last[0] >= '0'+maxAsking {
		return "", 0, false
	}
	slot = int(last[0] - '0')
	return asker, slot, asker != "" && key == askedKey(host, asker, slot)
}
