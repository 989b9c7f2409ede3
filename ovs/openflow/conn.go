// Package openflow speaks OpenFlow 1.4, with Open vSwitch's extensions, to one bridge
// over its management socket: flows in atomic bundles, flow statistics, meters, packets
// in and out.
//
// It knows flows as package flow has them and nothing of what they are for, keeps no
// state of the switch, never reconnects (a Conn that broke stays broken) and runs no
// program.
package openflow

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// ErrClosed is what every request on a closed or broken connection wraps.
var ErrClosed = errors.New("openflow: connection closed")

// Conn is a connection to a bridge. Its methods may be called from any goroutine, at the
// same time; each returns when its context ends at the latest, with the context's error,
// and what it has asked for by then may still happen.
type Conn struct {
	conn net.Conn
	out  chan []byte // whole messages, to the writer
	done chan struct{}
	wg   sync.WaitGroup

	fails sync.Once
	err   error // set before done is closed

	mu    sync.Mutex
	xid   uint32
	calls []*call

	bundle  atomic.Uint32
	events  chan Event
	dropped atomic.Uint64
}

// Dial connects to a bridge's management socket (BRIDGE.mgmt in the run directory of
// ovs-vswitchd) and agrees on the version of the protocol.
func Dial(ctx context.Context, socketPath string) (*Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socketPath)
	if err != nil {
		return nil, fmt.Errorf("openflow: %w", err)
	}
	c, err := newConn(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("openflow %s: %w", socketPath, err)
	}
	return c, nil
}

// newConn shakes hands on conn, which it owns.
func newConn(ctx context.Context, conn net.Conn) (*Conn, error) {
	c := &Conn{
		conn:   conn,
		out:    make(chan []byte),
		done:   make(chan struct{}),
		events: make(chan Event, eventBuffer),
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	r := bufio.NewReaderSize(conn, 1<<16)
	err := hello(conn, r)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	c.wg.Add(2)
	go c.read(r)
	go c.write()
	return c, nil
}

// hello sends our version and checks that the peer has it too.
func hello(w io.Writer, r *bufio.Reader) error {
	h := be.AppendUint32(append(appendHeader(nil, typeHello, 0), 0, 1, 0, 8), 1<<version)
	if _, err := w.Write(finish(h, 0)); err != nil {
		return err
	}
	m, v, err := readMessage(r)
	switch {
	case err != nil:
		return err
	case m.typ == typeError:
		return decodeError(m)
	case m.typ != typeHello:
		return fmt.Errorf("message type %d instead of hello", m.typ)
	case !speaks(v, m.body):
		return fmt.Errorf("the bridge does not speak OpenFlow 1.4")
	}
	return nil
}

// speaks reports whether a hello of version v with these elements allows our version.
func speaks(v uint8, elements []byte) bool {
	for len(elements) >= 8 {
		n := int(be.Uint16(elements[2:]))
		if n < 8 || n > len(elements) {
			break
		}
		if be.Uint16(elements) == 1 {
			return be.Uint32(elements[4:])&(1<<version) != 0
		}
		elements = elements[min(pad8(n), len(elements)):]
	}
	return v >= version
}

// readMessage reads one message. The length field bounds what it allocates to 64 kB.
func readMessage(r *bufio.Reader) (m message, v uint8, err error) {
	h, err := r.Peek(headerLen)
	if err != nil {
		return m, 0, err
	}
	n := int(be.Uint16(h[2:]))
	if n < headerLen {
		return m, 0, fmt.Errorf("openflow: message of %d bytes", n)
	}
	v, m.typ, m.xid = h[0], h[1], be.Uint32(h[4:])
	if _, err = r.Discard(headerLen); err != nil {
		return m, 0, err
	}
	m.body = make([]byte, n-headerLen)
	_, err = io.ReadFull(r, m.body)
	return m, v, err
}

// Done is closed when the connection is closed or has broken; Err tells why.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is nil while the connection lives, and then wraps ErrClosed.
func (c *Conn) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

// Close closes the connection; requests under way fail. It returns when nothing of the
// connection runs any more, and may be called again.
func (c *Conn) Close() error {
	c.fail(nil)
	c.wg.Wait()
	return nil
}

func (c *Conn) fail(cause error) {
	c.fails.Do(func() {
		c.err = ErrClosed
		if cause != nil {
			c.err = fmt.Errorf("%w: %w", ErrClosed, cause)
		}
		c.conn.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		close(c.done)
	})
}

func (c *Conn) write() {
	defer c.wg.Done()
	for {
		select {
		case b := <-c.out:
			if _, err := c.conn.Write(b); err != nil {
				c.fail(err)
				return
			}
		case <-c.done:
			return
		}
	}
}

// send hands whole messages to the writer.
func (c *Conn) send(ctx context.Context, b []byte) error {
	select {
	case c.out <- b:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.done:
		return c.err
	}
}

func (c *Conn) read(r *bufio.Reader) {
	defer c.wg.Done()
	defer close(c.events)
	for {
		m, _, err := readMessage(r)
		if err != nil {
			c.fail(err)
			return
		}
		c.dispatch(m)
	}
}

func (c *Conn) dispatch(m message) {
	switch m.typ {
	case typeEchoRequest:
		c.later(finish(append(appendHeader(nil, typeEchoReply, m.xid), m.body...), 0))
	case typeExperimenter, typePortStatus:
		c.event(m)
	default:
		if k := c.callOf(m.xid); k != nil {
			select {
			case k.in <- m:
			case <-k.gone:
			case <-c.done:
			}
		}
	}
}

// later sends without waiting for the writer: the reader must go on reading. On a closed
// connection it does nothing: whoever closes it waits for all that was begun before.
func (c *Conn) later(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.done:
		return
	default:
	}
	c.wg.Go(func() {
		select {
		case c.out <- b:
		case <-c.done:
		}
	})
}
