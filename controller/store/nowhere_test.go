package store

import (
	"errors"
	"testing"

	"github.com/google/uuid"

	"nuage/controller/tenant"
)

func failed(host string) tenant.Vport {
	return tenant.Vport{Meta: tenant.Meta{ID: uuid.NewString()}, Name: "web", Type: tenant.VportContainer, Host: host, Error: "enterprise Nope not found"}
}

func wholeVport(t *testing.T, s *Store, id string) *tenant.Vport {
	t.Helper()
	st, err := s.Read(context10(t))
	if err != nil {
		t.Fatal(err)
	}
	return st.Vports[id]
}

// What could not be attached, for lack of a subnet, is told all the same; by a host that
// another serves, too.
func TestVportInNoSubnet(t *testing.T) {
	t.Parallel()
	e := newEstate(t, true)
	ctx := context10(t)
	for host, s := range map[string]*Store{"h1": e.victim, "serving": e.s} {
		v := failed(host)
		made, err := s.BindVport(ctx, v)
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		if again, err := s.BindVport(ctx, v); err != nil || again.Revision != made.Revision {
			t.Errorf("%s: again: %+v, %v", host, again, err)
		}
		v.Error = "zone Nope not found"
		if _, err := s.BindVport(ctx, v); err != nil {
			t.Errorf("%s: %v", host, err)
		}
		if got := wholeVport(t, s, v.ID); got == nil || got.Error != v.Error || got.Name != "web" || got.Created.IsZero() {
			t.Errorf("%s: read %+v", host, got)
		}
		v.SubnetID = e.p.Subnet.ID
		if _, err := s.BindVport(ctx, v); err == nil {
			t.Errorf("%s: it came into a subnet", host)
		}
		for range 2 {
			if err := s.DeleteVport(ctx, v.ID); err != nil {
				t.Errorf("%s: %v", host, err)
			}
		}
		if got := wholeVport(t, s, v.ID); got != nil {
			t.Errorf("%s: still %+v", host, got)
		}
	}

	v := failed("h1")
	v.Error = ""
	if _, err := e.s.BindVport(ctx, v); !errors.Is(err, tenant.ErrNotFound) && !errors.Is(err, tenant.ErrInvalid) {
		t.Errorf("a vport in no subnet and without an error: %v", err)
	}
	there := e.theirs
	there.SubnetID, there.ZoneID, there.DomainID, there.Error, there.Revision = "", "", "", "x", 0
	there.IPv4 = failed("").IPv4
	if _, err := e.s.BindVport(ctx, there); !errors.Is(err, tenant.ErrConflict) {
		t.Errorf("a vport that leaves its subnet: %v", err)
	}
	if _, err := e.victim.BindVport(ctx, failed("h2")); err == nil {
		t.Error("h1 tells of h2's")
	}
}

func TestEvictionTakesVportsInNoSubnet(t *testing.T) {
	t.Parallel()
	s, _ := start(t, Config{Dir: t.TempDir()})
	ctx := context10(t)
	v := failed("gone")
	if _, err := s.BindVport(ctx, v); err != nil {
		t.Fatal(err)
	}
	if err := s.EvictHost(ctx, "gone", false); err != nil {
		t.Fatal(err)
	}
	if got := wholeVport(t, s, v.ID); got != nil {
		t.Errorf("still %+v", got)
	}
}
