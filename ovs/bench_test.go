package ovs

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/sirupsen/logrus"

	"nuage/ovs/flow"
	"nuage/ovs/ovstest"
)

func quiet() logrus.FieldLogger {
	log := logrus.New()
	log.SetOutput(io.Discard)
	return log
}

// loaded is a Bridge with that many ports.
func loaded(b *testing.B, ports int) *Bridge {
	o := ovstest.Start(b)
	br := start(b, o, func(c *Config) { c.Log = quiet() })
	connected(b, br, 0)
	for i := range ports {
		if _, err := br.EnsurePort(context.Background(), PortSpec{Name: fmt.Sprintf("x%d", i)}); err != nil {
			b.Fatal(err)
		}
	}
	if ports > 0 {
		attach(b, br, fmt.Sprintf("x%d", ports-1))
	}
	return br
}

func BenchmarkPort(b *testing.B) {
	for _, ports := range []int{0, 200} {
		for _, wait := range []bool{false, true} {
			b.Run(fmt.Sprintf("ports=%d/wait=%v", ports, wait), func(b *testing.B) {
				br, ctx := loaded(b, ports), context.Background()
				b.ResetTimer()
				for range b.N {
					if _, err := br.EnsurePort(ctx, PortSpec{Name: "p", ExternalIDs: map[string]string{"vport": "x"}}); err != nil {
						b.Fatal(err)
					}
					if wait {
						if _, err := br.WaitPort(ctx, "p"); err != nil {
							b.Fatal(err)
						}
					}
					b.StopTimer()
					if err := br.DeletePort(ctx, "p"); err != nil {
						b.Fatal(err)
					}
					soon(b, "rest", func() bool { return br.look().settled() })
					b.StartTimer()
				}
			})
		}
	}
}

func BenchmarkDeletePort(b *testing.B) {
	br, ctx := loaded(b, 10), context.Background()
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		attach(b, br, "p")
		b.StartTimer()
		if err := br.DeletePort(ctx, "p"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkApply12(b *testing.B) {
	br, ctx := loaded(b, 10), context.Background()
	fs := flows(12, 1)
	b.ResetTimer()
	for i := range b.N {
		d := flow.Diff{Add: fs}
		if i%2 == 1 {
			d = flow.Diff{Delete: fs}
		}
		if err := br.Apply(ctx, d); err != nil {
			b.Fatal(err)
		}
	}
}
