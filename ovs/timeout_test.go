package ovs

import (
	"fmt"
	"strings"
	"testing"

	"nuage/ovs/ovstest"
)

// A TCP connection that both sides have closed is forgotten early in the zones that were
// named and in no other, also when ovs-vswitchd has restarted, or another process goes on,
// or somebody has taken the rows away. What others have configured stays.
func TestForgetClosed(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o)
	attach(t, b, "p1")
	from := 1000
	// forgets waits until a connection that is opened and reset in each zone is forgotten
	// after so many seconds.
	forgets := func(want map[int]int) {
		t.Helper()
		soon(t, fmt.Sprintf("seconds by zone: %v", want), func() bool {
			for zone, seconds := range want {
				o.Ofctl("add-flow", "alubr0", fmt.Sprintf("tcp,tp_dst=%d,actions=ct(commit,zone=%d)", zone, zone))
				o.Ofctl("add-flow", "alubr0", fmt.Sprintf("tcp,tp_src=%d,actions=ct(zone=%d)", zone, zone))
				from++
				for _, packet := range []string{
					fmt.Sprintf("ipv4(src=10.0.0.1,dst=10.0.0.2,proto=6,tos=0,ttl=64,frag=no),tcp(src=%d,dst=%d),tcp_flags(syn)", from, zone),
					fmt.Sprintf("ipv4(src=10.0.0.2,dst=10.0.0.1,proto=6,tos=0,ttl=64,frag=no),tcp(src=%d,dst=%d),tcp_flags(rst)", zone, from),
				} {
					o.Appctl("netdev-dummy/receive", "p1", "eth(src=50:54:00:00:00:09,dst=50:54:00:00:00:0a),eth_type(0x0800),"+packet)
				}
				got := -1
				for line := range strings.Lines(o.Appctl("dpctl/dump-conntrack", "-s", fmt.Sprintf("zone=%d", zone))) {
					if strings.Contains(line, fmt.Sprintf("sport=%d,", from)) {
						_, rest, _ := strings.Cut(line, "timeout=")
						fmt.Sscanf(rest, "%d", &got)
					}
				}
				if got != seconds && got != seconds-1 {
					return false
				}
			}
			return true
		})
	}
	forgets(map[int]int{5: 30})
	b.ForgetClosed([]uint16{5, 6})
	b.ForgetClosed([]uint16{5, 6})
	forgets(map[int]int{5: closedTime, 6: closedTime, 7: 30})
	b.ForgetClosed([]uint16{5, 7})
	forgets(map[int]int{5: closedTime, 6: 30, 7: closedTime})
	o.KillVswitchd()
	o.StartVswitchd()
	attach(t, b, "p1")
	forgets(map[int]int{5: closedTime, 6: 30, 7: closedTime})

	o.Vsctl("del-zone-tp", "netdev", "zone=5")
	o.Vsctl("add-zone-tp", "netdev", "zone=8", "tcp_close=3")
	b.ForgetClosed([]uint16{5, 7, 8})
	forgets(map[int]int{5: closedTime, 7: closedTime})

	next := start(t, o) // of another process: what was there before is not lost to it
	next.ForgetClosed([]uint16{5})
	b.ForgetClosed([]uint16{5})
	forgets(map[int]int{5: closedTime, 7: 30})
	b.ForgetClosed(nil)
	next.ForgetClosed(nil)
	forgets(map[int]int{5: 30})
	if out := o.Vsctl("list-zone-tp", "netdev"); out != "Zone:8, Timeout Policies: tcp_close=3" {
		t.Errorf("left is %q", out)
	}
}
