package user

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nuage/test/host"
)

// said is a domain's place as the flags that a container without a Docker network gives.
func said(d *host.Domain, subnet string, more ...string) []string {
	return append([]string{"--net=none", "-e", "NUAGE-ENTERPRISE=" + d.Enterprise, "-e", "NUAGE-DOMAIN=" + d.Name,
		"-e", "NUAGE-ZONE=Zone", "-e", "NUAGE-NETWORK=" + subnet, "-e", "NUAGE-USER=user"}, more...)
}

// inside waits until a container of the monitor has its interface, and returns the address.
func inside(h *host.Host, container string) (address string) {
	h.Eventually(10*time.Second, container+" is attached", func() error {
		out, err := h.TryDocker("exec", container, "app", "addr")
		if f := strings.Fields(out); err == nil && len(f) > 1 && f[0] == "eth0" && strings.Contains(out, "default via") {
			address, _, _ = strings.Cut(f[1], "/")
			return nil
		}
		return errorf("%v: %s\n%s", err, out, h.Nuagectl("get", "vports"))
	})
	return address
}

// vport is what nuagectl shows of the vport of that name; nil if there is none.
func vport(h *host.Host, name string) map[string]any {
	for _, v := range h.Get("vports") {
		if v["name"] == name {
			return v
		}
	}
	return nil
}

// The commands that users of nuage have always given: a web server on port 5000 is reached
// from another subnet without any port mapping, and from Docker networks of the domain.
func TestMonitor(t *testing.T) {
	t.Parallel()
	h := host.Ready(t)
	h.Nuagectl("apply", "-f", "examples/app1.yaml")
	run := func(name, enterprise, zone, subnet string) string {
		h.Docker("run", "-d", "--name", name, "--hostname", name, "--net=none", "-e", "NUAGE-ENTERPRISE="+enterprise, "-e", "NUAGE-DOMAIN=App1",
			"-e", "NUAGE-ZONE="+zone, "-e", "NUAGE-NETWORK="+subnet, "-e", "NUAGE-USER=user", host.Image, "app", "serve", "-listen", ":5000")
		return inside(h, name)
	}
	web := run("web", "DCEnterprise", "DockerZone", "PrivateSubnet")
	vm := run("vm", "DCEnterprise", "VMZone", "VMSubnet")
	stranger := run("stranger", "Globex", "VMZone", "VMSubnet")
	if !strings.HasPrefix(web, "10.85.85.") || !strings.HasPrefix(vm, "10.34.49.") {
		t.Errorf("addresses %s, %s, %s", web, vm, stranger)
	}
	h.Reaches("web", "10.85.85.1", 64)
	h.Reaches("vm", web, 63)
	h.Serves("vm", vm, "web", web+":5000")
	h.ReachesNot("stranger", web)
	n := h.Network("web", "--ipam-driver", "nuage", "--ipam-opt", "enterprise=DCEnterprise", "--ipam-opt", "domain=App1",
		"--ipam-opt", "zone=DockerZone", "--ipam-opt", "subnet=PrivateSubnet")
	c := h.Container("c", "--network", n)
	h.Reaches(c, web, 64)
	h.Serves(c, h.IP(c), "web", web+":5000")
	if out := h.Docker("port", "web"); out != "" {
		t.Errorf("docker port: %s", out)
	}
	if v := vport(h, "web"); v["zone"] != "DockerZone" || v["user"] != "user" || v["ipv4"] != web || v["state"] != "up" {
		t.Errorf("vport: %v", v)
	}
	// What Docker leaves to a container without a network, and what is there now.
	out := h.Exec("web", "app", "addr")
	if !strings.Contains(out, "mtu 1450") || strings.Count(out, "\n") != 1 {
		t.Errorf("inside:\n%s", out)
	}
	if dns := h.Docker("run", "--rm", "--net=none", "--dns", "10.34.49.53", host.Image, "cat", "/etc/resolv.conf"); !strings.Contains(dns, "nameserver 10.34.49.53") {
		t.Errorf("resolv.conf: %s", dns)
	}
	h.Docker("rm", "-f", "web", "vm", "stranger")
	h.Eventually(10*time.Second, "nothing of the removed containers", func() error {
		if vs, ps := h.Get("vports"), ports(h); len(vs) != 1 || len(ps) != 1 {
			return errorf("vports %v, ports %v", vs, ps)
		}
		return nil
	})
}

