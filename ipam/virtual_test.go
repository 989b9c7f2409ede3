package ipam

import (
	"testing"

	"nuage/controller/tenant"
)

// A virtual IP is nobody's by chance, while some vport has it; who names it may have it.
func TestVirtualIPsAreNotChosen(t *testing.T) {
	s := realStore(t)
	sub := makeSubnet(t, s, "E", "D", "Z", "web", "10.85.85.0/29") // .2 to .6
	var c clock
	h := NewAllocator(AllocatorConfig{Store: s, Host: "h1", Now: c.now})
	give := func(m int, want, got string) {
		t.Helper()
		r := Request{MAC: mac(m)}
		if want != "" {
			r.Want = addr(want)
		}
		if a, err := h.Allocate(ctx, sub, r); err != nil || a != addr(got) {
			t.Fatalf("allocated %v, %v; want %s", a, err, got)
		}
	}
	var vs []tenant.Vport
	share := func(i int, ips ...string) {
		t.Helper()
		vs[i].VirtualIPs = nil
		for _, ip := range ips {
			vs[i].VirtualIPs = append(vs[i].VirtualIPs, tenant.VirtualIP{IPv4: addr(ip)})
		}
		v, err := s.UpdateVport(ctx, vs[i])
		if err != nil {
			t.Fatal(err)
		}
		vs[i] = v
	}
	give(1, "", "10.85.85.2")
	vs = append(vs, attach(t, s, sub, addr("10.85.85.2"), mac(1), "lb-1", "h1"))
	share(0, "10.85.85.3", "10.85.85.4")
	give(2, "", "10.85.85.5")
	vs = append(vs, attach(t, s, sub, addr("10.85.85.5"), mac(2), "lb-2", "h1"))
	share(1, "10.85.85.3")
	give(3, "10.85.85.4", "10.85.85.4")
	give(4, "", "10.85.85.6")
	share(0)
	_, err := h.Allocate(ctx, sub, Request{MAC: mac(5)})
	mustFail(t, err, tenant.ErrExhausted, "all 5 addresses are in use")
	if err := s.DeleteVport(ctx, vs[1].ID); err != nil {
		t.Fatal(err)
	}
	give(5, "", "10.85.85.3")
}
