package multi

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"nuage/test/host"
)

// answered is how long a user's command may take that needs the store while that is away:
// two verbs at their deadline of ten seconds, and Docker's own work.
const answered = 25 * time.Second

// refusedWithoutStore fails the test unless a new container is refused in time, for that
// reason, while Docker goes on answering.
func refusedWithoutStore(t *testing.T, h *host.Host, network string) {
	t.Helper()
	begin := time.Now()
	refused := make(chan error, 1)
	go func() {
		out, err := h.TryDocker("run", "--rm", "--network", network, host.Image, "app", "addr")
		switch {
		case err == nil:
			err = errorf("a container was attached without the store: %s", out)
		case strings.Contains(out, "store") || strings.Contains(out, "etcd"):
			err = nil
		default:
			err = errorf("the refusal does not name what is missing: %s", out)
		}
		refused <- err
	}()
	ps := time.Now()
	h.Docker("ps")
	if took := time.Since(ps); took > 3*time.Second {
		t.Errorf("docker ps took %s meanwhile", took)
	}
	if err := <-refused; err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > answered {
		t.Errorf("the refusal took %s", took)
	} else {
		t.Logf("refused after %s", took.Round(100*time.Millisecond))
	}
}

// In the userspace datapath a tunnel packet may be lost whenever any link of its host comes
// or goes: Open vSwitch reads the routes anew then. So pings between hosts are not counted
// while containers are attached on theirs.

// attaches waits until new containers of the network come up and reach the address.
func attaches(h *host.Host, network, address string, limit time.Duration) {
	h.Eventually(limit, "a new container reaches "+address, func() error {
		if out, err := h.TryDocker("run", "--rm", "--network", network, host.Image, "app", "ping", "-c", "2", address); err != nil {
			return errorf("%v: %s", err, out)
		}
		return nil
	})
}

// A joined host falls off the underlay: what runs goes on, on both sides; what is new is
// refused there until it is back, and then the host knows what has changed.
func TestHostIsCutOff(t *testing.T) {
	f := host.SharedFleet(t)
	one, two, three := f.Host(1), f.Host(2), f.Host(3)
	s := newSpread(f, "App1", []string{"front=10.120.1.0/24"})
	local := three.Container("local", "--network", s.network[3])
	moving := one.Container("moving", "--network", s.network[1], "--ip", "10.120.1.77")
	s.reach(1, 2, 3)
	three.Reaches(local, "10.120.1.77", 64)

	between, here := one.Ping(s.containers[1], s.ip[2]), three.Ping(local, s.ip[3])
	cut := time.Now()
	three.Link("cut")
	defer three.Link("heal")
	refusedWithoutStore(t, three, s.network[3])
	one.Eventually(30*time.Second, "host 3 counts as dead", func() error {
		if state := hostState(f, 1, 3); state != "not alive" {
			return errorf("%s", state)
		}
		return nil
	})
	t.Logf("dead for the others %s after the cut", time.Since(cut).Round(100*time.Millisecond))
	between.NoLoss("the cut of another host")
	one.Docker("rm", "-f", moving)
	moved := two.Container("moved", "--network", s.network[2], "--ip", "10.120.1.77")
	one.Reaches(s.containers[1], "10.120.1.77", 64)
	three.ReachesNot(local, "10.120.1.77")
	attaches(two, s.network[2], s.ip[1], 10*time.Second)

	three.Link("heal")
	heal := time.Now()
	attaches(three, s.network[3], "10.120.1.77", 30*time.Second)
	t.Logf("attaches again %s after the heal", time.Since(heal).Round(100*time.Millisecond))
	three.Serves(local, three.IP(local), moved, "10.120.1.77")
	s.reach(1, 2, 3)
	here.NoLoss("the cut of its host")
	one.Eventually(20*time.Second, "host 3 is alive", func() error { return alive(f, 3) })
}

