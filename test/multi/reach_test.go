package multi

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"nuage/ovs/pipeline"
	"nuage/test/host"
)

// One network name on every host, bound to one subnet: its containers are neighbours
// wherever they run, and one hop from those of the domain's other subnets.
func TestAcrossHosts(t *testing.T) {
	t.Parallel()
	f := host.SharedFleet(t)
	one, two, three := f.Host(1), f.Host(2), f.Host(3)
	s := newSpread(f, "App1", []string{"front=10.100.1.0/24", "back=10.100.2.0/24"})
	if s.network[1] != s.network[2] || s.network[2] != s.network[3] {
		t.Errorf("networks %v, want one name", s.network)
	}
	if s.ip[1] == s.ip[2] || s.ip[1] == s.ip[3] || s.ip[2] == s.ip[3] {
		t.Fatalf("addresses %v", s.ip)
	}
	s.reach(1, 2, 3)
	far := three.Container("far", "--network", s.d.On(three).Network("back"))
	ipFar := three.IP(far)
	one.Reaches(s.containers[1], ipFar, 63)
	two.Reaches(s.containers[2], ipFar, 63)
	three.Reaches(far, s.ip[1], 63)
	three.Reaches(far, "10.100.1.1", 64) // the gateway is in this host too
	two.Reaches(s.containers[2], "10.100.2.1", 64)

	one.Serves(s.containers[1], s.ip[1], s.containers[2], s.ip[2])
	three.Serves(far, ipFar, s.containers[1], s.ip[1])
	if out := two.Exec(s.containers[2], "app", "udp", s.ip[3]+":80"); !strings.HasPrefix(out, "32 bytes") {
		t.Errorf("udp: %s", out)
	}
	for _, url := range []string{"http://" + s.ip[2] + "/bytes/8", "http://" + ipFar + "/bytes/8"} {
		if out := one.Exec(s.containers[1], "app", "get", "-timeout", "20s", url); !strings.Contains(out, "8388608 bytes") {
			t.Errorf("download of %s: %s", url, out)
		}
	}
	// A neighbour's MAC is known, wherever it is, and nobody answers for an address that nobody has.
	mac := two.Endpoint(s.containers[2], s.network[2]).MacAddress
	if out := one.Exec(s.containers[1], "app", "arping", s.ip[2]); !strings.HasSuffix(out, "is at "+mac) || strings.Contains(out, "\n") {
		t.Errorf("arping: %s", out)
	}
	if out, err := one.TryDocker("exec", s.containers[1], "app", "arping", "10.100.1.200"); err == nil {
		t.Errorf("somebody answers for an address that nobody has: %s", out)
	}
}

// Packets as large as the underlay takes pass, larger ones come in fragments or get an
// answer that says how large they may be: nothing vanishes.
func TestLargePackets(t *testing.T) {
	t.Parallel()
	f := host.SharedFleet(t)
	s := newSpread(f, "App1", []string{"front=10.101.1.0/24", "back=10.101.2.0/24"}, "--cap-add", "NET_ADMIN")
	one, two := f.Host(1), f.Host(2)
	far := two.Container("far", "--network", s.d.On(two).Network("back"))
	if out := one.Exec(s.containers[1], "app", "addr"); !strings.Contains(out, "mtu 1450") {
		t.Errorf("inside, on an underlay of 1500:\n%s", out)
	}
	for _, to := range []string{s.ip[2], two.IP(far)} {
		one.Pings(s.containers[1], "-D", "-s", "1422", to)
		one.Pings(s.containers[1], "-s", "4000", to) // in fragments
	}
	// A container that does not know: its interface takes more than the tunnel does.
	one.Exec(s.containers[1], "ip", "link", "set", "eth0", "mtu", "9000")
	for _, to := range []string{s.ip[2], two.IP(far)} {
		out, err := one.TryDocker("exec", s.containers[1], "app", "ping", "-c", "3", "-D", "-s", "1423", to)
		if err == nil || !strings.Contains(out, "type=3 code=4 mtu=1450") {
			t.Errorf("a DF packet of 1451 to %s, want the answer that 1450 is the most: %v\n%s", to, err, out)
		}
	}
	one.Pings(s.containers[1], "-D", "-s", "1422", s.ip[2])
	if out := two.Exec(s.containers[2], "app", "get", "-timeout", "20s", "http://"+s.ip[1]+"/bytes/4"); !strings.Contains(out, "4194304 bytes") {
		t.Errorf("a download from a container with a large MTU: %s", out)
	}
}

