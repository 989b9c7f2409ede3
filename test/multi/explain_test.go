package multi

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"nuage/test/host"
)

// explaining asks a host why, about vports that are on hosts 2 and 3.
type explaining struct {
	t          *testing.T
	on         *host.Host
	enterprise string
	from, to   string
	port       int
}

// ask is what explain says, whether it ended well, and how long that took.
func (e explaining) ask() (out string, ok bool, took time.Duration) {
	begin := time.Now()
	out, err := e.on.Try("nuagectl", "explain", e.from, e.to, fmt.Sprintf("tcp/%d", e.port), "-e", e.enterprise, "-d", "App1")
	return out, err == nil, time.Since(begin)
}

// says fails the test unless explain ends well or not, as wanted, with lines that match.
func (e explaining) says(ok bool, lines ...string) (took time.Duration) {
	e.t.Helper()
	out, did, took := e.ask()
	if err := matching(out, lines...); err != nil || did != ok {
		e.t.Errorf("explain, ended well %v: %v", did, err)
	}
	return took
}

func matching(out string, lines ...string) error {
	for _, line := range lines {
		if !regexp.MustCompile("(?m)^" + line).MatchString(out) {
			return errorf("no line %q in\n%s", line, out)
		}
	}
	return nil
}

// Explain asks the switches of hosts other than its own, and tells which of them does
// something else than the model says, or does not answer.
func TestExplainAcrossHosts(t *testing.T) {
	f := host.SharedFleet(t)
	one, two, three := f.Host(1), f.Host(2), f.Host(3)
	d := one.Domain("App1", "front=10.111.1.0/24", "back=10.111.2.0/24")
	client := two.Container("client", "--network", d.On(two).Network("front"))
	server := three.Container("server", "--network", d.On(three).Network("back"))
	file := fmt.Sprintf("enterprise: %s\ndomains:\n- name: App1\n  policies:\n  - {name: p, direction: egress, priority: 1, entries: [{priority: 10, action: FORWARD, protocol: tcp, destinationPort: 80}]}\n", d.Enterprise)
	if out, err := one.TryWith(file, nil, "nuagectl", "apply", "-f", "-"); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, file)
	}
	for _, h := range []*host.Host{one, two, three} {
		h.Programmed()
	}
	port := in(one.Get("vports", "--enterprise", d.Enterprise, "-o", "json"), "host", three.HostName())[0]["interface"]
	allowed := explaining{t, one, d.Enterprise, two.IP(client), three.IP(server), 80}
	denied := allowed
	denied.port = 81
	goes, comes := "switch +nuage-h2: agrees: sent to VTEP 10.200.0.3$", fmt.Sprintf("switch +nuage-h3: agrees: delivered to port %s$", port)
	var slowest time.Duration
	for range 5 {
		slowest = max(slowest, allowed.says(true, "verdict +ALLOW", goes, comes))
	}
	t.Logf("explain about two other hosts: at most %s", slowest.Round(time.Millisecond))
	joined := allowed
	joined.on = two // through the gate of host 1
	joined.says(true, "verdict +ALLOW", goes, comes)
	denied.says(true, "verdict +DROP", "switch +nuage-h2: agrees: dropped: policy", "switch +nuage-h3: agrees: dropped: policy")
	var x struct {
		Differs  bool
		Switches []struct {
			Host     string
			Agrees   bool
			Revision int64
			Flows    []string
		}
	}
	out := one.Nuagectl("explain", allowed.from, allowed.to, "tcp/80", "-e", d.Enterprise, "-o", "json")
	if err := json.Unmarshal([]byte(out), &x); err != nil || x.Differs || len(x.Switches) != 2 || x.Switches[1].Host != three.HostName() ||
		!x.Switches[1].Agrees || x.Switches[1].Revision == 0 || !strings.Contains(strings.Join(x.Switches[1].Flows, "\n"), "tun_src=10.200.0.2") {
		t.Errorf("%v\n%s", err, out)
	}

	// Somebody meddles with the flows of host 3, until its agent finds them.
	for _, forged := range []struct {
		match, actions string
		asks           explaining
		line           string
	}{
		{"table=86,priority=65000,ip,nw_dst=" + denied.to, "goto_table:90", denied, "delivered to port .*; the model says dropped: policy from the network to the vport$"},
		{"table=50,priority=65000,ip,nw_dst=" + allowed.to, "drop", allowed, "dropped.*; the model says delivered to port "},
	} {
		one.Eventually(10*time.Second, "the flow of another hand is told", func() error {
			three.OVS("ofctl", "-OOpenFlow15", "add-flow", "alubr0", forged.match+",actions="+forged.actions)
			out, ok, _ := forged.asks.ask()
			if ok {
				return errorf("explain ended well:\n%s", out)
			}
			return matching(out, "switch +nuage-h2: agrees: ", "switch +nuage-h3: DIFFERS: the switch says "+forged.line,
				".*THE SWITCH DOES NOT DO WHAT THE MODEL SAYS", "  nuage-h3: DIFFERS")
		})
		three.OVS("ofctl", "-OOpenFlow15", "--strict", "del-flows", "alubr0", forged.match)
	}
	allowed.says(true, goes, comes)

	pid := three.PluginPID()
	three.Run("kill", "-STOP", pid)
	defer three.Try("kill", "-CONT", pid)
	took := allowed.says(true, goes, `switch +nuage-h3: not asked: no answer within [0-9.]+s; its plugin was last heard of at 20\d\d-`)
	if took > 5*time.Second {
		t.Errorf("a host that does not answer holds explain up for %s", took)
	}
	three.Run("kill", "-CONT", pid)
	three.Docker("plugin", "disable", "-f", host.PluginName)
	defer three.StoreReady()
	defer three.Docker("plugin", "enable", host.PluginName)
	allowed.says(true, goes, `switch +nuage-h3: not asked: its plugin is not alive since 20\d\d-`)
}
