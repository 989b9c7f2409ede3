package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netns"

	"nuage/controller/store"
	"nuage/driver/link"
	"nuage/ovs/ovstest"
)

// What takes long to start is shared by the tests of this package: one etcd, and machines
// (a network namespace with an Open vSwitch), of which a test has as many as it needs to
// itself. Tests do not meet: each has its own enterprise and its own host names.
var shared struct {
	etcd   sync.Once
	socket string // of the etcd

	mu       sync.Mutex
	machines []*machine
	made     int
	ends     []func()
}

// atEnd calls f when all tests are done.
func atEnd(f func()) {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.ends = append(shared.ends, f)
}

func TestMain(m *testing.M) {
	code := m.Run()
	for i := len(shared.ends) - 1; i >= 0; i-- {
		shared.ends[i]()
	}
	os.Exit(code)
}

// etcd is the socket of the shared etcd.
func etcd(t testing.TB) string {
	t.Helper()
	shared.etcd.Do(func() {
		dir, err := os.MkdirTemp("", "nuage")
		if err != nil {
			t.Fatal(err)
		}
		log := logrus.New()
		log.SetOutput(io.Discard)
		s := store.New(store.Config{Dir: dir, Host: "server", Log: log})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); s.Run(ctx) }()
		atEnd(func() { cancel(); <-done; os.RemoveAll(dir) })
		for end := time.Now().Add(20 * time.Second); s.Ready() != nil; time.Sleep(2 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("etcd does not start: %v", s.Ready())
			}
		}
		shared.socket = filepath.Join(dir, "etcd.sock")
	})
	if shared.socket == "" {
		t.Fatal("etcd did not start")
	}
	return shared.socket
}

// machine is a network namespace with an Open vSwitch in it.
type machine struct {
	ns  string
	ovs *ovstest.OVS
	tb  *lender
	end func()
}

// lender is the test that has the machine now, for what outlives it.
type lender struct {
	testing.TB // of the present test
	ends       []func()
}

func (l *lender) Cleanup(f func()) { l.ends = append(l.ends, f) }
func (l *lender) end() {
	for i := len(l.ends) - 1; i >= 0; i-- {
		l.ends[i]()
	}
}

// borrow gives a machine to the test. It comes back empty, or not at all if the test fails.
func borrow(t testing.TB) *machine {
	t.Helper()
	var m *machine
	shared.mu.Lock()
	if n := len(shared.machines); n > 0 {
		m = shared.machines[n-1]
		shared.machines = shared.machines[:n-1]
	}
	shared.made++
	made := shared.made
	shared.mu.Unlock()
	if m == nil {
		m = newMachine(t, made)
	}
	m.tb.TB = t
	t.Cleanup(func() {
		if t.Failed() {
			m.end()
			return
		}
		m.clear()
		shared.mu.Lock()
		defer shared.mu.Unlock()
		shared.machines = append(shared.machines, m)
	})
	return m
}

func newMachine(t testing.TB, n int) *machine {
	t.Helper()
	m := &machine{ns: fmt.Sprintf("nuage-driver-%d-%d", os.Getpid(), n), tb: &lender{TB: t}}
	run(t, "ip", "netns", "add", m.ns)
	m.tb.Cleanup(func() { exec.Command("ip", "netns", "del", m.ns).Run() })
	m.ovs = ovstest.Start(m.tb, ovstest.Netdev(), ovstest.InNetNS("/run/netns/"+m.ns))
	m.end = sync.OnceFunc(m.tb.end)
	atEnd(m.end)
	return m
}

// clear removes what a test has left: the bridge, and all links but the loopback.
func (m *machine) clear() {
	m.ovs.Vsctl("--if-exists", "del-br", "alubr0")
	for line := range strings.Lines(run(m.tb, "ip", "-n", m.ns, "-o", "link", "show", "type", "veth")) {
		name, _, _ := strings.Cut(strings.Fields(line)[1], "@")
		exec.Command("ip", "-n", m.ns, "link", "del", strings.TrimSuffix(name, ":")).Run() // or it went with its peer
	}
}

// openLinks makes links in the machine's namespace.
func (m *machine) openLinks(t testing.TB) *link.Links {
	t.Helper()
	var links *link.Links
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		var ns netns.NsHandle
		if ns, err = netns.GetFromName(m.ns); err != nil {
			return
		}
		defer ns.Close()
		if err = netns.Set(ns); err == nil {
			links, err = link.Open()
		}
	}()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(links.Close)
	return links
}

func run(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// cable is a host's way to etcd, which can be cut, with and without a word.
type cable struct {
	path, far string

	mu       sync.Mutex
	cond     *sync.Cond
	silent   bool
	listener net.Listener
	conns    map[net.Conn]bool
}

func newCable(t testing.TB) *cable {
	t.Helper()
	dir, err := os.MkdirTemp("", "nuage")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{path: filepath.Join(dir, "cable.sock"), far: etcd(t), conns: map[net.Conn]bool{}}
	c.cond = sync.NewCond(&c.mu)
	if err := c.heal(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.stop(); os.RemoveAll(dir) })
	return c
}

// heal lets through what was held back, and new connections.
func (c *cable) heal() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent = false
	c.cond.Broadcast()
	if c.listener != nil {
		return nil
	}
	os.Remove(c.path)
	l, err := net.Listen("unix", c.path)
	if err != nil {
		return err
	}
	c.listener = l
	go c.serve(l)
	return nil
}

// silence lets nothing through, and tells nobody.
func (c *cable) silence() { c.mu.Lock(); defer c.mu.Unlock(); c.silent = true }

// stop breaks all connections, and refuses new ones.
func (c *cable) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent = false
	c.cond.Broadcast()
	if c.listener != nil {
		c.listener.Close()
		c.listener = nil
	}
	for conn := range c.conns {
		conn.Close()
	}
	clear(c.conns)
}

func (c *cable) serve(l net.Listener) {
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("unix", c.far)
		if err != nil {
			near.Close()
			continue
		}
		c.mu.Lock()
		c.conns[near], c.conns[far] = true, true
		if c.listener != l {
			near.Close()
			far.Close()
		}
		c.mu.Unlock()
		go c.carry(near, far)
		go c.carry(far, near)
	}
}

func (c *cable) carry(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		c.mu.Lock()
		for c.silent {
			c.cond.Wait()
		}
		c.mu.Unlock()
		if _, werr := to.Write(buf[:n]); errors.Join(err, werr) != nil {
			return
		}
	}
}
