package vsd

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"nuage/controller/tenant"
)

const guarded = `
enterprise: DCEnterprise
networkMacros: [{name: corp, address: 192.0.2.0/24}]
domains:
  - name: App1
    zones:
      - {name: DockerZone, subnets: [{name: PrivateSubnet, address: 10.85.85.0/24}]}
      - {name: VMZone, subnets: [{name: VMSubnet, address: 10.34.49.0/24}]}
    policyGroups: [web, db]
    policies:
      - name: to-db
        direction: egress
        priority: 100
        entries:
          - {priority: 10, action: FORWARD, protocol: tcp, destinationPort: 5432, from: {policyGroup: web}, to: {policyGroup: db}, statsLogging: true}
          - {priority: 20, action: DROP}
    rateLimiters: [{on: {zone: DockerZone}, direction: ingress, rate: 100mbit}]
`

// find is the ID of the view of a name.
func (b *bench) find(kind, name string) string {
	b.t.Helper()
	var list []struct{ ID string }
	status, _, text := b.call("GET", "/nuage/v1/"+kind+"?name="+url.QueryEscape(name), "")
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) != 1 {
		b.t.Fatalf("%s %s: %d %s", kind, name, status, text)
	}
	return list[0].ID
}

func TestApplyPolicies(t *testing.T) {
	b := newBench(t)
	if a := b.apply(200, "?dryRun=true", guarded); a.Done != 0 || len(a.Changes) != 14 {
		t.Errorf("dry run: %+v", a)
	}
	b.apply(200, "", guarded)
	if a := b.apply(200, "", guarded); len(a.Changes) != 0 {
		t.Errorf("the same again: %+v", a)
	}
	_, _, text := b.call("GET", "/nuage/v1/export?enterprise=DCEnterprise", "")
	if a := b.apply(200, "", text); len(a.Changes) != 0 {
		t.Errorf("the export changes its own state: %+v", a)
	}
	fresh := newBench(t)
	fresh.apply(200, "", text)
	if _, _, again := fresh.call("GET", "/nuage/v1/export", ""); again != text {
		t.Errorf("the export rebuilds:\n%s\nnot\n%s", again, text)
	}
	swap := `{enterprise: DCEnterprise, domains: [{name: App1, policies: [{name: to-db, direction: egress, priority: 200, entries: [{priority: 10, action: DROP}]}, {name: new, direction: egress, priority: 100}]}]}`
	a := b.apply(200, "", swap)
	if want := (Change{"delete", "entries", "DCEnterprise/App1/to-db/20", "not in the file any more: DROP any, from any to any"}); a.Done != 5 || a.Changes[4] != want {
		t.Errorf("moved aside: %+v", a)
	}
	revision := b.revision()
	bad := `{enterprise: DCEnterprise, domains: [{name: App1, policies: [{name: x, direction: egress, priority: 100, entries: [{priority: 1, action: DROP, from: {policyGroup: nosuch}}]}]}]}`
	if a := b.apply(400, "", bad); !strings.Contains(a.Error, "policy group nosuch not found in domain App1") || !strings.Contains(a.Error, "priority 100 is that of egress policy new") || b.revision() != revision {
		t.Errorf("a bad file: %+v", a)
	}
}

