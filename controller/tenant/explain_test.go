package tenant

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// explained is App1 of threeTiers with four vports on two hosts.
func explained(t fataler) *State {
	s := NewState()
	steps, err := Plan(s, mustParse(t, threeTiers), counter())
	if err != nil {
		t.Fatal(err)
	}
	execute(s, steps)
	s.Revision = 42
	for i, h := range []string{"h1", "h2"} {
		s.Apply(Change{Key{KindHost, h}, &Host{Meta: Meta{ID: h}, Name: h, VTEP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}})
	}
	for i, v := range []struct {
		name, subnet, ip, host string
		groups                 []string
	}{
		{"web-1", "PrivateSubnet", "10.85.85.2", "h1", []string{"web"}}, {"db-1", "VMSubnet", "10.34.49.2", "h2", []string{"db"}},
		{"db-2", "VMSubnet", "10.34.49.3", "h1", []string{"db"}}, {"other", "PrivateSubnet", "10.85.85.3", "h1", nil}, {"down", "VMSubnet", "10.34.49.9", "", nil},
	} {
		n := subnetOf(s, v.subnet)
		s.Apply(Change{Key{KindVport, v.name}, &Vport{Meta: Meta{ID: v.name}, Name: v.name, DomainID: n.DomainID, ZoneID: n.ZoneID, SubnetID: n.ID, Type: VportContainer,
			MAC: MAC{2, 0, 0, 0, 0, byte(i + 1)}, IPv4: netip.MustParseAddr(v.ip), Host: v.host, Interface: "nu" + v.name, PolicyGroups: v.groups,
			Owner: Owner{ContainerName: "c-" + v.name}}})
	}
	return s
}

func question(s *State, from, dst string, proto Protocol, port uint16) Question {
	q := Question{From: s.Vports[from], Protocol: proto, DstPort: port, ICMPType: 8}
	if v := s.Vports[dst]; v != nil {
		q.Dst = v.IPv4
	} else {
		q.Dst = netip.MustParseAddr(dst)
	}
	return q
}

// text is an explanation as the golden file has it.
func (x *Explanation) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s: %s\n", x.Packet, x.Verdict, x.Reason)
	for _, h := range x.Hops {
		fmt.Fprintf(&b, "  %-9s %s%s\n", h.Stage, h.Text, map[bool]string{true: " [dropped]"}[h.Dropped])
	}
	if x.Replies != nil {
		fmt.Fprintf(&b, "  replies   %s\n", x.Replies.Text)
	}
	if x.Remedy != nil {
		fmt.Fprintf(&b, "  remedy    %s\n", x.Remedy.Text)
		for _, st := range x.Remedy.Steps {
			fmt.Fprintf(&b, "            %s%s\n", st.Command, st.YAML)
		}
	}
	return b.String()
}

func TestExplain(t *testing.T) {
	s := explained(t)
	var b strings.Builder
	for _, q := range []Question{
		question(s, "web-1", "db-1", TCP, 5432), // by an entry, to another host
		question(s, "web-1", "db-1", TCP, 22),   // dropped by an entry: needs an entry
		question(s, "other", "db-1", TCP, 5432), // dropped, and a group would help
		question(s, "other", "web-1", TCP, 5432),
		question(s, "db-1", "db-2", ICMP, 0),
		question(s, "web-1", "10.34.49.1", ICMP, 0), // a gateway
		question(s, "web-1", "10.34.49.1", TCP, 80),
		question(s, "web-1", "10.34.49.77", TCP, 80),
		question(s, "web-1", "10.85.85.77", TCP, 80),
		question(s, "web-1", "198.51.100.1", TCP, 80),
		question(s, "web-1", "10.85.85.255", UDP, 9),
		question(s, "web-1", "224.0.0.251", UDP, 5353),
		question(s, "web-1", "down", TCP, 80),
		question(s, "web-1", "db-1", 47, 0),
	} {
		x := s.Explain(q)
		b.WriteString(x.text() + "\n")
		if x.Revision != 42 {
			t.Errorf("revision %d", x.Revision)
		}
	}
	golden(t, "testdata/explain.txt", b.String())
}

