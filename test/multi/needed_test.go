package multi

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"nuage/test/host"
)

// Domains that a host has nothing in cost it nothing, however many there are: neither flows
// nor a watch. The first container brings its domain in, whole, before it runs. (Not
// parallel: others' domains would count.)
func TestOnlyWhatIsNeeded(t *testing.T) {
	f := host.SharedFleet(t)
	one, two := f.Host(1), f.Host(2)
	const domains = 500
	away := one.Elsewhere("10.200.0.99")
	settled := func() (watched, count int) {
		t.Helper()
		two.Eventually(60*time.Second, "what earlier tests were in is left", func() error {
			st, err := two.Status()
			if err != nil {
				return err
			}
			if st.Endpoints > 0 || st.Store.Following > 0 {
				return errorf("%d endpoints, %d domains followed", st.Endpoints, st.Store.Following)
			}
			watched, count = st.Store.Following, flows(two)
			return nil
		})
		return watched, count
	}
	_, before := settled()

	enterprise := one.Name("corp")
	var file strings.Builder
	fmt.Fprintf(&file, "enterprise: %s\ndomains:\n", enterprise)
	for n := range domains {
		fmt.Fprintf(&file, "- name: D%d\n  zones:\n  - name: Zone\n    subnets: [{name: front, address: 10.130.1.0/24}]\n", n)
	}
	begin := time.Now()
	if out, err := one.TryWith(file.String(), nil, "nuagectl", "apply", "-f", "-"); err != nil {
		t.Fatalf("nuagectl apply: %v\n%s", err, out)
	}
	applied := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	subnets := away.Subnets(enterprise)
	if len(subnets) != domains {
		t.Fatalf("%d subnets, want %d", len(subnets), domains)
	}
	for _, s := range subnets {
		for _, a := range []string{"10.130.1.10", "10.130.1.11"} {
			if _, err := away.Vport(ctx, s, netip.MustParseAddr(a)); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d domains applied in %s, two vports each in %s", domains, applied.Sub(begin).Round(100*time.Millisecond), time.Since(applied).Round(100*time.Millisecond))
	time.Sleep(time.Second) // for what must not happen
	if st, err := two.Status(); err != nil || st.Store.Following != 0 {
		t.Errorf("%d domains elsewhere: %v, following %d", domains, err, st.Store.Following)
	}
	if now := flows(two); now != before {
		t.Errorf("%d flows, %d before the %d domains elsewhere", now, before, domains)
	}

	d := (&host.Domain{Enterprise: enterprise, Name: "D250"}).On(two)
	n := d.Network("front", "--subnet", "10.130.1.0/24")
	if st, err := two.Status(); err != nil || st.Store.Following > 1 {
		t.Errorf("a network alone: %v, following %d", err, st.Store.Following)
	}
	c := two.Container("c", "--network", n)
	if st, err := two.Status(); err != nil || st.Store.Following != 1 {
		t.Errorf("with one container: %v, following %d, want 1", err, st.Store.Following)
	}
	// Who is elsewhere is known from the first moment.
	if out, err := two.TryDocker("exec", c, "app", "arping", "10.130.1.11"); err != nil {
		t.Errorf("a vport of another host is not known: %v\n%s", err, out)
	}
	two.Docker("rm", "-f", c)
	two.Docker("network", "rm", n)
	if _, after := settled(); after != before {
		t.Errorf("%d flows after the last container of the domain, %d before", after, before)
	}
}

// What nuagectl tells of the fleet, on any of its hosts.
func TestHostsAreListed(t *testing.T) {
	t.Parallel()
	f := host.SharedFleet(t)
	two := f.Host(2)
	s := newSpread(f, "App1", []string{"front=10.131.1.0/24"})
	for by := 1; by <= host.Size; by++ {
		f.Host(by).Eventually(15*time.Second, "the hosts as they are", func() error {
			hosts := f.Host(by).Get("hosts")
			for n := 1; n <= host.Size; n++ {
				h := in(hosts, "name", f.Host(n).HostName())
				if len(h) != 1 {
					return errorf("host %d is listed %d times: %v", n, len(h), hosts)
				}
				for key, want := range map[string]string{"vtep": f.Host(n).VTEP(), "version": "test", "state": "alive", "mtu": "1500"} {
					if got := fmt.Sprint(h[0][key]); got != want {
						return errorf("host %d: %s is %s, want %s", n, key, got, want)
					}
				}
				if at, _ := h[0]["programmed"].(float64); at < 1 {
					return errorf("host %d: programmed revision %v", n, h[0]["programmed"])
				}
				if domains := fmt.Sprint(h[0]["domains"]); !strings.Contains(domains, s.d.Enterprise+"/App1") {
					return errorf("host %d: domains %s", n, domains)
				}
			}
			return nil
		})
	}
	if out := two.Nuagectl("get", "hosts"); strings.Count(out, "alive") != host.Size || !strings.Contains(out, "10.200.0.3") {
		t.Errorf("nuagectl get hosts:\n%s", out)
	}
	if out := two.Nuagectl("get", "hosts", "-o", "wide"); !strings.Contains(out, s.d.Enterprise+"/App1") {
		t.Errorf("nuagectl get hosts -o wide:\n%s", out)
	}
	if st, err := f.Host(1).Status(); err != nil || st.Store.Serving == "" || st.HostsAlive != host.Size {
		t.Errorf("the status of the host that serves: %v %+v", err, st)
	}
	if st, err := two.Status(); err != nil || st.Store.Joined == "" || st.Switch.Tunnel.Problem != "" || len(st.Problems) > 0 {
		t.Errorf("the status of a joined host: %v %+v", err, st)
	}
}
