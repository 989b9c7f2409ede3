package vm

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"nuage/controller/tenant"
)

// An interface that somebody puts on the bridge becomes a vport with an address and flows;
// with the interface the vport goes, and the machine has its address again if it comes back
// while that rests.
func TestAttachAndDetach(t *testing.T) {
	rs, p := newRigs(t, 1)
	r := rs[0]
	r.plug("vnet0", place(mac1, "nuage-user=bob", "nuage-policy-group=web, db"))
	v := r.attached("vnet0", "")
	if v.SubnetID != p.Subnet.ID || v.ZoneID != p.Zone.ID || v.Name != "guest" || v.MAC.String() != mac1 || v.Owner.VMUUID != uuid1 || v.User != "bob" ||
		!slices.Equal(v.PolicyGroups, []string{"web", "db"}) {
		t.Errorf("vport %+v", v)
	}
	if err := r.agent.WaitProgrammed(context.Background(), v.ID); err != nil {
		t.Error(err)
	}
	if flows := strings.Join(r.ovs.Flows("alubr0"), "\n"); !strings.Contains(flows, "nw_src="+v.IPv4.String()) {
		t.Errorf("no flows for %v:\n%s", v.IPv4, flows)
	}
	// A second machine, and the ports of others, change nothing for the first.
	r.plug("vnet1", place(mac2, "nuage-static-ip=10.34.49.77"))
	r.plug("stranger", nil)
	r.plug("nu0123456789a", []string{"nuage-domain=App1", "attached-mac=" + mac2})
	r.attached("vnet1", "10.34.49.77")
	if r.shown("stranger", keyError)+r.shown("nu0123456789a", keyError) != "" || len(r.vports()) != 2 {
		t.Errorf("ports that are no machine's were touched: %+v", r.vports())
	}
	r.unplug("vnet1")
	r.unplug("vnet0")
	r.free()
	r.plug("tap7", place(mac1))
	if again := r.attached("tap7", ""); again.IPv4 != v.IPv4 || again.ID == v.ID {
		t.Errorf("came back as %+v, was %+v", again, v)
	}
	// No longer a machine's: all is taken back.
	r.ovs.Vsctl("clear", "Interface", "tap7", "external_ids")
	r.ovs.Vsctl("set", "Interface", "tap7", "external_ids:nuage-ip=left")
	r.free()
	r.eventually("answers taken back", func() string { return r.shown("tap7", keyIP) + r.shown("tap7", keyVport) })
}

// What an interface says may change.
func TestChanges(t *testing.T) {
	rs, p := newRigs(t, 1)
	r := rs[0]
	r.plug("vnet0", place(mac1))
	v := r.attached("vnet0", "")
	r.plug("vnet0", place(mac1, "vm-name=other", "nuage-user=eve"))
	r.eventually("new details", func() string {
		if vs := r.vports(); len(vs) != 1 || vs[0].ID != v.ID || vs[0].Name != "other" || vs[0].User != "eve" || vs[0].IPv4 != v.IPv4 {
			return fmt.Sprintf("%+v", vs)
		}
		return ""
	})
	r.plug("vnet0", place(mac1, "nuage-static-ip=10.34.49.99"))
	if w := r.attached("vnet0", "10.34.49.99"); w.ID == v.ID {
		t.Error("another address under the same vport")
	}
	r.plug("vnet0", place(mac2))
	r.eventually("another MAC", func() string {
		if vs := r.vports(); len(vs) != 1 || vs[0].MAC.String() != mac2 {
			return fmt.Sprintf("%+v", vs)
		}
		return ""
	})
	// A place is made on the fly where its prefix is given.
	r.plug("vnet0", place(mac2, "nuage-zone=New", "nuage-network=Fresh", "nuage-cidr=10.35.0.0/24", "nuage-static-ip=10.35.0.9"))
	if w := r.attached("vnet0", "10.35.0.9"); w.ZoneID == p.Zone.ID {
		t.Error("still in the old zone")
	}
	// Its zone has another name by now: the machine stays, and is told.
	v = r.vports()[0]
	st, _ := r.store.Read(context.Background())
	z := *st.Zones[v.ZoneID]
	z.Name = "Renamed"
	if _, err := r.store.UpdateZone(context.Background(), z); err != nil {
		t.Fatal(err)
	}
	r.plug("vnet0", place(mac2, "nuage-zone=New", "nuage-network=Fresh", "nuage-cidr=10.35.0.0/24", "nuage-static-ip=10.35.0.9", "vm-name=x"))
	r.refused("vnet0", "overlaps subnet Fresh")
	if vs := r.vports(); len(vs) != 1 || vs[0].ID != v.ID || !strings.Contains(vs[0].Error, "overlaps subnet Fresh") {
		t.Errorf("%+v", vs)
	}
	r.plug("vnet0", place(mac2, "nuage-zone=Renamed", "nuage-network=Fresh", "nuage-cidr=10.35.0.0/24", "nuage-static-ip=10.35.0.9"))
	if w := r.attached("vnet0", "10.35.0.9"); w.ID != v.ID {
		t.Error("made anew")
	}
}

