package driver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"github.com/vishvananda/netns"

	"nuage/controller/store"
	"nuage/controller/tenant"
	"nuage/driver/journal"
	"nuage/driver/link"
	"nuage/ipam"
	"nuage/ovs"
	"nuage/ovs/agent"
	"nuage/ovs/ovstest"
)

const testHost = "h1"

// rig is a host with real parts: an embedded etcd, an Open vSwitch with the userspace
// datapath in a network namespace of its own, a journal on disk. Each test has its own.
type rig struct {
	t       testing.TB
	dir, ns string
	store   *store.Store
	ovs     *ovstest.OVS
	bridge  *ovs.Bridge
	agent   *agent.Agent
	links   *link.Links
	journal *journal.Journal
	ipam    *ipam.Driver
	log     *test.Hook
	*Driver
}

// adapter is the bridge as the driver wants it, as the plugin adapts it.
type adapter struct{ *ovs.Bridge }

func (a adapter) Ready() error {
	if s := a.Status(); !s.OVSDB.Connected {
		return fmt.Errorf("%s", s.OVSDB.Error)
	}
	return nil
}
func (a adapter) EnsurePort(ctx context.Context, name string, ids map[string]string) error {
	_, err := a.Bridge.EnsurePort(ctx, ovs.PortSpec{Name: name, ExternalIDs: ids})
	return err
}
func (a adapter) Ports() map[string]map[string]string {
	ports := map[string]map[string]string{}
	for name, p := range a.Bridge.Ports() {
		ports[name] = p.ExternalIDs
	}
	return ports
}
func (a adapter) Offload() bool { return a.Status().Datapath == ovs.System }

var rigs atomic.Int32

func newRig(t testing.TB) *rig {
	t.Helper()
	if os.Getenv("NUAGE_TEST_ROOT") == "0" {
		t.Skip("needs root: network namespaces and a real Open vSwitch")
	}
	r := &rig{t: t, dir: t.TempDir(), ns: fmt.Sprintf("nuage-driver-%d-%d", os.Getpid(), rigs.Add(1))}
	r.run("ip", "netns", "add", r.ns)
	t.Cleanup(func() { r.run("ip", "netns", "del", r.ns) })
	log, hook := test.NewNullLogger()
	r.log = hook

	r.links = r.openLinks()
	t.Cleanup(r.links.Close)
	r.ovs = ovstest.Start(t, ovstest.Netdev(), ovstest.InNetNS("/run/netns/"+r.ns))
	r.bridge = ovs.New(ovs.Config{DB: r.ovs.DB, Bridge: "alubr0", Datapath: ovs.Netdev, Log: log})
	r.store = store.New(store.Config{Dir: r.dir + "/etcd", Host: testHost, Log: log, Rest: 300 * time.Millisecond})
	r.agent = agent.New(agent.Config{Host: testHost, Feed: r.store.Feed(), Switch: r.bridge, Log: log})
	r.background(r.store.Run)
	r.background(r.bridge.Run)
	r.background(r.agent.Run)
	r.eventually("store and switch", func() bool { return r.store.Ready() == nil && adapter{r.bridge}.Ready() == nil })
	r.openJournal()
	t.Cleanup(func() { r.journal.Close() })
	r.Driver = r.newDriver(log, nil)
	t.Cleanup(func() { r.Driver.Wait() })
	return r
}

func (r *rig) newDriver(log logrus.FieldLogger, change func(*Config)) *Driver {
	c := Config{Host: testHost, Store: r.store, IPAM: r.ipam, Ports: adapter{r.bridge}, Flows: r.agent, Links: r.links,
		Journal: r.journal, Enterprise: "DCEnterprise", Autocreate: true, Log: log}
	if change != nil {
		change(&c)
	}
	return New(c)
}

func (r *rig) openJournal() {
	r.t.Helper()
	var err error
	if r.journal, err = journal.Open(r.dir + "/journal"); err != nil {
		r.t.Fatal(err)
	}
	r.ipam = ipam.New(ipam.Config{Store: r.store, Records: r.journal, Host: testHost, Enterprise: "DCEnterprise", Autocreate: true})
}

// restart is the plugin's process ending and beginning again.
func (r *rig) restart() {
	r.t.Helper()
	r.Driver.Wait()
	r.journal.Close()
	r.openJournal()
	log := r.Driver.Log
	r.Driver = r.newDriver(log, nil)
}

func (r *rig) background(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run: %v", err)
		}
	})
}

func (r *rig) openLinks() *link.Links {
	r.t.Helper()
	type opened struct {
		l   *link.Links
		err error
	}
	done := make(chan opened)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		ns, err := netns.GetFromName(r.ns)
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err != nil {
			done <- opened{nil, err}
			return
		}
		l, err := link.Open()
		done <- opened{l, err}
	}()
	o := <-done
	if o.err != nil {
		r.t.Fatal(o.err)
	}
	return o.l
}

func (r *rig) run(args ...string) string {
	r.t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("not in 10 s: %s", what)
		}
	}
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// IDs as Docker makes them.
func netID(n int) string { return fmt.Sprintf("%012x", 0xa00000000000+n) + strings.Repeat("a", 52) }
func epID(n int) string  { return fmt.Sprintf("%011x", 0xe0000000000+n) + strings.Repeat("e", 53) }

