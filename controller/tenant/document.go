package tenant

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// Document is what a user asks an enterprise to contain: the apply format. What a
// document does not mention is left alone.
type Document struct {
	Enterprise    string        `yaml:"enterprise"`
	Description   *string       `yaml:"description,omitempty"`
	NetworkMacros []MacroEntry  `yaml:"networkMacros,omitempty"`
	Domains       []DomainEntry `yaml:"domains,omitempty"`
	// Line is where the document begins in its text.
	Line int `yaml:"-"`
}

// DomainEntry is a domain of a document. A nil Description is one not mentioned.
type DomainEntry struct {
	Name         string         `yaml:"name"`
	Description  *string        `yaml:"description,omitempty"`
	Zones        []ZoneEntry    `yaml:"zones,omitempty"`
	PolicyGroups []GroupEntry   `yaml:"policyGroups,omitempty"`
	Policies     []PolicyEntry  `yaml:"policies,omitempty"`
	RateLimiters []LimiterEntry `yaml:"rateLimiters,omitempty"`
	Line         int            `yaml:"-"`
}

// ZoneEntry is a zone of a document.
type ZoneEntry struct {
	Name        string        `yaml:"name"`
	Description *string       `yaml:"description,omitempty"`
	Subnets     []SubnetEntry `yaml:"subnets,omitempty"`
	Line        int           `yaml:"-"`
}

// SubnetEntry is a subnet of a document. An invalid Gateway is one not mentioned: the
// first host address for a new subnet, unchanged for an existing one.
type SubnetEntry struct {
	Name        string
	Description *string
	Address     netip.Prefix
	Gateway     netip.Addr
	Line        int
}

// MarshalYAML leaves out a gateway that is not mentioned: to the encoder every
// netip.Addr looks empty.
func (s SubnetEntry) MarshalYAML() (any, error) {
	type plain struct {
		Name        string  `yaml:"name"`
		Description *string `yaml:"description,omitempty"`
		Address     string  `yaml:"address"`
		Gateway     string  `yaml:"gateway,omitempty"`
	}
	p := plain{Name: s.Name, Description: s.Description, Address: s.Address.String()}
	if s.Gateway.IsValid() {
		p.Gateway = s.Gateway.String()
	}
	return p, nil
}

// ParseDocuments reads the apply format: YAML documents separated by "---". It is
// strict: a key that it does not know, a key given twice and a value of the wrong form
// are errors, all of them reported at once, each with its line. The result is
// well-formed; whether its names and addresses are acceptable is for Plan to say.
func ParseDocuments(text []byte) ([]Document, error) {
	var p documentParser
	var docs []Document
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var root yaml.Node
		err := dec.Decode(&root)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			p.errs = append(p.errs, Errorf(ErrInvalid, "the file is not YAML: %s%s", strings.TrimPrefix(err.Error(), "yaml: "), tabbed(text)))
			break
		}
		if len(root.Content) != 1 || isNull(root.Content[0]) {
			continue // nothing between two separators
		}
		docs = append(docs, p.document(root.Content[0]))
	}
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	if len(docs) == 0 {
		return nil, Errorf(ErrInvalid, "the file contains no document")
	}
	return docs, nil
}

// indentedByTab is a line that YAML takes for no line of its own.
var indentedByTab = regexp.MustCompile(`(?m)^ *\t`)

// tabbed names the mistake that YAML's errors do not name.
func tabbed(text []byte) string {
	at := indentedByTab.FindIndex(text)
	if at == nil {
		return ""
	}
	return fmt.Sprintf(" (line %d is indented by a tab: only spaces count)", 1+bytes.Count(text[:at[0]], []byte("\n")))
}

// FormatDocuments is the text that ParseDocuments reads back as docs; none for none.
func FormatDocuments(docs []Document) ([]byte, error) {
	if len(docs) == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	for _, d := range docs {
		if err := enc.Encode(d); err != nil {
			return nil, fmt.Errorf("document of enterprise %s: %w", d.Enterprise, err)
		}
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("documents: %w", err)
	}
	return b.Bytes(), nil
}

// documentParser walks the nodes of YAML, which know their lines, and collects errors.
type documentParser struct{ errs []error }

func (p *documentParser) fail(n *yaml.Node, format string, args ...any) {
	p.errs = append(p.errs, Errorf(ErrInvalid, "line %d: %s", n.Line, fmt.Sprintf(format, args...)))
}

func (p *documentParser) document(n *yaml.Node) Document {
	d := Document{Line: n.Line}
	p.mapping(n, "document", map[string]func(*yaml.Node){
		"enterprise":    func(n *yaml.Node) { d.Enterprise = p.text(n, "enterprise") },
		"description":   func(n *yaml.Node) { d.Description = p.optional(n, "description") },
		"networkMacros": func(n *yaml.Node) { d.NetworkMacros = list(p, n, "networkMacros", p.macro) },
		"domains":       func(n *yaml.Node) { d.Domains = list(p, n, "domains", p.domain) },
	}, "enterprise")
	return d
}

