package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"nuage/controller/tenant"
	"nuage/ovs"
	"nuage/ovs/pipeline"
)

// What arrives on a busy machine arrives within patient; who is dropped waits for brief.
const (
	patient = 5 * time.Second
	brief   = 700 * time.Millisecond
)

// echoes has a namespace answer at a TCP or UDP port with what it reads.
func echoes(t *testing.T, ns, network, addr string) {
	t.Helper()
	inside(t, ns, func() error {
		if network == "udp4" {
			c, err := net.ListenPacket(network, addr)
			if err != nil {
				return err
			}
			t.Cleanup(func() { c.Close() })
			go func() {
				buf := make([]byte, 4096)
				for {
					n, from, err := c.ReadFrom(buf)
					if err != nil {
						return
					}
					c.WriteTo(buf[:n], from)
				}
			}()
			return nil
		}
		l, err := net.Listen(network, addr)
		if err != nil {
			return err
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for c, err := l.Accept(); err == nil; c, err = l.Accept() {
				go func() { defer c.Close(); io.Copy(c, c) }()
			}
		}()
		return nil
	})
}

// dialFrom is a connection out of a namespace, from a port; 0 is any.
func dialFrom(t *testing.T, ns, network string, port int, to string, wait time.Duration) (c net.Conn, failed error) {
	t.Helper()
	inside(t, ns, func() error {
		d := net.Dialer{Timeout: wait, LocalAddr: &net.TCPAddr{Port: port}}
		if network == "udp4" {
			d.LocalAddr = &net.UDPAddr{Port: port}
		}
		c, failed = d.Dial(network, to)
		return nil
	})
	if failed == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, failed
}

// exchange sends a line and waits for it to come back.
func exchange(c net.Conn, line string, wait time.Duration) error {
	c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write([]byte(line)); err != nil {
		return err
	}
	got := make([]byte, len(line))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != line {
		return fmt.Errorf("%q came back", got)
	}
	return nil
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// halfOpen are the connections that a namespace has been asked for and has not got.
func halfOpen(t *testing.T, ns string) (n int) {
	t.Helper()
	out, err := in(ns, "cat", "/proc/net/tcp")
	if err != nil {
		t.Fatal(out)
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 3 && f[3] == "03" {
			n++
		}
	}
	return n
}

// A domain at its limit gets no connection that it would have to remember: the first packet
// stays on its host and is counted. All else goes on, and with room it works at once.
func TestDomainAtItsLimit(t *testing.T) {
	const most = 8
	p := newBounded(t, most)
	other := p.container(t, p.agent, p.lab, 5, "other", "other-web", "10.0.0.5")
	others := p.container(t, p.agent, p.lab, 6, "other", "other-web", "10.0.0.6")
	for _, ns := range []string{other, others} {
		run(t, "ip", "netns", "exec", ns, "ethtool", "-K", "eth0", "tx", "off")
	}
	theirs := policy("theirs", "other", tenant.Ingress, 1)
	theirs.Value.(*tenant.Policy).DefaultAllowIP = true
	p.feed.Publish(p.next(), theirs, policy("pol", "app1", tenant.Ingress, 1)) // which allows nothing by default now
	p.rule(t, "stateful", func(e *tenant.Entry) { e.Priority = 100 })
	port := tenant.PortRange{From: 9100, To: 9100}
	p.rule(t, "there", func(e *tenant.Entry) {
		e.Priority, e.Protocol, e.DestinationPort, e.Stateful = 10, tenant.UDP, port, false
	})
	p.rule(t, "back", func(e *tenant.Entry) { e.Priority, e.Protocol, e.SourcePort, e.Stateful = 20, tenant.UDP, port, false })
	p.rule(t, "refuse", func(e *tenant.Entry) {
		e.Priority, e.Protocol, e.Action, e.DestinationPort = 30, tenant.TCP, tenant.Reject, tenant.PortRange{From: 81, To: 81}
	})
	echoes(t, p.db, "tcp4", "10.0.1.3:7000")
	echoes(t, p.db, "udp4", "10.0.1.3:9000")
	echoes(t, p.db, "udp4", "10.0.1.3:9100")
	echoes(t, others, "tcp4", "10.0.0.6:7000")

	open := map[string]net.Conn{}
	for i := range most {
		network, to := "tcp4", "10.0.1.3:7000"
		if i%2 == 1 {
			network, to = "udp4", "10.0.1.3:9000"
		}
		if i == most-1 {
			to = "10.0.1.3:9001" // where nobody is
		}
		c, err := dialFrom(t, p.web, network, 4000+i, to, patient)
		if err == nil && i < most-1 {
			err = exchange(c, "one", patient)
		} else if err == nil {
			if err = exchange(c, "one", patient); errors.Is(err, syscall.ECONNREFUSED) {
				err = nil
			}
		}
		if err != nil {
			t.Fatalf("connection %d of %d: %v", i+1, most, err)
		}
		open[fmt.Sprint(4000+i)] = c
	}
	unreachable := open[fmt.Sprint(4000+most-1)]
	delete(open, fmt.Sprint(4000+most-1))

	// What is new and to be remembered.
	timedOut := func(what string, err error) {
		t.Helper()
		if !isTimeout(err) {
			t.Errorf("%s beyond the limit: %v", what, err)
		}
	}
	_, err := dialFrom(t, p.web, "tcp4", 5555, "10.0.1.3:7000", brief)
	timedOut("TCP", err)
	if n := halfOpen(t, p.db); n != 0 {
		t.Errorf("the server has %d half-open connections", n)
	}
	var deaf net.PacketConn
	inside(t, p.db, func() (err error) { deaf, err = net.ListenPacket("udp4", "10.0.1.3:9002"); return err })
	defer deaf.Close()
	datagrams(t, p.web, "10.0.1.3", 9002, 10, 1)
	datagrams(t, p.web, "10.0.1.3", 9002, 3000, 1) // in fragments
	deaf.SetDeadline(time.Now().Add(brief))
	if n, _, err := deaf.ReadFrom(make([]byte, 4000)); err == nil {
		t.Errorf("a datagram of %d bytes that cannot be answered", n)
	}
	if out, err := in(p.web, "ping", "-n", "-c", "1", "-W", "1", "10.0.1.3"); err == nil {
		t.Errorf("echo beyond the limit: %s", out)
	}
	if p.ovs.Datapath() == ovs.Netdev { // the kernel's drops by itself
		eventually(t, patient, func() string {
			all, err := p.agent.Counters(context.Background())
			if err != nil || len(all) != 2 {
				return fmt.Sprintf("%+v, %v", all, err)
			}
			mine, theirs := all[0].Drops["app1"][tenant.ReasonTooManyConnections], all[1].Drops["other"]
			if mine.Packets < 6 || len(theirs) != 0 { // a SYN, 4 packets of datagrams, an echo
				return fmt.Sprintf("counted %+v, and the other tenant's %+v", mine, theirs)
			}
			return ""
		})
	}

	// What is remembered, what is not to be, and what is another's.
	for port, c := range open {
		if err := exchange(c, "two", patient); err != nil {
			t.Errorf("connection from port %s: %v", port, err)
		}
	}
	if err := exchange(unreachable, "two", patient); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("port unreachable: %v", err)
	}
	stateless, err := dialFrom(t, p.web, "udp4", 0, "10.0.1.3:9100", patient)
	if err == nil {
		err = exchange(stateless, "stateless", patient)
	}
	if err != nil {
		t.Errorf("through stateless entries: %v", err)
	}
	if _, err := dialFrom(t, p.web, "tcp4", 0, "10.0.1.3:81", patient); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("refused: %v", err)
	}
	c, err := dialFrom(t, other, "tcp4", 0, "10.0.0.6:7000", patient)
	if err == nil {
		err = exchange(c, "theirs", patient)
	}
	if err != nil {
		t.Errorf("another tenant's: %v", err)
	}

	// Room for one.
	open["4001"].Close()
	p.ovs.Appctl("dpctl/flush-conntrack", "zone=1", "ct_nw_src=10.0.0.2,ct_nw_dst=10.0.1.3,ct_nw_proto=17,ct_tp_src=4001,ct_tp_dst=9000")
	c, err = dialFrom(t, p.web, "tcp4", 5555, "10.0.1.3:7000", patient)
	if err == nil {
		err = exchange(c, "room", patient)
	}
	if err != nil {
		t.Errorf("with room, from the port that had none: %v", err)
	}
	_, err = dialFrom(t, p.web, "tcp4", 0, "10.0.1.3:7000", brief)
	timedOut("TCP, once more,", err)
}

