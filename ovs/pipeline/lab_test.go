package pipeline

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"nuage/controller/tenant"
	"nuage/ovs/flow"
	"nuage/ovs/ovstest"
)

// lab is a real ovs-vswitchd with the bridges of two hosts, which is asked what it does
// with a packet.
type lab struct {
	ovs    *ovstest.OVS
	dir    string
	ports  map[string]bool
	meters map[string]bool
}

const bridge = "br-test"

// bridges are the hosts' bridges.
var bridges = map[string]string{thisHost: bridge, otherHost: "br-far"}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{ovs: ovstest.Start(t), dir: t.TempDir(), ports: map[string]bool{}, meters: map[string]bool{}}
	for host, b := range bridges {
		l.ovs.AddBridge(b)
		l.ovs.AddPort(b, "vx-"+host, tunnelPort)
	}
	return l
}

// load replaces all flows by those of a world.
func (l *lab) load(t *testing.T, w *world) {
	t.Helper()
	for _, in := range []Input{w.input(), w.otherInput()} {
		c := NewCompiler(in.Host)
		c.SetPorts(in.Ports, in.Tunnel)
		c.Update(in.State, allKeys(in.State))
		for k, n := range c.Notes() {
			if !strings.Contains(n, "host nowhere: it has no VTEP") && !strings.Contains(n, "does not exist") {
				t.Fatalf("note on %v: %s", k, n)
			}
		}
		for id, limit := range c.Meters() {
			l.meter(in.Host, id, limit)
		}
		l.program(t, in, c.Flows())
	}
}

// meter makes a meter, if there is none of the number.
func (l *lab) meter(host string, id uint32, limit Limit) {
	name := fmt.Sprintf("%s-%d", host, id)
	if !l.meters[name] {
		l.ovs.Ofctl("add-meter", bridges[host], fmt.Sprintf("meter=%d,kbps,burst,band=type=drop,rate=%d,burst_size=%d", id, limit.Rate/1000, limit.Burst/1000))
		l.meters[name] = true
	}
}

func (l *lab) program(t *testing.T, in Input, flows flow.Set) {
	t.Helper()
	var text strings.Builder
	for _, f := range flows.Sorted() {
		fmt.Fprintln(&text, f)
	}
	for _, n := range in.Ports {
		name := fmt.Sprintf("%s-%d", in.Host, n)
		if !l.ports[name] {
			l.ovs.AddPort(bridges[in.Host], name, n)
			l.ports[name] = true
		}
	}
	file := filepath.Join(l.dir, "flows")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	l.ovs.Ofctl("--bundle", "replace-flows", bridges[in.Host], file)
}

// traced is what a switch does with a packet.
type traced struct {
	outcome tenant.Outcome // without To
	host    string         // whose switch did it last
	port    uint32         // output; flow.PortInPort for back to the sender
	vtep    netip.Addr     // of a packet that leaves by the tunnel
	vni     uint32
	dst     tenant.MAC
	final   string
	text    string
	told    string // text of the sender's host
}

var (
	step   = regexp.MustCompile(`(?m)^ *(\d+)\. .*priority (\d+)(?:, cookie (0x[0-9a-f]+))?`)
	missed = regexp.MustCompile(`(?m)^ *(\d+)\. (?:.*, )?No match`)
	output = regexp.MustCompile(`output port is (\d+)`)
	back   = regexp.MustCompile(`(?m)^\s+IN_PORT$`)
	source = regexp.MustCompile(`dl_src=([0-9a-f:]+)`)
	target = regexp.MustCompile(`dl_dst=([0-9a-f:]+)`)
	vtep   = regexp.MustCompile(`TUN_IPV4_DST\[\] is now ([0-9.]+)`)
	vni    = regexp.MustCompile(`TUN_ID\[0\.\.23\] is now (0x[0-9a-f]+|0)`)
	ttl    = regexp.MustCompile(`nw_ttl=(\d+)`)
	actual = regexp.MustCompile(`(?m)^Datapath actions: (.*)$`)
	// toAgent is a packet for the agent among datapath actions; sends is one that goes on.
	toAgent = regexp.MustCompile(`userspace\(pid=\d+,controller\([^)]*\)\)`)
	sends   = regexp.MustCompile(`(^|,)\d+(,|$)|check_pkt_len`)
)

