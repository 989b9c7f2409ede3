package user

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"nuage/test/host"
)

// Way 1: Docker's own IPAM and no subnet named. The tenant follows Docker: a subnet with
// Docker's CIDR is made in the zone, and goes with the network.
func TestDockersIPAMMakesASubnet(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1")
	one := h.Network("one", d.Driver("")...)
	two := h.Network("two", d.Driver("")...)
	c1, c2 := h.Container("c1", "--network", one), h.Container("c2", "--network", one)
	far := h.Container("far", "--network", two)

	cidr := h.Docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", one)
	if !strings.Contains(h.Nuagectl("get", "subnets"), cidr) {
		t.Errorf("no subnet %s:\n%s", cidr, h.Nuagectl("get", "subnets"))
	}
	h.Reaches(c1, h.IP(c2), 64)
	h.Reaches(c1, h.IP(far), 63)
	h.Reaches(c1, h.Endpoint(c1, one).Gateway, 64)
	if h.Endpoint(c1, one).MacAddress == "" {
		t.Error("docker inspect shows no MAC address")
	}

	h.Docker("rm", "-f", c1, c2)
	h.Docker("network", "rm", one)
	h.Eventually(10*time.Second, "the subnet goes with its network", func() error {
		if out := h.Nuagectl("get", "subnets"); strings.Contains(out, cidr) {
			return errorf("still there:\n%s", out)
		}
		return nil
	})
	h.Reaches(far, h.Endpoint(far, two).Gateway, 64)
}

// Way 2: Docker's own IPAM, with the CIDR of an existing subnet.
func TestDockersIPAMOnAnExistingSubnet(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.61.1.0/24", "back=10.61.2.0/24")
	front := h.Network("front", append(d.Driver("front"), "--subnet", "10.61.1.0/24", "--gateway", "10.61.1.1")...)
	c := h.Container("c", "--network", front, "--ip", "10.61.1.77")
	other := h.Container("other", "--network", d.Network("back"))
	if got := h.IP(c); got != "10.61.1.77" {
		t.Errorf("address %s", got)
	}
	h.Reaches(other, "10.61.1.77", 63)
	h.Docker("rm", "-f", c)
	h.Docker("network", "rm", front)
	if out := h.Nuagectl("get", "subnets"); !strings.Contains(out, "10.61.1.0/24") {
		t.Errorf("a subnet of the tenant's went with a network:\n%s", out)
	}

	create := func(name string, flags ...string) []string {
		return append(append(append([]string{"docker", "network", "create", "-d", "nuage"}, d.Driver("front")...), flags...), h.Name(name))
	}
	h.Refused([]string{"10.61.1.0/24"}, create("foreign", "--subnet", "10.61.3.0/24")...)
	h.Refused([]string{"gateway", "10.61.1.1"}, create("wrong-gateway", "--subnet", "10.61.1.0/24", "--gateway", "10.61.1.9")...)
	// Docker chooses a CIDR of its own here, which cannot be the subnet's.
	h.Refused([]string{"--subnet", "10.61.1.0/24"}, create("no-flags")...)
	if out := h.Docker("network", "ls", "--filter", "name="+h.Name("")); strings.Contains(out, "foreign") ||
		strings.Contains(out, "wrong-gateway") || strings.Contains(out, "no-flags") {
		t.Errorf("a refused network is there:\n%s", out)
	}
}

