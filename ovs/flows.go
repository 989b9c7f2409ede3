package ovs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"nuage/ovs/flow"
	"nuage/ovs/openflow"
)

// FlowFilter chooses flows; a nil member chooses all.
type FlowFilter struct {
	Cookie *uint64
	Table  *flow.Table
}

// Flows reads flows with their counters from the switch. Unlike the calls for ports it
// does not wait for a connection: without one it returns ErrUnavailable at once, since
// what the caller knows of the switch may be void with the next one (see Status.Epoch).
func (b *Bridge) Flows(ctx context.Context, filter FlowFilter) ([]flow.Stats, error) {
	c, err := b.openflow()
	if err != nil {
		return nil, err
	}
	f := openflow.Filter{Table: filter.Table}
	if filter.Cookie != nil {
		f.Cookie, f.CookieMask = *filter.Cookie, ^uint64(0)
	}
	stats, err := c.Flows(ctx, f)
	return stats, b.explain(err)
}

// Apply makes the change in one atomic bundle, or nothing of it if the switch refuses
// any part; the error then holds an *openflow.Error with the flow. It does not wait for
// a connection, as Flows does not. After any other error the change may have been made.
func (b *Bridge) Apply(ctx context.Context, d flow.Diff) error {
	c, err := b.openflow()
	if err != nil {
		return err
	}
	return b.explain(c.Apply(ctx, d))
}

func (b *Bridge) openflow() (*openflow.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn == nil {
		return nil, unavailable(b.of.Error)
	}
	return b.conn, nil
}

// explain makes a connection that broke under a call ErrUnavailable.
func (b *Bridge) explain(err error) error {
	if errors.Is(err, openflow.ErrClosed) {
		return fmt.Errorf("%w: %w", unavailable("the connection to ovs-vswitchd was lost"), err)
	}
	return err
}

// keepOpenFlow connects to the bridge's management socket, again and again, until ctx
// ends. The socket comes and goes with the bridge and with ovs-vswitchd.
func (b *Bridge) keepOpenFlow(ctx context.Context) error {
	var p pause
	for ctx.Err() == nil {
		dial, done := context.WithTimeout(ctx, dialTimeout)
		c, err := openflow.Dial(dial, b.of.Socket)
		if err == nil {
			p = pause{}
			err = b.converse(ctx, dial, c)
			c.Close()
		}
		done()
		if ctx.Err() != nil {
			break
		}
		b.loseOpenFlow(err)
		p.wait(ctx, b.redial)
	}
	b.loseOpenFlow(errStopped)
	return ctx.Err()
}

// converse uses a new connection until it ends. What is asked of it first is bounded by
// start.
func (b *Bridge) converse(ctx, start context.Context, c *openflow.Conn) error {
	events, err := c.Listen(start)
	if err != nil {
		return err
	}
	go b.takePackets(events)
	b.useOpenFlow(c)
	return follow(ctx, c)
}

// follow returns when the connection has ended, or the switch no longer answers.
func follow(ctx context.Context, c *openflow.Conn) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go probe(ctx, cancel, c.Echo)
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.Done():
		return c.Err()
	}
}

func (b *Bridge) useOpenFlow(c *openflow.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conn = c
	b.epoch++
	b.of.set(true, "")
	b.conf.Log.WithField("socket", b.of.Socket).Info("connected to the bridge")
	b.move()
}

func (b *Bridge) loseOpenFlow(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conn = nil
	reason := fmt.Sprintf("ovs-vswitchd is not reachable at %s: start openvswitch-switch (%v)", b.of.Socket, err)
	if errors.Is(err, fs.ErrNotExist) && b.session != nil {
		reason = fmt.Sprintf("ovs-vswitchd has not opened bridge %s (no %s): start openvswitch-switch, or see its log", b.conf.Bridge, b.of.Socket)
	}
	if b.of.set(false, reason) && err != errStopped {
		b.conf.Log.WithError(err).WithField("socket", b.of.Socket).Warn("no connection to the bridge")
		b.move()
	}
}