// appctl asks ovs-vswitchd on its control socket: ovs-appctl takes a hundred times longer.
func (l *lab) appctl(command string, args ...string) (string, error) {
	sockets, _ := filepath.Glob(filepath.Join(l.ovs.RunDir, "ovs-vswitchd.*.ctl"))
	conn, err := net.Dial("unix", strings.Join(sockets, " ")) // there is one
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(map[string]any{"id": 0, "method": command, "params": args}); err != nil {
		return "", err
	}
	var reply struct{ Result, Error *string }
	if err := json.NewDecoder(conn).Decode(&reply); err != nil {
		return "", err
	}
	if reply.Error != nil {
		return "", fmt.Errorf("%s %v: %s", command, args, *reply.Error)
	}
	return *reply.Result, nil
}

func (l *lab) trace(host, packet string, args ...string) (traced, error) {
	text, err := l.appctl("ofproto/trace", append(args, bridges[host], packet)...)
	if err != nil {
		return traced{}, err
	}
	r := traced{host: host, text: text}
	if missed.MatchString(text) || !actual.MatchString(text) {
		return r, fmt.Errorf("no flow for a packet:\n%s", text)
	}
	r.final = text[strings.LastIndex(text, "Final flow: ")+len("Final flow: "):]
	r.final, _, _ = strings.Cut(r.final, "\n")
	if r.final == "unchanged" {
		r.final, _, _ = strings.Cut(text[strings.LastIndex(text, "\nFlow: ")+1:], "\n")
	}
	did := actual.FindAllStringSubmatch(text, -1)
	last := did[len(did)-1][1]
	switch {
	case back.MatchString(text):
		r.outcome.Decision, r.port = tenant.Answered, flow.PortInPort
	case !sends.MatchString(toAgent.ReplaceAllString(last, "")):
		r.outcome = tenant.Outcome{Decision: tenant.Dropped, Reason: reasonOf(text),
			Rejected: strings.Contains(text, userData(Reject))}
		return r, nil
	case vtep.MatchString(text):
		id, _ := strconv.ParseUint(vni.FindStringSubmatch(text)[1], 0, 32)
		r.outcome.Decision, r.port, r.vni = tenant.Delivered, tunnelPort, uint32(id)
		r.vtep = netip.MustParseAddr(vtep.FindStringSubmatch(text)[1])
	default:
		m := output.FindStringSubmatch(text)
		if m == nil {
			return r, fmt.Errorf("neither output nor drop:\n%s", text)
		}
		n, _ := strconv.Atoi(m[1])
		r.outcome.Decision, r.port = tenant.Delivered, uint32(n)
	}
	if m := source.FindStringSubmatch(r.final); m != nil {
		r.outcome.EthSrc = anyAddress(m[1])
	}
	if m := target.FindStringSubmatch(r.final); m != nil {
		r.dst = anyAddress(m[1])
	}
	if m := ttl.FindStringSubmatch(r.final); m != nil {
		n, _ := strconv.Atoi(m[1])
		r.outcome.TTL = uint8(n)
	}
	return r, nil
}

// anyAddress reads a MAC address of a frame, also one that no vport can have: who may spoof
// may send from a group's.
func anyAddress(s string) (m tenant.MAC) {
	if hw, err := net.ParseMAC(s); err == nil {
		copy(m[:], hw)
	}
	return m
}

// userData is what a trace shows of a flow that sends packets with it to the agent.
func userData(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, ".%02x", s[i])
	}
	return "userdata=" + b.String()[1:] + ")"
}

// reasonOf names the flow at which a trace ends.
func reasonOf(text string) tenant.Reason {
	steps := step.FindAllStringSubmatch(text, -1)
	last := steps[len(steps)-1]
	n, _ := strconv.Atoi(last[1])
	p, _ := strconv.Atoi(last[2])
	if d, ok := ReasonOf(flow.Flow{Table: flow.Table(n), Priority: uint16(p)}); ok {
		return d.Reason
	}
	if flow.Table(n) == TableOutput {
		return tenant.ReasonHairpin
	}
	return tenant.Reason("table " + last[1] + " priority " + last[2])
}

