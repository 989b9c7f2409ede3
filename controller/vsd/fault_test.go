package vsd

import (
	"cmp"
	"context"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/sirupsen/logrus/hooks/test"

	"nuage/controller/tenant"
)

// troubled is a real store in which something happens before a write.
type troubled struct {
	Store
	beforeZone       func(tenant.Zone) error
	beforeEnterprise func(tenant.Enterprise)
	beforeVport      func()
}

func (s *troubled) UpdateVport(ctx context.Context, v tenant.Vport) (tenant.Vport, error) {
	s.beforeVport()
	return s.Store.UpdateVport(ctx, v)
}

func (s *troubled) CreateZone(ctx context.Context, z tenant.Zone) (tenant.Zone, error) {
	if err := s.beforeZone(z); err != nil {
		return tenant.Zone{}, err
	}
	return s.Store.CreateZone(ctx, z)
}

// Apply does what comes before the zone that something happens to.
func (s *troubled) Apply(ctx context.Context, steps []tenant.Step) (int, error) {
	for i, step := range steps {
		z, ok := step.Object.(*tenant.Zone)
		if !ok {
			continue
		}
		if err := s.beforeZone(*z); err != nil {
			done, first := s.Store.Apply(ctx, steps[:i])
			return done, cmp.Or(first, fmt.Errorf("%s %s %s: %w", step.Op, step.Kind.Noun(), step.Path, err))
		}
	}
	return s.Store.Apply(ctx, steps)
}

func (s *troubled) UpdateEnterprise(ctx context.Context, e tenant.Enterprise) (tenant.Enterprise, error) {
	s.beforeEnterprise(e)
	return s.Store.UpdateEnterprise(ctx, e)
}

// over puts the bench's API on another store.
func (b *bench) over(s Store) *bench {
	log, _ := test.NewNullLogger()
	srv := httptest.NewServer(New(Config{Store: s, Status: func() Status { return Status{} }, Log: log}))
	b.t.Cleanup(srv.Close)
	return &bench{b.t, b.store, b.stop, srv.URL, b.etcd}
}

// TestApplyBreaks checks that a write failing midway is reported with what is done, and
// that the same file then does the rest.
func TestApplyBreaks(t *testing.T) {
	real := newBench(t)
	b := real.over(&troubled{Store: real.store, beforeZone: func(z tenant.Zone) error {
		if z.Name == "VMZone" {
			return tenant.Errorf(tenant.ErrUnavailable, "etcd is away")
		}
		return nil
	}})
	a := b.apply(503, "", app1)
	if a.Done != 4 || len(a.Changes) != 10 || !strings.Contains(a.Error, "create zone DCEnterprise/App1/VMZone: etcd is away") {
		t.Errorf("broken: %+v", a)
	}
	if a := real.apply(200, "", app1); a.Done != 6 || len(a.Changes) != 6 || a.Changes[0].Path != "DCEnterprise/App1/VMZone" {
		t.Errorf("the rest: %+v", a)
	}
}

// TestNoRetryAfterDoubt checks that only what was not begun is said to be repeatable.
func TestNoRetryAfterDoubt(t *testing.T) {
	real := newBench(t)
	real.apply(200, "", "enterprise: E\ndomains: [{name: D}]")
	b := real.over(&troubled{Store: real.store, beforeZone: func(tenant.Zone) error { return tenant.Errorf(tenant.ErrUnavailable, "away") }})
	status, h, text := b.call("POST", "/nuage/v1/apply", "enterprise: E\ndomains: [{name: D, zones: [{name: Z}]}]")
	if status != 503 || h.Get("Retry-After") != "" {
		t.Errorf("apply: %d %v %s", status, h, text)
	}
	d := real.objects(200, "GET", "domains", "")[0]["ID"].(string)
	status, h, text = b.call("POST", "/nuage/api/v6/domains/"+d+"/zones", `{"name":"Z"}`)
	if status != 503 || h.Get("Retry-After") != "" {
		t.Errorf("POST: %d %v %s", status, h, text)
	}
}

