package ipam

import "nuage/controller/tenant"

// virtual are the virtual IPs of a vport: an address that it shares with another host by
// its own means is not to be chosen for somebody else, though who names it may have it.
type virtual struct {
	subnetID string
	ips      []tenant.VirtualIP
}

// reserve notes the virtual IPs of a vport, nil if it is gone. a.mu is held.
func (a *Allocator) reserve(v *tenant.Vport, id string) {
	old, had := a.virtual[id]
	if !had && (v == nil || len(v.VirtualIPs) == 0) {
		return
	}
	if l := a.subnets[old.subnetID]; l != nil {
		for _, vip := range old.ips {
			l.bar(vip.IPv4, -1)
		}
	}
	delete(a.virtual, id)
	if v == nil || len(v.VirtualIPs) == 0 {
		return
	}
	a.virtual[id] = virtual{v.SubnetID, v.VirtualIPs}
	for _, vip := range v.VirtualIPs {
		a.ledger(v.SubnetID).bar(vip.IPv4, 1)
	}
}
