package store

import (
	"errors"
	"testing"

	"nuage/controller/tenant"
)

// A vport made for a machine to come goes from host to host with its address, and stays
// when each of them has lost it; only one has it at a time.
func TestLastingVport(t *testing.T) {
	t.Parallel()
	s, _ := runServing(t, Config{})
	ctx := context10(t)
	p := mustPath(t, s, spec("D", "10.0.1.0/24"))
	one, c := far(t, s, "h1"), join(t, s, "h2")
	two, err := run(t, Config{Endpoints: c.Endpoints, TLS: c.TLS, Host: "h2"}) // which is evicted, and says so
	if err != nil {
		t.Fatal(err)
	}
	v := newVport(p.Subnet, "10.0.1.9")
	v.Type, v.Host, v.Interface, v.Lasting, v.ExternalID = tenant.VportVM, "", "", true, "port/1"
	made, err := s.BindVport(ctx, v)
	if err != nil {
		t.Fatal(err)
	}
	lease := func(host string) {
		t.Helper()
		st, err := s.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		have, l := st.Vports[made.ID], st.Leases[tenant.LeaseID(p.Subnet.ID, "10.0.1.9")]
		if have == nil || have.Host != host || (have.Interface == "") != (host == "") || l == nil || l.VportID != made.ID || l.State != tenant.LeaseBound || l.Host != host {
			t.Fatalf("want it on %q: vport %+v, lease %+v", host, have, l)
		}
	}
	lease("")
	find := func(h *Store, name string) tenant.Vport {
		t.Helper()
		found, err := h.FindVport(ctx, name)
		if err != nil || found.ID != made.ID {
			t.Fatalf("find %s: %+v, %v", name, found, err)
		}
		return found
	}
	attach := func(h *Store, name string) error {
		found := find(h, name)
		found.Host, found.Interface = h.config.Host, "vnet0"
		_, err := h.UpdateVport(ctx, found)
		return err
	}
	detach := func(h *Store) {
		t.Helper()
		found := find(h, made.ID)
		found.Host, found.Interface = "", ""
		if _, err := h.UpdateVport(ctx, found); err != nil {
			t.Fatal(err)
		}
		lease("")
	}
	if err := attach(one, "port/1"); err != nil {
		t.Fatal(err)
	}
	lease("h1")
	if err := attach(two, made.ID); !errors.Is(err, tenant.ErrDenied) {
		t.Errorf("another host takes what h1 has: %v", err)
	}
	lease("h1")
	detach(one)
	stale := find(one, made.ID)
	if err := attach(two, made.ID); err != nil {
		t.Fatal(err)
	}
	lease("h2")
	stale.Host, stale.Interface = "h1", "vnet0"
	if _, err := one.UpdateVport(ctx, stale); !errors.Is(err, tenant.ErrStale) {
		t.Errorf("two at once: %v", err)
	}
	renamed := find(two, made.ID)
	renamed.Name = "other"
	if _, err := two.UpdateVport(ctx, renamed); !errors.Is(err, tenant.ErrDenied) {
		t.Errorf("renamed by the host that has it: %v", err)
	}
	if err := s.EvictHost(ctx, "h2", true); err != nil {
		t.Fatal(err)
	}
	lease("")
	if err := one.DeleteVport(ctx, made.ID); !errors.Is(err, tenant.ErrDenied) {
		t.Errorf("deleted by a host: %v", err)
	}
	own := newVport(p.Subnet, "10.0.1.10")
	own.Host, own.Lasting = "h1", true
	if _, err := one.BindVport(ctx, own); !errors.Is(err, tenant.ErrDenied) {
		t.Errorf("made by a host: %v", err)
	}
	if _, err := one.FindVport(ctx, "port/2"); !errors.Is(err, tenant.ErrNotFound) {
		t.Errorf("nobody's: %v", err)
	}
	if _, err := one.FindVport(ctx, p.Zone.ID); !errors.Is(err, tenant.ErrNotFound) {
		t.Errorf("a zone's ID: %v", err)
	}
	if err := s.DeleteVport(ctx, made.ID); err != nil {
		t.Fatal(err)
	}
	st, _ := s.Read(ctx)
	if l := st.Leases[tenant.LeaseID(p.Subnet.ID, "10.0.1.9")]; l == nil || l.State != tenant.LeaseResting {
		t.Errorf("lease %+v", l)
	}
}
