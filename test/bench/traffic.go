package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"nuage/test/host"
)

// entries is how many the policy has that the packets are judged by. The last ones allow.
const entries = 100

// A path is from a container to a prober, by one of the prober's addresses.
type path struct {
	name           string
	host           *host.Host
	client         string
	at             *host.Host
	server         string
	address        string
	sameHost, ours bool
}

// A figure is what is measured of a path, in its unit.
type figure struct {
	name, unit string
	// budget is the least part of what the switch itself does by one NORMAL flow, in percent.
	budget  float64
	samples map[string][]float64 // by path
}

// traffic measures what containers get through to each other: with Docker's bridge, with a
// bridge of the same Open vSwitch that learns, and with nuage without and with policies. All
// paths take turns, so that what the machine does meanwhile hits all of them.
func traffic(c *console, n int, out *tabwriter.Writer) {
	f := host.StartFleet(c)
	paths := lay(f)
	tcp1, tcp4 := &figure{name: "TCP, 1 stream", unit: "Mbit/s", budget: 95}, &figure{name: "TCP, 4 streams", unit: "Mbit/s", budget: 95}
	udp := &figure{name: "UDP of 64 bytes, delivered", unit: "packets/s"}
	rate := &figure{name: "TCP connections, 4 at a time", unit: "/s", budget: 80}
	p50, p99 := &figure{name: "  until one is open, p50", unit: "µs"}, &figure{name: "  until one is open, p99", unit: "µs"}
	figures := []*figure{tcp1, tcp4, udp, rate, p50, p99}
	for i := range max(1, n/5) {
		for _, p := range paths {
			tcp1.add(p, p.iperf()/1e6)
			if p.sameHost {
				tcp4.add(p, p.iperf("-P", "4")/1e6)
				udp.add(p, p.iperf("-u", "-b", "0", "-l", "64")/8/64)
			}
			// Another port each time: the last time's are not to be used yet.
			made := p.host.Connect(p.client, fmt.Sprintf("%s:%d", p.address, []int{80, 81, 5432, 8080}[i%4]), time.Second)
			if made.Failed > 0 {
				fmt.Fprintf(os.Stderr, "bench: %s: %d of %d connections failed: %s\n", p.name, made.Failed, made.Failed+made.Made, made.Error)
			}
			rate.add(p, float64(made.Made)/made.Took.Seconds())
			p50.add(p, float64(made.P50.Microseconds()))
			p99.add(p, float64(made.P99.Microseconds()))
		}
	}
	fmt.Fprintf(out, "traffic: Open vSwitch's datapath is %s\n", datapath(f.Host(1)))
	for _, g := range figures {
		g.print(paths, out)
	}
}

// datapath is where the packets of alubr0 are switched.
func datapath(h *host.Host) string {
	if strings.Trim(h.OVS("vsctl", "get", "bridge", "alubr0", "datapath_type"), `"`) == "netdev" {
		return "in userspace: one thread of ovs-vswitchd switches every packet, by copying it"
	}
	return "the kernel's"
}

// iperf is a second of it.
func (p path) iperf(flags ...string) float64 {
	return p.host.IperfTo(p.client, p.at, p.server, p.address, time.Second, append([]string{"-O", "0"}, flags...)...)
}

func (f *figure) add(p path, v float64) {
	if f.samples == nil {
		f.samples = map[string][]float64{}
	}
	f.samples[p.name] = append(f.samples[p.name], v)
}

func (f *figure) print(paths []path, out *tabwriter.Writer) {
	normal := middle(f.samples[learning])
	for _, p := range paths {
		s := f.samples[p.name]
		if len(s) == 0 {
			continue
		}
		budget := ""
		if p.ours && p.sameHost && f.budget > 0 {
			budget = fmt.Sprintf("%.0f %% of NORMAL, >= %.0f %%", 100*middle(s)/normal, f.budget)
		}
		fmt.Fprintf(out, "%s: %s\t%.0f %s\t%.0f\t%.0f\t%d\t%s\n", f.name, p.name, middle(s), f.unit, slices.Min(s), slices.Max(s), len(s), budget)
	}
}

func middle[T cmp.Ordered](values []T) (m T) {
	if len(values) > 0 {
		m = slices.Sorted(slices.Values(values))[len(values)/2]
	}
	return m
}

