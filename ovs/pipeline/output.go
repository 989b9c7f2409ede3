package pipeline

import "nuage/ovs/flow"

func outputBase(f *fragment, _ object) {
	f.add(TableOutput, 0, flow.NewMatch(), flow.OutputReg{Src: flow.Whole(regOutput)})
}