type m = map[string]any

// netRequest is CreateNetwork with Docker's own IPAM, as 20.10 sends it.
func netRequest(n int, pool, gateway string, options m) *CreateNetworkRequest {
	return decode[CreateNetworkRequest](m{"NetworkID": netID(n), "Options": m{"com.docker.network.enable_ipv6": false, keyGeneric: options},
		"IPv4Data": []m{{"AddressSpace": "LocalDefault", "Pool": pool, "Gateway": gateway}}, "IPv6Data": []m{}})
}

func nullRequest(n int, options m) *CreateNetworkRequest {
	return decode[CreateNetworkRequest](m{"NetworkID": netID(n), "Options": m{keyGeneric: options},
		"IPv4Data": []m{{"AddressSpace": "null", "Pool": "0.0.0.0/0"}}})
}

func epRequest(network, n int, address string) *CreateEndpointRequest {
	return decode[CreateEndpointRequest](m{"NetworkID": netID(network), "EndpointID": epID(n), "Interface": m{"Address": address, "AddressIPv6": "", "MacAddress": ""},
		"Options": m{"com.docker.network.endpoint.exposedports": []m{}, keyPortMap: []m{}}})
}

// decode goes through JSON, as requests do.
func decode[T any](v any) *T {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	t := new(T)
	if err := json.Unmarshal(text, t); err != nil {
		panic(err)
	}
	return t
}

var app1 = m{"domain": "App1", "zone": "DockerZone"}

// world is all that an endpoint or network leaves anywhere, each as "kind name".
func (r *rig) world() []string {
	r.t.Helper()
	var all []string
	r.store.Feed().View(func(st *tenant.State) {
		for id := range st.Networks {
			all = append(all, "store-network "+short(id))
		}
		for _, v := range st.Vports {
			all = append(all, "vport "+v.Interface)
		}
		for _, s := range st.Subnets {
			if s.DockerOwned {
				all = append(all, "subnet "+s.CIDR.String())
			}
		}
		for _, l := range st.Leases {
			if l.State != tenant.LeaseResting {
				all = append(all, fmt.Sprintf("lease %s %s", l.Address, l.State))
			}
		}
	})
	links, err := r.links.List()
	r.ok(err)
	for _, l := range links {
		all = append(all, "link "+l)
	}
	for _, p := range strings.Fields(r.ovs.Vsctl("list-ports", "alubr0")) { // the database's own word
		all = append(all, "port "+p)
	}
	ns, err := r.networks()
	r.ok(err)
	for id, n := range ns {
		all = append(all, fmt.Sprintf("record network %s made=%v", short(id), n.Made))
	}
	es, err := r.endpoints()
	r.ok(err)
	for id, e := range es {
		all = append(all, fmt.Sprintf("record endpoint %s made=%v", short(id), e.Made))
	}
	slices.Sort(all)
	return all
}

// flows are the identities of the bridge's flows that name a port's address.
func (r *rig) flowsOf(text string) (n int) {
	for _, f := range r.ovs.Flows("alubr0") {
		if strings.Contains(f, text) {
			n++
		}
	}
	return n
}

func (r *rig) expect(what string, want ...string) {
	r.t.Helper()
	slices.Sort(want)
	if got := r.world(); !slices.Equal(got, want) {
		r.t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// attached is what expect should find of an endpoint.
func attachedWorld(n int, address string) []string {
	host, _ := link.Names(epID(n))
	return []string{"vport " + host, "link " + host, "port " + host, "lease " + address + " bound", "record endpoint " + short(epID(n)) + " made=true"}
}

func boundWorld(n int, cidr string) []string {
	return []string{"store-network " + short(netID(n)), "subnet " + cidr, "record network " + short(netID(n)) + " made=true"}
}

func (r *rig) vport(n int) (v tenant.Vport) {
	r.store.Feed().View(func(st *tenant.State) {
		for _, one := range st.Vports {
			if one.Owner.EndpointID == epID(n) {
				v = *one
			}
		}
	})
	return v
}

func (r *rig) subnet(zone, name, cidr string) tenant.Path {
	r.t.Helper()
	p, err := r.store.EnsurePath(context.Background(), tenant.PathSpec{Enterprise: "DCEnterprise", Domain: "App1", Zone: zone, Subnet: name, CIDR: netip.MustParsePrefix(cidr), Create: true})
	r.ok(err)
	return p
}

func del(n int) *DeleteEndpointRequest {
	return &DeleteEndpointRequest{NetworkID: netID(1), EndpointID: epID(n)}
}

func set(ids ...string) map[string]bool {
	s := map[string]bool{}
	for _, id := range ids {
		s[id] = true
	}
	return s
}

func sortStrings(s []string) []string { slices.Sort(s); return s }

func (r *rig) pathOf(zone string) (p tenant.Path) {
	r.store.Feed().View(func(st *tenant.State) {
		for _, s := range st.Subnets {
			if z := st.Zones[s.ZoneID]; z.Name == zone {
				p.Subnet, p.Zone = *s, *z
			}
		}
	})
	return p
}
