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
//
// The userspace datapath hands over fragments in the place of any packet that it tracks: of
// datagrams that never became whole, invalid, and of those that have too many for one batch.
// A domain takes only what was tracked in its own zone, and no fragment that is invalid. A
// later fragment shows no port there, not even by connection tracking: it is not judged, but
// waits behind the policies for the first (see commitBase).
func stateDomain(f *fragment, o object) {
	if o.chains == nil {
		return
	}
	m, tracked := flow.NewMatch(isIPv4(), inDomain(o)), flow.Eq(flow.CTZone, uint64(o.domain.Number))
	own := []flow.Action{move(flow.IPv4Src, regSource), move(flow.IPv4Dst, regTarget)}
	next := []flow.Action{flow.Goto{Table: TableSourceGroups}}
	// The switch does not let the opener be read where the state is related alone, as it is of
	// an ICMP error that the opener sends: as a rule that has its address.
	related := isTracked.and(isSet(flow.CTRel)).and(isClear(flow.CTNew | flow.CTEst | flow.CTRpl))
	f.add(TableState, 130, m.And(tracked, isTracked.of(flow.CTState), isLater()), flow.Goto{Table: TableCommit})
	f.add(TableState, 120, m.And(tracked, related.of(flow.CTState)), slices.Concat(own, next)...)
	f.add(TableState, 110, m.And(tracked, isTracked.of(flow.CTState)),
		append([]flow.Action{move(flow.CTIPv4Src, regSource), move(flow.CTIPv4Dst, regTarget)}, next...)...)
	f.add(TableState, 100, m.And(tracked, isSet(flow.CTTrk|flow.CTInv).of(flow.CTState), isWhole()),
		slices.Concat([]flow.Action{set(isSet(bitOutOfState).of(regFlags))}, own, next)...)
	f.add(TableState, 90, m.And(noState.of(flow.CTState)), slices.Concat(own, next)...)
}

// What is behind the commit table's ct is checked likewise. A connection that the zone has no
// room for keeps its state there, and the packet goes on: what tells it from one that is
// remembered is the mark. Its answers would be dropped, so the packet that asks for them is.
// Stateless is what nobody asked to remember: fragments of which the first came last.
func releasedDomain(f *fragment, o object) {
	if o.chains == nil {
		return
	}
	m := flow.NewMatch(isIPv4(), inDomain(o), flow.Eq(flow.CTZone, uint64(o.domain.Number)))
	f.drop(DropConnections, m.And(isFirst.of(flow.CTState), flow.Eq(flow.CTMark, 0), isClear(bitStateless).of(regFlags)))
	f.add(TableReleased, 100, m.And(isTracked.of(flow.CTState)), flow.Goto{Table: TableLimiter})
}

// Conditions on CTState.
var (
	isTracked = isSet(flow.CTTrk).and(isClear(flow.CTInv))
	isOpener  = isTracked.and(isSet(flow.CTNew))
	isFirst   = isOpener.and(isClear(flow.CTRel)) // of a connection that is not remembered yet
	noState   = isClear(flow.CTTrk | flow.CTInv)
)

// Conditions on fragments: packets that are none; all but the first.
func isWhole() flow.FieldMatch { return isClear(1).of(flow.IPFrag) }
func isLater() flow.FieldMatch { return isSet(3).of(flow.IPFrag) }

// remembered is the mark of every connection that is.
const remembered = 1

// What a stateless entry allowed is not remembered. A reply to a connection that was
// remembered, when another entry decided, is asked about once more, by its own header.
//
// Fragments go through connection tracking once more, which holds them until the datagram is
// whole again: until the first of them, which the policies have judged, is here too. The last
// one to come decides whether the connection is remembered, so that a datagram in fragments
// is, whatever entry allowed it: that opens nothing, as replies are judged by that entry.
func commitBase(f *fragment, _ object) {
	limiter := flow.Goto{Table: TableLimiter}
	again := []flow.Action{
		set(bits{bitOutOfState, bitOutOfState | bitStateless | bitSameZone | bitSameSubnet | bitSourceInside | bitTargetInside}.of(regFlags)),
		set(flow.Eq(regZones, 0)), set(flow.Eq(flow.XXReg2, 0)), set(flow.Eq(flow.XXReg3, 0)),
		move(flow.IPv4Src, regSource), move(flow.IPv4Dst, regTarget), flow.Resubmit{Table: TableSourceGroups},
	}
	whole := flow.CT{ZoneSrc: flow.Bits(regDomain, 0, 16), Table: TableReleased}
	remember := whole
	remember.Commit, remember.Exec = true, []flow.Action{set(flow.Eq(flow.CTMark, remembered))}
	known := flow.NewMatch(isIPv4(), isSet(bitStateless).and(isClear(bitOutOfState)).of(regFlags))
	f.add(TableCommit, 121, known.And(isSet(flow.CTTrk|flow.CTRpl).of(flow.CTState)), again...)
	f.add(TableCommit, 120, known.And(isSet(flow.CTTrk|flow.CTRel).of(flow.CTState)), again...)
	f.add(TableCommit, 110, flow.NewMatch(isSet(bitStateless).of(regFlags), isIPv4(), isWhole()), limiter)
	f.add(TableCommit, 100, flow.NewMatch(isClear(bitStateless).of(regFlags), isIPv4(), isFirst.of(flow.CTState)), remember)
	f.add(TableCommit, 90, flow.NewMatch(isIPv4(), isSet(1).of(flow.IPFrag), isTracked.of(flow.CTState)), whole)
	f.add(TableCommit, 0, flow.NewMatch(), limiter)
}
