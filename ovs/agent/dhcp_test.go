package agent

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"nuage/controller/tenant"
	"nuage/ovs/flow"
	"nuage/ovs/openflow"
	"nuage/ovs/pipeline"
)

var machineMAC = tenant.MAC{2, 0, 0, 0, 0, 7}

func machine() asker {
	return asker{
		vport:  tenant.Vport{Meta: tenant.Meta{ID: "v7"}, Name: "web-v7", MAC: machineMAC, IPv4: netip.MustParseAddr("10.0.0.7")},
		subnet: tenant.Subnet{CIDR: netip.MustParsePrefix("10.0.0.0/16"), Gateway: netip.MustParseAddr("10.0.0.1")},
	}
}

// question is a client's frame.
func question(kind dhcpv4.MessageType, changes ...dhcpv4.Modifier) []byte {
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(machineMAC[:]), dhcpv4.WithTransactionID(dhcpv4.TransactionID{1, 2, 3, 4}),
		dhcpv4.WithMessageType(kind)}, changes...)...)
	if err != nil {
		panic(err)
	}
	return framed(m.ToBytes())
}

// framed is a message on its way from a client without an address.
func framed(message []byte) []byte {
	b := append([]byte{255, 255, 255, 255, 255, 255}, machineMAC[:]...)
	b = append(b, 8, 0, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(28+len(message)))
	b = append(b, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 68, 0, 67)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(message)))
	return append(append(b, 0, 0), message...)
}

