package pipeline

import (
	"nuage/controller/tenant"
	"nuage/ovs/flow"
)

// receiving is what the number of a meter for what a port receives has beside the port's.
const receiving uint32 = 1 << 16

// showing is what the number of a meter for what a domain shows to the agent has beside the
// domain's: one tenant's flood must not use up what the agent has for all.
const showing uint32 = 1 << 17

func showMeter(d *tenant.Domain) uint32 { return showing | uint32(d.Number) }

func receiveMeter(o object) uint32 { return receiving | o.port }

// What a vport sends passes its meter, whose number is the port's.
func limiterVport(f *fragment, o object) {
	if o.sends.Rate != 0 {
		f.add(TableLimiter, 100, flow.NewMatch(fromPort(o)), flow.MeterAction{ID: o.port}, flow.Goto{Table: TableOutput})
	}
}

// What it receives is limited by its port, where that can be shaped; else it passes a meter
// as well.
func outputVport(f *fragment, o object) {
	if o.receives.Rate != 0 && !o.shaping {
		f.add(TableOutput, 60, flow.NewMatch(flow.Eq(regOutput, uint64(o.port))), flow.MeterAction{ID: receiveMeter(o)},
			flow.OutputReg{Src: flow.Whole(regOutput)})
	}
}
