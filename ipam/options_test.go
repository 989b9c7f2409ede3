package ipam

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"nuage/controller/tenant"
)

func TestParseOptions(t *testing.T) {
	for _, c := range []struct {
		name  string
		given map[string]string
		want  Options
		err   string
	}{
		{"nothing", nil, Options{}, ""},
		{"all", map[string]string{"enterprise": "E", "domain": "D", "zone": "Z", "subnet": "S", "user": "u", "policy-group": "web, db,web", "mtu": "9000"},
			Options{"E", "D", "Z", "S", "u", []string{"db", "web"}, 9000}, ""},
		{"alias", map[string]string{"organization": "E"}, Options{Enterprise: "E"}, ""},
		{"alias and name agree", map[string]string{"organization": "E", "enterprise": "E"}, Options{Enterprise: "E"}, ""},
		{"alias and name differ", map[string]string{"organization": "E", "enterprise": "F"}, Options{}, `option enterprise is said twice, as "F" and as "E"`},
		{"prefixes", map[string]string{"nuage.domain": "D", "NUAGE-ZONE": "Z", "NUAGE-NETWORK": "S", "nuage.policy-group": "g"},
			Options{Domain: "D", Zone: "Z", Subnet: "S", PolicyGroups: []string{"g"}}, ""},
		{"docker's own", map[string]string{"com.docker.network.ipam.serial": "true", "RequestAddressType": "com.docker.network.gateway", "domain": "D"}, Options{Domain: "D"}, ""},
		{"spaces around", map[string]string{"domain": " App 1 "}, Options{Domain: "App 1"}, ""},
		{"no user's name", map[string]string{"user": "a\x1bb"}, Options{}, `option user: the name "a\x1bb" contains the unprintable character U+001B`},
		{"unknown", map[string]string{"domian": "D"}, Options{}, `unknown option "domian": known are domain, enterprise (or organization), mtu, policy-group, subnet, user, zone`},
		{"network without prefix", map[string]string{"network": "D"}, Options{}, `unknown option "network"`},
		{"unprintable unknown", map[string]string{"a\x1b[31m\nb": "D"}, Options{}, `unknown option "a\x1b[31m\nb"`},
		{"empty", map[string]string{"domain": " "}, Options{}, "option domain: the value is empty"},
		{"empty group", map[string]string{"policy-group": "a,,b"}, Options{}, "has an empty name"},
		{"empty groups", map[string]string{"policy-group": ""}, Options{}, "has an empty name"},
		{"mtu word", map[string]string{"mtu": "big"}, Options{}, `option mtu: "big" is not a number from 576 to 65535`},
		{"mtu low", map[string]string{"mtu": "575"}, Options{}, "not a number"},
		{"mtu high", map[string]string{"mtu": "65536"}, Options{}, "not a number"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseOptions(c.given)
			mustFail(t, err, tenant.ErrInvalid, c.err)
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestMerge(t *testing.T) {
	full := Options{"E", "D", "Z", "S", "u", []string{"a"}, 1400}
	for _, c := range []struct {
		name       string
		a, b, want Options
		err        string
	}{
		{"both empty", Options{}, Options{}, Options{}, ""},
		{"left only", full, Options{}, full, ""},
		{"right only", Options{}, full, full, ""},
		{"same", full, full, full, ""},
		{"halves", Options{Enterprise: "E", Domain: "D", Zone: "Z", MTU: 1400}, Options{Subnet: "S", User: "u", PolicyGroups: []string{"a"}}, full, ""},
		{"enterprise", full, Options{Enterprise: "X"}, Options{}, `enterprise is said twice, as "E" and as "X"`},
		{"domain", full, Options{Domain: "X"}, Options{}, "domain"},
		{"zone", full, Options{Zone: "X"}, Options{}, "zone"},
		{"subnet", full, Options{Subnet: "X"}, Options{}, "subnet"},
		{"user", full, Options{User: "X"}, Options{}, "user"},
		{"groups", full, Options{PolicyGroups: []string{"a", "b"}}, Options{}, `policy-group is said twice, as "a" and as "a,b"`},
		{"mtu", full, Options{MTU: 1500}, Options{}, `mtu is said twice, as "1400" and as "1500"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Merge(c.a, c.b)
			mustFail(t, err, tenant.ErrInvalid, c.err)
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// mustFail checks that err is of the class and has the text; no text wants no error.
func mustFail(t *testing.T, err, class error, text string) {
	t.Helper()
	switch {
	case text == "" && err != nil:
		t.Fatalf("unexpected error: %v", err)
	case text == "":
	case err == nil:
		t.Fatalf("no error, want one with %q", text)
	case !strings.Contains(err.Error(), text):
		t.Errorf("error %q has no %q", err, text)
	case !errors.Is(err, class):
		t.Errorf("error %q is not of class %v", err, class)
	}
}
