package tenant

import (
	"fmt"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// MarshalYAML is one line.
func (m MacroEntry) MarshalYAML() (any, error) {
	return oneLine(struct {
		Name        string  `yaml:"name"`
		Description *string `yaml:"description,omitempty"`
		Address     string  `yaml:"address"`
	}{m.Name, m.Description, m.Address.String()})
}

// MarshalYAML is the name alone where that is all.
func (g GroupEntry) MarshalYAML() (any, error) {
	if g.Description == nil {
		return g.Name, nil
	}
	return oneLine(struct {
		Name        string  `yaml:"name"`
		Description *string `yaml:"description"`
	}{g.Name, g.Description})
}

// MarshalYAML is one line, which leaves out what has its default.
func (r RuleEntry) MarshalYAML() (any, error) {
	e := r.Entry
	text := func(v fmt.Stringer, absent string) string {
		if s := v.String(); s != absent {
			return s
		}
		return ""
	}
	var stateful *bool
	if e.Stateful != e.defaultStateful() {
		stateful = &e.Stateful
	}
	return oneLine(struct {
		Priority        uint32    `yaml:"priority"`
		Action          Action    `yaml:"action"`
		Protocol        string    `yaml:"protocol"`
		SourcePort      string    `yaml:"sourcePort,omitempty"`
		DestinationPort string    `yaml:"destinationPort,omitempty"`
		ICMPType        string    `yaml:"icmpType,omitempty"`
		ICMPCode        string    `yaml:"icmpCode,omitempty"`
		DSCP            string    `yaml:"dscp,omitempty"`
		From            SideEntry `yaml:"from"`
		To              SideEntry `yaml:"to"`
		Stateful        *bool     `yaml:"stateful,omitempty"`
		StatsLogging    bool      `yaml:"statsLogging,omitempty"`
		FlowLogging     bool      `yaml:"flowLogging,omitempty"`
		Description     string    `yaml:"description,omitempty"`
	}{e.Priority, e.Action, e.Protocol.String(), text(e.SourcePort, "*"), text(e.DestinationPort, "*"),
		text(e.ICMPType, "*"), text(e.ICMPCode, "*"), text(e.DSCP, "*"), r.From, r.To, stateful, e.StatsLogging, e.FlowLogging, e.Description})
}

// MarshalYAML is a word or {kind: name}.
func (s SideEntry) MarshalYAML() (any, error) {
	switch s.Kind {
	case SideCIDR:
		return map[string]string{string(s.Kind): s.CIDR.String()}, nil
	case SidePolicyGroup, SideZone, SideSubnet, SideNetworkMacro:
		return map[string]string{string(s.Kind): s.Name}, nil
	}
	return string(s.Kind), nil
}

// MarshalYAML is one line.
func (l LimiterEntry) MarshalYAML() (any, error) {
	var on any = "domain"
	if l.On != KindDomain {
		on = map[string]string{l.On.Noun(): l.Name}
	}
	burst := ""
	if l.Burst != 0 {
		burst = FormatRate(l.Burst)
	}
	return oneLine(struct {
		On        any       `yaml:"on"`
		Direction Direction `yaml:"direction"`
		Rate      string    `yaml:"rate"`
		Burst     string    `yaml:"burst,omitempty"`
	}{on, l.Direction, FormatRate(l.Rate), burst})
}

// oneLine is a mapping in braces.
func oneLine(v any) (any, error) {
	var n yaml.Node
	if err := n.Encode(v); err != nil {
		return nil, err
	}
	flow(&n)
	return &n, nil
}

func flow(n *yaml.Node) {
	n.Style &^= yaml.LiteralStyle | yaml.FoldedStyle
	if n.Kind == yaml.MappingNode {
		n.Style = yaml.FlowStyle
	}
	for _, c := range n.Content {
		flow(c)
	}
}

// String is the side in words: "any", "policy group web", "10.0.0.0/8", "same zone".
func (s SideEntry) String() string {
	switch s.Kind {
	case SideCIDR:
		return s.CIDR.String()
	case SideSameZone:
		return "same zone"
	case SideSameSubnet:
		return "same subnet"
	case SideSameDomain:
		return "same domain"
	case SideAny:
		return "any"
	case SidePolicyGroup:
		return "policy group " + s.Name
	case SideNetworkMacro:
		return "network macro " + s.Name
	}
	return string(s.Kind) + " " + s.Name
}

// Match is what packets the entry is for, beside its sides, in words: "tcp 80-90",
// "icmp type 8", "udp from port 53".
func (e *Entry) Match() string {
	parts := []string{e.Protocol.String()}
	add := func(v fmt.Stringer, prefix string) {
		if t := v.String(); t != "*" {
			parts = append(parts, prefix+t)
		}
	}
	add(e.DestinationPort, "")
	add(e.SourcePort, "from port ")
	add(e.ICMPType, "type ")
	add(e.ICMPCode, "code ")
	add(e.DSCP, "dscp ")
	return strings.Join(parts, " ")
}

// String is the entry without its priority, in words.
func (r RuleEntry) String() string {
	e := r.Entry
	text := fmt.Sprintf("%s %s, from %s to %s", e.Action, e.Match(), r.From, r.To)
	for _, option := range []struct {
		on   bool
		name string
	}{{e.Action == Forward && e.Stateful, "stateful"}, {e.Action == Forward && !e.Stateful, "stateless"}, {e.StatsLogging, "statsLogging"}, {e.FlowLogging, "flowLogging"}} {
		if option.on {
			text += ", " + option.name
		}
	}
	if e.Description != "" {
		text += fmt.Sprintf(", description %q", e.Description)
	}
	return text
}

// oneLineText is a rule as a line of a file.
func oneLineText(r RuleEntry) (string, error) {
	text, err := yaml.Marshal(r)
	return strings.TrimSpace(string(text)), err
}
