package driver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"

	"nuage/controller/store"
	"nuage/controller/tenant"
	"nuage/driver/journal"
	"nuage/driver/link"
	"nuage/ipam"
	"nuage/ovs"
	"nuage/ovs/agent"
	"nuage/ovs/ovstest"
)

// rig is a host with real parts: a store on the shared etcd, an Open vSwitch with the
// userspace datapath in a network namespace of its own, a journal on disk.
type rig struct {
	t          testing.TB
	dir, ns    string
	host       string
	enterprise string
	cable      *cable
	store      *store.Store
	ovs        *ovstest.OVS
	bridge     *ovs.Bridge
	agent      *agent.Agent
	links      *link.Links
	journal    *journal.Journal
	ipam       *ipam.Driver
	log        *test.Hook
	global     bool
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

// reservation is long enough for every bind, and short enough to be waited for.
const reservation = 5 * time.Second

var enterprises atomic.Int32

// newRig is a host of an enterprise of its own.
func newRig(t testing.TB) *rig {
	t.Helper()
	return newFleet(t, 1)[0]
}

// newFleet is the hosts of an enterprise.
func newFleet(t testing.TB, n int) (rs []*rig) {
	t.Helper()
	if os.Getenv("NUAGE_TEST_ROOT") == "0" {
		t.Skip("needs root: network namespaces and a real Open vSwitch")
	}
	e := enterprises.Add(1)
	for i := range n {
		rs = append(rs, startRig(t, fmt.Sprintf("E%d", e), fmt.Sprintf("h%d-%d", i+1, e)))
	}
	for _, r := range rs {
		r.eventually("store and switch", func() bool { return r.store.Ready() == nil && adapter{r.bridge}.Ready() == nil })
	}
	return rs
}

func startRig(t testing.TB, enterprise, host string) *rig {
	t.Helper()
	m := borrow(t)
	r := &rig{t: t, dir: t.TempDir(), ns: m.ns, ovs: m.ovs, host: host, enterprise: enterprise, cable: newCable(t)}
	log, hook := test.NewNullLogger()
	r.log = hook
	r.links = m.openLinks(t)
	r.bridge = ovs.New(ovs.Config{DB: r.ovs.DB, Bridge: "alubr0", Datapath: ovs.Netdev, Log: log})
	r.store = store.New(store.Config{Endpoints: []string{"unix://" + r.cable.path}, Host: host, Log: log, Rest: 300 * time.Millisecond, Linger: 500 * time.Millisecond})
	r.agent = agent.New(agent.Config{Host: host, Feed: r.store.Feed(), Switch: r.bridge, Log: log})
	r.background(r.store.Run)
	r.background(r.bridge.Run)
	r.background(r.agent.Run)
	r.openJournal()
	t.Cleanup(func() { r.journal.Close() })
	r.Driver = r.newDriver(log, nil)
	t.Cleanup(r.leave)
	return r
}

// leave ends the host's part in the shared state: Docker's IDs are the same in all tests.
func (r *rig) leave() {
	r.Driver.Wait()
	r.cable.heal()
	ctx, cancel := context.WithTimeout(bg, 10*time.Second)
	defer cancel()
	for _, id := range r.ownNetworks() {
		if err := r.store.DeleteNetwork(ctx, id); err != nil {
			r.t.Error(err)
		}
	}
}

func (r *rig) newDriver(log logrus.FieldLogger, change func(*Config)) *Driver {
	c := Config{Host: r.host, Store: r.store, IPAM: r.ipam, Ports: adapter{r.bridge}, Flows: r.agent, Links: r.links,
		Journal: r.journal, Enterprise: r.enterprise, Autocreate: true, Log: log}
	if r.global {
		c.Scope = "global"
	}
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
	r.ipam = ipam.New(ipam.Config{Store: r.store, Records: r.journal, Host: r.host, Enterprise: r.enterprise, Autocreate: true, Global: r.global, Reservation: reservation, Log: quiet()})
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

func (r *rig) run(args ...string) string {
	r.t.Helper()
	return run(r.t, args...)
}

func quiet() logrus.FieldLogger {
	log, _ := test.NewNullLogger()
	return log
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
	all := r.stored()
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

// stored is what the store has of the enterprise, and of this host's networks.
func (r *rig) stored() (all []string) {
	r.t.Helper()
	st := r.everything()
	ours := func(domainID string) bool {
		d := st.Domains[domainID]
		return d != nil && st.Enterprises[d.EnterpriseID].Name == r.enterprise
	}
	for _, id := range r.ownNetworks() {
		all = append(all, "store-network "+short(id))
	}
	for _, v := range st.Vports {
		if ours(v.DomainID) {
			all = append(all, "vport "+v.Interface)
		}
	}
	for _, s := range st.Subnets {
		if s.DockerOwned && ours(s.DomainID) {
			all = append(all, "subnet "+s.CIDR.String())
		}
	}
	for _, l := range st.Leases {
		if l.State != tenant.LeaseResting && ours(l.DomainID) {
			all = append(all, fmt.Sprintf("lease %s %s", l.Address, l.State))
		}
	}
	return all
}

// ownNetworks is this host's networks in the store. The whole state would not do: hosts of
// other tests have networks with the same IDs.
func (r *rig) ownNetworks() (ids []string) {
	r.store.Feed().View(func(st *tenant.State) {
		for _, n := range st.Networks {
			if n.Host == r.host {
				ids = append(ids, n.ID)
			}
		}
	})
	return ids
}

func (r *rig) everything() *tenant.State {
	r.t.Helper()
	st, err := r.store.Read(bg)
	r.ok(err)
	return st
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

// vport is this host's vport of an endpoint.
func (r *rig) vport(n int) (v tenant.Vport) {
	r.t.Helper()
	for _, one := range r.everything().Vports {
		if one.Owner.EndpointID == epID(n) && one.Host == r.host {
			v = *one
		}
	}
	return v
}

func (r *rig) subnet(zone, name, cidr string) tenant.Path {
	r.t.Helper()
	p, err := r.store.EnsurePath(context.Background(), tenant.PathSpec{Enterprise: r.enterprise, Domain: "App1", Zone: zone, Subnet: name, CIDR: netip.MustParsePrefix(cidr), Create: true})
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

// pathOf is the subnet of a zone of App1.
func (r *rig) pathOf(zone string) tenant.Path {
	r.t.Helper()
	p, err := r.store.EnsurePath(bg, tenant.PathSpec{Enterprise: r.enterprise, Domain: "App1", Zone: zone})
	r.ok(err)
	return p
}