func TestPolicyResources(t *testing.T) {
	b := newBench(t)
	e, d, z, n := b.tree()
	web, db := b.post("domains/"+d+"/policygroups", `{"name":"web"}`), b.post("domains/"+d+"/policygroups", `{"name":"db","type":"SOFTWARE"}`)
	macro := b.post("enterprises/"+e+"/enterprisenetworks", `{"name":"corp","address":"192.0.2.0","netmask":"255.255.255.0"}`)
	in := b.post("domains/"+d+"/ingressacltemplates", `{"name":"in","active":false}`)
	if second := b.objects(201, "POST", "domains/"+d+"/ingressacltemplates", `{"name":"in2","active":true,"defaultAllowIP":"true"}`)[0]; second["priority"] != 200.0 || second["defaultAllowIP"] != true {
		t.Errorf("second template: %v", second)
	}
	out := b.post("domains/"+d+"/egressacltemplates", `{"name":"out","priority":7}`)
	x := b.objects(201, "POST", "ingressacltemplates/"+in+"/ingressaclentrytemplates", `{"locationType":"POLICYGROUP","locationID":"`+web+`","networkType":"ENTERPRISE_NETWORK","networkID":"`+macro+
		`","destinationPort":"80-90","protocol":6,"stateful":true,"DSCP":"*","ICMPType":null,"priority":null}`)[0]
	for k, want := range map[string]any{"priority": 100.0, "protocol": "6", "destinationPort": "80-90", "sourcePort": "*", "stateful": true, "action": "FORWARD",
		"locationType": "POLICYGROUP", "locationID": web, "networkType": "ENTERPRISE_NETWORK", "networkID": macro, "etherType": "0x0800", "parentType": "ingressacltemplate", "parentID": in, "domainName": "App1"} {
		if x[k] != want {
			t.Errorf("entry: %s is %v, want %v", k, x[k], want)
		}
	}
	s, _ := b.store.Read(t.Context())
	entry := s.Entries[x["ID"].(string)]
	if entry.From != (tenant.Side{Kind: tenant.SidePolicyGroup, ID: web}) || entry.To != (tenant.Side{Kind: tenant.SideNetworkMacro, ID: macro}) {
		t.Errorf("an ingress entry's location is not its sender: %+v", entry)
	}
	y := b.post("egressacltemplates/"+out+"/egressaclentrytemplates", `{"locationType":"POLICYGROUP","locationID":"`+db+`","networkType":"ANY","networkCIDR":"10.0.0.0/8","protocol":"ANY"}`)
	s, _ = b.store.Read(t.Context())
	if got := s.Entries[y]; got.To.ID != db || got.From.CIDR.String() != "10.0.0.0/8" || got.Protocol != tenant.AnyProtocol {
		t.Errorf("an egress entry's location is not its receiver: %+v", got)
	}
	// What is not given stays; what is sent back changes nothing.
	now := b.objects(200, "PUT", "egressaclentrytemplates/"+y, `{"action":"DROP"}`)[0]
	if now["networkCIDR"] != "10.0.0.0/8" || now["locationID"] != db || now["action"] != "DROP" {
		t.Errorf("changed entry: %v", now)
	}
	whole, _ := json.Marshal(now)
	revision := b.revision()
	b.objects(200, "PUT", "egressaclentrytemplates/"+y, string(whole))
	if b.revision() != revision {
		t.Error("an entry sent back as it is was written")
	}
	if now := b.objects(200, "PUT", "egressaclentrytemplates/"+y, `{"networkType":"ENDPOINT_ZONE","networkCIDR":null}`)[0]; now["networkType"] != "ENDPOINT_ZONE" || now["networkCIDR"] != nil {
		t.Errorf("changed side: %v", now)
	}
	// A client that sends every attribute sends null for what it does not name: VSD's default.
	all := b.objects(201, "POST", "ingressacltemplates/"+in+"/ingressaclentrytemplates", `{"ID":null,"action":null,"protocol":null,"sourcePort":null,"destinationPort":null,"ICMPType":null,
		"ICMPCode":null,"DSCP":"*","locationType":null,"locationID":null,"networkType":null,"networkID":null,"addressOverride":null,"stateful":null,"priority":null,"description":null}`)[0]
	for k, want := range map[string]any{"protocol": "6", "action": "FORWARD", "locationType": "ANY", "networkType": "ANY", "destinationPort": "*", "stateful": false, "priority": 200.0} {
		if all[k] != want {
			t.Errorf("entry of nulls: %s is %v, want %v", k, all[k], want)
		}
	}
	if now := b.objects(200, "PUT", "ingressaclentrytemplates/"+all["ID"].(string), `{"protocol":"17"}`)[0]; now["protocol"] != "17" {
		t.Errorf("changed protocol: %v", now)
	}
	if now := b.objects(200, "PUT", "ingressaclentrytemplates/"+all["ID"].(string), `{"protocol":null}`)[0]; now["protocol"] != "17" {
		t.Errorf("a protocol of null widens the entry: %v", now)
	}
	for _, c := range []struct{ property, path, body, want string }{
		{"networkType", "ingressacltemplates/" + in + "/ingressaclentrytemplates", `{"networkType":"NOWHERE"}`, "not known"},
		{"destinationPort", "ingressacltemplates/" + in + "/ingressaclentrytemplates", `{"destinationPort":"90-80"}`, "ends before"},
		{"", "ingressacltemplates/" + in + "/ingressaclentrytemplates", `{"locationType":"POLICYGROUP"}`, "no policyGroup given"},
		{"peak", "zones/" + z + "/qos", `{"peak":"INFINITY"}`, "not a number"},
		{"rateLimitingActive", "zones/" + z + "/qos", `{"peak":"1","rateLimitingActive":false}`, "delete it"},
	} {
		if got := b.refused(409, c.property, "POST", c.path, c.body); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.body, got)
		}
	}
	if got := b.objects(200, "GET", "domains/"+d+"/egressaclentrytemplates", ""); len(got) != 1 {
		t.Errorf("egress entries: %v", got)
	}
	b.refused(404, "", "GET", "egressaclentrytemplates/"+entry.ID, "")
	q := b.objects(201, "POST", "subnets/"+n+"/qos", `{"name":"q","rateLimitingActive":true,"peak":"10","burst":100}`)[0]
	if q["peak"] != "10" || q["burst"] != "100" || q["parentType"] != "subnet" || q["parentID"] != n || q["direction"] != "INGRESS" {
		t.Errorf("qos: %v", q)
	}
	b.post("subnets/"+n+"/qos", `{"peak":0.5,"direction":"EGRESS"}`)
	if got := b.objects(200, "PUT", "qos/"+q["ID"].(string), `{"peak":"20"}`)[0]; got["peak"] != "20" || got["burst"] != "100" {
		t.Errorf("qos: %v", got)
	}
	if s := b.objects(200, "GET", "ingressaclentrytemplates/"+entry.ID+"/statistics", ""); s[0]["statsData"] == nil {
		t.Errorf("statistics: %v", s)
	}
	for _, path := range []string{"egressaclentrytemplates/" + y, "egressacltemplates/" + out, "ingressacltemplates/" + in, "qos/" + q["ID"].(string), "enterprisenetworks/" + macro, "policygroups/" + db} {
		if status, _, text := b.call("DELETE", "/nuage/api/v6/"+path, ""); status != 204 {
			t.Errorf("delete %s: %d %s", path, status, text)
		}
	}
}