// opened is the message in an answer, whose headers and checksums must be right.
func opened(t testing.TB, frame []byte) (to string, m *dhcpv4.DHCPv4) {
	t.Helper()
	sum := func(b []byte) (s uint32) {
		for i := 0; i+1 < len(b); i += 2 {
			s += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		if len(b)%2 == 1 {
			s += uint32(b[len(b)-1]) << 8
		}
		for s > 0xffff {
			s = s>>16 + s&0xffff
		}
		return s
	}
	ip := frame[14:34]
	udp := frame[34:]
	pseudo := append(append(bytes.Clone(ip[12:20]), 0, 17), udp[4:6]...)
	switch {
	case sum(ip) != 0xffff || sum(append(pseudo, udp...)) != 0xffff:
		t.Fatalf("checksums %#x %#x in %x", sum(ip), sum(append(pseudo, udp...)), frame)
	case int(binary.BigEndian.Uint16(ip[2:])) != len(frame)-14 || int(binary.BigEndian.Uint16(udp[4:])) != len(udp):
		t.Fatalf("lengths in %x", frame)
	case !bytes.Equal(frame[6:12], tenant.GatewayMAC[:]) || netip.AddrFrom4([4]byte(ip[12:16])).String() != "10.0.0.1" || !bytes.Equal(udp[:4], []byte{0, 67, 0, 68}):
		t.Fatalf("not from the gateway: %x", frame)
	}
	m, err := dhcpv4.FromBytes(udp[8:])
	if err != nil || m.OpCode != dhcpv4.OpcodeBootReply || m.TransactionID != (dhcpv4.TransactionID{1, 2, 3, 4}) || !bytes.Equal(m.ClientHWAddr, machineMAC[:]) {
		t.Fatalf("%v: %v", err, m)
	}
	return fmt.Sprint(tenant.MAC(frame[:6]), " ", netip.AddrFrom4([4]byte(ip[16:20]))), m
}

func TestDHCP(t *testing.T) {
	addr := func(s string) net.IP { return net.ParseIP(s).To4() }
	server := func(s string) dhcpv4.Modifier { return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(addr(s))) }
	wants := func(s string) dhcpv4.Modifier {
		return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(addr(s)))
	}
	has := func(s string) dhcpv4.Modifier { return dhcpv4.WithClientIP(addr(s)) }
	const (
		discover = dhcpv4.MessageTypeDiscover
		request  = dhcpv4.MessageTypeRequest
		offer    = dhcpv4.MessageTypeOffer
		ack      = dhcpv4.MessageTypeAck
		nak      = dhcpv4.MessageTypeNak
		none     = dhcpv4.MessageTypeNone
		unicast  = "02:00:00:00:00:07 10.0.0.7"
		all      = "ff:ff:ff:ff:ff:ff 255.255.255.255"
	)
	for _, c := range []struct {
		what string
		ask  []byte
		kind dhcpv4.MessageType
		to   string
		yours,
		told string
	}{
		{"discover", question(discover), offer, unicast, "10.0.0.7", ""},
		{"discover, deaf to unicast", question(discover, dhcpv4.WithBroadcast(true)), offer, all, "10.0.0.7", ""},
		{"discover, with a wish", question(discover, wants("10.0.0.99")), offer, unicast, "10.0.0.7", ""},
		{"selecting", question(request, server("10.0.0.1"), wants("10.0.0.7")), ack, unicast, "10.0.0.7", "v7"},
		{"selecting another address", question(request, server("10.0.0.1"), wants("10.0.0.8")), nak, all, "0.0.0.0", ""},
		{"selecting another server", question(request, server("10.0.0.2"), wants("10.0.0.7")), none, "", "", ""},
		{"starting again", question(request, wants("10.0.0.7")), ack, unicast, "10.0.0.7", "v7"},
		{"starting again elsewhere", question(request, wants("192.168.1.5")), nak, all, "0.0.0.0", ""},
		{"renewing", question(request, has("10.0.0.7")), ack, unicast, "10.0.0.7", "v7"},
		{"renewing, deaf to unicast", question(request, has("10.0.0.7"), dhcpv4.WithBroadcast(true)), ack, unicast, "10.0.0.7", "v7"},
		{"renewing what it has not", question(request, has("10.0.0.8")), nak, all, "0.0.0.0", ""},
		{"request of nothing", question(request), none, "", "", ""},
		{"inform", question(dhcpv4.MessageTypeInform, has("10.0.0.7")), ack, unicast, "0.0.0.0", "v7"},
		{"inform without an address", question(dhcpv4.MessageTypeInform), none, "", "", ""},
		{"release", question(dhcpv4.MessageTypeRelease, has("10.0.0.7"), server("10.0.0.1")), none, "", "", ""},
		{"decline", question(dhcpv4.MessageTypeDecline, wants("10.0.0.7"), server("10.0.0.1")), none, "", "", "v7 declined"},
		{"decline of another address", question(dhcpv4.MessageTypeDecline, wants("10.0.0.8"), server("10.0.0.1")), none, "", "", ""},
		{"decline of another server's", question(dhcpv4.MessageTypeDecline, wants("10.0.0.7"), server("10.0.0.2")), none, "", "", ""},
		{"decline of nothing", question(dhcpv4.MessageTypeDecline), none, "", "", ""},
		{"an answer", question(offer), none, "", "", ""},
		{"another's hardware address", question(discover, dhcpv4.WithHwAddr(net.HardwareAddr{2, 0, 0, 0, 0, 8})), none, "", "", ""},
		{"no hardware address", question(discover, dhcpv4.WithHwAddr(nil)), none, "", "", ""},
		{"a relay", question(discover, dhcpv4.WithRelay(addr("10.0.0.7"))), none, "", "", ""},
		{"a server", question(discover, func(m *dhcpv4.DHCPv4) { m.OpCode = dhcpv4.OpcodeBootReply }), none, "", "", ""},
		{"no type", question(discover, dhcpv4.WithoutOption(dhcpv4.OptionDHCPMessageType)), none, "", "", ""},
	} {
		told := ""
		a := New(Config{Feed: tenant.NewFeed(), Log: quiet(), DHCP: DHCP{MTU: func(v tenant.Vport) int { return 1450 }, DNS: []netip.Addr{netip.MustParseAddr("10.9.9.9")},
			Told: func(id string, declined bool) {
				if told = id; declined {
					told += " declined"
				}
			}}})
		frame := a.answerDHCP(c.ask, machine())
		if told != c.told {
			t.Errorf("%s: told %q, want %q", c.what, told, c.told)
		}
		if frame == nil {
			if c.kind != none {
				t.Errorf("%s: no answer", c.what)
			}
			continue
		}
		to, m := opened(t, frame)
		if m.MessageType() != c.kind || to != c.to || m.YourIPAddr.String() != c.yours || m.ServerIdentifier().String() != "10.0.0.1" {
			t.Errorf("%s: to %s: %s", c.what, to, m.Summary())
			continue
		}
		if c.kind == nak {
			continue
		}
		mtu := m.Options.Get(dhcpv4.OptionInterfaceMTU)
		lease := m.IPAddressLeaseTime(0)
		if m.SubnetMask().String() != "ffff0000" || fmt.Sprint(m.Router()) != "[10.0.0.1]" || fmt.Sprint(m.DNS()) != "[10.9.9.9]" ||
			!bytes.Equal(mtu, []byte{0x05, 0xaa}) || lease != 24*time.Hour && c.what != "inform" || lease != 0 && c.what == "inform" {
			t.Errorf("%s: %s", c.what, m.Summary())
		}
	}
}

