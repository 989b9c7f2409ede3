package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	vnetns "github.com/vishvananda/netns"

	"nuage/controller/tenant"
	"nuage/ovs/ovstest"
)

// policed is a host with real packets and three containers: web and peer in one subnet, db
// in another; a policy allows everything that no entry of it decides.
type policed struct {
	*host
	agent         *Agent
	lab           string // and of the containers:
	web, peer, db string
	lines         *logtest.Hook
}

func newPoliced(t *testing.T) *policed { t.Helper(); return newBounded(t, 1000) }

// newBounded is newPoliced with so many connections a domain.
func newBounded(t *testing.T, connections uint32) *policed {
	t.Helper()
	needRoot(t)
	lab := netns(t, "host")
	h := newHost(t, ovstest.Forwarding("/run/netns/"+lab))
	log, lines := logtest.NewNullLogger()
	a, _ := start(t, Config{Feed: h.feed, Switch: h.bridge, Log: log, ConntrackLimit: connections})
	pol := policy("pol", "app1", tenant.Ingress, 1)
	pol.Value.(*tenant.Policy).DefaultAllowIP = true
	h.feed.Publish(1, append(twoSubnets(), pol)...)
	p := &policed{host: h, agent: a, lines: lines, lab: lab}
	p.web = h.container(t, a, lab, 2, "app1", "web", "10.0.0.2")
	p.peer = h.container(t, a, lab, 4, "app1", "web", "10.0.0.4")
	p.db = h.container(t, a, lab, 3, "app1", "db", "10.0.1.3")
	for _, ns := range []string{p.web, p.peer, p.db} {
		run(t, "ip", "netns", "exec", ns, "ethtool", "-K", "eth0", "tx", "off")
	}
	return p
}

// rule puts an entry in force.
func (p *policed) rule(t *testing.T, id string, set func(*tenant.Entry)) {
	t.Helper()
	revision := p.next()
	p.feed.Publish(revision, ruleOf(id, "pol", "app1", set))
	p.wait(t, revision)
}

func (p *policed) wait(t *testing.T, revision int64) {
	t.Helper()
	eventually(t, 5*time.Second, func() string {
		if s := p.agent.Status(); s.Err != nil || s.Revision < revision || len(s.Refused)+len(s.Notes) > 0 {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
}

// inside runs f in a network namespace; the sockets that it opens stay there.
func inside(t *testing.T, ns string, f func() error) {
	t.Helper()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		h, err := vnetns.GetFromName(ns)
		if err == nil {
			err = vnetns.Set(h)
			h.Close()
		}
		if err == nil {
			err = f()
		}
		result <- err
	}()
	if err := <-result; err != nil {
		t.Fatal(err)
	}
}

// datagrams sends some of so many bytes each.
func datagrams(t *testing.T, ns, to string, port, size, times int) {
	t.Helper()
	inside(t, ns, func() error {
		c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.ParseIP(to), Port: port})
		if err != nil {
			return err
		}
		defer c.Close()
		for range times {
			c.Write(make([]byte, size)) // nobody listens there, which the next one may hear of
		}
		return nil
	})
}