// An attribute that is null is as if it were not there when an entry is made, and leaves an
// entry what every entry has: neither may come to allow more than before.
func TestNullWidensNothing(t *testing.T) {
	b := newBench(t)
	_, d, _, n := b.tree()
	in := b.post("domains/"+d+"/ingressacltemplates", `{"name":"in"}`)
	path := "ingressacltemplates/" + in + "/ingressaclentrytemplates"
	entry := b.objects(201, "POST", path, `{"action":null,"protocol":null,"DSCP":null,"sourcePort":null,"locationType":null,"networkType":null,"networkID":null,"stateful":null}`)[0]
	if entry["protocol"] != "6" || entry["action"] != "FORWARD" || entry["DSCP"] != "*" || entry["sourcePort"] != "*" || entry["networkType"] != "ANY" {
		t.Errorf("an entry of nulls: %v", entry)
	}
	entry = b.objects(201, "POST", path, `{"protocol":"17","DSCP":"46","destinationPort":"53"}`)[0]
	for _, nothing := range []string{"null", `""`} {
		now := b.objects(200, "PUT", "ingressaclentrytemplates/"+entry["ID"].(string), fmt.Sprintf(`{"action":%[1]s,"protocol":%[1]s,"DSCP":%[1]s,"locationType":%[1]s,"networkType":%[1]s,"etherType":%[1]s}`, nothing))[0]
		if now["protocol"] != "17" || now["DSCP"] != "46" || now["destinationPort"] != "53" {
			t.Errorf("after a PUT of %s: %v", nothing, now)
		}
	}
	if now := b.objects(200, "PUT", "ingressaclentrytemplates/"+entry["ID"].(string), `{"destinationPort":null}`)[0]; now["destinationPort"] != "*" {
		t.Errorf("a port is not cleared: %v", now)
	}
	v := b.attach(n, "v1", "10.85.85.7", "nu1")
	b.objects(200, "PUT", "vports/"+v.ID, `{"addressSpoofing":"ENABLED"}`)
	if now := b.objects(200, "PUT", "vports/"+v.ID, `{"addressSpoofing":null}`)[0]; now["addressSpoofing"] != "ENABLED" {
		t.Errorf("spoofing after a PUT of null: %v", now["addressSpoofing"])
	}
}

