package agent

import (
	"encoding/binary"
	"net/netip"

	"nuage/controller/tenant"
)

// icmpKind is type and code of an ICMP error.
type icmpKind [2]byte

var (
	fragmentationNeeded = icmpKind{3, 4}
	timeExceeded        = icmpKind{11, 0}
)

const (
	ethernetHeader = 14
	ipv4Header     = 20
	icmpHeader     = 8
	quoted         = 8 // bytes behind the IPv4 header that an error quotes
	protocolICMP   = 1
	networkControl = 0xc0 // precedence with which routers send errors
)

// ipv4Of is the IPv4 packet of a frame, or its first bytes, and the length of its header:
// of a packet that may be answered, which is the first fragment at most.
func ipv4Of(frame []byte) (ip []byte, header int, ok bool) {
	if len(frame) < ethernetHeader+ipv4Header || binary.BigEndian.Uint16(frame[12:]) != tenant.EtherIPv4 {
		return nil, 0, false
	}
	ip = frame[ethernetHeader:]
	header = int(ip[0]&15) * 4
	whole := ip[0]>>4 == 4 && header >= ipv4Header && len(ip) >= header+quoted
	return ip, header, whole && binary.BigEndian.Uint16(ip[6:])&0x1fff == 0
}

func sourceOf(ip []byte) netip.Addr      { return netip.AddrFrom4([4]byte(ip[12:16])) }
func destinationOf(ip []byte) netip.Addr { return netip.AddrFrom4([4]byte(ip[16:20])) }

// sends is whether a vport sends from an address, which is one host's.
func sends(v *tenant.Vport, a netip.Addr) bool {
	if a == v.IPv4 || v.AddressSpoofing && !a.IsMulticast() && !a.IsUnspecified() {
		return true
	}
	_, virtual := virtualMAC(v, a)
	return virtual
}

// virtualMAC is the MAC of a virtual address of a vport.
func virtualMAC(v *tenant.Vport, a netip.Addr) (tenant.MAC, bool) {
	for _, vip := range v.VirtualIPs {
		switch {
		case vip.IPv4 != a:
		case vip.MAC.IsZero():
			return v.MAC, true
		default:
			return vip.MAC, true
		}
	}
	return v.MAC, false
}

// icmpError is the frame that tells a vport what became of a packet of its own, as from the
// gateway of its subnet. The packet is a whole frame, or the first bytes of one. It is nil
// where RFC 1122 forbids an answer (an error about an error or about a later fragment) and
// where the packet is not the vport's. An error about a packet that may be fragmented is
// sent all the same: a sender that reads it fragments the next one itself.
func icmpError(frame []byte, v *tenant.Vport, gateway netip.Addr, kind icmpKind, mtu uint16) []byte {
	if ip, _, ok := ipv4Of(frame); !ok || !sends(v, sourceOf(ip)) || !gateway.Is4() {
		return nil
	}
	return icmpAbout(frame, v, answerer{tenant.GatewayMAC, gateway}, kind, mtu)
}

// icmpAbout is an ICMP error about a packet that may be answered; nil about an ICMP error.
func icmpAbout(frame []byte, v *tenant.Vport, by answerer, kind icmpKind, mtu uint16) []byte {
	ip, header, _ := ipv4Of(frame)
	if ip[9] == protocolICMP && ip[header] != 8 && ip[header] != 0 { // not an echo or its answer
		return nil
	}
	b := answerTo(frame, v, by, protocolICMP, networkControl, icmpHeader+header+quoted)
	b = append(b, kind[0], kind[1], 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, mtu)
	b = append(b, ip[:header+quoted]...)
	seal(b[ethernetHeader+ipv4Header:], 2)
	return b
}

// answerer is who an answer is from.
type answerer struct {
	mac  tenant.MAC
	addr netip.Addr
}

// answerTo begins an answer to the sender of a packet: the Ethernet and IPv4 headers of one
// with so many bytes behind them. A packet that was routed shows its sender's MAC no more.
func answerTo(frame []byte, v *tenant.Vport, by answerer, protocol, service byte, length int) []byte {
	ip, to := frame[ethernetHeader:], tenant.MAC(frame[6:12])
	if to == tenant.GatewayMAC {
		to, _ = virtualMAC(v, sourceOf(ip))
	}
	b := make([]byte, 0, ethernetHeader+ipv4Header+length)
	b = append(append(b, to[:]...), by.mac[:]...)
	b = binary.BigEndian.AppendUint16(b, tenant.EtherIPv4)
	b = append(b, 0x45, service)
	b = binary.BigEndian.AppendUint16(b, uint16(ipv4Header+length))
	b = append(b, 0, 0, 0, 0, 64, protocol, 0, 0)
	b = append(append(b, by.addr.AsSlice()...), ip[12:16]...)
	seal(b[ethernetHeader:], 10)
	return b
}

// seal writes the Internet checksum of b at an offset of it that is still zero.
func seal(b []byte, at int) {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[at:], ^uint16(sum))
}
