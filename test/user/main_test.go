// Package user holds the user-level tests of one host: each does what a user would do, by
// the user's commands, on a private host with a real Docker and a real Open vSwitch.
package user

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"nuage/test/host"
)

func TestMain(m *testing.M) { host.Main(m) }

// reaches fails the test unless container gets an answer to every ping, with this ttl.
func reaches(t *testing.T, h *host.Host, container, address string, ttl int) {
	t.Helper()
	out, err := h.TryDocker("exec", container, "app", "ping", "-c", "2", "-i", "50ms", address)
	if err != nil {
		t.Errorf("%s does not reach %s: %v\n%s", container, address, err, out)
	} else if want := fmt.Sprintf(" ttl=%d ", ttl); strings.Count(out, want) != 2 {
		t.Errorf("%s pings %s, want two answers with%s:\n%s", container, address, want, out)
	}
}

// reachesNot fails the test if one single ping is answered.
func reachesNot(t *testing.T, h *host.Host, container, address string) {
	t.Helper()
	out, err := h.TryDocker("exec", container, "app", "ping", "-c", "3", "-i", "50ms", "-W", "400ms", address)
	if err == nil || !strings.Contains(out, "received=0") {
		t.Errorf("%s must not reach %s: %v\n%s", container, address, err, out)
	}
}

// serves fails the test unless client gets server's page at address and is seen with its
// own address: nothing on the way translates.
func serves(t *testing.T, h *host.Host, client, clientIP, server, address string) {
	t.Helper()
	out, err := h.TryDocker("exec", client, "app", "get", "http://"+address+"/")
	if want := server + " sees " + clientIP; err != nil || out != want {
		t.Errorf("%s gets http://%s/: %v\n%s\nwant: %s", client, address, err, out, want)
	}
}

// ports are the container ports on the bridge, sorted.
func ports(h *host.Host) []string {
	var names []string
	for _, n := range strings.Fields(h.OVS("vsctl", "list-ports", "alubr0")) {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// flows is the bridge's table as ovs-ofctl prints it, without counters, sorted.
func flows(h *host.Host) []string {
	lines := strings.Split(h.OVS("ofctl", "-OOpenFlow15", "--no-stats", "dump-flows", "alubr0"), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	slices.Sort(lines)
	return lines
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
