package tenant

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Remedy is a change that would allow what is dropped. It was tried on a copy of the state.
type Remedy struct {
	// Text says what to do. A remedy without Steps is advice that was not tried.
	Text  string       `json:"text"`
	Steps []RemedyStep `json:"steps,omitempty"`
}

// RemedyStep is one change.
type RemedyStep struct {
	Text string `json:"text"`
	// Command is for a shell, or YAML a line for the entries of Policy in a file for apply.
	Command string `json:"command,omitempty"`
	Policy  string `json:"policy,omitempty"`
	YAML    string `json:"yaml,omitempty"`
}

// advice is for drops that no policy is the reason of.
var advice = map[Reason]string{
	ReasonSpoofedIP:      "give the vport the address as a virtual IP (nuagectl set vport NAME virtualIPs=ADDRESS), or let it send from any (addressSpoofing=ENABLED)",
	ReasonToGateway:      "a gateway answers ICMP echo and nothing else",
	ReasonUnknownAddress: "no vport of the domain has the address: see nuagectl get vports",
	ReasonOutside:        "nothing leaves a domain: the address is in none of its subnets",
	ReasonNoTunnel:       "a host has no VTEP: see nuagectl get hosts, and nuagectl status there",
	ReasonHairpin:        "a vport gets nothing back that it sends to itself through the gateway",
	ReasonBroadcast:      "nothing is sent to many at once: broadcast and multicast are dropped",
}

// remedy finds the smallest change of policy that allows a packet: that a vport joins a
// group whose members an entry allows already, or else a new entry. The state is a small
// one of the whole (see around), and ends as it was.
func (s *State) remedy(whole *State, from, to *Vport, sent Packet, o Outcome) *Remedy {
	if o.Ingress == nil || to == nil {
		if text := advice[o.Reason]; text != "" {
			return &Remedy{Text: text}
		}
		return nil
	}
	trial := &trial{State: s, whole: whole, from: from, to: to, sent: sent}
	defer trial.undo()
	if step, ok := trial.join(func(o Outcome) bool { return o.Decision == Delivered }); ok {
		return sum([]RemedyStep{step})
	}
	var steps []RemedyStep
	for range 2 { // one for each direction
		now := trial.verdict()
		if now.Decision == Delivered {
			break
		}
		failing := now.Ingress
		if failing.Allowed {
			failing = now.Egress
		}
		step, ok := trial.join(func(o Outcome) bool {
			return failing.Direction == Ingress && o.Ingress.Allowed && o.Egress.Allowed == now.Egress.Allowed || failing.Direction == Egress && o.Decision == Delivered
		})
		if !ok {
			step, ok = trial.insert(failing)
		}
		if !ok {
			return &Remedy{Text: fmt.Sprintf("policy %s needs an entry %s, and has no room for one: renumber its entries", failing.Policy.Name, step.Text)}
		}
		steps = append(steps, step)
	}
	if trial.verdict().Decision != Delivered {
		return nil
	}
	return sum(steps)
}

func sum(steps []RemedyStep) *Remedy {
	var texts []string
	for _, s := range steps {
		texts = append(texts, s.Text)
	}
	return &Remedy{strings.Join(texts, ", and "), steps}
}

// trial changes a state and can take it back.
type trial struct {
	*State
	whole    *State
	from, to *Vport
	sent     Packet
	back     []Change
}

func (t *trial) apply(k Key, before, after any) {
	t.back = append(t.back, Change{k, before})
	t.Apply(Change{k, after})
}

func (t *trial) undo() {
	for _, c := range slices.Backward(t.back) {
		t.Apply(c)
	}
	t.back = nil
}

func (t *trial) verdict() Outcome { return t.Verdict(t.Vports[t.from.ID], t.sent) }