// What would allow or show less, and cannot be done, is refused: without it an entry would
// allow what nobody has allowed.
func TestNarrowerThanCanBe(t *testing.T) {
	b := newBench(t)
	e, d, z, n := b.tree()
	b.refused(409, "encryption", "POST", "enterprises/"+e+"/domains", `{"name":"D","encryption":"ENABLED"}`)
	b.refused(409, "encryption", "PUT", "domains/"+d, `{"encryption":"ENABLED"}`)
	b.refused(409, "encryption", "PUT", "zones/"+z, `{"encryption":"ENABLED"}`)
	b.refused(409, "encryption", "PUT", "subnets/"+n, `{"encryption":"ENABLED"}`)
	b.objects(200, "PUT", "subnets/"+n, `{"encryption":"DISABLED"}`)
	b.refused(409, "policyState", "POST", "domains/"+d+"/ingressacltemplates", `{"name":"x","policyState":"DRAFT"}`)
	for _, direction := range []string{"ingress", "egress"} {
		p := b.post("domains/"+d+"/"+direction+"acltemplates", `{"name":"`+direction+`"}`)
		path := direction + "acltemplates/" + p + "/" + direction + "aclentrytemplates"
		whole := b.objects(201, "POST", path, `{"etherType":"0x0800","associatedTrafficType":null,"associatedTrafficTypeID":"","webFilterID":null,"policyState":"LIVE"}`)[0]
		for property, body := range map[string]string{
			"etherType":                          `{"etherType":"0x86DD","protocol":"ANY"}`,
			"associatedTrafficTypeID":            `{"associatedTrafficType":"L4_SERVICE","associatedTrafficTypeID":"9d1e"}`,
			"associatedL7ApplicationSignatureID": `{"associatedL7ApplicationSignatureID":"9d1e"}`,
			"webFilterID":                        `{"webFilterType":"WEB_CATEGORY","webFilterID":"9d1e"}`,
			"policyState":                        `{"policyState":"DRAFT"}`,
		} {
			b.refused(409, property, "POST", path, body)
			b.refused(409, property, "PUT", direction+"aclentrytemplates/"+whole["ID"].(string), body)
		}
		if got := b.objects(200, "GET", path, ""); len(got) != 1 {
			t.Errorf("%s entries: %v", direction, got)
		}
		text, _ := json.Marshal(whole)
		b.objects(200, "PUT", direction+"aclentrytemplates/"+whole["ID"].(string), string(text))
	}
}

