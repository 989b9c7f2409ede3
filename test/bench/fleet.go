package main

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"nuage/controller/tenant"
	"nuage/test/host"
)

// sizes are how many vports the domain has, on hosts that are not there, when each round
// of the convergence figures is taken.
var sizes = []int{10, 1000, 10000}

// convergence measures, on a fleet, how long a change on one host takes to work on another.
func convergence(c *console, n int, out *tabwriter.Writer) {
	f := host.StartFleet(c)
	head(out)
	one, two := f.Host(1), f.Host(2)
	one.Configure("NUAGE_LOG_LEVEL=debug")
	one.StoreReady()
	d := one.Domain("App1", "front=10.20.0.0/16", "back=10.21.0.0/16")
	front := d.Network("front", "--subnet", "10.20.0.0/16")
	near := two.Container("near", "--network", d.On(two).Network("front"))
	// From another subnet: the asker needs no answer to ARP but the gateway's.
	far := two.Container("far", "--network", d.On(two).Network("back"))
	local := one.Container("local", "--network", d.Network("back"))
	away := one.Elsewhere("10.200.0.99")
	subnet := away.Subnets(d.Enterprise)[[2]string{"App1", "front"}]
	next := netip.MustParseAddr("10.20.64.1")
	have := 0
	for _, size := range sizes {
		begin := time.Now()
		addresses := make([]netip.Addr, 0, size-have)
		for ; have < size; have++ {
			addresses = append(addresses, next)
			next = next.Next()
		}
		fill(away, subnet, addresses)
		fmt.Fprintf(os.Stderr, "bench: %d vports after %s\n", size, time.Since(begin).Round(time.Millisecond))
		settle(two)
		state, write := changes(away, subnet, two, near, &next, n)
		have += n
		line(out, fmt.Sprintf("%d vports: the write of a vport", size), write, "")
		line(out, fmt.Sprintf("%d vports: write begun to answered on another host", size), state, "<= 100ms")
		there, here := joins(one, local, two, far, front, n)
		line(out, fmt.Sprintf("%d vports: Join's return to first ping from another host", size), there, "")
		line(out, fmt.Sprintf("%d vports: Join's return to first ping from the same host", size), here, "")
	}
}

// settle waits until the host's switch has what its store shows.
func settle(h *host.Host) {
	h.Eventually(time.Minute, "the switch is at the store's revision", func() error {
		st, err := h.Status()
		if err == nil && st.Agent.Revision < st.Store.Revision {
			err = fmt.Errorf("programmed %d of %d", st.Agent.Revision, st.Store.Revision)
		}
		return err
	})
}

func fill(away *host.Elsewhere, s tenant.Subnet, addresses []netip.Addr) {
	work := make(chan netip.Addr)
	var workers sync.WaitGroup
	for range 32 {
		workers.Go(func() {
			for a := range work {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				if _, err := away.Vport(ctx, s, a); err != nil {
					fmt.Fprintln(os.Stderr, "bench:", err)
				}
				cancel()
			}
		})
	}
	for _, a := range addresses {
		work <- a
	}
	close(work)
	workers.Wait()
}

// awaits asks for an address inside a container's network until it is answered, and
// returns when that was.
func awaits(h *host.Host, container string, args ...string) func() time.Time {
	pid := strconv.Itoa(h.Inspect(container).State.Pid)
	answered := make(chan string, 1)
	go func() {
		out, err := h.Try(append([]string{"nsenter", "-t", pid, "-n", h.Program("app"), "await"}, args...)...)
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err, out)
		}
		answered <- out
	}()
	time.Sleep(200 * time.Millisecond) // it asks by now
	return func() time.Time {
		at, err := strconv.ParseInt(<-answered, 10, 64)
		if err != nil {
			return time.Time{}
		}
		return time.Unix(0, at)
	}
}

// changes binds vports elsewhere and watches the ARP responder of a host.
func changes(away *host.Elsewhere, s tenant.Subnet, h *host.Host, container string, next *netip.Addr, n int) (state, write []time.Duration) {
	for range n {
		answered := awaits(h, container, "-arp", next.String())
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		begin := time.Now()
		_, err := away.Vport(ctx, s, *next)
		done := time.Now()
		cancel()
		*next = next.Next()
		at := answered()
		if err != nil || at.IsZero() {
			fmt.Fprintln(os.Stderr, "bench: a change was not seen:", err)
			continue
		}
		state, write = append(state, at.Sub(begin)), append(write, done.Sub(begin))
	}
	return state, write
}

// joins starts containers on one host and pings them from a container of another and, for
// comparison, from one of the same host. Join's return is when the plugin says so, in dockerd's
// log; the container's interface is dockerd's work of after that.
func joins(one *host.Host, local string, two *host.Host, far, network string, n int) (there, here []time.Duration) {
	for range n {
		joined++
		address := fmt.Sprintf("10.20.1.%d", joined)
		fromFar, fromLocal := awaits(two, far, address), awaits(one, local, address)
		name := one.Name("join")
		one.Docker("run", "-d", "--rm", "--name", name, "--network", network, "--ip", address, host.Image, "app", "hold")
		atFar, atLocal, at := fromFar(), fromLocal(), lastJoin(one)
		one.Docker("rm", "-f", name)
		if atFar.IsZero() || atLocal.IsZero() || at.IsZero() {
			fmt.Fprintln(os.Stderr, "bench: a join was not seen")
			continue
		}
		there, here = append(there, atFar.Sub(at)), append(here, atLocal.Sub(at))
	}
	return there, here
}

// joined is the last address that joins has used.
var joined int

func lastJoin(h *host.Host) (at time.Time) {
	f, err := os.Open(filepath.Join(h.Dir(), "log/dockerd.log"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return at
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if !strings.Contains(s.Text(), "verb=NetworkDriver.Join") {
			continue
		}
		_, line, _ := strings.Cut(s.Text(), `msg="time=\"`) // dockerd's own stamp of it has seconds only
		stamp, _, _ := strings.Cut(line, `\"`)
		if t, err := time.Parse("2006-01-02T15:04:05.000Z07:00", stamp); err == nil {
			at = t
		}
	}
	return at
}
