package vsd

import (
	"fmt"
	"strings"
	"testing"

	"nuage/controller/tenant"
)

// A client makes a vport for a machine to come: it has its address from then on, and stays
// when the machine goes.
func TestVportsOfMachines(t *testing.T) {
	b := newBench(t)
	_, _, _, n := b.tree()
	path := "subnets/" + n + "/vports"
	const one = `{"name":"port-1","type":"VM","externalID":"9d1e-port","MAC":"52:54:00:00:00:01","IPAddress":"10.85.85.50"}`
	id := b.post(path, one)
	got := b.objects(200, "GET", "vports/"+id, "")[0]
	if got["type"] != "VM" || got["MAC"] != "52:54:00:00:00:01" || got["IPAddress"] != "10.85.85.50" || got["externalID"] != "9d1e-port" || got["hasAttachedInterfaces"] != false {
		t.Errorf("vport %v", got)
	}
	v, err := b.store.FindVport(t.Context(), "9d1e-port")
	if err != nil || v.ID != id || !v.Lasting || v.Host != "" {
		t.Errorf("vport %+v, %v", v, err)
	}
	random := b.post(path, `{"name":"port-2","IPAddress":"10.85.85.51"}`)
	if v, err := b.store.FindVport(t.Context(), random); err != nil || v.MAC.IsZero() {
		t.Errorf("vport without a MAC: %+v, %v", v, err)
	}
	for _, c := range []struct {
		status         int
		property, body string
	}{
		{409, "", `{"name":"port-3","IPAddress":"10.85.85.50"}`},
		{409, "name", strings.Replace(one, "85.50", "85.53", 1)}, // the external ID is taken
		{409, "IPAddress", `{"name":"port-3"}`},
		{409, "IPAddress", `{"name":"port-3","IPAddress":"here"}`},
		{409, "MAC", `{"name":"port-3","IPAddress":"10.85.85.52","MAC":"01:00:00:00:00:00"}`},
		{409, "type", `{"name":"port-3","IPAddress":"10.85.85.52","type":"CONTAINER"}`},
		{409, "name", `{"IPAddress":"10.85.85.52"}`},
	} {
		b.refused(c.status, c.property, "POST", path, c.body)
	}
	// An update that sends all back changes nothing; the address stays.
	b.objects(200, "PUT", "vports/"+id, one)
	b.refused(409, "", "PUT", "vports/"+id, `{"IPAddress":"10.85.85.60"}`)
	v.Host, v.Interface = "h1", "vnet0"
	if _, err := b.store.UpdateVport(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	if text := b.refused(409, "", "DELETE", "vports/"+id, ""); !strings.Contains(text, "vnet0") {
		t.Error(text)
	}
	b.objects(200, "PUT", "vports/"+b.attach(n, "container", "10.85.85.9", "nu1").ID, `{"type":"CONTAINER","name":"other"}`)
	v.Host, v.Interface = "", ""
	v.Revision = 0
	if _, err := b.store.UpdateVport(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	status, _, text := b.call("DELETE", "/nuage/api/v6/vports/"+id+"?responseChoice=1", "")
	if status != 204 {
		t.Errorf("delete: %d %s", status, text)
	}
	if _, err := b.store.FindVport(t.Context(), id); err == nil || !strings.Contains(fmt.Sprint(err), tenant.ErrNotFound.Error()) {
		t.Errorf("after its removal: %v", err)
	}
}
