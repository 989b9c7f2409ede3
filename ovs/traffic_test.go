package ovs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"nuage/ovs/flow"
	"nuage/ovs/openflow"
)

// inside runs f in a network namespace; the sockets that it opens stay there.
func inside(path string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := netns.GetFromPath(path)
		if err == nil {
			err = netns.Set(ns)
			ns.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// A stream measures what arrives of one sender's traffic, for a while after a pause in which
// bursts are spent.
type stream struct {
	flows         int // of TCP; 0 for UDP
	offered       int // bit/s, of UDP
	pause, during time.Duration
}

// measure returns the Mbit/s of payload that arrive at 10.9.9.2.
func (p stream) measure(t *testing.T, peers [2]string) float64 {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var arrived atomic.Int64
	if p.flows == 0 {
		p.udp(t, ctx, peers, &arrived)
	} else {
		p.tcp(t, ctx, peers, &arrived)
	}
	time.Sleep(p.pause)
	before, begin := arrived.Load(), time.Now()
	time.Sleep(p.during)
	return float64(8*(arrived.Load()-before)) / time.Since(begin).Seconds() / 1e6
}

// take counts what is read until the connection is closed.
func take(r io.Reader, arrived *atomic.Int64) {
	buf := make([]byte, 1<<16)
	for {
		n, err := r.Read(buf)
		arrived.Add(int64(n))
		if err != nil {
			return
		}
	}
}

func (p stream) tcp(t *testing.T, ctx context.Context, peers [2]string, arrived *atomic.Int64) {
	t.Helper()
	var l net.Listener
	must(t, inside(peers[1], func() (err error) {
		l, err = net.Listen("tcp4", "10.9.9.2:0") // a port of its own: the last one is closed by and by
		return err
	}))
	context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { c.Close() })
			go take(c, arrived)
		}
	}()
	for range p.flows {
		var c net.Conn
		must(t, inside(peers[0], func() (err error) {
			c, err = net.DialTimeout("tcp4", l.Addr().String(), limit)
			return err
		}))
		context.AfterFunc(ctx, func() { c.Close() })
		go func() {
			for buf := make([]byte, 1<<14); ; {
				if _, err := c.Write(buf); err != nil {
					return
				}
			}
		}()
	}
}

func (p stream) udp(t *testing.T, ctx context.Context, peers [2]string, arrived *atomic.Int64) {
	t.Helper()
	var in, out *net.UDPConn
	must(t, inside(peers[1], func() (err error) {
		in, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 9, 9, 2)})
		return err
	}))
	must(t, inside(peers[0], func() (err error) {
		out, err = net.DialUDP("udp4", nil, in.LocalAddr().(*net.UDPAddr))
		return err
	}))
	context.AfterFunc(ctx, func() { in.Close(); out.Close() })
	go take(in, arrived)
	go func() {
		buf := make([]byte, 1400)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		begin := time.Now()
		for sent := 0; ; <-tick.C {
			for ; 8*sent < int(time.Since(begin).Seconds()*float64(p.offered)); sent += len(buf) {
				if _, err := out.Write(buf); errors.Is(err, net.ErrClosed) {
					return
				}
			}
		}
	}()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// holds measures until the rate is held, three times at most: the machine is shared. The
// share of the frame that is payload is 1400 of 1442 bytes at least.
func holds(t *testing.T, what string, p stream, peers [2]string, rate, least, most float64) {
	t.Helper()
	var got []string
	for range 3 {
		mbit := p.measure(t, peers)
		got = append(got, fmt.Sprintf("%.2f", mbit))
		if mbit >= least*rate && mbit <= most*rate {
			t.Logf("%s, %d TCP flows: %s Mbit/s of %v", what, p.flows, strings.Join(got, ", then "), rate)
			return
		}
	}
	t.Errorf("%s, %d TCP flows: %s Mbit/s; want %v to %v", what, p.flows, strings.Join(got, ", "), least*rate, most*rate)
}

// A shape holds a rate towards a port, and a meter one from a port.
func TestRatesHold(t *testing.T) {
	_, b, _, peers := shaped(t)
	ctx := within(t, 2*limit)
	ports := b.Ports()
	const wide = 4e6 // kbit/s, more than there is
	must(t, b.SetMeter(ctx, openflow.Meter{ID: 1, Rate: wide}))
	must(t, b.Apply(ctx, flow.Diff{Add: []flow.Flow{{Priority: 40000,
		Match:   flow.NewMatch(flow.Eq(flow.InPort, uint64(ports["v1"].OFPort)), flow.Eq(flow.EthType, flow.EthIPv4)),
		Actions: []flow.Action{flow.MeterAction{ID: 1}, flow.Output{Port: ports["v2"].OFPort}}}}}))
	for _, mbit := range []uint64{10, 50} {
		udp := stream{offered: int(2e6 * mbit), pause: 300 * time.Millisecond, during: 700 * time.Millisecond}
		tcp := stream{flows: 1, pause: 400 * time.Millisecond, during: time.Second}
		must(t, b.SetShaping(ctx, "v2", Shape{Rate: mbit * 1e6}))
		holds(t, "shape", udp, peers, float64(mbit), 0.9, 1.1)
		holds(t, "shape", tcp, peers, float64(mbit), 0.85, 1.1)
		must(t, b.ClearShaping(ctx, "v2"))
		// Half a second of the rate is free at the beginning, and after each pause of TCP's.
		must(t, b.SetMeter(ctx, openflow.Meter{ID: 1, Rate: uint32(mbit * 1000), Burst: uint32(mbit * 500)}))
		udp.pause, tcp.pause, tcp.during = 600*time.Millisecond, time.Second, 1500*time.Millisecond
		holds(t, "meter", udp, peers, float64(mbit), 0.9, 1.1)
		holds(t, "meter", tcp, peers, float64(mbit), 0.85, 1.25)
		must(t, b.SetMeter(ctx, openflow.Meter{ID: 1, Rate: wide}))
	}
}
