package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"nuage/controller/tenant"
)

// echo answers with who asks whom what.
func echo(host string) func(context.Context, string, []byte) []byte {
	return func(_ context.Context, asker string, question []byte) []byte {
		return fmt.Appendf(nil, "%s tells %s of %s", host, asker, question)
	}
}

func register(t testing.TB, s *Store, number int) {
	t.Helper()
	if err := s.PutHost(context10(t), record(s.config.Host, fmt.Sprint("192.0.2.", number))); err != nil {
		t.Fatal(err)
	}
	if err := s.Heartbeat(context10(t), tenant.HostStatus{Version: "1"}); err != nil {
		t.Fatal(err)
	}
}

// talked is whether anything of questions is in the store.
func talked(t testing.TB, s *Store) bool { return strings.Contains(dump(t, s), talkPrefix) }

// askAll lets every store ask every other, many times at once.
func askAll(t *testing.T, stores ...*Store) {
	t.Helper()
	for i, s := range stores {
		register(t, s, i+1)
	}
	var all sync.WaitGroup
	for _, from := range stores {
		for _, to := range stores {
			for i := range 20 {
				if from == to {
					continue
				}
				all.Go(func() {
					me, other, question := from.config.Host, to.config.Host, fmt.Sprint("matter ", i)
					want := fmt.Sprintf("%s tells %s of %s", other, me, question)
					if got, err := from.Ask(context10(t), other, []byte(question)); err != nil || string(got) != want {
						t.Errorf("%s asks %s: %q, %v", me, other, got, err)
					}
				})
			}
		}
	}
	all.Wait()
	until(t, "nothing is left of the questions", func() bool { return !talked(t, stores[0]) })
}

// TestAsk: hosts that have joined one that serves ask each other, and it. Nothing is refused
// there: that would be logged.
func TestAsk(t *testing.T) {
	t.Parallel()
	s, _ := serving(t, Config{Answer: echo("serving")})
	stores := []*Store{s}
	for _, host := range []string{"h1", "h2"} {
		c := join(t, s, host)
		f, _ := start(t, Config{Endpoints: c.Endpoints, TLS: c.TLS, Host: host, Answer: echo(host)})
		stores = append(stores, f)
	}
	askAll(t, stores...)
}

// TestAskElsewhere: the same through an etcd that is not nuage's.
func TestAskElsewhere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	start(t, Config{Dir: dir, Host: "owner"})
	one, _ := startFar(t, dir, Config{Host: "h1", Answer: echo("h1")})
	two, _ := startFar(t, dir, Config{Host: "h2", Answer: echo("h2")})
	askAll(t, one, two)
}

// TestAskSlow: a question lapses before a host that is slow comes to it, and is asked again.
func TestAskSlow(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := start(t, Config{Dir: dir, Host: "h1"})
	register(t, s, 1)
	var asked atomic.Int32
	slow, _ := startFar(t, dir, Config{Host: "h2", Answer: func(context.Context, string, []byte) []byte {
		if asked.Add(1) == 1 {
			time.Sleep((askLease + 1) * time.Second)
		}
		return []byte("at last")
	}})
	register(t, slow, 2)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if answer, err := s.Ask(ctx, "h2", nil); err != nil || string(answer) != "at last" {
		t.Errorf("%q, %v after %d questions", answer, err, asked.Load())
	}
}

// TestAskNobody: who cannot be asked, and why.
func TestAskNobody(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := start(t, Config{Dir: dir, Host: "h1"})
	register(t, s, 1)
	deaf, stop := startFar(t, dir, Config{Host: "h2"}) // of a version that does not answer
	register(t, deaf, 2)
	wordy, _ := startFar(t, dir, Config{Host: "h3", Answer: func(context.Context, string, []byte) []byte { return nil }})
	register(t, wordy, 3)
	ask := func(host string, size int, class error, words ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		begin := time.Now()
		_, err := s.Ask(ctx, host, bytes.Repeat([]byte("x"), size))
		if !errors.Is(err, class) {
			t.Fatalf("%s: %v", host, err)
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q", host, err, w)
			}
		}
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("%s: told after %s", host, took)
		}
	}
	ask("h9", 1, tenant.ErrNotFound, "host h9: there is no such host")
	ask("h1", 1, tenant.ErrInvalid, "itself")
	ask("h2", maxQuestion+1, tenant.ErrInvalid, "more than 4096")
	ask("h2", maxQuestion, tenant.ErrUnavailable, "host h2: no answer within ", "; its plugin was last heard of at "+mustRead(t, s).HostStatus["h2"].Seen.Format(time.RFC3339))
	stop()
	ask("h2", 1, tenant.ErrUnavailable, "host h2: its plugin is not alive since "+mustRead(t, s).HostStatus["h2"].Seen.Format(time.RFC3339))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Ask(ctx, "h3", nil); err == nil {
		t.Error("a question whose asker has gone is answered")
	}
	if got, err := s.Ask(context10(t), "h3", nil); err != nil || len(got) != 0 {
		t.Errorf("an empty answer: %q, %v", got, err)
	}
	until(t, "nothing is left of the questions", func() bool { return !talked(t, s) })
}

