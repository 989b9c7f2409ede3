package pipeline

import "nuage/ovs/flow"

// What a vport sends passes its meter, whose number is the port's; what it receives is
// shaped by its port.
func limiterVport(f *fragment, o object) {
	if o.sends.Rate != 0 {
		f.add(TableLimiter, 100, flow.NewMatch(fromPort(o)), flow.MeterAction{ID: o.port}, flow.Goto{Table: TableOutput})
	}
}
