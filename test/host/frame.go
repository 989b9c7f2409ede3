package host

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// IPv4 is a packet to be made by hand, right or wrong.
type IPv4 struct {
	Src, Dst string
	Protocol byte
	// Options are padded by who gives them; ID and Fragment are as in the header, the latter
	// with the flag 0x2000 for more to come.
	Options      []byte
	ID, Fragment uint16
	Payload      []byte
}

// Bytes are the packet with a right length and checksum.
func (p IPv4) Bytes() []byte {
	b := []byte{byte(0x45 + len(p.Options)/4), 0}
	b = binary.BigEndian.AppendUint16(b, uint16(20+len(p.Options)+len(p.Payload)))
	b = binary.BigEndian.AppendUint16(b, p.ID)
	b = binary.BigEndian.AppendUint16(b, p.Fragment)
	b = append(b, 64, p.Protocol, 0, 0)
	b = append(append(append(b, address(p.Src)...), address(p.Dst)...), p.Options...)
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return append(b, p.Payload...)
}

// Ethernet is a frame with whatever behind its type.
func Ethernet(dst, src string, kind uint16, payload ...byte) []byte {
	b := append(append([]byte{}, hardware(dst)...), hardware(src)...)
	return append(binary.BigEndian.AppendUint16(b, kind), payload...)
}

// ARP is a message of an operation, from a sender to a target.
func ARP(operation byte, srcMAC, src, dstMAC, dst string) []byte {
	b := append([]byte{0, 1, 8, 0, 6, 4, 0, operation}, hardware(srcMAC)...)
	return append(append(append(b, address(src)...), hardware(dstMAC)...), address(dst)...)
}

// UDP is a datagram without a checksum.
func UDP(from, to uint16, data string) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(data)))
	return append(append(b, 0, 0), data...)
}

// SYN is a segment that opens a connection between two addresses, with a sequence number of
// four characters.
func SYN(src, dst string, from, to uint16, number, data string) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = append(append(append(b, number...), 0, 0, 0, 0, 5<<4, 2, 0xff, 0xff, 0, 0, 0, 0), data...)
	pseudo := append(append(append(address(src), address(dst)...), 0, 6), byte(len(b)>>8), byte(len(b)))
	binary.BigEndian.PutUint16(b[16:], checksum(append(pseudo, b...)))
	return b
}

// ICMP is a message whose second word is 0.
func ICMP(kind, code byte, data []byte) []byte {
	b := append([]byte{kind, code, 0, 0, 0, 0, 0, 0}, data...)
	binary.BigEndian.PutUint16(b[2:], checksum(b))
	return b
}

// What is no address is a mistake of the test's.
func address(text string) []byte { return netip.MustParseAddr(text).AsSlice() }

func hardware(text string) []byte {
	mac, err := net.ParseMAC(text)
	if err != nil {
		panic(err)
	}
	return mac
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i, c := range b {
		sum += uint32(c) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
