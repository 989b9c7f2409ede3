// The bench command measures, on private hosts, beside Docker's own bridges in the same
// interleaved run, what attaching a container costs (section attach) and what containers get
// through to each other (traffic), and how long a change on one host of a fleet takes to work
// on another (convergence), and prints tables. Its arguments are the sections, by default
// all. NUAGE_BENCH_N is the number of runs of each kind (default 15; of traffic a fifth of it).
// It never judges: budgets stand beside the figures.
package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"nuage/test/host"
)

func main() {
	n, err := strconv.Atoi(os.Getenv("NUAGE_BENCH_N"))
	if os.Getenv("NUAGE_BENCH_N") == "" {
		n, err = 15, nil
	}
	if err != nil || n < 1 {
		fmt.Fprintln(os.Stderr, "bench: NUAGE_BENCH_N must be a number from 1")
		os.Exit(2)
	}
	names := os.Args[1:]
	if len(names) == 0 {
		names = []string{"attach", "traffic", "convergence"}
	}
	for _, name := range names {
		if sections[name] == nil {
			fmt.Fprintf(os.Stderr, "bench: no section %q: want attach, traffic or convergence\n", name)
			os.Exit(2)
		}
	}
	c := &console{}
	defer c.end()
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "figures of %s, %d CPUs, load before: %s\n", time.Now().UTC().Format(time.DateTime), runtime.NumCPU(), load())
	for _, name := range names {
		sections[name](c, n, out)
		c.end()
	}
	out.Flush()
}

// sections are what can be measured by itself, each on hosts of its own.
var sections = map[string]func(c *console, n int, out *tabwriter.Writer){
	"attach":      attach,
	"traffic":     traffic,
	"convergence": convergence,
}

// load is what else the machine has to do: its mean load of the last minute.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err.Error()
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}

// attach measures what a container's way into a network costs, and what it adds to the switch.
func attach(c *console, n int, out *tabwriter.Writer) {
	head(out)
	h := host.Ready(c)
	h.Configure("NUAGE_LOG_LEVEL=debug")
	h.StoreReady()
	d := h.Domain("App1", "front=10.10.0.0/16")
	network := d.Network("front")
	runs(h, n, network, out)
	verbs(h, out)
	monitored(h, n, d, out)
	perVport(h, network, out)
}

// runs times docker run --rm on each kind of network, interleaved, so that what the
// machine does meanwhile hits all of them. A user-defined bridge is the fair comparison:
// it has Docker's resolver for names, as ours has, and the default bridge has not.
func runs(h *host.Host, n int, network string, out *tabwriter.Writer) {
	own := h.Name("bridge")
	h.Docker("network", "create", own)
	defer h.Docker("network", "rm", own)
	kinds := []string{"none", "bridge", own, network}
	called := map[string]string{own: "user-defined bridge", network: "nuage", "bridge": "default bridge", "none": "none"}
	times := map[string][]time.Duration{}
	for i := range n + 1 {
		for _, k := range kinds {
			begin := time.Now()
			h.Docker("run", "--rm", "--network", k, host.Image, "app", "addr")
			if i > 0 { // the first round fills caches
				times[k] = append(times[k], time.Since(begin))
			}
		}
	}
	for _, k := range kinds {
		line(out, "docker run --rm, "+called[k], times[k], "")
	}
	for _, k := range kinds[1:] {
		budget := map[bool]string{true: "<= user-defined bridge"}[k == network]
		fmt.Fprintf(out, "  %s over none\t%s\t\t\t\t%s\n", called[k], round(median(times[k])-median(times["none"])), budget)
	}
}

var took = regexp.MustCompile(`verb=(\S+?)["\s\\]|took=[\\"]*([0-9.]+(?:ns|µs|us|ms|s))`)

// verbs reads the plugin's own times of the runs above from its log.
func verbs(h *host.Host, out *tabwriter.Writer) {
	f, err := os.Open(filepath.Join(h.Dir(), "log/dockerd.log"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer f.Close()
	times := map[string][]time.Duration{}
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var verb, d string
		for _, m := range took.FindAllStringSubmatch(s.Text(), -1) {
			verb, d = verb+m[1], d+m[2]
		}
		if t, err := time.ParseDuration(d); err == nil && verb != "" {
			times[verb] = append(times[verb], t)
		}
	}
	attach := []string{"IpamDriver.RequestAddress", "NetworkDriver.CreateEndpoint", "NetworkDriver.Join",
		"NetworkDriver.ProgramExternalConnectivity", "NetworkDriver.EndpointOperInfo", "NetworkDriver.EndpointOperInfo"}
	detach := []string{"NetworkDriver.RevokeExternalConnectivity", "NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint", "IpamDriver.ReleaseAddress"}
	for i, group := range [][]string{attach, detach} {
		var sum time.Duration
		for j, v := range group {
			if len(times[v]) == 0 {
				fmt.Fprintf(out, "%s\tnot seen\t\t\t\t\n", v)
				continue
			}
			sum += median(times[v])
			if slices.Index(group, v) == j {
				line(out, v, times[v], "")
			}
		}
		fmt.Fprintf(out, "  all verbs of %s\t%s\t\t\t\t%s\n", []string{"an attach", "a detach"}[i], round(sum), []string{"<= 12ms", "<= 5ms"}[i])
	}
}

// perVport counts the flows that each further container of a subnet brings.
func perVport(h *host.Host, network string, out *tabwriter.Writer) {
	count := func() int {
		return len(strings.Split(h.OVS("ofctl", "-OOpenFlow15", "--no-stats", "dump-flows", "alubr0"), "\n"))
	}
	h.Container("first", "--network", network)
	before := count()
	const more = 4
	for i := range more {
		h.Container(fmt.Sprint("more", i), "--network", network)
	}
	fmt.Fprintf(out, "flows per vport\t%.1f\t\t\t%d\t\n", float64(count()-before)/more, more)
	fmt.Fprintf(out, "flows of the bridge with the first\t%d\t\t\t\t\n", before)
}

func head(out *tabwriter.Writer) { fmt.Fprintln(out, "figure\tmedian\tmin\tmax\tn\tbudget") }

func line(out *tabwriter.Writer, what string, d []time.Duration, budget string) {
	if len(d) == 0 {
		fmt.Fprintf(out, "%s\tnot seen\t\t\t\t%s\n", what, budget)
		return
	}
	fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%d\t%s\n", what, round(median(d)), round(slices.Min(d)), round(slices.Max(d)), len(d), budget)
}

func median(d []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(d))
	if m := len(s) / 2; len(s)%2 == 1 {
		return s[m]
	} else {
		return (s[m-1] + s[m]) / 2
	}
}

func round(d time.Duration) time.Duration {
	if d < 10*time.Millisecond && d > -10*time.Millisecond {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}
