package vsd

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLists(t *testing.T) {
	b := newBench(t)
	e := b.post("enterprises", `{"name":"E"}`)
	d := b.post("enterprises/"+e+"/domains", `{"name":"D"}`)
	for i := range 120 {
		desc := []string{"even", "odd"}[i%2]
		b.post("domains/"+d+"/zones", fmt.Sprintf(`{"name":"z%03d","description":%q}`, i, desc))
	}
	list := func(method string, headers ...string) (names []string, h http.Header) {
		t.Helper()
		status, h, text := b.call(method, "/nuage/api/v6/domains/"+d+"/zones", "null", headers...)
		if status != 200 {
			t.Fatalf("%v: %d %s", headers, status, text)
		}
		if method == "HEAD" {
			if text != "" {
				t.Errorf("HEAD has a body: %s", text)
			}
			return nil, h
		}
		var objects []struct{ Name string }
		if err := json.Unmarshal([]byte(text), &objects); err != nil || !strings.HasPrefix(text, "[") {
			t.Fatalf("%v: %s", err, text)
		}
		for _, o := range objects {
			names = append(names, o.Name)
		}
		return names, h
	}
	names, h := list("GET")
	if len(names) != 50 || h.Get("X-Nuage-Count") != "120" || h.Get("X-Nuage-Page") != "0" || h.Get("X-Nuage-PageSize") != "50" {
		t.Errorf("default page: %d objects, %v", len(names), h)
	}
	var all []string
	for page := range 4 {
		got, _ := list("GET", fmt.Sprintf("X-Nuage-Page: %d", page), "X-Nuage-PageSize: 40")
		all = append(all, got...)
	}
	if slices.Sort(all); len(all) != 120 || len(slices.Compact(all)) != 120 {
		t.Errorf("pages overlap or lack objects: %d", len(all))
	}
	if got, _ := list("GET", "X-Nuage-Page: 9223372036854775807"); len(got) != 0 {
		t.Errorf("a page past the end has %d objects", len(got))
	}
	if _, h := list("HEAD", "X-Nuage-Filter: description == 'odd'"); h.Get("X-Nuage-Count") != "60" {
		t.Errorf("HEAD: %v", h)
	}
	got, h := list("GET", `X-Nuage-Filter: name ENDSWITH "1" and description IS odd`, "X-Nuage-OrderBy: description ASC, name DESC")
	if len(got) != 12 || got[0] != "z111" || got[11] != "z001" || h.Get("X-Nuage-FilterType") != "predicate" || h.Get("X-Nuage-Filter") == "" || h.Get("X-Nuage-OrderBy") == "" {
		t.Errorf("filter and order: %v %v", got, h)
	}
	for filter, want := range map[string]int{"Z11": 10, "EVEN": 60, "nosuch": 0, `nam != "x"`: 0, "name == ": 0} {
		if got, h := list("GET", "X-Nuage-Filter: "+filter, "X-Nuage-PageSize: 500"); len(got) != want || h.Get("X-Nuage-FilterType") != "plain" {
			t.Errorf("plain filter %q: %d objects, want %d; %v", filter, len(got), want, h)
		}
	}
	for _, headers := range [][]string{
		{"X-Nuage-FilterType: predicate", `X-Nuage-Filter: nam != "x"`}, {"X-Nuage-FilterType: predicate", "X-Nuage-Filter: x"},
		{"X-Nuage-Page: -1"}, {"X-Nuage-PageSize: 0"}, {"X-Nuage-PageSize: x"}, {"X-Nuage-OrderBy: nam"}, {"X-Nuage-OrderBy: name UP"},
	} {
		b.refused(409, "", "GET", "zones", "", headers...)
	}
	if got := b.objects(200, "GET", "subnets", ""); len(got) != 0 {
		t.Errorf("no subnets: %v", got)
	}
}

func TestRouting(t *testing.T) {
	b := newBench(t)
	_, d, _, _ := b.tree()
	for _, path := range []string{"", "nosuch", "vports", "enterprises/x/y/z", "domains/" + d + "/nosuch", "domains/" + d + "/enterprises", "nosuch/x/zones", "domains/x/zones"} {
		b.refused(404, "", "GET", path, "")
	}
	b.refused(405, "", "DELETE", "enterprises", "")
	b.refused(405, "", "POST", "me", "{}")
	for _, path := range []string{"/", "/nuage/", "/nuage/v1/nosuch", "/nuage/v1/apply", "/nuage/v1/zones?foo=1", "/nuage/v1/zones?name=a&name=b", "/nuage/v1/status/x"} {
		if status, _, text := b.call("GET", path, ""); status < 400 || status > 405 {
			t.Errorf("GET %s: %d %s", path, status, text)
		}
	}
	me := b.objects(200, "GET", "me", "null")[0]
	if me["userName"] != "csproot" || me["APIKey"] == "" || me["role"] != "CSPROOT" || me["APIKeyExpiry"].(float64) < float64(time.Now().UnixMilli()) {
		t.Errorf("me: %v", me)
	}
}

func TestStoreAway(t *testing.T) {
	b := newBench(t)
	e, _, _, _ := b.tree()
	b.stop()
	for _, c := range [][2]string{{"GET", "enterprises"}, {"GET", "enterprises/" + e}, {"POST", "enterprises"}, {"PUT", "enterprises/" + e}, {"DELETE", "enterprises/" + e}} {
		if text := b.refused(503, "", c[0], c[1], `{"name":"x"}`); text == "" {
			t.Errorf("%v: no reason", c)
		}
	}
	for _, path := range []string{"/nuage/v1/zones", "/nuage/v1/export"} {
		if status, h, text := b.call("GET", path, ""); status != 503 || h.Get("Retry-After") == "" || !strings.Contains(text, `"error"`) {
			t.Errorf("%s: %d %v %s", path, status, h, text)
		}
	}
	if status, h, text := b.call("POST", "/nuage/v1/apply", "enterprise: E"); status != 503 || h.Get("Retry-After") == "" {
		t.Errorf("apply: %d %v %s", status, h, text)
	}
	if _, h, _ := b.call("DELETE", "/nuage/api/v6/enterprises/"+e, ""); h.Get("Retry-After") == "" {
		t.Errorf("VSD's form: %v", h)
	}
	for _, path := range []string{"/nuage/v1/status", "/nuage/v1/version", "/nuage/api/v6/me"} {
		if status, _, text := b.call("GET", path, ""); status != 200 {
			t.Errorf("%s without a store: %d %s", path, status, text)
		}
	}
}
