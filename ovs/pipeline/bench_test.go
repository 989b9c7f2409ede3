package pipeline

import (
	"fmt"
	"runtime"
	"testing"

	"nuage/controller/tenant"
)

// manyVports is one domain, with one vport in a hundred on this host.
func manyVports(n int) *world {
	w := newWorld()
	w.domain("app1", 1)
	w.subnet("web", "app1", "10.0.0.0/16", 100)
	for i := 2; i < n+2; i++ {
		port := uint32(0)
		if i%100 == 2 {
			port = uint32(i)
		}
		w.vport(fmt.Sprintf("v%d", i), "web", fmt.Sprintf("10.0.%d.%d", i>>8, i&255), port)
	}
	return w
}

func BenchmarkCompile(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		w := manyVports(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			c := NewCompiler(thisHost)
			for b.Loop() {
				c = NewCompiler(thisHost)
				c.SetPorts(w.ports, tunnelPort)
				c.Update(w.state, allKeys(w.state))
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(len(c.Flows())), "flows")
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB-kept")
		})
	}
}

// One vport's change costs the same among a hundred and among ten thousand.
func BenchmarkOneVport(b *testing.B) {
	for _, n := range []int{100, 10000} {
		w := manyVports(n)
		c := NewCompiler(thisHost)
		c.SetPorts(w.ports, tunnelPort)
		c.Update(w.state, allKeys(w.state))
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			i := byte(0)
			for b.Loop() {
				i++
				v := *w.state.Vports["v2"]
				v.MAC[1] = i
				w.put(tenant.KindVport, "v2", &v)
				c.Update(w.state, []tenant.Key{vportKey("v2")})
			}
		})
	}
}
