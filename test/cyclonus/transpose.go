package cyclonus

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Kubernetes' policies only allow, and a pod that one selects is closed to all else. Here
// that is: an entry FORWARD for every rule, behind them an entry DROP for every pod that is
// selected, and a default that allows. Kubernetes' ingress, into the pod, is egress here.

// groupNames are the policy groups that a case may use.
var groupNames = func() (names []string) {
	for i := range 16 {
		names = append(names, fmt.Sprintf("g%d", i))
	}
	return names
}()

// transposed is a cluster's policies in our words.
type transposed struct {
	c *cluster
	// groups are policy groups by what selects their members; members are by group.
	groups  map[string]string
	members map[string][]*pod
	entries map[string][]string // by direction, as YAML
}

// transpose writes the cluster's policies as policies of a domain.
func transpose(c *cluster) *transposed {
	t := &transposed{c: c, groups: map[string]string{}, members: map[string][]*pod{}, entries: map[string][]string{}}
	drops := map[string][]string{}
	for _, p := range c.policies {
		target := t.group(c.choose(func(ns string) bool { return ns == p.Namespace }, p.Spec.PodSelector))
		types := p.Spec.PolicyTypes
		if slices.Contains(types, networking.PolicyTypeIngress) {
			for _, r := range p.Spec.Ingress {
				t.rule("egress", p.Namespace, target, r.From, r.Ports)
			}
			drops["egress"] = append(drops["egress"], "action: DROP, protocol: any, from: any, to: "+target)
		}
		if slices.Contains(types, networking.PolicyTypeEgress) {
			for _, r := range p.Spec.Egress {
				t.rule("ingress", p.Namespace, target, r.To, r.Ports)
			}
			drops["ingress"] = append(drops["ingress"], "action: DROP, protocol: any, to: any, from: "+target)
		}
	}
	for direction, list := range drops {
		t.entries[direction] = append(t.entries[direction], list...)
	}
	return t
}

// group is the side of an entry that means the given pods.
func (t *transposed) group(pods []*pod) string {
	var names []string
	for _, p := range pods {
		names = append(names, p.String())
	}
	key := strings.Join(names, " ")
	if t.groups[key] == "" {
		t.groups[key] = groupNames[len(t.groups)]
		t.members[t.groups[key]] = pods
	}
	return "{policyGroup: " + t.groups[key] + "}"
}

func (t *transposed) rule(direction, namespace, target string, peers []networking.NetworkPolicyPeer, ports []networking.NetworkPolicyPort) {
	sides := []string{"any"}
	if len(peers) > 0 {
		sides = nil
		for _, p := range peers {
			sides = append(sides, t.peer(namespace, p)...)
		}
	}
	for _, side := range sides {
		where := "from: " + side + ", to: " + target
		if direction == "ingress" {
			where = "from: " + target + ", to: " + side
		}
		for _, what := range portWords(ports) {
			t.entries[direction] = append(t.entries[direction], "action: FORWARD, "+what+", "+where)
		}
	}
}

func (t *transposed) peer(namespace string, p networking.NetworkPolicyPeer) []string {
	if p.IPBlock != nil {
		var sides []string
		for _, prefix := range block(p.IPBlock) {
			sides = append(sides, "{cidr: "+prefix.String()+"}")
		}
		return sides
	}
	in := func(ns string) bool { return ns == namespace }
	if p.NamespaceSelector != nil {
		in = func(ns string) bool { return selects(*p.NamespaceSelector, t.c.namespaces[ns]) }
	}
	pods := meta.LabelSelector{}
	if p.PodSelector != nil {
		pods = *p.PodSelector
	}
	if p.NamespaceSelector == nil && len(pods.MatchLabels)+len(pods.MatchExpressions) == 0 {
		return []string{"{zone: " + namespace + "}"}
	}
	return []string{t.group(t.c.choose(in, pods))}
}

// portName is how Cyclonus calls a container's port.
func portName(port int, protocol core.Protocol) string {
	return fmt.Sprintf("serve-%d-%s", port, strings.ToLower(string(protocol)))
}

func portWords(ports []networking.NetworkPolicyPort) []string {
	if len(ports) == 0 {
		return []string{"protocol: any"}
	}
	var words []string
	for _, p := range ports {
		protocol := core.ProtocolTCP
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		from, to := 0, 0
		switch {
		case p.Port == nil:
		case p.Port.Type == intstr.Int:
			from, to = p.Port.IntValue(), p.Port.IntValue()
		default:
			for _, n := range []int{80, 81} {
				if p.Port.StrVal == portName(n, protocol) {
					from, to = n, n
				}
			}
			if from == 0 {
				continue // a name that no container has for this protocol
			}
		}
		if p.EndPort != nil {
			to = int(*p.EndPort)
		}
		w := "protocol: " + strings.ToLower(string(protocol))
		if from != 0 {
			w += fmt.Sprintf(", destinationPort: \"%d-%d\"", from, to)
		}
		words = append(words, w)
	}
	return words
}

// block is a prefix without its exceptions, as prefixes.
func block(b *networking.IPBlock) []netip.Prefix {
	left := []netip.Prefix{netip.MustParsePrefix(b.CIDR).Masked()}
	for _, e := range b.Except {
		except := netip.MustParsePrefix(e).Masked()
		var rest []netip.Prefix
		for _, p := range left {
			rest = append(rest, without(p, except)...)
		}
		left = rest
	}
	return left
}

func without(p, except netip.Prefix) []netip.Prefix {
	switch {
	case !p.Overlaps(except):
		return []netip.Prefix{p}
	case except.Bits() <= p.Bits():
		return nil
	}
	low := netip.PrefixFrom(p.Addr(), p.Bits()+1)
	a := p.Addr().As4()
	a[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	high := netip.PrefixFrom(netip.AddrFrom4(a), p.Bits()+1)
	return append(without(low, except), without(high, except)...)
}

// document is the file that `nuagectl apply` takes. Both policies are always there, so that
// a case ends the entries of the one before; one without entries is not active.
func (t *transposed) document(enterprise, domain string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "enterprise: %s\ndomains:\n- name: %s\n  policies:\n", enterprise, domain)
	for _, direction := range []string{"ingress", "egress"} {
		entries := t.entries[direction]
		fmt.Fprintf(&b, "  - {name: k8s-%s, direction: %s, priority: 10, active: %t, defaultAllowIP: true, entries: [\n", direction, direction, len(entries) > 0)
		for i, e := range entries {
			fmt.Fprintf(&b, "      {priority: %d, %s},\n", 10*(i+1), e)
		}
		b.WriteString("    ]}\n")
	}
	return b.String()
}
