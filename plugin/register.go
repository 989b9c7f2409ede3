package main

import (
	"context"
	"sync"
	"time"

	"nuage/controller/store"
	"nuage/controller/tenant"
	"nuage/driver"
	"nuage/ipam"
)

// startPatience is how long verbs wait for a node that starts. Later they are told at once: an
// engine that boots sends three of them for each container that it had.
const startPatience = 5 * time.Second

// gate keeps verbs waiting while the node starts, which takes milliseconds, or tells them
// why it does not.
type gate struct {
	opened chan struct{}
	late   chan struct{} // closed when nobody is to wait any more
	node   *node

	mu  sync.Mutex
	why error
}

func newGate() *gate {
	g := &gate{opened: make(chan struct{}), late: make(chan struct{})}
	time.AfterFunc(startPatience, func() { close(g.late) })
	return g
}

func (g *gate) open(n *node) {
	g.node = n
	close(g.opened)
}

func (g *gate) closedBecause(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.why = err
}

func (g *gate) pass(ctx context.Context) (*node, error) {
	select {
	case <-g.opened:
	case <-g.late:
	case <-ctx.Done():
	}
	select {
	case <-g.opened: // of several that are ready, select takes any
		return g.node, nil
	default:
		return nil, g.reason()
	}
}

// reason is why the gate is closed.
func (g *gate) reason() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.why == nil {
		return tenant.Errorf(tenant.ErrUnavailable, "nuage is still starting")
	}
	return tenant.Errorf(tenant.ErrUnavailable, "nuage is still starting: %v", g.why)
}

// onDriver and onIPAM turn a driver's method into a verb that passes the gate.
func onDriver[Q, R any](g *gate, do func(*driver.Driver, context.Context, Q) (R, error)) func(context.Context, Q) (R, error) {
	return func(ctx context.Context, q Q) (R, error) {
		n, err := g.pass(ctx)
		if err != nil {
			var none R
			return none, err
		}
		return do(n.driver, ctx, q)
	}
}

func onIPAM[Q, R any](g *gate, do func(*ipam.Driver, context.Context, Q) (R, error)) func(context.Context, Q) (R, error) {
	return func(ctx context.Context, q Q) (R, error) {
		n, err := g.pass(ctx)
		if err != nil {
			var none R
			return none, err
		}
		return do(n.ipam, ctx, q)
	}
}

// silent gives a method without an answer an empty one.
func silent[D, Q any](do func(D, context.Context, Q) error) func(D, context.Context, Q) (struct{}, error) {
	return func(d D, ctx context.Context, q Q) (struct{}, error) { return struct{}{}, do(d, ctx, q) }
}

// able asks what the IPAM driver can do. dockerd waits for it when the plugin is enabled, so
// that a node which does not start, say since it may not join, is not waited for: the answer
// is the same, but for the note that dockerd has just begun to talk.
func able[R any](g *gate, idle *ipam.Driver, do func(*ipam.Driver, context.Context) (R, error)) func(context.Context) (R, error) {
	return func(ctx context.Context) (R, error) {
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if n, err := g.pass(soon); err == nil {
			return do(n.ipam, ctx)
		}
		return do(idle, ctx)
	}
}

// unless refuses while the settings have a problem, or the host may not be registered.
func unless[Q, R any](problem error, g *gate, do func(context.Context, Q) (R, error)) func(context.Context, Q) (R, error) {
	return func(ctx context.Context, q Q) (R, error) {
		why := problem
		if why == nil {
			if n, err := g.pass(ctx); err == nil {
				why = n.denied()
			}
		}
		if why != nil {
			var none R
			return none, why
		}
		return do(ctx, q)
	}
}

// register adds all verbs.
func register(w *wire, g *gate, s Settings) {
	asked(w, "NetworkDriver.GetCapabilities", driver.New(driver.Config{Scope: s.Scope}).Capabilities)

	type D = *driver.Driver
	bad := s.Err()
	verb(w, "NetworkDriver.CreateNetwork", attachDeadline, unless(bad, g, onDriver(g, silent(D.CreateNetwork))))
	verb(w, "NetworkDriver.DeleteNetwork", detachDeadline, onDriver(g, silent(D.DeleteNetwork)))
	verb(w, "NetworkDriver.AllocateNetwork", attachDeadline, unless(bad, g, onDriver(g, D.AllocateNetwork)))
	verb(w, "NetworkDriver.FreeNetwork", detachDeadline, onDriver(g, silent(D.FreeNetwork)))
	verb(w, "NetworkDriver.CreateEndpoint", attachDeadline, unless(bad, g, onDriver(g, D.CreateEndpoint)))
	verb(w, "NetworkDriver.DeleteEndpoint", detachDeadline, onDriver(g, silent(D.DeleteEndpoint)))
	verb(w, "NetworkDriver.EndpointOperInfo", detachDeadline, onDriver(g, D.EndpointInfo))
	verb(w, "NetworkDriver.Join", attachDeadline, onDriver(g, D.Join))
	verb(w, "NetworkDriver.Leave", detachDeadline, onDriver(g, silent(D.Leave)))
	verb(w, "NetworkDriver.ProgramExternalConnectivity", detachDeadline, onDriver(g, silent(D.ProgramExternalConnectivity)))
	verb(w, "NetworkDriver.RevokeExternalConnectivity", detachDeadline, onDriver(g, silent(D.RevokeExternalConnectivity)))
	verb(w, "NetworkDriver.DiscoverNew", detachDeadline, onDriver(g, silent(D.DiscoverNew)))
	verb(w, "NetworkDriver.DiscoverDelete", detachDeadline, onDriver(g, silent(D.DiscoverDelete)))

	type I = *ipam.Driver
	idle := ipam.New(ipam.Config{Store: store.New(store.Config{}), Global: s.Scope == "global"})
	asked(w, "IpamDriver.GetCapabilities", able(g, idle, I.Capabilities))
	asked(w, "IpamDriver.GetDefaultAddressSpaces", able(g, idle, I.DefaultAddressSpaces))
	verb(w, "IpamDriver.RequestPool", attachDeadline, unless(bad, g, onIPAM(g, I.RequestPool)))
	verb(w, "IpamDriver.ReleasePool", detachDeadline, onIPAM(g, silent(I.ReleasePool)))
	verb(w, "IpamDriver.RequestAddress", attachDeadline, unless(bad, g, onIPAM(g, I.RequestAddress)))
	verb(w, "IpamDriver.ReleaseAddress", detachDeadline, onIPAM(g, silent(I.ReleaseAddress)))
}
