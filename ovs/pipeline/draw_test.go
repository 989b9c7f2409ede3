package pipeline

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"pgregory.net/rapid"

	"nuage/controller/tenant"
)

// drawWorld is a small state without contradictions. Its domains use the same addresses.
func drawWorld(t *rapid.T) *world {
	w := newWorld()
	w.host("nowhere", "192.0.2.3").VTEP = netip.Addr{}
	w.macro("m0", "10.0.0.0/23")
	w.macro("m1", "192.0.2.0/24")
	port := uint32(10)
	for d := range rapid.IntRange(1, 3).Draw(t, "domains") {
		domain := fmt.Sprintf("d%d", d)
		w.domain(domain, uint16(d+1))
		for s := range rapid.IntRange(1, 3).Draw(t, "subnets") {
			subnet := fmt.Sprintf("%s/s%d", domain, s)
			w.subnet(subnet, domain, fmt.Sprintf("10.0.%d.0/24", s), uint32(100*(d+1)+s))
			for v := range rapid.IntRange(0, 3).Draw(t, "vports") {
				n := port
				where := rapid.IntRange(0, 5).Draw(t, "where")
				if where < 3 {
					n = 0
				}
				v := w.vport(fmt.Sprintf("%s/v%d", subnet, v), subnet, fmt.Sprintf("10.0.%d.%d", s, v+2), n)
				if where == 0 {
					v.Host = "nowhere"
				}
				port++
			}
		}
		w.vport(domain+"/home", domain+"/s0", "10.0.0.200", port) // the domain is present, here
		w.vport(domain+"/away", domain+"/s0", "10.0.0.201", 0)    // and there
		port++
		drawPolicies(t, w, domain)
	}
	return w
}

// drawPolicies gives a domain zones, policy groups, policies and rate limiters, and its vports
// virtual IPs, or none. Some names are of nothing.
func drawPolicies(t *rapid.T, w *world, domain string) {
	often := func(label string) bool { return rapid.IntRange(0, 3).Draw(t, label) < 3 }
	name := func(ids ...string) string {
		id := rapid.SampledFrom(append(ids, "gone")).Draw(t, "name")
		if id == "gone" {
			return id
		}
		return domain + "/" + id
	}
	for i := range 3 {
		if often("zone") && i < 2 {
			w.zone(fmt.Sprintf("%s/z%d", domain, i), domain, []uint16{1, 65535}[i])
		}
		if often("group") {
			w.group(fmt.Sprintf("%s/g%d", domain, i), domain, []uint16{1, 33, 128}[i])
		}
	}
	for _, id := range sortedIDs(w.state.Subnets) {
		if sn := *w.state.Subnets[id]; sn.DomainID == domain {
			sn.ZoneID = name("z0", "z1")
			w.put(tenant.KindSubnet, id, &sn)
		}
	}
	for _, id := range sortedIDs(w.state.Vports) {
		v := *w.state.Vports[id]
		if v.DomainID != domain {
			continue
		}
		for range rapid.IntRange(0, 2).Draw(t, "member of") {
			v.PolicyGroups = append(v.PolicyGroups, name("g0", "g1", "g2"))
		}
		v.AddressSpoofing = rapid.IntRange(0, 7).Draw(t, "spoofing") == 7
		for range rapid.IntRange(0, 2).Draw(t, "virtual IPs") {
			v.VirtualIPs = append(v.VirtualIPs, tenant.VirtualIP{
				IPv4: netip.MustParseAddr(rapid.SampledFrom([]string{"10.0.0.150", "10.0.1.150", "10.0.0.200", "10.0.0.1", "192.0.2.2", "0.0.0.0"}).Draw(t, "virtual")),
				MAC:  rapid.SampledFrom([]tenant.MAC{{}, {0, 0, 0x5e, 0, 1, 1}, stranger, {1, 0, 0x5e, 0, 0, 1}}).Draw(t, "virtual MAC"),
			})
		}
		w.put(tenant.KindVport, id, &v)
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "policies") {
		p := w.policy(fmt.Sprintf("%s/p%d", domain, i), domain, rapid.SampledFrom([]tenant.Direction{tenant.Ingress, tenant.Egress}).Draw(t, "direction"),
			uint32(10*i+rapid.IntRange(0, 15).Draw(t, "priority")))
		p.Number, p.Active, p.DefaultAllowIP = []uint16{65535, 7, 1, 32768}[i], often("active"), rapid.Bool().Draw(t, "default")
		for range rapid.IntRange(0, 4).Draw(t, "entries") {
			e := drawEntry(t, func(k tenant.Kind) string {
				switch k {
				case tenant.KindPolicyGroup:
					return name("g0", "g1", "g2")
				case tenant.KindZone:
					return name("z0", "z1")
				case tenant.KindSubnet:
					return name("s0", "s1", "s2")
				}
				return rapid.SampledFrom([]string{"m0", "m1", "gone"}).Draw(t, "macro")
			})
			if w.state.EntryByPriority(p.ID, e.Priority) == nil {
				w.entry(p.ID, e.Priority, e.Action, *e)
			}
		}
	}
	for _, on := range []tenant.Key{{Kind: tenant.KindDomain, ID: domain}, {Kind: tenant.KindZone, ID: domain + "/z0"},
		{Kind: tenant.KindSubnet, ID: domain + "/s0"}, {Kind: tenant.KindVport, ID: domain + "/home"}} {
		if !often("no limit") {
			w.limiter(domain+string(on.Kind), on, domain, tenant.Ingress, tenant.MinRate)
		}
	}
}

