package store

import (
	"errors"
	"net/netip"
	"testing"

	"nuage/controller/tenant"
)

// A joined host that has just made a subnet for a Docker network settles its gateway, and that
// it is to outlive the network. Of what people made, or others use, it changes nothing.
func TestHostFinishesASubnet(t *testing.T) {
	e := newEstate(t, true)
	ctx := context10(t)
	gateway := func(n tenant.Subnet, text string) error {
		n.Gateway = netip.MustParseAddr(text)
		_, err := e.own.UpdateSubnet(ctx, n)
		return err
	}
	sp := spec("D", "10.0.5.0/24")
	sp.DockerOwned = true
	made := mustPath(t, e.own, sp).Subnet

	before := dump(t, e.s)
	for name, try := range map[string]func() error{
		"the gateway of people's subnet": func() error { return gateway(e.p.Subnet, "10.0.1.254") },
		"the gateway of a subnet in use": func() error { return gateway(e.shared.Subnet, "10.0.2.254") },
		"another name":                   func() error { n := made; n.Name = "other"; _, err := e.own.UpdateSubnet(ctx, n); return err },
		"another prefix": func() error {
			n := made
			n.CIDR = netip.MustParsePrefix("10.0.5.0/25")
			_, err := e.own.UpdateSubnet(ctx, n)
			return err
		},
		"people's subnet to go by itself": func() error { n := e.p.Subnet; n.DockerOwned = true; _, err := e.own.UpdateSubnet(ctx, n); return err },
	} {
		if err := try(); !errors.Is(err, tenant.ErrDenied) && !errors.Is(err, tenant.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
		if after := dump(t, e.s); after != before {
			t.Fatalf("%s changed:\n%s\nto\n%s", name, before, after)
		}
	}

	if err := gateway(made, "10.0.5.254"); err != nil {
		t.Fatal(err)
	}
	p, err := e.own.EnsurePath(ctx, sp)
	if err == nil {
		p.Subnet.DockerOwned = false
		_, err = e.own.UpdateSubnet(ctx, p.Subnet)
	}
	if err != nil {
		t.Fatal(err)
	}
	if p, err = e.s.EnsurePath(ctx, sp); err != nil || p.Subnet.Gateway.String() != "10.0.5.254" || p.Subnet.DockerOwned {
		t.Errorf("%+v, %v", p.Subnet, err)
	}
	if err := gateway(p.Subnet, "10.0.5.253"); !errors.Is(err, tenant.ErrDenied) {
		t.Errorf("the gateway of a subnet that is to stay: %v", err)
	}
}
