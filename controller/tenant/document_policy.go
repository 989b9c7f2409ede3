package tenant

import (
	"net/netip"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// MacroEntry is a network macro of a document.
type MacroEntry struct {
	Name        string
	Description *string
	Address     netip.Prefix
	Line        int
}

// GroupEntry is a policy group of a document.
type GroupEntry struct {
	Name        string
	Description *string
	Line        int
}

// PolicyEntry is a policy of a document. What is nil is not mentioned: an existing policy
// keeps it; a new one is active and allows nothing by default. Rules that are nil are left
// alone; others are all the rules that the policy is to have.
type PolicyEntry struct {
	Name              string    `yaml:"name"`
	Description       *string   `yaml:"description,omitempty"`
	Direction         Direction `yaml:"direction"`
	Priority          uint32    `yaml:"priority"`
	Active            *bool     `yaml:"active,omitempty"`
	DefaultAllowIP    *bool     `yaml:"defaultAllowIP,omitempty"`
	DefaultAllowNonIP *bool     `yaml:"defaultAllowNonIP,omitempty"`
	Rules             Rules     `yaml:"entries,omitempty"`
	Line              int       `yaml:"-"`
}

// Rules are the entries of a policy of a document.
type Rules []RuleEntry

// IsZero tells the encoder of nil from an empty list.
func (r Rules) IsZero() bool { return r == nil }

// RuleEntry is an entry of a policy of a document. It is always written whole: what it does
// not mention has its default.
type RuleEntry struct {
	// Entry has all but what goes by names: no ID, domain, policy and sides.
	Entry    Entry
	From, To SideEntry
	Line     int
}

// SideEntry is a Side by the name of what it names.
type SideEntry struct {
	Kind SideKind
	Name string
	CIDR netip.Prefix
}

// LimiterEntry is a rate limiter of a document, written whole. Name is of the object that it
// is on; empty for the domain.
type LimiterEntry struct {
	On          Kind
	Name        string
	Direction   Direction
	Rate, Burst uint64
	Line        int
}

func (p *documentParser) macro(n *yaml.Node) MacroEntry {
	m := MacroEntry{Line: n.Line}
	p.mapping(n, "network macro", map[string]func(*yaml.Node){
		"name":        func(n *yaml.Node) { m.Name = p.text(n, "name") },
		"description": func(n *yaml.Node) { m.Description = p.optional(n, "description") },
		"address":     func(n *yaml.Node) { m.Address = p.prefix(n, "address") },
	}, "name", "address")
	return m
}

// group is a name, or a mapping.
func (p *documentParser) group(n *yaml.Node) GroupEntry {
	g := GroupEntry{Line: n.Line}
	if n.Kind == yaml.ScalarNode {
		g.Name = p.text(n, "a policy group")
		return g
	}
	p.mapping(n, "policy group", map[string]func(*yaml.Node){
		"name":        func(n *yaml.Node) { g.Name = p.text(n, "name") },
		"description": func(n *yaml.Node) { g.Description = p.optional(n, "description") },
	}, "name")
	return g
}

func (p *documentParser) policy(n *yaml.Node) PolicyEntry {
	e := PolicyEntry{Line: n.Line}
	p.mapping(n, "policy", map[string]func(*yaml.Node){
		"name":              func(n *yaml.Node) { e.Name = p.text(n, "name") },
		"description":       func(n *yaml.Node) { e.Description = p.optional(n, "description") },
		"direction":         func(n *yaml.Node) { e.Direction = p.direction(n) },
		"priority":          func(n *yaml.Node) { e.Priority = p.priority(n) },
		"active":            func(n *yaml.Node) { e.Active = p.choice(n, "active") },
		"defaultAllowIP":    func(n *yaml.Node) { e.DefaultAllowIP = p.choice(n, "defaultAllowIP") },
		"defaultAllowNonIP": func(n *yaml.Node) { e.DefaultAllowNonIP = p.choice(n, "defaultAllowNonIP") },
		"entries": func(n *yaml.Node) {
			if e.Rules = list(p, n, "entries", p.rule); e.Rules == nil {
				e.Rules = Rules{}
			}
		},
	}, "name", "direction", "priority")
	return e
}

func (p *documentParser) rule(n *yaml.Node) RuleEntry {
	r := RuleEntry{Entry: Entry{Protocol: AnyProtocol}, From: SideEntry{Kind: SideAny}, To: SideEntry{Kind: SideAny}, Line: n.Line}
	e := &r.Entry
	var stateful *bool
	p.mapping(n, "policy entry", map[string]func(*yaml.Node){
		"priority":        func(n *yaml.Node) { e.Priority = p.priority(n) },
		"description":     func(n *yaml.Node) { e.Description = *orEmpty(p.optional(n, "description")) },
		"action":          func(n *yaml.Node) { e.Action = Action(strings.ToUpper(p.text(n, "action"))) },
		"protocol":        func(n *yaml.Node) { e.Protocol = read(p, n, "protocol", ParseProtocol) },
		"sourcePort":      func(n *yaml.Node) { e.SourcePort = read(p, n, "sourcePort", ParsePortRange) },
		"destinationPort": func(n *yaml.Node) { e.DestinationPort = read(p, n, "destinationPort", ParsePortRange) },
		"icmpType":        func(n *yaml.Node) { e.ICMPType = read(p, n, "icmpType", ParseOptionalByte) },
		"icmpCode":        func(n *yaml.Node) { e.ICMPCode = read(p, n, "icmpCode", ParseOptionalByte) },
		"dscp":            func(n *yaml.Node) { e.DSCP = read(p, n, "dscp", ParseOptionalByte) },
		"from":            func(n *yaml.Node) { r.From = p.side(n, "from") },
		"to":              func(n *yaml.Node) { r.To = p.side(n, "to") },
		"stateful":        func(n *yaml.Node) { stateful = p.choice(n, "stateful") },
		"statsLogging":    func(n *yaml.Node) { e.StatsLogging = *orEmpty(p.choice(n, "statsLogging")) },
		"flowLogging":     func(n *yaml.Node) { e.FlowLogging = *orEmpty(p.choice(n, "flowLogging")) },
	}, "priority", "action")
	if e.Stateful = e.defaultStateful(); stateful != nil {
		e.Stateful = *stateful
	}
	return r
}

// defaultStateful is what an entry that does not say is: stateful if it can be, and if that
// means anything.
func (e *Entry) defaultStateful() bool {
	return e.Action == Forward && e.DSCP == 0 && (e.Protocol == AnyProtocol || e.Protocol.Tracked())
}

var wholeSides = []SideKind{SideAny, SideSameZone, SideSameSubnet, SideSameDomain}

const sideForms = "any, sameZone, sameSubnet, sameDomain, {policyGroup: NAME}, {zone: NAME}, {subnet: NAME}, {networkMacro: NAME} or {cidr: PREFIX}"

func (p *documentParser) side(n *yaml.Node, key string) SideEntry {
	var s SideEntry
	named := func(k SideKind) func(*yaml.Node) {
		return func(n *yaml.Node) { s = SideEntry{Kind: k, Name: p.text(n, string(k))} }
	}
	if n.Kind == yaml.MappingNode && len(n.Content) == 2 {
		p.mapping(n, key, map[string]func(*yaml.Node){
			"policyGroup":  named(SidePolicyGroup),
			"zone":         named(SideZone),
			"subnet":       named(SideSubnet),
			"networkMacro": named(SideNetworkMacro),
			"cidr":         func(n *yaml.Node) { s = SideEntry{Kind: SideCIDR, CIDR: p.prefix(n, "cidr")} },
		})
		return s
	}
	for _, k := range wholeSides {
		if n.Kind == yaml.ScalarNode && n.Value == string(k) {
			return SideEntry{Kind: k}
		}
	}
	p.fail(n, "%s must be %s; found %s", key, sideForms, kindOf(n))
	return s
}

func (p *documentParser) limiter(n *yaml.Node) LimiterEntry {
	l := LimiterEntry{Line: n.Line}
	p.mapping(n, "rate limiter", map[string]func(*yaml.Node){
		"on":        func(n *yaml.Node) { l.On, l.Name = p.limited(n) },
		"direction": func(n *yaml.Node) { l.Direction = p.direction(n) },
		"rate":      func(n *yaml.Node) { l.Rate = read(p, n, "rate", ParseRate) },
		"burst":     func(n *yaml.Node) { l.Burst = read(p, n, "burst", ParseRate) },
	}, "on", "direction", "rate")
	return l
}

func (p *documentParser) limited(n *yaml.Node) (on Kind, name string) {
	called := func(k Kind) func(*yaml.Node) { return func(n *yaml.Node) { on, name = k, p.text(n, k.Noun()) } }
	switch {
	case n.Kind == yaml.ScalarNode && n.Value == "domain":
		return KindDomain, ""
	case n.Kind == yaml.MappingNode && len(n.Content) == 2:
		p.mapping(n, "on", map[string]func(*yaml.Node){"vport": called(KindVport), "subnet": called(KindSubnet), "zone": called(KindZone)})
	default:
		p.fail(n, "on must be domain, {zone: NAME}, {subnet: NAME} or {vport: NAME}; found %s", kindOf(n))
	}
	return on, name
}

func (p *documentParser) direction(n *yaml.Node) Direction {
	d := Direction(strings.ToLower(p.text(n, "direction")))
	if d != "" && !d.valid() {
		p.fail(n, "direction %q is neither ingress (from the vport into the network) nor egress (from the network to the vport)", n.Value)
	}
	return d
}

func (p *documentParser) priority(n *yaml.Node) uint32 {
	return read(p, n, "priority", func(s string) (uint32, error) {
		v, err := strconv.ParseUint(s, 10, 32)
		if err != nil || v > MaxPriority {
			return 0, Errorf(ErrInvalid, "%q is not a whole number from 0 to %d", s, MaxPriority)
		}
		return uint32(v), nil
	})
}

// choice is true or false.
func (p *documentParser) choice(n *yaml.Node, key string) *bool {
	var v bool
	switch n.Value {
	case "true":
		v = true
	case "false":
	default:
		p.fail(n, "%s must be true or false, found %s", key, kindOf(n))
	}
	return &v
}

// read is a required scalar in the form that parse knows.
func read[T any](p *documentParser, n *yaml.Node, key string, parse func(string) (T, error)) (v T) {
	t := p.text(n, key)
	if t == "" {
		return v
	}
	v, err := parse(t)
	if err != nil {
		p.fail(n, "%s: %v", key, err)
	}
	return v
}

// orEmpty is the value, or the empty one in the place of nil.
func orEmpty[T any](v *T) *T {
	if v == nil {
		return new(T)
	}
	return v
}
