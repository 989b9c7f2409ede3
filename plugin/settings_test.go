package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		desc    string
		env     map[string]string
		problem string // part of the only problem, or empty
	}{
		{"defaults", nil, ""},
		{"good values", map[string]string{"NUAGE_BRIDGE": "br-int", "NUAGE_DATAPATH": "netdev", "NUAGE_SCOPE": "global",
			"NUAGE_AUTOCREATE": "false", "NUAGE_MTU": "8950", "NUAGE_DNS": "10.0.0.53, 10.0.0.54", "NUAGE_CONNTRACK_LIMIT": "0", "NUAGE_VTEP": "10.1.2.3", "NUAGE_STORE": "https://a:2379, https://b:2379"}, ""},
		{"bridge", map[string]string{"NUAGE_BRIDGE": "a bridge; rm"}, `setting NUAGE_BRIDGE="a bridge; rm": not an interface name`},
		{"bridge like an option", map[string]string{"NUAGE_BRIDGE": "-x"}, "not an interface name"},
		{"datapath", map[string]string{"NUAGE_DATAPATH": "dpdk"}, "must be one of auto, system, netdev"},
		{"mtu", map[string]string{"NUAGE_MTU": "12"}, "576 to 65535"},
		{"dns", map[string]string{"NUAGE_DNS": "10.0.0.53,dns.example"}, "comma-separated list of IPv4 addresses"},
		{"connections", map[string]string{"NUAGE_CONNTRACK_LIMIT": "-1"}, "must be a number of connections"},
		{"autocreate", map[string]string{"NUAGE_AUTOCREATE": "maybe"}, "must be true or false"},
		{"vtep", map[string]string{"NUAGE_VTEP": "nosuch0"}, "neither an IPv4 address nor an interface"},
		{"vtep multicast", map[string]string{"NUAGE_VTEP": "224.0.0.1"}, "must be an IPv4 address"},
		{"store", map[string]string{"NUAGE_STORE": "here"}, "comma-separated list of etcd endpoints"},
		{"store file", map[string]string{"NUAGE_STORE_CA": "/nonexistent/ca", "NUAGE_STORE_CERT": "c", "NUAGE_STORE_KEY": "k"}, "no such file"},
		{"store certificate without the rest", map[string]string{"NUAGE_STORE_CERT": "c"}, "all three are needed"},
		{"enterprise", map[string]string{"NUAGE_ENTERPRISE": "a\nb"}, "control characters"},
		{"log level", map[string]string{"NUAGE_LOG_LEVEL": "loud"}, "must be one of error"},
		{"listen", map[string]string{"NUAGE_LISTEN": "2379"}, "must be HOST:PORT"},
		{"listen and join", map[string]string{"NUAGE_LISTEN": "10.0.0.1:2379", "NUAGE_JOIN": "x"}, "set one of them"},
		{"what is not built yet", map[string]string{"NUAGE_API": "0.0.0.0:1"}, "does not serve the REST API over TCP"},
	} {
		t.Run(c.desc, func(t *testing.T) {
			s := readSettings(func(k string) string { return c.env[k] })
			if s.Bridge == "" || s.Datapath == "" || s.Scope == "" || s.LogLevel == 0 {
				t.Errorf("a setting has no value: %+v", s)
			}
			switch err := s.Err(); {
			case c.problem == "" && err != nil:
				t.Errorf("unexpected problem: %v", err)
			case c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem) || len(s.Problems) != 1):
				t.Errorf("problem %v, want one with %q", err, c.problem)
			}
		})
	}
	// What is refused of where the store is leaves no other store, and of the VTEP no other VTEP.
	for _, c := range []struct {
		env               map[string]string
		misplaced, noVTEP bool
	}{
		{nil, false, false},
		{map[string]string{"NUAGE_MTU": "12"}, false, false},
		{map[string]string{"NUAGE_STORE": "10.0.0.1:2379"}, true, false},
		{map[string]string{"NUAGE_STORE": "https://a:2379", "NUAGE_STORE_CA": "/nonexistent/ca"}, true, false},
		{map[string]string{"NUAGE_LISTEN": ":2379"}, true, false},
		{map[string]string{"NUAGE_LISTEN": "10.0.0.1:2379", "NUAGE_JOIN": "x"}, true, false},
		{map[string]string{"NUAGE_JOIN": "a\nb"}, true, false},
		{map[string]string{"NUAGE_VTEP": "nosuch0"}, false, true},
	} {
		s := readSettings(func(k string) string { return c.env[k] })
		if (s.Misplaced != nil) != c.misplaced || s.NoVTEP != c.noVTEP || s.NoVTEP && s.VTEP.IsValid() {
			t.Errorf("%v: %+v", c.env, s)
		}
	}
	s := readSettings(func(k string) string {
		return map[string]string{"NUAGE_AUTOCREATE": "0", "NUAGE_VTEP": "192.0.2.7"}[k]
	})
	if s.Autocreate {
		t.Error("NUAGE_AUTOCREATE=0 is true")
	}
	if s.ConntrackLimit != 65536 {
		t.Errorf("%d connections", s.ConntrackLimit)
	}
	if s.VTEP.String() != "192.0.2.7" {
		t.Errorf("VTEP is %s", s.VTEP)
	}
}

