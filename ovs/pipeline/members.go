package pipeline

import (
	"encoding/binary"
	"net/netip"

	"nuage/ovs/flow"
)

var (
	sourceSubnet, sourceVport = memberStage(sourceEnd, TableSourceGroups, TableTargetGroups)
	targetSubnet, targetVport = memberStage(targetEnd, TableTargetGroups, TableRelation)
)

// memberStage tells what policies may ask of one end of a connection. A vport that is in no
// policy group has no flow: its subnet's tells all there is.
func memberStage(e end, t, next flow.Table) (subnet, vport func(*fragment, object)) {
	subnet = func(f *fragment, o object) {
		f.add(t, 50, flow.NewMatch(inDomain(o), inPrefix(e.addr, o.subnet.CIDR)), e.place(o, flow.Goto{Table: next})...)
	}
	vport = func(f *fragment, o object) {
		if o.groups == (groupBits{}) {
			return
		}
		var actions []flow.Action
		for i, word := range o.groups {
			if word != 0 {
				actions = append(actions, set(flow.Eq(e.groups+flow.Field(i), uint64(word))))
			}
		}
		f.add(t, 100, flow.NewMatch(inDomain(o), isAddress(e.addr, o.vport.IPv4)), append(actions, e.place(o, flow.Goto{Table: next})...)...)
	}
	return subnet, vport
}

// place tells where in the domain the end is, and goes on.
func (e end) place(o object, next flow.Action) []flow.Action {
	actions := []flow.Action{set(isSet(e.inside).of(regFlags))}
	if o.zone != 0 {
		actions = append(actions, set(e.zoneIs(o.zone).of(regZones)))
	}
	return append(actions, next)
}

func relateSubnet(f *fragment, o object) {
	f.add(TableRelation, 100, flow.NewMatch(inDomain(o), inPrefix(regSource, o.subnet.CIDR), inPrefix(regTarget, o.subnet.CIDR)),
		set(isSet(bitSameZone|bitSameSubnet).of(regFlags)), flow.Goto{Table: TableIngressPolicy})
}

func relateZone(f *fragment, o object) {
	f.add(TableRelation, 50, flow.NewMatch(inDomain(o), sourceEnd.zoneIs(o.zone).and(targetEnd.zoneIs(o.zone)).of(regZones)),
		set(isSet(bitSameZone).of(regFlags)), flow.Goto{Table: TableIngressPolicy})
}

// groupBits are policy groups by number: number 1 is bit 0 of the first word.
type groupBits [4]uint32

func (g *groupBits) add(number uint16) { g[(number-1)/32] |= 1 << ((number - 1) % 32) }

// isAddress and inPrefix are conditions on a register that holds an IPv4 address.
func isAddress(f flow.Field, a netip.Addr) flow.FieldMatch { return flow.Eq(f, uint4(a)) }

func inPrefix(f flow.Field, p netip.Prefix) flow.FieldMatch {
	a := p.Addr().As4()
	return flow.Masked(f, uint64(binary.BigEndian.Uint32(a[:])), 1<<32-1<<(32-p.Bits()))
}