// The host with the store loses its power: the others' containers go on without it, and
// what they do meanwhile is settled when it is back.
func TestServingHostDies(t *testing.T) {
	f := host.SharedFleet(t)
	one, two, three := f.Host(1), f.Host(2), f.Host(3)
	s := newSpread(f, "App1", []string{"front=10.121.1.0/24"})
	fixed := one.Container("fixed", "--restart", "always", "--network", s.network[1], "--ip", "10.121.1.11")
	gone := two.Container("gone", "--network", s.network[2])
	two.Reaches(s.containers[2], "10.121.1.11", 64)

	p := two.Ping(s.containers[2], s.ip[3])
	one.Power("off")
	refusedWithoutStore(t, two, s.network[2])
	p.NoLoss("the death of the host with the store")
	begin := time.Now()
	two.Docker("rm", "-f", gone)
	if took := time.Since(begin); took > answered {
		t.Errorf("docker rm without the store took %s", took)
	}
	p = two.Ping(s.containers[2], s.ip[3])
	one.Power("on")
	two.Eventually(60*time.Second, "the store is back", func() error {
		st, err := two.Status()
		if err == nil && !st.Store.Ready {
			err = errorf("%s", st.Store.Error)
		}
		return err
	})
	time.Sleep(time.Second) // the ping's subject is time
	p.NoLoss("the return of the host with the store")
	attaches(two, s.network[2], s.ip[3], 10*time.Second)
	two.Eventually(30*time.Second, "the container of the host that was dead is reached", func() error {
		if out, err := two.TryDocker("exec", s.containers[2], "app", "ping", "-c", "1", "10.121.1.11"); err != nil {
			return errorf("%v: %s", err, out)
		}
		return nil
	})
	if ip := one.IP(fixed); ip != "10.121.1.11" {
		t.Errorf("the container is back with address %s", ip)
	}
	three.Reaches(s.containers[3], "10.121.1.11", 64)
	two.Eventually(20*time.Second, "the vport of what was removed meanwhile goes", func() error {
		if left := in(two.Get("vports", "--enterprise", s.d.Enterprise), "name", gone); len(left) > 0 {
			return errorf("%v", left)
		}
		return nil
	})
}

// A host dies. It cannot be evicted before; evicted, its address goes to another host and
// is reached there at once, and the dead one, back with all it remembers, takes nothing of
// that. Only a good new token lets it in again.
func TestEvictedHostComesBack(t *testing.T) {
	f := host.SharedFleet(t)
	one, two, three := f.Host(1), f.Host(2), f.Host(3)
	s := newSpread(f, "App1", []string{"front=10.122.1.0/24"})
	old := three.Container("old", "--restart", "always", "--network", s.network[3], "--ip", "10.122.1.77")
	one.Reaches(s.containers[1], "10.122.1.77", 64) // who is told of it before must forget
	name := three.HostName()
	one.Refused([]string{name, "alive"}, "nuagectl", "delete", "host", name)

	rejoinAfter(t, f)
	three.Power("off")
	one.Eventually(40*time.Second, "the eviction", func() error {
		out, err := one.Try("nuagectl", "delete", "host", name)
		if err != nil {
			return errorf("%v: %s", err, out)
		}
		return nil
	})
	if state := hostState(f, 2, 3); state != "gone" {
		t.Errorf("the evicted host is %s", state)
	}
	if left := in(one.Get("vports"), "host", name); len(left) > 0 {
		t.Errorf("vports of the evicted host: %v", left)
	}
	moved := two.Container("moved", "--network", s.network[2], "--ip", "10.122.1.77")
	out, err := one.TryDocker("exec", s.containers[1], "app", "ping", "-c", "1", "-W", "500ms", "10.122.1.77")
	if err != nil {
		t.Errorf("the first ping to an address that has moved: %v\n%s", err, out)
	}
	one.Serves(s.containers[1], s.ip[1], moved, "10.122.1.77")
	p := one.Ping(s.containers[1], "10.122.1.77")

	// It is back with all that it knew, and its container wants its address.
	three.Power("on")
	three.Eventually(20*time.Second, "the evicted host is refused", func() error {
		if st, err := three.Status(); err != nil || st.Store.Ready || !strings.Contains(st.Store.Error, "token") {
			return errorf("%v %+v", err, st.Store)
		}
		return nil
	})
	p.NoLoss("the return of the evicted host")
	three.TryDocker("rm", "-f", old)

	three.Configure("NUAGE_JOIN=" + one.Nuagectl("token", "create"))
	one.Eventually(30*time.Second, "the host is back by a new token alone", func() error { return alive(f, 3) })
	one.Serves(s.containers[1], s.ip[1], moved, "10.122.1.77")
	attaches(three, s.network[3], "10.122.1.77", 30*time.Second)
	one.Serves(s.containers[1], s.ip[1], moved, "10.122.1.77")
}

// rejoinAfter lets host 3 in again after a test that failed while it was out.
func rejoinAfter(t *testing.T, f *host.Fleet) {
	t.Cleanup(func() {
		if alive(f, 3) != nil {
			f.Host(3).ForgetJoining("NUAGE_JOIN=" + f.Host(1).Nuagectl("token", "create"))
			f.Host(1).Eventually(30*time.Second, "host 3 is in again", func() error { return alive(f, 3) })
		}
	})
}

