package agent

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"nuage/controller/tenant"
)

var clientSubnet = &tenant.Subnet{CIDR: netip.MustParsePrefix("10.0.0.0/24"), Gateway: gateway}

const (
	peerMAC   = "020000000009"
	clientMAC = "020000000007"
	routerMAC = "0a6e75616765"
)

// segment is a TCP segment of 4 bytes of data in a frame from src to dst.
func segment(macs, src, dst string, seq, ack uint32, flags byte) []byte {
	return unhex(macs + "0800" + "4500002c1234400040060000" + src + dst + "9c400050" +
		fmt.Sprintf("%08x%08x50%02x200000000000", seq, ack, flags) + "01020304")
}

// The answers, field by field, after RFC 9293, 3.10.7.
func TestReset(t *testing.T) {
	here, routed := peerMAC+clientMAC, peerMAC+routerMAC
	for name, c := range map[string]struct {
		frame        []byte
		macs         string
		seq, ack     uint32
		flags        byte
		nothing      bool
		spoof, alias bool
	}{
		"SYN":                 {frame: segment(here, "0a000007", "0a000109", 1000, 0, tcpSYN), macs: clientMAC + peerMAC, ack: 1005, flags: tcpRST | tcpACK},
		"SYN, routed":         {frame: segment(routed, "0a000007", "0a000109", 0xfffffffe, 0, tcpSYN), macs: clientMAC + routerMAC, ack: 3, flags: tcpRST | tcpACK},
		"data":                {frame: segment(here, "0a000007", "0a000109", 1000, 77, tcpACK), macs: clientMAC + peerMAC, seq: 77, flags: tcpRST},
		"FIN without ACK":     {frame: segment(here, "0a000007", "0a000109", 1000, 77, tcpFIN), macs: clientMAC + peerMAC, ack: 1005, flags: tcpRST | tcpACK},
		"SYN and ACK":         {frame: segment(here, "0a000007", "0a000109", 1000, 77, tcpSYN|tcpACK), macs: clientMAC + peerMAC, seq: 77, flags: tcpRST},
		"nothing":             {frame: segment(here, "0a000007", "0a000109", 1000, 77, 0), macs: clientMAC + peerMAC, ack: 1004, flags: tcpRST | tcpACK},
		"reset":               {frame: segment(here, "0a000007", "0a000109", 1000, 77, tcpRST), nothing: true},
		"reset and ACK":       {frame: segment(here, "0a000007", "0a000109", 1000, 77, tcpRST|tcpACK), nothing: true},
		"another's":           {frame: segment(here, "0a000008", "0a000109", 1000, 77, tcpSYN), nothing: true},
		"to all":              {frame: segment(here, "0a000007", "ffffffff", 1000, 77, tcpSYN), nothing: true},
		"to all of a subnet":  {frame: segment(here, "0a000007", "0a0000ff", 1000, 77, tcpSYN), nothing: true},
		"to many":             {frame: segment(here, "0a000007", "e0000001", 1000, 77, tcpSYN), nothing: true},
		"to all, by MAC":      {frame: segment("ffffffffffff"+clientMAC, "0a000007", "0a000109", 1000, 77, tcpSYN), nothing: true},
		"spoofed, as allowed": {frame: segment(here, "c0000201", "0a000109", 1000, 77, tcpACK), spoof: true, macs: clientMAC + peerMAC, seq: 77, flags: tcpRST},
		"virtual address":     {frame: segment(routed, "0a000063", "0a000109", 1000, 77, tcpACK), alias: true, macs: "020000000063" + routerMAC, seq: 77, flags: tcpRST},
	} {
		v := *client
		v.AddressSpoofing = c.spoof
		if c.alias {
			v.VirtualIPs = []tenant.VirtualIP{{IPv4: netip.MustParseAddr("10.0.0.99"), MAC: tenant.MAC{2, 0, 0, 0, 0, 0x63}}}
		}
		got := rejection(c.frame, &v, clientSubnet)
		if c.nothing {
			if got != nil {
				t.Errorf("%s: answered %x", name, got)
			}
			continue
		}
		src, dst := c.frame[26:30], c.frame[30:34]
		want := bytes.Join([][]byte{unhex(c.macs), unhex("0800" + "450000280000000040060000"), dst, src,
			c.frame[36:38], c.frame[34:36], binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, c.seq), c.ack),
			{0x50, c.flags, 0, 0, 0, 0, 0, 0}}, nil)
		if len(got) != len(want) {
			t.Errorf("%s: got %x", name, got)
			continue
		}
		if sum(got[14:34]) != 0xffff || sum(append(unhex("00060014"), got[26:54]...)) != 0xffff {
			t.Errorf("%s: checksums of %x", name, got)
		}
		copy(got[24:], []byte{0, 0})
		copy(got[50:], []byte{0, 0})
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got\n%x, want\n%x", name, got, want)
		}
	}
}

func sum(b []byte) (total uint32) {
	for i := 0; i+1 < len(b); i += 2 {
		total += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return total
}

// What is not TCP is answered with ICMP, from whom it was for.
func TestProhibited(t *testing.T) {
	frame := unhex(peerMAC + routerMAC + "0800" + "4500002c1234400040110000" + "0a000007" + "0a000109" + "9c40005000180000" + "01020304")
	got := rejection(frame, client, clientSubnet)
	if got == nil || !bytes.Equal(got[:12], unhex(clientMAC+routerMAC)) || !bytes.Equal(got[26:34], unhex("0a000109"+"0a000007")) ||
		!bytes.Equal(got[34:36], []byte{3, 13}) || !bytes.Equal(got[42:], frame[14:42]) || sum(got[34:]) != 0xffff {
		t.Errorf("got %x", got)
	}
	frame[14+9] = protocolICMP
	for kind, answered := range map[byte]bool{8: true, 0: true, 3: false, 11: false, 5: false} {
		frame[34] = kind
		if got := rejection(frame, client, clientSubnet); (got != nil) != answered {
			t.Errorf("ICMP type %d: answered %x", kind, got)
		}
	}
	frame[34], frame[20] = 8, 0x20
	if rejection(frame, client, clientSubnet) == nil {
		t.Error("a first fragment is not answered")
	}
	frame[21] = 9
	if got := rejection(frame, client, clientSubnet); got != nil {
		t.Errorf("a later fragment is answered: %x", got)
	}
}

// Whatever the switch hands over, nothing panics, and nobody else gets the answer.
func TestRejectionOfAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "frame")
		if len(f) > 30 && rapid.Bool().Draw(t, "mine") {
			f[12], f[13], f[14] = 8, 0, 0x40|f[14]&15
			copy(f[6:], client.MAC[:])
			copy(f[26:], client.IPv4.AsSlice())
			if rapid.Bool().Draw(t, "TCP") {
				f[23] = protocolTCP
			}
		}
		got := rejection(f, client, clientSubnet)
		if got != nil && (!bytes.Equal(got[:6], client.MAC[:]) || !bytes.Equal(got[30:34], client.IPv4.AsSlice())) {
			t.Fatalf("%x", got)
		}
	})
}