// join finds a group that would help if one of the two vports were in it, and leaves the
// vport there. Of several it takes the one that the fewest entries name.
func (t *trial) join(enough func(Outcome) bool) (RemedyStep, bool) {
	type candidate struct {
		vport *Vport
		group *PolicyGroup
		named int
	}
	named := map[string]map[bool]int{} // group → as from, or as to
	total := map[string]int{}
	for _, e := range t.Entries {
		for _, side := range []struct {
			Side
			from bool
		}{{e.From, true}, {e.To, false}} {
			if side.Kind != SidePolicyGroup {
				continue
			}
			total[side.ID]++
			if e.Action == Forward && (e.Protocol == AnyProtocol || uint8(e.Protocol) == t.sent.Protocol) {
				if named[side.ID] == nil {
					named[side.ID] = map[bool]int{}
				}
				named[side.ID][side.from]++
			}
		}
	}
	var cs []candidate
	for id, sides := range named {
		g := t.PolicyGroups[id]
		for _, v := range []*Vport{t.from, t.to} {
			v = t.Vports[v.ID]
			if g == nil || v == nil || sides[v.ID == t.from.ID] == 0 || slices.Contains(v.PolicyGroups, g.Name) {
				continue
			}
			if !strings.Contains(strings.Join(append(slices.Clip(v.PolicyGroups), g.Name), ""), ",") { // the command has a list
				cs = append(cs, candidate{v, g, total[id]})
			}
		}
	}
	slices.SortFunc(cs, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.named, b.named), cmp.Compare(a.group.Name, b.group.Name), cmp.Compare(a.vport.Name, b.vport.Name))
	})
	for _, c := range cs {
		with := *c.vport
		with.PolicyGroups = append(slices.Clone(with.PolicyGroups), c.group.Name)
		k := Key{KindVport, with.ID}
		t.apply(k, c.vport, &with)
		if enough(t.verdict()) {
			return RemedyStep{
				Text:    fmt.Sprintf("put vport %s into policy group %s", with.Name, c.group.Name),
				Command: fmt.Sprintf("nuagectl set vport %s policyGroups=%s", with.ID, quoted(strings.Join(with.PolicyGroups, ","))),
			}, true
		}
		t.Apply(Change{k, c.vport})
		t.back = t.back[:len(t.back)-1]
	}
	return RemedyStep{}, false
}

// quoted is a word for a shell.
func quoted(s string) string {
	plain := func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_.,:@/", r))
	}
	if strings.IndexFunc(s, plain) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// insert puts an entry for just this packet before the one that decides, or at the end of
// the policy whose default does.
func (t *trial) insert(failing *Ruling) (RemedyStep, bool) {
	e := &Entry{Meta: Meta{ID: "remedy " + string(failing.Direction)}, DomainID: failing.Policy.DomainID, PolicyID: failing.Policy.ID,
		Action: Forward, Protocol: Protocol(t.sent.Protocol), From: t.side(t.from, t.sent.Src), To: t.side(t.to, t.sent.Dst)}
	if e.Protocol.HasPorts() {
		e.DestinationPort = PortRange{t.sent.DstPort, t.sent.DstPort}
		if t.sent.DstPort == 0 {
			e.DestinationPort = PortRange{}
		}
	}
	if e.Protocol == ICMP {
		e.ICMPType, e.ICMPCode = SomeByte(t.sent.ICMPType), SomeByte(t.sent.ICMPCode)
	}
	e.Stateful = e.defaultStateful() && (t.sent.Track != TrackNone || !e.Protocol.Tracked())
	var where string
	var ok bool
	if e.Priority, where, ok = t.room(failing); !ok {
		return RemedyStep{Text: where}, false
	}
	t.apply(Key{KindEntry, e.ID}, nil, e)
	text, err := oneLineText(t.RuleOf(e))
	if err != nil {
		return RemedyStep{Text: where}, false
	}
	return RemedyStep{Text: fmt.Sprintf("add an entry %d to policy %s, %s", e.Priority, failing.Policy.Name, where),
		Policy: failing.Policy.Name, YAML: "- " + text}, true
}

// room is a free priority for an entry that is to be asked before the one that decides, or
// before the default.
func (t *trial) room(failing *Ruling) (priority uint32, where string, ok bool) {
	entries := t.PolicyEntries(failing.Policy.ID)
	i := len(entries) - 1
	if failing.Entry == nil {
		last := uint32(0)
		if i >= 0 {
			last = entries[i].Priority
		}
		if last <= MaxPriority-10 {
			return last + 10, "after all others", true
		}
	} else {
		i = slices.IndexFunc(entries, func(e *Entry) bool { return e.ID == failing.Entry.ID })
	}
	where = fmt.Sprintf("before entry %d", entries[i].Priority)
	for ; i >= 0; i-- {
		before := uint32(0) // the lowest priority that is still free
		if i > 0 {
			before = entries[i-1].Priority + 1
		}
		if p := entries[i].Priority; before < p {
			return before + (p-before)/2, where, true
		}
	}
	return 0, where, false
}

// side names one end as closely as entries can: by a group that it alone is in, else by its
// address. With a group of many the entry would open more than was asked for.
func (t *trial) side(v *Vport, a netip.Addr) Side {
	for _, name := range v.PolicyGroups {
		members := 0
		t.whole.Children(MemberKey(v.DomainID, name), KindVport, func(string) { members++ })
		if g := t.PolicyGroupByName(v.DomainID, name); g != nil && a == v.IPv4 && members == 1 {
			return Side{Kind: SidePolicyGroup, ID: g.ID}
		}
	}
	return Side{Kind: SideCIDR, CIDR: netip.PrefixFrom(a, 32)}
}
