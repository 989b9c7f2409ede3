package pipeline

import (
	"slices"

	"nuage/controller/tenant"
	"nuage/ovs/flow"
)

// rule is an entry with what it names.
type rule struct {
	entry *tenant.Entry
	sides []flow.FieldMatch // conditions on registers
	flags bits              // and on regFlags
}

// A form is one way in which what an entry speaks of shows in a packet: by connection
// tracking, or in the packet's own header.
type form struct {
	fields []flow.FieldMatch
	flags  bits // of regFlags
	state  bits // of flow.CTState
	// opens are the packets among them that open a connection, or belong to none.
	opens []form
}

// and is both; what opens a connection is m's.
func (m form) and(o form) form {
	return form{fields: slices.Concat(m.fields, o.fields), flags: m.flags.and(o.flags), state: m.state.and(o.state), opens: m.opens}
}

var (
	inState    = form{flags: isClear(bitOutOfState)}
	outOfState = form{flags: isSet(bitOutOfState)}
	// Until somebody answers, connection tracking calls further packets new as well; that they
	// are of one that is remembered, the mark tells.
	opener   = form{state: isOpener, fields: []flow.FieldMatch{flow.Eq(flow.CTMark, 0)}}
	opensTCP = form{fields: []flow.FieldMatch{isProto(flow.ProtoTCP), flow.Masked(flow.TCPFlags, 0x02, 0x12)}} // SYN without ACK
)

// formsOf are the forms of an entry, no two of which any packet has. A stateful entry that
// allows speaks of connections alone, unless the protocol has none.
func formsOf(e *tenant.Entry) []form {
	connections := e.Stateful && e.Action == tenant.Forward
	switch {
	case e.Protocol == tenant.AnyProtocol && connections:
		m := inState
		m.opens = []form{opener, {state: noState}}
		return []form{m}
	case e.Protocol == tenant.AnyProtocol:
		return []form{{opens: opensAny(e)}}
	case !e.Protocol.Tracked():
		return headerForms(e, form{})
	}
	forms := trackedForms(e)
	if !connections {
		forms = append(forms, headerForms(e, outOfState)...)
	}
	return forms
}

// opensAny are the packets that open what an entry of any protocol decides that speaks of no
// connections. Of what it allows nothing is remembered: the state of TCP does not tell.
func opensAny(e *tenant.Entry) []form {
	if e.Action != tenant.Forward {
		return []form{opener, {state: noState}, outOfState}
	}
	all := []form{{state: noState}}
	for _, state := range []form{opener, outOfState} {
		for _, first := range []form{opensTCP, {fields: []flow.FieldMatch{isProto(flow.ProtoUDP)}}, {fields: []flow.FieldMatch{isProto(flow.ProtoICMP)}}} {
			all = append(all, state.and(first))
		}
	}
	return all
}

func trackedForms(e *tenant.Entry) []form {
	base := form{fields: []flow.FieldMatch{flow.Eq(flow.CTIPProto, uint64(e.Protocol))}, state: isTracked, opens: []form{opener}}
	return portForms(e, base.and(inState), flow.CTPortSrc, flow.CTPortDst)
}

func headerForms(e *tenant.Entry, base form) []form {
	ports := map[tenant.Protocol][2]flow.Field{
		tenant.TCP: {flow.TCPSrc, flow.TCPDst}, tenant.UDP: {flow.UDPSrc, flow.UDPDst},
		tenant.SCTP: {flow.SCTPSrc, flow.SCTPDst}, tenant.ICMP: {flow.ICMPType, flow.ICMPCode},
	}[e.Protocol]
	header := form{fields: []flow.FieldMatch{isProto(uint64(e.Protocol))}, opens: []form{{}}}
	return portForms(e, header.and(base), ports[0], ports[1])
}

// portForms narrows a form to the entry's ports, or to its ICMP type and code.
func portForms(e *tenant.Entry, base form, src, dst flow.Field) []form {
	if e.Protocol == tenant.ICMP {
		for f, v := range map[flow.Field]tenant.OptionalByte{src: e.ICMPType, dst: e.ICMPCode} {
			if v, ok := v.Value(); ok {
				base.fields = append(slices.Clip(base.fields), flow.Eq(f, uint64(v)))
			}
		}
		return []form{base}
	}
	var forms []form
	for _, s := range portPieces(src, e.SourcePort) {
		for _, d := range portPieces(dst, e.DestinationPort) {
			forms = append(forms, base.and(form{fields: slices.Concat(s, d)}))
		}
	}
	return forms
}

func portPieces(f flow.Field, r tenant.PortRange) [][]flow.FieldMatch {
	if r.Any() {
		return [][]flow.FieldMatch{nil}
	}
	var pieces [][]flow.FieldMatch
	for _, p := range flow.PortRange(f, r.From, r.To) {
		pieces = append(pieces, []flow.FieldMatch{p})
	}
	return pieces
}

// entry adds an entry's flows. Where its packets are counted, or its sender is told, those of
// this host's vports have a flow of their own. What is logged has another above.
func (a asking) entry(f *fragment, o object) {
	if o.policy.Direction != a.direction {
		return
	}
	e, at := o.rule.entry, flowPriority(o.rule.entry)
	decide := set(isSet(bitDenied).of(regFlags))
	if e.Action == tenant.Forward {
		decide = set(isSet(bitAllowed).of(regFlags))
		if !e.Stateful {
			decide = set(isSet(bitAllowed | bitStateless).of(regFlags))
		}
	}
	here, there := []flow.Action{decide}, []flow.Action{decide}
	if e.Action == tenant.Reject {
		here = []flow.Action{f.show(Reject, rejectedBytes), decide}
	}
	for _, m := range formsOf(e) {
		local := form{flags: isClear(bitFromTunnel)}
		if e.StatsLogging || e.Action == tenant.Reject {
			f.add(a.entries, at, o.entryMatch(m.and(local)), here...)
			f.add(a.entries, at, o.entryMatch(m.and(form{flags: isSet(bitFromTunnel)})), there...)
		} else {
			f.add(a.entries, at, o.entryMatch(m), here...)
		}
		if !e.FlowLogging {
			continue
		}
		for _, opens := range m.opens {
			if e.Protocol == tenant.TCP && e.Action == tenant.Forward && !e.Stateful {
				opens = opens.and(opensTCP) // the state does not tell: nothing of it is remembered
			}
			f.add(a.entries, at+1, o.entryMatch(m.and(opens).and(local)),
				append([]flow.Action{f.show(Log, headerBytes)}, here...)...)
		}
	}
}

func (o object) entryMatch(m form) flow.Match {
	undecided := isClear(bitAllowed | bitDenied)
	fields := []flow.FieldMatch{isIPv4(), inDomain(o), elementOf(o.policy, o.rule.entry).match(),
		m.flags.and(o.rule.flags).and(undecided).of(regFlags), m.state.of(flow.CTState)}
	if dscp, ok := o.rule.entry.DSCP.Value(); ok {
		fields = append(fields, flow.Eq(flow.IPDSCP, uint64(dscp)))
	}
	return flow.NewMatch(slices.Concat(fields, o.rule.sides, m.fields)...)
}