// A connection is opened by a message that asks: any other is judged by itself, and nothing
// answers it, whatever a stateful entry says.
func TestExplainICMP(t *testing.T) {
	s := explained(t)
	p := s.PolicyByName(s.Vports["web-1"].DomainID, "web-to-db")
	add := func(e Entry) {
		e.DomainID, e.PolicyID, e.Action, e.Protocol, e.From, e.To = p.DomainID, p.ID, Forward, ICMP, Side{Kind: SideAny}, Side{Kind: SideAny}
		e.ID = fmt.Sprint("entry ", e.Priority)
		s.Apply(Change{Key{KindEntry, e.ID}, &e})
	}
	ask := func(icmpType, code uint8) Explanation {
		q := question(s, "web-1", "db-1", ICMP, 0)
		q.ICMPType, q.ICMPCode = icmpType, code
		return s.Explain(q)
	}
	add(Entry{Priority: 1, Stateful: true})
	for _, c := range []struct{ icmpType, code uint8 }{{8, 0}, {13, 0}, {15, 0}} {
		if x := ask(c.icmpType, c.code); x.Verdict != VerdictAllow || x.Sent.Track != TrackNew || x.Replies == nil || !x.Replies.Allowed {
			t.Errorf("a question: %s", x.text())
		}
	}
	others := []struct{ icmpType, code uint8 }{{0, 0}, {3, 3}, {11, 0}, {14, 0}, {8, 1}}
	for _, c := range others {
		if x := ask(c.icmpType, c.code); x.Verdict != VerdictDrop || x.Sent.Track != TrackNone || x.Remedy == nil || !strings.Contains(x.Remedy.Steps[0].YAML, "stateful: false") {
			t.Errorf("no question: %s", x.text())
		}
	}
	add(Entry{Priority: 2})
	for _, c := range others {
		if x := ask(c.icmpType, c.code); x.Verdict != VerdictAllow || x.Replies != nil {
			t.Errorf("no question, allowed by itself: %s", x.text())
		}
	}
	s.Apply(Change{Key{KindEntry, "entry 1"}, nil})
	s.Apply(Change{Key{KindEntry, "entry 2"}, nil})
	add(Entry{Priority: 3, ICMPType: SomeByte(13)})
	add(Entry{Priority: 4, ICMPType: SomeByte(14)})
	if x := ask(13, 0); x.Replies == nil || !x.Replies.Allowed || !strings.Contains(x.Replies.Text, "entry 4") {
		t.Errorf("the answer to a timestamp is one: %s", x.text())
	}
}

// The command by which a vport joins a group takes a list of names, with commas.
func TestRemedyOfCommas(t *testing.T) {
	s := explained(t)
	g := *s.PolicyGroupByName(s.Vports["web-1"].DomainID, "web")
	g.Name = "web,too"
	s.Apply(Change{Key{KindPolicyGroup, g.ID}, &g})
	if x := s.Explain(question(s, "other", "db-1", TCP, 5432)); x.Remedy == nil || len(x.Remedy.Steps) != 1 || x.Remedy.Steps[0].YAML == "" {
		t.Errorf("%s", x.text())
	}
}

