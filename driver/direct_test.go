package driver

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"nuage/controller/tenant"
	"nuage/driver/link"
)

var sandboxes atomic.Int32

// sandbox is a container's network namespace, which ends with remove as a container's does.
func (r *rig) sandbox() (path string, remove func()) {
	r.t.Helper()
	name := fmt.Sprintf("nuage-direct-%d-%d", os.Getpid(), sandboxes.Add(1))
	r.run("ip", "netns", "add", name)
	gone := false
	remove = func() {
		if !gone {
			gone = true
			r.run("ip", "netns", "del", name)
		}
	}
	r.t.Cleanup(remove)
	r.run("ip", "-n", name, "link", "set", "lo", "up")
	return filepath.Join("/run/netns", name), remove
}

func inside(path string) string { return filepath.Base(path) }

func containerID(n int) string {
	return fmt.Sprintf("%08x", 0xc0000000+n) + strings.Repeat("c", 56)
}

// direct is a container of the zone's only subnet.
func (r *rig) direct(n int, netns string) Direct {
	return Direct{ContainerID: containerID(n), ContainerName: fmt.Sprintf("c%d", n), SandboxKey: "/var/run/docker/netns/" + inside(netns),
		Netns: netns, Enterprise: r.enterprise, Domain: "App1", Zone: "DockerZone", Subnet: "PrivateSubnet"}
}

// directWorld is what expect should find of an attached container.
func (r *rig) directWorld(c Direct, address string) []string {
	v := r.vportOf(c.ContainerID)
	host, _ := link.Names(linkID(&v))
	return []string{"vport " + host, "link " + host, "port " + host, "lease " + address + " bound", "record endpoint " + short(c.ContainerID) + " made=true"}
}

func (r *rig) direct1(n int) (c Direct, end func(), address string) {
	r.t.Helper()
	path, end := r.sandbox()
	c = r.direct(n, path)
	r.ok(r.Attach(bg, c))
	return c, end, r.vportOf(c.ContainerID).IPv4.String()
}

// vportOf is this host's vport of a container.
func (r *rig) vportOf(id string) (v tenant.Vport) {
	r.t.Helper()
	for _, one := range r.everything().Vports {
		if one.Owner.ContainerID == id && one.Host == r.host {
			v = *one
		}
	}
	return v
}

func TestAttachDirect(t *testing.T) {
	r := newRig(t)
	r.subnet("DockerZone", "PrivateSubnet", "10.85.85.0/24")
	a, _, ipA := r.direct1(1)
	b, _, ipB := r.direct1(2)
	out := r.run("ip", "-n", inside(a.Netns), "addr", "show", "dev", "eth0")
	for _, want := range []string{"inet " + ipA + "/24", "mtu 1450", a.mac().String()} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q inside: %s", want, out)
		}
	}
	// It works when Attach returns: its first packet is answered.
	r.run("ip", "netns", "exec", inside(a.Netns), "ping", "-c1", "-W1", ipB)
	r.run("ip", "netns", "exec", inside(b.Netns), "ping", "-c1", "-W1", "10.85.85.1")
	v := r.vportOf(a.ContainerID)
	if v.Name != "c1" || v.Owner != a.owner() || v.Type != tenant.VportContainer {
		t.Errorf("%+v", v)
	}

	// Again, and by another process, it is left as it is; a new name is noted.
	r.restart()
	a.ContainerName = "renamed"
	r.ok(r.Attach(bg, a))
	if rep := r.reconcile(); !rep.empty() {
		t.Errorf("%+v", rep)
	}
	if now := r.vportOf(a.ContainerID); now.ID != v.ID || now.Name != "renamed" {
		t.Errorf("%+v", now)
	}
	r.expect("two", append(r.directWorld(a, ipA), r.directWorld(b, ipB)...)...)
	if ids, err := r.Containers(); err != nil || len(ids) != 2 {
		t.Errorf("%v %v", ids, err)
	}
	// What Docker lists has nothing to do with it.
	if rep, err := r.Collect(bg, nil, nil, 0); err != nil || !rep.empty() {
		t.Errorf("%+v %v", rep, err)
	}
	for range 2 {
		r.ok(r.Detach(bg, a.ContainerID))
		r.ok(r.Detach(bg, b.ContainerID))
	}
	r.Wait()
	r.expect("nothing")
}

// A container that stops and starts again has its address, unless it rests no more.
func TestDirectKeepsItsAddress(t *testing.T) {
	r := newRig(t)
	r.subnet("DockerZone", "PrivateSubnet", "10.85.85.0/24")
	c, end, ip := r.direct1(1)
	for _, detached := range []bool{true, false} { // the second time nobody saw it stop
		end()
		if detached {
			r.ok(r.Detach(bg, c.ContainerID))
		}
		other, _, _ := r.direct1(2) // meanwhile addresses are given out
		r.ok(r.Detach(bg, other.ContainerID))
		var now string
		if c, end, now = r.direct1(1); now != ip {
			t.Errorf("detached %v: address %s, was %s", detached, now, ip)
		}
		r.Wait()
		r.expect("started again", r.directWorld(c, ip)...)
		r.run("ip", "netns", "exec", inside(c.Netns), "ping", "-c1", "-W1", "10.85.85.1")
	}
}

