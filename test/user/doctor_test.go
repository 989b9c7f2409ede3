package user

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"nuage/test/host"
)

// found is one finding of nuagectl doctor.
type found struct{ Check, State, Text, Remedy string }

// examined is what doctor finds, and whether it says by its exit code that all is well.
func examined(h *host.Host) (all []found, well bool) {
	out, err := h.Try("nuagectl", "doctor", "-o", "json")
	text, _, _ := strings.Cut(out, "\nnuagectl:")
	if jsonErr := json.Unmarshal([]byte(text), &all); jsonErr != nil {
		h.Fatalf("doctor: %v\n%s", jsonErr, out)
	}
	return all, err == nil
}

// Doctor calls a healthy host healthy, and names what is wrong with one that is not, together
// with what mends it, whether the plugin runs or not.
func TestDoctor(t *testing.T) {
	t.Parallel()
	h := host.Ready(t)
	d := h.Domain("App1", "front=10.90.1.0/24")
	h.Docker("run", "-d", "--name", h.Name("c"), "--network", d.Network("front"), host.Image)

	healthy := func(when string) {
		t.Helper()
		h.Eventually(20*time.Second, "a healthy host "+when, func() error {
			if all, well := examined(h); !well {
				return errorf("%+v", all)
			}
			return nil
		})
	}
	finds := func(when, check, text, remedy string) {
		t.Helper()
		h.Eventually(20*time.Second, "doctor's word "+when, func() error {
			all, well := examined(h)
			for _, f := range all {
				if !well && f.State == "problem" && f.Check == check && strings.Contains(f.Text, text) && strings.Contains(f.Remedy, remedy) {
					return nil
				}
			}
			return errorf("well: %v, found: %+v", well, all)
		})
	}
	plugin := func(verb ...string) { h.Docker(append(append([]string{"plugin"}, verb...), "nuage-plugin")...) }

	healthy("at first")
	all, _ := examined(h)
	seen := map[string]bool{}
	for _, f := range all {
		seen[f.Check] = true
	}
	for _, check := range []string{"docker", "plugin", "link", "mounts", "bridge", "datapath", "ports", "status", "disk"} {
		if !seen[check] {
			t.Errorf("doctor says nothing of %s: %+v", check, all)
		}
	}

	h.OVS("vsctl", "add-port", "alubr0", "nosuchlink")
	finds("of a port without a link", "ports", "nosuchlink", "")
	h.OVS("vsctl", "del-port", "alubr0", "nosuchlink")

	h.Run("rm", "/run/docker/plugins/nuage.sock")
	finds("of a link that is gone", "link", "the bare name nuage does not work", "docker plugin enable nuage-plugin")

	h.Run("mount", "--make-rprivate", "/run")
	finds("of a private /run", "mounts", "no shared mount", "mount --make-rshared /run")
	plugin("disable", "-f")
	plugin("enable")
	h.Run("mount", "--make-rshared", "/run")
	finds("of a /run that was shared too late", "mounts", "after the plugin was enabled", "docker plugin enable nuage-plugin")

	plugin("disable", "-f")
	finds("of a plugin that is off", "plugin", "is disabled", "docker plugin enable nuage-plugin")
	h.OVS("vsctl", "set-fail-mode", "alubr0", "standalone")
	finds("of an open bridge", "bridge", "not secure", "set-fail-mode alubr0 secure")
	plugin("enable")
	healthy("once the plugin is on again")

	h.Service("ovs-vswitchd", "stop")
	finds("of a switch that is away", "bridge", "ovs-vswitchd does not answer", "openvswitch-switch")
	h.Service("ovsdb-server", "stop")
	finds("of a switch's database that is away", "switch", "ovsdb-server does not answer", "openvswitch-switch")
	h.Service("ovsdb-server", "start")
	h.Service("ovs-vswitchd", "start")
	healthy("once Open vSwitch is back")

	h.Service("dockerd", "stop")
	finds("of Docker that is away", "docker", "does not answer", "systemctl start docker")
	h.Service("dockerd", "start")
	healthy("once Docker is back")
}
