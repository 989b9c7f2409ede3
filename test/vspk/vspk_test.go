// Package vspk holds the VSD API to a client that was written for VSD: Nuage's own Go
// SDK. It is a module of its own, so that the SDK's old dependencies are nobody else's.
package vspk

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nuagenetworks/go-bambou/bambou"
	sdk "github.com/nuagenetworks/vspk-go/vspk"
	"github.com/sirupsen/logrus/hooks/test"

	"nuage/controller/store"
	"nuage/controller/tenant"
	"nuage/controller/vsd"
)

// controller is the API over TLS, as the SDK insists on, with the password check that a
// network listener needs in front of it. It returns the store and the URL.
func controller(t *testing.T) (*store.Store, string) {
	t.Helper()
	log, _ := test.NewNullLogger()
	s := store.New(store.Config{Dir: t.TempDir(), Host: "h1", Log: log})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	for deadline := time.Now().Add(20 * time.Second); s.Ready() != nil; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("store not ready: %v", s.Ready())
		}
	}
	api := vsd.New(vsd.Config{Store: s, Status: func() vsd.Status { return vsd.Status{} }, Version: "test", Log: log})
	srv := httptest.NewTLSServer(authenticate(api))
	t.Cleanup(srv.Close)
	return s, srv.URL
}

// authenticate accepts csproot's password for /me alone, and after that the key that /me
// gave out, as VSD does.
func authenticate(next http.Handler) http.Handler {
	user := vsd.User{ID: uuid.NewString(), Name: "csproot", Organization: "csp", Role: "CSPROOT", APIKey: uuid.NewString(), Expires: time.Now().Add(time.Hour)}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		want := user.APIKey
		if strings.HasSuffix(r.URL.Path, "/me") {
			want = "secret"
		}
		encoded, _ := strings.CutPrefix(r.Header.Get("Authorization"), "XREST ")
		given, _ := base64.StdEncoding.DecodeString(encoded)
		if string(given) != user.Name+":"+want || r.Header.Get("X-Nuage-Organization") != user.Organization {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r.WithContext(vsd.WithUser(r.Context(), user)))
	})
}

// login starts a session of the SDK.
func login(t *testing.T, url, password string) (*sdk.Me, error) {
	t.Helper()
	session, root := sdk.NewSession("csproot", password, "csp", url)
	if err := session.Start(); err != nil {
		return nil, err
	}
	return root, nil
}

// must fails the test for an error of the SDK, whose type is a pointer of its own.
func must(t *testing.T, err *bambou.Error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused checks that the SDK shows the user the controller's reason.
func refused(t *testing.T, err *bambou.Error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Description, want) {
		t.Errorf("error %v, want %q", err, want)
	}
}

func TestLogin(t *testing.T) {
	_, url := controller(t)
	root, err := login(t, url, "secret")
	if err != nil {
		t.Fatal(err)
	}
	if root.APIKey() == "" || root.UserName != "csproot" || root.Role != "CSPROOT" {
		t.Errorf("me: %+v", root)
	}
	if _, err := login(t, url, "wrong"); err == nil {
		t.Error("the test's own check lets a wrong password in")
	}
}