// What is wrong is told at the interface and, where its place is known, by a vport; what is
// mended is attached.
func TestWrongMetadata(t *testing.T) {
	rs, p := newRigs(t, 1)
	r := rs[0]
	taken := tenant.Vport{Meta: tenant.Meta{ID: uuid.NewString()}, SubnetID: p.Subnet.ID, Name: "db-1", Type: tenant.VportContainer,
		MAC: tenant.RandomMAC(), IPv4: netip.MustParseAddr("10.34.49.5"), Host: "h9"}
	if _, err := r.store.BindVport(context.Background(), taken); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		ids    []string
		text   string
		placed bool
	}{
		{[]string{"nuage-domain=App1", "nuage-zone=VMZone", "vm-name=x"}, "attached-mac", false},
		{place("01:00:00:00:00:01"), "attached-mac", false},
		{place("0a:6e:75:61:67:65"), "the gateway's", false},
		{place("nonsense"), "attached-mac", false},
		{place(mac1, "nuage-network=Nowhere"), "subnet Nowhere not found in zone VMZone", false},
		{place(mac1, "nuage-zone="), "no zone given", false},
		{place(mac1, "nuage-cidr=10.34.49.0/25"), "VMSubnet is 10.34.49.0/24", false},
		{place(mac1, "nuage-cidr=all"), "nuage-cidr", false},
		{place(mac1, "nuage-static-ip=here"), "nuage-static-ip", false},
		{place(mac1, "nuage-policy-group=-x"), "nuage-policy-group", false},
		{place(mac1, "vm-name=-x"), "vm-name", false},
		{place(mac1, "nuage-user=-x"), "nuage-user", false},
		{place(mac1, "vm-uuid= x"), "vm-uuid", false},
		{place(mac1, "nuage-static-ip=10.99.0.1"), "not in subnet VMSubnet", true},
		{place(mac1, "nuage-static-ip=10.34.49.1"), "gateway", true},
		{place(mac1, "nuage-static-ip=10.34.49.5"), "in use by vport db-1", true},
		{[]string{"iface-id=" + uuid1}, "not found", false},
	} {
		name := fmt.Sprintf("vnet%d", i)
		r.plug(name, c.ids)
		r.refused(name, c.text)
		r.eventually("tell "+c.text, func() string {
			vs := r.vports()
			if len(vs) != 1 || vs[0].IPv4.IsValid() || vs[0].Interface != name || c.placed != (vs[0].SubnetID == p.Subnet.ID) || !strings.Contains(vs[0].Error, c.text) {
				return fmt.Sprintf("%+v", vs)
			}
			return ""
		})
		if i == 15 { // what stood in the way goes
			if err := r.store.DeleteVport(context.Background(), taken.ID); err != nil {
				t.Fatal(err)
			}
			r.attached(name, "10.34.49.5")
		}
		r.unplug(name)
		r.free()
	}
}

// A new process finds everything as it was and changes nothing.
func TestRestart(t *testing.T) {
	rs, _ := newRigs(t, 1)
	r := rs[0]
	r.plug("vnet0", place(mac1))
	r.plug("vnet1", place(mac2))
	r.attached("vnet0", "")
	r.attached("vnet1", "")
	r.stop()
	before := r.vports()
	r.unplug("vnet1") // while nobody looks
	r.watch()
	r.eventually("one left", func() string {
		if vs := r.vports(); len(vs) != 1 || !slices.ContainsFunc(before, func(v tenant.Vport) bool { return v.ID == vs[0].ID && v.Revision == vs[0].Revision }) {
			return fmt.Sprintf("%+v, before %+v", vs, before)
		}
		return ""
	})
	r.ovs.KillVswitchd()
	r.ovs.StartVswitchd()
	time.Sleep(3 * r.Grace)
	if vs := r.vports(); len(vs) != 1 || !slices.ContainsFunc(before, func(v tenant.Vport) bool { return v.ID == vs[0].ID && v.Revision == vs[0].Revision }) {
		t.Errorf("after a restart of ovs-vswitchd %+v, before %+v", vs, before)
	}
}

