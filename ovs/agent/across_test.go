package agent

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"nuage/controller/tenant"
	"nuage/ovs/pipeline"
)

var loss = regexp.MustCompile(`(\d+)% packet loss`)

// Two hosts, real packets: containers reach each other as if they were on one host, and
// nobody else.
func TestAcrossHosts(t *testing.T) {
	f := newFleet(t, 2, 1500)
	f.publish(twoSubnets()...)
	f.start(t, 1500)
	h1, h2 := f.nodes[0], f.nodes[1]
	web := f.attach(t, h1, "app1", "web", "10.0.0.2", 1450)
	other := f.attach(t, h1, "other", "other-web", "10.0.0.2", 1450)
	web2 := f.attach(t, h2, "app1", "web", "10.0.0.3", 1450)
	db := f.attach(t, h2, "app1", "db", "10.0.1.3", 1450)
	_ = f.attach(t, h2, "other", "other-db", "10.0.1.4", 1450)
	f.settled(t)
	f.primed(t)

	for _, c := range []struct{ from, to, size, want string }{
		// The very first packets between the two hosts.
		{web, "10.0.0.3", "56", "ttl=64"},
		{db, "10.0.0.2", "56", "ttl=63"},
		{web, "10.0.1.3", "56", "ttl=63"},
		{web2, "10.0.0.2", "56", "ttl=64"},
		{web, "10.0.1.3", "1400", "ttl=63"},
		{web, "10.0.1.3", "4000", "ttl=63"}, // in fragments
		{other, "10.0.1.4", "56", "ttl=63"},
		{other, "10.0.1.3", "56", ""},
		{other, "10.0.0.3", "56", ""},
		{web, "10.0.1.4", "56", ""},
		{web, h1.vtep, "56", ""},
		{web, h2.vtep, "56", ""},
	} {
		out, err := in(c.from, "ping", "-n", "-c", "1", "-W", wait(c.want), "-s", c.size, c.to)
		if c.want == "" && err == nil || !strings.Contains(out, c.want) {
			t.Errorf("ping from %s to %s, %s bytes: want %q, got %v:\n%s", c.from, c.to, c.size, c.want, err, out)
		}
	}
	for _, to := range []string{"10.0.0.3", "10.0.1.3"} {
		out, _ := in(web, "ping", "-n", "-t", "1", "-c", "1", "-W", wait(map[bool]string{true: "an error"}[to == "10.0.1.3"]), to)
		if routed := to == "10.0.1.3"; routed != strings.Contains(out, "From 10.0.0.1 icmp_seq=1 Time to live exceeded") {
			t.Errorf("ttl 1 to %s: %s", to, out)
		}
	}
	for _, n := range f.nodes {
		if s := n.agent.Status(); s.Tunnel.Problem != "" || len(s.Notes) != 0 {
			t.Errorf("%s: %+v", n.name, s)
		}
		for _, d := range []pipeline.Drop{pipeline.DropUnknownVTEP, pipeline.DropUnknownVNI, pipeline.DropTunnelProtocol, pipeline.DropNotHere} {
			if got := n.drops(t, d); got != 0 {
				t.Errorf("%s dropped %d: %s", n.name, got, d.Reason)
			}
		}
	}
	f.forge(t, h1)
	f.move(t, web)
}

// move gives a host another VTEP in the state only: what its switch sends is from a
// stranger now.
func (f *fleet) move(t *testing.T, web string) {
	h2 := f.nodes[1]
	ip(t, h2.netns, "addr add 198.51.100.22/24 dev br-phy")
	h2.vtep = "198.51.100.22"
	f.publish(f.host(h2, 1500))
	f.settled(t)
	eventually(t, 5*time.Second, func() string {
		if n := f.nodes[0].drops(t, pipeline.DropUnknownVTEP); n < 3 {
			if out, err := in(web, "ping", "-n", "-c", "1", "-W", "1", "10.0.1.3"); err == nil {
				return "answered from an address that is not the host's: " + out
			}
			return "not counted"
		}
		return ""
	})
}

// forge sends VXLAN by hand: from a stranger on the underlay, and from a host that is known
// with a VNI that is not here.
func (f *fleet) forge(t *testing.T, h1 *node) {
	stranger := f.nodes[1].netns
	ip(t, stranger, "addr add 198.51.100.99/24 dev br-phy")
	for _, c := range []struct {
		name, from string
		vni        byte
		drop       pipeline.Drop
	}{
		{"unknown VTEP", "198.51.100.99", 100, pipeline.DropUnknownVTEP},
		{"unknown VNI", f.nodes[1].vtep, 250, pipeline.DropUnknownVNI},
		{"another tenant's VNI", f.nodes[1].vtep, 200, pipeline.DropNotHere},
	} {
		before := h1.drops(t, c.drop)
		eventually(t, 10*time.Second, func() string { // the first of a stranger may be lost on the underlay
			if got := h1.drops(t, c.drop) - before; got < 5 {
				send(t, stranger, c.from, h1.vtep, vxlan(c.vni, icmpTo(tenant.MAC{2, 0, 0, 0, 1, 1}, "10.0.0.3", "10.0.0.2")), 5)
				return fmt.Sprintf("%s: counted %d of 5", c.name, got)
			}
			return ""
		})
	}
}

func vxlan(vni byte, frame []byte) []byte {
	return append([]byte{8, 0, 0, 0, 0, 0, vni, 0}, frame...)
}

