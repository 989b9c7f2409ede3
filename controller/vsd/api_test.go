package vsd

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"

	"nuage/controller/store"
	"nuage/controller/tenant"
)

// bench is the API over a store with an embedded etcd of its own.
type bench struct {
	t     testing.TB
	store *store.Store
	stop  func()
	url   string
	etcd  string // its endpoint
}

// run is a running store, and what stops it.
func run(t testing.TB, c store.Config) (*store.Store, func()) {
	t.Helper()
	st := store.New(c)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- st.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("store: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the store does not stop")
		}
	})
	t.Cleanup(stop)
	for deadline := time.Now().Add(20 * time.Second); st.Ready() != nil; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("store not ready: %v", st.Ready())
		}
	}
	return st, stop
}

func newBench(t testing.TB) *bench { return listening(t, "") }

// listening is newBench with a store that serves other hosts.
func listening(t testing.TB, addr string) *bench {
	t.Helper()
	log, hook := test.NewNullLogger()
	log.SetLevel(logrus.DebugLevel)
	dir := filepath.Join(t.TempDir(), "etcd")
	st, stop := run(t, store.Config{Dir: dir, Host: "h1", Listen: addr, Log: log})
	srv := httptest.NewServer(New(Config{Store: st, Status: func() Status { return Status{Host: "h1"} }, Version: "1.2.3", Log: log}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() {
		for _, e := range hook.AllEntries() {
			if e.Level <= logrus.ErrorLevel {
				t.Errorf("logged: %s", e.Message)
			}
		}
	})
	return &bench{t, st, stop, srv.URL, "unix://" + filepath.Join(dir, "etcd.sock")}
}

// call makes a request and returns the status, the headers and the body. Headers are
// "Name: value".
func (b *bench) call(method, path, body string, headers ...string) (int, http.Header, string) {
	b.t.Helper()
	req, err := http.NewRequest(method, b.url+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

// objects is call for an answer that is a list of objects, with the status wanted.
func (b *bench) objects(want int, method, path, body string, headers ...string) []map[string]any {
	b.t.Helper()
	status, _, text := b.call(method, "/nuage/api/v6/"+path, body, headers...)
	if status != want {
		b.t.Fatalf("%s %s: status %d, want %d: %s", method, path, status, want, text)
	}
	var list []map[string]any
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		b.t.Fatalf("%s %s: %v: %s", method, path, err, text)
	}
	return list
}

// post creates an object and returns its ID.
func (b *bench) post(path, body string) string {
	b.t.Helper()
	list := b.objects(http.StatusCreated, "POST", path, body)
	if len(list) != 1 {
		b.t.Fatalf("POST %s: %d objects", path, len(list))
	}
	return list[0]["ID"].(string)
}

// refused checks an error in VSD's form and returns its description.
func (b *bench) refused(want int, property, method, path, body string, headers ...string) string {
	b.t.Helper()
	status, _, text := b.call(method, "/nuage/api/v6/"+path, body, headers...)
	var e struct {
		Errors []struct {
			Property     string
			Descriptions []struct{ Title, Description string }
		}
		InternalErrorCode *int
	}
	if err := json.Unmarshal([]byte(text), &e); err != nil || status != want || e.InternalErrorCode == nil ||
		len(e.Errors) != 1 || len(e.Errors[0].Descriptions) != 1 || e.Errors[0].Descriptions[0].Title == "" {
		b.t.Fatalf("%s %s: status %d, want %d with one error (%v): %s", method, path, status, want, err, text)
	}
	if e.Errors[0].Property != property {
		b.t.Errorf("%s %s: the error is about %q, want %q", method, path, e.Errors[0].Property, property)
	}
	return e.Errors[0].Descriptions[0].Description
}

// tree is an enterprise, a domain, a zone and a subnet.
func (b *bench) tree() (e, d, z, n string) {
	b.t.Helper()
	e = b.post("enterprises", `{"name":"DCEnterprise"}`)
	d = b.post("enterprises/"+e+"/domains", `{"name":"App1"}`)
	z = b.post("domains/"+d+"/zones", `{"name":"DockerZone"}`)
	n = b.post("zones/"+z+"/subnets", `{"name":"PrivateSubnet","address":"10.85.85.0","netmask":"255.255.255.0"}`)
	return e, d, z, n
}

// attach makes a vport as the driver does.
func (b *bench) attach(subnetID, name, ip, iface string) tenant.Vport {
	b.t.Helper()
	v, err := b.store.BindVport(b.t.Context(), tenant.Vport{Meta: tenant.Meta{ID: uuid.NewString()}, SubnetID: subnetID, Name: name,
		Type: tenant.VportContainer, MAC: tenant.MAC{2, 0, 0, 0, 0, 1}, IPv4: netip.MustParseAddr(ip), Host: "h1", Interface: iface})
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

func TestObjects(t *testing.T) {
	b := newBench(t)
	e, d, z, n := b.tree()
	attrs := func(path string, want map[string]any) {
		t.Helper()
		got := b.objects(200, "GET", path, "null")
		if len(got) != 1 {
			t.Fatalf("%s: %d objects", path, len(got))
		}
		for k, v := range want {
			if g, ok := got[0][k]; !ok || g != v {
				t.Errorf("%s: %s is %v, want %v", path, k, g, v)
			}
		}
		for _, k := range []string{"creationDate", "lastUpdatedDate"} {
			if ms, ok := got[0][k].(float64); !ok || time.Since(time.UnixMilli(int64(ms))).Abs() > time.Minute {
				t.Errorf("%s: %s is %v", path, k, got[0][k])
			}
		}
	}
	attrs("enterprises/"+e, map[string]any{"ID": e, "name": "DCEnterprise", "description": nil, "parentID": nil, "parentType": nil, "externalID": nil})
	attrs("domains/"+d, map[string]any{"name": "App1", "parentID": e, "parentType": "enterprise", "enterpriseID": e, "templateID": nil, "tunnelType": "VXLAN"})
	attrs("zones/"+z, map[string]any{"name": "DockerZone", "parentID": d, "parentType": "domain"})
	attrs("subnets/"+n, map[string]any{"name": "PrivateSubnet", "parentID": z, "parentType": "zone", "address": "10.85.85.0",
		"netmask": "255.255.255.0", "gateway": "10.85.85.1", "gatewayMACAddress": tenant.GatewayMAC.String()})
	if vni := b.objects(200, "GET", "subnets/"+n, "")[0]["vnId"].(float64); vni < 1 || vni > 1<<24-1 {
		t.Errorf("vnId %v", vni)
	}
	v := b.attach(n, "web-1", "10.85.85.7", "nu1")
	attrs("vports/"+v.ID, map[string]any{"name": "web-1", "type": "CONTAINER", "parentID": n, "parentType": "subnet", "domainID": d,
		"zoneID": z, "domainName": "App1", "operationalState": "UP", "hasAttachedInterfaces": true, "addressSpoofing": "INHERITED"})
	attrs("containerinterfaces/"+v.ID, map[string]any{"MAC": "02:00:00:00:00:01", "IPAddress": "10.85.85.7", "netmask": "255.255.255.0",
		"gateway": "10.85.85.1", "VPortID": v.ID, "attachedNetworkID": n, "zoneName": "DockerZone", "parentID": v.ID, "parentType": "vport"})
	for _, list := range []string{"enterprises", "domains", "zones", "subnets", "enterprises/" + e + "/domains", "domains/" + d + "/zones",
		"domains/" + d + "/subnets", "zones/" + z + "/subnets", "subnets/" + n + "/vports", "zones/" + z + "/vports", "domains/" + d + "/vports",
		"containerinterfaces", "vports/" + v.ID + "/containerinterfaces", "domains/" + d + "/containerinterfaces"} {
		if got := b.objects(200, "GET", list, ""); len(got) != 1 {
			t.Errorf("GET %s: %d objects", list, len(got))
		}
	}
	// The way back, in order; what is not empty says what is in it.
	for _, path := range []string{"enterprises/" + e, "domains/" + d, "zones/" + z, "subnets/" + n} {
		if text := b.refused(409, "", "DELETE", path+"?responseChoice=1", ""); text == "" {
			t.Errorf("DELETE %s: no reason", path)
		}
	}
	if text := b.refused(409, "", "DELETE", "vports/"+v.ID, ""); !strings.Contains(text, "web-1 is attached on host h1") {
		t.Errorf("DELETE of an attached vport: %s", text)
	}
	v.Interface = ""
	if _, err := b.store.UpdateVport(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"vports/" + v.ID, "subnets/" + n, "zones/" + z, "domains/" + d, "enterprises/" + e} {
		if status, _, text := b.call("DELETE", "/nuage/api/v6/"+path, `{"ID":"the whole object"}`); status != 204 || text != "" {
			t.Errorf("DELETE %s: %d %s", path, status, text)
		}
		b.refused(404, "", "GET", path, "")
		b.refused(404, "", "DELETE", path, "")
		b.refused(404, "", "PUT", path, "{}")
	}
}

func TestPost(t *testing.T) {
	b := newBench(t)
	e, d, z, _ := b.tree()
	got := b.objects(201, "POST", "zones/"+z+"/subnets", `{"ID":null,"name":"all","description":null,"address":"10.1.0.0","netmask":"255.255.0.0",
		"gateway":"10.1.255.254","externalID":"ext-1","enableDHCPv4":false,"noSuchAttribute":{"a":[1]},"vnId":null}`)[0]
	if got["gateway"] != "10.1.255.254" || got["externalID"] != "ext-1" || got["description"] != nil || got["netmask"] != "255.255.0.0" {
		t.Errorf("subnet: %v", got)
	}
	if got := b.objects(201, "POST", "zones/"+z+"/subnets", `{"name":"chosen","address":"10.3.0.0","netmask":"255.255.0.0","vnId":4711}`)[0]; got["vnId"] != 4711.0 {
		t.Errorf("a chosen VNI: %v", got)
	}
	b.refused(409, "name", "POST", "zones/"+z+"/subnets", `{"name":"taken","address":"10.4.0.0","netmask":"255.255.0.0","vnId":4711}`)
	if got := b.objects(201, "POST", "enterprises/"+e+"/domains", `{"name":42,"templateID":"tpl"}`)[0]; got["templateID"] != "tpl" || got["name"] != "42" {
		t.Errorf("domain: %v", got)
	}
	for _, c := range []struct {
		status               int
		path, body, property string
		want                 string
	}{
		{409, "enterprises", `{}`, "name", "the name of the enterprise is missing"},
		{409, "enterprises", `null`, "name", "is missing"},
		{409, "enterprises", ``, "name", "is missing"},
		{409, "enterprises", `[1]`, "", "not a JSON object"},
		{409, "enterprises", `{`, "", "not a JSON object"},
		{409, "enterprises", `{"name":["x"]}`, "name", "must be text"},
		{409, "enterprises", `{"name":"DCEnterprise"}`, "name", "DCEnterprise"},
		{409, "enterprises", `{"name":"a\u0007b"}`, "", "unprintable"},
		{409, "domains/" + d + "/zones", `{"name":"DockerZone"}`, "name", "DockerZone"},
		{404, "domains/nosuch/zones", `{"name":"x"}`, "", "Cannot find domain with ID nosuch"},
		{409, "zones/" + z + "/subnets", `{"name":"x"}`, "address", "address of the subnet is missing"},
		{409, "zones/" + z + "/subnets", `{"name":"x","address":"10.2.0.0"}`, "netmask", "netmask of the subnet is missing"},
		{409, "zones/" + z + "/subnets", `{"name":"x","address":"10.2.0.0","netmask":"255.0.255.0"}`, "netmask", "not a netmask"},
		{409, "zones/" + z + "/subnets", `{"name":"x","address":"fd00::","netmask":"255.255.0.0"}`, "address", "not an IPv4"},
		{409, "zones/" + z + "/subnets", `{"name":"x","address":"10.2.0.1","netmask":"255.255.0.0"}`, "", "host bits"},
		{409, "zones/" + z + "/subnets", `{"name":"x","address":"10.2.0.0","netmask":"255.255.0.0","gateway":"y"}`, "gateway", "not an IPv4"},
		{409, "zones/" + z + "/subnets", `{"name":"x","address":"10.2.0.0","netmask":"255.255.0.0","gateway":"10.3.0.1"}`, "", "10.3.0.1 is not in"},
		{409, "zones/" + z + "/subnets", `{"name":"x","address":"10.85.0.0","netmask":"255.255.0.0"}`, "", "overlaps"},
		{405, "domains", `{"name":"x"}`, "", "created under enterprises/ID/domains"},
		{405, "domains/" + d + "/subnets", `{"name":"x"}`, "", "created under zones/ID/subnets"},
	} {
		if text := b.refused(c.status, c.property, "POST", c.path, c.body); !strings.Contains(text, c.want) {
			t.Errorf("POST %s %s: %q, want %q", c.path, c.body, text, c.want)
		}
	}
	if n := len(b.objects(200, "GET", "subnets", "")); n != 3 {
		t.Errorf("%d subnets after refusals, want 3", n)
	}
	if status, _, _ := b.call("POST", "/nuage/api/v6/enterprises", `{"name":"`+strings.Repeat("x", maxBody)+`"}`); status != 409 {
		t.Errorf("an endless body: status %d", status)
	}
}

func TestPut(t *testing.T) {
	b := newBench(t)
	e, _, z, n := b.tree()
	put := func(path, body string) map[string]any {
		t.Helper()
		return b.objects(200, "PUT", path+"?responseChoice=1", body)[0]
	}
	if got := put("enterprises/"+e, `{"description":"x"}`); got["description"] != "x" || got["name"] != "DCEnterprise" {
		t.Errorf("merge: %v", got)
	}
	before := b.objects(200, "GET", "enterprises/"+e, "")[0]
	if got := put("enterprises/"+e, `{"name":null,"parentID":"zzz","ID":"other","creationDate":1,"customerID":null}`); got["name"] != "DCEnterprise" || got["ID"] != e || got["customerID"] != before["customerID"] || got["lastUpdatedDate"] != before["lastUpdatedDate"] {
		t.Errorf("a PUT of read-only attributes and a required null: %v", got)
	}
	if got := put("enterprises/"+e, `{"description":null}`); got["description"] != nil {
		t.Errorf("null does not clear: %v", got)
	}
	if got := put("subnets/"+n, `{"netmask":"255.255.254.0","address":"10.85.84.0"}`); got["gateway"] != "10.85.84.1" {
		t.Errorf("a new CIDR: %v", got)
	}
	whole := b.objects(200, "GET", "subnets/"+n, "")[0]
	whole["name"] = "renamed"
	text, _ := json.Marshal(whole)
	if got := put("subnets/"+n, string(text)); got["name"] != "renamed" || got["address"] != "10.85.84.0" || got["vnId"] != whole["vnId"] {
		t.Errorf("the whole object sent back: %v", got)
	}
	b.post("zones/"+z+"/subnets", `{"name":"other","address":"10.9.0.0","netmask":"255.255.255.0"}`)
	if text := b.refused(409, "name", "PUT", "subnets/"+n, `{"name":"other"}`); !strings.Contains(text, "other") {
		t.Errorf("name taken: %s", text)
	}
	b.refused(409, "", "PUT", "subnets/"+n, `{"address":"10.9.0.0","netmask":"255.255.255.0"}`)
	b.attach(n, "web", "10.85.84.9", "nu1")
	b.refused(409, "", "PUT", "subnets/"+n, `{"address":"10.10.0.0"}`)
	b.refused(409, "", "PUT", "subnets/"+n, `{"vnId":1}`)
	b.refused(409, "vnId", "PUT", "subnets/"+n, `{"vnId":-1}`)
	b.refused(405, "", "PATCH", "subnets/"+n, `{}`)
}