// open is both ends of a connection from web to db.
func (p *policed) open(t *testing.T) (client, server net.Conn) {
	t.Helper()
	var l net.Listener
	inside(t, p.db, func() (err error) { l, err = net.Listen("tcp4", "10.0.1.3:7000"); return err })
	defer l.Close()
	inside(t, p.web, func() (err error) { client, err = net.DialTimeout("tcp4", "10.0.1.3:7000", 5*time.Second); return err })
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// Who is refused hears of it at once, in the same subnet and through the router, whatever
// the protocol; an open connection that a change refuses is reset.
func TestRefusal(t *testing.T) {
	p := newPoliced(t)
	connect := func(ns, addr string, port int) (string, time.Duration) {
		began := time.Now()
		out, _ := in(ns, "timeout", "3", "busybox", "nc", addr, fmt.Sprint(port))
		return out, time.Since(began)
	}
	client, server := p.open(t)
	passes := func(from, to net.Conn) error {
		to.SetDeadline(time.Now().Add(2 * time.Second))
		if _, err := from.Write([]byte("x")); err != nil {
			return err
		}
		_, err := to.Read(make([]byte, 1))
		return err
	}
	if err := errors.Join(passes(client, server), passes(server, client)); err != nil {
		t.Fatal(err)
	}
	p.rule(t, "refuse", func(e *tenant.Entry) { e.Priority, e.Action = 10, tenant.Reject })
	for name, c := range map[string]net.Conn{"client": client, "server": server} {
		// The switch may pass what it was about to: a change is in force some milliseconds
		// after it is programmed.
		var err error
		for end := time.Now().Add(2 * time.Second); err == nil && time.Now().Before(end); {
			c.SetDeadline(end)
			if _, err = c.Write([]byte("x")); err == nil {
				_, err = c.Read(make([]byte, 100))
			}
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the %s of a refused connection: %v", name, err)
		}
	}
	for _, addr := range []string{"10.0.1.3", "10.0.0.4"} {
		if out, took := connect(p.web, addr, 81); !strings.Contains(out, "refused") || took > time.Second {
			t.Errorf("to %s: %q after %v", addr, out, took)
		}
		out, _ := in(p.web, "ping", "-n", "-c", "1", "-W", "5", addr)
		if !strings.Contains(out, "From "+addr) || !strings.Contains(out, "Packet filtered") {
			t.Errorf("ping to %s: %s", addr, out)
		}
	}
	// A change back, and nobody is told any more.
	p.rule(t, "refuse", func(e *tenant.Entry) { e.Priority, e.Action = 10, tenant.Deny })
	if out, took := connect(p.web, "10.0.1.3", 81); strings.Contains(out, "refused") || took < 2*time.Second {
		t.Errorf("denied: %q after %v", out, took)
	}
}

// Connections are logged once each, allowed or denied, and the first packet of one that is
// logged is not lost.
func TestConnectionsAreLogged(t *testing.T) {
	p := newPoliced(t)
	p.rule(t, "ping", func(e *tenant.Entry) { e.Priority, e.Protocol, e.FlowLogging = 10, tenant.ICMP, true })
	p.rule(t, "udp", func(e *tenant.Entry) {
		e.Priority, e.Protocol, e.FlowLogging, e.Action = 20, tenant.UDP, true, tenant.Deny
		e.DestinationPort = tenant.PortRange{From: 500, To: 600}
	})
	out, err := in(p.web, "ping", "-n", "-c", "3", "-i", "1", "-W", "5", "10.0.1.3") // which waits an interval for a late one
	if m := loss.FindStringSubmatch(out); err != nil || m == nil || m[1] != "0" {
		t.Errorf("logged, and lost:\n%s", out)
	}
	datagrams(t, p.db, "10.0.0.2", 553, 10, 1)
	datagrams(t, p.db, "10.0.0.2", 700, 10, 1)
	flows := func() (got []logrus.Fields) {
		for _, e := range p.lines.AllEntries() {
			if e.Data["log"] == flowLogName {
				got = append(got, e.Data)
			}
		}
		return got
	}
	eventually(t, 5*time.Second, func() string {
		if got := flows(); len(got) < 2 {
			return fmt.Sprint(got)
		}
		return ""
	})
	got := flows()
	if len(got) != 2 || got[0]["entryID"] != "ping" || got[0]["action"] != "allowed" || got[0]["icmpType"] != byte(8) ||
		got[0]["sourceVport"] != "web-v2" || got[0]["destinationVport"] != "web-v3" || got[0]["policy"] != "pol" || got[0]["domain"] != "app1" {
		t.Errorf("lines: %v", got)
	}
	if len(got) == 2 && (got[1]["entryID"] != "udp" || got[1]["action"] != "denied" || got[1]["destinationPort"] != uint16(553) || got[1]["sourceVport"] != "web-v3") {
		t.Errorf("lines: %v", got)
	}
}

// While one tenant opens thousands of connections that are logged, another's are logged and
// refused as ever, and no more of the first one's are remembered than a domain may have.
func TestFloodOfOneTenant(t *testing.T) {
	p := newPoliced(t)
	other := p.container(t, p.agent, p.lab, 5, "other", "other-web", "10.0.0.5")
	p.container(t, p.agent, p.lab, 6, "other", "other-web", "10.0.0.6")
	p.rule(t, "all", func(e *tenant.Entry) { e.Priority, e.FlowLogging = 10, true })
	revision := p.next()
	p.feed.Publish(revision, policy("theirs", "other", tenant.Ingress, 1),
		ruleOf("refuse", "theirs", "other", func(e *tenant.Entry) { e.Priority, e.FlowLogging, e.Action = 10, true, tenant.Reject }))
	p.wait(t, revision)
	ended, opened := make(chan struct{}), 0
	go func() {
		defer close(ended)
		inside(t, p.web, func() error {
			for end := time.Now().Add(3 * time.Second); time.Now().Before(end); opened++ {
				c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(10, 0, 1, 3), Port: 9000})
				if err != nil {
					return err
				}
				c.Write([]byte("x"))
				c.Close()
			}
			return nil
		})
	}()
	refused := 0
	inside(t, other, func() error {
		for range 20 { // the switch knows their like from the second on
			_, err := net.DialTimeout("tcp4", "10.0.0.6:81", 500*time.Millisecond)
			if errors.Is(err, syscall.ECONNREFUSED) {
				refused++
			}
			time.Sleep(50 * time.Millisecond)
		}
		return nil
	})
	<-ended
	lines := map[any]int{}
	for _, e := range p.lines.AllEntries() {
		if e.Data["log"] == flowLogName {
			lines[e.Data["domainID"]]++
		}
	}
	t.Logf("%d connections opened; lines %v", opened, lines)
	if refused < 19 || lines["other"] < 19 {
		t.Errorf("of the other tenant's 20 connections %d were refused and %d logged", refused, lines["other"])
	}
	zones, err := p.bridge.ConntrackLimits(context.Background())
	if err != nil || zones[1].Count < 900 || zones[1].Count > 1000 || zones[2].Limit != 1000 {
		t.Errorf("connections are %+v, %v", zones, err)
	}
	if n := lines["app1"]; opened < 1000 || n < 50 || n > 400 {
		t.Errorf("%d connections opened, %d logged", opened, n)
	}
}

