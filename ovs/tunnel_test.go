package ovs

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"nuage/ovs/ovstest"
)

var vtep = netip.MustParseAddr("192.0.2.1")

func withVTEP(link string) func(*Config) {
	return func(c *Config) {
		c.Datapath, c.VTEP = Netdev, vtep
		c.LinkOf = func(netip.Addr) (string, error) { return link, nil }
	}
}

func TestTunnelPortIsKept(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o, withVTEP("alubr0"))
	want := `{dst_port="4789", key=flow, local_ip="192.0.2.1", remote_ip=flow}`
	as := func() bool {
		p := b.Ports()[TunnelPort]
		got, err := o.Run("ovs-vsctl", "--if-exists", "get", "interface", TunnelPort, "options")
		return err == nil && strings.TrimSpace(got) == want && p.Confirmed && p.Type == "vxlan"
	}
	soon(t, "the tunnel port", as)
	number := b.Ports()[TunnelPort].OFPort
	o.Vsctl("set", "interface", TunnelPort, "options:remote_ip=192.0.2.66", "options:csum=true", "options:key=5")
	soon(t, "its options again", as)
	if b.Ports()[TunnelPort].OFPort != number {
		t.Error("the repair of its options changed its number")
	}
	o.Vsctl("del-port", TunnelPort)
	soon(t, "the port again", as)
	if s := b.Status().Tunnel; s.Port != TunnelPort || s.Problem != "" {
		t.Errorf("status %+v", s)
	}
	// A process with another VTEP takes the port over.
	other := start(t, o, withVTEP("alubr0"), func(c *Config) { c.VTEP = netip.MustParseAddr("192.0.2.9"); c.Bridge = "alubr1" })
	soon(t, "the problem of a port of another bridge", func() bool {
		return strings.Contains(other.Status().Tunnel.Problem, "bridge alubr0 has a port of that name")
	})
}

// A tunnel that ovs-vswitchd refuses, since the kernel gave its UDP port to Docker's overlay, is
// no reason to ask for it twice a second: each time ovs-vswitchd goes over all ports.
func TestRefusedTunnelIsLeftAlone(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o, withVTEP("alubr0"))
	soon(t, "the tunnel port", func() bool { return b.Ports()[TunnelPort].Confirmed })
	o.StopVswitchd() // which would find nothing to refuse here
	o.Vsctl("--no-wait", "set", "interface", TunnelPort, "ofport=-1", "error=\"Address already in use\"")
	soon(t, "the refusal", func() bool { return strings.Contains(b.Status().Tunnel.Problem, "Address already in use") })
	asked := func() string { return o.Vsctl("--no-wait", "get", "open", ".", "next_cfg") }
	before := asked()
	time.Sleep(6 * tunnelPause)
	if after := asked(); after != before {
		t.Errorf("ovs-vswitchd was asked to look again: next_cfg went from %s to %s, and nothing had changed", before, after)
	}
	o.StartVswitchd()
	soon(t, "the tunnel", func() bool { return b.Status().Tunnel.Problem == "" && b.Ports()[TunnelPort].Confirmed })
}

func TestNoVTEPNoTunnel(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o)
	attach(t, b, "p1")
	if _, there := b.Ports()[TunnelPort]; there || b.Status().Tunnel != (Tunnel{}) {
		t.Errorf("status %+v", b.Status().Tunnel)
	}
	if err := New(Config{DB: o.DB, Bridge: "alubr0", VTEP: netip.MustParseAddr("2001:db8::1")}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "not an IPv4 address") {
		t.Errorf("a VTEP of IPv6: %v", err)
	}
}

func TestTunnelProblem(t *testing.T) {
	with := func(datapath string, internal map[string]string, port Port) view {
		v := good(datapath)
		v.internal = internal
		v.ports[TunnelPort] = member{Port: port}
		return v
	}
	phy := map[string]string{"br-phy": Netdev, "br-sys": System}
	for name, c := range map[string]struct {
		v    view
		link string
		err  error
		want string
	}{
		"kernel's datapath":              {v: with(System, nil, Port{}), link: "eth0"},
		"kernel's datapath, by default":  {v: with("", nil, Port{}), link: "eth0"},
		"userspace, bridge's link":       {v: with(Netdev, phy, Port{}), link: "br-phy"},
		"userspace, kernel's link":       {v: with(Netdev, phy, Port{}), link: "eth0", want: "belongs to eth0, a link of the kernel's: run `dist/uplink"},
		"userspace, other datapath's":    {v: with(Netdev, phy, Port{}), link: "br-sys", want: "belongs to br-sys"},
		"no such address":                {v: with(System, nil, Port{}), want: "192.0.2.1 is no address of this host: set NUAGE_VTEP"},
		"links not listed":               {v: with(Netdev, nil, Port{}), err: errors.New("netlink"), want: "cannot be listed: netlink"},
		"port refused":                   {v: with(System, nil, Port{Error: "File exists"}), link: "eth0", want: "ovs-vswitchd cannot use it: File exists"},
		"swarm was first":                {v: with(System, nil, Port{Error: "could not add network device nuage-vxlan to ofproto (Address already in use)"}), link: "eth0", want: "docker swarm init --data-path-port"},
		"no port yet, so nothing to say": {v: good(Netdev), link: "eth0"},
	} {
		got := tunnelProblem(c.v, vtep, c.link, c.err)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// The problem appears and goes with the bridge that has the VTEP's link.
func TestTunnelProblemFollowsTheSwitch(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o, withVTEP("br-phy"))
	problem := func() string { return b.Status().Tunnel.Problem }
	soon(t, "the problem", func() bool { return strings.Contains(problem(), "dist/uplink") })
	o.AddBridge("br-phy")
	soon(t, "its end", func() bool { return problem() == "" })
	o.Vsctl("del-br", "br-phy")
	soon(t, "the problem again", func() bool { return strings.Contains(problem(), "dist/uplink") })
}

// The kernel's answer of this host, whatever its addresses are.
func TestLinkOf(t *testing.T) {
	for _, c := range []struct{ addr, want string }{{"127.0.0.1", "lo"}, {"192.0.2.254", ""}} {
		if got, err := linkOf(netip.MustParseAddr(c.addr)); got != c.want || err != nil {
			t.Errorf("%s is on %q, %v", c.addr, got, err)
		}
	}
}
