package user

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"nuage/test/host"
)

// reaches checks one cell: what a prober is told of an address.
func reaches(t *testing.T, from *host.Prober, protocol, address, want string) {
	t.Helper()
	timeout := 400 * time.Millisecond
	if want != "silent" {
		timeout = 5 * time.Second
	}
	got, err := from.Ask(timeout, host.Question{Protocol: protocol, Address: address})
	if err != nil {
		t.Fatal(err)
	}
	if got[0] != want {
		t.Errorf("%s asks %s %s: %s, want %s", from.Name, protocol, address, got[0], want)
	}
}

// The example, as its text says: groups by network option and by endpoint option, and what
// each may reach; the counters and the log that tell of it.
func TestThreeTier(t *testing.T) {
	t.Parallel()
	h := host.Ready(t)
	for _, want := range []string{"25 changes made", "Nothing to change"} {
		if out := h.Nuagectl("apply", "-f", "examples/three-tier.yaml"); !strings.Contains(out, want) {
			t.Errorf("apply:\n%s\nwant: %s", out, want)
		}
	}
	network := func(zone, subnet string, flags ...string) string {
		return h.Network(subnet, append([]string{"--ipam-driver", "nuage", "--ipam-opt", "enterprise=DCEnterprise",
			"--ipam-opt", "domain=Shop", "--ipam-opt", "zone=" + zone, "--ipam-opt", "subnet=" + subnet}, flags...)...)
	}
	desks, data := network("Office", "Desks"), network("Inside", "Data")
	apps := network("Inside", "Apps")
	web := h.Prober("web", "--network", network("Front", "Web", "-o", "policy-group=web"))
	app := h.Prober("app", "--network", "name="+apps+",driver-opt=policy-group=app")
	db := h.Prober("db", "--network", "name="+data+",driver-opt=policy-group=db")
	desk := h.Prober("desk", "--network", desks)

	for _, c := range []struct {
		from, to *host.Prober
		port     string
		want     string
	}{
		{desk, web, "80", "open"}, {desk, web, "8080", "silent"}, {desk, app, "8080", "silent"}, {desk, db, "5432", "refused"},
		{web, app, "8080", "open"}, {web, app, "80", "silent"}, {web, db, "5432", "refused"},
		{app, db, "5432", "open"}, {app, db, "80", "refused"}, {app, web, "80", "open"},
		{db, web, "80", "silent"}, {db, app, "8080", "silent"},
	} {
		reaches(t, c.from, "tcp", c.to.IP+":"+c.port, c.want)
	}
	reaches(t, desk, "udp", db.IP+":80", "unreachable") // administratively prohibited
	h.Reaches(desk.Name, web.IP, 63)
	h.Reaches(desk.Name, "10.86.9.1", 64) // a gateway always answers
	h.ReachesNot(web.Name, app.IP)

	// What is counted, and what is logged.
	h.Eventually(30*time.Second, "the counters", func() error {
		out := h.Nuagectl("get", "policies", "-o", "wide")
		for line := range strings.SplitSeq(out, "\n") {
			if f := strings.Fields(line); strings.Contains(line, "5432") && len(f) > 2 && !strings.HasSuffix(strings.TrimSpace(line), " 0") {
				return nil
			}
		}
		return fmt.Errorf("no packets of the entry for 5432:\n%s", out)
	})
	h.Eventually(10*time.Second, "the flow log", func() error {
		log := h.PluginLog(2000)
		for line := range strings.SplitSeq(log, "\n") {
			if strings.Contains(line, "log=flow") && strings.Contains(line, desk.IP) && strings.Contains(line, "5432") && strings.Contains(line, "tiers") {
				return nil
			}
		}
		return fmt.Errorf("no line of %s to port 5432", desk.IP)
	})

	// Why, in words; the switch agrees with the model.
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{app.Name, db.Name, "tcp/5432"}, []string{"allow", "tiers", "30"}},
		{[]string{desk.Name, db.Name, "tcp/5432"}, []string{"drop", "tiers", "90"}},
		{[]string{db.Name, web.Name, "tcp/80"}, []string{"drop", "database-is-quiet", "10"}},
	} {
		out, _ := h.Try(append([]string{"nuagectl", "explain"}, c.args...)...)
		for _, want := range c.want {
			if !strings.Contains(strings.ToLower(out), want) {
				t.Errorf("explain %v:\n%s\nwant: %s", c.args, out, want)
			}
		}
		js, _ := h.Try("sh", "-c", "nuagectl explain -o json "+strings.Join(c.args, " ")+" 2>/dev/null")
		var any map[string]any
		if err := json.Unmarshal([]byte(js), &any); err != nil {
			t.Errorf("explain -o json %v: %v\n%s", c.args, err, js)
		}
	}
}

