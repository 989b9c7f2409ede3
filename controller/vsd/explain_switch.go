package vsd

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"nuage/controller/tenant"
)

const (
	// traceTime bounds what is asked of all switches together.
	traceTime = 3 * time.Second
	// settleTime is what a switch that differs is given: a change may be on its way to it.
	settleTime = 300 * time.Millisecond
)

// Tracer asks the switch of a host what it would do with a packet that one vport sends,
// perhaps to another; either of the two is on that host. Nothing is sent. It is called for
// several hosts at once.
type Tracer interface {
	Trace(ctx context.Context, host string, from, to *tenant.Vport, p tenant.Packet) (TraceResult, error)
}

// TraceResult is what a switch would do.
type TraceResult struct {
	Decision tenant.Decision `json:"decision"`
	Reason   tenant.Reason   `json:"reason,omitempty"` // of a drop, if it is known
	// Interface is the port of the host that the packet is delivered to; empty if it goes to
	// the host of the VTEP.
	Interface string     `json:"interface,omitempty"`
	VTEP      netip.Addr `json:"vtep,omitzero"`
	// Flows are those that the packet met, in the switch's words.
	Flows []string `json:"flows,omitempty"`
	// Programmed is the revision of the state that the switch stands for, and Latest that
	// which its host knows.
	Programmed int64 `json:"programmed"`
	Latest     int64 `json:"latest"`
}

// SwitchSays is what the switch of one host has to say. Of one that could not be asked, Text
// says why.
type SwitchSays struct {
	Host   string `json:"host"`
	Asked  bool   `json:"asked"`
	Agrees bool   `json:"agrees"`
	Text   string `json:"text"`
	// Revision is that of the state that the switch stands for.
	Revision int64    `json:"revision,omitempty"`
	Flows    []string `json:"flows,omitempty"`
}

// compare holds the switches that the packet comes to to the model: that of the sender's
// host first, then that of the receiver's, which judges by the policies of both directions
// again, and so is asked about what policies drop as well.
func (a *api) compare(ctx context.Context, s *tenant.State, x tenant.Explanation, from, to *tenant.Vport) []SwitchSays {
	says := []SwitchSays{}
	o := x.Outcome
	if o.Decision == "" {
		return says // it is never sent
	}
	for _, host := range x.Hosts() {
		if host == from.Host || o.Decision == tenant.Delivered || o.Ingress != nil {
			says = append(says, SwitchSays{Host: host})
		}
	}
	ctx, cancel := context.WithTimeout(ctx, traceTime)
	defer cancel()
	var all sync.WaitGroup
	for i := range says {
		all.Go(func() { says[i].ask(ctx, a.Tracer, expected(s, o, says[i].Host), from, to, x.Sent) })
	}
	all.Wait()
	return says
}

// expected is what the model has the switch of a host do with a packet that comes to it.
func expected(s *tenant.State, o tenant.Outcome, host string) TraceResult {
	want := TraceResult{Decision: o.Decision, Reason: o.Reason}
	if v := s.Vports[o.To]; v != nil && o.Decision == tenant.Delivered {
		if v.Host == host {
			want.Interface = v.Interface
		} else if h := s.Hosts[v.Host]; h != nil {
			want.VTEP = h.VTEP
		}
	}
	return want
}

// ask lets the switch say what it does, and once more if that is not what it should.
func (y *SwitchSays) ask(ctx context.Context, tracer Tracer, want TraceResult, from, to *tenant.Vport, p tenant.Packet) {
	if tracer == nil {
		y.Text = "not asked: this host cannot ask switches"
		return
	}
	got, err := tracer.Trace(ctx, y.Host, from, to, p)
	if err != nil {
		y.Text = "not asked: " + strings.TrimPrefix(err.Error(), "host "+y.Host+": ")
		return
	}
	if !got.same(want) {
		select {
		case <-time.After(settleTime):
			if again, err := tracer.Trace(ctx, y.Host, from, to, p); err == nil {
				got = again
			}
		case <-ctx.Done():
		}
	}
	y.Asked, y.Agrees, y.Revision, y.Flows = true, got.same(want), got.Programmed, got.Flows
	y.Text = "agrees: " + got.String()
	if !y.Agrees {
		y.Text = fmt.Sprintf("DIFFERS: the switch says %s; the model says %s", got, want)
		if got.Programmed < got.Latest {
			y.Text += fmt.Sprintf(" (the switch is at revision %d, its host at %d: ask again)", got.Programmed, got.Latest)
		}
	}
}

func (t TraceResult) same(u TraceResult) bool {
	return t.Decision == u.Decision && t.Interface == u.Interface && t.VTEP == u.VTEP
}

// String is the result in words.
func (t TraceResult) String() string {
	switch {
	case t.Decision == tenant.Delivered && t.Interface != "":
		return "delivered to port " + t.Interface
	case t.Decision == tenant.Delivered:
		return "sent to VTEP " + t.VTEP.String()
	case t.Decision == tenant.Answered:
		return "answered"
	}
	return strings.TrimSuffix("dropped: "+string(t.Reason), ": ")
}