func TestDirectStaticAddress(t *testing.T) {
	r := newRig(t)
	r.subnet("DockerZone", "PrivateSubnet", "10.85.85.0/24")
	path, _ := r.sandbox()
	c := r.direct(1, path)
	c.StaticIP, c.MAC, c.Subnet = netip.MustParseAddr("10.85.85.77"), tenant.MAC{2, 0, 0, 0, 0, 7}, "" // the zone's only one
	c.PolicyGroups, c.User = []string{"web", "db"}, "user"
	r.ok(r.Attach(bg, c))
	v := r.vportOf(c.ContainerID)
	if v.IPv4 != c.StaticIP || v.MAC != c.MAC || !slices.Equal(v.PolicyGroups, c.PolicyGroups) || v.User != "user" {
		t.Errorf("%+v", v)
	}
	path, _ = r.sandbox()
	d := r.direct(2, path)
	d.StaticIP = c.StaticIP
	if err := r.Attach(bg, d); !errors.Is(err, tenant.ErrConflict) || !strings.Contains(err.Error(), "in use by vport c1") {
		t.Errorf("%v", err)
	}
	r.expect("the first alone", r.directWorld(c, "10.85.85.77")...)
}

// Whatever cannot be is refused, leaves nothing behind, and is told until it is mended.
func TestDirectRefusals(t *testing.T) {
	r := newRig(t)
	p := r.subnet("DockerZone", "PrivateSubnet", "10.85.85.0/24")
	path, _ := r.sandbox()
	var told []string // of the case before
	for _, c := range []struct {
		says   string
		class  error
		within string // the subnet that the telling vport is in
		change func(*Direct)
	}{
		{"enterprise Nope not found", tenant.ErrNotFound, "", func(c *Direct) { c.Enterprise = "Nope" }},
		{"zone Nope of domain App1 not found", tenant.ErrNotFound, "", func(c *Direct) { c.Zone = "Nope" }},
		{"subnet Nope not found", tenant.ErrNotFound, "", func(c *Direct) { c.Subnet = "Nope" }},
		{"no domain given", tenant.ErrInvalid, "", func(c *Direct) { c.Domain = "" }},
		{"address 10.9.9.9 is not in subnet PrivateSubnet", tenant.ErrInvalid, p.Subnet.ID, func(c *Direct) { c.StaticIP = netip.MustParseAddr("10.9.9.9") }},
		{"gateway of subnet", tenant.ErrConflict, p.Subnet.ID, func(c *Direct) { c.StaticIP = p.Subnet.Gateway }},
		{"the container has ended", link.ErrNamespace, p.Subnet.ID, func(c *Direct) { c.Netns = "/run/netns/no-such-container" }},
	} {
		d := r.direct(1, path)
		c.change(&d)
		err := r.Attach(bg, d)
		if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.says, err)
			continue
		}
		r.Wait()
		r.expect(c.says, told...)
		for range 2 {
			r.ok(r.Refuse(bg, d, err))
		}
		v := r.vportOf(d.ContainerID)
		if !strings.Contains(v.Error, c.says) || v.SubnetID != c.within || v.IPv4.IsValid() || v.Interface != "" {
			t.Errorf("%s: %+v", c.says, v)
		}
		if told = nil; c.within != "" {
			told = []string{"vport "}
		}
		// It stays over a restart of the plugin.
		r.restart()
		if rep := r.reconcile(); !rep.empty() {
			t.Errorf("%s: %+v", c.says, rep)
		}
		if r.vportOf(d.ContainerID).ID != v.ID {
			t.Errorf("%s: not told any more", c.says)
		}
	}
	mended := r.direct(1, path)
	r.ok(r.Attach(bg, mended))
	v := r.vportOf(mended.ContainerID)
	if v.Error != "" {
		t.Errorf("still told: %+v", v)
	}
	// It was taken for refused once more, since the last step of attaching it had failed.
	r.ok(r.Refuse(bg, mended, errors.New("a moment away")))
	r.ok(r.Attach(bg, mended))
	if told, err := r.refusal(mended.ContainerID); err != nil || told != nil {
		t.Errorf("attached, and told as refused: %+v, %v", told, err)
	}
	r.ok(r.Detach(bg, mended.ContainerID))
	r.ok(r.Refuse(bg, mended, errors.New(strings.Repeat("x", 100_000)))) // as far as somebody would read it
	if n := len(r.vportOf(mended.ContainerID).Error); n != 500 {
		t.Errorf("told in %d bytes", n)
	}
	r.ok(r.Detach(bg, mended.ContainerID))
	r.Wait()
	r.expect("nothing")
}

