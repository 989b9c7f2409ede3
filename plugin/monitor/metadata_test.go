package monitor

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"nuage/controller/tenant"
	"nuage/driver"
)

func TestMetadata(t *testing.T) {
	type labels = map[string]string
	for name, c := range map[string]struct {
		env    []string
		labels labels
		want   driver.Direct
		fails  bool
		silent bool // it does not say where it belongs
	}{
		"nothing":     {env: []string{"PATH=/bin", "HOME"}, labels: labels{"a": "b"}, silent: true},
		"no place":    {env: []string{"NUAGE-USER=user", "NUAGE_LOG_LEVEL=debug"}, want: driver.Direct{User: "user"}, silent: true},
		"environment": {env: []string{"NUAGE-ENTERPRISE=E", "NUAGE-DOMAIN=D", "NUAGE-ZONE=Z", "NUAGE-NETWORK=N", "NUAGE-USER=U"}, want: driver.Direct{Enterprise: "E", Domain: "D", Zone: "Z", Subnet: "N", User: "U"}},
		"spaces, =":   {env: []string{"NUAGE-DOMAIN=Docker Domain=1="}, want: driver.Direct{Domain: "Docker Domain=1="}},
		"underscores": {env: []string{"NUAGE_DOMAIN=D", "NUAGE_POLICY_GROUP=a", "NUAGE_STATIC-IP=10.0.0.9"}, want: driver.Direct{Domain: "D", PolicyGroups: []string{"a"}, StaticIP: netip.MustParseAddr("10.0.0.9")}},
		"labels":      {labels: labels{"NUAGE-DOMAIN": "D", "NUAGE_ZONE": "Z"}, want: driver.Direct{Domain: "D", Zone: "Z"}},
		"both":        {env: []string{"NUAGE-DOMAIN=D"}, labels: labels{"NUAGE-DOMAIN": "L", "NUAGE-ZONE": "Z"}, want: driver.Direct{Domain: "D", Zone: "Z"}},
		"user first":  {env: []string{"NUAGE_ZONE=mine", "NUAGE-ZONE=the image's"}, want: driver.Direct{Zone: "mine"}},
		"the last":    {env: []string{"NUAGE-ZONE=of a file", "NUAGE_ZONE=other", "NUAGE-ZONE=mine", "NUAGE_ZONE=the image's"}, want: driver.Direct{Zone: "mine"}},
		"hidden":      {env: []string{"NUAGE-ZONE=", "NUAGE-DOMAIN=D"}, labels: labels{"NUAGE-ZONE": "Z"}, want: driver.Direct{Domain: "D"}},
		"two labels":  {labels: labels{"NUAGE-ZONE": "dashes", "NUAGE_ZONE": "underscores"}, want: driver.Direct{Zone: "dashes"}},
		"groups":      {env: []string{"NUAGE-ZONE=Z", "NUAGE-POLICY-GROUP=web, db,,web"}, want: driver.Direct{Zone: "Z", PolicyGroups: []string{"web", "db"}}},
		"MAC":         {env: []string{"NUAGE-ZONE=Z", "NUAGE-MAC=02:00:00:00:00:07"}, want: driver.Direct{Zone: "Z", MAC: tenant.MAC{2, 0, 0, 0, 0, 7}}},
		"bad group":   {env: []string{"NUAGE-ZONE=Z", "NUAGE-POLICY-GROUP=web,-db"}, want: driver.Direct{Zone: "Z", PolicyGroups: []string{"web"}}, fails: true},
		"bad user":    {env: []string{"NUAGE-ZONE=Z", "NUAGE-USER=a\x1bb"}, want: driver.Direct{Zone: "Z"}, fails: true},
		"long user":   {env: []string{"NUAGE-ZONE=Z", "NUAGE-USER=" + strings.Repeat("x", 100_000)}, want: driver.Direct{Zone: "Z"}, fails: true},
		"long IP":     {env: []string{"NUAGE-ZONE=Z", "NUAGE-STATIC-IP=" + strings.Repeat("\n", 100_000)}, want: driver.Direct{Zone: "Z"}, fails: true},
		"long MAC":    {env: []string{"NUAGE-ZONE=Z", "NUAGE-MAC=" + strings.Repeat("0:", 50_000)}, want: driver.Direct{Zone: "Z"}, fails: true},
		"IPv6":        {env: []string{"NUAGE-ZONE=Z", "NUAGE-STATIC-IP=fd00::1"}, want: driver.Direct{Zone: "Z"}, fails: true},
		"group MAC":   {env: []string{"NUAGE-ZONE=Z", "NUAGE-MAC=01:00:00:00:00:07"}, want: driver.Direct{Zone: "Z"}, fails: true},
		"gateway MAC": {env: []string{"NUAGE-ZONE=Z", "NUAGE-MAC=" + tenant.GatewayMAC.String()}, want: driver.Direct{Zone: "Z"}, fails: true},
	} {
		said := metadata(c.env, c.labels)
		if place(said) == c.silent {
			t.Errorf("%s: says where it belongs: %v", name, !c.silent)
		}
		var got driver.Direct
		if err := read(said, &got); (err != nil) != c.fails || err != nil && !errors.Is(err, tenant.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		} else if err != nil && len(err.Error()) > 500 {
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