// drawPacket is mostly sound, so that it comes far, and wrong in any one thing.
func drawPacket(t *rapid.T, w *world, from *tenant.Vport) tenant.Packet {
	macs := []tenant.MAC{tenant.GatewayMAC, broadcast, stranger, {1, 0, 0x5e, 0, 0, 1}, {0, 0, 0x5e, 0, 1, 1}}
	addrs := []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("10.0.0.77"), netip.MustParseAddr("192.0.2.2"), netip.IPv4Unspecified(),
		netip.MustParseAddr("10.0.0.150"), netip.MustParseAddr("10.0.1.150")}
	for _, id := range sortedIDs(w.state.Subnets) {
		addrs = append(addrs, w.state.Subnets[id].Gateway)
	}
	for _, id := range sortedIDs(w.state.Vports) {
		macs = append(macs, w.state.Vports[id].MAC)
		addrs = append(addrs, w.state.Vports[id].IPv4)
	}
	anyMAC, anyAddr := rapid.SampledFrom(macs), rapid.SampledFrom(addrs)
	rarely := func(label string) bool { return rapid.IntRange(0, 15).Draw(t, label) == 15 }

	p := tenant.Packet{EthSrc: from.MAC, EthDst: tenant.GatewayMAC, EtherType: tenant.EtherIPv4, Src: from.IPv4,
		Dst: anyAddr.Draw(t, "dst"), TTL: 64}
	if vips := from.Virtual(); len(vips) > 0 && rapid.Bool().Draw(t, "virtual") {
		vip := rapid.SampledFrom(vips).Draw(t, "virtual source")
		p.EthSrc, p.Src = vip.MAC, vip.IPv4
	}
	if rapid.IntRange(0, 2).Draw(t, "direct") == 2 {
		p.EthDst = anyMAC.Draw(t, "dst MAC")
	}
	if rarely("spoof MAC") {
		p.EthSrc = anyMAC.Draw(t, "src MAC")
	}
	if rarely("spoof address") {
		p.Src = anyAddr.Draw(t, "src")
	}
	p.Tagged = rarely("tag")
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 8:
		p.EtherType, p.SHA, p.TTL = tenant.EtherARP, p.EthSrc, 0
		p.Op = uint16(1 + rapid.IntRange(0, 4).Draw(t, "op")/4)
		if rarely("spoof sha") {
			p.SHA = anyMAC.Draw(t, "sha")
		}
		if rarely("probe") {
			p.Src = netip.IPv4Unspecified()
		}
		return p
	case 9:
		p.EtherType = rapid.SampledFrom([]uint16{0x86dd, 0x88cc}).Draw(t, "type")
		return p
	}
	drawTransport(t, &p)
	if rarely("DHCP") {
		p.Protocol, p.SrcPort, p.DstPort = tenant.ProtocolUDP, 67, 68
		if rapid.Bool().Draw(t, "ask") {
			p.SrcPort, p.DstPort = 68, 67
		}
		if rarely("without an address") {
			p.Src = netip.IPv4Unspecified()
		}
	}
	if rarely("ttl") {
		p.TTL = rapid.Uint8Range(0, 3).Draw(t, "hops")
	}
	drawTrack(t, &p, anyAddr)
	return p
}

