package store

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"nuage/controller/tenant"
)

// wire carries the connections of a store to etcd, and can fail as networks do.
type wire struct {
	t      testing.TB
	socket string
	to     string

	mu    sync.Mutex
	hole  chan struct{} // closed while bytes pass
	ln    net.Listener
	conns []net.Conn
}

func newWire(t testing.TB, to string) *wire {
	w := &wire{t: t, socket: filepath.Join(t.TempDir(), "wire.sock"), to: to, hole: make(chan struct{})}
	close(w.hole)
	w.listen()
	t.Cleanup(func() { w.kill(); w.swallow(false) })
	return w
}

func (w *wire) listen() {
	ln, err := net.Listen("unix", w.socket)
	if err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	w.ln = ln
	w.mu.Unlock()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go w.carry(c)
		}
	}()
}

func (w *wire) carry(c net.Conn) {
	out, err := net.Dial("unix", w.to)
	if err != nil {
		c.Close()
		return
	}
	w.mu.Lock()
	w.conns = append(w.conns, c, out)
	w.mu.Unlock()
	for _, way := range [][2]net.Conn{{c, out}, {out, c}} {
		go func() {
			defer c.Close()
			defer out.Close()
			buf := make([]byte, 64<<10)
			for {
				n, err := way[0].Read(buf)
				w.mu.Lock()
				hole := w.hole
				w.mu.Unlock()
				<-hole
				if _, werr := way[1].Write(buf[:n]); err != nil || werr != nil {
					return
				}
			}
		}()
	}
}

// swallow has the wire take bytes and pass none on, as a firewall does, or ends that.
func (w *wire) swallow(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.hole:
		if on {
			w.hole = make(chan struct{})
		}
	default:
		if !on {
			close(w.hole)
		}
	}
}

// kill ends all connections, and refuses new ones.
func (w *wire) kill() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ln.Close()
	for _, c := range w.conns {
		c.Close()
	}
}

// TestOutage: whatever keeps etcd away, every call ends in time with ErrUnavailable, Ready
// turns within a few seconds, the feed stays, and afterwards it shows what is.
func TestOutage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		fail, mend func(*wire)
	}{
		{"killed", (*wire).kill, (*wire).listen},
		{"swallowed", func(w *wire) { w.swallow(true) }, func(w *wire) { w.swallow(false) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s, _ := start(t, Config{Dir: dir, Host: "h1"})
			w := newWire(t, filepath.Join(dir, socketName))
			far, err := run(t, Config{Endpoints: []string{"unix://" + w.socket}, Host: "h2", Dir: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			p, other := mustPath(t, s, spec("D", "10.0.1.0/24")), mustPath(t, s, spec("Other", "10.0.1.0/24"))
			v, gone := newVport(p.Subnet, "10.0.1.5"), newVport(p.Subnet, "10.0.1.6")
			v.Host = "h2"
			for _, v := range []tenant.Vport{v, gone} {
				if _, err := far.BindVport(ctx, v); err != nil {
					t.Fatal(err)
				}
			}
			if err := far.PutHost(ctx, record("h2", "192.0.2.2")); err != nil {
				t.Fatal(err)
			}
			c.fail(w)
			began := time.Now()
			for name, call := range calls(far, p, other) {
				short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
				from := time.Now()
				if err := call(short); !errors.Is(err, tenant.ErrUnavailable) || time.Since(from) > time.Second {
					t.Errorf("%s while etcd is away: %v after %s", name, err, time.Since(from))
				}
				cancel()
			}
			for far.Ready() == nil {
				if time.Since(began) > 8*time.Second {
					t.Fatal("Ready does not turn")
				}
				time.Sleep(10 * time.Millisecond)
			}
			t.Logf("Ready turned after %s", time.Since(began))
			from := time.Now()
			if err := far.Follow(ctx, p.Domain.ID); err != nil || time.Since(from) > 100*time.Millisecond {
				t.Errorf("what is followed is not, while etcd is away: %v after %s", err, time.Since(from))
			}
			from = time.Now()
			if _, err := far.BindVport(ctx, newVport(p.Subnet, "10.0.1.8")); !errors.Is(err, tenant.ErrUnavailable) || time.Since(from) > 100*time.Millisecond {
				t.Errorf("a write when it is known that etcd is away: %v after %s", err, time.Since(from))
			}
			far.Feed().View(func(st *tenant.State) {
				if st.Vports[v.ID] == nil || st.Vports[gone.ID] == nil {
					t.Error("the state is gone while etcd is away")
				}
			})
			fresh := newVport(p.Subnet, "10.0.1.7")
			if _, err := s.BindVport(ctx, fresh); err != nil {
				t.Fatal(err)
			}
			if err := s.DeleteVport(ctx, gone.ID); err != nil {
				t.Fatal(err)
			}
			c.mend(w)
			began = time.Now()
			until(t, "the store is ready again", func() bool { return far.Ready() == nil })
			t.Logf("ready again after %s", time.Since(began))
			far.Feed().View(func(st *tenant.State) {
				if st.Vports[v.ID] == nil || st.Vports[gone.ID] != nil || st.Vports[fresh.ID] == nil {
					t.Errorf("what the feed shows afterwards is not what is: %v", st.Vports)
				}
			})
			if _, err := far.BindVport(ctx, v); err != nil {
				t.Errorf("a vport that is still its own: %v", err)
			}
			if err := far.Heartbeat(ctx, tenant.HostStatus{}); err != nil {
				t.Error(err)
			}
		})
	}
}

// calls are all that needs etcd.
func calls(s *Store, p, other tenant.Path) map[string]func(context.Context) error {
	v := newVport(p.Subnet, "10.0.1.20")
	return map[string]func(context.Context) error{
		"Read":      func(ctx context.Context) error { _, err := s.Read(ctx); return err },
		"Follow":    func(ctx context.Context) error { return s.Follow(ctx, other.Domain.ID) },
		"PutHost":   func(ctx context.Context) error { return s.PutHost(ctx, record("h2", "192.0.2.9")) },
		"Heartbeat": func(ctx context.Context) error { return s.Heartbeat(ctx, tenant.HostStatus{}) },
		"EvictHost": func(ctx context.Context) error { return s.EvictHost(ctx, "h3", false) },
		"BindVport": func(ctx context.Context) error { _, err := s.BindVport(ctx, v); return err },
		"BindVport far": func(ctx context.Context) error {
			_, err := s.BindVport(ctx, newVport(other.Subnet, "10.0.1.2"))
			return err
		},
		"PutLease": func(ctx context.Context) error {
			_, err := s.PutLease(ctx, reservation(p.Subnet, "10.0.1.21", v.MAC))
			return err
		},
		"EnsurePath": func(ctx context.Context) error { _, err := s.EnsurePath(ctx, spec("New", "10.0.1.0/24")); return err },
		"CreateZone": func(ctx context.Context) error {
			_, err := s.CreateZone(ctx, tenant.Zone{DomainID: p.Domain.ID, Name: "n"})
			return err
		},
		"DeleteSubnet": func(ctx context.Context) error { return s.DeleteSubnet(ctx, other.Subnet.ID) },
		"PutNetwork": func(ctx context.Context) error {
			return s.PutNetwork(ctx, tenant.Network{Meta: tenant.Meta{ID: "n"}, SubnetID: p.Subnet.ID})
		},
		"DeleteVport": func(ctx context.Context) error { return s.DeleteVport(ctx, v.ID) },
	}
}