// Each host remembers the connections of its own vports: where the receiver's has no room,
// that one drops.
func TestLimitsOfTwoHosts(t *testing.T) {
	f := newFleet(t, 2, 1500)
	f.publish(twoSubnets()...)
	f.start(t, 1500)
	f.publish(policy("pol", "app1", tenant.Ingress, 1), ruleOf("stateful", "pol", "app1", func(e *tenant.Entry) { e.Protocol = tenant.TCP }))
	web := f.attach(t, f.nodes[0], "app1", "web", "10.0.0.2", 1450)
	db := f.attach(t, f.nodes[1], "app1", "db", "10.0.1.3", 1450)
	f.settled(t)
	f.primed(t)
	echoes(t, db, "tcp4", "10.0.1.3:7000")
	const most = 3
	for full, n := range f.nodes {
		free := f.nodes[1-full]
		for _, n := range f.nodes {
			n.ovs.Appctl("dpctl/flush-conntrack")
		}
		n.ovs.Appctl("dpctl/ct-set-limits", fmt.Sprintf("zone=1,limit=%d", most))
		free.ovs.Appctl("dpctl/ct-set-limits", "zone=1,limit=1000")
		before := [2]uint64{n.drops(t, pipeline.DropConnections), free.drops(t, pipeline.DropConnections)}
		for i := range most {
			c, err := dialFrom(t, web, "tcp4", 0, "10.0.1.3:7000", patient)
			if err == nil {
				err = exchange(c, "one", patient)
			}
			if err != nil {
				t.Fatalf("%s may have %d: number %d: %v", n.name, most, i+1, err)
			}
		}
		if _, err := dialFrom(t, web, "tcp4", 0, "10.0.1.3:7000", brief); !isTimeout(err) {
			t.Errorf("%s has no room: %v", n.name, err)
		}
		if n := halfOpen(t, db); n != 0 {
			t.Errorf("the server has %d half-open connections", n)
		}
		if n.ovs.Datapath() == ovs.System {
			continue
		}
		eventually(t, patient, func() string {
			after := [2]uint64{n.drops(t, pipeline.DropConnections), free.drops(t, pipeline.DropConnections)}
			if after[0] == before[0] || after[1] != before[1] {
				return fmt.Sprintf("%s has no room: it and the other have dropped %v, before %v", n.name, after, before)
			}
			return ""
		})
	}
}
