package openflow

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"nuage/ovs/flow"
)

// A peer is the switch's end of a connection, driven by the test message by message.
type peer struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

// pair connects a Conn to a peer, past the handshake.
func pair(t *testing.T) (*Conn, *peer) {
	t.Helper()
	ours, theirs := net.Pipe()
	p := &peer{t, theirs, bufio.NewReader(theirs)}
	greeted := make(chan struct{})
	go func() {
		defer close(greeted)
		if m := p.expect(typeHello); len(m.body) != 8 {
			t.Errorf("hello has %d bytes", len(m.body))
		}
		p.say(typeHello, 0, []byte{0, 1, 0, 8, 0, 0, 0, 0x7e})
	}()
	c, err := newConn(t.Context(), ours)
	if err != nil {
		t.Fatal(err)
	}
	<-greeted
	t.Cleanup(func() { c.Close(); theirs.Close() })
	return c, p
}

func (p *peer) say(typ uint8, xid uint32, body []byte) {
	if _, err := p.Write(finish(append(appendHeader(nil, typ, xid), body...), 0)); err != nil {
		p.t.Errorf("write: %v", err)
	}
}

func (p *peer) expect(typ uint8) message {
	m, v, err := readMessage(p.r)
	if err != nil || m.typ != typ || v != version {
		p.t.Errorf("got message type %d version %d, %v; want type %d", m.typ, v, err, typ)
	}
	return m
}

// The switch's probe is answered with its payload, even between our requests.
func TestEchoIsAnswered(t *testing.T) {
	_, p := pair(t)
	p.say(typeEchoRequest, 77, []byte("are you there"))
	if m := p.expect(typeEchoReply); m.xid != 77 || string(m.body) != "are you there" {
		t.Errorf("answered %+v", m)
	}
}

// A request ends with its context, and a late answer to it disturbs no other.
func TestDeadline(t *testing.T) {
	c, p := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	late := make(chan message)
	go func() { late <- p.expect(typeEchoRequest) }()
	if err := c.Echo(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	old := <-late
	go func() {
		m := p.expect(typeEchoRequest)
		p.say(typeEchoReply, old.xid, nil)
		p.say(typeError, old.xid, []byte{0, 1, 0, 1})
		p.say(typeEchoReply, m.xid, nil)
	}()
	if err := c.Echo(t.Context()); err != nil {
		t.Error(err)
	}
}

// A deadline during a write that the peer does not take ends the request too.
func TestDeadlineOfWrite(t *testing.T) {
	c, _ := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := c.Echo(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
}

// A change that is given up while the connection is closed leaves nothing running. (The race
// detector is what this test asks.)
func TestGiveUpWhileClosing(t *testing.T) {
	for range 200 {
		c, p := pair(t)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := c.Apply(ctx, flow.Diff{Add: []flow.Flow{{Table: 1}}}); err == nil {
				t.Error("applied without an answer")
			}
		})
		p.expect(typeBundleControl)
		wg.Go(cancel)
		c.Close()
		wg.Wait()
	}
}

