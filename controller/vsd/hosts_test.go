package vsd

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"nuage/controller/tenant"
)

// fleet is a state with a host of every kind and a vport on each.
func fleet(seen time.Time) *tenant.State {
	s := tenant.NewState()
	put := func(kind tenant.Kind, id string, v any) {
		s.Apply(tenant.Change{Key: tenant.Key{Kind: kind, ID: id}, Value: v})
	}
	put(tenant.KindEnterprise, "e", &tenant.Enterprise{Name: "E"})
	put(tenant.KindDomain, "d", &tenant.Domain{Name: "App1", EnterpriseID: "e"})
	for _, name := range []string{"alive", "dead", "silent"} {
		put(tenant.KindHost, name, &tenant.Host{Name: name, VTEP: netip.MustParseAddr("192.0.2.1"), Version: "1", MTU: 1500})
	}
	for _, name := range []string{"alive", "dead", "silent", "stranger"} {
		put(tenant.KindVport, "v-"+name, &tenant.Vport{Name: "v-" + name, DomainID: "d", Host: name, Interface: "nu1"})
	}
	put(tenant.KindVport, "v-broken", &tenant.Vport{Name: "v-broken", DomainID: "d", Host: "dead", Interface: "nu1", Error: "no"})
	put(tenant.KindVport, "v-detached", &tenant.Vport{Name: "v-detached", DomainID: "d", Host: "dead"})
	s.HostStatus["alive"] = &tenant.HostStatus{Version: "2", Seen: seen, Programmed: 42, Domains: []string{"d", "gone"}, Alive: true}
	s.HostStatus["dead"] = &tenant.HostStatus{Seen: seen}
	s.HostStatus["stranger"] = &tenant.HostStatus{Alive: true}
	return s
}

func TestHostRows(t *testing.T) {
	seen := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	got := map[string]HostView{}
	for _, r := range hostRows(fleet(seen)) {
		v := r.view.(HostView)
		if r.name != v.Name || r.id != v.Name {
			t.Errorf("row %q of %q", r.name, v.Name)
		}
		got[r.name] = v
	}
	for name, want := range map[string]struct {
		state, version string
		seen           time.Time
		programmed     int64
		vports, mtu    int
		domains        []string
	}{
		"alive":    {"alive", "2", seen, 42, 1, 1500, []string{"E/App1", "gone"}},
		"dead":     {"not alive", "1", seen, 0, 3, 1500, nil},
		"silent":   {"unknown", "1", time.Time{}, 0, 1, 1500, nil},
		"stranger": {"alive", "", time.Time{}, 0, 1, 0, nil},
	} {
		v := got[name]
		if v.State != want.state || v.Version != want.version || !v.Seen.Equal(want.seen) || v.Programmed != want.programmed ||
			v.Vports != want.vports || v.MTU != want.mtu || !slices.Equal(v.Domains, want.domains) {
			t.Errorf("%s: %+v, want %+v", name, v, want)
		}
	}
	if len(got) != 4 {
		t.Errorf("%d hosts", len(got))
	}
}

func TestVportStates(t *testing.T) {
	s := fleet(time.Now())
	for _, r := range vportRows(s) {
		want := map[string][2]string{"v-alive": {"up", "UP"}, "v-dead": {"lost", "DOWN"}, "v-silent": {"up", "UP"}, "v-stranger": {"up", "UP"},
			"v-broken": {"failed", "DOWN"}, "v-detached": {"down", "INIT"}}[r.id]
		vsd, _ := vports.find(s, r.id)
		if words, _ := vsd.value(s, "operationalState"); r.view.(VportView).State != want[0] || words != want[1] {
			t.Errorf("%s: %s and %s, want %v", r.id, r.view.(VportView).State, words, want)
		}
	}
}
