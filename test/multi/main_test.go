// Package multi holds the user-level tests of a fleet: three private hosts on one underlay,
// the first of which serves the others its store. The tests that cut cables, kill hosts or
// change settings run first and one at a time; the others share the fleet after them.
package multi

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"nuage/ovs/pipeline"
	"nuage/test/host"
)

func TestMain(m *testing.M) { host.Main(m) }

func errorf(format string, args ...any) error { return fmt.Errorf(format, args...) }

// spread is a container on each host of a fleet, all in one subnet of a domain, by the
// number of the host.
type spread struct {
	f          *host.Fleet
	d          *host.Domain
	network    map[int]string
	containers map[int]string
	ip         map[int]string
}

// newSpread makes a domain with the subnets NAME=CIDR, on each host a network on the first,
// and a container in that, with the flags.
func newSpread(f *host.Fleet, name string, subnets []string, flags ...string) *spread {
	s := &spread{f: f, d: f.Host(1).Domain(name, subnets...), network: map[int]string{}, containers: map[int]string{}, ip: map[int]string{}}
	subnet, cidr, _ := strings.Cut(subnets[0], "=")
	for n := 1; n <= host.Size; n++ {
		h := f.Host(n)
		s.network[n] = s.d.On(h).Network(subnet, "--subnet", cidr)
		s.containers[n] = h.Container(fmt.Sprintf("%s-%d", name, n), append([]string{"--network", s.network[n]}, flags...)...)
		s.ip[n] = h.IP(s.containers[n])
	}
	return s
}

// reach fails the test unless all that are given, by their hosts, reach each other.
func (s *spread) reach(numbers ...int) {
	for _, from := range numbers {
		for _, to := range numbers {
			if from != to {
				s.f.Host(from).Reaches(s.containers[from], s.ip[to], 64)
			}
		}
	}
}

// dropped is the counter of one reason to drop, over all objects that it is counted by.
func dropped(t *testing.T, h *host.Host, d pipeline.Drop) int {
	t.Helper()
	total := 0
	out := h.OVS("ofctl", "-OOpenFlow15", "dump-flows", "alubr0", "table="+strconv.Itoa(int(d.Table)))
	for line := range strings.SplitSeq(out, "\n") {
		if !regexp.MustCompile(fmt.Sprintf(`priority=%d[ ,]`, d.Priority)).MatchString(line) {
			continue
		}
		n, err := strconv.Atoi(regexp.MustCompile(`n_packets=(\d+)`).FindStringSubmatch(line)[1])
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	return total
}

// flows is how many flows the host's bridge has.
func flows(h *host.Host) int {
	return strings.Count(h.OVS("ofctl", "-OOpenFlow15", "--no-stats", "dump-flows", "alubr0"), "table=")
}

// in are the objects whose field key is value.
func in(objects []map[string]any, key, value string) []map[string]any {
	var found []map[string]any
	for _, o := range objects {
		if fmt.Sprint(o[key]) == value {
			found = append(found, o)
		}
	}
	return found
}

// hostState is what host number by says of host number of: alive, not alive, unknown, or
// gone.
func hostState(f *host.Fleet, by, of int) string {
	if found := in(f.Host(by).Get("hosts"), "name", f.Host(of).HostName()); len(found) == 1 {
		return fmt.Sprint(found[0]["state"])
	}
	return "gone"
}

// alive is nil if host 1 says so of host number of.
func alive(f *host.Fleet, of int) error {
	if state := hostState(f, 1, of); state != "alive" {
		return errorf("host %d is %s", of, state)
	}
	return nil
}
