package ovstest

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

// TestTuple sends real packets through connection tracking, since a trace only believes
// what it is told: the tuple is that of the first packet of the connection also in answers,
// and in ICMP errors of either direction, and an echo's ports are its type and code.
func TestTuple(t *testing.T) {
	o := Start(t)
	o.AddBridge("br0")
	o.AddPort("br0", "p1", 11)
	udp, echo := "ct_nw_src=10.0.0.1,ct_nw_dst=10.0.0.2,ct_nw_proto=17,ct_tp_src=1000,ct_tp_dst=53", "ct_nw_src=10.0.0.1,ct_nw_dst=10.0.0.2,ct_nw_proto=1,ct_tp_src=8,ct_tp_dst=0"
	o.Ofctl("add-flow", "br0", "table=0,ip,actions=ct(table=10,zone=5)")
	kinds := []string{"+new-rel-rpl,udp," + udp, "+est-rel+rpl,udp," + udp, "+rel+rpl,icmp," + udp, "+rel-rpl,icmp," + udp, "+new-rel,icmp," + echo, "+est+rpl,icmp," + echo}
	for _, k := range kinds {
		o.Ofctl("add-flow", "br0", "table=10,ct_state=+trk-inv"+k+",actions=ct(commit,zone=5)")
	}
	a, b := [4]byte{10, 0, 0, 1}, [4]byte{10, 0, 0, 2}
	port := func(from, to uint16) []byte {
		return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from), to)
	}
	datagram := func(src, dst [4]byte, from, to uint16) []byte {
		return ipv4(src, dst, 17, append(port(from, to), 0, 8, 0, 0)) // no checksum
	}
	there, back := datagram(a, b, 1000, 53), datagram(b, a, 53, 1000)
	for _, packet := range [][]byte{
		there, back, ipv4(b, a, 1, icmp(3, 3, there)), ipv4(a, b, 1, icmp(3, 3, back)),
		ipv4(a, b, 1, icmp(8, 0, nil)), ipv4(b, a, 1, icmp(0, 0, nil)),
	} {
		frame := append([]byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0}, packet...)
		o.Appctl("netdev-dummy/receive", "p1", hex.EncodeToString(frame))
	}
	var out string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) { // the switch counts with a delay
		if out = o.Ofctl("dump-flows", "br0", "table=10"); strings.Count(out, "n_packets=1,") == len(kinds) {
			return
		}
	}
	t.Errorf("not one packet for each flow:\n%s", out)
}

func ipv4(src, dst [4]byte, proto byte, payload []byte) []byte {
	h := []byte{0x45, 0, 0, byte(20 + len(payload)), 0, 1, 0, 0, 64, proto, 0, 0}
	h = append(append(h, src[:]...), dst[:]...)
	binary.BigEndian.PutUint16(h[10:], checksum(h))
	return append(h, payload...)
}

func icmp(kind, code byte, payload []byte) []byte {
	m := append([]byte{kind, code, 0, 0, 0, 0, 0, 0}, payload...)
	binary.BigEndian.PutUint16(m[2:], checksum(m))
	return m
}

// checksum is that of the internet, of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum + sum>>16)
}