// The same from --env-file, the image's own ENV, labels, and names with underscores; with
// spaces and = in values, and all that may be said beside the place.
func TestMonitorMetadata(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("A domain=1", "front=10.130.1.0/24")
	file := filepath.Join(h.Dir(), h.Name("env"))
	text := fmt.Sprintf("# where it belongs\nNUAGE-ENTERPRISE=%s\nNUAGE-DOMAIN=A domain=1\nNUAGE-ZONE=Zone\nNUAGE-NETWORK=front\n", d.Enterprise)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	one := h.Container("file", "--net=none", "--env-file", file)

	dockerfile := fmt.Sprintf("FROM %s\nENV NUAGE-ENTERPRISE=%s NUAGE-DOMAIN=\"A domain=1\" NUAGE-ZONE=Nowhere NUAGE-NETWORK=front\n", host.Image, d.Enterprise)
	if out, err := h.TryWith(dockerfile, []string{"DOCKER_BUILDKIT=0"}, "docker", "build", "-t", h.Name("image"), "-"); err != nil {
		t.Fatalf("docker build: %v\n%s", err, out)
	}
	two := h.Name("image")
	t.Cleanup(func() { h.TryDocker("rm", "-f", two); h.TryDocker("rmi", h.Name("image")) })
	h.Docker("run", "-d", "--name", two, "--net=none", "-e", "NUAGE_ZONE=Zone", h.Name("image")) // -e wins

	three := h.Container("labels", "--net=none", "--label", "NUAGE-ENTERPRISE="+d.Enterprise, "--label", "NUAGE-DOMAIN=A domain=1",
		"--label", "NUAGE-ZONE=Zone", "-e", "NUAGE_POLICY_GROUP=web, db", "-e", "NUAGE-STATIC-IP=10.130.1.77", "-e", "NUAGE-MAC=02:00:00:00:00:77")
	for _, c := range []string{one, two, three} {
		if ip := inside(h, c); !strings.HasPrefix(ip, "10.130.1.") {
			t.Errorf("%s has %s", c, ip)
		}
	}
	h.Reaches(one, "10.130.1.77", 64)
	v := vport(h, three)
	if fmt.Sprint(v["policyGroups"]) != "[web db]" || v["ipv4"] != "10.130.1.77" || v["mac"] != "02:00:00:00:00:77" {
		t.Errorf("vport: %v", v)
	}
	// One that says nothing is left alone.
	silent := h.Container("silent", "--net=none")
	time.Sleep(300 * time.Millisecond)
	if out := h.Exec(silent, "app", "addr"); out != "" || vport(h, silent) != nil {
		t.Errorf("inside a container that says nothing:\n%s", out)
	}
}

// What cannot be attached says why, leaves no port, and is attached once that is mended.
func TestMonitorRefuses(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.131.1.0/24")
	refused := func(name, why string, flags ...string) string {
		t.Helper()
		c := h.Container(name, flags...)
		h.Eventually(10*time.Second, c+" is refused", func() error {
			if out, err := h.Try("nuagectl", "get", "vports", c); err != nil || !strings.Contains(out, "failed: "+why) {
				return errorf("%v: %s", err, out)
			}
			return nil
		})
		if out := h.Exec(c, "app", "addr"); out != "" {
			t.Errorf("%s: inside:\n%s", name, out)
		}
		return c
	}
	// As if NUAGE_AUTOCREATE were false: with no address given there is nothing to make.
	unknown := refused("unknown", "enterprise Nope not found", "--net=none", "-e", "NUAGE-ENTERPRISE=Nope", "-e", "NUAGE-DOMAIN=App1", "-e", "NUAGE-ZONE=Zone", "-e", "NUAGE-NETWORK=front")
	refused("outside", "address 10.99.0.1 is not in subnet front", said(d, "front", "-e", "NUAGE-STATIC-IP=10.99.0.1")...)
	refused("text", `NUAGE-MAC: invalid: "blue" is not a MAC address`, said(d, "front", "-e", "NUAGE-MAC=blue")...)
	late := refused("late", "subnet back not found", said(d, "back")...)
	taken := h.Container("taken", said(d, "front", "-e", "NUAGE-STATIC-IP=10.131.1.9")...)
	inside(h, taken)
	second := refused("second", "subnet front: address 10.131.1.9 in use by vport "+taken, said(d, "front", "-e", "NUAGE-STATIC-IP=10.131.1.9")...)

	h.Docker("rm", "-f", unknown, taken)
	d.Apply("back=10.131.2.0/24")
	h.Eventually(20*time.Second, "the mended ones are attached", func() error {
		if v, w := vport(h, late), vport(h, second); v["state"] != "up" || w["state"] != "up" || w["ipv4"] != "10.131.1.9" {
			return errorf("%v\n%v", v, w)
		}
		if v := vport(h, unknown); v != nil {
			return errorf("of a removed container: %v", v)
		}
		return nil
	})
	h.Reaches(late, "10.131.1.9", 63)
}

