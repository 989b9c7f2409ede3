package tenant

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const app1 = `# two domains' worth of comments
enterprise: DCEnterprise
description: the data centre
domains:
  - name: App1
    zones:
      - name: DockerZone
        subnets: [{name: PrivateSubnet, address: 10.85.85.0/24}]
      - name: VMZone
        description: virtual machines
        subnets:
          - {name: VMSubnet, address: 10.34.49.0/24, gateway: 10.34.49.254}
---
---
enterprise: Other
domains: [{name: App1, zones: [{name: 10, subnets: [{name: on, address: 10.85.85.0/24}]}]}]
`

func TestParseDocuments(t *testing.T) {
	docs, err := ParseDocuments([]byte(app1))
	if err != nil {
		t.Fatal(err)
	}
	if len(docs) != 2 || docs[0].Enterprise != "DCEnterprise" || *docs[0].Description != "the data centre" {
		t.Fatalf("documents: %+v", docs)
	}
	vm := docs[0].Domains[0].Zones[1]
	if vm.Name != "VMZone" || *vm.Description != "virtual machines" || vm.Line != 9 {
		t.Errorf("zone: %+v", vm)
	}
	want := SubnetEntry{Name: "VMSubnet", Address: netip.MustParsePrefix("10.34.49.0/24"), Gateway: netip.MustParseAddr("10.34.49.254"), Line: 12}
	if vm.Subnets[0] != want {
		t.Errorf("subnet: %+v, want %+v", vm.Subnets[0], want)
	}
	if z := docs[1].Domains[0].Zones[0]; z.Name != "10" || z.Subnets[0].Name != "on" {
		t.Errorf("a bare number or word is not taken as a name: %+v", z)
	}
}

func TestParseDocumentsRefuses(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "no document"},
		{"only separators", "---\n---\n# nothing\n", "no document"},
		{"not YAML", "enterprise: [", "line 1"},
		{"a binary file", "\x00\x01", "the file is not YAML: control characters"},
		{"a scalar", "hello", `line 1: a document must have keys (enterprise …), found "hello"`},
		{"no enterprise", "domains: []", `line 1: a document needs the key "enterprise"`},
		{"unknown key", "enterprise: E\ndomains:\n- name: D\n  zone: []", `line 4: a domain has no key "zone": it has description, name, policies, policyGroups, rateLimiters, zones`},
		{"tabs", "enterprise: E\ndomains:\n\t- name: D", `the file is not YAML: line 3: found character that cannot start any token (line 3 is indented by a tab: only spaces count)`},
		{"key twice", "enterprise: E\nenterprise: F", `line 2: key "enterprise" is given twice`},
		{"null name", "enterprise: ~", "line 1: enterprise must be text, found nothing"},
		{"list as name", "enterprise: [a]", "enterprise must be text, found a list"},
		{"mapping as list", "enterprise: E\ndomains: {name: D}", "line 2: domains must be a list"},
		{"bad address", "enterprise: E\ndomains: [{name: D, zones: [{name: Z, subnets: [{name: S, address: 10.0.0.0}]}]}]", `address "10.0.0.0" is not a network`},
		{"bad gateway", "enterprise: E\ndomains: [{name: D, zones: [{name: Z, subnets: [{name: S, address: 10.0.0.0/8, gateway: x}]}]}]", `gateway "x" is not an address`},
		{"no address", "enterprise: E\ndomains: [{name: D, zones: [{name: Z, subnets: [{name: S}]}]}]", `a subnet needs the key "address"`},
		{"alias", "enterprise: &e E\ndomains: [{name: *e}]", "aliases are not part of this format"},
		{"second document", "enterprise: E\n---\nfoo: 1\nenterprise: F", `line 3: a document has no key "foo"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseDocuments([]byte(c.text))
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestParseDocumentsReportsAll(t *testing.T) {
	_, err := ParseDocuments([]byte("enterprise: E\nfoo: 1\ndomains:\n- {name: D, bar: 2}\n- {zones: x}"))
	for _, want := range []string{`line 2: a document has no key "foo"`, `line 4: a domain has no key "bar"`, "line 5: zones must be a list", `line 5: a domain needs the key "name"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q:\n%v", want, err)
		}
	}
}

func FuzzParseDocuments(f *testing.F) {
	f.Add(app1)
	f.Add(threeTiers)
	f.Add("enterprise: &a {x: *a}\n--- !!binary |\n x")
	f.Add("%YAML 1.2\n--- ? [a]: b\n<<: {c: d}")
	f.Fuzz(func(t *testing.T, text string) {
		docs, err := ParseDocuments([]byte(text))
		if err != nil {
			return
		}
		Plan(NewState(), docs, counter())
		out, err := FormatDocuments(docs)
		if err != nil {
			t.Fatalf("format: %v", err)
		}
		again, err := ParseDocuments(out)
		if err != nil {
			t.Fatalf("our own text is refused: %v\n%s", err, out)
		}
		if a, b := plain(docs), plain(again); a != b {
			t.Fatalf("round trip:\n%s\n%s", a, b)
		}
	})
}

