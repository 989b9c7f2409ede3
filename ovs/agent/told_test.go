package agent

import "testing"

func TestOnlyTold(t *testing.T) {
	const told = "sample(sample=100.0%,actions(meter(1),userspace(pid=0,controller(reason=1,max_len=82))))"
	for actions, want := range map[string]bool{
		told:              true,
		told + "," + told: true, // logged, and refused
		"set(eth(src=0a:6e:75:61:67:65,dst=02:42:5e:a5:2f:b0)),set(ipv4(ttl=63))," + told + "," + told: true, // routed before, and not tracked
		"userspace(pid=0,controller(reason=1,max_len=82))":                                             true,
		"set(ipv4(ttl=63))," + told + ",3":                                                             false,
		"set(ipv4(ttl=63)),3":                                                                          false,
		"userspace(pid=0,sFlow(1))":                                                                    false,
	} {
		if onlyTold(actions) != want {
			t.Errorf("%s: %v", actions, !want)
		}
	}
}
