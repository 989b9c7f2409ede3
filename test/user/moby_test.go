package user

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"nuage/test/host"
)

// Cases of moby's own network tests that are not covered elsewhere, on our driver.

// TestDockerNetworkDeleteNotExists, …Create with endpoints, …CreateDeleteSpecialCharacters.
func TestNetworkNamesAndRemoval(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.96.1.0/24")
	odd := h.Network("kiwl$%^", d.IPAM("front")...)
	c := h.Container("c", "--network", odd)
	h.Reaches(c, "10.96.1.1", 64)
	h.Refused([]string{"active endpoints"}, "docker", "network", "rm", odd)
	h.Refused([]string{"already exists"}, append(append([]string{"docker", "network", "create", "-d", "nuage"}, d.IPAM("front")...), odd)...)
	h.Reaches(c, "10.96.1.1", 64)
	h.Docker("rm", "-f", c)
	h.Docker("network", "rm", odd)
	h.Refused([]string{"not found"}, "docker", "network", "rm", odd)
}

// TestDockerNetworkUnsupportedRequiredIP, …ValidateIP, …ConnectFailsNoInspectChange.
func TestRefusedConnectionsChangeNothing(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.97.1.0/24", "back=10.97.2.0/24")
	front, back := d.Network("front"), d.Network("back", "--subnet", "10.97.2.0/24")
	c := h.Container("c", "--network", front)
	inspect := func() string {
		attached := h.Inspect(c).NetworkSettings.Networks
		maps.DeleteFunc(attached, func(_ string, e host.Endpoint) bool { return e.EndpointID == "" }) // Docker keeps its own wish
		return fmt.Sprint(attached, h.Docker("network", "inspect", "-f", "{{json .Containers}}", back))
	}
	before := inspect()
	h.Refused([]string{"10.97.2.1"}, "docker", "network", "connect", "--ip", "10.97.2.1", back, c) // the gateway
	h.Refused([]string{"10.1.1.1"}, "docker", "network", "connect", "--ip", "10.1.1.1", back, c)
	if after := inspect(); after != before {
		t.Errorf("before: %s\nafter: %s", before, after)
	}
	h.Reaches(c, "10.97.1.1", 64)
	h.Refused([]string{"colour"}, "docker", "network", "connect", "--driver-opt", "colour=red", back, c)
	if out := h.Exec(c, "app", "addr"); strings.Contains(out, "10.97.2.") || strings.Contains(out, "eth1") {
		t.Errorf("inside after a refused connection:\n%s", out)
	}
	h.ReachesNot(c, "10.97.2.50")
	h.Docker("network", "connect", "--ip", "10.97.2.50", back, c)
	h.Reaches(c, "10.97.2.1", 64)
}

// The plugin protocol itself, on the socket of the bare name: what dockerd does after
// crashes and lost connections. Whatever comes, the plugin answers in JSON and lives.
func TestProtocolOddities(t *testing.T) {
	t.Parallel()
	h := host.Ready(t)
	n := h.Domain("App1", "front=10.98.1.0/24").Network("front")
	c := h.Container("c", "--network", n)
	pid := h.PluginPID()
	call := func(verb, body string) string {
		t.Helper()
		out, err := h.Plugin(verb, body)
		if err != nil {
			t.Fatalf("%s %.40q: %v", verb, body, err)
		}
		if !strings.HasPrefix(out, "{") {
			t.Errorf("%s %.40q: answer %q", verb, body, out)
		}
		return out
	}
	unknown := `{"NetworkID":"00","EndpointID":"11","PoolID":"none","Address":"10.98.1.77"}`
	for _, verb := range []string{"NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint", "NetworkDriver.RevokeExternalConnectivity",
		"NetworkDriver.DeleteNetwork", "NetworkDriver.FreeNetwork", "IpamDriver.ReleaseAddress", "IpamDriver.ReleasePool"} {
		for range 2 {
			if out := call(verb, unknown); strings.Contains(out, "rr") && !strings.Contains(out, `"Err":""`) {
				t.Errorf("%s of unknown IDs: %s", verb, out)
			}
		}
	}
	verbs := []string{"NetworkDriver.CreateNetwork", "NetworkDriver.CreateEndpoint", "NetworkDriver.Join", "NetworkDriver.Leave",
		"NetworkDriver.DeleteEndpoint", "NetworkDriver.DeleteNetwork", "IpamDriver.RequestPool", "IpamDriver.RequestAddress",
		"IpamDriver.ReleaseAddress", "IpamDriver.ReleasePool"}
	for _, verb := range verbs {
		for _, body := range []string{"", "null", "[]", "{", `{"NetworkID":7,"PoolID":7}`, `"` + strings.Repeat("x", 100<<10) + `"`, "\x00\xff"} {
			if out := call(verb, body); body != "null" && !strings.Contains(out, `"Err":"`) {
				t.Errorf("%s with body %.20q: %.200s, want an error", verb, body, out)
			}
		}
	}
	// The running container's endpoint, made and joined a second time.
	e, network := h.Endpoint(c, n), h.Docker("network", "inspect", "-f", "{{.Id}}", n)
	again := fmt.Sprintf(`{"NetworkID":%q,"EndpointID":%q,"SandboxKey":"/var/run/docker/netns/x","Options":{},"Interface":{"Address":"%s/24","MacAddress":%q}}`,
		network, e.EndpointID, e.IPAddress, e.MacAddress)
	for _, verb := range []string{"NetworkDriver.CreateEndpoint", "NetworkDriver.EndpointOperInfo"} {
		if out := call(verb, again); strings.Contains(out, `"Err":"`) && !strings.Contains(out, `"Err":""`) {
			t.Errorf("%s a second time: %s", verb, out)
		}
	}
	h.Reaches(c, "10.98.1.1", 64)
	if now := h.PluginPID(); now != pid {
		t.Errorf("the plugin was restarted: process %s, before %s", now, pid)
	}
}
