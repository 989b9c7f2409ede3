package vsd

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"nuage/controller/tenant"
)

const app1 = `
enterprise: DCEnterprise
domains:
  - name: App1
    zones:
      - {name: DockerZone, subnets: [{name: PrivateSubnet, address: 10.85.85.0/24}]}
      - {name: VMZone, subnets: [{name: VMSubnet, address: 10.34.49.0/24}]}
---
enterprise: Other
domains:
  - {name: App1, zones: [{name: Z, subnets: [{name: S, address: 10.85.85.0/24}]}]}
`

// apply is a POST of a file and its answer.
func (b *bench) apply(want int, query, text string) Applied {
	b.t.Helper()
	status, _, answer := b.call("POST", "/nuage/v1/apply"+query, text)
	var a Applied
	if err := json.Unmarshal([]byte(answer), &a); err != nil || status != want {
		b.t.Fatalf("apply: status %d, want %d: %v: %s", status, want, err, answer)
	}
	return a
}

func (b *bench) revision() int64 {
	b.t.Helper()
	revision, err := b.store.Revision(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return revision
}

func TestApply(t *testing.T) {
	b := newBench(t)
	if a := b.apply(200, "?dryRun=true", app1); len(a.Changes) != 10 || a.Done != 0 || !a.DryRun {
		t.Errorf("dry run: %+v", a)
	}
	if got := b.objects(200, "GET", "enterprises", ""); len(got) != 0 {
		t.Fatalf("a dry run made %v", got)
	}
	a := b.apply(200, "", app1)
	want := Change{"create", "subnets", "DCEnterprise/App1/DockerZone/PrivateSubnet", "10.85.85.0/24, gateway 10.85.85.1"}
	if len(a.Changes) != 10 || a.Done != 10 || a.Changes[3] != want {
		t.Errorf("apply: %+v", a)
	}
	if a := b.apply(200, "", app1); len(a.Changes) != 0 || a.Changes == nil || a.Done != 0 {
		t.Errorf("the same again: %+v", a)
	}
	b.apply(200, "", "enterprise: DCEnterprise\ndescription: new")
	_, _, text := b.call("GET", "/nuage/v1/export", "")
	golden, err := os.ReadFile("testdata/export.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if text != string(golden) {
		t.Errorf("export:\n%s", text)
	}
	if a := b.apply(200, "", text); len(a.Changes) != 0 {
		t.Errorf("the export changes its own state: %+v", a)
	}
	fresh := newBench(t)
	fresh.apply(200, "", text)
	if _, _, again := fresh.call("GET", "/nuage/v1/export", ""); again != text {
		t.Errorf("the export rebuilds:\n%s", again)
	}
	if _, _, one := b.call("GET", "/nuage/v1/export?domain=App1&enterprise=Other", ""); !strings.HasPrefix(one, "enterprise: Other\n") || strings.Contains(one, "DCEnterprise") {
		t.Errorf("export of one domain:\n%s", one)
	}
	if status, _, _ := b.call("GET", "/nuage/v1/export?domain=nosuch", ""); status != 404 {
		t.Errorf("export of no domain: %d", status)
	}
}

func TestApplyRefuses(t *testing.T) {
	b := newBench(t)
	b.apply(200, "", app1)
	revision := b.revision()
	for _, c := range []struct {
		status      int
		query, text string
		want        string
	}{
		{400, "", "enterprise: New\ndomains: [{name: D, policies: [{name: p, direction: in, priority: 1}]}]", "line 2: direction"},
		{400, "", "enterprise: New\n---\nenterprise: \"a\\u0007\"", "unprintable"},
		{400, "", "", "no document"},
		{400, "?dryRun=maybe", "enterprise: New", "neither true nor false"},
		{400, "?dry_run=true", "enterprise: New", "unknown parameter"},
		{409, "", "enterprise: New\n---\n" + `{enterprise: Other, domains: [{name: App1, zones: [{name: Z, subnets: [{name: T, address: 10.85.0.0/16}]}]}]}`, "overlaps subnet S (10.85.85.0/24)"},
		{400, "", "enterprise: " + strings.Repeat("x", maxBody), "larger than"},
	} {
		if a := b.apply(c.status, c.query, c.text); !strings.Contains(a.Error, c.want) {
			t.Errorf("%.60q: %q, want %q", c.text, a.Error, c.want)
		}
	}
	if now := b.revision(); now != revision {
		t.Errorf("a refused file moved the state from revision %d to %d", revision, now)
	}
}

func TestViews(t *testing.T) {
	b := newBench(t)
	b.apply(200, "", app1)
	s, err := b.store.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var subnet tenant.Subnet
	for _, n := range s.Subnets {
		if n.Name == "PrivateSubnet" {
			subnet = *n
		}
	}
	v := b.attach(subnet.ID, "web-1", "10.85.85.7", "nu1")
	db := b.attach(subnet.ID, "db-1", "10.85.85.8", "")
	db.Owner.ContainerName = "database"
	if _, err := b.store.UpdateVport(t.Context(), db); err != nil {
		t.Fatal(err)
	}
	id := strings.Repeat("ab", 32)
	net := tenant.Network{Meta: tenant.Meta{ID: id}, Name: "web", Host: "h1", DomainID: subnet.DomainID, ZoneID: subnet.ZoneID, SubnetID: subnet.ID, Mode: tenant.AddressTenant, CIDR: subnet.CIDR}
	if err := b.store.PutNetwork(t.Context(), net); err != nil {
		t.Fatal(err)
	}
	if err := b.store.PutHost(t.Context(), tenant.Host{Meta: tenant.Meta{ID: "h1"}, Name: "h1", VTEP: netip.MustParseAddr("192.0.2.1"), Version: "1"}); err != nil {
		t.Fatal(err)
	}
	view := func(path string) (names []string, list []map[string]any) {
		t.Helper()
		status, _, text := b.call("GET", "/nuage/v1/"+path, "")
		if err := json.Unmarshal([]byte(text), &list); err != nil || status != 200 {
			t.Fatalf("%s: %d %s", path, status, text)
		}
		for _, m := range list {
			name, ok := m["name"].(string)
			if !ok {
				name = m["id"].(string)
			}
			names = append(names, name)
		}
		return names, list
	}
	for path, want := range map[string][]string{
		"enterprises":                   {"DCEnterprise", "Other"},
		"domains":                       {"App1", "App1"},
		"domains?enterprise=Other":      {"App1"},
		"zones?domain=App1":             {"DockerZone", "VMZone", "Z"},
		"subnets":                       {"PrivateSubnet", "VMSubnet", "S"},
		"subnets?zone=VMZone":           {"VMSubnet"},
		"subnets?name=" + subnet.ID:     {"PrivateSubnet"},
		"subnets?name=nosuch":           nil,
		"vports":                        {"db-1", "web-1"},
		"vports?name=web-1&domain=App1": {"web-1"},
		"vports?name=database":          {"db-1"},
		"vports?enterprise=Other":       nil,
		"vports?subnet=PrivateSubnet":   {"db-1", "web-1"},
		"networks":                      {"web"},
		"networks?name=abababababab":    {"web"},
		"networks?name=web":             {"web"},
		"networks?name=ffff":            nil,
		"hosts":                         {"h1"},
	} {
		if got, _ := view(path); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
	_, vs := view("vports?name=web-1")
	for k, want := range map[string]any{"enterprise": "DCEnterprise", "domain": "App1", "zone": "DockerZone", "subnet": "PrivateSubnet",
		"ipv4": "10.85.85.7", "mac": v.MAC.String(), "state": "up", "host": "h1", "interface": "nu1", "type": "CONTAINER"} {
		if vs[0][k] != want {
			t.Errorf("vport: %s is %v, want %v", k, vs[0][k], want)
		}
	}
	for path, want := range map[string]string{
		"enterprises?name=DCEnterprise":   "domains=1",
		"domains?enterprise=DCEnterprise": "zones=2 subnets=2 vports=2",
		"zones?name=DockerZone":           "subnets=1 vports=2",
		"subnets?name=PrivateSubnet":      "vports=2 networks=1 address=10.85.85.0/24 gateway=10.85.85.1 dockerOwned=false",
		"hosts":                           "vports=2 networks=1 vtep=192.0.2.1",
		"vports?name=db-1":                "state=down",
		"networks":                        "mode=tenant subnet=PrivateSubnet address=10.85.85.0/24",
	} {
		_, list := view(path)
		for _, kv := range strings.Fields(want) {
			k, w, _ := strings.Cut(kv, "=")
			if got := fmt.Sprint(list[0][k]); got != w {
				t.Errorf("%s: %s is %s, want %s", path, k, got, w)
			}
		}
	}
}
