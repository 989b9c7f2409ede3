package user

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"nuage/controller/tenant"
	"nuage/ovs/pipeline"
	"nuage/test/host"
)

const everybody, routerMAC = "ff:ff:ff:ff:ff:ff", "0a:6e:75:61:67:65"

// dropped is a reason's counter of one object, or of the switch if id is empty.
func dropped(h *host.Host, d pipeline.Drop, k tenant.Key) int {
	cookie := pipeline.Cookie(pipeline.SwitchKey)
	if d.Per != "switch" {
		cookie = pipeline.Cookie(k)
	}
	out := h.OVS("ofctl", "-OOpenFlow15", "dump-flows", "alubr0", fmt.Sprintf("table=%d,cookie=%#x/-1", d.Table, cookie))
	total := 0
	for _, m := range regexp.MustCompile(fmt.Sprintf(`n_packets=(\d+),.* priority=%d[ ,]`, d.Priority)).FindAllStringSubmatch(out, -1) {
		n, _ := strconv.Atoi(m[1]) // digits
		total += n
	}
	return total
}

// keyOf is the object of that name in the test's own enterprise.
func keyOf(h *host.Host, d *host.Domain, kind, name string) tenant.Key {
	for _, o := range h.Get(kind, "--enterprise", d.Enterprise) {
		if o["name"] == name {
			return tenant.Key{Kind: tenant.Kind(kind), ID: o["id"].(string)}
		}
	}
	h.Fatalf("%s: no %s", kind, name)
	panic("unreachable")
}

// party is one container and its addresses.
type party struct{ name, ip, mac string }

func newParty(h *host.Host, network, name, ip string) party {
	c := h.Container(name, "--network", network, "--ip", ip)
	return party{c, ip, h.Endpoint(c, network).MacAddress}
}

// to is an honest datagram.
func (p party) to(q party, data string) []byte {
	return host.Ethernet(q.mac, p.mac, 0x800, host.IPv4{Src: p.ip, Dst: q.ip, Protocol: 17, Payload: host.UDP(1000, 9, data)}.Bytes()...)
}

