// Package cyclonus runs the test cases of Cyclonus, the conformance suite of Kubernetes
// network policies, against tenant networks: namespaces are zones, pods are containers,
// label selectors are policy groups. Cyclonus generates the cases and says, by its own
// matcher, which packets must pass; every cell of its tables is a real packet.
//
// It is a module of its own, so that Kubernetes' modules never become the project's.
package cyclonus

import (
	"fmt"
	"maps"
	"slices"

	"github.com/mattfenwick/cyclonus/pkg/generator"
	"github.com/mattfenwick/cyclonus/pkg/matcher"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// pod is a container, in Cyclonus' words.
type pod struct {
	namespace, name, ip string
	labels              map[string]string
}

func (p *pod) String() string { return p.namespace + "/" + p.name }

// cluster is what a case has made so far.
type cluster struct {
	namespaces map[string]map[string]string // to their labels
	pods       []*pod
	policies   []*networking.NetworkPolicy
}

// clone is a cluster that a case may change.
func (c *cluster) clone() *cluster {
	d := &cluster{namespaces: map[string]map[string]string{}, policies: slices.Clone(c.policies)}
	for name, l := range c.namespaces {
		d.namespaces[name] = maps.Clone(l)
	}
	for _, p := range c.pods {
		q := *p
		q.labels = maps.Clone(p.labels)
		d.pods = append(d.pods, &q)
	}
	return d
}

func (c *cluster) pod(namespace, name string) *pod {
	for _, p := range c.pods {
		if p.namespace == namespace && p.name == name {
			return p
		}
	}
	return nil
}

func (c *cluster) policy(namespace, name string) int {
	return slices.IndexFunc(c.policies, func(p *networking.NetworkPolicy) bool {
		return p.Namespace == namespace && p.Name == name
	})
}

// act does one action of a case; start makes the container of a new pod.
func (c *cluster) act(a *generator.Action, start func(namespace, name string) (ip string)) error {
	switch {
	case a.CreatePolicy != nil:
		c.policies = append(c.policies, a.CreatePolicy.Policy)
	case a.UpdatePolicy != nil:
		c.policies[c.policy(a.UpdatePolicy.Policy.Namespace, a.UpdatePolicy.Policy.Name)] = a.UpdatePolicy.Policy
	case a.DeletePolicy != nil:
		i := c.policy(a.DeletePolicy.Namespace, a.DeletePolicy.Name)
		c.policies = slices.Delete(c.policies, i, i+1)
	case a.CreateNamespace != nil:
		c.namespaces[a.CreateNamespace.Namespace] = maps.Clone(a.CreateNamespace.Labels)
	case a.SetNamespaceLabels != nil:
		c.namespaces[a.SetNamespaceLabels.Namespace] = maps.Clone(a.SetNamespaceLabels.Labels)
	case a.DeleteNamespace != nil:
		delete(c.namespaces, a.DeleteNamespace.Namespace)
		c.pods = slices.DeleteFunc(c.pods, func(p *pod) bool { return p.namespace == a.DeleteNamespace.Namespace })
	case a.CreatePod != nil:
		c.pods = append(c.pods, &pod{a.CreatePod.Namespace, a.CreatePod.Pod, start(a.CreatePod.Namespace, a.CreatePod.Pod), maps.Clone(a.CreatePod.Labels)})
	case a.SetPodLabels != nil:
		c.pod(a.SetPodLabels.Namespace, a.SetPodLabels.Pod).labels = maps.Clone(a.SetPodLabels.Labels)
	case a.DeletePod != nil:
		c.pods = slices.DeleteFunc(c.pods, func(p *pod) bool {
			return p.namespace == a.DeletePod.Namespace && p.name == a.DeletePod.Pod
		})
	case a.ReadNetworkPolicies != nil: // of a cluster that is shared with others; ours is not
	default:
		return fmt.Errorf("unknown action %+v", a)
	}
	return nil
}

// choose are the pods that selectors mean.
func (c *cluster) choose(namespace func(name string) bool, pods meta.LabelSelector) []*pod {
	var chosen []*pod
	for _, p := range c.pods {
		if namespace(p.namespace) && selects(pods, p.labels) {
			chosen = append(chosen, p)
		}
	}
	return chosen
}

func selects(s meta.LabelSelector, l map[string]string) bool {
	selector, err := meta.LabelSelectorAsSelector(&s)
	if err != nil {
		panic(err) // Cyclonus' own selectors are sound
	}
	return selector.Matches(labels.Set(l))
}

// cell is one packet of the table.
type cell struct {
	from, to *pod
	protocol core.Protocol
	port     int
}

func (c cell) String() string { return fmt.Sprintf("%s -> %s %s/%d", c.from, c.to, c.protocol, c.port) }

// cells are all packets of the table, but for those of a pod to itself, which no network
// sees.
func (c *cluster) cells() []cell {
	var all []cell
	for _, from := range c.pods {
		for _, to := range c.pods {
			if from == to {
				continue
			}
			for _, protocol := range []core.Protocol{core.ProtocolTCP, core.ProtocolUDP, core.ProtocolSCTP} {
				all = append(all, cell{from, to, protocol, 80}, cell{from, to, protocol, 81})
			}
		}
	}
	return all
}

// oracle is Cyclonus' own opinion of a packet.
func (c *cluster) oracle() func(cell) bool {
	policy := matcher.BuildNetworkPolicies(true, c.policies)
	peer := func(p *pod) *matcher.TrafficPeer {
		return &matcher.TrafficPeer{IP: p.ip, Internal: &matcher.InternalPeer{PodLabels: p.labels,
			NamespaceLabels: c.namespaces[p.namespace], Namespace: p.namespace}}
	}
	return func(x cell) bool {
		return policy.IsTrafficAllowed(&matcher.Traffic{Source: peer(x.from), Destination: peer(x.to),
			ResolvedPort: x.port, ResolvedPortName: portName(x.port, x.protocol), Protocol: x.protocol}).IsAllowed()
	}
}
