package user

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"nuage/test/host"
)

func errorf(format string, args ...any) error { return fmt.Errorf(format, args...) }

// When docker run returns, the container is attached: its very first packet is answered. Not
// in parallel: a switch that is busy with other tests may lose it.
func TestFirstPacketIsAnswered(t *testing.T) {
	h := host.Shared(t)
	n := h.Domain("App1", "front=10.70.1.0/24").Network("front")
	peer := h.Container("peer", "--network", n)
	for range 5 {
		h.Docker("run", "--rm", "--network", n, host.Image, "app", "ping", "-c", "1", "-W", "500ms", "10.70.1.1")
		h.Docker("run", "--rm", "--network", n, host.Image, "app", "ping", "-c", "1", "-W", "500ms", h.IP(peer))
	}
}

// One interface, of the tenant's network, with its MTU; nothing of Docker's own bridges.
func TestInside(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	n := h.Domain("App1", "front=10.71.1.0/24").Network("front")
	c := h.Container("c", "--network", n, "-p", "8080:80")
	out := h.Exec(c, "app", "addr")
	if !strings.Contains(out, "mtu 1450") || !strings.Contains(out, "default via 10.71.1.1 dev eth0") || strings.Count(out, "\n") != 1 {
		t.Errorf("inside:\n%s", out)
	}
	if out := h.Docker("network", "ls", "--format", "{{.Name}}"); strings.Contains(out, "docker_gwbridge") {
		t.Errorf("networks:\n%s", out)
	}
	if out := h.Run("iptables-save", "-t", "nat"); strings.Contains(out, "10.71.1.") || strings.Contains(out, "dport 8080") {
		t.Errorf("iptables:\n%s", out)
	}
	if out := h.Run("ss", "-Hltn"); strings.Contains(out, ":8080") {
		t.Errorf("listeners:\n%s", out)
	}
	if out := h.Docker("port", c); out != "" {
		t.Errorf("docker port: %s", out)
	}
	if out := h.Docker("ps", "--filter", "name="+c, "--format", "{{.Ports}}"); strings.Contains(out, "->") {
		t.Errorf("docker ps: %s", out)
	}
}

func TestSeveralNetworksOnOneContainer(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	red := h.Domain("Red", "front=10.72.1.0/24")
	blue := h.Domain("Blue", "front=10.72.2.0/24")
	r, b := red.Network("front"), blue.Network("front")
	both := h.Container("both", "--network", r)
	h.Docker("network", "connect", b, both)
	cr, cb := h.Container("cr", "--network", r), h.Container("cb", "--network", b)
	h.Eventually(10*time.Second, "nuagectl calls the network as Docker does", func() error {
		named := h.Get("networks", "--domain", red.Name)
		if len(named) != 1 || named[0]["name"] != r {
			return errorf("%v, want %s", named, r)
		}
		return nil
	})
	h.Reaches(both, h.IP(cr), 64)
	h.Reaches(both, h.IP(cb), 64)
	h.Reaches(cr, h.Endpoint(both, r).IPAddress, 64)
	h.Reaches(cb, h.Endpoint(both, b).IPAddress, 64)
	h.ReachesNot(cr, h.IP(cb))
	if out := h.Exec(both, "app", "addr"); !strings.Contains(out, "eth0 10.72.1.") || !strings.Contains(out, "eth1 10.72.2.") || strings.Contains(out, "eth2") {
		t.Errorf("inside:\n%s", out)
	}

	h.Docker("restart", "-t", "1", both) // moby's TestDockerNetworkRestartWithMultipleNetworks
	h.Reaches(both, h.IP(cr), 64)
	h.Reaches(both, h.IP(cb), 64)

	h.Docker("network", "disconnect", r, both)
	h.Reaches(both, h.IP(cb), 64)
	if out := h.Exec(both, "app", "addr"); strings.Contains(out, "10.72.1.") {
		t.Errorf("after disconnect:\n%s", out)
	}
}

func TestConnectAndDisconnect(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.73.1.0/24", "back=10.73.2.0/24")
	front := d.Network("front", "--subnet", "10.73.1.0/24")
	back := d.Network("back")
	c := h.Container("c", "--network", back)
	peer := h.Container("peer", "--network", front)

	h.Docker("network", "connect", "--ip", "10.73.1.50", "--alias", "service", front, c)
	h.Reaches(peer, "10.73.1.50", 64)
	h.Serves(peer, h.IP(peer), c, "service") // moby's UserDefinedNetworkConnectDisconnectAlias
	h.Refused([]string{"already"}, "docker", "network", "connect", front, c)
	h.Docker("network", "disconnect", front, c)
	h.ReachesNot(peer, "10.73.1.50")
	if out, err := h.TryDocker("exec", peer, "app", "get", "-timeout", "2s", "http://service/"); err == nil {
		t.Errorf("the alias outlived the connection: %s", out)
	}
	// moby's ConnectDisconnectToStoppedContainer and ConnectPreferredIPStoppedContainer:
	h.Docker("stop", "-t", "1", c)
	h.Docker("network", "connect", "--ip", "10.73.1.51", front, c)
	h.Docker("start", c)
	if ip := h.Endpoint(c, front).IPAddress; ip != "10.73.1.51" {
		t.Errorf("address %s after start, asked for 10.73.1.51", ip)
	}
	h.Reaches(peer, "10.73.1.51", 64)
	// The resting address is given to who asks for it by name.
	h.Docker("network", "disconnect", front, c)
	h.Docker("network", "connect", "--ip", "10.73.1.51", front, c)
	h.Reaches(peer, "10.73.1.51", 64)
}

