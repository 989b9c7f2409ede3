package pipeline

import (
	"net/netip"

	"nuage/controller/tenant"
	"nuage/ovs/flow"
)

// Flows are the desired flows. The caller must not write to the set, which the next
// Update changes.
func (c *Compiler) Flows() flow.Set { return c.flows }

// Notes say of objects that ought to have flows why they have none. The same rules as for Flows.
func (c *Compiler) Notes() map[tenant.Key]string { return c.notes }

// Fragment is the desired flows of one object, in no particular order.
func (c *Compiler) Fragment(k tenant.Key) []flow.Flow {
	e := c.records[k]
	if e == nil {
		return nil
	}
	fs := make([]flow.Flow, 0, len(e.flows))
	for _, id := range e.flows {
		fs = append(fs, c.flows[id])
	}
	return fs
}

// Owner is the object that has a cookie; false for a cookie that is none of ours.
func (c *Compiler) Owner(cookie uint64) (tenant.Key, bool) {
	k, ok := c.cookies[cookie]
	return k, ok
}

// VportAt is the ID of the vport that has a port of this host.
func (c *Compiler) VportAt(port uint32) (string, bool) {
	first := c.claims[claim{what: claimPort, value: uint64(port)}].first
	if first == nil {
		return "", false
	}
	return first.key.ID, true
}

// VportWith is the ID of the vport that has an address in a domain.
func (c *Compiler) VportWith(domainID string, a netip.Addr) (string, bool) {
	if !a.Is4() {
		return "", false
	}
	first := c.claims[addressClaim(domainID, a)].first
	if first == nil || first.key.Kind != tenant.KindVport {
		return "", false
	}
	return first.key.ID, true
}

// Limit is a rate limiter as it counts for one vport, in bits a second and bits.
type Limit struct{ Rate, Burst uint64 }

// Meters are the meters that flows use, by number: the limits of what this host's vports
// send, and of what they receive where their ports cannot be shaped. A meter must be on the switch before its flow. The same rules as for Flows.
func (c *Compiler) Meters() map[uint32]Limit { return c.meters }

// ShowMeters are the meters of what each domain shows to the agent, with the domain's ID. The
// same rules as for Flows and Meters.
func (c *Compiler) ShowMeters() map[uint32]string { return c.showMeters }

// MeteredVport is the ID of the vport that a meter limits.
func (c *Compiler) MeteredVport(meter uint32) (string, bool) { return c.VportAt(meter &^ receiving) }

// Shapes are the limits of what this host's vports receive, by the interface to shape, where
// ports can be shaped. The same rules as for Flows.
func (c *Compiler) Shapes() map[string]Limit { return c.shapes }

// Zones are the conntrack zones that flows use, with the ID of the domain that has each. The
// same rules as for Flows.
func (c *Compiler) Zones() map[uint16]string { return c.zones }

// FromHere is whether only packets of this host's vports, and not those from tunnels, meet a
// flow of an entry or a policy: its counter is then part of what they count on this host.
func FromHere(m flow.Match) bool {
	flags, ok := m.Get(regFlags)
	return ok && flags.MaskUint()&bitFromTunnel != 0 && flags.Uint()&bitFromTunnel == 0
}

// VTEPs are the tunnel addresses of the other hosts by host, as far as there is a tunnel to
// them. The same rules as for Flows.
func (c *Compiler) VTEPs() map[string]netip.Addr { return c.vteps }

// Tunnel is the port number that SetPorts was last given; 0 if there is none.
func (c *Compiler) Tunnel() uint32 { return c.tunnel }
