package multi

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nuage/test/host"
)

// filler takes endpoints on one host as its dockerd does, by the plugin protocol.
type filler struct {
	h             *host.Host
	pool, network string
}

func newFiller(t *testing.T, h *host.Host, d *host.Domain, subnet string) *filler {
	f := &filler{h: h, network: h.Docker("network", "inspect", "-f", "{{.Id}}", d.On(h).Network(subnet))}
	answer, err := f.call("IpamDriver.RequestPool", map[string]any{"AddressSpace": "nuage",
		"Options": map[string]string{"enterprise": d.Enterprise, "domain": d.Name, "zone": "Zone", "subnet": subnet}})
	if err != nil {
		t.Fatal(err)
	}
	f.pool = answer["PoolID"].(string)
	return f
}

func (f *filler) call(verb string, body map[string]any) (map[string]any, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	out, err := f.h.Plugin(verb, string(b))
	if err != nil {
		return nil, err
	}
	var answer map[string]any
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", verb, err, out)
	}
	if text, _ := answer["Err"].(string); text != "" {
		return nil, fmt.Errorf("%s: %s", verb, text)
	}
	return answer, nil
}

func (f *filler) request(address string, n int) (netip.Prefix, error) {
	answer, err := f.call("IpamDriver.RequestAddress", map[string]any{"PoolID": f.pool, "Address": address,
		"Options": map[string]string{"com.docker.network.endpoint.macaddress": mac(n)}})
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.ParsePrefix(answer["Address"].(string))
}

// endpoint takes an address and makes endpoint number n with it.
func (f *filler) endpoint(n int) (netip.Addr, error) {
	p, err := f.request("", n)
	if err != nil {
		return netip.Addr{}, err
	}
	_, err = f.call("NetworkDriver.CreateEndpoint", map[string]any{"NetworkID": f.network, "EndpointID": endpointID(n),
		"Interface": map[string]string{"Address": p.String(), "MacAddress": mac(n)}, "Options": map[string]any{}})
	return p.Addr(), err
}

func (f *filler) remove(n int, a netip.Addr) error {
	if _, err := f.call("NetworkDriver.DeleteEndpoint", map[string]any{"NetworkID": f.network, "EndpointID": endpointID(n)}); err != nil {
		return err
	}
	return f.release(a)
}

func (f *filler) release(a netip.Addr) error {
	_, err := f.call("IpamDriver.ReleaseAddress", map[string]any{"PoolID": f.pool, "Address": a.String()})
	return err
}

func mac(n int) string        { return fmt.Sprintf("02:42:fe:00:%02x:%02x", n>>8, n&255) }
func endpointID(n int) string { return fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, "fill", n))) }

// Three hosts fill a /24 at once: nobody gets an address that another has, all addresses are
// given out, the next is refused, and what was given back can all be had again. (Not
// parallel: on two cores it would starve the others.)
func TestFillASubnetFromThreeHosts(t *testing.T) {
	f := host.SharedFleet(t)
	d := f.Host(1).Domain("App1", "front=10.110.1.0/24")
	var fillers []*filler
	for n := 1; n <= host.Size; n++ {
		fillers = append(fillers, newFiller(t, f.Host(n), d, "front"))
	}
	type taken struct {
		by *filler
		n  int
	}
	var mu sync.Mutex
	given := map[netip.Addr]taken{}
	var next atomic.Int64
	begin := time.Now()
	atOnce(fillers, 4, func(fl *filler) {
		for {
			n := int(next.Add(1))
			a, err := fl.endpoint(n)
			if err != nil {
				if !strings.Contains(err.Error(), "front") || !strings.Contains(err.Error(), "in use") {
					t.Errorf("refused otherwise than for want of addresses: %v", err)
				}
				return
			}
			mu.Lock()
			if other, twice := given[a]; twice {
				t.Errorf("address %s was given to endpoint %d and to %d", a, n, other.n)
			}
			given[a] = taken{fl, n}
			mu.Unlock()
		}
	})
	t.Logf("%d endpoints on %d hosts in %s", len(given), host.Size, time.Since(begin).Round(time.Millisecond))
	const hosts = 253 // of 256, without the network's, the broadcast and the gateway's
	if len(given) != hosts {
		t.Errorf("%d addresses were given out, want %d", len(given), hosts)
	}
	for _, a := range []string{"10.110.1.0", "10.110.1.1", "10.110.1.255"} {
		if _, wrong := given[netip.MustParseAddr(a)]; wrong {
			t.Errorf("address %s was given out", a)
		}
	}
	if vs := f.Host(2).Get("vports", "--enterprise", d.Enterprise); len(vs) != len(given) {
		t.Errorf("%d vports for %d endpoints", len(vs), len(given))
	}

	var order []netip.Addr
	for a := range given {
		order = append(order, a)
	}
	each(order, 8, func(a netip.Addr) {
		if err := given[a].by.remove(given[a].n, a); err != nil {
			t.Error(err)
		}
	})
	f.Host(1).Eventually(10*time.Second, "no vport is left", func() error {
		if vs := f.Host(1).Get("vports", "--enterprise", d.Enterprise); len(vs) > 0 {
			return errorf("%d vports", len(vs))
		}
		return nil
	})
	// A released address rests, but not from who asks for it by name: from another host than before.
	each(order, 8, func(a netip.Addr) {
		by := fillers[0]
		if given[a].by == by {
			by = fillers[1]
		}
		if _, err := by.request(a.String(), given[a].n); err != nil {
			t.Errorf("leaked: %s: %v", a, err)
		}
		if err := by.release(a); err != nil {
			t.Error(err)
		}
	})
}

// atOnce runs do several times for each filler at once.
func atOnce(fillers []*filler, times int, do func(*filler)) {
	var all sync.WaitGroup
	for _, f := range fillers {
		for range times {
			all.Go(func() { do(f) })
		}
	}
	all.Wait()
}

// each runs do for all, some at a time.
func each(all []netip.Addr, some int, do func(netip.Addr)) {
	work := make(chan netip.Addr)
	var workers sync.WaitGroup
	for range some {
		workers.Go(func() {
			for a := range work {
				do(a)
			}
		})
	}
	for _, a := range all {
		work <- a
	}
	close(work)
	workers.Wait()
}