// Way 3: the nuage IPAM. Several networks of one subnet share its addresses; two tenants
// with the same CIDR do not see each other.
func TestTenantsIPAM(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.62.1.0/24")
	one := d.Network("front")
	two := h.Network("two", d.IPAM("front")...)
	c1, c2 := h.Container("c1", "--network", one), h.Container("c2", "--network", two)
	prefix := netip.MustParsePrefix("10.62.1.0/24")
	for _, c := range []string{c1, c2} {
		if a := netip.MustParseAddr(h.IP(c)); !prefix.Contains(a) || a == netip.MustParseAddr("10.62.1.1") {
			t.Errorf("%s has address %s", c, a)
		}
	}
	if h.IP(c1) == h.IP(c2) {
		t.Fatalf("two containers of one subnet with address %s", h.IP(c1))
	}
	if got := h.Endpoint(c1, one).Gateway; got != "10.62.1.1" {
		t.Errorf("gateway %s", got)
	}
	h.Reaches(c1, h.IP(c2), 64)
	h.Serves(c1, h.IP(c1), c2, h.IP(c2))

	// The network says in docker inspect what it was made with.
	out := h.Docker("network", "inspect", "-f", "{{.Driver}} {{.IPAM.Driver}} {{.IPAM.Options.domain}} {{.IPAM.Options.subnet}}", one)
	if out != "nuage nuage App1 front" {
		t.Errorf("docker network inspect: %s", out)
	}
}

// Way 4: the null IPAM. The driver picks the address.
func TestNullIPAM(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.63.1.0/24")
	n := h.Network("n", append([]string{"--ipam-driver", "null"}, d.Driver("front")...)...)
	c1, c2 := h.Container("c1", "--network", n), h.Container("c2", "--network", n)
	a1, a2 := h.IP(c1), h.IP(c2)
	if !strings.HasPrefix(a1, "10.63.1.") || a1 == a2 {
		t.Errorf("addresses %s and %s", a1, a2)
	}
	h.Reaches(c1, a2, 64)
	h.Reaches(c1, "10.63.1.1", 64)
	if out := h.Exec(c1, "app", "addr"); !strings.Contains(out, "eth0 "+a1+"/24") || !strings.Contains(out, "default via 10.63.1.1") {
		t.Errorf("inside:\n%s", out)
	}
}

func TestRequestedAddresses(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.64.0.0/16")
	n := d.Network("front", "--subnet", "10.64.0.0/16", "--gateway", "10.64.0.1",
		"--ip-range", "10.64.9.0/29", "--aux-address", "printer=10.64.9.1", "--aux-address", "camera=10.64.9.2")
	run := func(flags ...string) []string {
		return append(append([]string{"docker", "run", "--rm", "--network", n}, flags...), host.Image, "app", "addr")
	}

	c := h.Container("c", "--network", n, "--ip", "10.64.77.7")
	if got := h.IP(c); got != "10.64.77.7" {
		t.Errorf("--ip 10.64.77.7 gave %s", got)
	}
	h.Refused([]string{"10.64.77.7"}, run("--ip", "10.64.77.7")...) // taken
	h.Refused([]string{"10.64.0.1"}, run("--ip", "10.64.0.1")...)   // the gateway's
	h.Refused([]string{"10.64.9.1"}, run("--ip", "10.64.9.1")...)   // an auxiliary one
	h.Refused([]string{"10.99.0.7"}, run("--ip", "10.99.0.7")...)   // of no subnet

	// What Docker picks is of the range, and none of the auxiliary ones.
	seen := map[string]bool{}
	for _, name := range []string{"r1", "r2", "r3"} {
		ip := netip.MustParseAddr(h.IP(h.Container(name, "--network", n)))
		if !netip.MustParsePrefix("10.64.9.0/29").Contains(ip) || ip.String() == "10.64.9.1" || ip.String() == "10.64.9.2" || seen[ip.String()] {
			t.Errorf("--ip-range 10.64.9.0/29 gave %s", ip)
		}
		seen[ip.String()] = true
	}
	h.Reaches(c, h.IP(h.Name("r1")), 64)
}

