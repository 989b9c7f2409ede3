package agent

import (
	"context"
	"encoding/binary"
	"strings"
	"time"

	"nuage/controller/tenant"
	"nuage/ovs/flow"
	"nuage/ovs/openflow"
	"nuage/ovs/pipeline"
)

// pace is how often something may happen: so often at once, and so often a second.
type pace struct{ atOnce, perSecond float64 }

// A vport gets so many answers, and so many refusals, which are cheap and wanted at once:
// one who floods harms itself.
var (
	answersPerVport  = pace{atOnce: 20, perSecond: 20}
	refusalsPerVport = pace{atOnce: 100, perSecond: 50}
)

// answer does what the flows ask for by the packets that they send here, until ctx ends.
func (a *Agent) answer(ctx context.Context) {
	given := limits{}
	lines := newFlowLog(a.conf.Log)
	omitted := time.NewTicker(sayOmitted)
	defer omitted.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-omitted.C:
			a.sayOmitted(ctx, lines)
		case p := <-a.conf.Switch.PacketIns():
			in, ok := p.Metadata.Get(flow.InPort)
			port, now := uint32(in.Uint()), time.Now()
			switch {
			case !ok:
			case p.UserData == pipeline.Log:
				a.logFlow(lines, port, p, now)
			case given.allow(port, p.UserData == pipeline.Reject, now):
				a.reply(ctx, port, p)
			}
		}
	}
}

// send sends a frame to the vport at a port; nil is nothing to send. Before, it goes through
// the actions.
func (a *Agent) send(ctx context.Context, port uint32, frame []byte, before ...flow.Action) {
	if frame == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := a.conf.Switch.PacketOut(ctx, append(before, flow.Output{Port: port}), frame); err != nil {
		a.conf.Log.WithError(err).Debug("an answer was not sent")
	}
}

// limits are what each port has been given of answers and of refusals.
type limits map[limited]*bucket

type limited struct {
	port    uint32
	refusal bool
}

func (l limits) allow(port uint32, refusal bool, now time.Time) bool {
	if len(l) > 1000 { // of ports that are gone, nearly all
		clear(l)
	}
	who, p := limited{port, refusal}, answersPerVport
	if refusal {
		p = refusalsPerVport
	}
	if l[who] == nil {
		l[who] = &bucket{}
	}
	return l[who].take(p, now)
}

// bucket holds a pace.
type bucket struct {
	level float64 // what happened and is not yet forgotten
	at    time.Time
}

func (b *bucket) take(p pace, now time.Time) bool {
	b.level = max(0, b.level-now.Sub(b.at).Seconds()*p.perSecond)
	if b.at = now; b.level >= p.atOnce {
		return false
	}
	b.level++
	return true
}

// reply sends the vport at a port what it gets for a packet that it sent. Connection tracking
// sees a refusal pass, and so that a connection is reset: it would remember it for a day.
func (a *Agent) reply(ctx context.Context, port uint32, p openflow.PacketIn) {
	who, known := a.askerAt(port)
	switch {
	case !known:
	case p.UserData == pipeline.Reject && who.zone != 0:
		a.send(ctx, port, a.frame(p, who), flow.CT{Zone: who.zone, Table: flow.NoTable})
	default:
		a.send(ctx, port, a.frame(p, who))
	}
}

// frame is what a vport gets for a packet that it sent; nil for nothing.
func (a *Agent) frame(p openflow.PacketIn, who asker) []byte {
	data, large := strings.CutPrefix(p.UserData, pipeline.TooLarge)
	switch {
	case p.UserData == pipeline.DHCP:
		return a.answerDHCP(p.Packet, who)
	case large && len(data) == 2:
		return icmpError(p.Packet, &who.vport, who.subnet.Gateway, fragmentationNeeded, binary.BigEndian.Uint16([]byte(data)))
	case p.UserData == pipeline.Reject:
		return rejection(p.Packet, &who.vport, &who.subnet)
	case p.UserData == pipeline.Expired:
		return icmpError(p.Packet, &who.vport, who.subnet.Gateway, timeExceeded, 0)
	}
	return nil
}

// askerAt is the vport that has a port.
func (a *Agent) askerAt(port uint32) (who asker, known bool) {
	a.mu.Lock()
	id, known := a.compiler.VportAt(port)
	a.mu.Unlock()
	if !known {
		return who, false
	}
	a.conf.Feed.View(func(s *tenant.State) {
		v := s.Vports[id]
		if v == nil || s.Subnets[v.SubnetID] == nil {
			known = false
			return
		}
		who = asker{vport: *v, subnet: *s.Subnets[v.SubnetID]}
		if d := s.Domains[v.DomainID]; d != nil {
			who.zone = d.Number
		}
		n := s.Networks[tenant.NetworkID(v.Host, v.Owner.NetworkID)]
		who.enclosed = n != nil && n.Internal
	})
	return who, known
}