func TestMembers(t *testing.T) {
	b := newBench(t)
	_, d, _, n := b.tree()
	web, db := b.post("domains/"+d+"/policygroups", `{"name":"web"}`), b.post("domains/"+d+"/policygroups", `{"name":"db"}`)
	v := b.attach(n, "v1", "10.85.85.7", "nu1")
	put := func(want int, path, body string) {
		t.Helper()
		if status, _, text := b.call("PUT", "/nuage/api/v6/"+path, body); status != want {
			t.Fatalf("PUT %s: %d %s", path, status, text)
		}
	}
	groups := func(want ...string) {
		t.Helper()
		s, err := b.store.Read(t.Context())
		if err != nil || !slices.Equal(s.Vports[v.ID].PolicyGroups, want) {
			t.Errorf("groups %v, want %v (%v)", s.Vports[v.ID].PolicyGroups, want, err)
		}
	}
	put(204, "vports/"+v.ID+"/policygroups", `["`+web+`","`+db+`"]`)
	groups("db", "web")
	if got := b.objects(200, "GET", "vports/"+v.ID+"/policygroups", ""); len(got) != 2 {
		t.Errorf("groups of the vport: %v", got)
	}
	put(204, "policygroups/"+web+"/vports", "null")
	groups("db")
	put(204, "policygroups/"+web+"/vports", `["`+v.ID+`"]`)
	groups("db", "web")
	if got := b.objects(200, "GET", "policygroups/"+web+"/vports", ""); len(got) != 1 || got[0]["ID"] != v.ID {
		t.Errorf("members: %v", got)
	}
	put(404, "vports/"+v.ID+"/policygroups", `["nosuch"]`)
	put(409, "vports/"+v.ID+"/policygroups", `{}`)
	put(405, "domains/"+d+"/zones", `[]`)
	b.refused(409, "", "DELETE", "policygroups/"+web, "")
	put(204, "vports/"+v.ID+"/policygroups", ``)
	groups()

	if got := b.objects(200, "PUT", "vports/"+v.ID, `{"addressSpoofing":"ENABLED"}`)[0]; got["addressSpoofing"] != "ENABLED" {
		t.Errorf("spoofing: %v", got["addressSpoofing"])
	}
	vip := b.objects(201, "POST", "vports/"+v.ID+"/virtualips", `{"virtualIP":"10.85.85.9"}`)[0]
	if vip["MAC"] != "02:00:00:00:00:01" || vip["parentID"] != v.ID {
		t.Errorf("virtual IP: %v", vip)
	}
	b.refused(409, "virtualIP", "POST", "vports/"+v.ID+"/virtualips", `{"virtualIP":"10.85.85.9"}`)
	if got := b.objects(200, "GET", "vports/"+v.ID+"/virtualips", ""); len(got) != 1 || got[0]["ID"] != vip["ID"] {
		t.Errorf("virtual IPs: %v", got)
	}
	if status, _, text := b.call("DELETE", "/nuage/api/v6/virtualips/"+vip["ID"].(string), ""); status != 204 {
		t.Errorf("delete: %d %s", status, text)
	}
}

