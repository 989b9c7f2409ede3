package multi

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"nuage/test/host"
)

// Policies hold between hosts as they do within one: connections and their replies, the
// members of a group wherever they are, counters that count a packet once, and a change
// for connections that are open.
func TestPolicyAcrossHosts(t *testing.T) {
	t.Parallel()
	f := host.SharedFleet(t)
	one, two := f.Host(1), f.Host(2)
	d := one.Domain("App1", "front=10.110.1.0/24", "back=10.110.2.0/24")
	client := one.Prober("client", "--network", d.Network("front"))
	server := two.Prober("server", "--network", d.On(two).Network("back"))
	other := two.Prober("other", "--network", two.Network("App1-front", d.On(two).IPAM("front")...))
	policy := func(entries string) {
		t.Helper()
		file := fmt.Sprintf("enterprise: %s\ndomains:\n- name: App1\n  policyGroups: [clients]\n  policies:\n  - {name: p, direction: egress, priority: 1, entries: [%s]}\n", d.Enterprise, entries)
		if out, err := one.TryWith(file, nil, "nuagectl", "apply", "-f", "-"); err != nil {
			t.Fatalf("%v\n%s\n%s", err, out, file)
		}
		one.Programmed()
		two.Programmed()
	}
	const allow = `{priority: 10, action: FORWARD, protocol: udp, destinationPort: "80", from: {policyGroup: clients}, to: {subnet: back}, statsLogging: true},
		{priority: 20, action: FORWARD, protocol: tcp, destinationPort: "80", from: {policyGroup: clients}, to: {subnet: back}}`
	policy(allow)
	one.Nuagectl("set", "vports", client.Name, "policyGroups=clients")
	one.Programmed()
	two.Programmed()
	for _, c := range []struct {
		from         *host.Prober
		protocol, to string
		port         int
		want         string
	}{
		{client, "tcp", server.IP, 80, "open"}, {client, "udp", server.IP, 80, "open"}, {client, "tcp", server.IP, 81, "silent"},
		{other, "tcp", server.IP, 80, "silent"}, {server, "tcp", client.IP, 80, "silent"}, {client, "tcp", other.IP, 80, "silent"},
	} {
		got, err := c.from.Ask(time.Second, host.Question{Protocol: c.protocol, Address: fmt.Sprintf("%s:%d", c.to, c.port)})
		if err != nil || got[0] != c.want {
			t.Errorf("%s asks %s %s:%d: %v %v, want %s", c.from.Name, c.protocol, c.to, c.port, got, err, c.want)
		}
	}
	// Two packets passed, one in either direction, over two hosts: two are counted.
	one.Eventually(30*time.Second, "the counter", func() error {
		out := one.Nuagectl("get", "policies", "-o", "wide")
		for line := range strings.SplitSeq(out, "\n") {
			if strings.Contains(line, "udp") && strings.Contains(line, "clients") && strings.Contains(" "+strings.Join(strings.Fields(line), " ")+" ", " 2 ") {
				return nil
			}
		}
		return errorf("not 2 packets for udp:\n%s", out)
	})

	talk, err := client.Talk(server.IP + ":80")
	if err != nil {
		t.Fatal(err)
	}
	policy(`{priority: 5, action: DROP, protocol: tcp, from: any, to: any}, ` + allow)
	one.Eventually(10*time.Second, "the connection is cut", func() error {
		if s, err := talk.State(); err != nil || s.Error != "" || s.Quiet < time.Second {
			return errorf("%+v %v", s, err)
		}
		return nil
	})
	policy(allow)
	one.Eventually(20*time.Second, "the connection goes on", func() error {
		if s, err := talk.State(); err != nil || s.Error != "" || s.Quiet > 200*time.Millisecond {
			return errorf("%+v %v", s, err)
		}
		return nil
	})
	// Fragments of a datagram, whose later ones show no port.
	if out := one.Exec(client.Name, "app", "udp", "-size", "4000", server.IP+":80"); !strings.HasPrefix(out, "4000 bytes") {
		t.Errorf("fragments: %s", out)
	}
}
