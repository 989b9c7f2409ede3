package pipeline

import (
	"fmt"
	"runtime"
	"testing"

	"nuage/controller/tenant"
)

// manyEntries is manyVports, all of them in policy groups, with a policy of each direction
// that share entries: every third for a range of ports, every other stateless or counted.
func manyEntries(vports, entries int) *world {
	w := manyVports(vports)
	for g := range 100 {
		w.group(fmt.Sprintf("g%d", g), "app1", uint16(g+1))
	}
	i := 0
	for _, id := range sortedIDs(w.state.Vports) {
		w.join(id, fmt.Sprintf("g%d", i%100))
		i++
	}
	for n, d := range []tenant.Direction{tenant.Ingress, tenant.Egress} {
		p := w.policy(string(d), "app1", d, 10)
		for j := range entries / 2 {
			k := 2*j + n
			e := tenant.Entry{Protocol: tenant.TCP, Stateful: k%2 == 0, StatsLogging: k%4 == 0,
				From: tenant.Side{Kind: tenant.SidePolicyGroup, ID: fmt.Sprintf("g%d", k%100)},
				To:   tenant.Side{Kind: tenant.SidePolicyGroup, ID: fmt.Sprintf("g%d", k/100%100)}}
			if e.DestinationPort = (tenant.PortRange{From: uint16(1024 + k), To: uint16(1024 + k)}); k%3 == 0 {
				e.DestinationPort.To += 9
			}
			w.entry(p.ID, uint32(j*10), tenant.Forward, e)
		}
	}
	return w
}

func compiled(w *world) *Compiler {
	c := NewCompiler(thisHost)
	c.SetPorts(w.ports, tunnelPort)
	c.Update(w.state, allKeys(w.state))
	return c
}

// The whole of 10,000 entries and 5,000 members, at most a second.
func BenchmarkPolicies(b *testing.B) {
	for _, n := range []int{100, 1000, 10000} {
		w := manyEntries(n/2, n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			c := compiled(w)
			runtime.GC()
			for b.Loop() {
				c = compiled(w)
			}
			b.ReportMetric(float64(len(c.Flows())), "flows")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n+n/2), "ns/object")
		})
	}
}

// editEntry changes one entry, and changes it back the next time.
func editEntry(w *world, i int) tenant.Key {
	k := tenant.Key{Kind: tenant.KindEntry, ID: "egress/500"}
	e := *w.state.Entries[k.ID]
	e.Action = []tenant.Action{tenant.Deny, tenant.Forward}[i%2]
	w.put(k.Kind, k.ID, &e)
	return k
}

// What changes one entry, one vport's membership and the policies' order costs the same
// among a hundred entries and ten thousand.
func BenchmarkPolicyChange(b *testing.B) {
	for name, change := range map[string]func(w *world, i int) tenant.Key{
		"entry": editEntry,
		"membership": func(w *world, i int) tenant.Key {
			v := *w.state.Vports["v2"]
			v.PolicyGroups = []string{"g1", fmt.Sprintf("g%d", 2+i%2)}
			w.put(tenant.KindVport, "v2", &v)
			return vportKey("v2")
		},
		"default": func(w *world, i int) tenant.Key {
			p := *w.state.Policies["egress"]
			p.DefaultAllowIP = i%2 == 0
			w.put(tenant.KindPolicy, "egress", &p)
			return tenant.Key{Kind: tenant.KindPolicy, ID: "egress"}
		},
	} {
		for _, n := range []int{200, 10000} {
			w := manyEntries(n/2, n)
			c := compiled(w)
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				i, flows := 0, 0
				for b.Loop() {
					flows = len(c.Update(w.state, []tenant.Key{change(w, i)}))
					i++
				}
				b.ReportMetric(float64(flows), "flows")
			})
		}
	}
}