// spell writes a packet in ovs-ofctl's words.
func spell(port uint32, p tenant.Packet) string {
	s := fmt.Sprintf("in_port=%d,dl_src=%v,dl_dst=%v", port, orZero(p.EthSrc), orZero(p.EthDst))
	switch {
	case p.Tagged: // what is in it does not matter, and trace cannot spell it
		return s + fmt.Sprintf(",dl_vlan=7,dl_type=%#x", p.EtherType)
	case p.EtherType == tenant.EtherARP:
		return s + fmt.Sprintf(",arp,arp_op=%d,arp_spa=%v,arp_tpa=%v,arp_sha=%v", p.Op, p.Src, p.Dst, orZero(p.SHA))
	case p.EtherType != tenant.EtherIPv4:
		return s + fmt.Sprintf(",dl_type=%#x", p.EtherType)
	}
	s += fmt.Sprintf(",ip,nw_proto=%d,nw_src=%v,nw_dst=%v,nw_ttl=%d,ip_dscp=%d", p.Protocol, p.Src, p.Dst, p.TTL, p.DSCP)
	switch proto := tenant.Protocol(p.Protocol); {
	case proto == tenant.ICMP:
		s += fmt.Sprintf(",icmp_type=%d,icmp_code=%d", p.ICMPType, p.ICMPCode)
	case proto.HasPorts():
		s += fmt.Sprintf(",%v_src=%d,%v_dst=%d", proto, p.SrcPort, proto, p.DstPort)
		if opens(p) {
			s += ",tcp_flags=0x002" // SYN
		}
	}
	return s
}

// opens is whether a packet shows by itself that it is the first of a connection.
func opens(p tenant.Packet) bool {
	return tenant.Protocol(p.Protocol) == tenant.TCP && p.Track == tenant.TrackNew
}

func orZero(m tenant.MAC) string {
	if m.IsZero() {
		return "00:00:00:00:00:00"
	}
	return m.String()
}

// expect is the model's verdict, in what a trace can show of it.
func expect(w *world, from *tenant.Vport, p tenant.Packet) (tenant.Outcome, string, uint32) {
	o := w.state.Verdict(from, p)
	host, port := from.Host, uint32(0)
	switch o.Decision {
	case tenant.Answered:
		port = flow.PortInPort
	case tenant.Delivered:
		to := w.state.Vports[o.To]
		host, port = to.Host, w.portOf(to)
	}
	o.To = ""
	return o, host, port
}

// track adds to a trace what connection tracking would say of the packet.
func track(w *world, from *tenant.Vport, p tenant.Packet, spelled string) (packet string, args []string) {
	proto := tenant.Protocol(p.Protocol)
	if p.Tagged || p.EtherType != tenant.EtherIPv4 || !proto.Tracked() || !w.state.HasPolicy(from.DomainID) {
		return spelled, nil
	}
	of := tenant.Tuple{Src: p.Src, Dst: p.Dst, Protocol: proto, SrcPort: p.SrcPort, DstPort: p.DstPort, ICMPType: p.ICMPType, ICMPCode: p.ICMPCode}
	state := map[tenant.Track]string{tenant.TrackNew: "trk,new", tenant.TrackOpener: "trk,est", tenant.TrackReply: "trk,est,rpl", tenant.TrackNone: "trk,inv"}[p.Track]
	if p.Track == tenant.TrackReply {
		if of = p.Of; p.Protocol == tenant.ProtocolICMP && p.ICMPType == 3 {
			state = "trk,rel,rpl"
			if of.Dst == p.Dst {
				state = "trk,rel"
			}
		}
	}
	if of.Protocol == tenant.ICMP {
		of.SrcPort, of.DstPort = uint16(of.ICMPType), uint16(of.ICMPCode)
	}
	return ovstest.Tracked{Src: of.Src, Dst: of.Dst, Proto: uint8(of.Protocol), SrcPort: of.SrcPort, DstPort: of.DstPort, States: []string{state}}.Args(spelled)
}

// send is what becomes of a packet of a vport, over both hosts if need be.
func (l *lab) send(w *world, from *tenant.Vport, p tenant.Packet) (traced, error) {
	packet, args := track(w, from, p, spell(w.portOf(from), p))
	got, err := l.trace(from.Host, packet, args...)
	got.told = got.text
	if err != nil || !got.vtep.IsValid() {
		return got, err
	}
	there := ""
	for id, h := range w.state.Hosts {
		if h.VTEP == got.vtep {
			there = id
		}
	}
	if bridges[there] == "" || there == from.Host {
		return got, fmt.Errorf("sent to VTEP %v:\n%s", got.vtep, got.text)
	}
	p.EthSrc, p.EthDst, p.TTL = got.outcome.EthSrc, got.dst, got.outcome.TTL
	before := got
	packet, args = track(w, from, p, tunneled(w.state.Hosts[from.Host].VTEP, got.vni, p))
	got, err = l.trace(there, packet, args...)
	if a, b := rulings(before.text), rulings(got.text); err == nil && a != b {
		err = fmt.Errorf("the hosts disagree: %+v, %+v", a, b)
	}
	if strings.Contains(got.text, userData(Reject)) || strings.Contains(got.text, userData(Log)) {
		err = fmt.Errorf("the receiver's host tells of a packet")
	}
	got.told, got.text = before.text, before.text+"\n"+got.text
	return got, err
}

