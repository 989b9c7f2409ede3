package agent

import (
	"bytes"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"nuage/controller/tenant"
)

// DHCP is what answers to DHCP tell beside a vport's address, mask and gateway, and who
// hears of them.
type DHCP struct {
	// DNS are the name servers, none if empty.
	DNS []netip.Addr
	// MTU is a vport's; nil or 0 tells none.
	MTU func(tenant.Vport) int
	// Told is called with each vport that was given its address, or that declined it because
	// somebody else seems to have it. It must not wait.
	Told func(vportID string, declined bool)
}

// leaseTime is how long a client may go without asking again. The address is the vport's
// for as long as that is there, so this is only how soon a change is noticed.
const leaseTime = 24 * time.Hour

// asker is a vport that asks, with what an answer is made of.
type asker struct {
	vport  tenant.Vport
	subnet tenant.Subnet
	zone   uint16 // of connection tracking, its domain's
	// enclosed is a vport of a network without a way out of its subnet.
	enclosed bool
}

// answerDHCP is the frame that answers what a vport asked of DHCP; nil for none. The vport
// has its address from the state, and so nothing is kept of what was offered.
func (a *Agent) answerDHCP(frame []byte, who asker) []byte {
	ask := readDHCP(frame)
	if ask == nil || !who.asks(ask) {
		return nil
	}
	kind := who.answer(ask)
	declined := who.declines(ask)
	if declined {
		a.conf.Log.WithFields(map[string]any{"vport": who.vport.Name, "address": who.vport.IPv4, "mac": who.vport.MAC}).
			Debug("the address was declined: its vport says that somebody else has it")
	}
	if told := a.conf.DHCP.Told; told != nil && (declined || kind == dhcpv4.MessageTypeAck) {
		told(who.vport.ID, declined)
	}
	if kind == dhcpv4.MessageTypeNone {
		return nil
	}
	reply, err := dhcpv4.NewReplyFromRequest(ask, append(who.facts(ask, kind, a.conf.DHCP), dhcpv4.WithMessageType(kind),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(netIP(who.subnet.Gateway))))...)
	if err != nil { // no random number for an ID that is replaced
		a.conf.Log.WithError(err).Error("no answer to DHCP")
		return nil
	}
	return who.frame(reply)
}

// asks tells whether a message is a question of the vport's own. The switch has seen to
// source MAC, source address and port.
func (who asker) asks(ask *dhcpv4.DHCPv4) bool {
	return ask.OpCode == dhcpv4.OpcodeBootRequest && ask.HWType == iana.HWTypeEthernet &&
		bytes.Equal(ask.ClientHWAddr, who.vport.MAC[:]) && !given(ask.GatewayIPAddr).IsValid()
}

// elsewhere tells whether a message is for another server, which it names.
func (who asker) elsewhere(ask *dhcpv4.DHCPv4) bool {
	server := given(ask.ServerIdentifier())
	return server.IsValid() && server != who.subnet.Gateway
}

// declines tells whether the client says that somebody else has its address.
func (who asker) declines(ask *dhcpv4.DHCPv4) bool {
	return ask.MessageType() == dhcpv4.MessageTypeDecline && !who.elsewhere(ask) && given(ask.RequestedIPAddress()) == who.vport.IPv4
}

// answer is the kind of answer, RFC 2131 §4.3, for a client whose server and address are
// never in doubt.
func (who asker) answer(ask *dhcpv4.DHCPv4) dhcpv4.MessageType {
	if who.elsewhere(ask) {
		return dhcpv4.MessageTypeNone
	}
	has := given(ask.ClientIPAddr)
	switch ask.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		return dhcpv4.MessageTypeOffer
	case dhcpv4.MessageTypeRequest:
		if !has.IsValid() { // selecting, or starting with the address of another time
			has = given(ask.RequestedIPAddress())
		}
		switch has {
		case netip.Addr{}:
			return dhcpv4.MessageTypeNone
		case who.vport.IPv4:
			return dhcpv4.MessageTypeAck
		}
		return dhcpv4.MessageTypeNak
	case dhcpv4.MessageTypeInform:
		if has == who.vport.IPv4 {
			return dhcpv4.MessageTypeAck
		}
	}
	return dhcpv4.MessageTypeNone
}

// facts are the fields and options of an answer.
func (who asker) facts(ask *dhcpv4.DHCPv4, kind dhcpv4.MessageType, conf DHCP) []dhcpv4.Modifier {
	if kind == dhcpv4.MessageTypeNak {
		return []dhcpv4.Modifier{dhcpv4.WithBroadcast(true)}
	}
	facts := []dhcpv4.Modifier{
		dhcpv4.WithNetmask(net.CIDRMask(who.subnet.CIDR.Bits(), 32)),
	}
	if kind == dhcpv4.MessageTypeAck {
		facts = append(facts, dhcpv4.WithClientIP(ask.ClientIPAddr))
	}
	if ask.MessageType() != dhcpv4.MessageTypeInform {
		facts = append(facts, dhcpv4.WithYourIP(netIP(who.vport.IPv4)), dhcpv4.WithLeaseTime(uint32(leaseTime.Seconds())))
	}
	if !who.enclosed {
		gateway := netIP(who.subnet.Gateway)
		facts = append(facts, dhcpv4.WithRouter(gateway))
		if ask.ParameterRequestList().Has(dhcpv4.OptionClasslessStaticRoute) {
			// A client that asks for these uses nothing else (RFC 3442).
			facts = append(facts, dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(
				&dhcpv4.Route{Dest: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, Router: gateway})))
		}
	}
	if len(conf.DNS) > 0 {
		servers := make([]net.IP, len(conf.DNS))
		for i, s := range conf.DNS {
			servers[i] = netIP(s)
		}
		facts = append(facts, dhcpv4.WithDNS(servers...))
	}
	if conf.MTU != nil {
		if mtu := conf.MTU(who.vport); mtu > 0 {
			facts = append(facts, dhcpv4.WithOption(dhcpv4.Option{Code: dhcpv4.OptionInterfaceMTU, Value: dhcpv4.Uint16(mtu)}))
		}
	}
	return facts
}

func netIP(a netip.Addr) net.IP { return a.AsSlice() }

// given is an address of a message; not valid for one that is absent, malformed or 0.0.0.0.
func given(address net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(address.To4())
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}