func drawTransport(t *rapid.T, p *tenant.Packet) {
	p.Protocol = uint8(rapid.SampledFrom([]tenant.Protocol{tenant.TCP, tenant.TCP, tenant.UDP, tenant.ICMP, tenant.SCTP, 47, 0}).Draw(t, "protocol"))
	p.DSCP = rapid.SampledFrom([]uint8{0, 0, 46}).Draw(t, "dscp")
	switch proto := tenant.Protocol(p.Protocol); {
	case proto.HasPorts():
		p.SrcPort, p.DstPort = drawPort(t, "sport"), drawPort(t, "dport")
	case proto == tenant.ICMP:
		p.ICMPType = rapid.SampledFrom([]uint8{8, 8, 0, 3}).Draw(t, "icmp")
		p.ICMPCode = rapid.Uint8Range(0, 1).Draw(t, "code")
	}
}

func drawPort(t *rapid.T, label string) uint16 {
	return uint16(int(rapid.SampledFrom(somePorts).Draw(t, label)) + rapid.IntRange(-1, 0).Draw(t, "beside"))
}

// drawTrack is what connection tracking may say of a packet.
func drawTrack(t *rapid.T, p *tenant.Packet, anyAddr *rapid.Generator[netip.Addr]) {
	p.Track = rapid.SampledFrom([]tenant.Track{tenant.TrackNew, tenant.TrackNew, tenant.TrackOpener, tenant.TrackReply, tenant.TrackReply, tenant.TrackNone}).Draw(t, "track")
	if !tenant.Protocol(p.Protocol).Tracked() || p.Track != tenant.TrackReply {
		return
	}
	p.Of = tenant.Tuple{Src: p.Dst, Dst: p.Src, Protocol: tenant.Protocol(p.Protocol), SrcPort: p.DstPort, DstPort: p.SrcPort}
	if p.Protocol != tenant.ProtocolICMP {
		return
	}
	if p.ICMPType != 3 {
		p.Of.ICMPType, p.Of.ICMPCode = 8, 0
		return
	}
	// An error: about a packet of either direction, from wherever it got to.
	p.Of.Protocol = rapid.SampledFrom([]tenant.Protocol{tenant.TCP, tenant.UDP}).Draw(t, "error about")
	p.Of.SrcPort, p.Of.DstPort = drawPort(t, "sport"), drawPort(t, "dport")
	beyond := &p.Of.Dst
	if rapid.Bool().Draw(t, "of the opener") {
		p.Of.Src, p.Of.Dst = p.Of.Dst, p.Of.Src
		beyond = &p.Of.Src
	}
	if rapid.Bool().Draw(t, "on the way") {
		*beyond = anyAddr.Draw(t, "end")
	}
}

func sortedIDs[T any](m map[string]*T) []string { return slices.Sorted(maps.Keys(m)) }
