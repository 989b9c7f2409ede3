package ovs

import (
	"context"

	"nuage/ovs/flow"
	"nuage/ovs/openflow"
)

// packetBuffer is how many packets wait for the agent; what comes beyond is dropped, as the
// packets of a flood ought to be.
const packetBuffer = 64

// PacketIns are the packets that flows send to the agent. It is one channel, for one
// receiver, over all connections.
func (b *Bridge) PacketIns() <-chan openflow.PacketIn { return b.packets }

// PacketOut has the switch do actions with a packet that comes by no port. It does not wait
// for a connection, as Flows does not.
func (b *Bridge) PacketOut(ctx context.Context, actions []flow.Action, packet []byte) error {
	c, err := b.openflow()
	if err != nil {
		return err
	}
	return b.explain(c.PacketOut(ctx, flow.PortController, actions, packet))
}

// takePackets passes on the packets of one connection until it ends.
func (b *Bridge) takePackets(events <-chan openflow.Event) {
	for e := range events {
		if p, ok := e.(openflow.PacketIn); ok {
			select {
			case b.packets <- p:
			default:
			}
		}
	}
}