// TestPutMeetsWriter checks that a PUT merges into what another wrote meanwhile.
func TestPutMeetsWriter(t *testing.T) {
	real := newBench(t)
	e := real.post("enterprises", `{"name":"E"}`)
	times, always := 0, false
	b := real.over(&troubled{Store: real.store, beforeEnterprise: func(tenant.Enterprise) {
		if times++; times == 1 || always {
			desc := strings.Repeat("other ", times)
			real.objects(200, "PUT", "enterprises/"+e, `{"description":"`+desc+`"}`)
		}
	}})
	if got := b.objects(200, "PUT", "enterprises/"+e, `{"externalID":"x"}`)[0]; got["externalID"] != "x" || got["description"] != "other " || times != 2 {
		t.Errorf("after %d writes: %v", times, got)
	}
	always = true
	b.refused(409, "", "PUT", "enterprises/"+e, `{"externalID":"y"}`)
	if times != 2+writeAttempts {
		t.Errorf("%d writes", times)
	}
}

// TestVportChangesMeanwhile checks that what changes a part of a vport, groups or virtual IPs,
// changes it as it is by then: a container gets its name at any time.
func TestVportChangesMeanwhile(t *testing.T) {
	real := newBench(t)
	_, d, _, n := real.tree()
	web, db := real.post("domains/"+d+"/policygroups", `{"name":"web"}`), real.post("domains/"+d+"/policygroups", `{"name":"db"}`)
	v := real.attach(n, "v0", "10.85.85.7", "nu1")
	name := 0
	b := real.over(&troubled{Store: real.store, beforeVport: func() {
		if name++; name%2 == 1 {
			real.objects(200, "PUT", "vports/"+v.ID, fmt.Sprintf(`{"name":"v%d"}`, name))
		}
	}})
	for _, c := range [][3]string{{"PUT", "vports/" + v.ID + "/policygroups", `["` + web + `"]`}, {"PUT", "policygroups/" + db + "/vports", `["` + v.ID + `"]`},
		{"POST", "vports/" + v.ID + "/virtualips", `{"virtualIP":"10.85.85.9"}`}, {"POST", "vports/" + v.ID + "/virtualips", `{"virtualIP":"10.85.85.10"}`},
		{"DELETE", "virtualips/" + virtualMeta(&v, tenant.VirtualIP{IPv4: netip.MustParseAddr("10.85.85.9")}).ID, ""}} {
		if status, _, text := b.call(c[0], "/nuage/api/v6/"+c[1], c[2]); status >= 300 {
			t.Errorf("%v: %d %s", c, status, text)
		}
	}
	s, err := real.store.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if now := s.Vports[v.ID]; name != 10 || now.Name != "v9" || fmt.Sprint(now.PolicyGroups) != "[db web]" || len(now.VirtualIPs) != 1 || now.VirtualIPs[0].IPv4.String() != "10.85.85.10" {
		t.Errorf("after %d writes %+v", name, now)
	}
}

// TestPriorityForEach checks that policies made at once without a priority all get one.
func TestPriorityForEach(t *testing.T) {
	b := newBench(t)
	_, d, _, _ := b.tree()
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			if status, _, text := b.call("POST", "/nuage/api/v6/domains/"+d+"/ingressacltemplates", fmt.Sprintf(`{"name":"p%d"}`, i)); status != 201 {
				t.Errorf("%d %s", status, text)
			}
		})
	}
	all.Wait()
	b.refused(409, "name", "POST", "domains/"+d+"/ingressacltemplates", `{"name":"p1"}`)
}

func TestDefectIsAnswered(t *testing.T) {
	real := newBench(t)
	real.apply(200, "", "enterprise: E\ndomains: [{name: D}]")
	b := real.over(&troubled{Store: real.store, beforeZone: func(tenant.Zone) error { panic("defect") }})
	if a := b.apply(500, "", "enterprise: E\ndomains: [{name: D, zones: [{name: Z}]}]"); !strings.Contains(a.Error, "defect in nuage") {
		t.Errorf("answer: %+v", a)
	}
	if a := real.apply(200, "", "enterprise: E\ndomains: [{name: D, zones: [{name: Z}]}]"); a.Done != 1 {
		t.Errorf("after the defect: %+v", a)
	}
}
