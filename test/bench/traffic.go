package main

import (
	"fmt"
	"io"
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
	sameHost, ours bool // ours: by nuage
}

// A figure is what is measured of paths.
type figure struct {
	name    string
	samples map[string][]float64 // by path
}

// traffic measures what containers get through to each other: with Docker's bridge, with a
// bridge of the same Open vSwitch that learns, and with nuage without and with policies. All
// paths take turns, so that what the machine does meanwhile hits all of them.
func traffic(c *console, n int, out *tabwriter.Writer) {
	f := host.StartFleet(c)
	paths := lay(f)
	tcp1, tcp4 := &figure{name: "TCP, 1 stream, Mbit/s"}, &figure{name: "TCP, 4 streams, Mbit/s"}
	udp, rate := &figure{name: "UDP of 64 bytes, delivered a second"}, &figure{name: "TCP connections a second, 4 at a time"}
	p50, p99 := &figure{name: "one is open after, µs, p50"}, &figure{name: "p99"}
	ofBytes, ofConnection := &figure{name: "CPU of ovs-vswitchd a MB of TCP, µs"}, &figure{name: "a TCP connection, µs"}
	for i := range max(1, n/5) {
		for _, p := range paths {
			begin := p.busy()
			bits := p.iperf()
			tcp1.add(p, bits/1e6)
			if p.switched() {
				ofBytes.add(p, (p.busy()-begin)/(bits/8e6))
			}
			if p.sameHost {
				tcp4.add(p, p.iperf("-P", "4")/1e6)
				udp.add(p, p.iperf("-u", "-b", "0", "-l", "64")/8/64)
			}
			// Another port each time: the last time's are not to be used yet.
			begin = p.busy()
			made := p.host.Connect(p.client, fmt.Sprintf("%s:%d", p.address, []int{80, 81, 5432, 8080}[i%4]), time.Second)
			if p.switched() {
				ofConnection.add(p, (p.busy()-begin)/float64(made.Made))
			}
			if made.Failed > 0 {
				fmt.Fprintf(os.Stderr, "bench: %s: %d of %d connections failed: %s\n", p.name, made.Failed, made.Failed+made.Made, made.Error)
			}
			rate.add(p, float64(made.Made)/made.Took.Seconds())
			p50.add(p, float64(made.P50.Microseconds()))
			p99.add(p, float64(made.P99.Microseconds()))
		}
	}
	fmt.Fprintf(out, "\nOpen vSwitch's datapath is %s. Medians (least to most) of %d runs; in percent, of the NORMAL flow's: budget 95 for TCP, 80 for connections a second.\n\n",
		datapath(f.Host(1)), max(1, n/5))
	table(out, paths, tcp1, tcp4, udp, rate, p50, p99, ofBytes, ofConnection)
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

// switched is whether Open vSwitch is on the way.
func (p path) switched() bool { return p.ours || p.name == learning }

// busy is the CPU time that the switches on the way have had, in µs. It depends less than a
// rate on what else the machine does. What the kernel does while they send, and so some of
// the receiver's work, is part of it.
func (p path) busy() float64 {
	hosts, sum := []*host.Host{p.host}, 0.0
	if !p.sameHost {
		hosts = append(hosts, p.at)
	}
	for _, h := range hosts {
		for line := range strings.Lines(h.Run("sh", "-c", "cat /proc/$(cat /run/openvswitch/ovs-vswitchd.pid)/task/*/schedstat")) {
			var ns float64
			if _, err := fmt.Sscan(line, &ns); err != nil {
				h.Fatalf("schedstat: %q: %v", line, err)
			}
			sum += ns / 1e3
		}
	}
	return sum
}

func (f *figure) add(p path, v float64) {
	if f.samples == nil {
		f.samples = map[string][]float64{}
	}
	f.samples[p.name] = append(f.samples[p.name], v)
}

// table prints figures as docs/limits.md has them.
func table(out io.Writer, paths []path, figures ...*figure) {
	head, rule := "| container to container |", "|---|"
	for _, f := range figures {
		head, rule = head+" "+f.name+" |", rule+"---|"
	}
	fmt.Fprintf(out, "%s\n%s\n", head, rule)
	for _, p := range paths {
		fmt.Fprintf(out, "| %s |", p.name)
		for _, f := range figures {
			s := f.samples[p.name]
			if len(s) == 0 {
				fmt.Fprint(out, " |")
				continue
			}
			fmt.Fprintf(out, " %.0f (%.0f to %.0f)", middle(s), slices.Min(s), slices.Max(s))
			if p.ours && p.sameHost {
				fmt.Fprintf(out, ", %.0f %%", 100*middle(s)/middle(f.samples[learning]))
			}
			fmt.Fprint(out, " |")
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintln(out)
}

func middle(values []float64) float64 {
	return slices.Sorted(slices.Values(values))[len(values)/2]
}

// learning is the name of the path that shows what the switch itself costs.
const learning = "Open vSwitch, one NORMAL flow"

// lay makes the containers of all paths.
func lay(f *host.Fleet) []path {
	one, two := f.Host(1), f.Host(2)
	own := one.Name("own")
	one.Docker("network", "create", own)
	a, b := one.Prober("bridge-a", "--network", own), one.Prober("bridge-b", "--network", own)

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
	learn(one, one.Exec(c.Name, "cat", "/sys/class/net/eth0/mtu"), map[string]string{a.Name: "192.0.2.1", b.Name: "192.0.2.2"})
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

// learn gives containers an interface more, as nuage's are, on a bridge of the same datapath
// as alubr0 that does what a switch does by itself.
func learn(h *host.Host, mtu string, addresses map[string]string) {
	const bridge = "learns"
	h.OVS("vsctl", "add-br", bridge, "--", "set", "bridge", bridge, "fail_mode=secure",
		"datapath_type="+h.OVS("vsctl", "get", "bridge", "alubr0", "datapath_type"))
	h.OVS("ofctl", "add-flow", bridge, "actions=NORMAL")
	for container, address := range addresses {
		pid := fmt.Sprint(h.Inspect(container).State.Pid)
		port := "n" + pid
		h.Run("ip", "link", "add", port, "type", "veth", "peer", "name", "learns", "netns", pid)
		h.Run("nsenter", "-t", pid, "-n", "sh", "-ec", "ip addr add "+address+"/24 dev learns; ip link set learns mtu "+mtu+" up; ethtool -K learns tx off >/dev/null")
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
