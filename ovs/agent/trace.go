package agent

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"nuage/controller/tenant"
	"nuage/ovs"
	"nuage/ovs/flow"
	"nuage/ovs/pipeline"
)

// Tracer is a switch that says what it would do: an *ovs.Bridge.
type Tracer interface {
	Ports() map[string]ovs.Port
	// Trace is ofproto/trace's text about a packet. Each of states is what connection
	// tracking finds, in order.
	Trace(ctx context.Context, packet string, states ...string) (string, error)
}

// Traced is what a switch would do with a packet.
type Traced struct {
	Decision tenant.Decision
	// Reason of a drop; empty for one that no counter is for.
	Reason tenant.Reason
	// Port is the name of the port of this host that it is delivered to; empty if it goes to
	// another host, whose VTEP is then valid.
	Port string
	VTEP netip.Addr
	// Flows are those that it met, as ovs-vswitchd prints them.
	Flows []string
}

// Trace asks the switch of a host what becomes of an IPv4 packet that a vport sends to
// another. The packet is as it is sent; where the sender is on another host, the switch is
// asked as if the packet came out of the tunnel. Nothing is sent, and no counter moves.
func Trace(ctx context.Context, sw Tracer, s *tenant.State, host string, from, to *tenant.Vport, p tenant.Packet) (Traced, error) {
	if p.EtherType != tenant.EtherIPv4 || p.Tagged || !p.Src.Is4() || !p.Dst.Is4() {
		return Traced{}, fmt.Errorf("trace: no IPv4 packet from %s to %s", p.Src, p.Dst)
	}
	ports := sw.Ports()
	var packet string
	switch {
	case from.Host == host:
		port, there := ports[from.Interface]
		if !there {
			return Traced{}, fmt.Errorf("trace: vport %s: the switch has no port %q", from.Name, from.Interface)
		}
		packet = traceFlow(port.OFPort, p)
	case to != nil && to.Host == host:
		subnet, sender := s.Subnets[to.SubnetID], s.Hosts[from.Host]
		if subnet == nil || sender == nil || !sender.VTEP.IsValid() {
			return Traced{}, fmt.Errorf("trace: vport %s: host %s has no VTEP to come from", from.Name, from.Host)
		}
		packet = fmt.Sprintf("%s,tun_src=%s,tun_id=%d", traceFlow(ports[ovs.TunnelPort].OFPort, routed(p, to)), sender.VTEP, subnet.VNI)
	default:
		return Traced{}, fmt.Errorf("trace: neither vport %s nor the receiver is on host %s", from.Name, host)
	}
	state := "trk,new"
	if p.Track == tenant.TrackNone {
		state = "trk,inv"
	}
	text, err := sw.Trace(ctx, packet, state)
	if err != nil {
		return Traced{}, fmt.Errorf("trace: %w", err)
	}
	t, number, err := readTrace(text)
	if err != nil {
		return t, err
	}
	for name, port := range ports {
		if number != 0 && port.OFPort == number {
			t.Port = name
		}
	}
	return t, nil
}

// routed is the packet as the sender's host puts it into the tunnel.
func routed(p tenant.Packet, to *tenant.Vport) tenant.Packet {
	mac := to.MAC
	for _, vip := range to.VirtualIPs {
		if vip.IPv4 == p.Dst && !vip.MAC.IsZero() {
			mac = vip.MAC
		}
	}
	if p.EthDst == tenant.GatewayMAC {
		p.EthSrc, p.TTL = tenant.GatewayMAC, p.TTL-1
	}
	p.EthDst = mac
	return p
}

