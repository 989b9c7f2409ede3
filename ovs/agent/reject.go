package agent

import (
	"encoding/binary"
	"net/netip"

	"nuage/controller/tenant"
)

const (
	protocolTCP = 6
	tcpHeader   = 20
	tcpFlags    = 13 // of a TCP header, the offset of the flags; what an answer needs ends here

	tcpFIN, tcpSYN, tcpRST, tcpACK = 1, 2, 4, 16
)

var prohibited = icmpKind{3, 13} // communication administratively prohibited

// rejection is the frame that tells a vport that a policy refuses a packet of its own, as
// from whom the packet was for: a TCP reset, or an ICMP error. The packet is a whole frame,
// or the first bytes of one, as it was when it was judged: routed already, perhaps. It is
// nil where an answer would be wrong: to a reset, to an error, to what was not for one
// host, to what is not from the vport.
func rejection(frame []byte, v *tenant.Vport, subnet *tenant.Subnet) []byte {
	ip, header, ok := ipv4Of(frame)
	if !ok || !sends(v, sourceOf(ip)) || !oneHost(destinationOf(ip), subnet.CIDR) || frame[0]&1 != 0 {
		return nil
	}
	by := answerer{tenant.MAC(frame[:6]), destinationOf(ip)}
	if tenant.MAC(frame[6:12]) == tenant.GatewayMAC { // routed
		by.mac = tenant.GatewayMAC
	}
	if ip[9] == protocolTCP {
		return reset(frame, ip[header:], v, by)
	}
	return icmpAbout(frame, v, by, prohibited, 0)
}

// oneHost is whether an address may be one host's, as far as a subnet knows.
func oneHost(a netip.Addr, subnet netip.Prefix) bool {
	if a.IsMulticast() || a.IsUnspecified() || a.IsLoopback() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return false
	}
	return !subnet.Contains(a) || subnet.Contains(a.Next()) || subnet.Bits() > 30 // its last address is for all
}

// reset is the TCP reset in answer to a segment, by RFC 9293, 3.10.7: it has the number
// that the segment's sender expects next, or else acknowledges the segment.
func reset(frame, tcp []byte, v *tenant.Vport, by answerer) []byte {
	if len(tcp) <= tcpFlags || tcp[tcpFlags]&tcpRST != 0 {
		return nil
	}
	seq, ack, flags := uint32(0), uint32(0), byte(tcpRST)
	if tcp[tcpFlags]&tcpACK != 0 {
		seq = binary.BigEndian.Uint32(tcp[8:])
	} else {
		ip := frame[ethernetHeader:]
		data := int(binary.BigEndian.Uint16(ip[2:])) - int(ip[0]&15)*4 - int(tcp[12]>>4)*4
		if data < 0 {
			return nil
		}
		ack = binary.BigEndian.Uint32(tcp[4:]) + uint32(data) + uint32(tcp[tcpFlags]&tcpSYN)>>1 + uint32(tcp[tcpFlags]&tcpFIN)
		flags |= tcpACK
	}
	b := answerTo(frame, v, by, protocolTCP, 0, tcpHeader)
	b = append(append(b, tcp[2:4]...), tcp[:2]...)
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, seq), ack)
	b = append(b, tcpHeader/4<<4, flags, 0, 0, 0, 0, 0, 0)
	sealTCP(b[ethernetHeader:])
	return b
}

// sealTCP writes the checksum of the segment in a packet without options, which is over the
// addresses, the protocol and the length too.
func sealTCP(ip []byte) {
	segment := ip[ipv4Header:]
	pseudo := append(append([]byte{}, ip[12:20]...), 0, protocolTCP)
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(segment)))
	at := len(pseudo) + 16
	pseudo = append(pseudo, segment...)
	seal(pseudo, at)
	copy(segment[16:18], pseudo[at:])
}
