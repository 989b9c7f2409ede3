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

// A vport gets so many answers at once, and so many a second: one who floods harms itself.
const (
	answersAtOnce = 20
	answersPerSec = 20
)

// answer answers the packets that the flows send here, until ctx ends.
func (a *Agent) answer(ctx context.Context) {
	limits := map[uint32]*bucket{}
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-a.conf.Switch.PacketIns():
			in, ok := p.Metadata.Get(flow.InPort)
			if !ok {
				continue
			}
			port := uint32(in.Uint())
			if len(limits) > 1000 { // of ports that are gone, nearly all
				clear(limits)
			}
			if limits[port] == nil {
				limits[port] = &bucket{}
			}
			if !limits[port].take(time.Now()) {
				continue
			}
			if frame := a.reply(port, p); frame != nil {
				bounded, cancel := context.WithTimeout(ctx, patience)
				err := a.conf.Switch.PacketOut(bounded, []flow.Action{flow.Output{Port: port}}, frame)
				cancel()
				if err != nil {
					a.conf.Log.WithError(err).Debug("an answer was not sent")
				}
			}
		}
	}
}

// bucket is a rate limit.
type bucket struct {
	level float64 // answers given and not yet forgotten
	at    time.Time
}

func (b *bucket) take(now time.Time) bool {
	b.level = max(0, b.level-now.Sub(b.at).Seconds()*answersPerSec)
	if b.at = now; b.level >= answersAtOnce {
		return false
	}
	b.level++
	return true
}

// reply is the frame that the vport at a port gets for a packet that it sent; nil for none.
func (a *Agent) reply(port uint32, p openflow.PacketIn) []byte {
	who, known := a.askerAt(port)
	if !known {
		return nil
	}
	data, large := strings.CutPrefix(p.UserData, pipeline.TooLarge)
	switch {
	case p.UserData == pipeline.DHCP:
		return a.answerDHCP(p.Packet, who)
	case large && len(data) == 2:
		return icmpError(p.Packet, &who.vport, who.subnet.Gateway, fragmentationNeeded, binary.BigEndian.Uint16([]byte(data)))
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
		n := s.Networks[v.Owner.NetworkID]
		who.enclosed = n != nil && n.Internal
	})
	return who, known
}