// A host that has never joined gets in by a token that is new, whole and in time, by no
// other, and is told why.
func TestTokens(t *testing.T) {
	f := host.SharedFleet(t)
	one, two, three := f.Host(1), f.Host(2), f.Host(3)
	name, plugin := three.HostName(), strings.Split(two.Docker("plugin", "inspect", "-f", `{{range .Settings.Env}}{{println .}}{{end}}`, host.PluginName), "\n")
	var used string
	for _, line := range plugin {
		if v, ok := strings.CutPrefix(line, "NUAGE_JOIN="); ok {
			used = v
		}
	}
	rejoinAfter(t, f)
	three.Docker("plugin", "disable", "-f", host.PluginName)
	one.Nuagectl("delete", "host", name, "--force")
	short, fresh := one.Nuagectl("token", "create", "--ttl", "1s"), one.Nuagectl("token", "create")
	time.Sleep(1100 * time.Millisecond)
	create := []string{"docker", "network", "create", "-d", "nuage", "--ipam-driver", "nuage", "--ipam-opt", "enterprise=DCEnterprise",
		"--ipam-opt", "domain=App1", "--ipam-opt", "zone=DockerZone", "--ipam-opt", "subnet=PrivateSubnet", three.Name("n")}
	for what, token := range map[string]string{"used": used, "expired": short, "forged": forge(t, fresh)} {
		three.ForgetJoining("NUAGE_JOIN=" + token)
		three.Refused([]string{"token", what}, create...)
		if out, err := three.Try("nuagectl", "status"); err == nil || !strings.Contains(out, what) {
			t.Errorf("nuagectl status with a token that is %s: %v\n%s", what, err, out)
		}
		if state := hostState(f, 1, 3); state != "gone" {
			t.Errorf("with a token that is %s the host is %s", what, state)
		}
	}
	for _, said := range []string{"used", "expired", "forged"} {
		if log := one.PluginLog(40); !strings.Contains(log, said) {
			t.Errorf("the log of the host that serves does not tell of the token that was %s:\n%s", said, log)
		}
	}
	three.ForgetJoining("NUAGE_JOIN=" + fresh)
	one.Eventually(30*time.Second, "the host is in", func() error { return alive(f, 3) })
	// A used token in the settings of a joined host is no error.
	three.Docker("plugin", "disable", "-f", host.PluginName)
	three.Docker("plugin", "enable", host.PluginName)
	three.StoreReady()
	newSpread(f, "App1", []string{"front=10.124.1.0/24"}).reach(1, 2, 3)
}

// forge is a token with another secret in it.
func forge(t *testing.T, token string) string {
	t.Helper()
	prefix, text, _ := strings.Cut(token, ".")
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]any{}
	if err := json.Unmarshal(b, &fields); err != nil {
		t.Fatal(err)
	}
	fields["s"] = make([]byte, 32)
	if b, err = json.Marshal(fields); err != nil {
		t.Fatal(err)
	}
	return prefix + "." + base64.RawURLEncoding.EncodeToString(b)
}

// A host dies and boots: what had an address of its own has it again, its very first packet
// to the other hosts is answered.
func TestHostBoots(t *testing.T) {
	f := host.SharedFleet(t)
	one, three := f.Host(1), f.Host(3)
	s := newSpread(f, "App1", []string{"front=10.123.1.0/24"})
	fixed := three.Container("fixed", "--restart", "always", "--network", s.network[3], "--ip", "10.123.1.33")
	one.Reaches(s.containers[1], "10.123.1.33", 64)
	three.Power("off")
	three.Power("on")
	three.Eventually(60*time.Second, "the container runs", func() error {
		if i := three.Inspect(fixed); i.State.Status != "running" {
			return errorf("%s", i.State.Status)
		}
		return nil
	})
	out, err := three.TryDocker("exec", fixed, "app", "ping", "-c", "1", "-W", "500ms", s.ip[1])
	if err != nil {
		t.Errorf("the first ping after the boot: %v\n%s", err, out)
	}
	if ip := three.IP(fixed); ip != "10.123.1.33" {
		t.Errorf("the container is back with address %s", ip)
	}
	one.Reaches(s.containers[1], "10.123.1.33", 64)
	one.Eventually(20*time.Second, "the host is alive", func() error { return alive(f, 3) })
	if vs := in(one.Get("vports", "--enterprise", s.d.Enterprise), "host", three.HostName()); len(vs) != 1 {
		t.Errorf("vports of the host: %s", fmt.Sprint(vs))
	}
}