// What a container with Docker's own capabilities sends under another's name, in another's
// role, or round the tables, does not arrive, neither at its neighbour nor beneath, and each
// frame is counted once, where docs/pipeline.md says.
func TestForgedFrames(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.92.1.0/24")
	n := d.Network("front", "--subnet", "10.92.1.0/24")
	evil, victim, honest := newParty(h, n, "evil", "10.92.1.66"), newParty(h, n, "victim", "10.92.1.10"), newParty(h, n, "honest", "10.92.1.20")
	vport, domain := keyOf(h, d, "vports", evil.name), keyOf(h, d, "domains", d.Name)
	uplink := strings.Fields(h.Run("ip", "-br", "link", "show", "nuage-uplink"))[2]

	udp := func(src, dst string, p host.IPv4) []byte {
		p.Protocol = 17
		p.Src, p.Dst = src, dst
		return p.Bytes()
	}
	const mark = "nuage forged 00" // and 01 and so on, one for each frame
	good := udp(evil.ip, victim.ip, host.IPv4{Payload: host.UDP(1000, 9, mark)})
	lease := host.IPv4{Payload: host.UDP(67, 68, mark+strings.Repeat("\x00", 240))}
	withOptions, firstFragment := lease, lease
	withOptions.Options, firstFragment.Fragment = []byte{1, 1, 1, 0}, 0x2000
	eth := func(kind uint16, payload ...byte) []byte {
		return host.Ethernet(victim.mac, evil.mac, kind, payload...)
	}
	ip6 := func(kind byte) []byte { // an ICMPv6 message to all nodes
		b := append([]byte{0x60, 0, 0, 0, 0, byte(16 + len(mark)), 58, 255, 0xfe, 0x80}, make([]byte, 13)...)
		b = append(append(append(b, 1, 0xff, 2), make([]byte, 13)...), 1, kind, 0, 0, 0)
		return append(append(b, make([]byte, 12)...), mark...)
	}
	vxlan := func(vtep, mac string) []byte { // in it, a good frame
		inner := honest.to(victim, mark)
		return host.Ethernet(mac, evil.mac, 0x800, udp(evil.ip, vtep, host.IPv4{Payload: host.UDP(50000, 4789, "\x08\x00\x00\x00\x00\x00\x64\x00"+string(inner))})...)
	}
	arp := func(src string, message []byte) []byte {
		return append(host.Ethernet(victim.mac, src, 0x806, message...), mark...)
	}
	cut := slices.Clone(good)
	cut[3] = 0xff // longer than it is

	frames := []struct {
		what  string
		by    pipeline.Drop
		frame []byte
	}{
		{"another's MAC", pipeline.DropSpoofedIP, host.Ethernet(victim.mac, honest.mac, 0x800, good...)},
		{"another's address", pipeline.DropSpoofedIP, eth(0x800, udp(honest.ip, victim.ip, host.IPv4{Payload: host.UDP(1, 9, mark)})...)},
		{"another's address behind options", pipeline.DropSpoofedIP, eth(0x800, udp(honest.ip, victim.ip, host.IPv4{Options: []byte{1, 1, 1, 0}, Payload: host.UDP(1, 9, mark)})...)},
		{"the gateway's address", pipeline.DropSpoofedIP, host.Ethernet(victim.mac, routerMAC, 0x800, udp("10.92.1.1", victim.ip, host.IPv4{Payload: host.UDP(1, 9, mark)})...)},
		{"the victim's own address", pipeline.DropSpoofedIP, eth(0x800, udp(victim.ip, victim.ip, host.IPv4{Payload: host.UDP(1, 9, mark)})...)},
		{"a packet longer than its frame", pipeline.DropSpoofedIP, eth(0x800, cut...)},
		{"ARP as another", pipeline.DropSpoofedARP, arp(evil.mac, host.ARP(2, evil.mac, honest.ip, victim.mac, victim.ip))},
		{"ARP as the gateway", pipeline.DropSpoofedARP, arp(evil.mac, host.ARP(2, evil.mac, "10.92.1.1", victim.mac, victim.ip))},
		{"ARP with another's MAC inside", pipeline.DropSpoofedARP, arp(evil.mac, host.ARP(2, honest.mac, evil.ip, victim.mac, victim.ip))},
		{"ARP from another's MAC", pipeline.DropSpoofedARP, arp(honest.mac, host.ARP(2, evil.mac, evil.ip, victim.mac, victim.ip))},
		{"an ARP answer nobody needs", pipeline.DropUnknownARP, arp(evil.mac, host.ARP(2, evil.mac, evil.ip, victim.mac, victim.ip))},
		{"a DHCP server's answer", pipeline.DropDHCPServer, eth(0x800, udp(evil.ip, victim.ip, lease)...)},
		{"the same to all", pipeline.DropDHCPServer, host.Ethernet(everybody, evil.mac, 0x800, udp(evil.ip, "255.255.255.255", lease)...)},
		{"the same behind options", pipeline.DropDHCPServer, eth(0x800, udp(evil.ip, victim.ip, withOptions)...)},
		{"the same in fragments", pipeline.DropDHCPServer, eth(0x800, udp(evil.ip, victim.ip, firstFragment)...)},
		{"a router advertisement", pipeline.DropOtherProtocol, eth(0x86dd, ip6(134)...)},
		{"a neighbour advertisement", pipeline.DropOtherProtocol, host.Ethernet("33:33:00:00:00:01", evil.mac, 0x86dd, ip6(136)...)},
		{"reverse ARP", pipeline.DropOtherProtocol, append(eth(0x8035, host.ARP(4, evil.mac, evil.ip, victim.mac, victim.ip)...), mark...)},
		{"a label of MPLS", pipeline.DropOtherProtocol, eth(0x8847, append([]byte{0, 0, 0x11, 64}, good...)...)},
		{"a frame of a bridge", pipeline.DropOtherProtocol, host.Ethernet("01:80:c2:00:00:00", evil.mac, 38, append([]byte{0x42, 0x42, 3}, (mark+strings.Repeat("\x00", 30))...)...)},
		{"a VLAN tag", pipeline.DropTagged, eth(0x8100, append([]byte{0, 5, 8, 0}, good...)...)},
		{"the tag of VLAN 0", pipeline.DropTagged, eth(0x8100, append([]byte{0, 0, 8, 0}, good...)...)},
		{"two VLAN tags", pipeline.DropTagged, eth(0x88a8, append([]byte{0, 5, 0x81, 0, 0, 6, 8, 0}, good...)...)},
		{"to all", pipeline.DropBroadcast, host.Ethernet(everybody, evil.mac, 0x800, udp(evil.ip, "10.92.1.255", host.IPv4{Payload: host.UDP(1, 9, mark)})...)},
		{"VXLAN to this host", pipeline.DropOutside, vxlan("10.200.0.1", routerMAC)},
		{"VXLAN to another host", pipeline.DropOutside, vxlan("10.200.0.2", routerMAC)},
		{"VXLAN to Docker's own network", pipeline.DropOutside, vxlan("172.17.0.1", routerMAC)},
		{"VXLAN to this host's MAC", pipeline.DropUnknownMAC, vxlan("10.200.0.1", uplink)},
		{"VXLAN to all", pipeline.DropBroadcast, vxlan("10.200.0.255", everybody)},
	}
	listeners := map[string]*host.Listener{"the victim": h.Listen(victim.name, ""), "the host": h.Listen("", "alubr0"), "the underlay": h.Listen("", "nuage-uplink")}
	counted := func(d pipeline.Drop) int {
		if d.Per == "domain" {
			return dropped(h, d, domain)
		}
		return dropped(h, d, vport)
	}
	before, sent := map[pipeline.Drop]int{}, map[pipeline.Drop]int{}
	all := make([][]byte, len(frames))
	for i, f := range frames {
		if sent[f.by] == 0 {
			before[f.by] = counted(f.by)
		}
		sent[f.by]++
		all[i] = bytes.ReplaceAll(f.frame, []byte(mark), fmt.Appendf(nil, "nuage forged %02d", i))
	}
	h.Send(evil.name, all...)
	for by, n := range sent {
		h.Eventually(10*time.Second, "the counter "+string(by.Reason), func() error {
			if now := counted(by); now < before[by]+n {
				return fmt.Errorf("it was %d before %d frames, and is %d", before[by], n, now)
			}
			return nil
		})
	}
	// The same sender's true packets arrive, options included, and so does all before them.
	const honestly, options = "nuage honest", "nuage options"
	h.Send(evil.name, eth(0x800, udp(evil.ip, victim.ip, host.IPv4{Options: []byte{1, 1, 1, 0}, Payload: host.UDP(1, 9, options)})...), evil.to(victim, honestly))
	listeners["the victim"].Await(honestly)
	if listeners["the victim"].Got(options) != 1 {
		t.Error("a true packet with options did not arrive")
	}
	for where, l := range listeners {
		for i, f := range frames {
			if l.Got(fmt.Sprintf("nuage forged %02d", i)) != 0 {
				t.Errorf("%s came to %s", f.what, where)
			}
		}
	}
	spoofs := sent[pipeline.DropSpoofedIP] + sent[pipeline.DropSpoofedARP] + sent[pipeline.DropDHCPServer]
	h.Eventually(30*time.Second, "the user's counter", func() error {
		out := h.Nuagectl("get", "vports", "-o", "wide", "--enterprise", d.Enterprise)
		for line := range strings.Lines(out) {
			if strings.Contains(line, evil.ip+" ") && slices.Contains(strings.Fields(line), strconv.Itoa(spoofs)) {
				return nil
			}
		}
		return fmt.Errorf("not %d beside %s:\n%s", spoofs, evil.ip, out)
	})
}

