package pipeline

import "nuage/ovs/flow"

func forwardDomain(f *fragment, o object) {
	group := flow.MaskedMAC(flow.EthDst, flow.MAC{1}, flow.MAC{1})
	f.drop(DropBroadcast, flow.NewMatch(inDomain(o), group))
	f.drop(DropUnknownMAC, flow.NewMatch(inDomain(o)))
}

func forwardVport(f *fragment, o object) {
	m := flow.NewMatch(inDomain(o), inSubnet(o), flow.EqMAC(flow.EthDst, mac(o.vport)))
	if o.port == 0 {
		f.drop(DropRemote, m)
		return
	}
	f.add(TableForwarder, 100, m, set(flow.Eq(regOutput, uint64(o.port))), flow.Goto{Table: TableSourceGroups})
}
