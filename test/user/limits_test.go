package user

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"nuage/test/host"
)

// apply gives a domain policies, in the format of `nuagectl apply`.
func apply(h *host.Host, d *host.Domain, policies string) {
	file := fmt.Sprintf("enterprise: %s\ndomains: [{name: %s, policies: [%s]}]\n", d.Enterprise, d.Name, policies)
	if out, err := h.TryWith(file, nil, "nuagectl", "apply", "-f", "-"); err != nil {
		h.Fatalf("%v\n%s\n%s", err, out, file)
	}
	h.Programmed()
}

// pieces cuts a packet's payload at the offsets, which are multiples of 8.
func pieces(p host.IPv4, offsets ...int) (all []host.IPv4) {
	start := 0
	for _, end := range append(offsets, len(p.Payload)) {
		f := p
		f.Payload, f.Fragment = p.Payload[start:end], uint16(start/8)
		if end < len(p.Payload) {
			f.Fragment |= 0x2000
		}
		all, start = append(all, f), end
	}
	return all
}

// Ports are judged however a packet is cut: fragments of what is allowed pass, and of what
// is denied none that would make a packet of it. Without policies all of them pass.
func TestFragments(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	for name, policies := range map[string]string{
		"None":  "",
		"Allow": `{name: p, direction: egress, priority: 1, entries: [{priority: 1, action: FORWARD, protocol: udp, destinationPort: 80}, {priority: 2, action: FORWARD, protocol: tcp, destinationPort: 80}]}`,
		"Deny":  `{name: p, direction: egress, priority: 1, defaultAllowIP: true, entries: [{priority: 1, action: DROP, protocol: udp, destinationPort: 81}, {priority: 2, action: DROP, protocol: tcp, destinationPort: 81}, {priority: 3, action: DROP, protocol: sctp, destinationPort: 81}]}`,
	} {
		d := h.Domain(name, "front=10.94.1.0/24")
		n := d.Network("front", "--subnet", "10.94.1.0/24")
		client := newParty(h, n, name+"-client", "10.94.1.20")
		server := h.Prober(name+"-server", "--network", n, "--ip", "10.94.1.10")
		mac := h.Endpoint(server.Name, n).MacAddress
		apply(h, d, policies)
		in, back := h.Listen(server.Name, ""), h.Listen(client.name, "")
		id := uint16(100)
		send := func(ps ...host.IPv4) {
			t.Helper()
			var frames [][]byte
			for _, f := range ps {
				f.ID = id
				frames = append(frames, host.Ethernet(mac, client.mac, 0x800, f.Bytes()...))
			}
			id++
			h.Send(client.name, frames...)
		}
		packet := func(protocol byte, payload []byte) host.IPv4 {
			return host.IPv4{Src: client.ip, Dst: server.IP, Protocol: protocol, Payload: payload}
		}
		// Of each packet only the first fragment has the mark; a segment's answer has the letter
		// that comes next.
		const small, good, bad, sctp, datagram, last, answer = "nuga", "nugc", "nuge", "nugg", "nugi", "nugk", "nugl"
		syn := func(from, to uint16, mark string) host.IPv4 {
			return packet(6, host.SYN(client.ip, server.IP, from, to, mark, strings.Repeat("x", 1400)))
		}

		if out := h.Exec(client.name, "app", "udp", "-size", "4000", "-timeout", "5s", server.IP+":80"); !strings.HasPrefix(out, "4000 bytes") {
			t.Errorf("%s: 4000 bytes to an open port and back: %s", name, out)
		}
		send(pieces(packet(17, host.UDP(7000, 81, datagram+strings.Repeat("x", 3900))), 1400, 2800)...)
		send(pieces(syn(7001, 81, small), 8)...) // cut behind the ports
		over, under := pieces(syn(7002, 80, good), 1208), pieces(syn(7003, 81, bad), 1208)
		send(over[0], under[0], over[1]) // other ports laid over, in either order
		send(under[0], over[0], over[1])
		send(pieces(packet(132, append([]byte{0x1b, 0x58, 0, 81}, sctp+strings.Repeat("x", 1400)...)), 1208)...)
		send(pieces(syn(7004, 80, last), 1208)...)
		back.Await(answer)
		for mark, what := range map[string]string{small: "a segment cut behind its ports", bad: "a segment with other ports laid over", sctp: "SCTP in fragments", datagram: "a large datagram"} {
			if came := in.Got(mark) != 0; came != (name == "None") {
				t.Errorf("%s: %s came to the denied port: %t", name, what, came)
			}
		}
	}
}

