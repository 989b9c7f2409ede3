package store

import (
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nuage/controller/tenant"
)

// nth is the nth address of 10.0.0.0/8 from 10.0.0.2 on.
func nth(n int) string {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 10<<24|uint32(n+2))
	return netip.AddrFrom4(a).String()
}

// percentiles reports the middle and the slow end of what b has timed.
func percentiles(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkAttach times the writes of an attach and a detach, each until the feed shows it.
func BenchmarkAttach(b *testing.B) {
	s, _ := start(b, Config{Dir: b.TempDir()})
	ctx := context.Background()
	sub := mustPath(b, s, spec("D", "10.0.0.0/8")).Subnet
	i := 0
	for _, c := range []struct {
		name string
		do   func(v tenant.Vport) error
	}{
		{"PutLease", func(v tenant.Vport) error {
			_, err := s.PutLease(ctx, reservation(sub, v.IPv4.String(), v.MAC))
			return err
		}},
		{"BindVport", func(v tenant.Vport) error { _, err := s.BindVport(ctx, v); return err }},
	} {
		b.Run(c.name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				i++
				v := newVport(sub, nth(i))
				began := time.Now()
				if err := c.do(v); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			percentiles(b, took)
		})
	}
}

// BenchmarkStart times the way to Ready on an existing directory with 10,000 vports, and
// reports the memory then.
func BenchmarkStart(b *testing.B) {
	const vports = 10000
	dir := b.TempDir()
	s, stop := start(b, Config{Dir: dir})
	sub := mustPath(b, s, spec("D", "10.0.0.0/8")).Subnet
	fill(b, s, sub, vports)
	stop()
	for b.Loop() {
		began, cpu := time.Now(), cpuTime(b)
		s, stop := start(b, Config{Dir: dir})
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ready-ms")
		b.ReportMetric(float64((cpuTime(b) - cpu).Milliseconds()), "ready-cpu-ms")
		began, cpu = time.Now(), cpuTime(b)
		ses, err := s.acquire(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := s.list(context.Background(), ses.client, s.part(sub.DomainID)); err != nil {
			b.Fatal(err)
		}
		ses.release()
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "list-ms")
		b.ReportMetric(float64((cpuTime(b) - cpu).Milliseconds()), "list-cpu-ms")
		b.ReportMetric(resident(b), "resident-MB")
		stop()
	}
	b.ReportMetric(0, "ns/op")
}

// cpuTime is what this process has used, which does not depend on what else runs here.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// fill binds n vports, many at a time.
func fill(b *testing.B, s *Store, sub tenant.Subnet, n int) {
	const workers = 50
	errs := make(chan error)
	for w := range workers {
		go func() {
			for i := w; i < n; i += workers {
				if _, err := s.BindVport(context.Background(), newVport(sub, nth(i))); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range workers {
		if err := <-errs; err != nil {
			b.Fatal(err)
		}
	}
}

// resident is this process's memory in MB.
func resident(b *testing.B) float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for _, line := range strings.Split(string(status), "\n") {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			var kb float64
			for _, c := range f[1] {
				kb = kb*10 + float64(c-'0')
			}
			return kb / 1024
		}
	}
	b.Fatal("no VmRSS")
	return 0
}

// BenchmarkFleet times, with 10,000 vports in a domain: bringing the domain in, reading
// everything, and the way of a write on one host into the feed of another.
func BenchmarkFleet(b *testing.B) {
	const vports = 10000
	dir := b.TempDir()
	s, _ := start(b, Config{Dir: dir, Host: "h1"})
	sub := mustPath(b, s, spec("D", "10.0.0.0/8")).Subnet
	fill(b, s, sub, vports)
	far, _ := startFar(b, dir, Config{Host: "h2", Linger: time.Millisecond})
	for name, do := range map[string]func(){
		"Follow": func() { mustFollow(b, far, sub.DomainID) },
		"Read":   func() { mustRead(b, far) },
	} {
		b.Run(name, func(b *testing.B) {
			var took []time.Duration
			var cpu time.Duration // of etcd as well, which is in this process
			for b.Loop() {
				until(b, "the domain is left", func() bool { return !far.follows(sub.DomainID) })
				began, used := time.Now(), cpuTime(b)
				do()
				took, cpu = append(took, time.Since(began)), cpu+cpuTime(b)-used
			}
			percentiles(b, took)
			b.ReportMetric(float64(cpu.Milliseconds())/float64(len(took)), "cpu-ms")
		})
	}
	third, _ := startFar(b, dir, Config{Host: "h3"})
	mustFollow(b, third, sub.DomainID)
	n := vports
	b.Run("Propagate", func(b *testing.B) {
		var took []time.Duration
		for b.Loop() {
			n++
			v := newVport(sub, nth(n))
			shown := make(chan time.Time)
			go func() { shown <- whenShown(third, v.ID) }()
			if _, err := s.BindVport(context.Background(), v); err != nil {
				b.Fatal(err)
			}
			committed := time.Now()
			took = append(took, max(0, (<-shown).Sub(committed)))
		}
		percentiles(b, took)
	})
	b.Run("FollowAgain", func(b *testing.B) {
		for b.Loop() {
			mustFollow(b, third, sub.DomainID)
		}
	})
}

// whenShown is when a feed begins to show a vport.
func whenShown(s *Store, id string) time.Time {
	for {
		_, moved := s.Feed().Revision()
		there := false
		s.Feed().View(func(st *tenant.State) { there = st.Vports[id] != nil })
		if there {
			return time.Now()
		}
		<-moved
	}
}

// BenchmarkEntries times the creation of a policy's entries, one after another and by a plan.
func BenchmarkEntries(b *testing.B) {
	s, _ := start(b, Config{Dir: b.TempDir()})
	ctx := context.Background()
	w := newWard(b, s, "D")
	mustFollow(b, s, w.p.Domain.ID)
	priority := uint32(0)
	next := func() tenant.Entry {
		priority++
		return change(w.entry(priority, side(tenant.SidePolicyGroup, w.web.ID), side(tenant.SideNetworkMacro, w.corp.ID)), func(e *tenant.Entry) { e.DomainID = w.p.Domain.ID })
	}
	b.Run("Create", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.CreateEntry(ctx, next()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Apply", func(b *testing.B) {
		var steps []tenant.Step
		for range b.N {
			e := next()
			steps = append(steps, creation(tenant.KindEntry, &e))
		}
		b.ResetTimer()
		if done, err := s.Apply(ctx, steps); err != nil {
			b.Fatalf("%d: %v", done, err)
		}
	})
}
