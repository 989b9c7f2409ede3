package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"

	"nuage/test/host"
)

var after = regexp.MustCompile(`can use its network.*? after=[\\"]*([0-9.]+(?:µs|us|ms|s))`)

// monitored times how long after Docker's start event a container without a Docker network
// can use its tenant's: address, route and flows are there. The plugin's log says so.
func monitored(h *host.Host, n int, d *host.Domain, out *tabwriter.Writer) {
	flags := []string{"--net=none", "-e", "NUAGE-ENTERPRISE=" + d.Enterprise, "-e", "NUAGE-DOMAIN=" + d.Name, "-e", "NUAGE-ZONE=Zone", "-e", "NUAGE-NETWORK=front"}
	for i := range n {
		c := h.Container(fmt.Sprint("monitored", i), flags...)
		h.Eventually(10*time.Second, c+" is attached", func() error {
			if out, err := h.TryDocker("exec", c, "app", "addr"); err != nil || !strings.Contains(out, "default via") {
				return fmt.Errorf("%v: %s", err, out)
			}
			return nil
		})
	}
	f, err := os.Open(filepath.Join(h.Dir(), "log/dockerd.log"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer f.Close()
	var times []time.Duration
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if m := after.FindStringSubmatch(s.Text()); m != nil {
			if t, err := time.ParseDuration(m[1]); err == nil {
				times = append(times, t)
			}
		}
	}
	line(out, "--net=none: from the start event to the network", times, "<= 100ms")
}
