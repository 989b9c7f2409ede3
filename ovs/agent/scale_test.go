package agent

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"nuage/controller/tenant"
	"nuage/ovs"
)

// manyEntries is a policy of n entries about TCP ports of two groups, of which every one in
// stats counts.
func manyEntries(n, stats int) []tenant.Change {
	changes := []tenant.Change{policy("pol", "app1", tenant.Ingress, 1)}
	for i, name := range []string{"web", "db"} {
		changes = append(changes, change(tenant.KindPolicyGroup, name, &tenant.PolicyGroup{Meta: tenant.Meta{ID: name}, Name: name, DomainID: "app1", Number: uint16(i + 1)}))
	}
	for i := range n {
		changes = append(changes, entryOf(i, 1000+i, i < stats))
	}
	return changes
}

func entryOf(i, port int, stats bool) tenant.Change {
	return ruleOf(fmt.Sprintf("e%d", i), "pol", "app1", func(e *tenant.Entry) {
		e.Priority, e.Protocol, e.StatsLogging = uint32(i+1), tenant.TCP, stats
		e.DestinationPort = tenant.PortRange{From: uint16(port), To: uint16(port)}
		e.From, e.To = tenant.Side{Kind: tenant.SidePolicyGroup, ID: "web"}, tenant.Side{Kind: tenant.SidePolicyGroup, ID: "db"}
	})
}

// Among 10,000 entries a change of one is programmed as soon as the change of one alone,
// and the counters are read without hurting anybody, whether few entries count or all do.
func TestTenThousandEntries(t *testing.T) {
	h := newHost(t)
	a, _ := h.agent(t, 0)
	h.feed.Publish(1, base()...)
	h.attach(t, a, 2)
	settled := func(revision int64) {
		t.Helper()
		eventually(t, 30*time.Second, func() string {
			if got := a.programmedRevision(); got < revision {
				return fmt.Sprintf("programmed to %d, not %d: %v", got, revision, a.Status().Err)
			}
			return ""
		})
	}
	publish := func(changes ...tenant.Change) time.Duration {
		t.Helper()
		began, revision := time.Now(), h.next()
		h.feed.Publish(revision, changes...)
		settled(revision)
		return time.Since(began)
	}
	t.Logf("10,000 entries, programmed: %v", publish(manyEntries(10_000, 20)...).Round(time.Millisecond))
	median := func(what string, limit time.Duration, f func(i int) time.Duration) {
		t.Helper()
		const tries = 15
		var took []time.Duration
		for i := range tries {
			took = append(took, f(i))
		}
		slices.Sort(took)
		t.Logf("%s: median %v, longest %v", what, took[tries/2].Round(10*time.Microsecond), took[tries-1].Round(10*time.Microsecond))
		if took[tries/2] > limit && !raceDetector {
			t.Errorf("%s takes %v, more than %v", what, took[tries/2], limit)
		}
	}
	const atMost = 50 * time.Millisecond
	median("a change of one entry's port", atMost, func(i int) time.Duration { return publish(entryOf(5000, 20000+i, false)) })
	median("a change of one entry that counts", atMost, func(i int) time.Duration { return publish(entryOf(7, 20000+i, true)) })
	median("an entry more, and less", 2*atMost, func(int) time.Duration {
		return publish(entryOf(10_000, 30000, true)) + publish(without(tenant.KindEntry, "e10000"))
	})
	counters := func(int) time.Duration {
		began := time.Now()
		if _, err := a.Counters(context.Background()); err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
	median("20 entries' counters", atMost, counters)
	t.Logf("10,000 entries that count, programmed: %v", publish(manyEntries(10_000, 10_000)...).Round(time.Millisecond))
	median("10,000 entries' counters", 5*time.Second, counters)
	done, reading := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(reading)
		for {
			select {
			case <-done:
				return
			default:
				a.Counters(context.Background())
			}
		}
	}()
	median("a change of one entry while counters are read all the time", 10*atMost, func(i int) time.Duration { return publish(entryOf(5000, 20000+i, false)) })
	close(done)
	<-reading
	if w := h.wrong(); w != "" {
		t.Error(w)
	}
	flows, err := h.bridge.Flows(context.Background(), ovs.FlowFilter{})
	t.Logf("%d flows, %v", len(flows), err)
}
