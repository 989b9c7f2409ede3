package pipeline

import (
	"nuage/controller/tenant"
	"nuage/ovs/flow"
)

// asking is the tables in which one direction's policies are asked, and what they drop by.
type asking struct {
	direction                       tenant.Direction
	policy, entries, decision, next flow.Table
	closed, denied, byDefault       Drop
}

var (
	askIngress = asking{tenant.Ingress, TableIngressPolicy, TableIngressEntries, TableIngressDecision, TableEgressPolicy,
		DropIngressClosed, DropIngressPolicy, DropIngressDefault}
	askEgress = asking{tenant.Egress, TableEgressPolicy, TableEgressEntries, TableEgressDecision, TableCommit,
		DropEgressClosed, DropEgressPolicy, DropEgressDefault}
)

// An element is a page of a policy: its entries of priority page*pageSize and up, which are
// in the entries' table under the priorities that OpenFlow has.
type element struct {
	policy, page uint16
}

// pageSize is the priorities of a page. Each takes two of OpenFlow's, of which the second is
// for the flows that log.
const pageSize = 30000

func (e element) match() flow.FieldMatch {
	return flow.Eq(regElement, uint64(e.policy)<<16|uint64(e.page))
}

func elementOf(p *tenant.Policy, e *tenant.Entry) element {
	return element{p.Number, uint16(e.Priority / pageSize)}
}

func flowPriority(e *tenant.Entry) uint16 { return uint16(65000 - 2*(e.Priority%pageSize)) }

// A chain is what the active policies of one direction are asked, in order.
type chain struct {
	elements []element
	policies int
	closed   string // why nothing passes; empty if that is for the policies to say
}

// maxElements bounds a chain: the switch gives up on a packet after 4096 lookups, which two
// directions of it, each asked twice, must not reach.
const maxElements = 500

// policyDomain asks one element after the other, by subroutine: an entry that decides sets a
// flag, which no other entry matches then. So an entry's flows depend on nothing of its
// neighbours, and the order of all is in this one flow.
func (a asking) policyDomain(f *fragment, o object) {
	if o.chains == nil {
		return
	}
	m, ch := flow.NewMatch(inDomain(o)), o.chains[a.direction]
	switch {
	case ch.closed != "":
		f.drop(a.closed, m)
		return
	case ch.policies == 0:
		f.add(a.policy, 100, m, flow.Goto{Table: a.next})
		return
	}
	var ask []flow.Action
	for _, e := range ch.elements {
		ask = append(ask, set(e.match()), flow.Resubmit{Table: a.entries})
	}
	f.add(a.policy, 100, m, append(ask, flow.Goto{Table: a.decision})...)
}

func (a asking) decisionBase(f *fragment, _ object) {
	f.add(a.decision, 110, flow.NewMatch(isSet(bitAllowed).of(regFlags)), set(isClear(bitAllowed).of(regFlags)), flow.Goto{Table: a.next})
	f.drop(a.miss(), flow.NewMatch())
}

func (a asking) miss() Drop {
	if a.direction == tenant.Ingress {
		return DropIngressMiss
	}
	return DropEgressMiss
}

func (a asking) decisionDomain(f *fragment, o object) {
	if o.chains != nil {
		f.drop(a.denied, flow.NewMatch(inDomain(o), isSet(bitDenied).of(regFlags)))
	}
}

// What no entry decides is the default's, and the policy's that makes it what it is. Packets
// of this host's vports are counted apart: another host counts its own.
func (a asking) decisionPolicy(f *fragment, o object) {
	if !o.rules || o.policy.Direction != a.direction {
		return
	}
	for tunnel := range uint64(2) {
		m := flow.NewMatch(inDomain(o), fromTunnel(tunnel))
		if o.policy.DefaultAllowIP {
			f.add(a.decision, a.byDefault.Priority, m, flow.Goto{Table: a.next})
		} else {
			f.drop(a.byDefault, m)
		}
	}
}

// missReturn is the miss of a table that is asked by subroutine.
func missReturn(t flow.Table) func(*fragment, object) {
	return func(f *fragment, _ object) { f.add(t, 0, flow.NewMatch()) }
}