func TestTenant(t *testing.T) {
	st, url := controller(t)
	root, err := login(t, url, "secret")
	if err != nil {
		t.Fatal(err)
	}

	enterprise := sdk.NewEnterprise()
	enterprise.Name, enterprise.Description = "DCEnterprise", "made by the SDK"
	must(t, root.CreateEnterprise(enterprise))
	if enterprise.ID == "" || enterprise.CustomerID < tenant.MinCustomerID {
		t.Fatalf("enterprise: %+v", enterprise)
	}
	twin := sdk.NewEnterprise()
	twin.Name = enterprise.Name
	refused(t, root.CreateEnterprise(twin), "DCEnterprise")

	domain := sdk.NewDomain()
	domain.Name = "App1"
	must(t, enterprise.CreateDomain(domain))
	if domain.ParentID != enterprise.ID || domain.ParentType != "enterprise" || domain.BackHaulVNID == 0 {
		t.Errorf("domain: %+v", domain)
	}
	zone := sdk.NewZone()
	zone.Name = "DockerZone"
	must(t, domain.CreateZone(zone))
	subnet := sdk.NewSubnet()
	subnet.Name, subnet.Address, subnet.Netmask = "PrivateSubnet", "10.85.85.0", "255.255.255.0"
	must(t, zone.CreateSubnet(subnet))
	if subnet.Gateway != "10.85.85.1" || subnet.VnId == 0 || subnet.GatewayMACAddress != tenant.GatewayMAC.String() {
		t.Errorf("subnet: %+v", subnet)
	}
	overlap := sdk.NewSubnet()
	overlap.Name, overlap.Address, overlap.Netmask = "Other", "10.85.0.0", "255.255.0.0"
	refused(t, zone.CreateSubnet(overlap), "overlaps")

	// The SDK sends the whole object back.
	subnet.Description = "changed"
	must(t, subnet.Save())
	again := sdk.NewSubnet()
	again.ID = subnet.ID
	must(t, again.Fetch())
	if again.Description != "changed" || again.Address != "10.85.85.0" || again.VnId != subnet.VnId {
		t.Errorf("after Save and Fetch: %+v", again)
	}
	must(t, subnet.Save()) // unchanged

	v, bindErr := st.BindVport(t.Context(), tenant.Vport{Meta: tenant.Meta{ID: uuid.NewString()}, SubnetID: subnet.ID, Name: "web-1",
		Type: tenant.VportContainer, MAC: tenant.MAC{2, 0, 0, 0, 0, 1}, IPv4: netip.MustParseAddr("10.85.85.7"), Host: "h1", Interface: "nu1"})
	if bindErr != nil {
		t.Fatal(bindErr)
	}
	for name, list := range map[string]func(*bambou.FetchingInfo) (sdk.VPortsList, *bambou.Error){"subnet": subnet.VPorts, "zone": zone.VPorts, "domain": domain.VPorts} {
		vports, err := list(&bambou.FetchingInfo{})
		must(t, err)
		if len(vports) != 1 || vports[0].ID != v.ID || vports[0].Type != "CONTAINER" || vports[0].OperationalState != "UP" {
			t.Errorf("vports of the %s: %+v", name, vports)
		}
	}
	faces, err2 := subnet.ContainerInterfaces(&bambou.FetchingInfo{})
	must(t, err2)
	if len(faces) != 1 || faces[0].IPAddress != "10.85.85.7" || faces[0].MAC != "02:00:00:00:00:01" || faces[0].Gateway != "10.85.85.1" {
		t.Errorf("interfaces: %+v", faces)
	}

	refused(t, zone.Delete(), "PrivateSubnet")
	refused(t, subnet.Delete(), "web-1")
	if err := st.DeleteVport(t.Context(), v.ID); err != nil && !errors.Is(err, tenant.ErrNotFound) {
		t.Fatal(err)
	}
	must(t, subnet.Delete())
	must(t, zone.Delete())
	must(t, domain.Delete())
	must(t, enterprise.Delete())
	refused(t, enterprise.Fetch(), "Cannot find enterprise with ID")
}

func TestLists(t *testing.T) {
	_, url := controller(t)
	root, err := login(t, url, "secret")
	if err != nil {
		t.Fatal(err)
	}
	none, err2 := root.Enterprises(&bambou.FetchingInfo{})
	must(t, err2)
	if len(none) != 0 {
		t.Fatalf("enterprises: %v", none)
	}
	for i := range 60 {
		e := sdk.NewEnterprise()
		e.Name = "E" + string(rune('A'+i/10)) + string(rune('0'+i%10))
		must(t, root.CreateEnterprise(e))
	}
	info := &bambou.FetchingInfo{OrderBy: "name DESC"}
	first, err2 := root.Enterprises(info)
	must(t, err2)
	if len(first) != 50 || first[0].Name != "EF9" || info.TotalCount != 60 || info.PageSize != 50 {
		t.Errorf("first page: %d objects, %+v", len(first), info)
	}
	info = &bambou.FetchingInfo{Page: 1, OrderBy: "name DESC"}
	second, err2 := root.Enterprises(info)
	must(t, err2)
	if len(second) != 10 || second[9].Name != "EA0" || info.Page != 1 {
		t.Errorf("second page: %d objects, %+v", len(second), info)
	}
	info = &bambou.FetchingInfo{Filter: `name BEGINSWITH "EB" and not name == "EB3"`}
	some, err2 := root.Enterprises(info)
	must(t, err2)
	if len(some) != 9 || info.FilterType != "predicate" {
		t.Errorf("filter: %d objects, %+v", len(some), info)
	}
}
