package vsd

import (
	"context"
	"net/netip"

	"github.com/google/uuid"

	"nuage/controller/tenant"
)

// A client makes vports of machines to come, with their addresses, which VSD would have on
// the machine's interface. An interface that names one as iface-id has it.

func newMachine(o *tenant.Vport) { o.Type, o.Lasting = tenant.VportVM, true }

func insertMachine(s Store, ctx context.Context, v tenant.Vport) (tenant.Vport, error) {
	v.ID = uuid.NewString()
	return s.BindVport(ctx, v)
}

// finishMachine completes a new vport.
func finishMachine(o *tenant.Vport, _ body) error {
	if o.ID != "" {
		return nil
	}
	if !o.IPv4.IsValid() {
		return badProperty("IPAddress", "the IPAddress of the vport is missing: a vport is made for a machine to come, and has its address")
	}
	if o.MAC.IsZero() {
		o.MAC = tenant.RandomMAC()
	}
	return nil
}

// machineFields are what can be said of a vport when it is made, and cannot change.
var machineFields = []field[tenant.Vport]{
	{name: "type",
		get: func(_ *tenant.State, o *tenant.Vport) any { return string(o.Type) },
		set: func(o *tenant.Vport, v string) error {
			if v != "" && v != string(o.Type) {
				return badProperty("type", "it is %s, not %q: vports of containers are made when these are attached", o.Type, v)
			}
			return nil
		}},
	{name: "MAC",
		get: func(_ *tenant.State, o *tenant.Vport) any { return orNull(o.MAC.String()) },
		set: func(o *tenant.Vport, v string) error {
			if v == "" {
				return nil
			}
			mac, err := tenant.ParseMAC(v)
			if err != nil || mac == tenant.GatewayMAC {
				return badProperty("MAC", "%q is not a MAC address for a vport", v)
			}
			o.MAC = mac
			return nil
		}},
	{name: "IPAddress",
		get: func(_ *tenant.State, o *tenant.Vport) any { return addressText(o.IPv4) },
		set: func(o *tenant.Vport, v string) error {
			if v == "" {
				return nil
			}
			a, err := netip.ParseAddr(v)
			if err != nil || !a.Is4() {
				return badProperty("IPAddress", "%q is not an IPv4 address", v)
			}
			o.IPv4 = a
			return nil
		}},
}
