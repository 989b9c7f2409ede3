package main

import (
	"context"
	"fmt"

	"nuage/controller/tenant"
	"nuage/ovs"
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
