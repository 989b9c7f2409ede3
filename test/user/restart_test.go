package user

import (
	"strings"
	"testing"
	"time"

	"nuage/test/host"
)

func daemonJSON(h *host.Host, text string) {
	h.Run("sh", "-c", "echo '"+text+"' >/etc/docker/daemon.json")
}

// running waits until a restarted container runs with an address.
func running(h *host.Host, container string) {
	h.Eventually(30*time.Second, container+" runs again", func() error {
		if i := h.Inspect(container); i.State.Status != "running" {
			return errorf("%s", i.State.Status)
		}
		return nil
	})
}

// moby's TestDockerNetworkDriverUngracefulRestart and MultipleNetworks…DaemonRestart:
// Docker ends, well or badly, and its --restart always containers come back into their
// networks with the addresses that they asked for; the host reboots within a minute.
func TestDockerRestarts(t *testing.T) {
	t.Parallel()
	h := host.Ready(t)
	d := h.Domain("App1", "front=10.93.1.0/24", "back=10.93.2.0/24")
	front := d.Network("front", "--subnet", "10.93.1.0/24")
	back := d.Network("back", "--subnet", "10.93.2.0/24")
	a := h.Container("a", "--restart", "always", "--network", front, "--ip", "10.93.1.10")
	b := h.Container("b", "--restart", "always", "--network", back)
	h.Docker("network", "connect", "--ip", "10.93.1.20", front, b)
	h.Container("once", "--network", front, "--ip", "10.93.1.30") // without a restart policy

	check := func(after string) {
		t.Helper()
		running(h, a)
		running(h, b)
		if ip := h.IP(a); ip != "10.93.1.10" {
			t.Errorf("after %s: a has %s", after, ip)
		}
		h.Reaches(a, "10.93.1.20", 64)
		h.Reaches(b, "10.93.2.1", 64)
		h.Serves(b, "10.93.1.20", a, "10.93.1.10")
		// The address of the container that did not come back is free for another.
		if out, err := h.TryDocker("run", "--rm", "--network", front, "--ip", "10.93.1.30", host.Image, "app", "ping", "10.93.1.10"); err != nil {
			t.Errorf("after %s: --ip of a container that is gone: %v\n%s", after, err, out)
		}
		if vs := h.Get("vports"); len(vs) != 3 {
			t.Errorf("after %s: %d vports, want 3: %v", after, len(vs), vs)
		}
	}
	begin := time.Now()
	h.Service("dockerd", "restart")
	check("an orderly restart of dockerd")
	h.Docker("start", h.Name("once"))
	h.Service("dockerd", "kill")
	h.Service("dockerd", "start")
	check("kill -9 of dockerd")
	h.Docker("start", h.Name("once"))
	h.Power("off")
	h.Power("on")
	check("a power cut")
	t.Logf("three restarts took %s", time.Since(begin).Round(time.Second))
	if out := h.Nuagectl("get", "subnets"); !strings.Contains(out, "10.93.2.0/24") {
		t.Errorf("subnets after all that:\n%s", out)
	}
}

// moby's Daemon{Kill,Shutdown}LiveRestoreWithPlugins: with live-restore the containers run
// on and lose nothing.
func TestLiveRestore(t *testing.T) {
	t.Parallel()
	h := host.Start(t)
	daemonJSON(h, `{"live-restore": true}`)
	h.Service("dockerd", "restart")
	h.LoadImages()
	h.InstallPlugin()
	p := newPair(t, h)
	for _, verb := range []string{"stop", "kill"} {
		p.startPings()
		h.Service("dockerd", verb)
		h.Service("dockerd", "start")
		p.works("dockerd " + verb)
		p.noLoss("dockerd " + verb + " with live-restore")
	}
	h.Docker("restart", "-t", "1", p.a)
	h.Reaches(p.b, h.IP(p.a), 63)
}

// The switch ends and comes back: its flows are programmed again at once.
func TestSwitchRestarts(t *testing.T) {
	t.Parallel()
	h := host.Ready(t)
	p := newPair(t, h)
	before := strings.Join(flows(h), "\n")
	same := func(after string, limit time.Duration) {
		t.Helper()
		h.Eventually(limit, "the same flows after "+after, func() error {
			if now := strings.Join(flows(h), "\n"); now != before {
				return errorf("before:\n%s\nnow:\n%s", before, now)
			}
			return nil
		})
	}
	for _, verb := range []string{"stop", "kill"} {
		h.Service("ovs-vswitchd", verb)
		begin := time.Now()
		h.Service("ovs-vswitchd", "start")
		up := time.Now()
		same("vswitchd "+verb, 5*time.Second)
		t.Logf("%s: vswitchd up after %s, flows back %s later", verb, up.Sub(begin).Round(time.Millisecond), time.Since(up).Round(time.Millisecond))
		h.Reaches(p.a, p.ipB, 63)
		p.works("vswitchd " + verb)
	}

	// In the userspace datapath ovs-vswitchd forwards nothing while ovsdb-server is away:
	// its own doing, not ours, so no packets are counted here.
	h.Service("ovsdb-server", "kill")
	out, err := h.TryDocker("run", "--rm", "--network", p.front, host.Image, "app", "addr")
	if err == nil {
		t.Errorf("a container was attached without ovsdb-server: %s", out)
	} else if !strings.Contains(strings.ToLower(out), "ovsdb") && !strings.Contains(strings.ToLower(out), "open vswitch") {
		t.Errorf("the message does not name what is missing: %s", out)
	}
	h.Service("ovsdb-server", "start")
	// ovs-vswitchd looks for it every eight seconds.
	h.Eventually(20*time.Second, "attach after ovsdb-server is back", func() error {
		if out, err := h.TryDocker("run", "--rm", "--network", p.front, host.Image, "app", "ping", "10.90.1.1"); err != nil {
			return errorf("%v: %s", err, out)
		}
		return nil
	})
	h.Reaches(p.a, p.ipB, 63)
	same("a restart of ovsdb-server", 10*time.Second)
}