// tunneled is a packet as it comes out of the tunnel.
func tunneled(src netip.Addr, vni uint32, p tenant.Packet) string {
	return fmt.Sprintf("%s,tun_src=%v,tun_id=%d", spell(tunnelPort, p), src, vni)
}

// ruled is the cookies of the entries or policies that decided; 0 for none.
type ruled struct{ ingress, egress uint64 }

// rulings are those of a trace. Where a reply was judged twice, the second time counts.
func rulings(text string) (r ruled) {
	for _, m := range step.FindAllStringSubmatch(text, -1) {
		table, _ := strconv.Atoi(m[1])
		priority, _ := strconv.Atoi(m[2])
		cookie, _ := strconv.ParseUint(m[3], 0, 64)
		switch t := flow.Table(table); {
		case t == TableSourceGroups:
			r = ruled{}
		case t == TableIngressEntries && priority > 0, t == TableIngressDecision && uint16(priority) == DropIngressDefault.Priority:
			r.ingress = cookie
		case t == TableEgressEntries && priority > 0, t == TableEgressDecision && uint16(priority) == DropEgressDefault.Priority:
			r.egress = cookie
		}
	}
	return r
}

// expectRulings are the rulings that the model owes, and how often the sender's host logs.
func expectRulings(o tenant.Outcome) (r ruled) {
	cookie := func(r *tenant.Ruling) uint64 {
		switch {
		case r == nil || r.Policy == nil:
			return 0
		case r.Entry != nil:
			return Cookie(tenant.Key{Kind: tenant.KindEntry, ID: r.Entry.ID})
		}
		return Cookie(tenant.Key{Kind: tenant.KindPolicy, ID: r.Policy.ID})
	}
	if r.ingress = cookie(o.Ingress); o.Ingress != nil && o.Ingress.Allowed {
		r.egress = cookie(o.Egress)
	}
	return r
}

// expectLogs is how many of the deciding entries show a packet to the log: one that opens a
// connection, or belongs to none.
func expectLogs(w *world, from *tenant.Vport, p tenant.Packet, o tenant.Outcome) (n int) {
	if tenant.Protocol(p.Protocol).Tracked() {
		t := p.Of
		if t.DSCP = p.DSCP; t.Dst == p.Dst {
			t.Src = p.Src
		}
		in, out := w.state.Rule(from.DomainID, tenant.Ingress, t, true), w.state.Rule(from.DomainID, tenant.Egress, t, true)
		again := in.Allowed && out.Allowed && (in.Stateless() || out.Stateless())
		if p.Track == tenant.TrackOpener || p.Track == tenant.TrackReply && !again {
			return 0
		}
	}
	for _, r := range []*tenant.Ruling{o.Ingress, o.Egress} {
		if r == nil {
			break
		}
		if e := r.Entry; e != nil && e.FlowLogging && (opens(p) || e.Stateful || tenant.Protocol(p.Protocol) != tenant.TCP || e.Action != tenant.Forward) {
			n++
		}
		if !r.Allowed {
			break
		}
	}
	return n
}

// ask compares the switches with the model.
func (l *lab) ask(w *world, from *tenant.Vport, p tenant.Packet) (traced, error) {
	got, err := l.send(w, from, p)
	if err != nil {
		return got, fmt.Errorf("%w: %s sends %s:\n%s", err, from.ID, spell(w.portOf(from), p), got.text)
	}
	want, host, port := expect(w, from, p)
	shown := want
	shown.Ingress, shown.Egress = nil, nil
	meter := fmt.Sprintf("meter:%d\n", w.portOf(from))
	limited := (want.Decision == tenant.Delivered || want.Reason == tenant.ReasonHairpin) && w.state.Limiter(from, tenant.Ingress) != nil
	logs := expectLogs(w, from, p, want)
	if got.outcome != shown || got.port != port || got.host != host || rulings(got.text) != expectRulings(want) ||
		strings.Contains(got.told, meter) != limited || strings.Count(got.told, userData(Log)) != logs {
		return got, fmt.Errorf("%s sends %s (%v of %+v):\nswitch: %+v %s port %d %+v\nmodel:  %+v %s port %d %+v, limited %v, %d logs, ingress %+v, egress %+v\n%s", from.ID,
			spell(w.portOf(from), p), p.Track, p.Of, got.outcome, got.host, got.port, rulings(got.text), shown, host, port, expectRulings(want), limited, logs,
			want.Ingress, want.Egress, got.text)
	}
	return got, nil
}
