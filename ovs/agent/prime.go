package agent

import (
	"context"
	"maps"
	"net/netip"
	"time"

	"nuage/ovs/flow"
)

// The userspace datapath loses the packets for which it has to look for the underlay's
// neighbour first. So the agent sends each other host a frame that says nothing, for VNI 0,
// before a vport has something to say: the first makes the switch look, the second lets the
// other host's switch learn where this one is, the next are for an underlay that was not
// ready or lost one, and the later ones keep both from forgetting, which they do after 15
// minutes.
const (
	primeAgain = 100 * time.Millisecond // and twice as long after each
	primeTimes = 6                      // until it is known
	primeEvery = 4 * time.Minute
)

// primeFrame is a broadcast of an Ethernet type for local experiments, padded.
var primeFrame = append([]byte{255, 255, 255, 255, 255, 255, 0x0a, 0x6e, 0x75, 0x61, 0x67, 0x65, 0x88, 0xb5}, make([]byte, 46)...)

// primed is how often and when last a VTEP was primed.
type primed struct {
	times int
	last  time.Time
}

func (p primed) due() time.Time {
	switch {
	case p.times == 0:
		return time.Time{}
	case p.times < primeTimes:
		return p.last.Add(primeAgain << (p.times - 1))
	default:
		return p.last.Add(primeEvery)
	}
}

// keepPrimed primes every VTEP that the switch has flows for, until ctx ends.
func (a *Agent) keepPrimed(ctx context.Context) {
	done, epoch := map[netip.Addr]primed{}, uint64(0)
	for ctx.Err() == nil {
		a.mu.Lock()
		moved, ready := a.moved, a.status.Err == nil
		port, vteps := a.compiler.Tunnel(), map[netip.Addr]struct{}{}
		for _, vtep := range a.compiler.VTEPs() {
			vteps[vtep] = struct{}{}
		}
		a.mu.Unlock()
		if st := a.conf.Switch.Status(); st.Epoch != epoch { // another switch, which knows nobody
			epoch = st.Epoch
			clear(done)
		}
		next := primeEvery
		if ready && port != 0 {
			next = a.primeAll(ctx, vteps, port, done)
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-moved:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// primeAll primes what is due, forgets who is gone, and returns when to look again.
func (a *Agent) primeAll(ctx context.Context, vteps map[netip.Addr]struct{}, port uint32, done map[netip.Addr]primed) time.Duration {
	maps.DeleteFunc(done, func(vtep netip.Addr, _ primed) bool {
		_, there := vteps[vtep]
		return !there
	})
	next := primeEvery
	for vtep := range vteps {
		p, now := done[vtep], time.Now()
		if !p.due().After(now) {
			bounded, cancel := context.WithTimeout(ctx, patience)
			err := a.conf.Switch.PacketOut(bounded, []flow.Action{flow.SetField{FieldMatch: flow.EqIP(flow.TunDst, vtep)},
				flow.SetField{FieldMatch: flow.Eq(flow.TunID, 0)}, flow.Output{Port: port}}, primeFrame)
			cancel()
			if err != nil { // the loop says when the switch is back
				a.conf.Log.WithError(err).WithField("vtep", vtep).Debug("the way to a host was not primed")
				return primeAgain
			}
			p = primed{p.times + 1, now}
			done[vtep] = p
		}
		next = min(next, max(time.Until(p.due()), time.Millisecond))
	}
	return next
}
