package agent

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nuage/controller/tenant"
	"nuage/ovs"
	"nuage/ovs/ovstest"
	"nuage/ovs/pipeline"
)

// node is one host of a fleet: a network namespace with an Open vSwitch of its own in the
// userspace datapath, whose underlay link and address are on a bridge br-phy.
type node struct {
	name, netns string
	vtep, link  string // of the underlay
	ovs         *ovstest.OVS
	bridge      *ovs.Bridge
	agent       *Agent
}

// fleet is some hosts on one underlay, and the state that they share.
type fleet struct {
	nodes []*node
	feed  *tenant.Feed
	made  int
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("NUAGE_TEST_ROOT") == "0" {
			t.Skip("namespaces need root")
		}
		t.Fatal("namespaces need root (NUAGE_TEST_ROOT=0 skips)")
	}
}

func newFleet(t testing.TB, hosts, mtu int) *fleet {
	t.Helper()
	needRoot(t)
	f := &fleet{feed: tenant.NewFeed()}
	sw := netns(t, "under")
	ip(t, sw, "link add sw mtu %d type bridge", mtu)
	ip(t, sw, "link set sw up")
	for i := 1; i <= hosts; i++ {
		n := &node{name: fmt.Sprintf("h%d", i), vtep: fmt.Sprintf("198.51.100.%d", i), link: "br-phy"}
		n.netns = netns(t, n.name)
		ip(t, sw, "link add p%d mtu %d type veth peer name u0 mtu %d netns %s", i, mtu, mtu, n.netns)
		ip(t, sw, "link set p%d master sw up", i)
		ip(t, n.netns, "link set lo up")
		ip(t, n.netns, "link set u0 up")
		n.ovs = ovstest.Start(t, ovstest.Forwarding("/run/netns/"+n.netns))
		n.ovs.Vsctl("add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type="+n.ovs.Datapath(), "--", "add-port", "br-phy", "u0",
			"--", "set", "interface", "br-phy", fmt.Sprintf("mtu_request=%d", mtu))
		ip(t, n.netns, "addr add %s/24 dev br-phy", n.vtep)
		ip(t, n.netns, "link set br-phy up")
		f.nodes = append(f.nodes, n)
	}
	return f
}

// start runs the hosts' bridges and agents, and makes the hosts known.
func (f *fleet) start(t testing.TB, mtu int) {
	t.Helper()
	for _, n := range f.nodes {
		n.bridge = ovs.New(ovs.Config{DB: n.ovs.DB, RunDir: n.ovs.RunDir, Bridge: bridgeName, Datapath: n.ovs.Datapath(), Log: quiet(),
			VTEP: netip.MustParseAddr(n.vtep), LinkOf: func(netip.Addr) (string, error) { return n.link, nil }})
		n.agent = New(Config{Host: n.name, Feed: f.feed, Switch: n.bridge, Log: quiet()})
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { n.bridge.Run(ctx) })
		running.Go(func() { n.agent.Run(ctx) })
		t.Cleanup(func() { cancel(); running.Wait() })
		f.publish(f.host(n, mtu))
	}
}

func (f *fleet) publish(changes ...tenant.Change) {
	r, _ := f.feed.Revision()
	f.feed.Publish(r+1, changes...)
}

func (f *fleet) host(n *node, mtu int) tenant.Change {
	return change(tenant.KindHost, n.name, &tenant.Host{Meta: tenant.Meta{ID: n.name}, Name: n.name, VTEP: netip.MustParseAddr(n.vtep), MTU: mtu})
}

// settled waits until every host is at the state's revision.
func (f *fleet) settled(t testing.TB) {
	t.Helper()
	for _, n := range f.nodes {
		eventually(t, 10*time.Second, func() string {
			r, _ := f.feed.Revision()
			if s := n.agent.Status(); s.Err != nil || s.Revision != r || n.bridge.Ports()[ovs.TunnelPort].OFPort == 0 {
				return fmt.Sprintf("%s: %+v", n.name, s)
			}
			return ""
		})
	}
}

// primed waits until every host's switch knows where the others are on the underlay. The
// kernel keeps what has to wait for that.
func (f *fleet) primed(t testing.TB) {
	t.Helper()
	for _, n := range f.nodes {
		if n.ovs.Datapath() == ovs.System {
			continue
		}
		eventually(t, 10*time.Second, func() string {
			known := strings.Fields(n.ovs.Appctl("tnl/neigh/show"))
			for _, other := range f.nodes {
				if other != n && !slices.Contains(known, other.vtep) {
					return fmt.Sprintf("%s does not know %s on the underlay: %s", n.name, other.vtep, known)
				}
			}
			return ""
		})
	}
}

// wait is ping's patience in seconds: long on a busy machine for what has to come, short
// for what must not.
func wait(want string) string {
	if want == "" {
		return "1"
	}
	return "5"
}

// attach makes a container on a host, in a namespace of its own, which it returns.
func (f *fleet) attach(t testing.TB, n *node, domain, subnet, addr string, mtu int) string {
	t.Helper()
	f.made++
	ns, name, id := netns(t, fmt.Sprint("c", f.made)), fmt.Sprintf("nu%d", f.made), fmt.Sprintf("v%d", f.made)
	mac := tenant.MAC{2, 0, 0, 0, 1, byte(f.made)}
	ip(t, n.netns, "link add %s mtu %d type veth peer name eth0 mtu %d netns %s", name, mtu, mtu, ns)
	ip(t, n.netns, "link set %s up", name)
	ip(t, ns, "link set eth0 up address %v", mac)
	ip(t, ns, "addr add %s/24 dev eth0", addr)
	ip(t, ns, "route add default via %v", netip.MustParsePrefix(addr+"/24").Masked().Addr().Next())
	run(t, "ip", "netns", "exec", ns, "ethtool", "-K", "eth0", "tx", "off")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := n.bridge.EnsurePort(ctx, ovs.PortSpec{Name: name}); err != nil {
		t.Fatal(err)
	}
	f.publish(change(tenant.KindVport, id, &tenant.Vport{Meta: tenant.Meta{ID: id}, Name: id, DomainID: domain, SubnetID: subnet,
		Host: n.name, Interface: name, MAC: mac, IPv4: netip.MustParseAddr(addr)}))
	if err := n.agent.WaitProgrammed(ctx, id); err != nil {
		t.Fatal(err)
	}
	return ns
}

func ip(t testing.TB, ns, format string, args ...any) {
	t.Helper()
	run(t, "ip", append([]string{"-n", ns}, strings.Fields(fmt.Sprintf(format, args...))...)...)
}

// in runs a program in a namespace.
func in(ns string, args ...string) (string, error) {
	out, err := exec.Command("ip", append([]string{"netns", "exec", ns}, args...)...).CombinedOutput()
	return string(out), err
}

func twoSubnets() []tenant.Change {
	return []tenant.Change{domain("app1", 1), subnet("web", "app1", "10.0.0.0/24", 100), subnet("db", "app1", "10.0.1.0/24", 101),
		domain("other", 2), subnet("other-web", "other", "10.0.0.0/24", 200), subnet("other-db", "other", "10.0.1.0/24", 201)}
}

// drops is how many packets a host has dropped for a reason.
func (n *node) drops(t testing.TB, d pipeline.Drop) (packets uint64) {
	t.Helper()
	stats, err := n.bridge.Flows(context.Background(), ovs.FlowFilter{Table: &d.Table})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stats {
		if s.Priority == d.Priority {
			packets += s.Packets
		}
	}
	return packets
}
