package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"nuage/controller/tenant"
)

// patience is how long a packet may take that is to arrive; dead is how long none has, of a
// sender that tries again.
const (
	patience = 5 * time.Second
	dead     = 700 * time.Millisecond
)

// exchange sends a line and waits for it to come back.
func exchange(c net.Conn, line string, wait time.Duration) error {
	c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write([]byte(line)); err != nil {
		return err
	}
	return expectBytes(c, line, wait)
}

func expectBytes(c net.Conn, line string, wait time.Duration) error {
	c.SetDeadline(time.Now().Add(wait))
	var got []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(got, []byte(line)) {
		n, err := c.Read(buf)
		if got = append(got, buf[:n]...); err != nil {
			return err
		}
	}
	return nil
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// tracked are the connections that conntrack remembers with a port.
func (p *wire) tracked(port int) (lines []string) {
	for line := range strings.Lines(p.ovs.Appctl("dpctl/dump-conntrack")) {
		if strings.Contains(line, fmt.Sprintf("dport=%d", port)) {
			lines = append(lines, line)
		}
	}
	return lines
}

// What a trace cannot show: connections that the real connection tracking follows.
func TestConnections(t *testing.T) {
	p := newWire(t, 1)
	w := p.w
	w.policy("in", "d1", tenant.Egress, 10)
	port := func(n uint16) tenant.PortRange { return tenant.PortRange{From: n, To: n} }
	tcp := w.entry("in", 10, tenant.Forward, tenant.Entry{Protocol: tenant.TCP, DestinationPort: port(8000), Stateful: true})
	w.entry("in", 20, tenant.Forward, tenant.Entry{Protocol: tenant.UDP, DestinationPort: tenant.PortRange{From: 9000, To: 9001}, Stateful: true})
	edit := func(change func(*tenant.Entry)) {
		e := *w.state.Entries[tcp.ID]
		change(&e)
		w.put(tcp.Kind, tcp.ID, &e)
		p.load()
	}
	p.load()
	p.echo(1, 8001)
	p.echo(2, 8000)

	// A connection that a stateful entry allows, and none that it does not.
	c, err := p.dial(1, "tcp4", "", "10.0.1.12:8000", patience)
	if err != nil {
		t.Fatalf("allowed connection: %v", err)
	}
	if err := exchange(c, "one", patience); err != nil {
		t.Fatalf("allowed connection: %v", err)
	}
	if _, err := p.dial(2, "tcp4", "", "10.0.1.11:8001", dead); !isTimeout(err) {
		t.Errorf("connection that no entry allows: %v", err)
	}
	if len(p.tracked(8000)) != 1 {
		t.Errorf("connections: %q", p.tracked(8000))
	}

	// A change of policy cuts it, at once and in both directions, and gives it back.
	edit(func(e *tenant.Entry) { e.Action = tenant.Deny })
	if err := exchange(c, "two", dead); !isTimeout(err) {
		t.Errorf("connection that was cut: %v", err)
	}
	edit(func(e *tenant.Entry) { e.Action = tenant.Forward })
	if err := expectBytes(c, "two", 2*patience); err != nil {
		t.Errorf("connection that was given back: %v", err)
	}

	// A stateless entry answers for its own direction alone, and remembers nothing.
	edit(func(e *tenant.Entry) { e.Stateful = false })
	if err := exchange(c, "three", dead); !isTimeout(err) {
		t.Errorf("replies that a stateless entry does not allow: %v", err)
	}
	w.entry("in", 30, tenant.Forward, tenant.Entry{Protocol: tenant.TCP, SourcePort: port(8000)})
	p.load()
	if err := expectBytes(c, "three", 2*patience); err != nil {
		t.Errorf("replies that another stateless entry allows: %v", err)
	}
	p.ovs.Appctl("dpctl/flush-conntrack")
	c, err = p.dial(1, "tcp4", "", "10.0.1.12:8000", patience)
	if err == nil {
		err = exchange(c, "four", patience)
	}
	if err != nil || len(p.tracked(8000)) != 0 {
		t.Errorf("stateless connection: %v, remembered as %q", err, p.tracked(8000))
	}

	p.datagrams()
}

func (p *wire) datagrams() {
	t := p.t
	// In fragments, through an entry that asks for the port.
	large := strings.Repeat("x", 2999) + "."
	server := p.receive(2, ":9000")
	c, err := p.dial(1, "udp4", "10.0.1.11:7777", "10.0.1.12:9000", patience)
	if err != nil {
		t.Fatal(err)
	}
	c.Write([]byte(large))
	buf := make([]byte, 4096)
	server.SetDeadline(time.Now().Add(patience))
	n, from, err := server.ReadFrom(buf)
	if err != nil || string(buf[:n]) != large {
		t.Fatalf("datagram in fragments: %d bytes, %v", n, err)
	}
	server.WriteTo(buf[:n], from)
	if err := expectBytes(c, large, patience); err != nil {
		t.Errorf("reply in fragments: %v", err)
	}

	// Of a datagram for a port that is not allowed no fragment arrives, though another entry
	// allows fragments that show no port.
	found := make(chan bool)
	stop := p.sniff(2, []byte("denied"), found)
	denied, err := p.dial(1, "udp4", "", "10.0.1.12:9002", patience)
	if err != nil {
		t.Fatal(err)
	}
	denied.Write([]byte(strings.Repeat("denied", 500)))
	time.Sleep(dead)
	if stop(); <-found {
		t.Error("fragments of a denied datagram arrive")
	}

	// Errors come back to either side.
	closed, err := p.dial(1, "udp4", "", "10.0.1.12:9001", patience)
	if err != nil {
		t.Fatal(err)
	}
	if err := exchange(closed, "x", patience); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("port unreachable, to the opener: %v", err)
	}
	c.Close()
	server.Close()
	back, err := p.dial(2, "udp4", "10.0.1.12:9000", "10.0.1.11:7777", patience)
	if err != nil {
		t.Fatal(err)
	}
	switch err := exchange(back, "x", patience); {
	case p.ovs.Datapath() == "system": // there ovs-vswitchd is not told whose error the opener sends
		if !isTimeout(err) {
			t.Errorf("port unreachable, from the opener: %v: better than docs/limits.md says", err)
		}
	case !errors.Is(err, syscall.ECONNREFUSED):
		t.Errorf("port unreachable, from the opener: %v", err)
	}
}

