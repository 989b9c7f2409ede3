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
func TestZones(t *testing.T) {
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
	b.UseZones(zones(5, 6))
	b.UseZones(zones(5, 6))
	forgets(map[int]int{5: closedTime, 6: closedTime, 7: 30})
	b.UseZones(zones(5, 7))
	forgets(map[int]int{5: closedTime, 6: 30, 7: closedTime})
	o.KillVswitchd()
	o.StartVswitchd()
	attach(t, b, "p1")
	forgets(map[int]int{5: closedTime, 6: 30, 7: closedTime})

	o.Vsctl("del-zone-tp", "netdev", "zone=5")
	o.Vsctl("add-zone-tp", "netdev", "zone=8", "tcp_close=3")
	b.UseZones(zones(5, 7, 8))
	forgets(map[int]int{5: closedTime, 7: closedTime})

	next := start(t, o) // of another process: what was there before is not lost to it
	next.UseZones(zones(5))
	b.UseZones(zones(5))
	forgets(map[int]int{5: closedTime, 7: 30})
	b.UseZones(zones())
	next.UseZones(zones())
	forgets(map[int]int{5: 30})
	if out := o.Vsctl("list-zone-tp", "netdev"); out != "Zone:8, Timeout Policies: tcp_close=3" {
		t.Errorf("left is %q", out)
	}
}

func zones(all ...uint16) map[uint16]string {
	owners := map[uint16]string{}
	for _, zone := range all {
		owners[zone] = "app1"
	}
	return owners
}

// The connections of a zone that nobody has any more, or somebody else, are forgotten, also
// when that was so while no process was there; those of other zones are not.
func TestZoneOfAnother(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o)
	attach(t, b, "p1")
	remembers := func(want string) {
		t.Helper()
		soon(t, want, func() bool {
			var got []string
			for zone := 5; zone <= 8; zone++ {
				if strings.Contains(o.Appctl("dpctl/dump-conntrack", fmt.Sprintf("zone=%d", zone)), "udp") {
					got = append(got, fmt.Sprint(zone))
				}
			}
			return strings.Join(got, " ") == want
		})
	}
	settled := func() {
		t.Helper()
		soon(t, "the database", func() bool { return strings.Count(o.Vsctl("list-zone-tp", "netdev"), "tcp_close") == 3 })
	}
	for zone := 5; zone <= 8; zone++ {
		o.Ofctl("add-flow", "alubr0", fmt.Sprintf("udp,tp_dst=%d,actions=ct(commit,zone=%d)", zone, zone))
	}
	send := func() {
		for zone := 5; zone <= 8; zone++ {
			o.Appctl("netdev-dummy/receive", "p1", fmt.Sprintf("eth(src=50:54:00:00:00:09,dst=50:54:00:00:00:0a),eth_type(0x0800),"+
				"ipv4(src=10.0.0.1,dst=10.0.0.2,proto=17,tos=0,ttl=64,frag=no),udp(src=1,dst=%d)", zone))
		}
	}
	b.UseZones(map[uint16]string{5: "app1", 6: "app1", 7: "app1"})
	settled()
	send()
	remembers("5 6 7 8")
	b.UseZones(map[uint16]string{5: "app1", 6: "app2", 7: "app1"})
	remembers("5 7 8")
	settled()
	b.UseZones(map[uint16]string{5: "app1", 6: "app2"})
	remembers("5 8")
	start(t, o).UseZones(map[uint16]string{6: "app2"})
	remembers("8")
}