// However often it is tried, the reason is told in the same words: in the log it is once then,
// and the store is not written again.
func TestDirectFailsInTheSameWords(t *testing.T) {
	r := newRig(t)
	r.subnet("DockerZone", "PrivateSubnet", "10.85.85.0/24")
	path, _ := r.sandbox()
	r.run("ip", "-n", inside(path), "route", "add", "default", "dev", "lo")
	c := r.direct(1, path)
	var first error
	var revision int64
	for try := range 3 {
		err := r.Attach(bg, c)
		if err == nil || !strings.Contains(err.Error(), "the container has another already") {
			t.Fatalf("%v", err)
		}
		r.ok(r.Refuse(bg, c, err))
		now := r.vportOf(c.ContainerID).Revision
		if try > 0 && (err.Error() != first.Error() || now != revision) {
			t.Errorf("first %v, then %v; told at revision %d, then at %d", first, err, revision, now)
		}
		first, revision = err, now
	}
	gone := r.direct(1, "/run/netns/no-such-container")
	if err := r.Attach(bg, gone); !errors.Is(err, link.ErrNamespace) {
		t.Errorf("%v", err)
	}
}

func TestDirectWithLostJournal(t *testing.T) {
	r := newRig(t)
	r.subnet("DockerZone", "PrivateSubnet", "10.85.85.0/24")
	c, _, ip := r.direct1(1)
	path, _ := r.sandbox()
	wrong, nowhere := r.direct(2, path), r.direct(3, path)
	r.ok(r.Refuse(bg, wrong, errors.New("told in the subnet")))
	nowhere.Enterprise = "Nope"
	r.ok(r.Refuse(bg, nowhere, errors.New("told nowhere")))
	if told, err := r.Refused(); err != nil || len(told) != 1 || told[0].Error != "told nowhere" {
		t.Errorf("refused and nowhere: %+v, %v", told, err)
	}
	r.Driver.Wait()
	r.journal.Close()
	r.ok(os.RemoveAll(r.dir + "/journal"))
	r.openJournal()
	r.Driver = r.newDriver(r.Driver.Log, nil)
	if rep := r.reconcile(); len(rep.Adopted) != 1 || len(rep.Removed) != 2 {
		t.Errorf("%+v", rep)
	}
	r.expect("adopted", r.directWorld(c, ip)...)
	if r.vportOf(nowhere.ContainerID).ID != "" {
		t.Error("what was told nowhere is left")
	}
	before := r.vportOf(c.ContainerID).ID
	r.ok(r.Attach(bg, c))
	if r.vportOf(c.ContainerID).ID != before {
		t.Error("the adopted container was attached anew")
	}
}

func TestDirectWhileSettingsAreBad(t *testing.T) {
	r := newRig(t)
	r.subnet("DockerZone", "PrivateSubnet", "10.85.85.0/24")
	c, _, ip := r.direct1(1)
	problem := errors.New("setting NUAGE_MTU: no")
	r.Driver = r.newDriver(r.Driver.Log, func(c *Config) { c.Problem = func() error { return problem } })
	r.ok(r.Attach(bg, c))
	path, _ := r.sandbox()
	if err := r.Attach(bg, r.direct(2, path)); !errors.Is(err, problem) {
		t.Errorf("%v", err)
	}
	r.expect("the first stays", r.directWorld(c, ip)...)
}

// After every single step of an attachment the process may die: the next one finishes or
// undoes it, and the container is attached, once.
func TestDirectCrash(t *testing.T) {
	r := newRig(t)
	r.subnet("DockerZone", "PrivateSubnet", "10.85.85.0/24")
	path, _ := r.sandbox()
	c := r.direct(1, path)
	last := []string{}
	for step, died := 1, true; died; step++ {
		d, mortal := r.mortalDriver(step)
		err := d.Attach(bg, c)
		if died = mortal.dead(); !died {
			r.ok(err)
		}
		last = append(last, mortal.last)
		d.Wait()
		r.restart()
		r.reconcile()
		r.ok(r.Attach(bg, c))
		r.run("ip", "netns", "exec", inside(path), "ping", "-c1", "-W1", "10.85.85.1")
		if out := r.run("ip", "-n", inside(path), "-o", "link"); strings.Contains(out, " eth1") {
			t.Fatalf("step %d: attached twice: %s", step, out)
		}
		r.expect(fmt.Sprintf("step %d, %s", step, mortal.last), r.directWorld(c, r.vportOf(c.ContainerID).IPv4.String())...)
		r.ok(r.Detach(bg, c.ContainerID))
		r.Wait()
		r.expect(fmt.Sprintf("step %d, %s, and detached", step, mortal.last))
	}
	for _, effect := range []string{"EnsurePath", "Allocate", "record", "WaitProgrammed", "move"} {
		if !slices.Contains(last, effect) {
			t.Errorf("never died at %s: %q", effect, last)
		}
	}
}
