package driver

import (
	"context"
	"testing"

	"nuage/driver/link"
)

var bg = context.Background()

func TestLifeOfAContainer(t *testing.T) {
	r := newRig(t)
	for range 2 {
		r.ok(r.CreateNetwork(bg, netRequest(1, "172.18.0.0/16", "172.18.0.1/16", app1)))
	}
	r.expect("network", boundWorld(1, "172.18.0.0/16")...)
	first, err := r.CreateEndpoint(bg, epRequest(1, 1, "172.18.0.2/16"))
	r.ok(err)
	again, err := r.CreateEndpoint(bg, epRequest(1, 1, "172.18.0.2/16"))
	r.ok(err)
	if *first.Interface != *again.Interface || first.Interface.Address != "" || first.Interface.MacAddress == "" {
		t.Errorf("answers %+v and %+v", first.Interface, again.Interface)
	}
	r.expect("endpoint", append(boundWorld(1, "172.18.0.0/16"), attachedWorld(1, "172.18.0.2")...)...)
	for range 2 {
		j, err := r.Join(bg, &JoinRequest{NetworkID: netID(1), EndpointID: epID(1)})
		r.ok(err)
		_, container := link.Names(epID(1))
		if *j != (JoinResponse{InterfaceName: InterfaceName{SrcName: container, DstPrefix: "eth"}, Gateway: "172.18.0.1", DisableGatewayService: true}) {
			t.Errorf("Join: %+v", j)
		}
	}
	if n := r.flowsOf("172.18.0.2"); n == 0 {
		t.Error("Join returned before the switch has flows for the address")
	}
	info, err := r.EndpointInfo(bg, &InfoRequest{EndpointID: epID(1)})
	r.ok(err)
	if info.Value["vport"] != r.vport(1).ID {
		t.Errorf("EndpointInfo: %v", info.Value)
	}
	for range 2 {
		r.ok(r.Leave(bg, nil))
		r.ok(r.DeleteEndpoint(bg, del(1)))
	}
	if v := r.vport(1); v.ID != "" {
		t.Error("the vport is there after DeleteEndpoint")
	}
	r.Wait()
	r.expect("endpoint gone", boundWorld(1, "172.18.0.0/16")...)
	for range 2 {
		r.ok(r.DeleteNetwork(bg, &DeleteNetworkRequest{NetworkID: netID(1)}))
	}
	r.expect("network gone")
}
