package pipeline

import (
	"encoding/binary"

	"nuage/ovs/flow"
)

func outputBase(f *fragment, _ object) {
	f.drop(DropNoTunnel, flow.NewMatch(toTunnel()))
	f.add(TableOutput, 0, flow.NewMatch(), flow.OutputReg{Src: flow.Whole(regOutput)})
}

func outputHost(f *fragment, o object) {
	m := flow.NewMatch(toTunnel(), toVTEP(o))
	if o.mtu == 0 {
		f.add(TableOutput, 100, m, flow.Goto{Table: TableEncapsulate})
		return
	}
	f.add(TableOutput, 100, m, flow.CheckLarger{Bytes: uint16(o.mtu + ethernetHeader), Dst: tooLargeBit},
		flow.Goto{Table: TableEncapsulate})
}

// The tunnel's fields are set last of all: what is set before connection tracking
// ofproto/trace misreports.
func encapsulateBase(f *fragment, o object) {
	if o.tunnel == 0 {
		missDrop(DropNoEncapsulation)(f, o)
		return
	}
	f.add(TableEncapsulate, 0, flow.NewMatch(),
		flow.Move{Src: flow.Bits(regSubnet, 0, 24), Dst: flow.Bits(flow.TunID, 0, 24)},
		move(regVTEP, flow.TunDst), flow.Output{Port: o.tunnel})
}

// A packet that is too large is never dropped in silence: its sender would send it again
// for ever.
func encapsulateHost(f *fragment, o object) {
	if o.mtu == 0 {
		return
	}
	f.dropAloud(DropTooLarge, flow.NewMatch(isSet(bitTooLarge).of(regFlags), toVTEP(o)),
		string(binary.BigEndian.AppendUint16([]byte(TooLarge), uint16(o.mtu))))
}

var tooLargeBit = flow.Bits(regFlags, 1, 1)

func toVTEP(o object) flow.FieldMatch { return flow.Eq(regVTEP, uint4(o.vtep)) }
func toTunnel() flow.FieldMatch       { return flow.Eq(regOutput, 0) }