// A machine that moves has its address on the other host as soon as the first host has lost
// its interface, and never on both.
func TestMigration(t *testing.T) {
	rs, _ := newRigs(t, 2)
	one, two := rs[0], rs[1]
	one.plug("vnet0", place(mac1))
	v := one.attached("vnet0", "")
	two.plug("vnet3", place(mac1))
	two.refused("vnet3", "in use by vport guest")
	if w := one.attached("vnet0", ""); w.ID != v.ID || w.Revision != v.Revision {
		t.Errorf("disturbed: %+v", w)
	}
	if vs := two.vports(); len(vs) != 1 || vs[0].IPv4.IsValid() || !strings.Contains(vs[0].Error, "on host h1") {
		t.Errorf("on the other host: %+v", vs)
	}
	one.unplug("vnet0")
	start := time.Now()
	if w := two.attached("vnet3", ""); w.IPv4 != v.IPv4 {
		t.Errorf("moved from %v to %v", v.IPv4, w.IPv4)
	}
	t.Logf("attached on the other host after %v", time.Since(start))
	one.free()
}

// A vport made ahead is attached by its ID or external ID, and stays.
func TestMadeAhead(t *testing.T) {
	rs, p := newRigs(t, 2)
	one, two := rs[0], rs[1]
	ahead, err := one.store.BindVport(context.Background(), tenant.Vport{Meta: tenant.Meta{ID: uuid.NewString(), ExternalID: uuid1}, SubnetID: p.Subnet.ID, Name: "port-1",
		Type: tenant.VportVM, MAC: tenant.MAC{0x52, 0x54, 0, 0, 0, 1}, IPv4: netip.MustParseAddr("10.34.49.50"), Lasting: true, PolicyGroups: []string{"web"}})
	if err != nil {
		t.Fatal(err)
	}
	one.plug("tap0", []string{"iface-id=" + uuid1, "attached-mac=" + mac1, "vm-id=the-machine"})
	v := one.attached("tap0", "10.34.49.50")
	if v.ID != ahead.ID || v.Name != "port-1" || v.Owner.VMUUID != "the-machine" || !slices.Equal(v.PolicyGroups, []string{"web"}) {
		t.Errorf("%+v", v)
	}
	two.plug("tap1", []string{"iface-id=" + ahead.ID})
	two.refused("tap1", "attached on host h1")
	one.unplug("tap0")
	if w := two.attached("tap1", "10.34.49.50"); w.ID != ahead.ID {
		t.Errorf("%+v", w)
	}
	two.unplug("tap1")
	two.free()
	if w, err := two.store.FindVport(context.Background(), uuid1); err != nil || w.Host != "" || w.IPv4 != ahead.IPv4 {
		t.Errorf("after its machine: %+v, %v", w, err)
	}
	two.plug("tap2", []string{"iface-id=" + uuid1, "attached-mac=" + mac2})
	two.refused("tap2", "its MAC address is "+mac1)
}

// A machine that declines its address is shown, until it takes it, and for a while: one that
// takes it and declines it again and again changes nothing each time.
func TestDeclined(t *testing.T) {
	was := declineHold
	t.Cleanup(func() { declineHold = was })
	declineHold = 2 * time.Second
	rs, _ := newRigs(t, 1)
	r := rs[0]
	r.plug("vnet0", place(mac1))
	v := r.attached("vnet0", "")
	r.Told(v.ID, true)
	r.refused("vnet0", "declined "+v.IPv4.String())
	if vs := r.vports(); len(vs) != 1 || vs[0].ID != v.ID || !strings.Contains(vs[0].Error, "declined") {
		t.Errorf("%+v", vs)
	}
	revision := r.vports()[0].Revision
	for i := range 20 {
		r.Told(v.ID, i%2 == 1)
		time.Sleep(20 * time.Millisecond)
	}
	if vs := r.vports(); vs[0].Revision != revision {
		t.Errorf("written again: %+v", vs)
	}
	r.Told(v.ID, false)
	if w := r.attached("vnet0", v.IPv4.String()); w.ID != v.ID {
		t.Error("made anew")
	}
}

// Whoever asks again and again keeps the watcher from nothing.
func TestToldAgain(t *testing.T) {
	w := New(Config{})
	w.declined["b"] = refusal{until: time.Now().Add(time.Hour)}
	for i, c := range []struct {
		vport string
		looks int
	}{{"a", 0}, {"b", 1}, {"b", 0}} {
		w.Told(c.vport, false)
		if n := len(w.kick); n != c.looks {
			t.Fatalf("%d: looks %d times, want %d", i, n, c.looks)
		}
		for range c.looks {
			<-w.kick
		}
	}
}
