package main

import (
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
)

// link is a packet socket on one interface: frames as they are.
type link struct {
	fd    int
	iface *net.Interface
	out   bool // incoming has what goes out, too
}

func openLink(name string) (*link, error) {
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	all := int(htons(unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, all)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: iface.Index}); err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	tv := unix.NsecToTimeval(int64(50 * time.Millisecond))
	return &link{fd: fd, iface: iface}, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}

func (l *link) send(frame []byte) error {
	return unix.Sendto(l.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.iface.Index})
}

// incoming calls f with each frame that comes in until f returns false or d is over.
func (l *link) incoming(d time.Duration, f func(frame []byte) bool) error {
	buf := make([]byte, 65536)
	for end := time.Now().Add(d); time.Now().Before(end); {
		n, from, err := unix.Recvfrom(l.fd, buf, 0)
		if err == unix.EAGAIN || err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING && !l.out || n < 14 {
			continue
		}
		if !f(buf[:n]) {
			return nil
		}
	}
	return nil
}

// arping asks who has an address and prints every answer within the time: one line each,
// "ADDRESS is at MAC". Without one it asks again, three times in all, and fails.
func arping(args []string) error {
	f := flag.NewFlagSet("arping", flag.ContinueOnError)
	iface := f.String("I", "eth0", "interface")
	wait := f.Duration("W", 500*time.Millisecond, "for answers")
	src := f.String("s", "", "sender's address (default: the interface's)")
	if err := parse(f, args, 1, "ADDRESS"); err != nil {
		return err
	}
	dst, err := netip.ParseAddr(f.Arg(0))
	if err != nil {
		return err
	}
	l, err := openLink(*iface)
	if err != nil {
		return err
	}
	from, err := sender(l, *src)
	if err != nil {
		return err
	}
	broadcast := net.HardwareAddr{255, 255, 255, 255, 255, 255}
	request := arpFrame(1, l.iface.HardwareAddr, broadcast, l.iface.HardwareAddr, from, nil, dst)
	answers := 0
	for range tries {
		if err := l.send(request); err != nil {
			return err
		}
		err = l.incoming(*wait, func(b []byte) bool {
			if len(b) >= 42 && binary.BigEndian.Uint16(b[12:]) == etherARP && b[21] == 2 && netip.AddrFrom4([4]byte(b[28:32])) == dst {
				fmt.Printf("%s is at %s\n", dst, net.HardwareAddr(b[22:28]))
				answers++
			}
			return true
		})
		if err != nil || answers > 0 {
			return err
		}
	}
	return fmt.Errorf("nobody has %s", dst)
}

func sender(l *link, given string) (netip.Addr, error) {
	if given != "" {
		return netip.ParseAddr(given)
	}
	addrs, err := l.iface.Addrs()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			return p.Addr(), nil
		}
	}
	return netip.AddrFrom4([4]byte{}), nil
}

// send puts frames with chosen addresses on the wire: a UDP datagram, or with -arp an
// ARP message. What is not given is what an honest sender would use. With -vtep they go
// there in VXLAN packets, from an ordinary socket of whoever runs this.
func send(args []string) error {
	f := flag.NewFlagSet("send", flag.ContinueOnError)
	iface := f.String("I", "eth0", "interface")
	count := f.Int("c", 1, "frames")
	srcMAC := f.String("src-mac", "", "Ethernet source")
	dstMAC := f.String("dst-mac", "ff:ff:ff:ff:ff:ff", "Ethernet destination")
	srcIP := f.String("src-ip", "", "source address, or ARP sender")
	arpMAC := f.String("arp-mac", "", "ARP sender's MAC")
	arp := f.Int("arp", 0, "send ARP with this operation (1 request, 2 answer)")
	sport := f.Int("sport", 1234, "UDP source port")
	dport := f.Int("dport", 9, "UDP destination port")
	ttl := f.Int("ttl", 64, "of the IPv4 header")
	raw := f.String("hex", "", "whole frames instead, in hexadecimal, commas between them")
	storm := f.Duration("for", 0, "send them again and again for so long")
	vtep := f.String("vtep", "", "encapsulate, to this address")
	vni := f.Uint("vni", 0, "of the VXLAN header")
	if err := f.Parse(args); err != nil {
		return err
	}
	l, err := openLink(*iface)
	if err != nil {
		return err
	}
	frames, err := decode(*raw)
	if err == nil && len(frames) == 0 {
		frames = make([][]byte, 1)
		frames[0], err = build(l, f, *srcMAC, *dstMAC, *srcIP, *arpMAC, *arp, *sport, *dport, *ttl)
	}
	if err != nil {
		return err
	}
	put := l.send
	if *vtep != "" {
		// Without an outer checksum, as usual: it would be left to a card that is not there.
		d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			if refused := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1) }); refused != nil {
				return refused
			}
			return err
		}}
		c, err := d.Dial("udp4", net.JoinHostPort(*vtep, "4789"))
		if err != nil {
			return err
		}
		defer c.Close()
		for i := range frames {
			frames[i] = append(vxlanHeader(uint32(*vni)), frames[i]...)
		}
		put = func(b []byte) error { _, err := c.Write(b); return err }
	}
	sent := 0
	for end := time.Now().Add(*storm); sent < *count*len(frames) || time.Now().Before(end); sent++ {
		if err := put(frames[sent%len(frames)]); err != nil && !(*storm > 0 && err == unix.ENOBUFS) {
			return err
		}
	}
	fmt.Printf("sent %d\n", sent)
	return nil
}