// What is not known is not told, what is asked for is.
func TestDHCPOptions(t *testing.T) {
	a := New(Config{Feed: tenant.NewFeed(), Log: quiet()})
	options := func(who asker, changes ...dhcpv4.Modifier) dhcpv4.Options {
		_, m := opened(t, a.answerDHCP(question(dhcpv4.MessageTypeDiscover, changes...), who))
		return m.Options
	}
	o := options(machine())
	if o.Has(dhcpv4.OptionInterfaceMTU) || o.Has(dhcpv4.OptionDomainNameServer) || o.Has(dhcpv4.OptionClasslessStaticRoute) || !o.Has(dhcpv4.OptionRouter) {
		t.Errorf("options %v", o)
	}
	o = options(machine(), dhcpv4.WithRequestedOptions(dhcpv4.OptionClasslessStaticRoute), dhcpv4.WithGeneric(dhcpv4.OptionClientIdentifier, []byte("me")))
	if got := o.Get(dhcpv4.OptionClasslessStaticRoute); !bytes.Equal(got, []byte{0, 10, 0, 0, 1}) {
		t.Errorf("routes %x", got)
	}
	if got := o.Get(dhcpv4.OptionClientIdentifier); string(got) != "me" {
		t.Errorf("client %q", got)
	}
	inside := machine()
	inside.enclosed = true
	o = options(inside, dhcpv4.WithRequestedOptions(dhcpv4.OptionClasslessStaticRoute))
	if o.Has(dhcpv4.OptionClasslessStaticRoute) || o.Has(dhcpv4.OptionRouter) {
		t.Errorf("a way out of a network without one: %v", o)
	}
}

func TestMalformedDHCP(t *testing.T) {
	good := question(dhcpv4.MessageTypeDiscover)
	if readDHCP(good) == nil {
		t.Fatal("a good question is not read")
	}
	change := func(at int, b ...byte) []byte {
		f := bytes.Clone(good)
		copy(f[at:], b)
		return f
	}
	for what, frame := range map[string][]byte{
		"empty": nil, "no message": good[:42], "cut short": good[:len(good)-1], "IPv6": change(12, 0x86, 0xdd), "version": change(14, 0x65),
		"short header": change(14, 0x44), "long header": change(14, 0x4f), "total length": change(16, 255, 255), "no total length": change(16, 0, 20),
		"TCP": change(23, 6), "fragment": change(20, 0x20), "later fragment": change(20, 0, 1), "to a client": change(34, 0, 67, 0, 68),
		"length of UDP": change(38, 255, 255), "no length of UDP": change(38, 0, 7), "no cookie": change(42+236, 0),
		"option that runs out": change(42+240, 53, 200), "no end": framed(append(bytes.Clone(good[42:42+240]), 53, 1, 1)),
	} {
		if m := readDHCP(frame); m != nil {
			t.Errorf("%s: read as %v", what, m)
		}
	}
}

// Whatever a vport sends, nothing panics, and what is answered is a sound frame to the
// vport.
func FuzzDHCP(f *testing.F) {
	for _, kind := range []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeInform, dhcpv4.MessageTypeDecline} {
		f.Add(question(kind, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(net.IP{10, 0, 0, 7}))))
	}
	f.Add(question(dhcpv4.MessageTypeRequest, dhcpv4.WithGeneric(dhcpv4.OptionServerIdentifier, []byte{10, 0}), dhcpv4.WithRequestedOptions(dhcpv4.OptionClasslessStaticRoute)))
	f.Add(question(dhcpv4.MessageTypeDiscover)[:100])
	a := New(Config{Feed: tenant.NewFeed(), Log: quiet(), DHCP: DHCP{MTU: func(tenant.Vport) int { return 1450 }}})
	f.Fuzz(func(t *testing.T, frame []byte) {
		answer := a.answerDHCP(frame, machine())
		if answer == nil {
			return
		}
		if to := tenant.MAC(answer[:6]); to != machineMAC && to != (tenant.MAC{255, 255, 255, 255, 255, 255}) {
			t.Errorf("answered to %v", to)
		}
		if _, err := dhcpv4.FromBytes(answer[42:]); err != nil {
			t.Errorf("%v in %x", err, answer)
		}
	})
}

// The port says who asks, and the answer leaves by it; strangers get none.
func TestDHCPByPort(t *testing.T) {
	m, feed := newMemory(), tenant.NewFeed()
	m.port("nu7", 7)
	m.port("nu8", 8)
	m.port("strange", 9)
	feed.Publish(1, append(base(), vport(7, "nu7"), vport(8, "nu8"))...)
	a, _ := start(t, Config{Feed: feed, Switch: m})
	eventually(t, 5*time.Second, func() string {
		if err := a.Status().Err; err != nil {
			return err.Error()
		}
		return m.wrong(feed)
	})
	ask := question(dhcpv4.MessageTypeDiscover, dhcpv4.WithHwAddr([]byte{2, 0, 0, 0, 0, 7}))
	for _, port := range []uint64{8, 9, 7} { // of which the last alone is the vport's
		m.packets <- openflow.PacketIn{Packet: ask, UserData: pipeline.DHCP, Metadata: flow.NewMatch(flow.Eq(flow.InPort, port))}
	}
	eventually(t, 5*time.Second, func() string {
		if m.sentTo(flow.Output{Port: 7}) == 0 {
			return "no answer"
		}
		return ""
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sent {
		if slices.ContainsFunc(s.actions, func(a flow.Action) bool {
			return strings.Contains(fmt.Sprintf("%+v", a), "Port:8") || strings.Contains(fmt.Sprintf("%+v", a), "Port:9")
		}) {
			t.Errorf("answered %+v", s.actions)
		}
	}
}
