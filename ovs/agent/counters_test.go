package agent

import (
	"testing"

	"pgregory.net/rapid"

	"nuage/controller/tenant"
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