func (p *documentParser) domain(n *yaml.Node) DomainEntry {
	d := DomainEntry{Line: n.Line}
	p.mapping(n, "domain", map[string]func(*yaml.Node){
		"name":         func(n *yaml.Node) { d.Name = p.text(n, "name") },
		"description":  func(n *yaml.Node) { d.Description = p.optional(n, "description") },
		"zones":        func(n *yaml.Node) { d.Zones = list(p, n, "zones", p.zone) },
		"policyGroups": func(n *yaml.Node) { d.PolicyGroups = list(p, n, "policyGroups", p.group) },
		"policies":     func(n *yaml.Node) { d.Policies = list(p, n, "policies", p.policy) },
		"rateLimiters": func(n *yaml.Node) { d.RateLimiters = list(p, n, "rateLimiters", p.limiter) },
	}, "name")
	return d
}

func (p *documentParser) zone(n *yaml.Node) ZoneEntry {
	z := ZoneEntry{Line: n.Line}
	p.mapping(n, "zone", map[string]func(*yaml.Node){
		"name":        func(n *yaml.Node) { z.Name = p.text(n, "name") },
		"description": func(n *yaml.Node) { z.Description = p.optional(n, "description") },
		"subnets":     func(n *yaml.Node) { z.Subnets = list(p, n, "subnets", p.subnet) },
	}, "name")
	return z
}

func (p *documentParser) subnet(n *yaml.Node) SubnetEntry {
	s := SubnetEntry{Line: n.Line}
	p.mapping(n, "subnet", map[string]func(*yaml.Node){
		"name":        func(n *yaml.Node) { s.Name = p.text(n, "name") },
		"description": func(n *yaml.Node) { s.Description = p.optional(n, "description") },
		"address":     func(n *yaml.Node) { s.Address = p.prefix(n, "address") },
		"gateway": func(n *yaml.Node) {
			var err error
			if t := p.text(n, "gateway"); t != "" {
				if s.Gateway, err = netip.ParseAddr(t); err != nil {
					p.fail(n, "gateway %q is not an address such as 10.85.85.1", t)
				}
			}
		},
	}, "name", "address")
	return s
}

func (p *documentParser) prefix(n *yaml.Node, key string) netip.Prefix {
	t := p.text(n, key)
	prefix, err := netip.ParsePrefix(t)
	if err != nil && t != "" {
		p.fail(n, "%s %q is not a network such as 10.85.85.0/24", key, t)
	}
	return prefix
}

// mapping calls the function of each key of n with the key's value.
func (p *documentParser) mapping(n *yaml.Node, what string, keys map[string]func(*yaml.Node), required ...string) {
	if n.Kind != yaml.MappingNode {
		p.fail(n, "a %s must have keys (%s …), found %s", what, strings.Join(required, ", "), kindOf(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch f := keys[k.Value]; {
		case k.Kind != yaml.ScalarNode:
			p.fail(k, "a key of a %s must be a word, found %s", what, kindOf(k))
		case f == nil:
			p.fail(k, "a %s has no key %q: it has %s", what, k.Value, strings.Join(slices.Sorted(maps.Keys(keys)), ", "))
		case seen[k.Value]:
			p.fail(k, "key %q is given twice", k.Value)
		default:
			f(v)
		}
		seen[k.Value] = true
	}
	for _, r := range required {
		if !seen[r] {
			p.fail(n, "a %s needs the key %q", what, r)
		}
	}
}

// text is a required scalar. Any plain word counts as text: a zone may be called 10 or on.
func (p *documentParser) text(n *yaml.Node, key string) string {
	if n.Kind != yaml.ScalarNode || isNull(n) || n.Value == "" {
		p.fail(n, "%s must be text, found %s", key, kindOf(n))
		return ""
	}
	return n.Value
}

func (p *documentParser) optional(n *yaml.Node, key string) *string {
	if n.Kind != yaml.ScalarNode {
		p.fail(n, "%s must be text, found %s", key, kindOf(n))
		return nil
	}
	if isNull(n) {
		return new(string)
	}
	return &n.Value
}

func list[T any](p *documentParser, n *yaml.Node, key string, item func(*yaml.Node) T) []T {
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		p.fail(n, "%s must be a list (lines beginning with \"- \"), found %s", key, kindOf(n))
		return nil
	}
	items := make([]T, 0, len(n.Content))
	for _, c := range n.Content {
		items = append(items, item(c))
	}
	return items
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias (aliases are not part of this format)"
	case isNull(n) || n.Value == "":
		return "nothing"
	}
	return fmt.Sprintf("%q", n.Value)
}