// learning is the name of the path that shows what the switch itself costs.
const learning = "Open vSwitch, one NORMAL flow"

// lay makes the containers of all paths.
func lay(f *host.Fleet) []path {
	one, two := f.Host(1), f.Host(2)
	own := one.Name("own")
	one.Docker("network", "create", own)
	a, b := one.Prober("bridge-a", "--network", own), one.Prober("bridge-b", "--network", own)
	learn(one, map[string]string{a.Name: "192.0.2.1", b.Name: "192.0.2.2"})

	open := one.Domain("Open", "front=10.30.1.0/24")
	policed := one.Domain("Policed", "front=10.31.1.0/24", "back=10.31.2.0/24")
	police(one, policed)
	near := func(h *host.Host, name, network string) *host.Prober { return h.Prober(name, "--network", network) }
	openFront, front := open.Network("front"), policed.Network("front")
	c, d := near(one, "open-a", openFront), near(one, "open-b", openFront)
	g, k := near(one, "policed-a", front), near(one, "policed-b", front)
	routed := near(one, "policed-c", policed.Network("back"))
	openFar := near(two, "open-far", open.On(two).Network("front"))
	far := near(two, "policed-far", policed.On(two).Network("front"))
	one.Programmed()
	two.Programmed()

	with := fmt.Sprintf("policy of %d entries", entries)
	return []path{
		{"Docker's user-defined bridge", one, a.Name, one, b.Name, b.IP, true, false},
		{learning, one, a.Name, one, b.Name, "192.0.2.2", true, false},
		{"nuage, no policy", one, c.Name, one, d.Name, d.IP, true, true},
		{"nuage, " + with, one, g.Name, one, k.Name, k.IP, true, true},
		{"nuage, " + with + ", routed", one, g.Name, one, routed.Name, routed.IP, true, true},
		{"nuage, to another host, no policy", one, c.Name, two, openFar.Name, openFar.IP, false, true},
		{"nuage, to another host, " + with, one, g.Name, two, far.Name, far.IP, false, true},
	}
}

// learn gives containers an interface more, on a bridge of the same datapath as alubr0 that
// does what a switch does by itself.
func learn(h *host.Host, addresses map[string]string) {
	const bridge = "learns"
	h.OVS("vsctl", "add-br", bridge, "--", "set", "bridge", bridge, "fail_mode=secure",
		"datapath_type="+h.OVS("vsctl", "get", "bridge", "alubr0", "datapath_type"))
	h.OVS("ofctl", "add-flow", bridge, "actions=NORMAL")
	for container, address := range addresses {
		pid := fmt.Sprint(h.Inspect(container).State.Pid)
		port := "n" + pid
		h.Run("ip", "link", "add", port, "type", "veth", "peer", "name", "learns", "netns", pid)
		h.Run("nsenter", "-t", pid, "-n", "sh", "-ec", "ip addr add "+address+"/24 dev learns; ip link set learns up; ethtool -K learns tx off >/dev/null")
		h.Run("ip", "link", "set", port, "up")
		h.OVS("vsctl", "add-port", bridge, port)
	}
}

// police gives a domain a policy whose last entries allow what is measured.
func police(h *host.Host, d *host.Domain) {
	var list []string
	for i := 1; i <= entries-2; i++ {
		what := fmt.Sprintf("protocol: tcp, destinationPort: %d", 20000+i)
		if i%2 == 0 {
			what = fmt.Sprintf("protocol: any, from: {cidr: 198.51.100.%d/32}", i)
		}
		list = append(list, fmt.Sprintf("{priority: %d, action: DROP, %s}", i, what))
	}
	for i, protocol := range []string{"udp", "tcp"} {
		list = append(list, fmt.Sprintf("{priority: %d, action: FORWARD, protocol: %s, stateful: true}", entries-1+i, protocol))
	}
	file := fmt.Sprintf("enterprise: %s\ndomains:\n- name: %s\n  policies: [{name: p, direction: egress, priority: 1, entries: [%s]}]\n",
		d.Enterprise, d.Name, strings.Join(list, ", "))
	if out, err := h.TryWith(file, nil, "nuagectl", "apply", "-f", "-"); err != nil {
		h.Fatalf("nuagectl apply: %v\n%s", err, out)
	}
}
