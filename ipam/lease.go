package ipam

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"nuage/controller/tenant"
)

// own is the address that req's MAC has in the subnet already, if it may have it back; with
// an error, the address that it may not have.
func own(st *tenant.State, l *ledger, sub *tenant.Subnet, req Request, s span, now time.Time) (netip.Addr, error) {
	var back netip.Addr
	for _, addr := range l.owned(req.MAC) {
		lease := st.Leases[tenant.LeaseID(sub.ID, addr.String())]
		switch {
		case lapsed(lease, now) || lease.Use != tenant.UseEndpoint:
		case lease.State == tenant.LeaseBound:
			return addr, tenant.Errorf(tenant.ErrConflict, "subnet %s: MAC address %s in use by %s (%s)", sub.Name, req.MAC, user(st, lease), addr)
		case !s.has(number(addr)):
		case !back.IsValid() || lease.State == tenant.LeaseReserved:
			back = addr
		}
	}
	return back, nil
}

// admits decides about an address asked for by name that has a lease: true if the lease
// serves as it is, false if it may be replaced.
func (a *Allocator) admits(st *tenant.State, sub *tenant.Subnet, old *tenant.Lease, req Request) (bool, error) {
	switch {
	case old.State == tenant.LeaseResting:
		return false, nil
	case old.Use == tenant.UseAuxiliary && req.Use == tenant.UseAuxiliary:
		return true, nil // several networks on a subnet may set the same address aside
	case req.Use == tenant.UseAuxiliary && !req.Repeated:
	case req.MAC.IsZero() && old.Host == a.Host:
		return true, nil
	case old.Use == tenant.UseEndpoint && req.Swarm && (held(old) || req.MAC.IsZero()):
		return true, nil
	case old.Use == tenant.UseEndpoint && old.State == tenant.LeaseReserved && (old.MAC == req.MAC || old.MAC.IsZero()):
		return false, nil // its own: the time runs anew
	case old.Use == tenant.UseEndpoint && old.MAC == req.MAC && old.Host == a.Host:
		return true, nil // whether it is the same endpoint is decided when it is bound
	}
	return false, tenant.Errorf(tenant.ErrConflict, "subnet %s: address %s in use by %s", sub.Name, old.Address, user(st, old))
}

// held tells whether a lease is bound without a vport: until it is released.
func held(l *tenant.Lease) bool {
	return l.State == tenant.LeaseBound && l.VportID == "" && l.MAC.IsZero()
}

// lapsed tells whether a lease, which may be nil, no longer holds its address.
func lapsed(l *tenant.Lease, now time.Time) bool {
	return l == nil || entry{l.State, l.MAC, l.Expires}.lapsed(now)
}

// user says in words who has a lease.
func user(st *tenant.State, l *tenant.Lease) string {
	var b strings.Builder
	switch v := st.Vports[l.VportID]; {
	case v != nil:
		fmt.Fprintf(&b, "vport %s", v.Name)
	case l.Use != tenant.UseEndpoint:
		fmt.Fprintf(&b, "an %s address", l.Use)
	case l.State == tenant.LeaseReserved:
		b.WriteString("an endpoint that is being made")
	default:
		b.WriteString("an endpoint")
	}
	if v := st.Vports[l.VportID]; (v == nil || v.Name != l.Name) && l.Name != "" {
		fmt.Fprintf(&b, " (%s)", l.Name)
	}
	if !l.MAC.IsZero() {
		fmt.Fprintf(&b, " with MAC %s", l.MAC)
	}
	if l.Host != "" {
		fmt.Fprintf(&b, " on host %s", l.Host)
	}
	return b.String()
}

func exhausted(sub *tenant.Subnet, l *ledger, s span) error {
	if s.size() == 0 {
		return tenant.Errorf(tenant.ErrExhausted, "subnet %s: there is no address to give out in %s", sub.Name, s.rng)
	}
	var within, rests string
	if s.rng != sub.CIDR {
		within = fmt.Sprintf(" of range %s", s.rng)
	}
	if n, until := l.resting(s); n > 0 {
		rests = fmt.Sprintf(" (%d resting until %s)", n, until.UTC().Format("15:04:05 MST"))
	}
	return tenant.Errorf(tenant.ErrExhausted, "subnet %s: all %d addresses%s are in use%s", sub.Name, s.size(), within, rests)
}
