package multi

import (
	"strings"
	"testing"
	"time"

	"nuage/test/host"
)

// A host with a setting that is refused attaches nothing new and says so; what it has goes on
// with the store and the VTEP that it had.
func TestRefusedSettings(t *testing.T) {
	f := host.SharedFleet(t)
	one, three := f.Host(1), f.Host(3)
	s := newSpread(f, "App1", []string{"front=10.126.1.0/24"})
	before := vtep(t, one, three.HostName())
	for _, bad := range []string{"NUAGE_LISTEN=10.200.0.3:7443", "NUAGE_STORE=10.200.0.1:2379", "NUAGE_VTEP=nosuch0"} {
		name, _, _ := strings.Cut(bad, "=")
		t.Cleanup(func() {
			if t.Failed() {
				three.TryDocker("plugin", "disable", "-f", host.PluginName)
				three.TryDocker("plugin", "set", host.PluginName, name+"=")
				three.TryDocker("plugin", "enable", host.PluginName)
			}
		})
		p := one.Ping(s.containers[1], s.ip[3])
		three.Configure(bad)
		three.Refused([]string{name}, "docker", "run", "--rm", "--network", s.network[3], host.Image, "app", "addr")
		three.Refused([]string{name}, "nuagectl", "status")
		s.reach(1, 3)
		if now := vtep(t, one, three.HostName()); now != before {
			t.Errorf("%s: the VTEP was %s and is %s", bad, before, now)
		}
		three.Configure(name + "=")
		three.StoreReady()
		p.NoLoss(bad)
	}
	attaches(three, s.network[3], s.ip[1], 30*time.Second)
}

func vtep(t *testing.T, h *host.Host, name string) string {
	t.Helper()
	for _, o := range h.Get("hosts") {
		if o["name"] == name {
			return o["vtep"].(string)
		}
	}
	t.Fatalf("no host %s", name)
	return ""
}
