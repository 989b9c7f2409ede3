package pipeline

import "nuage/ovs/flow"

// Connection tracking costs every packet a second pass through the tables, which only a
// domain with an active policy has a use for. Until policies exist every domain skips it;
// the decision is one flow a domain, so that a domain which made none is closed.
func conntrackDomain(f *fragment, o object) {
	f.add(TableConntrack, 100, flow.NewMatch(inDomain(o)), flow.Goto{Table: TableLimiter})
}