// When the connection breaks, everybody who waits is told, and so is who comes later.
func TestBreak(t *testing.T) {
	for name, end := range map[string]func(*Conn, *peer){
		"peer closes":   func(_ *Conn, p *peer) { p.Close() },
		"we close":      func(c *Conn, _ *peer) { c.Close() },
		"short message": func(_ *Conn, p *peer) { p.Write([]byte{version, typeEchoReply, 0, 7, 0, 0, 0, 0}) },
		"cut message":   func(_ *Conn, p *peer) { p.Write([]byte{version, typeEchoReply, 0, 9, 0, 0, 0, 0}); p.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			c, p := pair(t)
			var wg sync.WaitGroup
			for range 5 {
				wg.Go(func() {
					if err := c.Barrier(t.Context()); !errors.Is(err, ErrClosed) {
						t.Errorf("waiter got %v", err)
					}
				})
			}
			for range 5 {
				p.expect(typeBarrierRequest)
			}
			if err := c.Err(); err != nil {
				t.Errorf("Err of a live connection: %v", err)
			}
			end(c, p)
			wg.Wait()
			<-c.Done()
			if !errors.Is(c.Err(), ErrClosed) {
				t.Errorf("Err is %v", c.Err())
			}
			if _, open := <-c.events; open {
				t.Error("the channel of events is open")
			}
			if err := c.Echo(t.Context()); !errors.Is(err, ErrClosed) {
				t.Errorf("later: %v", err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A bundle of which a message was refused is discarded, never committed: the switch
// would commit the rest.
func TestRefusedBundleIsDiscarded(t *testing.T) {
	c, p := pair(t)
	done := make(chan error)
	go func() {
		done <- c.Apply(t.Context(), flow.Diff{Delete: []flow.Flow{{Table: 1}}, Add: []flow.Flow{{Table: 2}, {Table: 3}}})
	}()
	control := func(want uint16) message {
		m := p.expect(typeBundleControl)
		if len(m.body) != 8 || be.Uint16(m.body[4:]) != want || be.Uint16(m.body[6:]) != bundleFlags {
			t.Errorf("bundle control %x, want type %d", m.body, want)
		}
		return m
	}
	opened := control(bundleOpen)
	var adds []message
	for range 3 {
		adds = append(adds, p.expect(typeBundleAdd))
	}
	barrier := p.expect(typeBarrierRequest)
	p.say(typeBundleControl, opened.xid, []byte{0, 0, 0, 1, 0, 1, 0, 3})
	p.say(typeError, adds[1].xid, []byte{0, 3, 0, 0})
	p.say(typeBarrierReply, barrier.xid, nil)
	control(bundleDiscard)
	var refused *Error
	if err := <-done; !errors.As(err, &refused) || refused.Flow == nil || refused.Flow.Table != 2 || refused.Delete {
		t.Errorf("got %v", err)
	}
}

// A peer that says anything but hello first is no switch.
func TestHandshake(t *testing.T) {
	for name, answer := range map[string][]byte{
		"other type":      {version, typeEchoReply, 0, 8, 0, 0, 0, 0},
		"older version":   {4, typeHello, 0, 8, 0, 0, 0, 0},
		"without ours":    {6, typeHello, 0, 16, 0, 0, 0, 0, 0, 1, 0, 8, 0, 0, 0, 1 << 6},
		"error":           {version, typeError, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0},
		"length too low":  {version, typeHello, 0, 3, 0, 0, 0, 0},
		"nothing, closed": nil,
	} {
		ours, theirs := net.Pipe()
		go func() {
			io.ReadFull(theirs, make([]byte, 16))
			theirs.Write(answer)
			theirs.Close()
		}()
		if c, err := newConn(t.Context(), ours); err == nil {
			c.Close()
			t.Errorf("%s: accepted", name)
		}
	}
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := newConn(ctx, ours); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silent peer: %v", err)
	}
}

// Events that nobody takes are dropped and counted, and hold nothing up.
func TestEventsAreDropped(t *testing.T) {
	c, p := pair(t)
	const more = 10
	for range eventBuffer + more {
		p.say(typePortStatus, 0, make([]byte, 48))
	}
	go func() {
		m := p.expect(typeEchoRequest)
		p.say(typeEchoReply, m.xid, nil)
	}()
	if err := c.Echo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := c.Dropped(); n != more {
		t.Errorf("%d dropped", n)
	}
}

func TestXidsWrap(t *testing.T) {
	c, _ := pair(t)
	c.xid = 1<<32 - 3
	for _, n := range []int{2, 3, 1} {
		k := c.begin(n)
		if k.first == 0 || k.last-k.first != uint32(n-1) || k.last < k.first {
			t.Errorf("%d messages: xids %d to %d", n, k.first, k.last)
		}
		if c.callOf(k.first) != k || c.callOf(k.last) != k || c.callOf(k.last+1) != nil {
			t.Errorf("xids %d to %d lead elsewhere", k.first, k.last)
		}
		k.end()
	}
}
