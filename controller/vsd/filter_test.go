package vsd

import (
	"encoding/json"
	"strings"
	"testing"

	"nuage/controller/tenant"
)

var object = map[string]any{
	"name": "web one", "vnId": int64(1000), "active": true, "description": nil, "type": "VM", "groups": []string{"web", "db"}, "quote": `say "hi"`,
	"weird": "x)==y",
}

func look(a string) (any, bool) { v, ok := object[a]; return v, ok }

func TestFilter(t *testing.T) {
	for text, want := range map[string]bool{
		`name == "web one"`:               true,
		`name == 'web one'`:               true,
		`name=="web one"`:                 true,
		`name == "Web one"`:               false,
		`name IS 'web one'`:               true,
		`name is 'other'`:                 false,
		`type IS VM`:                      true,
		`type = VM`:                       true,
		`active IS True`:                  true,
		`active == false`:                 false,
		`name != "x"`:                     true,
		`name <> "web one"`:               false,
		`vnId > 999`:                      true,
		`vnId > 1000`:                     false,
		`vnId >= 1000`:                    true,
		`vnId < 9`:                        false, // as numbers, not as text
		`vnId <= 1000.5`:                  true,
		`vnId == "1000"`:                  true,
		`name > "web"`:                    true,
		`name CONTAINS "eb o"`:            true,
		`name contains "EB"`:              false,
		`name BEGINSWITH "web"`:           true,
		`name ENDSWITH "one"`:             true,
		`name ENDSWITH "web"`:             false,
		`vnId BEGINSWITH 10`:              true,
		`name == "web one" and vnId == 1`: false,
		`name == "x" or vnId == 1000`:     true,
		`name == "x" or name == "web one" and vnId == 1`:      false, // and binds tighter
		`(name == "x" or name == "web one") and vnId == 1000`: true,
		`not name == "x"`:                         true,
		`not (name == "web one" or type == VM)`:   false,
		`!(name == "x") && type == VM || vnId==1`: true,
		`not not active is true`:                  true,
		`description == null`:                     true,
		`description == ""`:                       false,
		`description IS NULL and name != null`:    true,
		`description != null`:                     false,
		`name == null`:                            false,
		`name == "null"`:                          false,
		`description CONTAINS "x"`:                false,
		`description != "x"`:                      true,
		`groups == "db"`:                          true,
		`groups == "x"`:                           false,
		`quote == 'say "hi"'`:                     true,
		`weird == "x)==y"`:                        true,
		`name == "and"`:                           false,
		`nosuch == "x"`:                           false,
	} {
		p, err := parseFilter(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := p.match(look); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestFilterRefuses(t *testing.T) {
	for text, want := range map[string]string{
		``:                                  "expected an attribute, found the end",
		`VSPK_GO_Profile`:                   "expected an operator",
		`name ==`:                           "expected a value, found the end",
		`name == )`:                         `expected a value, found ")"`,
		`"name" == x`:                       `expected an attribute, found "name"`,
		`(name == x`:                        "expected ), found the end",
		`name == x y`:                       `expected and, or, or the end, found "y"`,
		`name == x and`:                     "expected an attribute",
		`not`:                               "expected an attribute",
		`name == 'x`:                        "not closed",
		`'name == x`:                        "not closed",
		`name == x and 'y`:                  "not closed",
		`name == x ''`:                      "expected and, or",
		`name "==" x`:                       "expected an operator",
		strings.Repeat("(", maxFilter+1):    "longer than",
		strings.Repeat("not ", maxFilter/4): "expected an attribute",
	} {
		if _, err := parseFilter(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: error %v, want %q", text, err, want)
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add(`(name == "x" or not vnId >= 10) and description IS null`)
	f.Add("name == 'x\xff")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parseFilter(text)
		if (p == nil) == (err == nil) {
			t.Fatalf("predicate %v, error %v", p, err)
		}
		if p == nil {
			return
		}
		if not(not{p}).match(look) == p.match(look) {
			t.Fatalf("%q matches as its negation does", text)
		}
		p.attributes(func(a string) {
			if a == "" {
				t.Fatalf("%q: empty attribute", text)
			}
		})
	})
}

func FuzzBody(f *testing.F) {
	f.Add(`{"name":"x","address":"10.0.0.0","netmask":"255.255.255.0","gateway":null,"vnId":12,"externalID":true}`)
	f.Add(`{"netmask":"0.0.0.0","address":null}`)
	f.Fuzz(func(t *testing.T, text string) {
		b := body{}
		if json.Unmarshal([]byte(text), &b) != nil {
			return
		}
		var n tenant.Subnet
		if subnets.assign(&n, b) == nil && !n.CIDR.IsValid() {
			t.Fatalf("%s makes a subnet without a CIDR", text)
		}
		enterprises.assign(new(tenant.Enterprise), b)
		domains.assign(new(tenant.Domain), b)
		zones.assign(new(tenant.Zone), b)
		vports.assign(new(tenant.Vport), b)
	})
}
