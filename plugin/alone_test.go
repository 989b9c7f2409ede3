package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nuage/ovs/ovstest"
)

// The managed plugin beside the daemon, on one host: neither has a record of what the other has
// attached, so the second one waits until the first has ended, and says so.
func TestSecondNuageOfAHost(t *testing.T) {
	needsRoot(t)
	o := ovstest.Start(t, ovstest.Netdev())
	dir, other := t.TempDir(), t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "run"), filepath.Join(other, "run")); err != nil {
		t.Fatal(err)
	}
	network := []byte(`{"NetworkID":"` + id + `","Options":{"com.docker.network.generic":{"enterprise":"DCEnterprise","domain":"App1","zone":"VMZone","subnet":"VMSubnet"}},"IPv4Data":[{"AddressSpace":"null","Pool":"0.0.0.0/0"}]}`)
	endpoint := []byte(`{"NetworkID":"` + id + `","EndpointID":"` + id + `","Interface":{},"Options":{}}`)

	first := startPlugin(t, o, dir, map[string]string{"NUAGE_DATAPATH": "netdev"})
	apply(t, dir, tenants)
	for _, call := range []struct {
		verb string
		body []byte
	}{{"CreateNetwork", network}, {"CreateEndpoint", endpoint}, {"Join", endpoint}} {
		if a := first.ask("NetworkDriver."+call.verb, call.body); a["Err"] != nil {
			t.Fatal(call.verb, a["Err"])
		}
	}
	on := func() string { return o.Vsctl("list-ports", "alubr0") + fmt.Sprint(o.Flows("alubr0")) }
	before := on()

	second := startPlugin(t, nil, other, map[string]string{"NUAGE_DATAPATH": "netdev"})
	if a := second.ask("NetworkDriver.CreateNetwork", network); !strings.Contains(fmt.Sprint(a["Err"]), "another nuage already answers") {
		t.Errorf("a second nuage of the host creates a network: %v", a)
	}
	if after := on(); after != before {
		t.Errorf("what the first one has put on the switch was\n%s\nand now is\n%s", before, after)
	}
	first.stop()
	apply(t, other, tenants)
	if a := second.ask("NetworkDriver.CreateNetwork", network); a["Err"] != nil {
		t.Errorf("when the first one has ended: %v", a["Err"])
	}
}
