package pipeline

import "nuage/ovs/flow"

// A tag would otherwise travel unseen past every match on IPv4 or ARP.
func classifyBase(f *fragment, o object) {
	f.drop(DropTagged, flow.NewMatch(flow.Masked(flow.VLANVID, flow.VLANPresent, flow.VLANPresent)))
	f.drop(DropUnknownPort, flow.NewMatch())
	classifyTunnel(f, o)
}

func classifyVport(f *fragment, o object) {
	if o.port == 0 {
		return
	}
	f.add(TableClassifier, 100, flow.NewMatch(fromPort(o)),
		set(inDomain(o)), set(inSubnet(o)), flow.Goto{Table: TableGuard})
}
