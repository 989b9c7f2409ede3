package agent

import (
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"nuage/controller/tenant"
)

// carries is whether so many bytes get from one end of a connection to the other.
func carries(from, to net.Conn, n int64) error {
	deadline := time.Now().Add(20 * time.Second)
	arrived := make(chan error, 1)
	to.SetDeadline(deadline)
	from.SetDeadline(deadline)
	go func() { _, err := io.CopyN(io.Discard, to, n); arrived <- err }()
	if _, err := from.Write(make([]byte, n)); err != nil {
		return err
	}
	return <-arrived
}

// tcp7000 is a policy with an entry that allows TCP to port 7000.
func (p *policed) tcp7000(t *testing.T, change func(*tenant.Entry)) {
	p.rule(t, "tcp", func(e *tenant.Entry) {
		e.Priority, e.Protocol, e.DestinationPort = 10, tenant.TCP, tenant.PortRange{From: 7000, To: 7000}
		change(e)
	})
}

// A connection that is allowed goes on when the policies of its domain are switched off and
// on again, however much it has carried meanwhile.
func TestPoliciesOffAndOn(t *testing.T) {
	p := newPoliced(t)
	p.tcp7000(t, func(*tenant.Entry) {})
	client, server := p.open(t)
	for _, active := range []bool{true, false, true} {
		pol := policy("pol", "app1", tenant.Ingress, 1)
		pol.Value.(*tenant.Policy).Active = active
		revision := p.next()
		p.feed.Publish(revision, pol)
		p.wait(t, revision)
		if !active {
			eventually(t, 5*time.Second, func() string {
				out := p.ovs.Appctl("dpctl/dump-conntrack", "zone=1")
				if strings.Contains(out, "tcp") {
					return "still remembered: " + out
				}
				return ""
			})
		}
		if err := errors.Join(carries(client, server, 8<<20), carries(server, client, 1000)); err != nil {
			t.Fatalf("with the policy active %v: %v", active, err)
		}
	}
}

// A connection that is refused is forgotten soon, so that it takes no place, and that its port
// is of use when it is allowed again.
func TestRefusedIsForgotten(t *testing.T) {
	p := newPoliced(t)
	p.tcp7000(t, func(*tenant.Entry) {})
	client, server := p.open(t)
	if err := carries(client, server, 1000); err != nil {
		t.Fatal(err)
	}
	p.rule(t, "refuse", func(e *tenant.Entry) { e.Priority, e.Action = 5, tenant.Reject })
	for name, c := range map[string]net.Conn{"client": client, "server": server} {
		eventually(t, 5*time.Second, func() string {
			c.SetDeadline(time.Now().Add(300 * time.Millisecond))
			_, err := c.Write([]byte("x"))
			if err == nil {
				_, err = c.Read(make([]byte, 10))
			}
			if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
				return name + " is not refused"
			}
			return ""
		})
	}
	if out := p.ovs.Appctl("dpctl/dump-conntrack", "zone=1"); strings.Contains(out, "ESTABLISHED") {
		t.Errorf("what was refused is remembered as open: %s", out)
	}
}

// A connection is one line of the log, also by an entry that remembers nothing.
func TestStatelessConnectionIsLoggedOnce(t *testing.T) {
	for _, protocol := range []tenant.Protocol{tenant.TCP, tenant.AnyProtocol} {
		t.Run(protocol.String(), func(t *testing.T) {
			p := newPoliced(t)
			p.rule(t, "logged", func(e *tenant.Entry) { e.Priority, e.Protocol, e.FlowLogging, e.Stateful = 10, protocol, true, false })
			client, server := p.open(t)
			for range 20 {
				if err := errors.Join(carries(client, server, 10), carries(server, client, 10)); err != nil {
					t.Fatal(err)
				}
			}
			p.loggedOnce(t)
		})
	}
}

func (p *policed) loggedOnce(t *testing.T) {
	t.Helper()
	lines := func() (n int) {
		for _, e := range p.lines.AllEntries() {
			if e.Data["log"] == flowLogName {
				n++
			}
		}
		return n
	}
	eventually(t, 15*time.Second, func() string {
		if lines() == 0 {
			return "no line"
		}
		return ""
	})
	time.Sleep(200 * time.Millisecond) // for another to come
	if n := lines(); n > 1 {
		t.Errorf("%d lines of one connection", n)
	}
}

// So is one that nothing ever answers, which connection tracking calls new for longer.
func TestOneWayConnectionIsLoggedOnce(t *testing.T) {
	p := newPoliced(t)
	p.rule(t, "udp", func(e *tenant.Entry) {
		e.Priority, e.Protocol, e.FlowLogging, e.DestinationPort = 10, tenant.UDP, true, tenant.PortRange{From: 7000, To: 7000}
	})
	var server net.PacketConn
	var client net.Conn
	inside(t, p.db, func() (err error) { server, err = net.ListenPacket("udp4", "10.0.1.3:7000"); return err })
	inside(t, p.web, func() (err error) { client, err = net.Dial("udp4", "10.0.1.3:7000"); return err })
	defer server.Close()
	defer client.Close()
	arrived := 0
	for deadline := time.Now().Add(20 * time.Second); arrived < 10 && time.Now().Before(deadline); {
		client.Write([]byte("x"))
		server.SetDeadline(time.Now().Add(200 * time.Millisecond))
		if _, _, err := server.ReadFrom(make([]byte, 100)); err == nil {
			arrived++
		}
	}
	if arrived < 10 {
		t.Fatalf("%d datagrams arrived", arrived)
	}
	p.loggedOnce(t)
}
