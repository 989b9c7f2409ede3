package agent

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nuage/controller/tenant"
	"nuage/ovs/flow"
	"nuage/ovs/openflow"
	"nuage/ovs/pipeline"
)

var (
	client  = &tenant.Vport{MAC: tenant.MAC{2, 0, 0, 0, 0, 7}, IPv4: netip.MustParseAddr("10.0.0.7")}
	gateway = netip.MustParseAddr("10.0.0.1")
)

// The answer, byte by byte.
func TestICMPError(t *testing.T) {
	frame := append([]byte{0x02, 0, 0, 0, 0, 9, 0x0a, 0x6e, 0x75, 0x61, 0x67, 0x65, 8, 0}, unhex("450005dc1234400040060000"+"0a000007"+"0a000109"+"9c40005000000001")...)
	got := icmpError(frame, client, gateway, fragmentationNeeded, 1350)
	want := "020000000007" + "0a6e75616765" + "0800" +
		"45c00038000000004001" + "65fe" + "0a000001" + "0a000007" +
		"0304" + "%04x" + "0000" + "0546" +
		"450005dc1234400040060000" + "0a000007" + "0a000109" + "9c40005000000001"
	// A message with its checksum in place sums up to nothing.
	message := got[34:]
	sum := binary.BigEndian.Uint16(message[2:])
	if h := hex.EncodeToString(got); h != fmt.Sprintf(want, sum) {
		t.Errorf("got  %s\nwant %s", h, fmt.Sprintf(want, sum))
	}
	for name, b := range map[string][]byte{"IPv4": got[14:34], "ICMP": message} {
		total := uint32(0)
		for i := 0; i < len(b); i += 2 {
			total += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		if total = total>>16 + total&0xffff; total != 0xffff {
			t.Errorf("checksum of %s: %#x", name, total)
		}
	}
}

func unhex(s string) []byte { b, _ := hex.DecodeString(s); return b }

func TestNoICMPError(t *testing.T) {
	good := append(make([]byte, 12), append([]byte{8, 0}, unhex("450005dc1234000040060000"+"0a000007"+"0a000109"+"9c40005000000001")...)...)
	change := func(at int, b ...byte) []byte {
		f := bytes.Clone(good)
		copy(f[at:], b)
		return f
	}
	if icmpError(good, client, gateway, timeExceeded, 0) == nil {
		t.Fatal("no answer to a good packet")
	}
	for name, f := range map[string][]byte{
		"empty": nil, "no payload": good[:34], "short payload": good[:41], "IPv6": change(12, 0x86, 0xdd),
		"version": change(14, 0x65), "short header": change(14, 0x44), "options that are not there": change(14, 0x4f),
		"another's address": change(26, 10, 0, 0, 8), "later fragment": change(20, 0, 9),
		"ICMP error": change(23, 1, 0, 0, 10, 0, 0, 7, 10, 0, 1, 9, 3, 4),
	} {
		if got := icmpError(f, client, gateway, timeExceeded, 0); got != nil {
			t.Errorf("%s: answered %x", name, got)
		}
	}
	if icmpError(good, client, netip.Addr{}, timeExceeded, 0) != nil {
		t.Error("answered from no address")
	}
	if icmpError(change(23, 1, 0, 0, 10, 0, 0, 7, 10, 0, 1, 9, 8, 0), client, gateway, timeExceeded, 0) == nil {
		t.Error("an echo is not answered")
	}
}

// Whatever the switch hands over, nothing panics, and an answer is for the vport.
func TestICMPErrorOfAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "frame")
		if len(f) > 30 && rapid.Bool().Draw(t, "mine") {
			f[12], f[13], f[14] = 8, 0, 0x40|f[14]&15
			copy(f[26:], client.IPv4.AsSlice())
		}
		if got := icmpError(f, client, gateway, timeExceeded, 0); got != nil && !bytes.Equal(got[:6], client.MAC[:]) {
			t.Fatalf("%x", got)
		}
	})
}

