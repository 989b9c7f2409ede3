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
	}
	return w
}

// drawPacket is mostly sound, so that it comes far, and wrong in any one thing.
func drawPacket(t *rapid.T, w *world, from *tenant.Vport) tenant.Packet {
	macs := []tenant.MAC{tenant.GatewayMAC, broadcast, stranger, {1, 0, 0x5e, 0, 0, 1}}
	addrs := []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("10.0.0.77"), netip.MustParseAddr("192.0.2.2"), netip.IPv4Unspecified()}
	for _, id := range sortedIDs(w.state.Subnets) {
		addrs = append(addrs, w.state.Subnets[id].Gateway)
	}
	for _, id := range sortedIDs(w.state.Vports) {
		macs = append(macs, w.state.Vports[id].MAC)
		addrs = append(addrs, w.state.Vports[id].IPv4)
	}
	anyMAC, anyAddr := rapid.SampledFrom(macs), rapid.SampledFrom(addrs)
	rarely := func(label string) bool { return rapid.IntRange(0, 15).Draw(t, label) == 0 }

	p := tenant.Packet{EthSrc: from.MAC, EthDst: tenant.GatewayMAC, EtherType: tenant.EtherIPv4, Src: from.IPv4,
		Dst: anyAddr.Draw(t, "dst"), TTL: 64}
	if rapid.Bool().Draw(t, "direct") {
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
	case 0, 1, 2:
		p.EtherType, p.SHA, p.TTL = tenant.EtherARP, p.EthSrc, 0
		p.Op = uint16(1 + rapid.IntRange(0, 4).Draw(t, "op")/4)
		if rarely("spoof sha") {
			p.SHA = anyMAC.Draw(t, "sha")
		}
		if rarely("probe") {
			p.Src = netip.IPv4Unspecified()
		}
		return p
	case 3:
		p.EtherType = rapid.SampledFrom([]uint16{0x86dd, 0x88cc}).Draw(t, "type")
		return p
	case 4, 5:
		p.Protocol = tenant.ProtocolUDP
		p.SrcPort = rapid.SampledFrom([]uint16{67, 68, 4789}).Draw(t, "sport")
		p.DstPort = rapid.SampledFrom([]uint16{67, 68, 4789}).Draw(t, "dport")
		if rarely("without an address") {
			p.Src = netip.IPv4Unspecified()
		}
	case 6:
		p.Protocol, p.SrcPort, p.DstPort = 6, 40000, 80
	default:
		p.Protocol, p.ICMPType = tenant.ProtocolICMP, rapid.SampledFrom([]uint8{8, 8, 0, 3}).Draw(t, "icmp")
	}
	if rarely("ttl") {
		p.TTL = rapid.Uint8Range(0, 3).Draw(t, "hops")
	}
	return p
}

func sortedIDs[T any](m map[string]*T) []string { return slices.Sorted(maps.Keys(m)) }