// Addresses of the underlay's are the tenant's own where a tenant uses them.
func TestUnderlayAddressesOfATenant(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	n := h.Domain("App1", "front=10.200.0.0/24").Network("front", "--subnet", "10.200.0.0/24")
	evil, victim := newParty(h, n, "evil", "10.200.0.66"), newParty(h, n, "victim", "10.200.0.2")
	in, beneath := h.Listen(victim.name, ""), []*host.Listener{h.Listen("", "nuage-uplink"), h.Listen("", "alubr0")}
	vxlan := func(mac, vtep, mark string) []byte {
		return host.Ethernet(mac, evil.mac, 0x800, host.IPv4{Src: evil.ip, Dst: vtep, Protocol: 17, Payload: host.UDP(50000, 4789, mark)}.Bytes()...)
	}
	const toHost, toTenant = "nuage to host", "nuage to tenant"
	h.Send(evil.name, vxlan(routerMAC, "10.200.0.1", toHost), vxlan(victim.mac, victim.ip, toTenant))
	in.Await(toTenant)
	for _, l := range beneath {
		if l.Got(toHost)+l.Got(toTenant) != 0 {
			t.Error("a packet came to the underlay or to the host")
		}
	}
	h.ReachesNot(evil.name, "10.200.0.254")
}