// What entries, defaults, limiters and the guard count is told exactly, and outlives a
// change of the flows that count.
func TestCounters(t *testing.T) {
	p := newPoliced(t)
	p.rule(t, "ping", func(e *tenant.Entry) {
		e.Priority, e.Protocol, e.StatsLogging, e.FlowLogging = 10, tenant.ICMP, true, true
	})
	ping := func(n int) {
		t.Helper()
		if out, err := in(p.web, "ping", "-n", "-q", "-c", fmt.Sprint(n), "-i", "0.05", "-W", "1", "10.0.1.3"); err != nil {
			t.Fatal(out)
		}
	}
	counters := func(a *Agent) tenant.Counters {
		t.Helper()
		all, err := a.Counters(context.Background())
		if err != nil || len(all) != 1 || all[0].DomainID != "app1" || all[0].Host != thisHost {
			t.Fatalf("%+v, %v", all, err)
		}
		return all[0]
	}
	expect := func(a *Agent, packets uint64) {
		t.Helper()
		eventually(t, 5*time.Second, func() string { // the switch gathers them by and by
			if got := counters(a).Entries["ping"]; got != (tenant.Counter{Packets: packets, Bytes: 98 * packets}) {
				return fmt.Sprintf("counted %+v, want %d", got, packets)
			}
			return ""
		})
	}
	ping(10) // echoes and answers: two packets each, judged by the same entry
	expect(p.agent, 20)
	p.rule(t, "ping", func(e *tenant.Entry) { e.Priority, e.Protocol, e.StatsLogging = 700, tenant.ICMP, true })
	expect(p.agent, 20)
	ping(5)
	expect(p.agent, 30)
	// Another process begins with what the switch has.
	b, stop := start(t, Config{Feed: p.feed, Switch: p.bridge})
	defer stop()
	expect(b, 10)

	in(p.web, "ip", "addr", "add", "10.0.0.77/24", "dev", "eth0")
	in(p.web, "ping", "-n", "-c", "3", "-i", "0.2", "-W", "1", "-I", "10.0.0.77", "10.0.0.4")
	revision := p.next()
	p.feed.Publish(revision, limiter("slow", vportKey(4), tenant.Ingress, 1))
	p.wait(t, revision)
	datagrams(t, p.peer, "10.0.1.3", 9000, 1400, 500)
	eventually(t, 5*time.Second, func() string {
		got := counters(p.agent)
		switch drops := got.Drops["v2"]; {
		case drops[tenant.ReasonSpoofedARP].Packets+drops[tenant.ReasonSpoofedIP].Packets == 0:
			return fmt.Sprintf("no spoofing is counted: %+v", got)
		case got.Limited["v4"].Packets == 0 || len(got.Limited) != 1:
			return fmt.Sprintf("no limit is counted: %+v", got)
		case got.Defaults["pol"].Packets == 0:
			return fmt.Sprintf("no default is counted: %+v", got)
		}
		return ""
	})
}
