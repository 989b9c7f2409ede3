package cyclonus

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mattfenwick/cyclonus/pkg/generator"
	core "k8s.io/api/core/v1"

	"nuage/test/host"
)

func TestMain(m *testing.M) { host.Main(m) }

const domain = "Cluster"

// Every case of Cyclonus, every cell of its table a packet: TCP and UDP by a connection
// that is answered, SCTP by a datagram that arrives.
func TestTruthTable(t *testing.T) {
	b := newBench(t)
	cases := generator.NewTestCaseGenerator(true, b.base.pod("z", "c").ip, []string{"x", "y", "z"}, nil, nil).GenerateTestCases()
	if len(cases) < 200 {
		t.Fatalf("%d cases: Cyclonus is said to have 230", len(cases))
	}
	began, cells := time.Now(), 0
	for i, c := range cases {
		now := b.base.clone()
		for n, step := range c.Steps {
			for _, a := range step.Actions {
				if err := now.act(a, b.start); err != nil {
					t.Fatal(err)
				}
			}
			b.program(now)
			wrong := b.compare(now)
			cells += len(now.cells())
			for _, w := range wrong[:min(len(wrong), 5)] {
				t.Errorf("case %d (%s), step %d: %s", i, c.Description, n, w)
			}
			if len(wrong) > 0 {
				t.Logf("%d of %d cells are wrong, with:\n%s", len(wrong), len(now.cells()), transpose(now).document("E", domain))
			}
		}
		if t.Failed() && i > 20 {
			t.Fatal("no further cases")
		}
	}
	t.Logf("%d cases, %d cells, %s", len(cases), cells, time.Since(began).Round(time.Second))
}

// bench is nine containers, three in each of three zones.
type bench struct {
	h          *host.Host
	enterprise string
	base       *cluster
	probers    map[string]*host.Prober // by the pod's name
	networks   map[string]string       // by namespace
	groups     map[string]string       // by container: its policy groups as last set
}

func newBench(t *testing.T) *bench {
	h := host.Shared(t)
	b := &bench{h: h, enterprise: h.Name("corp"), probers: map[string]*host.Prober{}, networks: map[string]string{}, groups: map[string]string{}}
	b.base = &cluster{namespaces: map[string]map[string]string{}}
	var zones []string
	for i, ns := range []string{"x", "y", "z", "y-2", "w"} {
		zones = append(zones, fmt.Sprintf("{name: %s, subnets: [{name: %s, address: 10.90.%d.0/24}]}", ns, ns, i+1))
	}
	b.apply(fmt.Sprintf("enterprise: %s\ndomains:\n- {name: %s, policyGroups: [%s], zones: [%s]}\n",
		b.enterprise, domain, strings.Join(groupNames, ", "), strings.Join(zones, ", ")))
	for _, ns := range []string{"x", "y", "z", "y-2", "w"} {
		b.networks[ns] = h.Network(ns, "--ipam-driver", "nuage", "--ipam-opt", "enterprise="+b.enterprise,
			"--ipam-opt", "domain="+domain, "--ipam-opt", "zone="+ns, "--ipam-opt", "subnet="+ns)
		if len(ns) > 1 || ns == "w" {
			continue // for what cases add
		}
		b.base.namespaces[ns] = map[string]string{"ns": ns}
		for _, name := range []string{"a", "b", "c"} {
			b.base.pods = append(b.base.pods, &pod{ns, name, b.start(ns, name), map[string]string{"pod": name}})
		}
	}
	return b
}

// start is the address of a pod, whose container is started if it does not run yet.
func (b *bench) start(namespace, name string) string {
	key := namespace + "/" + name
	if b.probers[key] == nil {
		b.probers[key] = b.h.Prober(namespace+"-"+name, "--network", b.networks[namespace])
	}
	return b.probers[key].IP
}

func (b *bench) apply(file string) {
	if out, err := b.h.TryWith(file, nil, "nuagectl", "apply", "-f", "-"); err != nil {
		b.h.Fatalf("nuagectl apply: %v\n%s\n%s", err, out, file)
	}
}

// program brings policies and memberships to what the cluster says, and waits for the switch.
func (b *bench) program(c *cluster) {
	tr := transpose(c)
	for key, p := range b.probers {
		var of []string
		for _, g := range groupNames {
			if slices.ContainsFunc(tr.members[g], func(m *pod) bool { return m.String() == key }) {
				of = append(of, g)
			}
		}
		if list := strings.Join(of, ","); list != b.groups[p.Name] {
			b.h.Nuagectl("set", "vports", p.Name, "policyGroups="+list)
			b.groups[p.Name] = list
		}
	}
	b.apply(tr.document(b.enterprise, domain))
	b.h.Programmed()
}

// compare asks for every cell and says which are not as Cyclonus says.
func (b *bench) compare(c *cluster) []string {
	oracle, all := c.oracle(), c.cells()
	wrong := b.wrong(oracle, all, 150*time.Millisecond)
	if len(wrong) > 0 { // a busy machine answers late, but never what is forbidden
		wrong = b.wrong(oracle, wrong, 3*time.Second)
	}
	var texts []string
	for _, w := range wrong {
		texts = append(texts, fmt.Sprintf("%s: Cyclonus says %v, the network does not", w, allowed(oracle(w))))
	}
	return texts
}

type allowed bool

func (a allowed) String() string {
	if a {
		return "allowed"
	}
	return "denied"
}

// wrong are the cells whose packet did other than the oracle says.
func (b *bench) wrong(oracle func(cell) bool, cells []cell, timeout time.Duration) []cell {
	by := map[*pod][]cell{}
	for _, x := range cells {
		by[x.from] = append(by[x.from], x)
	}
	for _, p := range b.probers {
		if _, err := p.Seen(); err != nil {
			b.h.Fatalf("%v", err)
		}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open, errs := map[cell]bool{}, []error(nil)
	for from, list := range by {
		wg.Go(func() {
			var questions []host.Question
			for _, x := range list {
				questions = append(questions, host.Question{Protocol: strings.ToLower(string(x.protocol)), Address: fmt.Sprintf("%s:%d", x.to.ip, x.port)})
			}
			answers, err := b.probers[from.String()].Ask(timeout, questions...)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
			for i, a := range answers {
				open[list[i]] = a == "open"
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		b.h.Fatalf("%v", err)
	}
	time.Sleep(30 * time.Millisecond)
	for _, to := range slices.Collect(pods(cells)) {
		seen, err := b.probers[to.String()].Seen()
		if err != nil {
			b.h.Fatalf("%v", err)
		}
		for _, x := range cells {
			if x.to == to && x.protocol == core.ProtocolSCTP {
				open[x] = slices.Contains(seen, fmt.Sprintf("%s>%d", x.from.ip, x.port))
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(cells), func(x cell) bool { return open[x] == oracle(x) })
}

// pods are the receivers of cells.
func pods(cells []cell) func(yield func(*pod) bool) {
	return func(yield func(*pod) bool) {
		seen := map[*pod]bool{}
		for _, x := range cells {
			if !seen[x.to] {
				seen[x.to] = true
				if !yield(x.to) {
					return
				}
			}
		}
	}
}
