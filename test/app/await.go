package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// await asks for an address every millisecond, by echo requests or with -arp by ARP, until
// the first answer, and prints when that came, in nanoseconds since 1970.
func await(args []string) error {
	f := flag.NewFlagSet("await", flag.ContinueOnError)
	arp := f.Bool("arp", false, "ask who has the address")
	iface := f.String("I", "eth0", "interface to ask on with -arp")
	wait := f.Duration("W", time.Minute, "how long")
	if err := parse(f, args, 1, "ADDRESS"); err != nil {
		return err
	}
	dst, err := netip.ParseAddr(f.Arg(0))
	if err != nil {
		return err
	}
	if *arp {
		return awaitARP(*iface, dst, *wait)
	}
	return awaitEcho(dst, *wait)
}

func awaitARP(iface string, dst netip.Addr, wait time.Duration) error {
	l, err := openLink(iface)
	if err != nil {
		return err
	}
	tv := unix.NsecToTimeval(int64(time.Millisecond))
	if err := unix.SetsockoptTimeval(l.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return err
	}
	from, err := sender(l, "")
	if err != nil {
		return err
	}
	ask := arpFrame(1, l.iface.HardwareAddr, net.HardwareAddr{255, 255, 255, 255, 255, 255}, l.iface.HardwareAddr, from, nil, dst)
	return awaitAnswer(l.fd, wait, func() error { return l.send(ask) }, func(b []byte) bool {
		return len(b) >= 42 && binary.BigEndian.Uint16(b[12:]) == etherARP && b[21] == 2 && netip.AddrFrom4([4]byte(b[28:32])) == dst
	})
}

func awaitEcho(dst netip.Addr, wait time.Duration) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	if err != nil {
		return fmt.Errorf("raw socket: %w", err)
	}
	tv := unix.NsecToTimeval(int64(time.Millisecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return err
	}
	ask := make([]byte, 64)
	ask[0] = 8
	binary.BigEndian.PutUint16(ask[4:], uint16(rand.Uint32()))
	binary.BigEndian.PutUint16(ask[2:], checksum(ask))
	return awaitAnswer(fd, wait, func() error {
		return unix.Sendto(fd, ask, 0, &unix.SockaddrInet4{Addr: dst.As4()})
	}, func(b []byte) bool {
		return len(b) >= 28 && b[20] == 0 && string(b[24:26]) == string(ask[4:6]) && netip.AddrFrom4([4]byte(b[12:16])) == dst
	})
}

// awaitAnswer asks and reads in turn; each read waits a millisecond.
func awaitAnswer(fd int, wait time.Duration, ask func() error, is func([]byte) bool) error {
	buf := make([]byte, 65536)
	for end := time.Now().Add(wait); time.Now().Before(end); {
		if err := ask(); err != nil && err != unix.EHOSTUNREACH && err != unix.ENETUNREACH {
			return err
		}
		for {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				break
			}
			if is(buf[:n]) {
				fmt.Println(time.Now().UnixNano())
				return nil
			}
		}
	}
	return fmt.Errorf("no answer within %s", wait)
}