func TestBucket(t *testing.T) {
	p := pace{atOnce: 20, perSecond: 30}
	b, now, given := bucket{}, time.Unix(1000, 0), 0
	for range 1000 {
		if b.take(p, now) {
			given++
		}
	}
	if given != 20 {
		t.Errorf("%d at once", given)
	}
	for range 1000 {
		now = now.Add(10 * time.Millisecond)
		if b.take(p, now) {
			given++
		}
	}
	if want := 20 + 10*30; given < want-1 || given > want+1 {
		t.Errorf("%d in ten seconds, want %d", given, want)
	}
}

// sentTo are the packets that left by an action.
func (m *memory) sentTo(a flow.Action) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sent {
		for _, b := range s.actions {
			if flow.EqualActions([]flow.Action{a}, []flow.Action{b}) {
				n++
			}
		}
	}
	return n
}

func setVTEP(vtep string) flow.Action {
	return flow.SetField{FieldMatch: flow.EqIP(flow.TunDst, netip.MustParseAddr(vtep))}
}

// A VTEP is primed some times when it becomes known, again on another switch, and not
// otherwise.
func TestPriming(t *testing.T) {
	m, feed := newMemory(), tenant.NewFeed()
	m.port("nuage-vxlan", 77)
	feed.Publish(1, base()...)
	start(t, Config{Feed: feed, Switch: m})
	expect := func(vtep string, want int) {
		t.Helper()
		eventually(t, 15*time.Second, func() string {
			if got := m.sentTo(setVTEP(vtep)); got != want {
				return fmt.Sprintf("%s: primed %d times, want %d", vtep, got, want)
			}
			return ""
		})
	}
	expect("192.0.2.2", primeTimes)
	for r := int64(2); r < 50; r++ {
		feed.Publish(r, vport(int(r), ""))
	}
	feed.Publish(60, knownHost("host-2", "192.0.2.3"))
	expect("192.0.2.3", primeTimes)
	expect("192.0.2.2", primeTimes)
	m.do(func() { m.down = true })
	m.reboot()
	m.do(func() { m.down = false })
	expect("192.0.2.3", 2*primeTimes)
	expect("192.0.2.2", primeTimes)
	if n := m.sentTo(flow.Output{Port: 77}); n != 3*primeTimes {
		t.Errorf("%d packets by the tunnel's port", n)
	}
}

// What flows send here is answered out of the port that it came from, no more often than is
// good.
func TestAnswers(t *testing.T) {
	m, feed := newMemory(), tenant.NewFeed()
	m.port("nu7", 7)
	m.port("nu8", 8)
	feed.Publish(1, append(base(), vport(7, "nu7"), vport(8, "nu8"))...)
	a, _ := start(t, Config{Feed: feed, Switch: m})
	eventually(t, 5*time.Second, func() string { return m.wrong(feed) })
	eventually(t, 5*time.Second, func() string {
		if err := a.Status().Err; err != nil {
			return err.Error()
		}
		return ""
	})
	frame := append(make([]byte, 12), append([]byte{8, 0}, unhex("450005dc1234000040060000"+"0a000007"+"0a000109"+"9c40005000000001")...)...)
	packet := func(port uint64, data string) {
		m.packets <- openflow.PacketIn{Packet: frame, UserData: data, Metadata: flow.NewMatch(flow.Eq(flow.InPort, port))}
	}
	large := pipeline.TooLarge + "\x05\x46"
	for range 60 {
		packet(7, large)
	}
	packet(8, large) // another's packet
	packet(9, large) // nobody's port
	packet(8, "mtu")
	packet(8, "??")
	m.packets <- openflow.PacketIn{Packet: frame, UserData: large}
	packet(7, pipeline.Expired)
	eventually(t, 5*time.Second, func() string {
		if len(m.packets) > 0 {
			return "packets are left"
		}
		return ""
	})
	if n := m.sentTo(flow.Output{Port: 7}); n < int(answersPerVport.atOnce) || n > int(answersPerVport.atOnce)+20 {
		t.Errorf("%d answers to port 7", n)
	}
	if n := m.sentTo(flow.Output{Port: 8}) + m.sentTo(flow.Output{Port: 9}); n != 0 {
		t.Errorf("%d answers to those who sent nothing", n)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if got := m.sent[0].packet; !bytes.Equal(got[34:36], []byte{3, 4}) || binary.BigEndian.Uint16(got[40:]) != 1350 {
		t.Errorf("answered %x", got)
	}
}
