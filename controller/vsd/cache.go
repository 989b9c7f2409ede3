package vsd

import (
	"context"
	"time"

	"nuage/controller/tenant"
)

// keepTime is how long a state that nobody asks for is kept.
const keepTime = 10 * time.Second

// latest is the state last read, for the requests that follow in a burst, such as the
// pages of a list: they read the store anew only if anything has been written since.
type latest struct {
	turn   chan struct{} // of capacity 1; who has sent holds the rest
	state  *tenant.State
	forget *time.Timer
}

func newLatest() *latest {
	l := &latest{turn: make(chan struct{}, 1)}
	l.forget = time.AfterFunc(keepTime, func() {
		l.turn <- struct{}{}
		l.state = nil
		<-l.turn
	})
	return l
}

// read is the state as it is now. It is shared: nobody may change it.
func (l *latest) read(ctx context.Context, st Store) (*tenant.State, error) {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return nil, tenant.Errorf(tenant.ErrUnavailable, "store: not read in time")
	}
	l.forget.Reset(keepTime)
	if l.state != nil {
		revision, err := st.Revision(ctx)
		if err != nil {
			return nil, err
		}
		if revision == l.state.Revision {
			return l.state, nil
		}
	}
	s, err := st.Read(ctx)
	if err == nil {
		l.state = s
	}
	return s, err
}