// The userspace datapath hands over fragments that have waited in vain in the place of
// whatever packet is tracked next: another tenant's. They must not come out at its vport.
func TestFragmentsStayInTheirDomain(t *testing.T) {
	t.Parallel() // they wait for 15 seconds
	p := newWire(t, 2)
	for _, d := range []string{"d1", "d2"} {
		p.w.policy("in-"+d, d, tenant.Egress, 10).DefaultAllowIP = true
	}
	p.load()
	const secret = "of the first tenant's"
	found := make(chan bool)
	stop := p.sniff(4, []byte(secret), found)
	receiver := p.receive(4, ":9000")
	p.fragment(1, secret)
	deadline := time.Now().Add(40 * time.Second)
	for i := 0; p.counted(DropStateMiss)+p.counted(DropReleasedMiss) == 0; i++ {
		if time.Now().After(deadline) {
			t.Fatal("no fragment was out of place: this Open vSwitch does not do what is tested")
		}
		// Of a new connection each time, which goes through both ct actions.
		from, err := p.dial(3, "udp4", fmt.Sprintf(":%d", 10_000+i), "10.0.1.12:9000", patience)
		if err != nil {
			t.Fatal(err)
		}
		from.Write([]byte("hello"))
		buf := make([]byte, 100)
		receiver.SetDeadline(time.Now().Add(patience))
		if n, _, err := receiver.ReadFrom(buf); err != nil || string(buf[:n]) != "hello" {
			t.Fatalf("the other tenant's own: %q, %v", buf[:n], err)
		}
		from.Close()
		time.Sleep(200 * time.Millisecond)
	}
	stop()
	if <-found {
		t.Error("a fragment came out at another tenant's vport")
	}
}