// Two tenants with the same addresses on the same hosts meet only their own.
func TestTenantsAcrossHosts(t *testing.T) {
	t.Parallel()
	f := host.SharedFleet(t)
	one, two := f.Host(1), f.Host(2)
	const cidr = "front=10.102.1.0/24"
	red, blue := one.Domain("Red", cidr), one.Domain("Blue", cidr)
	run := func(h *host.Host, d *host.Domain, name, ip string) string {
		n := h.Name(d.Name + "-front")
		if _, err := h.TryDocker("network", "inspect", n); err != nil {
			d.On(h).Network("front", "--subnet", "10.102.1.0/24", "--gateway", "10.102.1.1")
		}
		return h.Container(name, "--network", n, "--ip", ip)
	}
	r1, r2 := run(one, red, "r1", "10.102.1.11"), run(two, red, "r2", "10.102.1.12")
	b1, b2 := run(two, blue, "b1", "10.102.1.11"), run(one, blue, "b2", "10.102.1.12")
	one.Serves(r1, "10.102.1.11", r2, "10.102.1.12")
	two.Serves(r2, "10.102.1.12", r1, "10.102.1.11")
	one.Serves(b2, "10.102.1.12", b1, "10.102.1.11")
	two.Serves(b1, "10.102.1.11", b2, "10.102.1.12")
	r3 := run(two, red, "r3", "10.102.1.13")
	one.Reaches(r1, "10.102.1.13", 64)
	one.ReachesNot(b2, "10.102.1.13")
	two.ReachesNot(b1, "10.102.1.13")
	two.ReachesNot(r3, "10.200.0.1") // nor the underlay
	two.ReachesNot(r3, "10.200.0.2")
}

// The first packet between two hosts that have not spoken yet is answered. Not in parallel:
// a switch that is busy with other tests may lose it.
func TestFirstPacketToAnotherHost(t *testing.T) {
	f := host.SharedFleet(t)
	s := newSpread(f, "App1", []string{"front=10.103.1.0/24"})
	// Each new container's very first packet, to a container of another host.
	for n := 1; n <= host.Size; n++ {
		to := s.ip[n%host.Size+1]
		out, err := f.Host(n).TryDocker("run", "--rm", "--network", s.network[n], host.Image, "app", "ping", "-c", "1", "-W", "500ms", to)
		if err != nil {
			t.Errorf("the first ping from host %d to %s: %v\n%s", n, to, err, out)
		}
	}
}

// What comes to the tunnel's port from somebody who is no host, for a subnet that is not
// here, or for a MAC address that is not here, goes nowhere and is counted. Not in parallel: each packet counts.
func TestForeignTunnelPackets(t *testing.T) {
	f := host.SharedFleet(t)
	one, two := f.Host(1), f.Host(2)
	s := newSpread(f, "App1", []string{"front=10.104.1.0/24"})
	mac := one.Endpoint(s.containers[1], s.network[1]).MacAddress
	from := two.Endpoint(s.containers[2], s.network[2]).MacAddress
	vni := fmt.Sprint(in(one.Get("subnets"), "address", "10.104.1.0/24")[0]["vni"])
	unknown, err := strconv.ParseFloat(vni, 64)
	if err != nil {
		t.Fatal(err)
	}
	packet := func(vni, dst, count string) []string {
		return []string{one.Program("app"), "send", "-I", "lo", "-vtep", one.VTEP(), "-vni", vni, "-c", count,
			"-src-mac", from, "-dst-mac", dst, "-src-ip", s.ip[2], s.ip[1]}
	}
	listen := make(chan string)
	go func() {
		out, _ := one.TryDocker("exec", s.containers[1], "app", "sniff", "-d", "30s", "-until", "proto 17")
		listen <- out
	}()
	one.Eventually(20*time.Second, "the container listens", func() error {
		_, err := one.TryDocker("exec", s.containers[1], "sh", "-c", "[ $(cat /proc/net/packet | wc -l) -gt 1 ]")
		return err
	})
	counted := func(d pipeline.Drop, what string, send func()) {
		t.Helper()
		before := dropped(t, one, d)
		send()
		one.Eventually(5*time.Second, what+" is counted", func() error {
			if now := dropped(t, one, d); now < before+3 {
				return errorf("%d, before %d", now, before)
			}
			return nil
		})
	}
	counted(pipeline.DropUnknownVTEP, "a packet of an unknown VTEP", func() { f.Underlay(packet(vni, mac, "3")...) })
	counted(pipeline.DropUnknownVNI, "a packet of an unknown VNI", func() { two.Run(packet(fmt.Sprint(int(unknown)+7777), mac, "3")...) })
	counted(pipeline.DropNotHere, "a packet for a MAC that is not here", func() { two.Run(packet(vni, "0a:00:00:00:00:77", "3")...) })
	// A neighbour's true packet, encapsulated by hand, does arrive: the packets above were well made.
	two.Run(packet(vni, mac, "1")...)
	if out := <-listen; strings.Count(out, "proto 17") != 1 {
		t.Errorf("want one UDP packet:\n%s", out)
	}
}
