package agent

import (
	"encoding/binary"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"nuage/controller/tenant"
)

const (
	udpHeader   = 8
	protocolUDP = 17
	clientPort  = 68
	serverPort  = 67
)

// readDHCP is the message of a client in a whole frame; nil if there is none to be read.
// The checksum is not looked at: a machine that leaves it to its card sends none.
func readDHCP(frame []byte) *dhcpv4.DHCPv4 {
	if len(frame) < ethernetHeader+ipv4Header || binary.BigEndian.Uint16(frame[12:]) != tenant.EtherIPv4 {
		return nil
	}
	packet := frame[ethernetHeader:]
	header, total := int(packet[0]&15)*4, int(binary.BigEndian.Uint16(packet[2:]))
	switch {
	case packet[0]>>4 != 4, header < ipv4Header, total < header+udpHeader, total > len(packet):
		return nil
	case packet[9] != protocolUDP, binary.BigEndian.Uint16(packet[6:])&0x3fff != 0: // or a fragment
		return nil
	}
	datagram := packet[header:total]
	length := int(binary.BigEndian.Uint16(datagram[4:]))
	switch {
	case binary.BigEndian.Uint16(datagram) != clientPort, binary.BigEndian.Uint16(datagram[2:]) != serverPort:
		return nil
	case length < udpHeader, length > len(datagram):
		return nil
	}
	message, err := dhcpv4.FromBytes(datagram[udpHeader:length])
	if err != nil {
		return nil
	}
	return message
}

// frame is a reply on its way to the vport: to the address that the client has, or may be
// about to have, unless it asked for a broadcast.
func (who asker) frame(reply *dhcpv4.DHCPv4) []byte {
	to, mac := who.vport.IPv4, who.vport.MAC
	if !given(reply.ClientIPAddr).IsValid() && reply.IsBroadcast() {
		to, mac = netip.AddrFrom4([4]byte{255, 255, 255, 255}), tenant.MAC{255, 255, 255, 255, 255, 255}
	}
	payload := reply.ToBytes()
	length := uint16(udpHeader + len(payload))
	addresses := append(who.subnet.Gateway.AsSlice(), to.AsSlice()...)

	b := make([]byte, 0, ethernetHeader+ipv4Header+int(length))
	b = append(append(b, mac[:]...), tenant.GatewayMAC[:]...)
	b = binary.BigEndian.AppendUint16(b, tenant.EtherIPv4)
	b = append(b, 0x45, 0xc0)
	b = binary.BigEndian.AppendUint16(b, ipv4Header+length)
	b = append(b, 0, 0, 0, 0, 64, protocolUDP, 0, 0)
	b = append(b, addresses...)
	seal(b[ethernetHeader:], 10)

	// The checksum of UDP is over a header that is not sent, too.
	d := append(addresses, 0, protocolUDP)
	d = binary.BigEndian.AppendUint16(d, length)
	at := len(d)
	d = binary.BigEndian.AppendUint16(d, serverPort)
	d = binary.BigEndian.AppendUint16(d, clientPort)
	d = binary.BigEndian.AppendUint16(d, length)
	d = append(append(d, 0, 0), payload...)
	if seal(d, at+6); d[at+6] == 0 && d[at+7] == 0 { // which would mean none
		d[at+6], d[at+7] = 255, 255
	}
	return append(b, d[at:]...)
}
