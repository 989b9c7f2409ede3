package openflow

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// A call is a run of request messages, xids first to last, whose answers it awaits.
type call struct {
	c           *Conn
	first, last uint32
	in          chan message
	gone        chan struct{}
	refused     *Error // the first refusal of a message not waited for
	at          uint32 // and that message's xid
}

// begin reserves n xids. The caller ends the call.
func (c *Conn) begin(n int) *call {
	k := &call{c: c, in: make(chan message, 16), gone: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	if uint64(c.xid)+uint64(n) >= 1<<32 {
		c.xid = 0
	}
	k.first, k.last = c.xid+1, c.xid+uint32(n)
	c.xid = k.last
	c.calls = append(c.calls, k)
	return k
}

func (k *call) end() {
	close(k.gone)
	k.c.mu.Lock()
	defer k.c.mu.Unlock()
	k.c.calls = slices.DeleteFunc(k.c.calls, func(o *call) bool { return o == k })
}

func (c *Conn) callOf(xid uint32) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.calls {
		if k.first <= xid && xid <= k.last {
			return k
		}
	}
	return nil
}

// await returns the next answer to the message xid; a refusal of it is the error. A
// refusal of another message of the call is noted, other answers are dropped.
func (k *call) await(ctx context.Context, xid uint32) (message, error) {
	for {
		select {
		case m := <-k.in:
			switch {
			case m.typ == typeError && m.xid == xid:
				return m, decodeError(m)
			case m.typ == typeError && k.refused == nil:
				k.refused, k.at = decodeError(m), m.xid
			case m.xid == xid:
				return m, nil
			}
		case <-ctx.Done():
			return message{}, context.Cause(ctx)
		case <-k.c.done:
			return message{}, k.c.err
		}
	}
}

func unexpected(m message) error {
	return fmt.Errorf("openflow: unexpected answer of type %d, %d bytes", m.typ, len(m.body))
}

// call sends one request and passes its answers to reply until that says done.
func (c *Conn) call(ctx context.Context, req func(b []byte, xid uint32) []byte, reply func(message) (done bool, err error)) error {
	k := c.begin(1)
	defer k.end()
	if err := c.send(ctx, finish(req(nil, k.first), 0)); err != nil {
		return err
	}
	for {
		m, err := k.await(ctx, k.first)
		if err != nil {
			return err
		}
		if done, err := reply(m); done || err != nil {
			return err
		}
	}
}

// tell sends requests that are not answered when they succeed, and waits until the
// switch has done them. Each of reqs appends one message.
func (c *Conn) tell(ctx context.Context, reqs ...func(b []byte, xid uint32) []byte) error {
	k := c.begin(len(reqs) + 1)
	defer k.end()
	var b []byte
	for i, req := range reqs {
		start := len(b)
		b = finish(req(b, k.first+uint32(i)), start)
		if len(b)-start > maxMessage {
			return errors.New("openflow: message too long")
		}
	}
	if err := c.send(ctx, appendBarrier(b, k.last)); err != nil {
		return err
	}
	if _, err := k.await(ctx, k.last); err != nil {
		return err
	}
	if k.refused != nil {
		return k.refused
	}
	return nil
}

func appendBarrier(b []byte, xid uint32) []byte {
	return finish(appendHeader(b, typeBarrierRequest, xid), len(b))
}

// Barrier returns when the switch has done all that was asked before.
func (c *Conn) Barrier(ctx context.Context) error {
	if err := c.tell(ctx); err != nil {
		return fmt.Errorf("barrier: %w", err)
	}
	return nil
}

// Echo returns when the switch has answered: it is alive.
func (c *Conn) Echo(ctx context.Context) error {
	err := c.call(ctx, func(b []byte, xid uint32) []byte { return appendHeader(b, typeEchoRequest, xid) },
		func(m message) (bool, error) {
			if m.typ != typeEchoReply {
				return true, unexpected(m)
			}
			return true, nil
		})
	if err != nil {
		return fmt.Errorf("echo: %w", err)
	}
	return nil
}

// Features is what a bridge says of itself.
type Features struct {
	DatapathID uint64
	Tables     uint8
}

// Features asks the bridge what it is.
func (c *Conn) Features(ctx context.Context) (Features, error) {
	var f Features
	err := c.call(ctx, func(b []byte, xid uint32) []byte { return appendHeader(b, typeFeaturesRequest, xid) },
		func(m message) (bool, error) {
			if m.typ != typeFeaturesReply || len(m.body) < 24 {
				return true, unexpected(m)
			}
			f = Features{be.Uint64(m.body), m.body[12]}
			return true, nil
		})
	if err != nil {
		return f, fmt.Errorf("features: %w", err)
	}
	return f, nil
}