func counter() func() string {
	n := 0
	return func() string { n++; return fmt.Sprintf("00000000-0000-0000-0000-%012d", n) }
}

func mustParse(t fataler, text string) []Document {
	t.Helper()
	docs, err := ParseDocuments([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

func paths(steps []Step) []string {
	var ps []string
	for _, s := range steps {
		ps = append(ps, fmt.Sprintf("%s %s %s (%s)", s.Op, s.Kind, s.Path, s.Detail))
	}
	return ps
}

func TestPlan(t *testing.T) {
	s := NewState()
	steps, err := Plan(s, mustParse(t, app1), counter())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`create enterprises DCEnterprise (description "the data centre")`,
		`create domains DCEnterprise/App1 ()`,
		`create zones DCEnterprise/App1/DockerZone ()`,
		`create subnets DCEnterprise/App1/DockerZone/PrivateSubnet (10.85.85.0/24, gateway 10.85.85.1)`,
		`create zones DCEnterprise/App1/VMZone (description "virtual machines")`,
		`create subnets DCEnterprise/App1/VMZone/VMSubnet (10.34.49.0/24, gateway 10.34.49.254)`,
		`create enterprises Other ()`,
		`create domains Other/App1 ()`,
		`create zones Other/App1/10 ()`,
		`create subnets Other/App1/10/on (10.85.85.0/24, gateway 10.85.85.1)`,
	}
	if got := paths(steps); !slices.Equal(got, want) {
		t.Fatalf("steps:\n%s", strings.Join(got, "\n"))
	}
	if len(s.Enterprises) != 0 {
		t.Error("planning changed the state")
	}
	execute(s, steps)
	if again, err := Plan(s, mustParse(t, app1), counter()); err != nil || len(again) != 0 {
		t.Errorf("the same again: %v, %v", paths(again), err)
	}
}

// planned is the state after app1.
func planned(t *testing.T) *State {
	s := NewState()
	steps, err := Plan(s, mustParse(t, app1), counter())
	if err != nil {
		t.Fatal(err)
	}
	execute(s, steps)
	return s
}

func subnetOf(s *State, name string) *Subnet {
	for _, n := range s.Subnets {
		if n.Name == name {
			return n
		}
	}
	return nil
}

const inZone = "enterprise: DCEnterprise\ndomains:\n- name: App1\n  zones:\n  - name: %s\n    subnets:\n    - %s\n"

func TestPlanChanges(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"description", "enterprise: DCEnterprise\ndescription: new", `update enterprises DCEnterprise (description "new")`},
		{"description away", "enterprise: DCEnterprise\ndescription:", `update enterprises DCEnterprise (description "")`},
		{"cidr of an unused subnet", fmt.Sprintf(inZone, "VMZone", "{name: VMSubnet, address: 10.34.48.0/23}"),
			"update subnets DCEnterprise/App1/VMZone/VMSubnet (10.34.48.0/23, gateway 10.34.48.1)"},
		{"gateway of an unused subnet", fmt.Sprintf(inZone, "VMZone", "{name: VMSubnet, address: 10.34.49.0/24, gateway: 10.34.49.1}"),
			"update subnets DCEnterprise/App1/VMZone/VMSubnet (gateway 10.34.49.1)"},
		{"gateway not mentioned", fmt.Sprintf(inZone, "VMZone", "{name: VMSubnet, address: 10.34.49.0/24}"), ""},
		{"docker's subnet adopted", fmt.Sprintf(inZone, "DockerZone", "{name: docker, address: 172.18.0.0/16}"),
			"update subnets DCEnterprise/App1/DockerZone/docker (kept when its last network goes)"},
		{"description of a used subnet", fmt.Sprintf(inZone, "DockerZone", "{name: PrivateSubnet, address: 10.85.85.0/24, description: x}"),
			`update subnets DCEnterprise/App1/DockerZone/PrivateSubnet (description "x")`},
		{"range freed by the subnet before", fmt.Sprintf(inZone, "VMZone", "{name: VMSubnet, address: 10.35.0.0/24}\n    - {name: new, address: 10.34.49.0/24}"),
			"update subnets DCEnterprise/App1/VMZone/VMSubnet (10.35.0.0/24, gateway 10.35.0.1)\ncreate subnets DCEnterprise/App1/VMZone/new (10.34.49.0/24, gateway 10.34.49.1)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := inUse(t)
			steps, err := Plan(s, mustParse(t, c.text), counter())
			if got := strings.Join(paths(steps), "\n"); err != nil || got != c.want {
				t.Errorf("steps:\n%s\nwant:\n%s\nerror: %v", got, c.want, err)
			}
		})
	}
}

const dockers = "00000000-0000-0000-0000-0000000000dd"

// inUse is the state after app1 with a vport in PrivateSubnet and a subnet of Docker's.
func inUse(t *testing.T) *State {
	s := planned(t)
	private := subnetOf(s, "PrivateSubnet")
	s.Apply(Change{Key{KindVport, "v"}, &Vport{Meta: Meta{ID: "v"}, DomainID: private.DomainID, ZoneID: private.ZoneID, SubnetID: private.ID}})
	s.Apply(Change{Key{KindSubnet, dockers}, &Subnet{Meta: Meta{ID: dockers}, DomainID: private.DomainID, ZoneID: private.ZoneID, Name: "docker",
		CIDR: netip.MustParsePrefix("172.18.0.0/16"), Gateway: netip.MustParseAddr("172.18.0.1"), DockerOwned: true}})
	return s
}