// What the plugin reads, --help lists, and Docker lets a user set and the documentation explains
// are the same settings, with the same defaults.
func TestSettingsAreWhatUsersAreTold(t *testing.T) {
	names := settingNames()
	slices.Sort(names)
	same := func(where string, told []string) {
		slices.Sort(told)
		if told = slices.Compact(told); !slices.Equal(told, names) {
			t.Errorf("%s has %q, the plugin reads %q", where, told, names)
		}
	}
	text, err := os.ReadFile("../config.json")
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Env []struct {
			Name, Description, Value string
			Settable                 []string
		}
	}
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	var settable []string
	defaults := map[string]string{}
	for _, e := range config.Env {
		defaults[e.Name] = e.Value
		if slices.Contains(e.Settable, "value") && e.Description != "" {
			settable = append(settable, e.Name)
		}
	}
	same("config.json", settable)
	managed, daemon := readSettings(func(k string) string { return defaults[k] }), readSettings(func(string) string { return "" })
	if !reflect.DeepEqual(managed, daemon) {
		t.Errorf("the defaults of config.json are %+v, those of the code %+v", managed, daemon)
	}
	text, err = os.ReadFile("../docs/operation.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "| setting |")
	table, _, _ = strings.Cut(table, "\n\n")
	same("docs/operation.md", regexp.MustCompile(`NUAGE_[A-Z_]+`).FindAllString(table, -1))
}

// writeCertificate writes a new certificate and its key.
func writeCertificate(t *testing.T, certificate string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(certificate, append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// An authority that is renewed in place is used without a restart; files that are half written
// meanwhile, or gone, take the store from nobody.
func TestRenewedAuthority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "all")
		writeCertificate(t, file)
		getenv := func(name string) string {
			return map[string]string{"NUAGE_STORE": "https://a:2379", "NUAGE_STORE_CA": file, "NUAGE_STORE_CERT": file, "NUAGE_STORE_KEY": file}[name]
		}
		s := readSettings(getenv)
		if err := s.Err(); err != nil || !s.mayChange() {
			t.Fatalf("%v, watched: %v", err, s.mayChange())
		}
		other := func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 3*lookAgain)
			defer cancel()
			return untilOther(ctx, getenv, s)
		}
		if other() {
			t.Error("begins anew although nothing is other")
		}
		if err := os.Truncate(file, 100); err != nil {
			t.Fatal(err)
		}
		if other() {
			t.Error("begins anew with half a file")
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if other() {
			t.Error("begins anew without a file")
		}
		writeCertificate(t, file)
		if start := time.Now(); !other() || time.Since(start) > lookAgain {
			t.Error("does not begin anew with another authority")
		}
	})
}
