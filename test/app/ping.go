package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ping sends echo requests at a fixed pace, whether answers come or not, and prints each
// answer and each loss, and last "sent=… received=… lost=… longest=… rtt=…" with the longest
// time without an answer and the mean time to one. It ends after -c requests or on INT or TERM, and fails if
// anything was lost. Its raw socket shows the ttl that arrived.
func ping(args []string) error {
	f := flag.NewFlagSet("ping", flag.ContinueOnError)
	count := f.Int("c", 3, "requests; 0 is until a signal")
	interval := f.Duration("i", 100*time.Millisecond, "between requests")
	wait := f.Duration("W", time.Second, "for an answer")
	size := f.Int("s", 56, "bytes of data")
	df := f.Bool("D", false, "never fragment")
	quiet := f.Bool("q", false, "only the summary")
	if err := parse(f, args, 1, "ADDRESS"); err != nil {
		return err
	}
	dst, err := netip.ParseAddr(f.Arg(0))
	if err != nil {
		return err
	}
	if !dst.Is4() {
		return fmt.Errorf("%s is not an IPv4 address", dst)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	if err != nil {
		return fmt.Errorf("raw socket: %w", err)
	}
	tv := unix.NsecToTimeval(int64(2 * time.Millisecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return err
	}
	if *df {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE); err != nil {
			return err
		}
	}
	p := &pinger{fd: fd, dst: dst, id: uint16(rand.Uint32()), size: *size, quiet: *quiet, sentAt: map[uint16]time.Time{}}
	return p.run(*count, *interval, *wait)
}

type pinger struct {
	fd             int
	dst            netip.Addr
	id             uint16
	size           int
	quiet          bool
	sent, received int
	sentAt         map[uint16]time.Time // requests without an answer
	last           time.Time            // of the last answer, or the start
	longest        time.Duration
	waited         time.Duration // for all answers
}

func (p *pinger) run(count int, interval, wait time.Duration) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	p.last = time.Now()
	for more := true; more; {
		p.request()
		for next := false; !next && more; {
			select {
			case <-stop:
				more = false
			case <-tick.C:
				next = true
				more = count == 0 || p.sent < count
			default:
				p.receive()
			}
		}
	}
	for end := time.Now().Add(wait); len(p.sentAt) > 0 && time.Now().Before(end); {
		p.receive()
	}
	lost := p.sent - p.received
	fmt.Printf("sent=%d received=%d lost=%d longest=%s rtt=%s\n", p.sent, p.received, lost, p.longest.Round(time.Millisecond),
		(p.waited / time.Duration(max(p.received, 1))).Round(time.Microsecond))
	if lost > 0 {
		return fmt.Errorf("%d of %d lost", lost, p.sent)
	}
	return nil
}

// request sends the next echo request. One that the kernel refuses (no route, no
// neighbour) counts as sent: it is lost all the same.
func (p *pinger) request() {
	p.sent++
	seq := uint16(p.sent)
	msg := make([]byte, 8+p.size)
	msg[0] = 8
	binary.BigEndian.PutUint16(msg[4:], p.id)
	binary.BigEndian.PutUint16(msg[6:], seq)
	binary.BigEndian.PutUint16(msg[2:], checksum(msg))
	p.sentAt[seq] = time.Now()
	if err := unix.Sendto(p.fd, msg, 0, &unix.SockaddrInet4{Addr: p.dst.As4()}); err != nil {
		fmt.Printf("seq=%d %v\n", seq, err)
	}
}

// receive waits a little for one message.
func (p *pinger) receive() {
	buf := make([]byte, 65536)
	n, from, err := unix.Recvfrom(p.fd, buf, 0)
	if err != nil || n < 20 {
		return
	}
	src, ok := from.(*unix.SockaddrInet4)
	icmp := buf[min(n, int(buf[0]&15)*4):n]
	if !ok || len(icmp) < 8 {
		return
	}
	switch icmp[0] {
	case 0:
		seq := binary.BigEndian.Uint16(icmp[6:])
		at, waiting := p.sentAt[seq]
		if !waiting || src.Addr != p.dst.As4() || binary.BigEndian.Uint16(icmp[4:]) != p.id {
			return
		}
		delete(p.sentAt, seq)
		p.received++
		p.waited += time.Since(at)
		p.longest = max(p.longest, time.Since(p.last))
		p.last = time.Now()
		if !p.quiet {
			fmt.Printf("%d bytes from %s: seq=%d ttl=%d time=%.2fms\n", len(icmp), p.dst, seq, buf[8], float64(time.Since(at).Microseconds())/1000)
		}
	case 3, 11: // someone on the way says why
		if len(icmp) >= 8+20+8 && binary.BigEndian.Uint16(icmp[8+20+4:]) == p.id {
			fmt.Printf("from %s: type=%d code=%d mtu=%d\n", netip.AddrFrom4(src.Addr), icmp[0], icmp[1], binary.BigEndian.Uint16(icmp[6:]))
		}
	}
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
