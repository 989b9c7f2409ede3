package main

import (
	"context"
	"errors"
	"sync"

	"nuage/controller/store"
	"nuage/controller/tenant"
)

// registration is whether this host is in the store under its name. While another of that
// name is alive, what is there under the name is that one's: nothing of it is settled, adopted
// or collected here, and nothing new is put beside it.
type registration struct {
	mu   sync.Mutex
	once bool  // it has been registered
	err  error // why it may not be
}

// note notes how an attempt ended.
func (r *registration) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.once, r.err = true, nil
	case errors.Is(err, tenant.ErrConflict):
		r.err = err
	}
}

// denied is why this host may not be registered, nil if it may or that is not known yet.
func (r *registration) denied() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// missing is nil when the host is registered.
func (r *registration) missing() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil && !r.once {
		return tenant.Errorf(tenant.ErrUnavailable, "this host is not registered yet")
	}
	return r.err
}

// ownStore is the store as it is ready for this host.
type ownStore struct {
	*store.Store
	ready func() error
}

func (s ownStore) Ready() error {
	if err := s.Store.Ready(); err != nil {
		return err
	}
	return s.ready()
}

// register puts this host into the store, before anything is done in its name.
func (n *node) register(ctx context.Context) error {
	err := n.store.PutHost(ctx, n.self())
	n.registration.note(err)
	return err
}

// problem is why nothing new is attached; nil if it may be.
func (n *node) problem() error {
	if err := n.settings.Err(); err != nil {
		return err
	}
	return n.denied()
}