// Open vSwitch away when the plugin starts: the plugin is there and says what is missing,
// within ten seconds; it needs no restart once the switch is up.
func TestSwitchAwayAtStart(t *testing.T) {
	t.Parallel()
	h := host.Start(t)
	h.LoadImages()
	h.Service("ovs-vswitchd", "stop")
	h.Service("ovsdb-server", "stop")
	h.InstallPlugin()
	d := h.Domain("App1", "front=10.94.1.0/24") // the store does not need the switch
	n := d.Network("front")
	begin := time.Now()
	out, err := h.TryDocker("run", "--rm", "--network", n, host.Image, "app", "addr")
	if err == nil || !strings.Contains(strings.ToLower(out), "ovsdb") && !strings.Contains(strings.ToLower(out), "open vswitch") {
		t.Errorf("without Open vSwitch: %v\n%s", err, out)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("the refusal took %s", took)
	}
	if out, _ := h.Try("nuagectl", "status"); !strings.Contains(strings.ToLower(out), "ovsdb") && !strings.Contains(strings.ToLower(out), "open vswitch") {
		t.Errorf("nuagectl status does not tell:\n%s", out)
	}
	h.Service("ovsdb-server", "start")
	h.Service("ovs-vswitchd", "start")
	h.Eventually(15*time.Second, "attach once Open vSwitch is up", func() error {
		if out, err := h.TryDocker("run", "--rm", "--network", n, host.Image, "app", "ping", "10.94.1.1"); err != nil {
			return errorf("%v: %s", err, out)
		}
		return nil
	})
}

// An etcd that cannot be reached: clear errors within the deadline, and the plugin goes on
// answering; with the setting mended it works. NUAGE_AUTOCREATE=false refuses what is missing.
func TestSettings(t *testing.T) {
	t.Parallel()
	h := host.Ready(t)
	create := func(d string, flags ...string) []string {
		return append([]string{"docker", "network", "create", "-d", "nuage", "-o", "enterprise=" + h.Name("corp"), "-o", "domain=" + d, "-o", "zone=Zone"},
			append(flags, h.Name("n"))...)
	}
	h.Configure("NUAGE_STORE=http://10.200.0.77:2379")
	begin := time.Now()
	h.Refused([]string{"etcd", "10.200.0.77"}, create("App1")...)
	if took := time.Since(begin); took > 12*time.Second {
		t.Errorf("the refusal took %s", took)
	}
	if out, _ := h.Try("nuagectl", "status"); !strings.Contains(out, "etcd") {
		t.Errorf("nuagectl status:\n%s", out)
	}

	h.Configure("NUAGE_STORE=", "NUAGE_MTU=none")
	h.Refused([]string{"NUAGE_MTU", "none"}, create("App1")...)

	h.Configure("NUAGE_MTU=1400", "NUAGE_AUTOCREATE=false")
	h.StoreReady()
	h.Refused([]string{"not found", "nuagectl apply"}, create("App1")...)
	d := h.Domain("App1", "front=10.95.1.0/24")
	h.Refused([]string{"Other"}, create("Other")...)
	n := d.Network("front")
	if out := h.Docker("run", "--rm", "--network", n, host.Image, "app", "addr"); !strings.Contains(out, "mtu 1400") {
		t.Errorf("inside:\n%s", out)
	}
	h.Docker("network", "rm", n)

	h.Configure("NUAGE_AUTOCREATE=true", "NUAGE_ENTERPRISE="+d.Enterprise)
	h.StoreReady()
	n = h.Network("default-enterprise", "-o", "domain=New", "-o", "zone=Zone")
	c := h.Container("c", "--network", n)
	h.Reaches(c, h.Endpoint(c, n).Gateway, 64)
	if out := h.Nuagectl("get", "domains"); !strings.Contains(out, "New") {
		t.Errorf("domains:\n%s", out)
	}
}

// The plain daemon, started before Docker: the same driver without a managed plugin.
func TestDaemonMode(t *testing.T) {
	t.Parallel()
	h := host.Start(t)
	h.Build()
	h.LoadImages()
	h.Service("dockerd", "stop")
	start := func() {
		t.Helper()
		h.Run("sh", "-c", "setsid nuage-plugin --host >>/run/nuage-plugin.log 2>&1 </dev/null &")
		h.Eventually(10*time.Second, "the daemon's socket", func() error {
			_, err := h.Try("test", "-S", "/run/docker/plugins/nuage.sock")
			return err
		})
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := h.Try("tail", "-n", "30", "/run/nuage-plugin.log")
			t.Log(out)
		}
	})
	start()
	h.Service("dockerd", "start")
	p := newPair(t, h)
	p.startPings()
	for _, signal := range []string{"-KILL", "-TERM"} {
		pid := h.PluginPID()
		h.Run("kill", signal, pid)
		h.Eventually(15*time.Second, "the daemon's end", func() error {
			if _, err := h.Try("test", "-e", "/proc/"+pid+"/exe"); err == nil {
				return errorf("process %s lives", pid)
			}
			return nil
		})
		start()
		p.works("kill " + signal + " of the daemon")
	}
	p.noLoss("restarts of the daemon")
}