// What the default drops is allowed by an entry wherever there is room, of which there is
// none behind one of the last priority.
func TestRemedyFindsRoom(t *testing.T) {
	s := explained(t)
	p := *s.PolicyByName(s.Vports["web-1"].DomainID, "web-to-db")
	for _, e := range s.PolicyEntries(p.ID) {
		s.Apply(Change{Key{KindEntry, e.ID}, nil})
	}
	for priority, want := range map[uint32]string{MaxPriority: "before entry 1900000000", MaxPriority - 10: "add an entry 1900000000 to policy web-to-db, after all others"} {
		e := &Entry{Meta: Meta{ID: "e"}, DomainID: p.DomainID, PolicyID: p.ID, Priority: priority, Action: Deny, Protocol: TCP, From: Side{Kind: SideAny}, To: Side{Kind: SideAny}}
		s.Apply(Change{Key{KindEntry, e.ID}, e})
		if x := s.Explain(question(s, "web-1", "db-1", UDP, 53)); x.Remedy == nil || !strings.Contains(x.Remedy.Text, want) || len(x.Remedy.Steps) != 1 {
			t.Errorf("%d: %s", priority, x.text())
		}
	}
	for _, priority := range []uint32{0, 1} {
		e := &Entry{Meta: Meta{ID: fmt.Sprint("first ", priority)}, DomainID: p.DomainID, PolicyID: p.ID, Priority: priority, Action: Deny, Protocol: TCP, From: Side{Kind: SideAny}, To: Side{Kind: SideAny}}
		s.Apply(Change{Key{KindEntry, e.ID}, e})
	}
	if x := s.Explain(question(s, "web-1", "db-1", TCP, 22)); x.Remedy == nil || len(x.Remedy.Steps) != 0 || !strings.Contains(x.Remedy.Text, "policy web-to-db needs an entry before entry 0, and has no room") {
		t.Errorf("no room: %s", x.text())
	}
}

// A vport that could not be attached has no address to send to.
func TestExplainUnattached(t *testing.T) {
	s := explained(t)
	n := subnetOf(s, "VMSubnet")
	for _, name := range []string{"failed", "failed too"} {
		s.Apply(Change{Key{KindVport, name}, &Vport{Meta: Meta{ID: name}, Name: name, DomainID: n.DomainID, ZoneID: n.ZoneID, SubnetID: n.ID, Type: VportContainer,
			Host: "h1", Error: "no address left for " + name}})
	}
	x := s.Explain(Question{From: s.Vports["web-1"], To: s.Vports["failed too"], Protocol: TCP, DstPort: 80})
	if x.Verdict != VerdictDrop || x.To == nil || x.To.Vport != "failed too" || !strings.Contains(x.Reason, "no address left for failed too") {
		t.Errorf("%s", x.text())
	}
	x = s.Explain(Question{From: &Vport{Meta: Meta{ID: "nowhere"}, Name: "nowhere", Error: "no such zone"}, Dst: s.Vports["web-1"].IPv4, Protocol: TCP, DstPort: 80})
	if x.Verdict != VerdictDrop || !strings.Contains(x.Reason, "no such zone") {
		t.Errorf("%s", x.text())
	}
}

// golden compares a text with a file, which is written anew with NUAGE_GOLDEN=1.
func golden(t *testing.T, file, text string) {
	t.Helper()
	if os.Getenv("NUAGE_GOLDEN") == "1" {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s differs:\n%s", file, text)
	}
}

