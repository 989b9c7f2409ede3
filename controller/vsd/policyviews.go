package vsd

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"nuage/controller/tenant"
)

// PolicyGroupView is a policy group. Entries are those that name it.
type PolicyGroupView struct {
	Place
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Description string    `json:"description,omitempty"`
	Members     []string  `json:"members"`
	Entries     int       `json:"entries"`
	Created     time.Time `json:"created"`
}

// NetworkMacroView is a network macro.
type NetworkMacroView struct {
	Place
	ID          string       `json:"id"`
	Name        string       `json:"name"`
	Description string       `json:"description,omitempty"`
	Address     netip.Prefix `json:"address"`
	Entries     int          `json:"entries"`
	Created     time.Time    `json:"created"`
}

// PolicyView is a policy with its entries, in order. Default has what its default decided.
type PolicyView struct {
	Place
	ID                string           `json:"id"`
	Name              string           `json:"name"`
	Description       string           `json:"description,omitempty"`
	Direction         tenant.Direction `json:"direction"`
	Priority          uint32           `json:"priority"`
	Active            bool             `json:"active"`
	DefaultAllowIP    bool             `json:"defaultAllowIP"`
	DefaultAllowNonIP bool             `json:"defaultAllowNonIP"`
	Entries           []EntryView      `json:"entries"`
	Default           tenant.Counter   `json:"default"`
	Created           time.Time        `json:"created"`
}

// EntryView is an entry of a policy, with what it has decided on all hosts as far as they
// keep count; without statsLogging they do not.
type EntryView struct {
	Place
	ID string `json:"id"`
	// Policy and Direction are told of an entry that is not shown within its policy.
	Policy       string           `json:"policy,omitempty"`
	Direction    tenant.Direction `json:"direction,omitempty"`
	Priority     uint32           `json:"priority"`
	Action       tenant.Action    `json:"action"`
	Match        string           `json:"match"`
	From         string           `json:"from"`
	To           string           `json:"to"`
	Stateful     bool             `json:"stateful"`
	StatsLogging bool             `json:"statsLogging"`
	FlowLogging  bool             `json:"flowLogging"`
	Description  string           `json:"description,omitempty"`
	Counter      tenant.Counter   `json:"counter"`
}

// RateLimiterView is a rate limiter. On is what it is on, in words.
type RateLimiterView struct {
	Place
	ID        string           `json:"id"`
	Name      string           `json:"name"`
	On        string           `json:"on"`
	Direction tenant.Direction `json:"direction"`
	Rate      string           `json:"rate"`
	Burst     string           `json:"burst"`
	Created   time.Time        `json:"created"`
}

// sums are the counters of all hosts, added up by object.
type sums struct {
	entries, defaults, limited map[string]tenant.Counter
	spoofed                    map[string]tenant.Counter // by vport
	overLimit                  map[string]tenant.Counter // by domain
}

// spoofs are the reasons for which the guard drops what a vport should never send.
var spoofs = []tenant.Reason{tenant.ReasonSpoofedIP, tenant.ReasonSpoofedARP, tenant.ReasonDHCPServer}

func addUp(s *tenant.State) sums {
	c := sums{map[string]tenant.Counter{}, map[string]tenant.Counter{}, map[string]tenant.Counter{}, map[string]tenant.Counter{}, map[string]tenant.Counter{}}
	add := func(to map[string]tenant.Counter, id string, n tenant.Counter) {
		sum := to[id]
		to[id] = tenant.Counter{Packets: sum.Packets + n.Packets, Bytes: sum.Bytes + n.Bytes}
	}
	for _, told := range s.Counters {
		for to, from := range map[*map[string]tenant.Counter]map[string]tenant.Counter{&c.entries: told.Entries, &c.defaults: told.Defaults, &c.limited: told.Limited} {
			for id, n := range from {
				add(*to, id, n)
			}
		}
		for id, drops := range told.Drops {
			for _, reason := range spoofs {
				add(c.spoofed, id, drops[reason])
			}
			add(c.overLimit, id, drops[tenant.ReasonTooManyConnections])
		}
	}
	return c
}