// traceFlow is an IPv4 packet in ovs-ofctl's words. With the first of a connection that can
// be tracked comes what connection tracking will say of it: ofproto/trace asks no
// conntrack, and takes these fields only with a state that they can have.
func traceFlow(port uint32, p tenant.Packet) string {
	text := fmt.Sprintf("in_port=%d,dl_src=%s,dl_dst=%s,ip,nw_proto=%d,nw_src=%s,nw_dst=%s,nw_ttl=%d,nw_tos=%d",
		port, p.EthSrc, p.EthDst, p.Protocol, p.Src, p.Dst, p.TTL, p.DSCP<<2)
	src, dst := p.SrcPort, p.DstPort
	switch proto := tenant.Protocol(p.Protocol); {
	case proto == tenant.ICMP:
		text += fmt.Sprintf(",icmp_type=%d,icmp_code=%d", p.ICMPType, p.ICMPCode)
		src, dst = uint16(p.ICMPType), uint16(p.ICMPCode)
	case proto.HasPorts():
		text += fmt.Sprintf(",%s_src=%d,%s_dst=%d", proto, src, proto, dst)
	}
	if !tenant.Protocol(p.Protocol).Tracked() || p.Track == tenant.TrackNone {
		return text
	}
	return text + fmt.Sprintf(",ct_state=trk|new,ct_nw_src=%s,ct_nw_dst=%s,ct_nw_proto=%d,ct_tp_src=%d,ct_tp_dst=%d", p.Src, p.Dst, p.Protocol, src, dst)
}

var (
	traceStep   = regexp.MustCompile(`(?m)^\s*(\d+)\. (.*priority (\d+).*)$`)
	traceMiss   = regexp.MustCompile(`(?m)^\s*\d+\. (?:.*, )?No match`)
	traceActual = regexp.MustCompile(`(?m)^Datapath actions: (.*)$`)
	traceBack   = regexp.MustCompile(`(?m)^\s+IN_PORT$`)
	traceVTEP   = regexp.MustCompile(`TUN_IPV4_DST\[\] is now ([0-9.]+)`)
	traceOutput = regexp.MustCompile(`output port is (\d+)`)
)

// readTrace reads what ofproto/trace prints, and the number of the port of this host that
// the packet leaves by, 0 for none.
func readTrace(text string) (t Traced, port uint32, err error) {
	var table, priority int
	for _, m := range traceStep.FindAllStringSubmatch(text, -1) {
		table, _ = strconv.Atoi(m[1])
		priority, _ = strconv.Atoi(m[3])
		t.Flows = append(t.Flows, m[1]+". "+strings.TrimSpace(m[2]))
	}
	actual := traceActual.FindAllStringSubmatch(text, -1)
	if len(actual) == 0 || len(t.Flows) == 0 {
		return t, 0, fmt.Errorf("trace: no decision in what ovs-vswitchd says: %.200q", text)
	}
	did := actual[len(actual)-1][1]
	vtep, out := traceVTEP.FindStringSubmatch(text), traceOutput.FindAllStringSubmatch(text, -1)
	switch {
	case did == "drop", onlyTold(did), traceMiss.MatchString(text):
		t.Decision, t.Reason = tenant.Dropped, traceReason(flow.Table(table), uint16(priority))
	case traceBack.MatchString(text):
		t.Decision = tenant.Answered
	case vtep != nil:
		t.Decision = tenant.Delivered
		t.VTEP, err = netip.ParseAddr(vtep[1])
	case out != nil:
		var n uint64
		n, err = strconv.ParseUint(out[len(out)-1][1], 10, 32)
		t.Decision, port = tenant.Delivered, uint32(n)
	default:
		err = fmt.Errorf("trace: neither output nor drop: %s", did)
	}
	return t, port, err
}

// onlyTold is whether the datapath's actions do nothing but tell the agent, at a bounded
// rate or not, of a packet that may have been rewritten before.
func onlyTold(actions string) bool {
	depth, start := 0, 0
	for i, c := range actions + "," {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			a := actions[start:i]
			told := strings.Contains(a, "controller(") && (strings.HasPrefix(a, "userspace(") || strings.HasPrefix(a, "sample("))
			if !told && !strings.HasPrefix(a, "set(") {
				return false
			}
			start = i + 1
		}
	}
	return true
}

// traceReason is why the flow drops at which a trace ends.
func traceReason(table flow.Table, priority uint16) tenant.Reason {
	switch {
	case table >= pipeline.TableIngressPolicy && table < pipeline.TableEgressPolicy:
		return tenant.ReasonIngressPolicy
	case table >= pipeline.TableEgressPolicy && table < pipeline.TableCommit:
		return tenant.ReasonEgressPolicy
	case table == pipeline.TableOutput:
		return tenant.ReasonHairpin
	}
	d, _ := pipeline.ReasonOf(flow.Flow{Table: table, Priority: priority})
	return d.Reason
}
