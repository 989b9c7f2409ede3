package pipeline

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"nuage/ovs/ovstest"
)

// wire is a real userspace datapath with vports 1 and 2 in domain d1, 3 and 4 in domain d2,
// of which the first has 10.0.1.11 and the other 10.0.1.12, in a network namespace each.
type wire struct {
	t      *testing.T
	number int32 // of this one among all
	ovs    *ovstest.OVS
	w      *world
}

var wires atomic.Int32

// name is of the namespace of a vport, and of the vport; 0 is the switch's.
func (p *wire) name(i int) string { return fmt.Sprintf("pipe%d-%d-%d", os.Getpid(), p.number, i) }

func newWire(t *testing.T, domains int) *wire {
	t.Helper()
	if os.Geteuid() != 0 && os.Getenv("NUAGE_TEST_ROOT") == "0" {
		t.Skip("needs root for network namespaces")
	}
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	w := newWorld()
	for i := 1; i <= domains; i++ {
		w.domain(fmt.Sprintf("d%d", i), uint16(i))
		w.subnet(fmt.Sprintf("s%d", i), fmt.Sprintf("d%d", i), "10.0.1.0/24", uint32(100+i))
	}
	p := &wire{t: t, w: w, number: wires.Add(1)}
	name := p.name
	for i := range 2*domains + 1 {
		run("ip", "netns", "add", name(i))
		t.Cleanup(func() { exec.Command("ip", "netns", "del", name(i)).Run() })
	}
	p.ovs = ovstest.Start(t, ovstest.Forwarding("/run/netns/"+name(0)))
	p.ovs.AddBridge(bridge)
	for i := 1; i <= 2*domains; i++ {
		v := w.vport(name(i), fmt.Sprintf("s%d", (i+1)/2), fmt.Sprintf("10.0.1.%d", 12-i%2), uint32(i))
		run("ip", "-n", name(0), "link", "add", v.Interface, "type", "veth", "peer", "name", "eth0", "address", v.MAC.String(), "netns", name(i))
		run("ip", "-n", name(0), "link", "set", v.Interface, "up")
		run("ip", "-n", name(i), "addr", "add", v.IPv4.String()+"/24", "dev", "eth0")
		run("ip", "-n", name(i), "link", "set", "eth0", "up")
		run("ip", "netns", "exec", name(i), "ethtool", "-K", "eth0", "tx", "off")
		p.ovs.AddPort(bridge, v.Interface, uint32(i))
	}
	return p
}

// load puts the world's flows on the switch.
func (p *wire) load() {
	p.t.Helper()
	var text strings.Builder
	for _, f := range mustCompile(p.t, p.w).Sorted() {
		fmt.Fprintln(&text, f)
	}
	file := filepath.Join(p.t.TempDir(), "flows")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.ovs.Ofctl("--bundle", "replace-flows", bridge, file)
	p.ovs.Appctl("revalidator/wait") // until no packet goes by what was cached before
}

// in calls f in the namespace of a vport: sockets that it makes stay there.
func (p *wire) in(i int, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and the thread ends with the goroutine
		ns, err := netns.GetFromPath("/run/netns/" + p.name(i))
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// echo has a vport answer at a TCP port with what it reads.
func (p *wire) echo(i int, port int) {
	p.t.Helper()
	var l net.Listener
	if err := p.in(i, func() (err error) { l, err = net.Listen("tcp4", fmt.Sprintf(":%d", port)); return err }); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 4096)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					c.Write(buf[:n])
				}
			}()
		}
	}()
}

func (p *wire) dial(i int, network, local, remote string, wait time.Duration) (c net.Conn, err error) {
	err = p.in(i, func() error {
		d := net.Dialer{Timeout: wait}
		if local != "" {
			d.LocalAddr, _ = net.ResolveUDPAddr("udp4", local)
		}
		c, err = d.Dial(network, remote)
		return err
	})
	if err == nil {
		p.t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func (p *wire) receive(i int, addr string) (c net.PacketConn) {
	p.t.Helper()
	if err := p.in(i, func() (err error) { c, err = net.ListenPacket("udp4", addr); return err }); err != nil {
		p.t.Fatal(err)
	}
	return c
}

// fragment sends the first fragment of a datagram that has no other.
func (p *wire) fragment(i int, text string) {
	p.t.Helper()
	from, to := p.w.state.Vports[p.name(i)], p.w.state.Vports[p.name(i+1)]
	payload := append([]byte{0x23, 0x28, 0x23, 0x28, 0xff, 0, 0, 0}, strings.Repeat(text, 1200/len(text))...)
	ip := []byte{0x45, 0, 0, 0, 0, 7, 0x20, 0, 64, 17, 0, 0}
	ip = append(append(ip, from.IPv4.AsSlice()...), to.IPv4.AsSlice()...)
	payload = payload[:len(payload)/8*8]
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(payload)))
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum>>16+sum&0xffff))
	frame := append(append(append(slices.Concat(to.MAC[:], from.MAC[:]), 8, 0), ip...), payload...)
	fd := p.raw(i)
	defer syscall.Close(fd)
	if _, err := syscall.Write(fd, frame); err != nil {
		p.t.Fatal(err)
	}
}

// raw is a socket of whole frames.
func (p *wire) raw(i int) (fd int) {
	p.t.Helper()
	if err := p.in(i, func() error {
		dev, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		all := uint16(syscall.ETH_P_ALL)
		all = all<<8 | all>>8
		if fd, err = syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW, int(all)); err != nil {
			return err
		}
		return syscall.Bind(fd, &syscall.SockaddrLinklayer{Protocol: all, Ifindex: dev.Index})
	}); err != nil {
		p.t.Fatal(err)
	}
	return fd
}

// sniff looks for bytes in all frames that a vport gets until stop is called.
func (p *wire) sniff(i int, what []byte, found chan<- bool) (stop func()) {
	p.t.Helper()
	fd := p.raw(i)
	tick := syscall.Timeval{Usec: 50_000}
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &tick); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer syscall.Close(fd)
		seen, buf := false, make([]byte, 4096)
		for {
			n, _, err := syscall.Recvfrom(fd, buf, 0)
			seen = seen || err == nil && bytes.Contains(buf[:n], what)
			select {
			case <-done:
				if err != nil { // nothing left
					found <- seen
					return
				}
			default:
			}
		}
	}()
	return func() { close(done) }
}

// counted is how many packets met a drop.
func (p *wire) counted(d Drop) (packets int) {
	out := p.ovs.Ofctl("dump-flows", bridge, fmt.Sprintf("table=%d", d.Table))
	for line := range strings.Lines(out) {
		if _, rest, ok := strings.Cut(line, "n_packets="); ok && strings.Contains(line, fmt.Sprintf("priority=%d ", d.Priority)) {
			var n int
			fmt.Sscan(strings.SplitN(rest, ",", 2)[0], &n)
			packets += n
		}
	}
	return packets
}