// Containers find each other by name, through Docker's resolver.
func TestNames(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	n := h.Domain("App1", "front=10.74.1.0/24").Network("front")
	a, b := h.Container("a", "--network", n), h.Container("b", "--network", n)
	h.Serves(a, h.IP(a), b, b)
}

func TestInternal(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.75.1.0/24", "back=10.75.2.0/24")
	n := d.Network("front", "--internal")
	a, b := h.Container("a", "--network", n), h.Container("b", "--network", n)
	out := h.Exec(a, "app", "addr")
	if strings.Contains(out, "default") || strings.Contains(out, "eth1") {
		t.Errorf("inside an --internal network:\n%s", out)
	}
	h.Reaches(a, h.IP(b), 64)
	if out := h.Docker("network", "ls", "--format", "{{.Name}}"); strings.Contains(out, "docker_gwbridge") {
		t.Errorf("networks:\n%s", out)
	}
}

// A container of Docker's own bridge and of a tenant network at once.
func TestBesideDockersBridge(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	n := h.Domain("App1", "front=10.76.1.0/24").Network("front")
	a, b := h.Container("a", "--network", n), h.Container("b")
	h.Docker("network", "connect", n, b)
	h.Reaches(a, h.Endpoint(b, n).IPAddress, 64)
	h.ReachesNot(a, h.Endpoint(b, "bridge").IPAddress)
}

func TestRestartOfAContainer(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	n := h.Domain("App1", "front=10.77.1.0/24").Network("front", "--subnet", "10.77.1.0/24")
	a, b := h.Container("a", "--network", n), h.Container("b", "--network", n, "--ip", "10.77.1.20")
	for range 2 {
		h.Docker("restart", "-t", "1", b)
		if ip := h.IP(b); ip != "10.77.1.20" {
			t.Errorf("address %s after a restart, asked for 10.77.1.20", ip)
		}
		h.Reaches(a, "10.77.1.20", 64)
	}
	h.Docker("kill", b)
	h.Docker("start", b)
	h.Reaches(a, "10.77.1.20", 64)
	h.Reaches(b, h.IP(a), 64)
}

// Policy groups of one container, by an endpoint option.
func TestEndpointOptions(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	n := h.Domain("App1", "front=10.78.1.0/24").Network("front")
	c := h.Container("c", "--network", "name="+n+",\"driver-opt=policy-group=web,db\"")
	if out := h.Nuagectl("get", "vports", "-o", "json"); !strings.Contains(out, `"web"`) || !strings.Contains(out, `"db"`) {
		t.Errorf("vports:\n%s", out)
	}
	h.Reaches(c, "10.78.1.1", 64)
	h.Refused([]string{"colour", "policy-group"}, "docker", "run", "--rm", "--network", "name="+n+",driver-opt=colour=red", host.Image, "app", "addr")
}

// An attachment that fails leaves nothing: no port, no vport, no interface.
func TestNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	h := host.Start(t)
	h.LoadImages()
	h.InstallPlugin()
	n := h.Domain("App1", "front=10.79.1.0/24").Network("front")
	keep := h.Container("keep", "--network", n)
	links := func() string { return h.Run("sh", "-c", "ls /proc/sys/net/ipv4/conf | sort") }
	before := fmt.Sprint(ports(h), flows(h), links())
	fds := func() int {
		return len(strings.Fields(h.Run("ls", "/proc/"+h.PluginPID()+"/fd")))
	}
	opened := 0
	for i := range 8 {
		if _, err := h.TryDocker("run", "--rm", "--network", "name="+n+",driver-opt=colour=red", host.Image, "app", "addr"); err == nil {
			t.Error("an unknown endpoint option is taken")
		}
		h.Docker("run", "--rm", "--network", n, host.Image, "app", "addr")
		if i == 1 {
			opened = fds()
		}
	}
	h.Eventually(10*time.Second, "nothing of the containers that are gone", func() error {
		if after := fmt.Sprint(ports(h), flows(h), links()); after != before {
			return errorf("before:\n%s\nafter:\n%s", before, after)
		}
		if vs := h.Get("vports"); len(vs) != 1 {
			return errorf("%d vports, want that of %s alone: %v", len(vs), keep, vs)
		}
		return nil
	})
	if now := fds(); now > opened+5 {
		t.Errorf("the plugin has %d files open, %d after the second container", now, opened)
	}
}