func TestPlanRefuses(t *testing.T) {
	for _, c := range []struct {
		name, text, want string
		is               error
	}{
		{"cidr of a used subnet", fmt.Sprintf(inZone, "DockerZone", "{name: PrivateSubnet, address: 10.85.0.0/16}"),
			"line 7: DCEnterprise/App1/DockerZone: subnet PrivateSubnet: it is 10.85.85.0/24 with gateway 10.85.85.1, which cannot change while it has 1 vports", ErrConflict},
		{"gateway of a used subnet", fmt.Sprintf(inZone, "DockerZone", "{name: PrivateSubnet, address: 10.85.85.0/24, gateway: 10.85.85.9}"), "cannot change while", ErrConflict},
		{"overlap with the state", fmt.Sprintf(inZone, "VMZone", "{name: x, address: 10.85.0.0/16}"), "subnet x: 10.85.0.0/16 overlaps subnet PrivateSubnet (10.85.85.0/24)", ErrConflict},
		{"overlap from inside", fmt.Sprintf(inZone, "VMZone", "{name: x, address: 10.85.85.128/25}"), "overlaps subnet PrivateSubnet", ErrConflict},
		{"overlap in the file", fmt.Sprintf(inZone, "VMZone", "{name: x, address: 10.1.0.0/16}\n    - {name: y, address: 10.1.2.0/24}"), "line 8: DCEnterprise/App1/VMZone: subnet y: 10.1.2.0/24 overlaps subnet x (10.1.0.0/16)", ErrConflict},
		{"host bits", fmt.Sprintf(inZone, "VMZone", "{name: x, address: 10.1.0.1/16}"), "subnet x: 10.1.0.1/16 has host bits set; its prefix is 10.1.0.0/16", ErrInvalid},
		{"IPv6", fmt.Sprintf(inZone, "VMZone", "{name: x, address: fd00::/64}"), "not an IPv4 prefix", ErrInvalid},
		{"foreign gateway", fmt.Sprintf(inZone, "VMZone", "{name: x, address: 10.1.0.0/16, gateway: 10.2.0.1}"), "gateway: 10.2.0.1 is not in 10.1.0.0/16", ErrInvalid},
		{"twice", fmt.Sprintf(inZone, "VMZone", "{name: x, address: 10.1.0.0/16}\n    - {name: x, address: 10.1.0.0/16}"), "line 8: DCEnterprise/App1/VMZone: subnet x: defined twice, first in line 7", ErrInvalid},
		{"two descriptions", "enterprise: DCEnterprise\ndescription: a\n---\nenterprise: DCEnterprise\ndescription: b", "defined twice", ErrInvalid},
		{"name", "enterprise: E\ndomains: [{name: " + strings.Repeat("x", 300) + "}]", "line 2: E: domain xxx", ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			steps, err := Plan(inUse(t), mustParse(t, c.text), counter())
			if !errors.Is(err, c.is) || !strings.Contains(fmt.Sprint(err), c.want) || steps != nil {
				t.Errorf("steps %v, error %v, want %q", paths(steps), err, c.want)
			}
		})
	}
}

func TestPlanReportsAll(t *testing.T) {
	_, err := Plan(inUse(t), mustParse(t, fmt.Sprintf(inZone, "VMZone", "{name: x, address: 10.85.0.0/16}\n    - {name: y, address: 10.1.0.1/16}")), counter())
	for _, want := range []string{"line 7: DCEnterprise/App1/VMZone: subnet x", "line 8: DCEnterprise/App1/VMZone: subnet y"} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("error does not say %q:\n%v", want, err)
		}
	}
}

func TestExport(t *testing.T) {
	text, err := FormatDocuments(Export(inUse(t), ""))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/export.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != string(want) {
		t.Errorf("export:\n%s", text)
	}
	if got := Export(inUse(t), "nosuch"); got != nil {
		t.Errorf("export of a domain that is not there: %v", got)
	}
}

// TestExportRebuilds holds Export, FormatDocuments, ParseDocuments and Plan to each
// other: what was exported rebuilds an equal state, and changes nothing in its own.
func TestExportRebuilds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genState(t)
		text, err := FormatDocuments(Export(s, ""))
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Enterprises) == 0 {
			return
		}
		docs, err := ParseDocuments(text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if steps, err := Plan(s, docs, counter()); err != nil || len(steps) > 0 {
			t.Fatalf("an export changes its own state: %v %v", paths(steps), err)
		}
		fresh := NewState()
		steps, err := Plan(fresh, docs, counter())
		if err != nil {
			t.Fatal(err)
		}
		execute(fresh, steps)
		if again, err := FormatDocuments(Export(fresh, "")); err != nil || string(again) != string(text) {
			t.Fatalf("rebuilt (%v):\n%s\nfrom:\n%s", err, again, text)
		}
	})
}
