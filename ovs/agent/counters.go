package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"nuage/controller/tenant"
	"nuage/ovs"
	"nuage/ovs/flow"
	"nuage/ovs/pipeline"
)

// Reading by cookie costs the switch what it finds, reading by table costs the table: from
// so many cookies of a table on, the table is read.
const mostCookies = 64

// countingTables have the flows of entries and of defaults.
var countingTables = []flow.Table{pipeline.TableIngressEntries, pipeline.TableIngressDecision, pipeline.TableEgressEntries, pipeline.TableEgressDecision}

// counts is whether a flow counts for an entry or a default, if it is one's: a packet counts
// where its sender is.
func counts(f flow.Flow) bool {
	return slices.Contains(countingTables, f.Table) && pipeline.FromHere(f.Match)
}

// Counters reads what the switch has counted in each domain present, in the order of the
// domains' IDs. The totals survive whatever becomes of the flows and meters that count, but
// not this process: another begins with what the switch has then. Without the switch it
// returns the totals as last read, and the error.
func (a *Agent) Counters(ctx context.Context) ([]tenant.Counters, error) {
	err := a.readCounters(ctx)
	return a.report(), err
}

// counting turns counters into totals.
type counting struct {
	// exchange is held from the question to the switch until its answer is counted: an
	// older answer after a younger one would look like a counter that began anew.
	exchange sync.Mutex

	mu     sync.Mutex
	flows  readings[flow.Key]
	meters readings[uint32]
	totals totals
}

func newCounting() *counting {
	return &counting{flows: readings[flow.Key]{}, meters: readings[uint32]{}, totals: totals{}}
}

// readings are the last values of counters that come and go.
type readings[K comparable] map[K]tenant.Counter

// since is what has been counted since the last reading. A counter that was not there then,
// or that has less than it had, began at nothing in between.
func (r readings[K]) since(k K, now tenant.Counter) tenant.Counter {
	last := r[k]
	r[k] = now
	if now.Packets < last.Packets || now.Bytes < last.Bytes {
		return now
	}
	return tenant.Counter{Packets: now.Packets - last.Packets, Bytes: now.Bytes - last.Bytes}
}

// subject is what a total is of: an entry, the policy whose default decided, the vport whose
// limiter dropped, or a vport or domain and why its packets were dropped.
type subject struct {
	key    tenant.Key
	reason tenant.Reason // of a drop
}

// totals only grow, whatever becomes of the counters that they are read from.
type totals map[subject]tenant.Counter

func (t totals) add(s subject, c tenant.Counter) {
	sum := t[s]
	t[s] = tenant.Counter{Packets: sum.Packets + c.Packets, Bytes: sum.Bytes + c.Bytes}
}

// readCounters counts the flows of the tables that count, and the meters.
func (a *Agent) readCounters(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a.counting.exchange.Lock()
	defer a.counting.exchange.Unlock()
	for _, filter := range a.counters() {
		stats, err := a.conf.Switch.Flows(ctx, filter)
		if err != nil {
			return fmt.Errorf("switch: %w", err)
		}
		a.countFlows(stats)
	}
	return a.readMeters(ctx)
}

