package vsd

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/sirupsen/logrus/hooks/test"

	"nuage/controller/store"
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

// TestEvict follows a host from its first sign of life to its eviction, on a real store.
func TestEvict(t *testing.T) {
	b := newBench(t)
	b.apply(200, "", app1)
	subnet := b.objects(200, "GET", "subnets", "", `X-Nuage-Filter: name == "PrivateSubnet"`)[0]["ID"].(string)
	log, _ := test.NewNullLogger()
	far, stop := run(t, store.Config{Endpoints: []string{b.etcd}, Host: "h2", Log: log})
	vtep := netip.MustParseAddr("192.0.2.2")
	if err := far.PutHost(t.Context(), tenant.Host{Meta: tenant.Meta{ID: "h2"}, Name: "h2", VTEP: vtep, MTU: 9000}); err != nil {
		t.Fatal(err)
	}
	if err := far.Heartbeat(t.Context(), tenant.HostStatus{Version: "2", Programmed: 7}); err != nil {
		t.Fatal(err)
	}
	v := tenant.Vport{Meta: tenant.Meta{ID: uuid.NewString()}, SubnetID: subnet, Name: "web", Type: tenant.VportContainer,
		MAC: tenant.MAC{2, 0, 0, 0, 0, 2}, IPv4: netip.MustParseAddr("10.85.85.9"), Host: "h2", Interface: "nu1"}
	if _, err := far.BindVport(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	look := func(want string) {
		t.Helper()
		var got struct {
			hosts  []HostView
			vports []VportView
			status Status
		}
		for path, into := range map[string]any{"hosts": &got.hosts, "vports": &got.vports, "status": &got.status} {
			if code, _, text := b.call("GET", "/nuage/v1/"+path, ""); code != 200 || json.Unmarshal([]byte(text), into) != nil {
				t.Fatalf("%s: %d %s", path, code, text)
			}
		}
		seen := fmt.Sprintf("%d of %d alive", got.status.HostsAlive, got.status.HostsKnown)
		for _, h := range got.hosts {
			seen += fmt.Sprintf("; %s %s at %s, version %s, MTU %d, revision %d, %d vports", h.Name, h.State, h.VTEP, h.Version, h.MTU, h.Programmed, h.Vports)
			if time.Since(h.Seen) > time.Minute {
				t.Errorf("%s was seen %s", h.Name, h.Seen)
			}
		}
		for _, v := range got.vports {
			seen += fmt.Sprintf("; %s %s", v.Name, v.State)
		}
		if seen != want {
			t.Errorf("%s\nwant %s", seen, want)
		}
	}
	refused := func(path string, want int, reason string) {
		t.Helper()
		if status, _, text := b.call("DELETE", "/nuage/v1/hosts/"+path, ""); status != want || !strings.Contains(text, reason) {
			t.Errorf("DELETE %s: %d %s", path, status, text)
		}
	}
	look("1 of 1 alive; h2 alive at 192.0.2.2, version 2, MTU 9000, revision 7, 1 vports; web up")
	refused("h2", 409, "h2 is alive")
	refused("h2?force=maybe", 400, "neither true nor false")
	refused("h2?forced=true", 400, "unknown parameter")
	refused("h3", 404, "host h3 not found")
	stop()
	look("0 of 1 alive; h2 not alive at 192.0.2.2, version 2, MTU 9000, revision 7, 1 vports; web lost")
	if text := b.refused(409, "", "DELETE", "vports/"+v.ID, ""); !strings.Contains(text, "nuagectl delete host h2") {
		t.Errorf("DELETE of a lost vport: %s", text)
	}
	refused("h2", 204, "")
	look("0 of 0 alive")
	refused("h2", 404, "not found")
}

// TestEvictByForce evicts a host that is alive.
func TestEvictByForce(t *testing.T) {
	b := newBench(t)
	if err := b.store.PutHost(t.Context(), tenant.Host{Meta: tenant.Meta{ID: "h1"}, Name: "h1"}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"h1?force=false": 409, "h1": 409} {
		if status, _, text := b.call("DELETE", "/nuage/v1/hosts/"+path, ""); status != want {
			t.Errorf("DELETE %s: %d %s", path, status, text)
		}
	}
	if status, _, text := b.call("DELETE", "/nuage/v1/hosts/h1?force=true", ""); status != 204 {
		t.Errorf("by force: %d %s", status, text)
	}
	if _, _, text := b.call("GET", "/nuage/v1/hosts", ""); strings.TrimSpace(text) != "[]" {
		t.Errorf("hosts: %s", text)
	}
}