// tenantOf is a domain with a client and a server, of which the client may reach port 80, and
// is denied all other TCP ports aloud.
type tenantOf struct {
	h              *host.Host
	d              *host.Domain
	client, server *host.Prober
	self, peer     party
}

func newTenant(h *host.Host, name string) tenantOf {
	d := h.Domain(name, "front=10.96.1.0/24")
	n := d.Network("front", "--subnet", "10.96.1.0/24")
	o := tenantOf{h: h, d: d, client: h.Prober(name+"-client", "--network", n), server: h.Prober(name+"-server", "--network", n)}
	o.self = party{o.client.Name, o.client.IP, h.Endpoint(o.client.Name, n).MacAddress}
	o.peer = party{o.server.Name, o.server.IP, h.Endpoint(o.server.Name, n).MacAddress}
	apply(h, d, `{name: p, direction: egress, priority: 1, entries: [{priority: 1, action: FORWARD, protocol: udp, destinationPort: 80},
		{priority: 2, action: FORWARD, protocol: icmp}, {priority: 3, action: FORWARD, protocol: tcp, destinationPort: 80},
		{priority: 4, action: DROP, protocol: tcp, flowLogging: true}]}`)
	return o
}

// answered is how many of n connections at once, each from a port of its own, have an answer.
func (o tenantOf) answered(n int) (open int) {
	answers, err := o.client.Ask(2*time.Second, slices.Repeat([]host.Question{{Protocol: "udp", Address: o.server.IP + ":80"}}, n)...)
	if err != nil {
		o.h.Fatalf("%v", err)
	}
	for _, a := range answers {
		if a == "open" {
			open++
		}
	}
	return open
}

// lines are those of the flow log that are about the domain and have the text.
func (o tenantOf) lines(with string) (found []string) {
	for line := range strings.Lines(o.h.PluginLog(100000)) {
		if strings.Contains(line, "log=flow") && strings.Contains(line, "domain="+o.d.Name+" ") && strings.Contains(line, with) {
			found = append(found, line)
		}
	}
	return found
}

// What one tenant has too much of is its own: connections, frames of any kind, lines of the
// log.
func TestExcessOfATenant(t *testing.T) {
	t.Parallel()
	h := host.Ready(t)
	const limit = 150
	h.Configure(fmt.Sprintf("NUAGE_CONNTRACK_LIMIT=%d", limit))
	h.StoreReady()
	red, blue := newTenant(h, "Red"), newTenant(h, "Blue")

	before, err := red.client.Talk(red.server.IP + ":80")
	if err != nil {
		t.Fatal(err)
	}
	got := red.answered(500)
	t.Logf("of 500 connections at once, in a domain that may have %d, %d are answered", limit, got)
	if got < limit/2 || got > limit {
		t.Errorf("red: %d of 500, want %d", got, limit)
	}
	if got := blue.answered(100); got != 100 {
		t.Errorf("blue, while red has all that it may: %d of 100", got)
	}
	if got := red.answered(20); got > 3 { // who comes from a port that was used before has its connection
		t.Errorf("red, again: %d of 20", got)
	}
	h.Eventually(10*time.Second, "red's connection from before goes on", func() error { return goesOn(before) })

	a, b := red.self, red.peer
	ip := func(dst, src string, protocol byte, payload []byte) []byte {
		return host.Ethernet(dst, a.mac, 0x800, host.IPv4{Src: src, Dst: b.ip, Protocol: protocol, Payload: payload}.Bytes()...)
	}
	storm(t, "ARP", red, blue, func(n int) []byte {
		return host.Ethernet(everybody, a.mac, 0x806, host.ARP(1, a.mac, a.ip, "00:00:00:00:00:00", fmt.Sprintf("10.96.1.%d", n))...)
	})
	storm(t, "broadcast", red, blue, func(n int) []byte { return ip(everybody, a.ip, 17, host.UDP(uint16(n), 9, "")) })
	storm(t, "spoofing", red, blue, func(n int) []byte { return ip(b.mac, fmt.Sprintf("10.96.2.%d", n), 17, host.UDP(9, 9, "")) })
	storm(t, "connections denied and logged", red, blue, func(n int) []byte {
		return ip(b.mac, a.ip, 6, host.SYN(a.ip, b.ip, uint16(1000+n), 81, "1234", ""))
	})

	h.Eventually(15*time.Second, "a line that says how many were left out", func() error {
		if said := red.lines("omitted="); len(said) == len(red.lines("unseen=0")) {
			return fmt.Errorf("%d lines, %s", len(red.lines("")), said)
		}
		return nil
	})
	of, others := len(red.lines("denied")), len(blue.lines("denied"))
	t.Logf("%d lines of red, %d of blue; %s", of, others, red.lines("omitted="))
	if of < 100 || of > 100+50*10 {
		t.Errorf("%d lines of red's, want 100 and 50 a second", of)
	}
	if others == 0 {
		t.Error("no line of blue's")
	}
}