func groupRows(s *tenant.State) (rows []row) {
	for id, g := range s.PolicyGroups {
		p := placeOf(s, g.DomainID, "", "")
		v := PolicyGroupView{p, id, g.Name, g.Description, members(s, g), count(s, tenant.KindPolicyGroup, id, tenant.KindEntry), g.Created}
		rows = append(rows, row{p, g.Name, id, "", v, ""})
	}
	return rows
}

// members are the names of a group's vports.
func members(s *tenant.State, g *tenant.PolicyGroup) []string {
	names := []string{}
	s.Children(tenant.MemberKey(g.DomainID, g.Name), tenant.KindVport, func(id string) { names = append(names, s.Vports[id].Name) })
	slices.Sort(names)
	return names
}

func macroRows(s *tenant.State) (rows []row) {
	for id, m := range s.NetworkMacros {
		p := Place{Enterprise: m.EnterpriseID}
		if e := s.Enterprises[m.EnterpriseID]; e != nil {
			p.Enterprise = e.Name
		}
		rows = append(rows, row{p, m.Name, id, "", NetworkMacroView{p, id, m.Name, m.Description, m.CIDR, count(s, tenant.KindNetworkMacro, id, tenant.KindEntry), m.Created}, ""})
	}
	return rows
}

func policyRows(s *tenant.State) (rows []row) {
	sums := addUp(s)
	for id, o := range s.Policies {
		p := placeOf(s, o.DomainID, "", "")
		v := PolicyView{p, id, o.Name, o.Description, o.Direction, o.Priority, o.Active, o.DefaultAllowIP, o.DefaultAllowNonIP, []EntryView{}, sums.defaults[id], o.Created}
		for _, e := range s.PolicyEntries(id) {
			v.Entries = append(v.Entries, entryView(s, e, sums))
		}
		rows = append(rows, row{p, o.Name, id, "", v, asked(o)})
	}
	return rows
}

// asked orders policies as they are asked: those of the sender first, then by priority.
func asked(p *tenant.Policy) string {
	first := map[tenant.Direction]int{tenant.Ingress: 0, tenant.Egress: 1}
	return fmt.Sprintf("%d %010d %s", first[p.Direction], p.Priority, p.ID)
}

func entryView(s *tenant.State, e *tenant.Entry, sums sums) EntryView {
	r := s.RuleOf(e)
	return EntryView{ID: e.ID, Priority: e.Priority, Action: e.Action, Match: e.Match(), From: r.From.String(), To: r.To.String(),
		Stateful: e.Stateful, StatsLogging: e.StatsLogging, FlowLogging: e.FlowLogging, Description: e.Description, Counter: sums.entries[e.ID]}
}

func entryRows(s *tenant.State) (rows []row) {
	sums := addUp(s)
	for id, e := range s.Entries {
		p := placeOf(s, e.DomainID, "", "")
		v := entryView(s, e, sums)
		v.Place, v.Policy = p, e.PolicyID
		order := ""
		if o := s.Policies[e.PolicyID]; o != nil {
			v.Policy, v.Direction, order = o.Name, o.Direction, asked(o)
		}
		rows = append(rows, row{p, fmt.Sprintf("%s/%d", v.Policy, e.Priority), id, "", v, order + fmt.Sprintf(" %010d", e.Priority)})
	}
	return rows
}

func limiterRows(s *tenant.State) (rows []row) {
	for id, l := range s.RateLimiters {
		p := placeOf(s, l.DomainID, "", "")
		on := s.LimiterTarget(l)
		name := on + " " + string(l.Direction)
		rows = append(rows, row{p, name, id, strings.TrimPrefix(name, "domain "), RateLimiterView{p, id, name, on, l.Direction,
			tenant.FormatRate(l.Rate), tenant.FormatRate(l.BurstBits()), l.Created}, ""})
	}
	return rows
}