// A virtual IP, and address spoofing, open what they say and no more, and only while they
// are set.
func TestVirtualAddresses(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.93.1.0/24")
	n := d.Network("front", "--subnet", "10.93.1.0/24")
	holder, client := newParty(h, n, "holder", "10.93.1.10"), newParty(h, n, "client", "10.93.1.20")
	const vip, other, vrrpIP, vrrpMAC = "10.93.1.50", "10.93.1.51", "10.93.1.52", "00:00:5e:00:01:07"
	in := h.Listen(client.name, "")
	h.Run("nsenter", "-t", strconv.Itoa(h.Inspect(holder.name).State.Pid), "-n", "ip", "addr", "add", vip+"/32", "dev", "eth0")

	frames := map[string][]byte{
		"its own":        holder.to(client, ""),
		"the virtual IP": party{ip: vip, mac: holder.mac}.to(client, ""),
		"another":        party{ip: other, mac: holder.mac}.to(client, ""),
		"the client's":   party{ip: client.ip, mac: holder.mac}.to(client, ""),
		"a foreign one":  party{ip: "192.0.2.1", mac: holder.mac}.to(client, ""),
		"VRRP's":         party{ip: vrrpIP, mac: vrrpMAC}.to(client, ""),
		"VRRP's address": party{ip: vrrpIP, mac: holder.mac}.to(client, ""),
		"VRRP's MAC":     party{ip: holder.ip, mac: vrrpMAC}.to(client, ""),
		"DHCP": host.Ethernet(client.mac, holder.mac, 0x800,
			host.IPv4{Src: holder.ip, Dst: client.ip, Protocol: 17, Payload: host.UDP(67, 68, "")}.Bytes()...),
		"RA": host.Ethernet(client.mac, holder.mac, 0x86dd, append([]byte{0x60, 0, 0, 0, 0, 0, 58, 255}, make([]byte, 32)...)...),
	}
	round := 0
	// passes sends every frame and checks which of them arrive: "its own" is the last.
	passes := func(what string, want ...string) {
		t.Helper()
		round++
		mark := func(name string) string { return fmt.Sprintf(" %s in round %d.", name, round) }
		var all [][]byte
		for name, f := range frames {
			if name != "its own" {
				all = append(all, append(slices.Clone(f), mark(name)...)) // behind the packet
			}
		}
		h.Send(holder.name, append(all, append(slices.Clone(frames["its own"]), mark("its own")...))...)
		in.Await(mark("its own"))
		for name := range frames {
			if got := in.Got(mark(name)) != 0; got != (name == "its own" || slices.Contains(want, name)) {
				t.Errorf("%s: a packet from %s arrives: %t", what, name, got)
			}
		}
	}
	has := func(what, address, mac string) {
		t.Helper()
		if out, _ := h.TryDocker("exec", client.name, "app", "arping", address); out != "app arping: nobody has "+address && mac == "" || mac != "" && out != address+" is at "+mac {
			t.Errorf("%s: who has %s: %s", what, address, out)
		}
	}
	set := func(values ...string) {
		t.Helper()
		h.Nuagectl(append([]string{"set", "vport", holder.name}, values...)...)
		h.Programmed()
	}
	passes("at first")
	has("at first", vip, "")
	h.ReachesNot(client.name, vip)

	set("virtualIPs=" + vip + "," + vrrpIP + "@" + vrrpMAC)
	passes("with virtual IPs", "the virtual IP", "VRRP's")
	has("with virtual IPs", vip, holder.mac)
	has("with virtual IPs", vrrpIP, vrrpMAC)
	has("with virtual IPs", other, "")
	h.Reaches(client.name, vip, 64)
	h.ReachesNot(client.name, other)

	set("virtualIPs=", "addressSpoofing=ENABLED")
	passes("with address spoofing", "the virtual IP", "another", "the client's", "a foreign one", "VRRP's", "VRRP's address", "VRRP's MAC")
	has("with address spoofing", vip, "")

	set("addressSpoofing=DISABLED")
	passes("at last")
	has("at last", vip, "")
	h.ReachesNot(client.name, vip)
}
