package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nuage/ovs/ovstest"
)

// The mount that is seen at a path is the last one of the longest place above it.
func TestPropagation(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mountinfo")
	text := `22 1 8:1 / / rw shared:1 - ext4 /dev/vda1 rw
30 22 0:25 / /run rw,nosuid shared:5 - tmpfs tmpfs rw
31 30 0:26 / /run/lock rw shared:6 - tmpfs tmpfs rw
32 22 0:27 / /runner rw - tmpfs tmpfs rw
33 30 0:28 / /run rw,nosuid master:5 propagate_from:2 - tmpfs tmpfs rw
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]map[string]string{"/run": {"master": "5", "propagate_from": "2"}, "/run/lock": {"shared": "6"}, "/runner": {}, "/srv": {"shared": "1"}} {
		if got, err := propagation(file, path); err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", path, got, err, want)
		}
	}
}

func TestCertificateTimes(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	made := func(from, to time.Duration) []byte {
		now := time.Now()
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(from), NotAfter: now.Add(to)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	for name, c := range map[string]struct {
		text        []byte
		state, says string
	}{
		"counts":     {made(-time.Hour, time.Hour), stateOK, "counts until"},
		"short":      {made(-95*time.Hour, 5*time.Hour), stateProblem, "has not been renewed"},
		"ended":      {made(-2*time.Hour, -time.Hour), stateProblem, "ended at"},
		"not yet":    {made(time.Hour, 2*time.Hour), stateProblem, "one of the clocks"},
		"unreadable": {[]byte("-----BEGIN"), stateProblem, "cannot be read"},
	} {
		var d doctor
		d.checkCertificate("its", c.text, "renew it")
		if f := d.findings[0]; len(d.findings) != 1 || f.State != c.state || !strings.Contains(f.Text, c.says) || f.State == stateProblem && f.Remedy == "" {
			t.Errorf("%s: %+v", name, d.findings)
		}
	}
}

// What others have named cannot write to the terminal.
func TestDoctorWrites(t *testing.T) {
	var d doctor
	d.ok("docker", "fine")
	d.problem("status", "rename it", "vport %s", "a\x1b[31m")
	var b strings.Builder
	if err := d.write(&b, "text"); err != nil {
		t.Fatal(err)
	}
	want := "ok       docker       fine\n" +
		"PROBLEM  status       vport a\\x1b[31m\n" +
		"                      remedy: rename it\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

// What doctor says of Open vSwitch, on a private one: healthy, then with a part that is not.
func TestDoctorSeesTheSwitch(t *testing.T) {
	o := ovstest.Start(t)
	look := func() string {
		d := &doctor{ctx: t.Context(), run: func(program string, args ...string) ([]byte, error) {
			out, err := o.Run(program, args...)
			return []byte(out), err
		}}
		d.checkSwitch()
		var b strings.Builder
		if err := d.write(&b, "text"); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	says := func(when string, wants ...string) {
		t.Helper()
		got := look()
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q in\n%s", when, want, got)
			}
		}
	}
	says("at first", "PROBLEM  bridge       there is no bridge alubr0\n")
	o.AddBridge("alubr0")
	o.Vsctl("set-fail-mode", "alubr0", "standalone")
	says("open", `its fail mode is "standalone", not secure`, "remedy: ovs-vsctl set-fail-mode alubr0 secure")
	o.Vsctl("set-fail-mode", "alubr0", "secure")
	o.AddPort("alubr0", "nu1", 1)
	if got := look(); strings.Contains(got, "PROBLEM") || !strings.Contains(got, "ok       bridge       alubr0 answers, with 1 port;") {
		t.Errorf("healthy:\n%s", got)
	}
	o.Run("ovs-vsctl", "--timeout=5", "add-port", "alubr0", "nu2", "--", "set", "Interface", "nu2", "type=nosuch") // it waits for a port that never comes
	says("with a broken port", "PROBLEM  ports        ovs-vswitchd cannot use port nu2: ")
	o.StopVswitchd()
	says("without ovs-vswitchd", "PROBLEM  bridge       ovs-vswitchd does not answer for bridge alubr0: ")
	o.StopDB()
	says("without ovsdb-server", "PROBLEM  switch       ovsdb-server does not answer: ")
}