// Stopped and started, killed, restarted by policy, paused, renamed.
func TestMonitorLifecycle(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.132.1.0/24", "back=10.132.2.0/24")
	c := h.Container("c", said(d, "front", "--restart", "always")...)
	peer := h.Container("peer", said(d, "back")...)
	ip, peerIP := inside(h, c), inside(h, peer)
	same := func(after string) {
		t.Helper()
		h.Eventually(10*time.Second, "attached after "+after, func() error {
			out, err := h.TryDocker("exec", c, "app", "addr")
			if err != nil || !strings.Contains(out, "eth0 "+ip+"/24") || !strings.Contains(out, "default via") {
				return errorf("%v: %s", err, out)
			}
			return nil
		})
		h.Reaches(peer, ip, 63)
		h.Reaches(c, peerIP, 63)
	}
	h.Docker("stop", "-t", "1", c)
	h.Eventually(10*time.Second, "detached", func() error {
		if v := vport(h, c); v != nil {
			return errorf("%v", v)
		}
		return nil
	})
	h.Docker("run", "--rm", "--network", d.Network("front"), host.Image, "app", "addr") // takes another
	h.Docker("start", c)
	same("stop and start")
	h.Docker("restart", "-t", "1", c)
	same("restart")
	pid := h.Inspect(c).State.Pid
	h.Run("kill", "-9", fmt.Sprint(pid)) // Docker's restart policy brings it back
	h.Eventually(10*time.Second, "the restart policy", func() error {
		if i := h.Inspect(c); i.State.Status != "running" || i.State.Pid == pid {
			return errorf("%+v", i.State)
		}
		return nil
	})
	same("a crash")
	before := vport(h, c)["id"]
	h.Docker("pause", c)
	time.Sleep(200 * time.Millisecond)
	h.Docker("unpause", c)
	other := h.Name("renamed")
	h.Docker("rename", c, other)
	t.Cleanup(func() { h.TryDocker("rm", "-f", other) })
	h.Eventually(10*time.Second, "the vport's new name", func() error {
		if v := vport(h, other); v == nil || v["id"] != before {
			return errorf("%v", h.Get("vports"))
		}
		return nil
	})
	c = other
	same("pause and rename")
	// One that is over at once leaves nothing, however far its attachment had come.
	for range 3 {
		h.Docker(append(append([]string{"run", "--rm"}, said(d, "front")...), host.Image, "app", "addr")...)
	}
	h.Eventually(10*time.Second, "nothing of those that ended", func() error {
		if vs := h.Get("vports", "--enterprise", d.Enterprise); len(vs) != 2 {
			return errorf("%v", vs)
		}
		return nil
	})
}

// The plugin goes and comes, and so does Docker: who runs on loses nothing, who starts or
// ends meanwhile is seen to afterwards.
func TestMonitorRestarts(t *testing.T) {
	t.Parallel()
	h := host.Ready(t)
	d := h.Domain("App1", "front=10.133.1.0/24", "back=10.133.2.0/24")
	a := h.Container("a", said(d, "front", "--restart", "always")...)
	b := h.Container("b", said(d, "back", "--restart", "always")...)
	gone := h.Container("gone", said(d, "front")...)
	ipA, ipB := inside(h, a), inside(h, b)
	inside(h, gone)
	names := func(want int) {
		t.Helper()
		h.Eventually(15*time.Second, fmt.Sprintf("%d vports and ports", want), func() error {
			if vs, ps := h.Get("vports"), ports(h); len(vs) != want || len(ps) != want {
				return errorf("vports %v, ports %v", vs, ps)
			}
			return nil
		})
	}
	forth, aft := h.Ping(a, ipB), h.Ping(b, ipA)
	h.Run("kill", "-9", h.PluginPID())
	h.StoreReady()
	h.Docker("plugin", "disable", "-f", host.PluginName)
	h.Docker("rm", "-f", gone)
	late := h.Container("late", said(d, "front")...)
	h.Docker("plugin", "enable", host.PluginName)
	inside(h, late)
	names(3)
	forth.NoLoss("restarts of the plugin")
	aft.NoLoss("restarts of the plugin")

	h.Service("dockerd", "restart") // late has no restart policy
	running(h, a)
	running(h, b)
	if now := inside(h, a); now != ipA {
		t.Errorf("after a restart of dockerd a has %s, had %s", now, ipA)
	}
	inside(h, b)
	names(2)
	h.Reaches(a, inside(h, b), 63)

	daemonJSON(h, `{"live-restore": true}`)
	h.Service("dockerd", "restart")
	running(h, a)
	running(h, b)
	inside(h, a)
	ping := h.Ping(a, inside(h, b))
	h.Service("dockerd", "kill")
	h.Service("dockerd", "start")
	h.StoreReady()
	after := h.Container("after", said(d, "front")...) // the events are followed again
	h.Reaches(a, inside(h, after), 64)
	ping.NoLoss("kill -9 of dockerd with live-restore")
}
