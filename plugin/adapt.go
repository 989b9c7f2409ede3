package main

import (
	"context"
	"fmt"

	"nuage/controller/tenant"
	"nuage/controller/vsd"
	"nuage/ovs"
	"nuage/ovs/agent"
)

// ports is the bridge as the driver wants it.
type ports struct{ *ovs.Bridge }

// Ready is nil while the switch answers.
func (p ports) Ready() error {
	s := p.Bridge.Status()
	for _, c := range []ovs.Connection{s.OVSDB, s.OpenFlow} {
		if !c.Connected {
			return fmt.Errorf("%w: %s", tenant.ErrUnavailable, c.Error)
		}
	}
	return nil
}

func (p ports) EnsurePort(ctx context.Context, name string, externalIDs map[string]string) error {
	_, err := p.Bridge.EnsurePort(ctx, ovs.PortSpec{Name: name, ExternalIDs: externalIDs})
	return err
}

func (p ports) Ports() map[string]map[string]string {
	all := map[string]map[string]string{}
	for name, port := range p.Bridge.Ports() {
		all[name] = port.ExternalIDs
	}
	return all
}

// Offload is whether the datapath computes the checksums that containers leave out: the
// kernel's does, the userspace one drops such TCP.
func (p ports) Offload() bool { return p.Bridge.Status().Datapath == ovs.System }

// tracer asks this host's switch for the API.
type tracer struct {
	bridge *ovs.Bridge
	feed   *tenant.Feed
	host   string
}

func (t tracer) Trace(ctx context.Context, from, to *tenant.Vport, p tenant.Packet) (vsd.TraceResult, error) {
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
	r, err := agent.Trace(ctx, t.bridge, s, t.host, from, to, p)
	return vsd.TraceResult{Decision: r.Decision, Reason: r.Reason, Interface: r.Port, VTEP: r.VTEP, Flows: r.Flows}, err
}
