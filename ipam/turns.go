package ipam

import (
	"context"
	"sync"
)

// turns lets one caller at a time pass for each key.
type turns struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when the turn ends
}

// wait returns when it is the caller's turn; the function ends the turn.
func (t *turns) wait(ctx context.Context, key string) (func(), error) {
	for {
		t.mu.Lock()
		busy := t.held[key]
		if busy == nil {
			mine := make(chan struct{})
			t.held[key] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				defer t.mu.Unlock()
				delete(t.held, key)
				close(mine)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