// A change of policy or of membership counts for connections that are open, in both
// directions, and is no more than that: back as it was, they go on.
func TestPolicyChangesUnderAConnection(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.87.1.0/24", "back=10.87.2.0/24")
	client := h.Prober("client", "--network", d.Network("front"))
	server := h.Prober("server", "--network", d.Network("back"))
	policy := func(entries string) {
		t.Helper()
		file := fmt.Sprintf("enterprise: %s\ndomains:\n- name: App1\n  policyGroups: [clients]\n  policies:\n  - {name: p, direction: egress, priority: 1, entries: [%s]}\n", d.Enterprise, entries)
		if out, err := h.TryWith(file, nil, "nuagectl", "apply", "-f", "-"); err != nil {
			t.Fatalf("%v\n%s\n%s", err, out, file)
		}
		h.Programmed()
	}
	talk, err := client.Talk(server.IP + ":80") // before there is any policy
	if err != nil {
		t.Fatal(err)
	}
	state := func(what string, alive bool) {
		t.Helper()
		h.Eventually(10*time.Second, what, func() error {
			s, err := talk.State()
			switch {
			case err != nil:
				return err
			case s.Error != "":
				t.Fatalf("%s: the connection has ended: %s", what, s.Error)
			case alive != (s.Quiet < 150*time.Millisecond) || !alive && s.Quiet < time.Second:
				return fmt.Errorf("quiet for %s", s.Quiet)
			}
			return nil
		})
	}
	state("without policy", true)
	policy("") // a policy without entries denies; the group is there from now on
	state("denied by the default", false)
	const allow = `{priority: 10, action: FORWARD, protocol: tcp, destinationPort: "80", from: {policyGroup: clients}, to: {subnet: back}}`
	h.Nuagectl("set", "vports", client.Name, "policyGroups=clients")
	policy(allow)
	state("allowed by an entry", true)
	policy(`{priority: 5, action: DROP, protocol: tcp, from: any, to: any}, ` + allow)
	state("denied by an entry before it", false)
	policy(allow)
	state("allowed again", true)
	h.Nuagectl("set", "vports", client.Name, "policyGroups=")
	h.Programmed()
	state("no longer a member", false)
	h.Nuagectl("set", "vports", client.Name, "policyGroups=clients")
	h.Programmed()
	state("a member again", true)
	policy(`{priority: 10, action: REJECT, protocol: tcp, from: any, to: any}`)
	h.Eventually(10*time.Second, "the reset", func() error {
		if s, err := talk.State(); err != nil || s.Error == "" {
			return fmt.Errorf("%+v %v", s, err)
		}
		return nil
	})
	// Only the receiver's replies were allowed, never connections that it opens.
	policy(allow)
	reaches(t, client, "tcp", server.IP+":80", "open")
	reaches(t, server, "tcp", client.IP+":80", "silent")
	reaches(t, client, "udp", server.IP+":80", "silent")
}

// Every pair of an allowing and a denying entry that may meet, in both orders: the first
// one counts.
func TestConflictsInEveryOrder(t *testing.T) {
	t.Parallel()
	h := host.Shared(t)
	d := h.Domain("App1", "front=10.88.1.0/24", "back=10.88.2.0/24")
	a := h.Prober("a", "--network", d.Network("front"))
	b := h.Prober("b", "--network", d.Network("back"))
	h.TryWith(fmt.Sprintf("enterprise: %s\nnetworkMacros: [{name: all, address: 10.88.0.0/16}]\ndomains: [{name: App1, policyGroups: [ga, gb]}]\n", d.Enterprise), nil, "nuagectl", "apply", "-f", "-")
	h.Nuagectl("set", "vports", a.Name, "policyGroups=ga")
	h.Nuagectl("set", "vports", b.Name, "policyGroups=gb")
	whom := []string{
		"from: any, to: any", "from: {policyGroup: ga}, to: {policyGroup: gb}", "from: {subnet: front}, to: {subnet: back}",
		"from: {zone: Zone}, to: {zone: Zone}", "from: {cidr: " + a.IP + "/32}, to: {cidr: 10.88.2.0/24}", "from: {networkMacro: all}, to: any",
		"from: any, to: sameZone", "from: sameDomain, to: {policyGroup: gb}",
	}
	what := []string{"protocol: any", "protocol: tcp", `protocol: tcp, destinationPort: "80"`, `protocol: tcp, destinationPort: "79-81"`}
	for i, allow := range whom {
		deny, direction := whom[(i+3)%len(whom)], []string{"ingress", "egress"}[i%2]
		protocol, other := what[i%len(what)], what[(i+1)%len(what)]
		for _, allowFirst := range []bool{true, false} {
			first, second := 10, 20
			if !allowFirst {
				first, second = 20, 10
			}
			file := fmt.Sprintf("enterprise: %s\ndomains:\n- name: App1\n  policies:\n", d.Enterprise)
			for _, dir := range []string{"ingress", "egress"} {
				file += fmt.Sprintf("  - {name: %s, direction: %s, priority: 1, active: %t, entries: [{priority: %d, action: FORWARD, %s, %s}, {priority: %d, action: DROP, %s, %s}]}\n",
					dir, dir, dir == direction, first, protocol, allow, second, other, deny)
			}
			if out, err := h.TryWith(file, nil, "nuagectl", "apply", "-f", "-"); err != nil {
				t.Fatalf("%v\n%s\n%s", err, out, file)
			}
			h.Programmed()
			want := "silent"
			if allowFirst {
				want = "open"
			}
			t.Logf("%s: %s, %s before it: %s", direction, allow, deny, want)
			reaches(t, a, "tcp", b.IP+":80", want)
		}
	}
}
