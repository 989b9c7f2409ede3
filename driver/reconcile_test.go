package driver

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"nuage/controller/tenant"
	"nuage/driver/link"
)

// two makes a network with two attached endpoints.
func (r *rig) two() (world []string) {
	r.t.Helper()
	r.ok(r.CreateNetwork(bg, netRequest(1, "172.18.0.0/16", "172.18.0.1/16", app1)))
	for n, a := range []string{"172.18.0.2/16", "172.18.0.3/16"} {
		_, err := r.CreateEndpoint(bg, epRequest(1, n+1, a))
		r.ok(err)
	}
	return append(append(boundWorld(1, "172.18.0.0/16"), attachedWorld(1, "172.18.0.2")...), attachedWorld(2, "172.18.0.3")...)
}

func (r *rig) reconcile() Report {
	r.t.Helper()
	rep, err := r.Reconcile(bg)
	r.ok(err)
	return rep
}

func TestReconcileOfWhatIsRightDoesNothing(t *testing.T) {
	r := newRig(t)
	world := r.two()
	r.restart()
	if rep := r.reconcile(); !rep.empty() {
		t.Errorf("%+v", rep)
	}
	r.expect("all", world...)
}

func TestReboot(t *testing.T) {
	r := newRig(t)
	r.two()
	for n := 1; n <= 2; n++ {
		host, _ := link.Names(epID(n))
		r.run("ip", "-n", r.ns, "link", "del", host)
	}
	r.restart()
	if rep := r.reconcile(); len(rep.Removed) != 2 {
		t.Errorf("%+v", rep)
	}
	r.expect("after the reboot", boundWorld(1, "172.18.0.0/16")...)
	// dockerd then takes back the old endpoints and starts the containers with new ones.
	r.ok(r.DeleteEndpoint(bg, del(1)))
	_, err := r.CreateEndpoint(bg, epRequest(1, 3, "172.18.0.2/16"))
	r.ok(err)
	_, err = r.Join(bg, &JoinRequest{NetworkID: netID(1), EndpointID: epID(3)})
	r.ok(err)
}

func TestReconcilePutsBack(t *testing.T) {
	r := newRig(t)
	world := r.two()
	r.ovs.Vsctl("del-port", "alubr0", "nu"+epID(1)[:11])
	r.ok(r.store.DeleteVport(bg, r.vport(2).ID))
	r.ok(r.store.DeleteNetwork(bg, netID(1)))
	r.eventually("the bridge sees its loss", func() bool { return len(adapter{r.bridge}.Ports()) == 1 })
	if rep := r.reconcile(); len(rep.Restored) != 3 || len(rep.Removed)+len(rep.Adopted) > 0 {
		t.Errorf("%+v", rep)
	}
	r.expect("put back", world...)
}

func TestReconcileRemovesOrphansOfOursOnly(t *testing.T) {
	r := newRig(t)
	world := r.two()
	r.run("ip", "-n", r.ns, "link", "add", "nu0123456789a", "type", "veth", "peer", "name", "nc0123456789a")
	r.run("ip", "-n", r.ns, "link", "add", "tapvm1", "type", "veth", "peer", "name", "vm1")
	r.ovs.Vsctl("add-port", "alubr0", "nu0123456789a", "--", "set", "interface", "nu0123456789a", "external_ids:nuage-endpoint=0123456789abc")
	r.ovs.Vsctl("add-port", "alubr0", "tapvm1", "--", "set", "interface", "tapvm1", "external_ids:vm-uuid=x")
	r.ok(r.store.DeleteVport(bg, uuid.NewString()))
	r.eventually("the bridge sees them", func() bool { return len(adapter{r.bridge}.Ports()) == 4 })
	if rep := r.reconcile(); len(rep.Removed) != 2 {
		t.Errorf("%+v", rep)
	}
	r.expect("ours gone, theirs left", append(world, "port tapvm1")...)
	r.run("ip", "-n", r.ns, "link", "show", "tapvm1")
}