// storm has the client of one tenant send 250 different frames again and again for 2 s, while
// the other one pings, asks for an address and is denied a connection.
func storm(t *testing.T, what string, from, other tenantOf, frame func(n int) []byte) {
	t.Helper()
	h := from.h
	frames := make([][]byte, 250)
	for i := range frames {
		frames[i] = frame(i + 1)
	}
	p := h.Ping(other.client.Name, other.server.IP)
	time.Sleep(500 * time.Millisecond)
	calm := p.Stop()
	p = h.Ping(other.client.Name, other.server.IP)
	meanwhile := make(chan string)
	go func() {
		out, _ := h.TryDocker("exec", other.client.Name, "app", "arping", "-W", "2s", other.server.IP)
		answers, err := other.client.Ask(500*time.Millisecond, host.Question{Protocol: "tcp", Address: other.server.IP + ":81"}, host.Question{Protocol: "tcp", Address: other.server.IP + ":80"})
		meanwhile <- fmt.Sprintf("%s %v %v", out, answers, err)
	}()
	n := h.Storm(from.self.name, 2*time.Second, frames...)
	loss := p.Stop()
	t.Logf("%s: %d frames in 2 s; another domain's pings: %d of %d lost, rtt %s (before: %s), longest gap %s", what, n, loss.Lost, loss.Sent, loss.RTT, calm.RTT, loss.Longest)
	if loss.Sent < 100 || loss.Lost*20 > loss.Sent {
		t.Errorf("%s: %+v, want at most 5 %% lost", what, loss)
	}
	if got, want := <-meanwhile, other.server.IP+" is at "+other.peer.mac+" [silent open] <nil>"; got != want {
		t.Errorf("%s: another domain's address, closed and open port: %s", what, got)
	}
}

// ICMP errors come back for what was allowed, and for nothing else.
func TestICMPErrors(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.95.1.0/24")
	n := d.Network("front", "--subnet", "10.95.1.0/24")
	server := newParty(h, n, "server", "10.95.1.10")
	client := h.Prober("client", "--network", n, "--ip", "10.95.1.20")
	apply(h, d, fmt.Sprintf("{name: p, direction: egress, priority: 1, entries: [{priority: 1, action: FORWARD, protocol: udp, destinationPort: 9, to: {cidr: %s/32}}]}", server.ip))
	in := h.Listen(client.Name, "")
	about := func(port uint16, mark string) []byte { // that the server's port 9 is unreachable for the client's
		quoted := host.IPv4{Src: client.IP, Dst: server.ip, Protocol: 17, Payload: host.UDP(port, 9, mark)}
		return host.Ethernet(h.Endpoint(client.Name, n).MacAddress, server.mac, 0x800,
			host.IPv4{Src: server.ip, Dst: client.IP, Protocol: 1, Payload: host.ICMP(3, 3, quoted.Bytes())}.Bytes()...)
	}
	reaches(t, client, "udp", server.ip+":9", "refused")
	const unrelated, related = "nuage unrelated", "nuage related"
	h.Send(server.name, about(5555, unrelated))
	clientMAC := h.Endpoint(client.Name, n).MacAddress
	h.Send(client.Name, party{client.Name, client.IP, clientMAC}.to(server, "from port 1000 to port 9"))
	h.Send(server.name, about(1000, related))
	in.Await(related)
	reaches(t, client, "udp", server.ip+":9", "refused")
	if in.Got(unrelated) != 0 {
		t.Error("an error about no connection came")
	}
}
