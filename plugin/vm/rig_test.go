package vm

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus/hooks/test"

	"nuage/controller/store"
	"nuage/controller/tenant"
	"nuage/ipam"
	"nuage/ovs"
	"nuage/ovs/agent"
	"nuage/ovs/ovstest"
)

// rest is how long a released address waits in these tests.
const rest = 2 * time.Second

// rig is a host with real parts: a store on a real etcd, a real Open vSwitch, an agent.
type rig struct {
	t      testing.TB
	name   string
	log    *test.Hook
	store  *store.Store
	ovs    *ovstest.OVS
	bridge *ovs.Bridge
	agent  *agent.Agent
	*Watcher
	stop func()
}

// newRigs is n hosts on one etcd, and the subnet 10.34.49.0/24 VMSubnet of VMZone of App1 of E.
func newRigs(t testing.TB, n int) (rs []*rig, p tenant.Path) {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		r := &rig{t: t, name: fmt.Sprintf("h%d", i+1), ovs: ovstest.Start(t)}
		log, hook := test.NewNullLogger()
		r.log = hook
		conf := store.Config{Dir: dir, Host: r.name, Log: log, Rest: rest, Linger: time.Second}
		if i > 0 {
			conf.Dir, conf.Endpoints = "", []string{"unix://" + filepath.Join(dir, "etcd.sock")}
		}
		r.store = store.New(conf)
		r.bridge = ovs.New(ovs.Config{DB: r.ovs.DB, Bridge: "alubr0", Datapath: ovs.Netdev, Log: log})
		r.agent = agent.New(agent.Config{Host: r.name, Feed: r.store.Feed(), Switch: r.bridge, Log: log})
		background(t, r.store.Run)
		background(t, r.bridge.Run)
		background(t, r.agent.Run)
		r.eventually("store and switch", func() string {
			if err := r.store.Ready(); err != nil {
				return err.Error()
			}
			return r.bridge.Status().OVSDB.Error
		})
		r.watch()
		rs = append(rs, r)
	}
	p, err := rs[0].store.EnsurePath(context.Background(), tenant.PathSpec{Enterprise: "E", Domain: "App1", Zone: "VMZone", Subnet: "VMSubnet",
		CIDR: netip.MustParsePrefix("10.34.49.0/24"), Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return rs, p
}

// watch starts a watcher as a new process does.
func (r *rig) watch() {
	log, hook := test.NewNullLogger()
	r.log = hook
	r.Watcher = New(Config{Host: r.name, Store: r.store, Switch: r.bridge, Flows: r.agent, Autocreate: true, Enterprise: "E", Grace: 300 * time.Millisecond, Log: log,
		Addresses: ipam.NewAllocator(ipam.AllocatorConfig{Store: r.store, Host: r.name, Rest: rest})})
	r.stop = background(r.t, r.Run)
}

// background runs a part until the test ends or stop is called.
func background(t testing.TB, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func (r *rig) eventually(what string, wrong func() string) {
	r.t.Helper()
	var w string
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if w = wrong(); w == "" {
			return
		}
	}
	r.t.Fatalf("%s: %s\n%v", what, w, r.log.AllEntries())
}

const (
	uuid1 = "5f0c3a52-6b0e-4f0b-9d5e-0b1f6c1a2b3c"
	mac1  = "52:54:00:00:00:01"
	mac2  = "52:54:00:00:00:02"
)

// place is the metadata of a machine of VMSubnet.
func place(mac string, more ...string) []string {
	return append([]string{"nuage-domain=App1", "nuage-zone=VMZone", "nuage-network=VMSubnet", "attached-mac=" + mac, "vm-uuid=" + uuid1, "vm-name=guest"}, more...)
}

// plug puts an interface on the bridge as libvirt does.
func (r *rig) plug(name string, ids []string) {
	r.t.Helper()
	args := []string{"--may-exist", "add-port", "alubr0", name, "--", "set", "Interface", name, "type=dummy"}
	for _, id := range ids {
		k, v, _ := strings.Cut(id, "=")
		args = append(args, fmt.Sprintf("external_ids:%s=%q", k, v))
	}
	r.ovs.Vsctl(args...)
}

func (r *rig) unplug(name string) { r.t.Helper(); r.ovs.Vsctl("del-port", "alubr0", name) }

// shown is what is written at an interface, as ovs-vsctl has it.
func (r *rig) shown(name, key string) string {
	return strings.Trim(r.ovs.Vsctl("--if-exists", "get", "Interface", name, "external_ids:"+key), `"`)
}

// vports are those of this host in the store.
func (r *rig) vports() (all []tenant.Vport) {
	r.t.Helper()
	st, err := r.store.Read(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, v := range st.Vports {
		if v.Host == r.name {
			all = append(all, *v)
		}
	}
	return all
}

// attached waits until an interface shows an address, and returns its vport.
func (r *rig) attached(name, ip string) (v tenant.Vport) {
	r.t.Helper()
	r.eventually("attach "+name, func() string {
		if have := r.shown(name, keyIP); have == "" || ip != "" && have != ip || r.shown(name, keyError) != "" {
			return fmt.Sprintf("shows %q, error %q", have, r.shown(name, keyError))
		}
		return ""
	})
	for _, have := range r.vports() {
		if have.Interface == name {
			v = have
		}
	}
	if v.ID != r.shown(name, keyVport) || v.Type != tenant.VportVM || v.IPv4.String() != r.shown(name, keyIP) || v.Error != "" {
		r.t.Fatalf("interface %s shows vport %s and %s; it is %+v", name, r.shown(name, keyVport), r.shown(name, keyIP), v)
	}
	return v
}

// refused waits until an interface shows an error with a text.
func (r *rig) refused(name, text string) {
	r.t.Helper()
	r.eventually("refuse "+name, func() string {
		if have := r.shown(name, keyError); !strings.Contains(have, text) {
			return fmt.Sprintf("shows error %q, want %q in it", have, text)
		}
		return ""
	})
}

// free waits until a host has no vports, and returns.
func (r *rig) free() {
	r.t.Helper()
	r.eventually("detach", func() string {
		if vs := r.vports(); len(vs) > 0 {
			return fmt.Sprintf("%+v", vs)
		}
		return ""
	})
}