// A journal that was lost must not cost the running containers their network.
func TestLostJournal(t *testing.T) {
	r := newRig(t)
	world := r.two()
	r.Driver.Wait()
	r.journal.Close()
	r.ok(os.WriteFile(r.dir+"/journal/journal.log", []byte("the disk was full, or worse"), 0o600))
	r.openJournal()
	if r.journal.Moved() == "" {
		t.Fatal("the journal is not lost")
	}
	r.Driver = r.newDriver(r.Driver.Log, nil)
	host, _ := link.Names(epID(2))
	r.run("ip", "-n", r.ns, "link", "del", host) // one of the containers has ended meanwhile
	rep := r.reconcile()
	if len(rep.Adopted) != 2 || len(rep.Removed) != 2 { // network and endpoint; vport and port
		t.Errorf("%+v", rep)
	}
	r.expect("adopted", world[:len(world)-5]...)
	r.ok(r.DeleteEndpoint(bg, del(1)))
	r.ok(r.DeleteNetwork(bg, &DeleteNetworkRequest{NetworkID: netID(1)}))
	r.Wait()
	r.expect("nothing")
}

// While a verb is at work, Reconcile leaves its half-made endpoint alone.
func TestReconcileBesideVerbs(t *testing.T) {
	r := newRig(t)
	r.ok(r.CreateNetwork(bg, netRequest(1, "172.18.0.0/16", "172.18.0.1/16", app1)))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				if rep, err := r.Reconcile(bg); err != nil || len(rep.Restored)+len(rep.Adopted) > 0 {
					t.Errorf("%+v %v", rep, err)
				}
			}
		}
	}()
	for n := range 20 {
		_, err := r.CreateEndpoint(bg, epRequest(1, n, fmt.Sprintf("172.18.1.%d/16", n)))
		r.ok(err)
		_, err = r.Join(bg, &JoinRequest{NetworkID: netID(1), EndpointID: epID(n)})
		r.ok(err)
		if n%2 == 0 {
			r.ok(r.DeleteEndpoint(bg, del(n)))
		}
	}
	close(stop)
	<-done
	r.Wait()
	want := boundWorld(1, "172.18.0.0/16")
	for n := 1; n < 20; n += 2 {
		want = append(want, attachedWorld(n, fmt.Sprintf("172.18.1.%d", n))...)
	}
	r.expect("the odd ones", want...)
}

func TestCollect(t *testing.T) {
	r := newRig(t)
	world := r.two()
	r.ok(r.CreateNetwork(bg, netRequest(2, "172.19.0.0/16", "172.19.0.1/16", app1)))
	all := append(world, boundWorld(2, "172.19.0.0/16")...)
	collect := func(networks, endpoints map[string]bool, grace time.Duration) Report {
		t.Helper()
		rep, err := r.Collect(bg, networks, endpoints, grace)
		r.ok(err)
		r.Wait()
		return rep
	}
	if rep := collect(nil, nil, time.Hour); !rep.empty() {
		t.Errorf("within the grace period: %+v", rep)
	}
	r.expect("young", all...)
	if rep := collect(set(netID(1), netID(2)), set(epID(1), epID(2)), 0); !rep.empty() {
		t.Errorf("everything lives: %+v", rep)
	}
	if rep := collect(set(netID(1), netID(2)), set(epID(1)), 0); len(rep.Removed) != 1 {
		t.Errorf("one endpoint: %+v", rep)
	}
	r.expect("one endpoint less", append(append(boundWorld(1, "172.18.0.0/16"), boundWorld(2, "172.19.0.0/16")...), attachedWorld(1, "172.18.0.2")...)...)
	// A running container keeps its network, whatever the list of networks says.
	if rep := collect(nil, set(epID(1)), 0); len(rep.Removed) != 1 {
		t.Errorf("the network without containers: %+v", rep)
	}
	r.expect("one network less", append(boundWorld(1, "172.18.0.0/16"), attachedWorld(1, "172.18.0.2")...)...)
	collect(nil, nil, 0)
	r.expect("nothing")
}

func TestNameNetwork(t *testing.T) {
	r := newRig(t)
	r.two()
	if n := r.network(1); n.Name != "" {
		t.Errorf("name before: %s", n.Name)
	}
	r.ok(r.NameNetwork(bg, netID(1), "web"))
	r.eventually("the name is in the store", func() bool { return r.network(1).Name == "web" })
	before := r.network(1)
	r.ok(r.NameNetwork(bg, netID(1), "web"))
	r.ok(r.NameNetwork(bg, netID(9), "web"))
	r.reconcile()
	if n := r.network(1); n.Revision != before.Revision || n.Name != "web" {
		t.Errorf("the same again wrote to the store: %+v", n)
	}
	r.ok(r.store.DeleteNetwork(bg, netID(1)))
	r.reconcile() // puts it back
	r.eventually("the name is there again", func() bool { return r.network(1).Name == "web" })
}

