package store

import (
	"context"
	"sync"
	"time"

	"nuage/controller/tenant"
)

// port is what Serving tells of the one TLS port.
type port struct {
	mu        sync.Mutex
	addr      string
	err       error
	authority *authority
	end       context.CancelFunc // of this life of the port
}

func (p *port) set(addr string, a *authority, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addr, p.authority, p.err = addr, a, err
}

// live begins a life of the port, which reopen ends.
func (p *port) live(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancel(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end = end
	return ctx, end
}

// reopen ends the port's life for the next one, if it is in use.
func (p *port) reopen() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.end != nil {
		p.addr, p.authority, p.err = "", nil, nil
		p.end()
	}
}

// Serving is the address on which other hosts are served; empty if none are to be. While
// it cannot be listened on it says why, as a tenant.ErrUnavailable.
func (s *Store) Serving() (addr string, err error) {
	if s.config.Listen == "" || len(s.config.Endpoints) > 0 {
		return "", nil
	}
	s.port.mu.Lock()
	defer s.port.mu.Unlock()
	if s.port.addr == "" && s.port.err == nil {
		return "", tenant.Errorf(tenant.ErrUnavailable, "listening on %s: not yet", s.config.Listen)
	}
	return s.port.addr, s.port.err
}

// open serves the embedded etcd to other hosts, if it is to be, and tries again while it
// cannot. It returns what ends that.
func (s *Store) open(ctx context.Context, conn *connection) (stop func()) {
	if s.config.Listen == "" || conn.etcd == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		said := ""
		for ctx.Err() == nil {
			life, end := s.port.live(ctx)
			err := s.listen(life, conn)
			again := life.Err() != nil // reopened
			end()
			if ctx.Err() != nil {
				break
			}
			if again {
				continue
			}
			s.port.set("", nil, tenant.Errorf(tenant.ErrUnavailable, "listening on %s: %v", s.config.Listen, err))
			if err.Error() != said {
				said = err.Error()
				s.log.WithError(err).Warn("other hosts cannot be served; trying again")
			}
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
		s.port.set("", nil, nil)
	}()
	return func() { cancel(); <-done }
}