func decode(list string) (frames [][]byte, err error) {
	if list == "" {
		return nil, nil
	}
	for text := range strings.SplitSeq(list, ",") {
		b, err := hex.DecodeString(text)
		if err != nil {
			return nil, err
		}
		frames = append(frames, b)
	}
	return frames, nil
}

func vxlanHeader(vni uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{8, 0, 0, 0}, vni<<8)
}

func build(l *link, f *flag.FlagSet, srcMAC, dstMAC, srcIP, arpMAC string, arp, sport, dport, ttl int) ([]byte, error) {
	if f.NArg() != 1 {
		return nil, fmt.Errorf("want DESTINATION")
	}
	dst, err := netip.ParseAddr(f.Arg(0))
	if err != nil {
		return nil, err
	}
	src, err := sender(l, srcIP)
	if err != nil {
		return nil, err
	}
	macs := map[string]net.HardwareAddr{"": l.iface.HardwareAddr}
	for _, s := range []string{srcMAC, dstMAC, arpMAC} {
		if s != "" {
			if macs[s], err = net.ParseMAC(s); err != nil {
				return nil, err
			}
		}
	}
	if arp != 0 {
		return arpFrame(uint16(arp), macs[srcMAC], macs[dstMAC], macs[arpMAC], src, macs[dstMAC], dst), nil
	}
	return udpFrame(macs[srcMAC], macs[dstMAC], src, dst, uint16(sport), uint16(dport), uint8(ttl)), nil
}

// sniff prints a line for each frame that comes in: source, destination, type and IPv4
// addresses, or with -x the frame itself in hexadecimal; then "received N". It ends early
// with a line that contains -until.
func sniff(args []string) error {
	f := flag.NewFlagSet("sniff", flag.ContinueOnError)
	iface := f.String("I", "eth0", "interface")
	d := f.Duration("d", time.Second, "how long")
	until := f.String("until", "", "text of the last line")
	whole := f.Bool("x", false, "whole frames")
	out := f.Bool("out", false, "also what goes out")
	if err := parse(f, args, 0, "no argument"); err != nil {
		return err
	}
	l, err := openLink(*iface)
	if err != nil {
		return err
	}
	l.out = *out
	n := 0
	fmt.Println("listening")
	err = l.incoming(*d, func(b []byte) bool {
		n++
		kind := binary.BigEndian.Uint16(b[12:])
		line := fmt.Sprintf("%s > %s %04x", net.HardwareAddr(b[6:12]), net.HardwareAddr(b[:6]), kind)
		if kind == etherIPv4 && len(b) >= 34 {
			line += fmt.Sprintf(" %s > %s proto %d ttl %d", netip.AddrFrom4([4]byte(b[26:30])), netip.AddrFrom4([4]byte(b[30:34])), b[23], b[22])
		}
		if *whole {
			line = hex.EncodeToString(b)
		}
		fmt.Println(line)
		return *until == "" || !strings.Contains(line, *until)
	})
	fmt.Printf("received %d\n", n)
	return err
}

func ethernet(dst, src net.HardwareAddr, kind uint16) []byte {
	b := append(append([]byte{}, dst...), src...)
	return binary.BigEndian.AppendUint16(b, kind)
}

func arpFrame(op uint16, src, dst, sha net.HardwareAddr, spa netip.Addr, tha net.HardwareAddr, tpa netip.Addr) []byte {
	b := ethernet(dst, src, etherARP)
	b = append(b, 0, 1, 8, 0, 6, 4)
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(append(b, sha...), spa.AsSlice()...)
	if tha == nil {
		tha = make(net.HardwareAddr, 6)
	}
	return append(append(b, tha...), tpa.AsSlice()...)
}

func udpFrame(src, dst net.HardwareAddr, from, to netip.Addr, sport, dport uint16, ttl uint8) []byte {
	data := []byte("nuage test frame")
	ip := []byte{0x45, 0}
	ip = binary.BigEndian.AppendUint16(ip, uint16(20+8+len(data)))
	ip = append(ip, 0, 0, 0, 0, ttl, 17, 0, 0)
	ip = append(append(ip, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	b := append(ethernet(dst, src, etherIPv4), ip...)
	for _, v := range []uint16{sport, dport, uint16(8 + len(data)), 0} { // UDP checksum 0: none
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return append(b, data...)
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }
