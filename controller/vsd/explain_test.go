package vsd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/sirupsen/logrus/hooks/test"

	"nuage/controller/tenant"
)

// switches are those of a fleet. Each says what it was told to, the last again and again,
// and of vports of its own host only.
type switches struct {
	t testing.TB

	mu    sync.Mutex
	says  map[string][]TraceResult
	fails map[string]error
	asked []string // "HOST: FROM to TO", in order
	meet  *sync.WaitGroup
}

func (x *switches) Trace(ctx context.Context, host string, from, to *tenant.Vport, p tenant.Packet) (TraceResult, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	far := "nobody"
	if to != nil {
		far = to.Name
	}
	x.asked = append(x.asked, fmt.Sprintf("%s: %s to %s", host, from.Name, far))
	if from.Host != host && (to == nil || to.Host != host) {
		x.t.Errorf("host %s, which has neither vport, is asked", host)
	}
	if p.Src != from.IPv4 || to != nil && p.Dst != to.IPv4 && len(to.VirtualIPs) == 0 {
		x.t.Errorf("host %s is asked of a packet from %s to %s", host, p.Src, p.Dst)
	}
	if end, ok := ctx.Deadline(); !ok || time.Until(end) > 3*time.Second {
		x.t.Errorf("host %s may take until %s", host, end)
	}
	if x.meet != nil {
		x.meet.Done()
		x.mu.Unlock()
		x.meet.Wait()
		x.mu.Lock()
	}
	if err := x.fails[host]; err != nil {
		return TraceResult{}, err
	}
	says := x.says[host]
	if len(says) == 0 {
		x.t.Errorf("host %s is asked, and was told nothing", host)
		return TraceResult{}, errors.New("told nothing")
	}
	if len(says) > 1 {
		x.says[host] = says[1:]
	}
	return says[0], nil
}

// tell lets the switch of a host say this from now on, one after the other.
func (x *switches) tell(host string, says ...TraceResult) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.says[host], x.asked = says, nil
	delete(x.fails, host)
}

// explaining is the API of a host of a fleet, where it stands does not matter.
type explaining struct {
	*bench
	*switches
}

func newExplaining(t *testing.T) explaining {
	b := newBench(t)
	b.apply(200, "", guarded)
	for i, host := range []string{"h1", "h2", "h3"} {
		h := tenant.Host{Meta: tenant.Meta{ID: host}, Name: host, VTEP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}
		if err := b.store.PutHost(t.Context(), h); err != nil {
			t.Fatal(err)
		}
	}
	log, _ := test.NewNullLogger()
	sw := &switches{t: t, says: map[string][]TraceResult{}, fails: map[string]error{}}
	srv := httptest.NewServer(New(Config{Store: b.store, Status: func() Status { return Status{Host: "h1"} }, Tracer: sw, Version: "1", Log: log}))
	t.Cleanup(srv.Close)
	far := *b
	far.url = srv.URL
	return explaining{&far, sw}
}

func (e explaining) on(host, subnet, name, ip, iface string) tenant.Vport {
	e.bench.t.Helper()
	v, err := e.store.BindVport(e.bench.t.Context(), tenant.Vport{Meta: tenant.Meta{ID: uuid.NewString()}, SubnetID: e.find("subnets", subnet), Name: name,
		Type: tenant.VportContainer, MAC: tenant.RandomMAC(), IPv4: netip.MustParseAddr(ip), Host: host, Interface: iface})
	if err != nil {
		e.bench.t.Fatal(err)
	}
	return v
}

func (e explaining) ask(query string) Explained {
	e.bench.t.Helper()
	status, _, text := e.call("GET", "/nuage/v1/explain?"+query, "")
	var x Explained
	if err := json.Unmarshal([]byte(text), &x); err != nil || status != 200 {
		e.bench.t.Fatalf("%s: %d %s", query, status, text)
	}
	return x
}

// allow lets v1 reach v2.
func (e explaining) allow(v1, v2 tenant.Vport) {
	e.call("PATCH", "/nuage/v1/vports/"+v1.ID, `{"policyGroups":["web"]}`)
	e.call("PATCH", "/nuage/v1/vports/"+v2.ID, `{"policyGroups":["db"]}`)
}

var denied = TraceResult{Decision: tenant.Dropped, Reason: tenant.ReasonEgressPolicy, Flows: []string{"0. first"}, Programmed: 7, Latest: 7}

func port(name string) TraceResult { return TraceResult{Decision: tenant.Delivered, Interface: name} }

