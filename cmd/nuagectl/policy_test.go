package main

import (
	"context"
	"errors"
	"net/netip"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"

	"nuage/controller/tenant"
	"nuage/controller/vsd"
)

// Trace is the plugin's switch, which says what it was told to.
func (p *plugin) Trace(context.Context, string, *tenant.Vport, *tenant.Vport, tenant.Packet) (vsd.TraceResult, error) {
	if said := p.traced.Load(); said != nil {
		return *said, nil
	}
	return vsd.TraceResult{}, errors.New("the switch is away")
}

// sayOf is the command switch.
func sayOf(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: switch drop|PORT|VTEP")
	}
	said := vsd.TraceResult{Decision: tenant.Delivered, Interface: args[0], Flows: []string{"0. in_port=1, priority 100"}}
	if vtep, err := netip.ParseAddr(args[0]); err == nil {
		said.Interface, said.VTEP = "", vtep
	}
	if args[0] == "drop" {
		said.Decision, said.Interface, said.Reason = tenant.Dropped, "", tenant.ReasonEgressPolicy
	}
	ts.Value("plugin").(*plugin).traced.Store(&said)
}

// tally is the command count: ENTRY is "default" for that of the first policy.
func tally(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: count PRIORITY|default PACKETS BYTES")
	}
	p := ts.Value("plugin").(*plugin)
	ctx := context.Background()
	s, err := p.store.Read(ctx)
	ts.Check(err)
	var n tenant.Counter
	n.Packets, err = strconv.ParseUint(args[1], 10, 64)
	ts.Check(err)
	n.Bytes, err = strconv.ParseUint(args[2], 10, 64)
	ts.Check(err)
	c := tenant.Counters{Host: "h1", Entries: map[string]tenant.Counter{}, Defaults: map[string]tenant.Counter{}}
	for _, e := range s.Entries {
		c.DomainID = e.DomainID
		if strconv.Itoa(int(e.Priority)) == args[0] {
			c.Entries[e.ID] = n
		}
		if args[0] == "default" {
			c.Defaults[e.PolicyID] = n
		}
	}
	ts.Check(p.store.PutHost(ctx, tenant.Host{Meta: tenant.Meta{ID: "h1"}, Name: "h1", VTEP: netip.MustParseAddr("192.0.2.1")}))
	ts.Check(p.store.PutCounters(ctx, []tenant.Counters{c}))
}
