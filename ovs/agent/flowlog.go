package agent

import (
	"context"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/sirupsen/logrus"

	"nuage/controller/tenant"
	"nuage/ovs/flow"
	"nuage/ovs/openflow"
)

const (
	// sayOmitted is how often a domain's lines that were left out are said to be.
	sayOmitted = 10 * time.Second
	// flowLogName is the value of the field "log" of every line, to filter by.
	flowLogName = "flow"
)

// A domain gets so many lines of its own.
var linesPerDomain = pace{atOnce: 100, perSecond: 50}

// flowLog writes a line for each new connection that an entry with flowLogging decides.
type flowLog struct {
	log     logrus.FieldLogger
	domains map[string]*domainLog
	meters  readings[uint32] // of what domains show
}

func newFlowLog(log logrus.FieldLogger) *flowLog {
	return &flowLog{log: log, domains: map[string]*domainLog{}, meters: readings[uint32]{}}
}

type domainLog struct {
	bucket  bucket
	omitted int
}

// allowed is whether a domain may have one more line now; if not, it is counted.
func (l *flowLog) allowed(domainID string, now time.Time) bool {
	d := l.domains[domainID]
	if d == nil {
		d = &domainLog{}
		l.domains[domainID] = d
	}
	if !d.bucket.take(linesPerDomain, now) {
		d.omitted++
		return false
	}
	return true
}

// omitted are the domains that lines were left out of since the last call, and how many.
// It forgets all others, which may be gone.
func (l *flowLog) omitted() map[string]int {
	left := map[string]int{}
	for id, d := range l.domains {
		if d.omitted == 0 {
			delete(l.domains, id)
			continue
		}
		left[id], d.omitted = d.omitted, 0
	}
	return left
}

// sayOmitted writes a line for each domain that lines were left out of.
func (a *Agent) sayOmitted(ctx context.Context, l *flowLog) {
	omitted := l.omitted()
	if len(omitted) == 0 {
		return
	}
	unseen := a.unseen(ctx, l)
	for id, n := range omitted {
		fields := logrus.Fields{"log": flowLogName, "omitted": n, "unseen": unseen[id], "domainID": id}
		a.conf.Feed.View(func(s *tenant.State) { nameDomain(fields, s, s.Domains[id]) })
		l.log.WithFields(fields).Warn("there were more connections than are logged")
	}
}

// unseen is what the switch did not show of each domain since it was last asked: packets
// beyond the domain's meter, most of a flood. Some may have been for an answer instead.
func (a *Agent) unseen(ctx context.Context, l *flowLog) map[string]uint64 {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stats, err := a.conf.Switch.MeterStats(ctx)
	if err != nil {
		return nil // the lines are said all the same
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	all := map[string]uint64{}
	for _, m := range stats {
		if id := a.compiler.ShowMeters()[m.ID]; id != "" {
			all[id] = l.meters.since(m.ID, tenant.Counter{Packets: m.Packets}).Packets
		}
	}
	return all
}

func nameDomain(fields logrus.Fields, s *tenant.State, d *tenant.Domain) {
	if d == nil {
		return
	}
	fields["domain"] = d.Name
	if e := s.Enterprises[d.EnterpriseID]; e != nil {
		fields["enterprise"] = e.Name
	}
}

// logFlow writes what a flow of an entry has shown: the first packet of a connection from
// the vport at a port. What is no entry's any more is not written.
func (a *Agent) logFlow(l *flowLog, port uint32, p openflow.PacketIn, now time.Time) {
	t, ok := tupleOf(p.Packet)
	if !ok {
		return
	}
	a.mu.Lock()
	owner, _ := a.compiler.Owner(p.Cookie)
	sender, _ := a.compiler.VportAt(port)
	a.mu.Unlock()
	fields := logrus.Fields{}
	a.conf.Feed.View(func(s *tenant.State) {
		e := s.Entries[owner.ID]
		if owner.Kind != tenant.KindEntry || e == nil || s.Policies[e.PolicyID] == nil || !l.allowed(e.DomainID, now) {
			fields = nil
			return
		}
		describe(fields, s, e, t)
		nameVport(fields, "source", s.Vports[sender])
		nameVport(fields, "destination", a.vportWith(s, e.DomainID, t.Dst))
	})
	if fields != nil {
		l.log.WithFields(fields).Info("connection " + fields["action"].(string))
	}
}

// describe is what an operator filters by.
func describe(fields logrus.Fields, s *tenant.State, e *tenant.Entry, t tenant.Tuple) {
	p, action := s.Policies[e.PolicyID], "denied"
	if e.Action == tenant.Forward {
		action = "allowed"
	}
	for name, value := range map[string]any{"log": flowLogName, "domainID": e.DomainID, "policy": p.Name, "policyID": p.ID,
		"entry": e.Priority, "entryID": e.ID, "direction": p.Direction, "action": action,
		"protocol": t.Protocol.String(), "source": t.Src, "destination": t.Dst} {
		fields[name] = value
	}
	nameDomain(fields, s, s.Domains[e.DomainID])
	switch {
	case t.Protocol.HasPorts():
		fields["sourcePort"], fields["destinationPort"] = t.SrcPort, t.DstPort
	case t.Protocol == tenant.ICMP:
		fields["icmpType"], fields["icmpCode"] = t.ICMPType, t.ICMPCode
	}
}

func nameVport(fields logrus.Fields, side string, v *tenant.Vport) {
	if v != nil {
		fields[side+"Vport"], fields[side+"VportID"] = v.Name, v.ID
	}
}

// tupleOf is what a policy sees of an IPv4 packet in a frame, or of its first bytes. Ports
// that it does not show, as in a later fragment, are 0.
func tupleOf(frame []byte) (t tenant.Tuple, ok bool) {
	if len(frame) < ethernetHeader+ipv4Header || binary.BigEndian.Uint16(frame[12:]) != flow.EthIPv4 {
		return t, false
	}
	ip := frame[ethernetHeader:]
	t = tenant.Tuple{Src: sourceOf(ip), Dst: destinationOf(ip), Protocol: tenant.Protocol(ip[9]), DSCP: ip[1] >> 2}
	rest := ip[min(int(ip[0]&15)*4, len(ip)):]
	if len(rest) < 4 || binary.BigEndian.Uint16(ip[6:])&0x1fff != 0 {
		return t, true
	}
	switch {
	case t.Protocol.HasPorts():
		t.SrcPort, t.DstPort = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
	case t.Protocol == tenant.ICMP:
		t.ICMPType, t.ICMPCode = rest[0], rest[1]
	}
	return t, true
}

// vportWith is the vport of a domain that an address belongs to, as the switch sees it.
func (a *Agent) vportWith(s *tenant.State, domainID string, addr netip.Addr) *tenant.Vport {
	a.mu.Lock()
	defer a.mu.Unlock()
	id, _ := a.compiler.VportWith(domainID, addr)
	return s.Vports[id]
}