func TestExplain(t *testing.T) {
	e := newExplaining(t)
	v1, v2 := e.on("h1", "PrivateSubnet", "v1", "10.85.85.7", "nu1"), e.on("h1", "VMSubnet", "v2", "10.34.49.7", "nu2")
	e.tell("h1", denied)
	x := e.ask("from=v1&to=v2&protocol=tcp&port=5432")
	if x.Verdict != "drop" || x.Differs || len(x.Switches) != 1 || !x.Switches[0].Agrees || x.Switches[0].Revision != 7 || x.Egress.Policy != "to-db" || *x.Egress.EntryPriority != 20 || x.Remedy == nil || x.Revision == 0 {
		t.Errorf("dropped: %+v", x)
	}
	e.allow(v1, v2)
	if x := e.ask("from=10.85.85.7&to=10.34.49.7&protocol=tcp&port=5432&domain=App1&enterprise=DCEnterprise"); x.Verdict != "allow" || !x.Differs || !strings.HasPrefix(x.Switches[0].Text, "DIFFERS: the switch says dropped") {
		t.Errorf("differs: %+v", x)
	}
	behind := denied
	behind.Latest = 9
	e.tell("h1", behind)
	if x := e.ask("from=v1&to=v2&protocol=tcp&port=5432"); !x.Differs || !strings.HasSuffix(x.Switches[0].Text, "(the switch is at revision 7, its host at 9: ask again)") {
		t.Errorf("behind: %+v", x)
	}
	e.tell("h1", port("nu2"))
	if x := e.ask("from=" + v1.ID + "&to=v2&protocol=tcp&port=5432"); x.Differs || x.Switches[0].Text != "agrees: delivered to port nu2" || !x.Replies.Allowed {
		t.Errorf("agrees: %+v", x)
	}
	e.tell("h1", port("nu3"))
	if x := e.ask("from=v1&to=v2&protocol=tcp&port=5432"); !x.Differs {
		t.Errorf("another port is no difference: %+v", x)
	}
	for query, want := range map[string]string{
		"from=v1&to=v2":                           "are needed",
		"from=v1&to=v2&protocol=tcp":              "tcp needs a port",
		"from=v1&to=v2&protocol=any":              "not any",
		"from=v1&to=v2&protocol=icmp&port=80":     "has none",
		"from=v1&to=v2&protocol=tcp&port=66000":   "not a number from 0 to 65535",
		"from=v1&to=nosuch&protocol=icmp":         "neither a vport, a container nor an IPv4 address",
		"from=10.9.9.9&to=v1&protocol=icmp":       "no vport has 10.9.9.9",
		"from=v1&to=v2&protocol=icmp&what=is":     "unknown parameter",
		"from=v1&to=v2&protocol=icmp&domain=else": "neither a vport, a container nor an IPv4 address there; the vport v1 is in domain ",
	} {
		if status, _, text := e.call("GET", "/nuage/v1/explain?"+query, ""); status/100 != 4 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s, want %q", query, status, text, want)
		}
	}
}

