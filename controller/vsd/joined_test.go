package vsd

import (
	"net/http"
	"strings"
	"testing"

	"github.com/sirupsen/logrus/hooks/test"

	"nuage/controller/store"
	"nuage/controller/tenant"
)

// joined is the API of a host that has joined b's by a token of the API.
func (b *bench) joined(name string) *bench {
	b.t.Helper()
	log, _ := test.NewNullLogger()
	c, err := store.Join(b.t.Context(), store.JoinConfig{Token: b.token(`{"ttl":"1m"}`).Token, Host: name, Dir: b.t.TempDir(), Log: log})
	if err != nil {
		b.t.Fatal(err)
	}
	st, _ := run(b.t, store.Config{Endpoints: c.Endpoints, TLS: c.TLS, Host: name, Log: log})
	over := b.over(st)
	over.store = st
	return over
}

// TestJoined checks what the API of a host that has joined another shows and refuses.
func TestJoined(t *testing.T) {
	b := listening(t, "127.0.0.1:0")
	b.apply(200, "", app1)
	far := b.joined("h2")
	if got := far.objects(http.StatusOK, "GET", "subnets", ""); len(got) != 3 {
		t.Errorf("%d subnets", len(got))
	}
	if a := far.apply(200, "", app1); len(a.Changes) != 0 {
		t.Errorf("the same file: %+v", a)
	}
	if err := b.store.PutHost(t.Context(), tenant.Host{Meta: tenant.Meta{ID: "h1"}, Name: "h1"}); err != nil {
		t.Fatal(err)
	}
	e := far.objects(http.StatusOK, "GET", "enterprises", "")[0]["ID"].(string)
	if text := far.refused(409, "", "PUT", "enterprises/"+e, `{"description":"x"}`); !strings.Contains(text, "only the host that serves changes it") {
		t.Errorf("PUT: %s", text)
	}
	subnet := far.objects(http.StatusOK, "GET", "subnets", "")[0]["ID"].(string)
	if text := far.refused(409, "", "DELETE", "subnets/"+subnet, ""); !strings.Contains(text, "only the host that serves deletes it") || !strings.Contains(text, "store at https://127.0.0.1:") {
		t.Errorf("DELETE: %s", text)
	}
	for _, c := range []struct {
		method, path, body string
		want               int
		reason             string
	}{
		{"POST", "tokens", "", 409, "nuagectl token create"},
		{"POST", "apply", "enterprise: DCEnterprise\ndescription: new", 403, "only the host that serves"},
		{"POST", "apply", "enterprise: New", 403, "not allowed"},
		{"GET", "backup", "", 409, "run `nuagectl backup` there"},
		{"POST", "restore", "", 409, "run `nuagectl restore` there"},
		{"DELETE", "hosts/h1?force=true", "", 403, "only the host that serves can evict"},
	} {
		status, h, text := far.call(c.method, "/nuage/v1/"+c.path, c.body)
		if status != c.want || h.Get("Retry-After") != "" || !strings.Contains(text, c.reason) {
			t.Errorf("%s %s: %d %s, want %d and %q", c.method, c.path, status, text, c.want, c.reason)
		}
	}
}
