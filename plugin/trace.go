package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/sirupsen/logrus"

	"nuage/controller/store"
	"nuage/controller/tenant"
	"nuage/controller/vsd"
	"nuage/ovs/agent"
)

// tracer asks switches for the API: this host's itself, those of others through the store.
// What it is asked by others it answers of this host's.
type tracer struct {
	host       string
	bridge     agent.Tracer
	feed       *tenant.Feed
	programmed func() int64 // revision of the state that the switch stands for
	others     func(ctx context.Context, host string, question []byte) ([]byte, error)
	log        logrus.FieldLogger
}

// traceQuestion is a question to another host. It names what that host knows: nothing in it comes
// to a switch as text.
type traceQuestion struct {
	From   string        `json:"from"`         // a vport's ID
	To     string        `json:"to,omitempty"` // likewise; empty for an address that no vport has
	Packet tenant.Packet `json:"packet"`
}

// traceAnswer is the answer, or why there is none.
type traceAnswer struct {
	vsd.TraceResult
	Error string `json:"error,omitempty"`
}

func (n *node) tracer() tracer {
	return tracer{host: n.host, bridge: n.bridge, feed: n.store.Feed(), others: n.store.Ask, log: n.log,
		programmed: func() int64 { return n.agent.Status().Revision }}
}

// Trace asks the switch of a host. The errors for another are those of store.Ask, and what
// that host says of why it cannot tell.
func (t tracer) Trace(ctx context.Context, host string, from, to *tenant.Vport, p tenant.Packet) (vsd.TraceResult, error) {
	if host == t.host {
		return t.here(ctx, from, to, p)
	}
	q := traceQuestion{From: from.ID, Packet: p}
	if to != nil {
		q.To = to.ID
	}
	question, err := json.Marshal(q)
	if err != nil {
		return vsd.TraceResult{}, err
	}
	text, err := t.others(ctx, host, question)
	if err != nil {
		return vsd.TraceResult{}, err
	}
	var a traceAnswer
	if err := json.Unmarshal(text, &a); err != nil {
		return vsd.TraceResult{}, fmt.Errorf("host %s: its answer cannot be read: %w", host, err)
	}
	if a.Error != "" {
		return vsd.TraceResult{}, fmt.Errorf("host %s: %s", host, a.Error)
	}
	return a.TraceResult, nil
}

// here asks this host's switch.
func (t tracer) here(ctx context.Context, from, to *tenant.Vport, p tenant.Packet) (vsd.TraceResult, error) {
	// What a trace needs of the state is copied, since the switch may take its time.
	s := tenant.NewState()
	t.feed.View(func(now *tenant.State) {
		for id, h := range now.Hosts {
			s.Hosts[id] = h
		}
		for id, sn := range now.Subnets {
			s.Subnets[id] = sn
		}
	})
	result := vsd.TraceResult{Programmed: t.programmed()}
	result.Latest, _ = t.feed.Revision()
	r, err := agent.Trace(ctx, t.bridge, s, t.host, from, to, p)
	result.Decision, result.Reason, result.Interface, result.VTEP, result.Flows = r.Decision, r.Reason, r.Port, r.VTEP, r.Flows
	return result, err
}

// answer is what this host tells another that asks: store.Config.Answer. The question may be
// anything: no more comes of it than a trace between two vports that this host knows.
func (t tracer) answer(ctx context.Context, asker string, question []byte) []byte {
	var a traceAnswer
	var err error
	if a.TraceResult, err = t.told(ctx, question); err != nil {
		a.Error = err.Error()
	}
	t.log.WithField("asker", asker).WithField("outcome", a.String()).Debug("another host asked for a trace")
	for {
		text, err := json.Marshal(a)
		if err == nil && len(text) <= store.MaxAnswer {
			return text
		}
		if len(a.Flows) == 0 {
			return nil // no error of ours is as long as that
		}
		a.Flows = a.Flows[len(a.Flows)/2+1:] // the last ones decided
	}
}

func (t tracer) told(ctx context.Context, question []byte) (vsd.TraceResult, error) {
	var q traceQuestion
	d := json.NewDecoder(bytes.NewReader(question))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return vsd.TraceResult{}, fmt.Errorf("the question cannot be read: %w", err)
	}
	var from, to *tenant.Vport
	t.feed.View(func(now *tenant.State) { from, to = now.Vports[q.From], now.Vports[q.To] })
	revision, _ := t.feed.Revision()
	switch {
	case from == nil:
		return vsd.TraceResult{}, fmt.Errorf("vport %.40q is not known there at revision %d", q.From, revision)
	case to == nil && q.To != "":
		return vsd.TraceResult{}, fmt.Errorf("vport %.40q is not known there at revision %d", q.To, revision)
	case to != nil && to.DomainID != from.DomainID:
		return vsd.TraceResult{}, fmt.Errorf("vports %s and %s are in different domains", from.Name, to.Name)
	}
	return t.here(ctx, from, to, q.Packet)
}