// readMeters counts what limiters have dropped. exchange is held.
func (a *Agent) readMeters(ctx context.Context) error {
	meters, err := a.conf.Switch.MeterStats(ctx)
	if err != nil {
		return fmt.Errorf("switch: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counting.mu.Lock()
	defer a.counting.mu.Unlock()
	for _, m := range meters {
		if id, ok := a.compiler.MeteredVport(m.ID); ok {
			a.counting.totals.add(subject{key: tenant.Key{Kind: tenant.KindVport, ID: id}},
				a.counting.meters.since(m.ID, tenant.Counter{Packets: m.Packets, Bytes: m.Bytes}))
		}
	}
	return nil
}

// countMeters counts what limiters have dropped whose meters are about to be changed or
// deleted: the switch forgets it then.
func (a *Agent) countMeters(ctx context.Context, leaving []uint32) {
	a.mu.Lock()
	limit := slices.ContainsFunc(leaving, func(id uint32) bool {
		_, ok := a.compiler.MeteredVport(id)
		return ok
	})
	a.mu.Unlock()
	if !limit {
		return
	}
	a.counting.exchange.Lock()
	defer a.counting.exchange.Unlock()
	_ = a.readMeters(ctx) // the change itself will fail, and say why
}

// readFlows reads all flows, and counts them.
func (a *Agent) readFlows(ctx context.Context) ([]flow.Stats, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a.counting.exchange.Lock()
	defer a.counting.exchange.Unlock()
	stats, err := a.conf.Switch.Flows(ctx, ovs.FlowFilter{})
	if err != nil {
		return nil, fmt.Errorf("switch: %w", err)
	}
	a.countFlows(stats)
	return stats, nil
}

// countLeaving counts what flows have counted that are about to be deleted, or to be
// another's.
func (a *Agent) countLeaving(ctx context.Context, gs []group) {
	leaving := map[uint64]bool{}
	a.mu.Lock()
	for _, g := range gs {
		for _, f := range g.diff.Delete {
			leaving[f.Cookie] = leaving[f.Cookie] || counts(f)
		}
		for _, f := range g.diff.Add {
			if have, ok := a.programmed[f.Key()]; ok && have.Cookie != f.Cookie {
				leaving[have.Cookie] = leaving[have.Cookie] || counts(f)
			}
		}
	}
	a.mu.Unlock()
	maps.DeleteFunc(leaving, func(_ uint64, counts bool) bool { return !counts })
	if len(leaving) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a.counting.exchange.Lock()
	defer a.counting.exchange.Unlock()
	for _, filter := range choose(slices.Collect(maps.Keys(leaving))) {
		stats, err := a.conf.Switch.Flows(ctx, filter)
		if err != nil {
			return // the change itself will fail, and say why
		}
		a.countFlows(stats)
	}
}

// choose are the filters for the counting flows of some objects.
func choose(cookies []uint64) (filters []ovs.FlowFilter) {
	if len(cookies) > mostCookies {
		for _, t := range countingTables {
			filters = append(filters, ovs.FlowFilter{Table: &t})
		}
		return filters
	}
	for i := range cookies {
		filters = append(filters, ovs.FlowFilter{Cookie: &cookies[i]})
	}
	return filters
}

// counters choose the flows that count for something, but for those of vports outside of the guard: they
// lie among as many flows as there are vports anywhere, and are read with all others.
func (a *Agent) counters() []ovs.FlowFilter {
	guard, released := pipeline.TableGuard, pipeline.TableReleased
	filters := []ovs.FlowFilter{{Table: &guard}, {Table: &released}}
	var cookies []uint64
	a.conf.Feed.View(func(s *tenant.State) {
		for _, e := range s.Entries {
			if e.StatsLogging {
				cookies = append(cookies, pipeline.Cookie(tenant.Key{Kind: tenant.KindEntry, ID: e.ID}))
			}
		}
		for id := range s.Policies {
			cookies = append(cookies, pipeline.Cookie(tenant.Key{Kind: tenant.KindPolicy, ID: id}))
		}
	})
	return append(filters, choose(cookies)...)
}

// countFlows counts what flows have counted since they were last read; a part of them at a
// time, so that nobody waits for all.
func (a *Agent) countFlows(stats []flow.Stats) {
	for part := range slices.Chunk(stats, 1000) {
		a.conf.Feed.View(func(s *tenant.State) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.counting.mu.Lock()
			defer a.counting.mu.Unlock()
			for _, f := range part {
				if of, ok := a.subjectOf(s, f.Flow); ok {
					a.counting.totals.add(of, a.counting.flows.since(f.Key(), tenant.Counter{Packets: f.Packets, Bytes: f.Bytes}))
				}
			}
		})
	}
}

// subjectOf is what a flow counts for, if for anything. mu is held.
func (a *Agent) subjectOf(s *tenant.State, f flow.Flow) (of subject, ok bool) {
	decides := counts(f)
	if !decides {
		d, drops := pipeline.ReasonOf(f)
		if !drops || d.Per != "vport" && d != pipeline.DropConnections {
			return of, false
		}
		of.reason = d.Reason
	}
	of.key, ok = a.compiler.Owner(f.Cookie)
	decider := of.key.Kind == tenant.KindEntry || of.key.Kind == tenant.KindPolicy
	return of, ok && decides == decider && a.domainOf(s, of.key) != ""
}

// forget are flows that are gone: if they come back, they count from nothing.
func (c *counting) forget(fs []flow.Flow) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range fs {
		delete(c.flows, f.Key())
	}
}

// forgetMeter is a meter that counts from nothing again.
func (c *counting) forgetMeter(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.meters, id)
}

// keepOnly forgets all flows but those that there are.
func (c *counting) keepOnly(actual flow.Set) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.flows, func(k flow.Key, _ tenant.Counter) bool {
		_, there := actual[k]
		return !there
	})
}

// report sorts the totals by domain, and drops those of what is gone.
func (a *Agent) report() []tenant.Counters {
	domains := map[string]*tenant.Counters{}
	a.conf.Feed.View(func(s *tenant.State) {
		a.counting.mu.Lock()
		defer a.counting.mu.Unlock()
		for of, c := range a.counting.totals {
			id := a.domainOf(s, of.key)
			if id == "" {
				delete(a.counting.totals, of)
				continue
			}
			if domains[id] == nil {
				domains[id] = &tenant.Counters{Host: a.conf.Host, DomainID: id}
			}
			put(domains[id], of, c)
		}
	})
	all := make([]tenant.Counters, 0, len(domains))
	for _, id := range slices.Sorted(maps.Keys(domains)) {
		all = append(all, *domains[id])
	}
	return all
}

// domainOf is the domain of something that counts here; "" if it does not any more.
func (a *Agent) domainOf(s *tenant.State, k tenant.Key) string {
	switch k.Kind {
	case tenant.KindEntry:
		if e := s.Entries[k.ID]; e != nil && e.StatsLogging {
			return e.DomainID
		}
	case tenant.KindPolicy:
		if p := s.Policies[k.ID]; p != nil {
			return p.DomainID
		}
	case tenant.KindDomain:
		if d := s.Domains[k.ID]; d != nil {
			return d.ID
		}
	case tenant.KindVport:
		if v := s.Vports[k.ID]; v != nil && v.Host == a.conf.Host {
			return v.DomainID
		}
	}
	return ""
}

func put(c *tenant.Counters, of subject, n tenant.Counter) {
	into := func(m *map[string]tenant.Counter) {
		if *m == nil {
			*m = map[string]tenant.Counter{}
		}
		(*m)[of.key.ID] = n
	}
	switch {
	case of.key.Kind == tenant.KindEntry:
		into(&c.Entries)
	case of.key.Kind == tenant.KindPolicy:
		into(&c.Defaults)
	case n == tenant.Counter{}: // there are many
	case of.reason == "":
		into(&c.Limited)
	default:
		if c.Drops == nil {
			c.Drops = map[string]map[tenant.Reason]tenant.Counter{}
		}
		if c.Drops[of.key.ID] == nil {
			c.Drops[of.key.ID] = map[tenant.Reason]tenant.Counter{}
		}
		c.Drops[of.key.ID][of.reason] = n
	}
}
