package vsd

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"nuage/controller/tenant"
)

// counted is a real store whose reads are counted.
type counted struct {
	Store
	reads atomic.Int32
}

func (s *counted) Read(ctx context.Context) (*tenant.State, error) {
	s.reads.Add(1)
	return s.Store.Read(ctx)
}

// TestReadAnew checks that a burst of requests reads the store once, and that what anybody
// writes is seen by the next request all the same.
func TestReadAnew(t *testing.T) {
	far := newBench(t)
	st := &counted{Store: far.store}
	b := far.over(st)
	var burst sync.WaitGroup
	for range 20 {
		burst.Go(func() {
			if status, _, text := b.call("GET", "/nuage/v1/enterprises", ""); status != 200 {
				t.Errorf("%d %s", status, text)
			}
		})
	}
	burst.Wait()
	if n := st.reads.Load(); n != 1 {
		t.Errorf("%d reads for a burst", n)
	}
	for i := range 10 {
		far.post("enterprises", fmt.Sprintf(`{"name":"E%d"}`, i))
		if got := b.objects(http.StatusOK, "GET", "enterprises", ""); len(got) != i+1 {
			t.Errorf("%d enterprises, want %d", len(got), i+1)
		}
	}
	if n := st.reads.Load(); n != 11 {
		t.Errorf("%d reads after 10 writes", n)
	}
}

// TestForget checks that a state is not kept for ever, and is read anew after that.
func TestForget(t *testing.T) {
	st := &counted{Store: newBench(t).store}
	l := newLatest()
	for want := range int32(3) {
		if _, err := l.read(t.Context(), st); err != nil || st.reads.Load() != want+1 {
			t.Errorf("%d reads, want %d: %v", st.reads.Load(), want+1, err)
		}
		l.forget.Reset(0)
		for kept := true; kept; {
			l.turn <- struct{}{}
			kept = l.state != nil
			<-l.turn
		}
	}
	l.turn <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.read(ctx, st); err == nil {
		t.Error("a read that waits has no end")
	}
}
