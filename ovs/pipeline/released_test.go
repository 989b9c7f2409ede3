package pipeline

import (
	"fmt"
	"strings"
	"testing"

	"nuage/controller/tenant"
	"nuage/ovs/flow"
	"nuage/ovs/ovstest"
)

// Who passes the released table: all that is remembered, and what nobody asked to remember.
// That what is refused does not, packets alone can show: see the agent's tests.
func TestReleased(t *testing.T) {
	w := newWorld()
	w.domain("d", 7)
	w.subnet("s", "d", "10.0.1.0/24", 100)
	from, to := w.vport("one", "s", "10.0.1.11", 1), w.vport("two", "s", "10.0.1.12", 2)
	w.policy("in", "d", tenant.Ingress, 10).DefaultAllowIP = true
	w.entry("in", 10, tenant.Forward, tenant.Entry{Protocol: tenant.UDP, DestinationPort: tenant.PortRange{From: 9100, To: 9100}})
	l := newLab(t)
	l.load(t, w)
	for name, c := range map[string]struct {
		port        int
		frag, state string
		commits     bool
		passes      flow.Table // the one behind which there is no other ct
	}{
		"stateful":                         {9000, "no", "trk,new", true, TableReleased},
		"stateful, first fragment":         {9000, "first", "trk,new", true, TableReleased},
		"later fragment":                   {9000, "later", "trk,new", true, TableReleased},
		"stateless":                        {9100, "no", "trk,new", false, TableLimiter},
		"stateless, first fragment":        {9100, "first", "trk,new", false, TableReleased},
		"established, first fragment":      {9000, "first", "trk,est", false, TableReleased},
		"established, later fragment":      {9000, "later", "trk,est", false, TableReleased},
		"error about a new one, fragments": {9000, "first", "trk,new,rel", false, TableReleased},
		"error about a new one":            {9000, "no", "trk,new,rel", false, TableLimiter},
	} {
		ports := fmt.Sprintf(",udp_src=5000,udp_dst=%d", c.port)
		if c.frag == "later" {
			ports = ""
		}
		packet, args := ovstest.Tracked{Src: from.IPv4, Dst: to.IPv4, Proto: 17, SrcPort: 5000, DstPort: uint16(c.port), States: []string{c.state, c.state}}.
			Args(fmt.Sprintf("in_port=1,dl_src=%v,dl_dst=%v,udp,nw_src=%v,nw_dst=%v,nw_ttl=64,nw_frag=%s%s", from.MAC, to.MAC, from.IPv4, to.IPv4, c.frag, ports))
		got, err := l.trace(thisHost, packet, args...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		released := strings.Contains(got.text, fmt.Sprintf("\n%d. ", TableReleased))
		if got.outcome.Decision != tenant.Delivered || got.port != 2 || released != (c.passes == TableReleased) ||
			strings.Contains(got.text, "ct(commit,") != c.commits {
			t.Errorf("%s: %+v, released %v:\n%s", name, got.outcome, released, got.text)
		}
	}
}