// The hosts of both vports are asked, wherever the question is put, and each is held to what
// it has to do itself.
func TestExplainAcrossHosts(t *testing.T) {
	e := newExplaining(t)
	v1, v2 := e.on("h2", "PrivateSubnet", "v1", "10.85.85.7", "nu1"), e.on("h3", "VMSubnet", "v2", "10.34.49.7", "nu2")
	sent := TraceResult{Decision: tenant.Delivered, VTEP: netip.MustParseAddr("192.0.2.3")}
	const question = "from=v1&to=v2&protocol=tcp&port=5432"
	says := func(what string, differs bool, near, far string) Explained {
		t.Helper()
		x := e.ask(question)
		want := []string{"h2: " + near, "h3: " + far}
		var got []string
		for _, s := range x.Switches {
			got = append(got, s.Host+": "+s.Text)
			if s.Asked == strings.HasPrefix(s.Text, "not asked: ") || s.Agrees != strings.HasPrefix(s.Text, "agrees: ") {
				t.Errorf("%s: %+v", what, s)
			}
		}
		if x.Differs != differs || !slices.Equal(got, want) {
			t.Errorf("%s: differs %v\n%s\nwant\n%s", what, x.Differs, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		return x
	}
	e.tell("h2", denied)
	e.tell("h3", denied)
	const drop = "agrees: dropped: policy from the network to the vport"
	says("dropped by policy, on both", false, drop, drop)
	e.tell("h3", port("nu2"))
	says("dropped by policy, on one", true, drop, "DIFFERS: the switch says delivered to port nu2; the model says dropped: policy from the network to the vport")

	e.allow(v1, v2)
	e.tell("h2", sent)
	e.tell("h3", port("nu2"))
	e.meet = &sync.WaitGroup{}
	e.meet.Add(2) // neither answers before both are asked
	const goes, comes = "agrees: sent to VTEP 192.0.2.3", "agrees: delivered to port nu2"
	says("allowed", false, goes, comes)
	e.meet = nil
	if got := slices.Sorted(slices.Values(e.asked)); !slices.Equal(got, []string{"h2: v1 to v2", "h3: v1 to v2"}) {
		t.Errorf("asked: %q", got)
	}
	e.tell("h3", denied, port("nu2"))
	says("a change on its way", false, goes, comes)
	e.tell("h3", denied)
	x := says("a switch of its own mind", true, goes, "DIFFERS: the switch says dropped: policy from the network to the vport; the model says delivered to port nu2")
	if !slices.Equal(x.Switches[1].Flows, denied.Flows) || x.Switches[1].Revision != 7 || len(e.asked) != 3 {
		t.Errorf("%+v, asked %q", x.Switches[1], e.asked)
	}
	e.tell("h2", port("nu2"))
	e.tell("h3", sent)
	says("each as if it were the other", true, "DIFFERS: the switch says delivered to port nu2; the model says sent to VTEP 192.0.2.3",
		"DIFFERS: the switch says sent to VTEP 192.0.2.3; the model says delivered to port nu2")
	e.tell("h2", sent)
	e.fails["h3"] = errors.New("host h3: no answer within 3s")
	says("silence", false, goes, "not asked: no answer within 3s")
	e.fails["h2"] = errors.New("host h2: there is no such host")
	e.tell("h3", denied)
	says("one is silent, one differs", true, "not asked: there is no such host", "DIFFERS: the switch says dropped: policy from the network to the vport; the model says delivered to port nu2")

	// What does not come to the receiver's host is no matter of its switch's.
	e.tell("h2", TraceResult{Decision: tenant.Dropped, Reason: tenant.ReasonUnknownAddress})
	if x := e.ask("from=v1&to=10.34.49.99&protocol=icmp"); x.Differs || len(x.Switches) != 1 || !slices.Equal(e.asked, []string{"h2: v1 to nobody"}) {
		t.Errorf("to nobody: %+v, asked %q", x, e.asked)
	}
}

// Who shares a virtual IP is asked about by it: the one that receives.
func TestExplainVirtualIP(t *testing.T) {
	e := newExplaining(t)
	e.on("h1", "PrivateSubnet", "client", "10.85.85.7", "nu1")
	first, second := e.on("h1", "VMSubnet", "first", "10.34.49.7", "nu2"), e.on("h2", "VMSubnet", "second", "10.34.49.8", "nu3")
	for _, v := range []tenant.Vport{second, first} {
		if status, _, text := e.call("PATCH", "/nuage/v1/vports/"+v.ID, `{"virtualIPs":["10.34.49.50"]}`); status != 200 {
			t.Fatalf("%d %s", status, text)
		}
	}
	e.tell("h1", denied)
	status, _, text := e.call("GET", "/nuage/v1/explain?from=client&to=10.34.49.50&protocol=tcp&port=5432", "")
	var x Explained
	if err := json.Unmarshal([]byte(text), &x); err != nil || status != 200 || x.To == nil || x.To.Vport != "first" || !strings.HasSuffix(x.Packet, " to 10.34.49.50:5432") {
		t.Errorf("%d %s", status, text)
	}
}

func TestExplainUnattached(t *testing.T) {
	e := newExplaining(t)
	e.on("h1", "PrivateSubnet", "v1", "10.85.85.7", "nu1")
	for _, v := range []tenant.Vport{{Name: "no address", SubnetID: e.find("subnets", "VMSubnet"), Error: "the subnet is full"}, {Name: "nowhere", Error: "no such zone"}} {
		v.ID, v.Type, v.Host = uuid.NewString(), tenant.VportContainer, "h1"
		if _, err := e.store.BindVport(t.Context(), v); err != nil {
			t.Fatal(err)
		}
	}
	if x := e.ask("from=v1&to=no+address&protocol=tcp&port=80"); x.Verdict != "drop" || !strings.Contains(x.Reason, "the subnet is full") || len(x.Switches) != 0 {
		t.Errorf("%+v", x)
	}
	if x := e.ask("from=nowhere&to=v1&protocol=tcp&port=80"); x.Verdict != "drop" || !strings.Contains(x.Reason, "no such zone") {
		t.Errorf("%+v", x)
	}
	if status, _, text := e.call("GET", "/nuage/v1/explain?from=v1&to=nowhere&protocol=tcp&port=80", ""); status != 404 || !strings.Contains(text, "could not be attached: no such zone") {
		t.Errorf("%d %s", status, text)
	}
}