func TestPatchVport(t *testing.T) {
	b := newBench(t)
	_, d, _, n := b.tree()
	b.post("domains/"+d+"/policygroups", `{"name":"web"}`)
	v := b.attach(n, "v1", "10.85.85.7", "nu1")
	for _, c := range []struct {
		status     int
		body, want string
	}{
		{200, `{"policyGroups":["web"],"addressSpoofing":"enabled","virtualIPs":["10.85.85.9","10.85.85.10@02:00:00:00:00:09"]}`, `{"changed":true}`},
		{200, `{"policyGroups":["web","web"],"virtualIPs":["10.85.85.9","10.85.85.10@02:00:00:00:00:09"]}`, `{"changed":false}`},
		{404, `{"policyGroups":["web","nosuch","other"]}`, "policy group nosuch, other not found in domain App1"},
		{400, `{"addressSpoofing":"yes"}`, "neither ENABLED nor DISABLED"},
		{400, `{"virtualIPs":["10.85.85.9@x"]}`, "10.85.85.9@x"},
		{400, `{"virtualIPs":["10.85.85.7"]}`, "not a further IPv4 address"},
		{400, `{"name":"x"}`, "unknown field"},
		{200, `{"policyGroups":[],"addressSpoofing":"INHERITED","virtualIPs":[]}`, `{"changed":true}`},
		{200, `{"policyGroups":[],"virtualIPs":[]}`, `{"changed":false}`},
	} {
		if status, _, text := b.call("PATCH", "/nuage/v1/vports/"+v.ID, c.body); status != c.status || !strings.Contains(text, c.want) {
			t.Errorf("%s: %d %s", c.body, status, text)
		}
	}
	if status, _, _ := b.call("PATCH", "/nuage/v1/vports/nosuch", "{}"); status != 404 {
		t.Errorf("of no vport: %d", status)
	}
}

func TestPolicyViews(t *testing.T) {
	b := newBench(t)
	b.apply(200, "", guarded)
	v := b.attach(b.find("subnets", "PrivateSubnet"), "v1", "10.85.85.7", "nu1")
	b.call("PATCH", "/nuage/v1/vports/"+v.ID, `{"policyGroups":["web"]}`)
	s, _ := b.store.Read(t.Context())
	policy := s.PolicyByName(v.DomainID, "to-db")
	entry := s.EntryByPriority(policy.ID, 10)
	if err := b.store.PutHost(t.Context(), tenant.Host{Meta: tenant.Meta{ID: "h1"}, Name: "h1"}); err != nil {
		t.Fatal(err)
	}
	for i, host := range []string{"h1", "h1"} { // told twice: the last counts
		if err := b.store.PutCounters(t.Context(), []tenant.Counters{{Host: host, DomainID: v.DomainID, Entries: map[string]tenant.Counter{entry.ID: {Packets: uint64(3 + i), Bytes: 300}},
			Defaults: map[string]tenant.Counter{policy.ID: {Packets: 9, Bytes: 900}}, Limited: map[string]tenant.Counter{v.ID: {Packets: 1}},
			Drops: map[string]map[tenant.Reason]tenant.Counter{v.ID: {tenant.ReasonSpoofedIP: {Packets: 2}, tenant.ReasonSpoofedARP: {Packets: 3}, tenant.ReasonOutside: {Packets: 50}},
				v.DomainID: {tenant.ReasonTooManyConnections: {Packets: 7, Bytes: 518}}}}}); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string][]string{
		"policies":                          {`"name":"to-db"`, `"counter":{"packets":4,"bytes":300}`, `"default":{"packets":9,"bytes":900}`, `"from":"policy group web"`, `"match":"tcp 5432"`},
		"domains":                           {`"overLimit":{"packets":7,"bytes":518}`},
		"entries?name=to-db/20":             {`"policy":"to-db"`, `"action":"DROP"`},
		"policygroups?name=web":             {`"members":["v1"]`, `"entries":1`},
		"networkmacros":                     {`"address":"192.0.2.0/24"`, `"enterprise":"DCEnterprise"`},
		"ratelimiters":                      {`"on":"zone DockerZone"`, `"rate":"100mbit"`, `"burst":"50mbit"`, `"name":"zone DockerZone ingress"`},
		"vports?name=v1":                    {`"policyGroups":["web"]`, `"spoofDrops":{"packets":5,"bytes":0}`, `"limited":{"packets":1,"bytes":0}`},
		"ratelimiters?name=zone+DockerZone": {`[]`},
	} {
		_, _, text := b.call("GET", "/nuage/v1/"+path, "")
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: no %s in %s", path, w, text)
			}
		}
	}
}