// TestRemedyHelps draws policies and questions: what a remedy says, done to the whole
// state, allows the packet, and explaining leaves the state as it was. A new entry allows no
// other vport anything.
func TestRemedyHelps(t *testing.T) {
	helped := 0
	rapid.Check(t, func(t *rapid.T) {
		s := explained(t)
		d := s.DomainByName(s.EnterpriseByName("DCEnterprise").ID, "App1")
		sides := []Side{{Kind: SideAny}, {Kind: SideSameDomain}, {Kind: SideCIDR, CIDR: netip.MustParsePrefix("10.85.0.0/16")},
			{Kind: SideZone, ID: s.ZoneByName(d.ID, "VMZone").ID}, {Kind: SidePolicyGroup, ID: s.PolicyGroupByName(d.ID, "web").ID}, {Kind: SidePolicyGroup, ID: s.PolicyGroupByName(d.ID, "db").ID}}
		for id, p := range s.Policies {
			now := *p
			now.Active = rapid.Bool().Draw(t, "active")
			now.DefaultAllowIP = rapid.Bool().Draw(t, "default")
			s.Apply(Change{Key{KindPolicy, id}, &now})
			for i := range rapid.IntRange(0, 4).Draw(t, "entries") {
				e := genEntry(t, sides)
				e.ID, e.DomainID, e.PolicyID, e.Priority = fmt.Sprintf("%s-%d", id, i), d.ID, id, uint32(30+i*rapid.IntRange(1, 3).Draw(t, "gap"))
				if rapid.IntRange(0, 7).Draw(t, "last") == 0 {
					e.Priority = MaxPriority
				}
				if e.Validate() == nil && s.EntryByPriority(id, e.Priority) == nil {
					s.Apply(Change{Key{KindEntry, e.ID}, &e})
				}
			}
		}
		vports := []string{"web-1", "db-1", "db-2", "other"}
		q := question(s, rapid.SampledFrom(vports).Draw(t, "from"), rapid.SampledFrom(vports).Draw(t, "to"),
			rapid.SampledFrom([]Protocol{TCP, UDP, ICMP, SCTP, 47}).Draw(t, "protocol"), rapid.SampledFrom([]uint16{22, 5432}).Draw(t, "port"))
		q.ICMPType = rapid.SampledFrom([]uint8{8, 8, 0, 3, 13}).Draw(t, "type")
		entries, members := len(s.Entries), fmt.Sprint(s.Vports["web-1"].PolicyGroups, s.Vports["other"].PolicyGroups)
		x := s.Explain(q)
		if len(s.Entries) != entries || fmt.Sprint(s.Vports["web-1"].PolicyGroups, s.Vports["other"].PolicyGroups) != members {
			t.Fatal("explaining changed the state")
		}
		if now := s.Verdict(q.From, x.Sent); x.Outcome.Decision != "" && (now.Decision != x.Outcome.Decision || now.Reason != x.Outcome.Reason) {
			t.Fatalf("the whole state says %+v, the part of it %+v", now, x.Outcome)
		}
		if x.Remedy == nil || len(x.Remedy.Steps) == 0 {
			return
		}
		helped++
		others := func() (all []string) {
			for _, from := range vports {
				for _, to := range vports {
					if from == q.From.ID && s.Vports[to].IPv4 == q.Dst {
						continue
					}
					o := question(s, from, to, q.Protocol, q.DstPort)
					o.ICMPType = q.ICMPType
					all = append(all, from+" "+to+" "+s.Explain(o).Verdict)
				}
			}
			return all
		}
		before, joined := others(), false
		for i, st := range x.Remedy.Steps {
			if st.YAML == "" {
				words := strings.Fields(st.Command) // nuagectl set vport ID policyGroups=…
				joined = true
				v := *s.Vports[words[3]]
				v.PolicyGroups = strings.Split(strings.TrimPrefix(words[4], "policyGroups="), ",")
				s.Apply(Change{Key{KindVport, v.ID}, &v})
				continue
			}
			p := s.PolicyByName(d.ID, st.Policy)
			docs := mustParse(t, fmt.Sprintf(inApp1+"policies:\n  - {name: %s, direction: %s, priority: %d, entries: [%s]}", p.Name, p.Direction, p.Priority, strings.TrimPrefix(st.YAML, "- ")))
			steps, err := Plan(s, docs, func() string { return fmt.Sprintf("00000000-0000-0000-eeee-%012d", i) })
			if err != nil {
				t.Fatalf("the remedy is no file for apply: %v", err)
			}
			execute(s, steps[:1]) // and none of the deletions
		}
		if o := s.Verdict(s.Vports[q.From.ID], x.Sent); o.Decision != Delivered {
			t.Fatalf("%s\nstill: %+v", x.text(), o)
		}
		if after := others(); !joined && !slices.Equal(before, after) {
			t.Fatalf("%sothers were\n%q\nand are\n%q", x.text(), before, after)
		}
	})
	if helped == 0 {
		t.Error("no remedy was ever found")
	}
}

// fataler is what a test and a property have in common.
type fataler interface {
	Helper()
	Fatal(...any)
}
