package pipeline

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"nuage/ovs/flow"
)

var update = flag.Bool("update", false, "write docs/pipeline.md and the golden files anew")

const (
	docs      = "../../docs/pipeline.md"
	markBegin = "<!-- generated from ovs/pipeline: begin -->\n"
	markEnd   = "<!-- generated from ovs/pipeline: end -->\n"
)

func TestDocs(t *testing.T) {
	have, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(have), markBegin)
	_, tail, ok2 := strings.Cut(rest, markEnd)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the markers", docs)
	}
	golden(t, docs, head+markBegin+reference()+markEnd+tail)
}

func TestGolden(t *testing.T) {
	var text strings.Builder
	for _, f := range mustCompile(t, twoTenants()).Sorted() {
		fmt.Fprintln(&text, f)
	}
	golden(t, "testdata/two-tenants.flows", text.String())
	text.Reset()
	for _, f := range mustCompile(t, policed()).Sorted() {
		if f.Table >= TableConntrack && f.Table < TableOutput && f.Cookie != Cookie(SwitchKey) {
			fmt.Fprintln(&text, f)
		}
	}
	golden(t, "testdata/policies.flows", text.String())
}

// golden compares text with a file, or writes it under -update.
func golden(t *testing.T, file, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) == want {
		return
	}
	h, w := strings.Split(string(have), "\n"), strings.Split(want, "\n")
	for i := range w {
		if i >= len(h) || h[i] != w[i] {
			t.Fatalf("%s is stale at line %d (run go test ./ovs/pipeline -update):\nwant %s", file, i+1, w[i])
		}
	}
	t.Fatalf("%s is stale: %d lines too many (run go test ./ovs/pipeline -update)", file, len(h)-len(w))
}

// reference is the part of the page that is generated.
func reference() string {
	var b strings.Builder
	names := map[flow.Table]string{}
	for _, tb := range Tables {
		names[tb.Number] = tb.Name
	}
	b.WriteString("\n## Tables\n| table | | what it does | what arrives | who matches nothing | next |\n|---|---|---|---|---|---|\n")
	for _, tb := range Tables {
		var next []string
		for _, n := range tb.Next {
			next = append(next, names[n])
		}
		fmt.Fprintf(&b, "| %d | %s | %s | %s | %s | %s |\n", tb.Number, tb.Name, tb.Purpose, tb.Arrives, tb.Miss, strings.Join(next, ", "))
	}
	b.WriteString("\n## Registers\nWhat is not set is 0.\n\n| bits | name | what |\n|---|---|---|\n")
	for _, r := range Registers {
		fmt.Fprintf(&b, "| %v[%d..%d] | %s | %s |\n", r.Bits.Field, r.Bits.Offset, r.Bits.Offset+r.Bits.Width-1, r.Name, r.Purpose)
	}
	b.WriteString("\n## Drops\nEach has a counter: the flow of its table and priority, with the cookie of the object that it is counted by.\n\n| table | priority | counted by | reason |\n|---|---|---|---|\n")
	for _, d := range Drops {
		fmt.Fprintf(&b, "| %s | %d | %s | %s |\n", names[d.Table], d.Priority, d.Per, d.Reason)
	}
	b.WriteString("\n## Flows\n| for each | flows |\n|---|---|\n")
	for _, r := range []struct {
		what  string
		flows int
	}{
		{"bridge", flowsPerSwitch},
		{"domain present on the host", flowsPerDomain},
		{"domain with an active policy", flowsPerPolicedDomain},
		{"subnet of it", flowsPerSubnet},
		{"zone of it", flowsPerZone},
		{"policy whose default decides", flowsPerDefault},
		{"vport on this host", flowsPerLocalVport},
		{"vport on another host", flowsPerRemoteVport},
		{"vport in policy groups, more", flowsPerMember},
		{"direction in which a meter limits a vport here, more", flowsPerMeter},
		{"other host", flowsPerHost},
	} {
		fmt.Fprintf(&b, "| %s | %d |\n", r.what, r.flows)
	}
	return b.String()
}
