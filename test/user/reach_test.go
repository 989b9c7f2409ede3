package user

import (
	"strings"
	"testing"
	"time"

	"nuage/test/host"
)

func TestWithinADomain(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.80.1.0/24", "back=10.80.2.0/24")
	front, back := d.Network("front"), d.Network("back")
	a, b := h.Container("a", "--network", front), h.Container("b", "--network", front)
	far := h.Container("far", "--network", back)
	ipA, ipB, ipFar := h.IP(a), h.IP(b), h.IP(far)

	h.Reaches(a, "10.80.1.1", 64)
	h.Reaches(a, "10.80.2.1", 64) // every gateway of the domain is in this same hop
	h.Reaches(a, ipB, 64)
	h.Reaches(a, ipFar, 63)
	h.Reaches(far, ipA, 63)
	h.Serves(b, ipB, a, ipA)
	h.Serves(far, ipFar, a, ipA)
	if out := h.Exec(far, "app", "udp", ipA+":80"); !strings.HasPrefix(out, "32 bytes") {
		t.Errorf("udp: %s", out)
	}
	for _, from := range []string{b, far} {
		if out := h.Exec(from, "app", "get", "-timeout", "20s", "http://"+ipA+"/bytes/16"); !strings.Contains(out, "16777216 bytes") {
			t.Errorf("%s downloads: %s", from, out)
		}
	}
	// A full packet passes; Antrea's testPingLargeMTU: a larger one passes in fragments.
	for _, from := range []string{b, far} {
		h.Pings(from, "-D", "-s", "1422", ipA)
		h.Pings(from, "-s", "4000", ipA)
	}
	// ARP: neighbours and the gateway are known, nobody else.
	if out := h.Exec(a, "app", "arping", ipB); !strings.HasSuffix(out, "is at "+h.Endpoint(b, front).MacAddress) || strings.Contains(out, "\n") {
		t.Errorf("arping of a neighbour: %s", out)
	}
	h.Exec(a, "app", "arping", "10.80.1.1")
	if out, err := h.TryDocker("exec", a, "app", "arping", "10.80.1.200"); err == nil {
		t.Errorf("somebody answers for an address that nobody has: %s", out)
	}
}

// Tenants with the same addresses, and domains of one enterprise, reach only their own.
func TestTenantsAreApart(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	red := h.Domain("Red", "front=10.81.1.0/24", "back=10.81.2.0/24")
	blue := h.Domain("Blue", "front=10.81.1.0/24")
	subnet := []string{"--subnet", "10.81.1.0/24", "--gateway", "10.81.1.1"}
	rn, bn := red.Network("front", subnet...), blue.Network("front", subnet...)
	r1 := h.Container("r1", "--network", rn, "--ip", "10.81.1.11")
	r2 := h.Container("r2", "--network", rn, "--ip", "10.81.1.12")
	b1 := h.Container("b1", "--network", bn, "--ip", "10.81.1.11")
	b3 := h.Container("b3", "--network", bn, "--ip", "10.81.1.13")
	far := h.Container("far", "--network", red.Network("back"))

	h.Serves(r2, "10.81.1.12", r1, "10.81.1.11")
	h.Serves(b3, "10.81.1.13", b1, "10.81.1.11")
	h.Serves(far, h.IP(far), r1, "10.81.1.11")
	h.ReachesNot(r1, "10.81.1.13")
	h.ReachesNot(b1, "10.81.1.12")
	h.ReachesNot(b1, h.IP(far))
	if out, err := h.TryDocker("exec", b1, "app", "arping", "10.81.1.12"); err == nil {
		t.Errorf("blue sees a neighbour of red: %s", out)
	}
	// Neither the host's own addresses nor anything beyond.
	for _, outside := range []string{"10.200.0.1", "172.17.0.1", "10.200.0.254"} {
		h.ReachesNot(r1, outside)
	}
	if _, err := h.Try("ping", "-c", "1", "-W", "1", "10.81.1.11"); err == nil {
		t.Error("the host reaches a container of a tenant")
	}
}

// What a container sends under another's name never arrives, and is counted.
func TestSpoofing(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.82.1.0/24")
	n := d.Network("front", "--subnet", "10.82.1.0/24")
	evil := h.Container("evil", "--network", n, "--ip", "10.82.1.66")
	victim := h.Container("victim", "--network", n, "--ip", "10.82.1.10")
	honest := h.Container("honest", "--network", n, "--ip", "10.82.1.20")
	victimMAC, honestMAC := h.Endpoint(victim, n).MacAddress, h.Endpoint(honest, n).MacAddress

	h.Reaches(victim, "10.82.1.20", 64) // so that the victim need not ask for it below
	listen := make(chan string)
	go func() {
		out, _ := h.TryDocker("exec", victim, "app", "sniff", "-d", "60s", "-until", "10.82.1.20 > 10.82.1.10 proto 17")
		listen <- out
	}()
	frames := map[string][]string{
		"another's address":      {"-src-ip", "10.82.1.20", "-dst-mac", victimMAC, "10.82.1.10"},
		"another's MAC":          {"-src-mac", honestMAC, "-dst-mac", victimMAC, "10.82.1.10"},
		"a foreign address":      {"-src-ip", "192.0.2.1", "-dst-mac", victimMAC, "10.82.1.10"},
		"ARP as another":         {"-arp", "2", "-src-ip", "10.82.1.20", "-dst-mac", victimMAC, "10.82.1.10"},
		"ARP as the gateway":     {"-arp", "2", "-src-ip", "10.82.1.1", "-dst-mac", victimMAC, "10.82.1.10"},
		"ARP with another's MAC": {"-arp", "2", "-arp-mac", honestMAC, "-dst-mac", victimMAC, "10.82.1.10"},
		"ARP broadcast":          {"-arp", "1", "-src-ip", "10.82.1.20", "10.82.1.10"},
		"broadcast":              {"-dst-mac", "ff:ff:ff:ff:ff:ff", "10.82.1.255"},
		"DHCP server":            {"-sport", "67", "-dport", "68", "-dst-mac", "ff:ff:ff:ff:ff:ff", "255.255.255.255"},
	}
	h.Eventually(20*time.Second, "the victim listens", func() error {
		_, err := h.TryDocker("exec", victim, "sh", "-c", "[ $(cat /proc/net/packet | wc -l) -gt 1 ]")
		return err
	})
	for _, f := range frames {
		h.Exec(evil, append([]string{"app", "send", "-c", "3"}, f...)...)
	}
	// What an honest sender sends does arrive, and ends the listening.
	h.Exec(honest, "app", "send", "-dst-mac", victimMAC, "10.82.1.10")
	out := <-listen
	if strings.Count(out, honestMAC+" > "+victimMAC+" 0800 10.82.1.20 > 10.82.1.10 proto 17") != 1 {
		t.Errorf("want the frame of the honest sender:\n%s", out)
	}
	evilMAC := h.Endpoint(evil, n).MacAddress
	for line := range strings.SplitSeq(out, "\n") {
		if strings.Contains(line, ">") && !strings.HasPrefix(line, honestMAC+" > "+victimMAC+" 0800 10.82.1.20") {
			t.Errorf("the victim got: %s (evil's MAC is %s)", line, evilMAC)
		}
	}
	h.Reaches(honest, "10.82.1.10", 64)
	h.Reaches(evil, "10.82.1.10", 64) // an honest packet of the same container passes
}
