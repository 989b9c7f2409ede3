package pipeline

import (
	"slices"

	"nuage/ovs/flow"
)

// Connection tracking costs every packet a second pass through the tables, which only a
// domain with an active policy has a use for; the decision is one flow a domain, so that a
// domain which made none is closed.
func conntrackDomain(f *fragment, o object) {
	m := flow.NewMatch(inDomain(o))
	if o.chains == nil {
		f.add(TableConntrack, 100, m, flow.Goto{Table: TableLimiter})
		return
	}
	for _, p := range []uint64{flow.ProtoICMP, flow.ProtoTCP, flow.ProtoUDP} {
		f.add(TableConntrack, 110, m.And(isIPv4(), isProto(p)), flow.CT{Zone: o.domain.Number, Table: TableState})
	}
	f.add(TableConntrack, 100, m, flow.Goto{Table: TableState})
}

// A packet of a connection is judged as the one that opened it, so that a change of policy
// counts at once for both directions of what is established. What is invalid belongs to no
// connection, and what is of another protocol is not tracked: their own header is judged.
func stateBase(f *fragment, _ object) {
	next := flow.Goto{Table: TableSourceGroups}
	f.add(TableState, 110, flow.NewMatch(isIPv4(), isTracked.of(flow.CTState)),
		move(flow.CTIPv4Src, regSource), move(flow.CTIPv4Dst, regTarget), next)
	own := []flow.Action{move(flow.IPv4Src, regSource), move(flow.IPv4Dst, regTarget)}
	// The switch does not let the opener be read where the state is related alone, as it is of
	// an ICMP error that the opener sends: as a rule that has its address.
	f.add(TableState, 120, flow.NewMatch(isIPv4(), isTracked.and(isSet(flow.CTRel)).and(isClear(flow.CTNew|flow.CTEst|flow.CTRpl)).of(flow.CTState)),
		slices.Concat(own, []flow.Action{next})...)
	f.add(TableState, 100, flow.NewMatch(isIPv4(), isSet(flow.CTTrk|flow.CTInv).of(flow.CTState)),
		slices.Concat([]flow.Action{set(isSet(bitOutOfState).of(regFlags))}, own, []flow.Action{next})...)
	f.add(TableState, 90, flow.NewMatch(isIPv4()), slices.Concat(own, []flow.Action{next})...)
	f.drop(DropStateMiss, flow.NewMatch())
}

// Conditions on CTState.
var (
	isTracked = isSet(flow.CTTrk).and(isClear(flow.CTInv))
	isOpener  = isTracked.and(isSet(flow.CTNew))
	noState   = isClear(flow.CTTrk)
)

// What a stateless entry allowed is not remembered. A reply to a connection that was
// remembered, when another entry decided, is asked about once more, by its own header.
func commitBase(f *fragment, _ object) {
	limiter := flow.Goto{Table: TableLimiter}
	again := []flow.Action{
		set(bits{bitOutOfState, bitOutOfState | bitStateless | bitSameZone | bitSameSubnet | bitSourceInside | bitTargetInside}.of(regFlags)),
		set(flow.Eq(regZones, 0)), set(flow.Eq(flow.XXReg2, 0)), set(flow.Eq(flow.XXReg3, 0)),
		move(flow.IPv4Src, regSource), move(flow.IPv4Dst, regTarget), flow.Resubmit{Table: TableSourceGroups},
	}
	known := flow.NewMatch(isIPv4(), isSet(bitStateless).and(isClear(bitOutOfState)).of(regFlags))
	f.add(TableCommit, 111, known.And(isSet(flow.CTTrk|flow.CTRpl).of(flow.CTState)), again...)
	f.add(TableCommit, 110, known.And(isSet(flow.CTTrk|flow.CTRel).of(flow.CTState)), again...)
	f.add(TableCommit, 100, flow.NewMatch(isSet(bitStateless).of(regFlags)), limiter)
	f.add(TableCommit, 90, flow.NewMatch(isIPv4(), isOpener.and(isClear(flow.CTRel)).of(flow.CTState)),
		flow.CT{Commit: true, ZoneSrc: flow.Bits(regDomain, 0, 16), Table: flow.NoTable}, limiter)
	f.add(TableCommit, 0, flow.NewMatch(), limiter)
}