// TestAskerDies: a question, and its answer, end with the lease of who asked and is no more.
func TestAskerDies(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := start(t, Config{Dir: dir, Host: "h1", Answer: echo("h1")})
	register(t, s, 1)
	ses, err := s.acquire(context10(t))
	if err != nil {
		t.Fatal(err)
	}
	defer ses.release()
	lease, err := ses.client.Grant(context10(t), askLease)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ses.client.Put(context10(t), askedKey("h1", "h2", 3), "it", clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	until(t, "it is answered", func() bool { return strings.Contains(dump(t, s), answeredKey("h1", "h2", 3)) })
	until(t, "nothing is left of it", func() bool { return !talked(t, s) })

	// A host that comes back at once asks anew in the same slot, with another answer waiting.
	second, _ := startFar(t, dir, Config{Host: "h2"})
	lease, err = ses.client.Grant(context10(t), askLease)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ses.client.Put(context10(t), answeredKey("h1", "h2", 0), "of before", clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	if got, err := second.Ask(context10(t), "h1", []byte("this")); err != nil || string(got) != "h1 tells h2 of this" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestAskedBefore: a host that comes back answers what it was asked meanwhile.
func TestAskedBefore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := start(t, Config{Dir: dir, Host: "h1"})
	ses, err := s.acquire(context10(t))
	if err != nil {
		t.Fatal(err)
	}
	defer ses.release()
	lease, err := ses.client.Grant(context10(t), 10*askLease)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ses.client.Put(context10(t), askedKey("h2", "h1", 5), "it", clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	startFar(t, dir, Config{Host: "h2", Answer: echo("h2")})
	until(t, "it is answered", func() bool { return strings.Contains(dump(t, s), "h2 tells h1 of it") })
}

// TestAskedTooMuch: a host that asks without end, past all that Ask keeps to, is answered a
// bounded number of times, and others are answered all the while.
func TestAskedTooMuch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var flooded, now, most atomic.Int64
	s, _ := start(t, Config{Dir: dir, Host: "h1", Answer: func(ctx context.Context, asker string, question []byte) []byte {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		time.Sleep(5 * time.Millisecond)
		if asker == "bad" {
			flooded.Add(1)
		}
		return question
	}})
	register(t, s, 1)
	other, _ := startFar(t, dir, Config{Host: "h2"})
	ses, err := s.acquire(context10(t))
	if err != nil {
		t.Fatal(err)
	}
	defer ses.release()
	lease, err := ses.client.Grant(context10(t), askLease)
	if err != nil {
		t.Fatal(err)
	}
	begin, puts := time.Now(), 0
	for i := 0; time.Since(begin) < time.Second; i++ {
		for _, key := range []string{askedKey("h1", "bad", i%maxAsking), askedPrefix("h1") + "bad/77", askedPrefix("h1") + "/0", askedPrefix("h1") + "bad"} {
			if _, err := ses.client.Put(context10(t), key, strings.Repeat("x", i%maxQuestion), clientv3.WithLease(lease.ID)); err != nil {
				t.Fatal(err)
			}
			puts++
		}
		if i%50 == 0 {
			if got, err := other.Ask(context10(t), "h1", []byte("mine")); err != nil || string(got) != "mine" {
				t.Errorf("beside the flood: %q, %v", got, err)
			}
		}
	}
	bound := int64(time.Since(begin)/answerPace + 2)
	if n := flooded.Load(); n == 0 || n > bound || most.Load() > maxAnswered {
		t.Errorf("of %d questions %d were answered, %d at once; at most %d and %d", puts, n, most.Load(), bound, maxAnswered)
	}
	before := flooded.Load()
	for key, value := range map[string]string{askedKey("h1", "bad", 0): strings.Repeat("x", maxQuestion+1), askedKey("h1", "endless", 1): "no lease"} {
		if _, err := ses.client.Put(context10(t), key, value); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := other.Ask(context10(t), "h1", nil); err != nil {
		t.Error(err)
	}
	if got := dump(t, s); strings.Contains(got, answeredKey("h1", "endless", 1)) || flooded.Load() > before+maxAsking {
		t.Error("what is too large, or would be left behind, is answered")
	}
}

// TestHostsAskOnlyForThemselves: with a valid certificate a host asks others in its own name,
// with a lease, and answers what it is asked; all else is refused, and nothing changes.
func TestHostsAskOnlyForThemselves(t *testing.T) {
	t.Parallel()
	s, _ := runServing(t, Config{CADir: filepath.Join(t.TempDir(), "ca")})
	register(t, s, 1)
	h1 := far(t, s, "h1")
	register(t, h1, 2)
	creds := join(t, s, "h2")
	h2, _ := start(t, Config{Endpoints: creds.Endpoints, TLS: creds.TLS, Host: "h2"})
	register(t, h2, 3)
	cl, ctx := client(t, creds), contextMinute(t)
	grant := func(cl *clientv3.Client) clientv3.LeaseID {
		t.Helper()
		lease, err := cl.Grant(ctx, askLease)
		if err != nil {
			t.Fatal(err)
		}
		return lease.ID
	}
	// h1 asks h2, and h2 asks h1.
	ses, err := h1.acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer ses.release()
	theirs, mine, other := grant(ses.client), grant(cl), grant(cl)
	for lease, c := range map[clientv3.LeaseID]struct {
		cl  *clientv3.Client
		key string
	}{theirs: {ses.client, askedKey("h2", "h1", 0)}, mine: {cl, askedKey("h1", "h2", 0)}} {
		if resp, err := c.cl.Txn(ctx).Then(opPut(c.key, "what", clientv3.WithLease(lease))).Commit(); err != nil || !resp.Succeeded {
			t.Fatalf("%s: %v", c.key, err)
		}
	}
	before := dump(t, s)
	for name, op := range map[string]clientv3.Op{
		"a question in another's name":           opPut(askedKey("serving", "h1", 0), "what", clientv3.WithLease(mine)),
		"a question without a lease":             opPut(askedKey("h1", "h2", 1), "what"),
		"a question with another's lease":        opPut(askedKey("h1", "h2", 1), "what", clientv3.WithLease(theirs)),
		"a question to nobody":                   opPut(askedKey("h9", "h2", 1), "what", clientv3.WithLease(mine)),
		"a question to itself":                   opPut(askedKey("h2", "h2", 1), "what", clientv3.WithLease(mine)),
		"a question in no slot":                  opPut(askedKey("h1", "h2", maxAsking), "what", clientv3.WithLease(mine)),
		"a question in slot 00":                  opPut(askedKey("h1", "h2", 0)+"0", "what", clientv3.WithLease(mine)),
		"a question beneath a slot":              opPut(askedKey("h1", "h2", 0)+"/0", "what", clientv3.WithLease(mine)),
		"a question of no asker":                 opPut(askedPrefix("h1")+"/0", "what", clientv3.WithLease(mine)),
		"a question too large":                   opPut(askedKey("h1", "h2", 1), strings.Repeat("x", maxQuestion+1), clientv3.WithLease(mine)),
		"neither question nor answer":            opPut(talkPrefix+"said/h1/h2/0", "what", clientv3.WithLease(mine)),
		"an answer that another owes":            opPut(answeredKey("h1", "h2", 0), "that", clientv3.WithLease(mine)),
		"an answer to no question":               opPut(answeredKey("h2", "h1", 1), "that", clientv3.WithLease(theirs)),
		"an answer without a lease":              opPut(answeredKey("h2", "h1", 0), "that"),
		"an answer with another lease":           opPut(answeredKey("h2", "h1", 0), "that", clientv3.WithLease(other)),
		"an answer too large":                    opPut(answeredKey("h2", "h1", 0), strings.Repeat("x", MaxAnswer+1), clientv3.WithLease(theirs)),
		"the own record with a question's lease": opPut(hostKey("h2"), text(t, record("h2", "192.0.2.3")), clientv3.WithLease(theirs)),
		"deleting another's question":            opDelete(askedKey("h2", "h1", 0)),
		"deleting all questions":                 opDelete(talkPrefix, clientv3.WithPrefix()),
	} {
		if _, err := cl.Txn(ctx).Then(op).Commit(); grpcstatus.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: %v", name, err)
		}
		if after := dump(t, s); after != before {
			t.Fatalf("%s changed:\n%s\nto\n%s", name, before, after)
		}
	}
	if _, err := cl.Revoke(ctx, theirs); grpcstatus.Code(err) != codes.PermissionDenied {
		t.Errorf("ending another's question: %v", err)
	}
	resp, err := cl.Txn(ctx).Then(opPut(answeredKey("h2", "h1", 0), strings.Repeat("x", MaxAnswer), clientv3.WithLease(theirs))).Commit()
	if err != nil || !resp.Succeeded {
		t.Errorf("an answer: %v", err)
	}
	if _, err := ses.client.Revoke(ctx, theirs); err != nil || strings.Contains(dump(t, s), talkPrefix+"answered/") {
		t.Errorf("an answer outlives its question: %v", err)
	}
}
