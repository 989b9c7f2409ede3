package pipeline

import (
	"net/netip"

	"nuage/ovs/flow"
)

func arpDomain(f *fragment, o object) {
	f.drop(DropUnknownARP, flow.NewMatch(inDomain(o)))
}

func arpSubnet(f *fragment, o object) {
	answerARP(f, o, o.subnet.Gateway, gatewayMAC)
}

// A vport that asks for its own address looks for a conflict; an answer would be one.
func arpVport(f *fragment, o object) {
	answerARP(f, o, o.vport.IPv4, mac(o.vport))
	own := []netip.Addr{o.vport.IPv4}
	for _, vip := range o.virtual {
		answerARP(f, o, vip.IPv4, flow.MAC(vip.MAC))
		own = append(own, vip.IPv4)
	}
	for _, a := range own {
		if o.port != 0 {
			f.drop(DropOwnAddress, flow.NewMatch(isARP(), fromPort(o), flow.Eq(flow.ARPOp, arpAsk), v4(flow.ARPTPA, a)))
		}
	}
}

func answerARP(f *fragment, o object, addr netip.Addr, hw flow.MAC) {
	f.add(TableARP, 100,
		flow.NewMatch(isARP(), flow.Eq(flow.ARPOp, arpAsk), inDomain(o), inSubnet(o), v4(flow.ARPTPA, addr)),
		move(flow.EthSrc, flow.EthDst), set(flow.EqMAC(flow.EthSrc, hw)),
		set(flow.Eq(flow.ARPOp, arpAnswer)),
		move(flow.ARPSHA, flow.ARPTHA), move(flow.ARPSPA, flow.ARPTPA),
		set(flow.EqMAC(flow.ARPSHA, hw)), set(v4(flow.ARPSPA, addr)),
		flow.Output{Port: flow.PortInPort})
}