// --mac-address, through the API: the commands of some versions insist on newer daemons.
func TestRequestedMAC(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.65.1.0/24")
	n := d.Network("front")
	name := h.Name("c")
	t.Cleanup(func() { h.TryDocker("rm", "-f", name) })
	const mac = "02:11:22:33:44:55"
	if _, err := h.API("POST", "/v1.41/containers/create?name="+name, map[string]any{
		"Image": host.Image, "MacAddress": mac, "HostConfig": map[string]any{"NetworkMode": n},
	}); err != nil {
		t.Fatal(err)
	}
	h.Docker("start", name)
	if out := h.Exec(name, "app", "addr"); !strings.Contains(out, "mac "+mac) {
		t.Errorf("inside:\n%s", out)
	}
	if e := h.Endpoint(name, n); e.MacAddress != mac {
		t.Errorf("docker inspect: %s", e.MacAddress)
	}
	neighbour := h.Container("neighbour", "--network", n)
	h.Reaches(neighbour, h.IP(name), 64)
	if out := h.Exec(neighbour, "app", "arping", h.IP(name)); !strings.HasSuffix(out, "is at "+mac) {
		t.Errorf("arping: %s", out)
	}
}

// An address that was just released is not the next one given out.
func TestReleasedAddressesRest(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	n := h.Domain("App1", "front=10.67.1.0/24").Network("front")
	seen := map[string]bool{}
	for range 4 {
		out := h.Docker("run", "--rm", "--network", n, host.Image, "app", "addr")
		ip := strings.Fields(out)[1]
		if seen[ip] {
			t.Errorf("address %s again at once", ip)
		}
		seen[ip] = true
	}
}

func TestOptionErrors(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.68.1.0/24")
	create := func(flags ...string) []string {
		return append(append([]string{"docker", "network", "create", "-d", "nuage"}, flags...), h.Name("n"))
	}
	for name, c := range map[string]struct {
		flags []string
		texts []string
	}{
		"unknown driver key":    {append(d.Driver(""), "-o", "colour=red"), []string{"colour", "enterprise", "policy-group"}},
		"unknown ipam key":      {append(d.IPAM("front"), "--ipam-opt", "colour=red"), []string{"colour", "enterprise"}},
		"contradiction":         {append(d.IPAM("front"), "-o", "zone=Other"), []string{"zone", "Zone", "Other"}},
		"foreign subnet":        {append(d.IPAM("front"), "--subnet", "10.1.2.0/24"), []string{"10.1.2.0/24", "10.68.1.0/24"}},
		"overlap":               {append(d.Driver("another"), "--subnet", "10.68.1.128/25"), []string{"10.68.1.128/25", "overlap", "front"}},
		"no domain":             {[]string{"-o", "enterprise=" + d.Enterprise, "-o", "zone=Zone"}, []string{"domain"}},
		"no zone":               {[]string{"-o", "enterprise=" + d.Enterprise, "-o", "domain=App1"}, []string{"zone"}},
		"bad mtu":               {append(d.Driver(""), "-o", "mtu=9"), []string{"mtu"}},
		"nuage IPAM, no tenant": {[]string{"--ipam-driver", "nuage"}, []string{"enterprise", "--ipam-opt"}},
		"null IPAM, no tenant":  {[]string{"--ipam-driver", "null"}, []string{"domain"}},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			h.Refused(c.texts, create(c.flags...)...)
		})
	}
	if out, err := h.TryDocker("network", "inspect", h.Name("n")); err == nil {
		t.Errorf("a refused network is there: %s", out)
	}
}

// What is said in one place counts in the other.
func TestOptionPlacesAreMerged(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.69.1.0/24")
	n := h.Network("n", "--ipam-driver", "nuage", "--ipam-opt", "organization="+d.Enterprise, "--ipam-opt", "domain=App1",
		"--ipam-opt", "zone=Zone", "--ipam-opt", "subnet=front", "-o", "domain=App1", "-o", "mtu=1300")
	c := h.Container("c", "--network", n)
	if out := h.Exec(c, "app", "addr"); !strings.Contains(out, "eth0 10.69.1.") || !strings.Contains(out, "mtu 1300") {
		t.Errorf("inside:\n%s", out)
	}
}
