package agent

import (
	"context"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nuage/controller/tenant"
	"nuage/ovs/openflow"
)

// Whatever counters come, go and begin anew, the total is what was counted up to the last
// reading before each end.
func TestReadings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		last, sums, truth := readings[int]{}, totals{}, uint64(0)
		of := subject{key: tenant.Key{Kind: tenant.KindEntry, ID: "e"}}
		counters, read := map[int]uint64{}, map[int]uint64{}
		take := func(k int) {
			n := counters[k]
			sums.add(of, last.since(k, tenant.Counter{Packets: n, Bytes: 60 * n}))
			truth += n - read[k]
			read[k] = n
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			k := rapid.IntRange(0, 3).Draw(t, "counter")
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0, 1:
				counters[k] += uint64(rapid.IntRange(0, 50).Draw(t, "packets"))
			case 2:
				take(k)
			case 3: // replaced: read, deleted, and there again
				take(k)
				delete(last, k)
				counters[k], read[k] = 0, 0
			case 4: // by somebody else, who is seen by what it has
				take(k)
				if counters[k] > 0 {
					counters[k], read[k] = counters[k]-1, 0
					take(k)
				}
			}
		}
		for k := range counters {
			take(k)
		}
		if got := sums[of]; got.Packets != truth || got.Bytes != 60*truth {
			t.Fatalf("total %v, want %d packets", got, truth)
		}
	})
}

// What a limiter has dropped stays counted when it is changed and when it goes: the switch
// forgets it with the meter.
func TestLimiterChangesAreCounted(t *testing.T) {
	m, feed := newMemory(), tenant.NewFeed()
	m.port("nu7", 7)
	feed.Publish(1, append(base(), vport(7, "nu7"), limiter("l7", vportKey(7), tenant.Ingress, 1))...)
	a, _ := start(t, Config{Feed: feed, Switch: m})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := a.WaitProgrammed(ctx, "v7"); err != nil {
		t.Fatal(err)
	}
	drop := func(packets uint64) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.gear.dropped[7] = openflow.MeterStats{ID: 7, Packets: packets, Bytes: 100 * packets}
	}
	for revision, step := range []struct {
		change tenant.Change
		rate   uint32 // of the meter afterwards; 0 for none
	}{
		{limiter("l7", vportKey(7), tenant.Ingress, 2), 2000},
		{without(tenant.KindRateLimiter, "l7"), 0},
		{limiter("l7", vportKey(7), tenant.Ingress, 3), 3000},
		{limiter("l7", vportKey(7), tenant.Ingress, 4), 4000},
	} {
		if step.rate != 3000 { // there was no meter to drop
			drop(50)
		}
		feed.Publish(int64(revision+2), step.change)
		eventually(t, 5*time.Second, func() string {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.gear.meters[7].Rate != step.rate {
				return "the meter is not changed"
			}
			return ""
		})
	}
	drop(7)
	cs, err := a.Counters(ctx)
	if want := (tenant.Counter{Packets: 157, Bytes: 15_700}); err != nil || len(cs) != 1 || cs[0].Limited["v7"] != want {
		t.Errorf("%+v, %v; want %v", cs, err, want)
	}
}
