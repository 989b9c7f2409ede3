// Package user holds the user-level tests of one host: each does what a user would do, by
// the user's commands, on a private host with a real Docker and a real Open vSwitch.
package user

import (
	"slices"
	"strings"
	"testing"

	"nuage/test/host"
)

func TestMain(m *testing.M) { host.Main(m) }

// ports are the container ports on the bridge, sorted.
func ports(h *host.Host) []string {
	names := strings.Fields(h.OVS("vsctl", "list-ports", "alubr0"))
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
