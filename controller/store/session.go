package store

import (
	"context"
	"errors"
	"strings"
	"sync"

	grpcstatus "google.golang.org/grpc/status"

	"nuage/controller/tenant"
)

// session is one connection to etcd, from its mirror's first listing to its end.
type session struct {
	*connection
	ctx     context.Context // ends with the session
	fail    context.CancelCauseFunc
	users   sync.WaitGroup // calls in flight
	watches sync.WaitGroup
}

// bound is ctx, ended also by the end of the session.
func (ses *session) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(ses.ctx, func() { cancel(context.Cause(ses.ctx)) })
	return ctx, func() { stop(); cancel(nil) }
}

func (ses *session) release() { ses.users.Done() }

// readiness is what Ready says and what acquire hands out. Exactly one of session and err is
// set, but while the store has not yet tried: then neither is, and writes wait.
type readiness struct {
	session *session
	err     error
	changed chan struct{}
}

// set replaces the status.
func (s *Store) set(ses *session, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.status.changed)
	s.status = readiness{session: ses, err: err, changed: make(chan struct{})}
}

// acquire returns the session for one write. While the store is still starting for the
// first time it waits; when it has failed it says why at once.
func (s *Store) acquire(ctx context.Context) (*session, error) {
	for {
		s.mu.Lock()
		now := s.status
		if now.session != nil {
			now.session.users.Add(1)
		}
		s.mu.Unlock()
		switch {
		case now.session != nil:
			return now.session, nil
		case now.err != nil:
			return nil, now.err
		}
		select {
		case <-now.changed:
		case <-ctx.Done():
			return nil, s.starting()
		}
	}
}

// Ready is nil while the store serves, and otherwise says why it does not, as a
// tenant.ErrUnavailable.
func (s *Store) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.status.err != nil:
		return s.status.err
	case s.status.session == nil:
		return s.starting()
	}
	return nil
}

// starting is why nothing is there before the first try has ended.
func (s *Store) starting() error {
	if len(s.config.Endpoints) > 0 {
		return tenant.Errorf(tenant.ErrUnavailable, "store: no answer yet from etcd at %s", strings.Join(s.config.Endpoints, ", "))
	}
	return tenant.Errorf(tenant.ErrUnavailable, "store: still starting")
}

// unavailable is the class of all that etcd itself refuses.
func (s *Store) unavailable(err error) error {
	if err == nil || errors.Is(err, tenant.ErrUnavailable) {
		return err
	}
	said := err.Error()
	if st, ok := grpcstatus.FromError(err); ok { // without "rpc error: code = …"
		said = st.Message()
	}
	return tenant.Errorf(tenant.ErrUnavailable, "store: %s", said)
}
