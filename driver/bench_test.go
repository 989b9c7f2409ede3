package driver

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// BenchmarkAttachDetach measures the verbs of one container, and the effects in them,
// beside a number of others on the same host. All figures are medians.
func BenchmarkAttachDetach(b *testing.B) {
	for _, others := range []int{0, 200} {
		b.Run(fmt.Sprintf("beside %d", others), func(b *testing.B) {
			r := newRig(b)
			d, p := r.mortalDriver(-1)
			r.ok(d.CreateNetwork(bg, netRequest(1, "172.18.0.0/16", "172.18.0.1/16", app1)))
			address := func(n int) string { return fmt.Sprintf("172.18.%d.%d/16", 1+n/250, 1+n%250) }
			for n := range others {
				_, err := d.CreateEndpoint(bg, epRequest(1, n, address(n)))
				r.ok(err)
				_, err = d.Join(bg, &JoinRequest{NetworkID: netID(1), EndpointID: epID(n)})
				r.ok(err)
			}
			clear(p.took)
			verb := func(name string, f func() error) {
				start := time.Now()
				r.ok(f())
				p.took[name] = append(p.took[name], time.Since(start))
			}
			n := others
			for b.Loop() {
				n++
				verb("CREATE-ENDPOINT", func() error { _, err := d.CreateEndpoint(bg, epRequest(1, n, address(n))); return err })
				verb("JOIN", func() error {
					_, err := d.Join(bg, &JoinRequest{NetworkID: netID(1), EndpointID: epID(n)})
					return err
				})
				verb("LEAVE", func() error { return d.Leave(bg, nil) })
				verb("DELETE-ENDPOINT", func() error { return d.DeleteEndpoint(bg, del(n)) })
				d.Wait()
			}
			for name, took := range p.took {
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), name+"-µs")
			}
		})
	}
}
