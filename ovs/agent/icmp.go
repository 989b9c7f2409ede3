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
)

// icmpError is the frame that tells a vport what became of a packet of its own, as from the
// gateway of its subnet. The packet is a whole frame, or the first bytes of one. It is nil
// where RFC 1122 forbids an answer (an error about an error or about a later fragment) and
// where the packet is not the vport's. An error about a packet that may be fragmented is
// sent all the same: a sender that reads it fragments the next one itself.
func icmpError(frame []byte, v *tenant.Vport, gateway netip.Addr, kind icmpKind, mtu uint16) []byte {
	if len(frame) < ethernetHeader+ipv4Header || binary.BigEndian.Uint16(frame[12:]) != tenant.EtherIPv4 {
		return nil
	}
	ip := frame[ethernetHeader:]
	header := int(ip[0]&15) * 4
	switch src := netip.AddrFrom4([4]byte(ip[12:16])); {
	case ip[0]>>4 != 4, header < ipv4Header, len(ip) < header+quoted:
		return nil
	case src != v.IPv4, !gateway.Is4():
		return nil
	case binary.BigEndian.Uint16(ip[6:])&0x1fff != 0:
		return nil
	case ip[9] == protocolICMP && ip[header] != 8 && ip[header] != 0: // not an echo or its answer
		return nil
	}
	b := make([]byte, 0, ethernetHeader+ipv4Header+icmpHeader+header+quoted)
	b = append(append(b, v.MAC[:]...), tenant.GatewayMAC[:]...)
	b = binary.BigEndian.AppendUint16(b, tenant.EtherIPv4)

	b = append(b, 0x45, 0xc0) // precedence internetwork control, as routers send errors
	b = binary.BigEndian.AppendUint16(b, uint16(ipv4Header+icmpHeader+header+quoted))
	b = append(b, 0, 0, 0, 0, 64, protocolICMP, 0, 0)
	b = append(append(b, gateway.AsSlice()...), v.IPv4.AsSlice()...)
	seal(b[ethernetHeader:], 10)

	b = append(b, kind[0], kind[1], 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, mtu)
	b = append(b, ip[:header+quoted]...)
	seal(b[ethernetHeader+ipv4Header:], 2)
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