// icmpTo is an echo request with its Ethernet header.
func icmpTo(dst tenant.MAC, from, to string) []byte {
	b, _ := hex.DecodeString("0800" + "4500001c00000000400100000000000000000000" + "0800000000010001")
	copy(b[14:], netip.MustParseAddr(from).AsSlice())
	copy(b[18:], netip.MustParseAddr(to).AsSlice())
	seal(b[2:22], 10)
	seal(b[22:], 2)
	return append(append(dst[:], 2, 0, 0, 0, 1, 3), b...)
}

// send sends UDP from a namespace.
func send(t *testing.T, ns, from, to string, data []byte, times int) {
	t.Helper()
	inside(t, ns, func() error {
		c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.ParseIP(to), Port: 4789})
		if err != nil {
			return err
		}
		defer c.Close()
		for range times {
			if _, err := c.Write(data); err != nil {
				return err
			}
		}
		return nil
	})
}

// The first packet of a container to a host that nobody spoke to yet arrives, also after the
// switch has forgotten everything.
func TestFirstPacketIsNotLost(t *testing.T) {
	f := newFleet(t, 3, 1500)
	f.publish(twoSubnets()...)
	f.start(t, 1500)
	var containers []string
	for i, n := range f.nodes {
		containers = append(containers, f.attach(t, n, "app1", "web", fmt.Sprintf("10.0.0.%d", i+2), 1450))
	}
	f.settled(t)
	pings := func(when string) {
		t.Helper()
		f.primed(t)
		for i, c := range containers {
			for j := range containers {
				if i == j {
					continue
				}
				for seq := 1; seq <= 3; seq++ { // one by one: ping gives up early on the late ones of many
					if out, err := in(c, "ping", "-n", "-c", "1", "-W", "5", fmt.Sprintf("10.0.0.%d", j+2)); err != nil {
						t.Errorf("%s: packet %d from h%d to h%d:\n%s", when, seq, i+1, j+1, out)
					}
				}
			}
		}
	}
	pings("at first")
	n := f.nodes[0]
	n.ovs.KillVswitchd()
	n.ovs.StartVswitchd()
	ip(t, n.netns, "addr replace %s/24 dev br-phy", n.vtep)
	ip(t, n.netns, "link set br-phy up")
	f.settled(t) // its address came after it: the second priming counts, or a later one
	pings("after a restart of a switch")
}

// Packets that fit the narrowest underlay pass, with DF too; larger ones are answered by the
// gateway with what would fit, and never lost in silence.
func TestLargePackets(t *testing.T) {
	f := newFleet(t, 2, 9000)
	h1, h2 := f.nodes[0], f.nodes[1]
	f.publish(twoSubnets()...)
	f.start(t, 9000)
	web := f.attach(t, h1, "app1", "web", "10.0.0.2", 8950)
	web2 := f.attach(t, h2, "app1", "web", "10.0.0.3", 8950)
	db := f.attach(t, h2, "app1", "db", "10.0.1.4", 8950)
	f.settled(t)
	f.primed(t)
	ping := func(from, to string, payload int, want ...string) {
		t.Helper()
		out, _ := in(from, "ping", "-n", "-M", "do", "-c", "1", "-W", "5", "-s", fmt.Sprint(payload), to)
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%d bytes to %s: no %q in\n%s", payload, to, w, out)
			}
		}
	}
	ping(web, "10.0.0.3", 8950-28, "ttl=64")
	ping(web, "10.0.1.4", 8950-28, "ttl=63")

	// The other host moves to a narrow underlay; its containers, and ours, keep their MTU.
	f.publish(f.host(h2, 1400))
	f.settled(t)
	ip(t, h2.netns, "link set u0 mtu 1400")
	eventually(t, 10*time.Second, func() string { // the change of a link's MTU costs its switch some packets
		out, err := in(web, "ping", "-n", "-c", "1", "-W", "1", "10.0.0.3")
		if err != nil {
			return out
		}
		return ""
	})
	ping(web, "10.0.0.3", 1350-28, "ttl=64")
	ping(web, "10.0.1.4", 1350-28, "ttl=63")
	ping(web, "10.0.0.3", 1351-28, "From 10.0.0.1", "mtu = 1350")
	ping(db, "10.0.0.2", 1351-28, "From 10.0.1.1", "mtu = 1350") // in the other direction
	ping(web2, "10.0.0.2", 8000, "From 10.0.0.1", "mtu = 1350")
	// Without DF: the answer makes the sender fragment.
	out, err := in(web, "ping", "-n", "-M", "dont", "-c", "3", "-i", "0.2", "-W", "1", "-s", "4000", "10.0.1.4")
	if m := loss.FindStringSubmatch(out); m == nil || m[1] == "100" {
		t.Errorf("without DF: %v\n%s", err, out)
	}
	// A stream finds its way.
	server := exec.Command("ip", "netns", "exec", web2, "busybox", "nc", "-l", "-p", "7000", "-e", "wc", "-c")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { server.Process.Kill(); server.Wait() }()
	time.Sleep(200 * time.Millisecond)
	out, err = in(web, "sh", "-c", "head -c 3000000 /dev/zero | timeout 20 busybox nc 10.0.0.3 7000")
	if err != nil || strings.TrimSpace(out) != "3000000" {
		t.Errorf("a stream of 3,000,000 bytes: %v, %s", err, out)
	}
}
