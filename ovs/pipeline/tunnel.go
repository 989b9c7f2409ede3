package pipeline

import "nuage/ovs/flow"

// Other hosts are believed what they say of the sender, and nothing else is: they send IPv4
// from their VTEP, for a subnet. (VNI 0 is no subnet's: hosts prime each other's neighbour
// tables with it.)
func classifyTunnel(f *fragment, o object) {
	if o.tunnel == 0 {
		return
	}
	in := flow.NewMatch(fromTunnelPort(o))
	f.drop(DropPrime, in.And(flow.Eq(flow.TunID, 0)))
	f.drop(DropUnknownVTEP, in.And(isIPv4()))
	f.drop(DropTunnelProtocol, in)
}

func classifyHost(f *fragment, o object) {
	f.add(TableClassifier, 100, flow.NewMatch(isIPv4(), fromTunnelPort(o), v4(flow.TunSrc, o.vtep)), flow.Goto{Table: TableTunnel})
}

// A subnet's VNI is its domain's too: the table needs no flow for each host and subnet.
func tunnelSubnet(f *fragment, o object) {
	f.add(TableTunnel, 100, flow.NewMatch(flow.Eq(flow.TunID, uint64(o.subnet.VNI))),
		set(fromTunnel(1)), set(inDomain(o)), set(inSubnet(o)), flow.Goto{Table: TableForwarder})
}

func fromTunnelPort(o object) flow.FieldMatch { return flow.Eq(flow.InPort, uint64(o.tunnel)) }