func TestEnrich(t *testing.T) {
	r := newRig(t)
	r.two()
	if v := r.vport(1); v.Name != "ep-"+epID(1)[:12] {
		t.Errorf("name before: %s", v.Name)
	}
	for range 2 {
		r.ok(r.Enrich(bg, epID(1), "c0ffee", "web-1"))
	}
	before := r.vport(1)
	if before.Name != "web-1" || before.Owner.ContainerID != "c0ffee" || before.Owner.EndpointID != epID(1) {
		t.Errorf("vport: %+v", before)
	}
	r.ok(r.Enrich(bg, epID(1), "c0ffee", "web-1"))
	if v := r.vport(1); v.Revision != before.Revision {
		t.Error("the same again wrote to the store")
	}
	r.ok(r.Enrich(bg, epID(9), "c0ffee", "web-1"))
	r.ok(r.Enrich(bg, epID(2), "c1", "-rf")) // not a name that a vport can have
	if v := r.vport(2); !strings.HasPrefix(v.Name, "ep-") {
		t.Errorf("name: %s", v.Name)
	}
	// The name survives what Reconcile puts back, and groups that others have changed stay.
	v := r.vport(1)
	v.PolicyGroups = []string{"web"}
	_, err := r.store.UpdateVport(bg, v)
	r.ok(err)
	r.ok(r.Enrich(bg, epID(1), "c0ffee", "web-2"))
	if v := r.vport(1); v.Name != "web-2" || len(v.PolicyGroups) != 1 {
		t.Errorf("renamed: %+v", v)
	}
	r.ok(r.store.DeleteVport(bg, v.ID))
	r.reconcile()
	if v := r.vport(1); v.Name != "web-2" {
		t.Errorf("put back as %s", v.Name)
	}
}

// Engines from 29 on tell the container's name when they ask for its address.
func TestNameFromTheLease(t *testing.T) {
	r := newRig(t)
	r.subnet("DockerZone", "Web", "172.18.0.0/16")
	r.ok(r.CreateNetwork(bg, netRequest(1, "172.18.0.0/16", "172.18.0.1/16", app1)))
	sub := r.pathOf("DockerZone").Subnet
	mac := tenant.RandomMAC()
	addr := netip.MustParseAddr("172.18.0.9")
	_, err := r.store.PutLease(bg, tenant.Lease{Meta: tenant.Meta{ID: tenant.LeaseID(sub.ID, addr.String())}, DomainID: sub.DomainID, SubnetID: sub.ID, Address: addr,
		State: tenant.LeaseReserved, MAC: mac, Use: tenant.UseEndpoint, Host: r.host, Name: "shop-web-1", Expires: time.Now().Add(time.Minute)})
	r.ok(err)
	req := epRequest(1, 1, "172.18.0.9/16")
	req.Interface.MacAddress = mac.String()
	_, err = r.CreateEndpoint(bg, req)
	r.ok(err)
	if v := r.vport(1); v.Name != "shop-web-1" {
		t.Errorf("name %s", v.Name)
	}
}

// A host that comes back with the journal of an earlier day lets go what was given up since,
// and takes over what has come since.
func TestOldJournal(t *testing.T) {
	r := newRig(t)
	r.two()
	r.Driver.Wait()
	r.journal.Close()
	old, err := os.ReadFile(r.dir + "/journal/journal.log")
	r.ok(err)
	r.openJournal()
	r.Driver = r.newDriver(r.Driver.Log, nil)
	r.ok(r.DeleteEndpoint(bg, del(1)))
	r.Driver.Wait()
	_, err = r.CreateEndpoint(bg, epRequest(1, 3, "172.18.0.2/16")) // with the address of the first
	r.ok(err)
	r.Driver.Wait()
	r.journal.Close()
	r.ok(os.WriteFile(r.dir+"/journal/journal.log", old, 0o600))
	r.openJournal()
	r.Driver = r.newDriver(r.Driver.Log, nil)
	if rep := r.reconcile(); len(rep.Removed) != 1 || len(rep.Adopted) != 1 {
		t.Errorf("%+v", rep)
	}
	r.expect("as it was", append(append(boundWorld(1, "172.18.0.0/16"), attachedWorld(3, "172.18.0.2")...), attachedWorld(2, "172.18.0.3")...)...)
	if rep := r.reconcile(); !rep.empty() {
		t.Errorf("a further Reconcile: %+v", rep)
	}
}
