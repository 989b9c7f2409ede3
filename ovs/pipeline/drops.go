package pipeline

import (
	"nuage/controller/tenant"
	"nuage/ovs/flow"
)

// Drop is one reason to drop. Its flows are the ones of its table and priority, one for
// each object that it is counted by, so that a flow's counter names both.
type Drop struct {
	Table    flow.Table
	Priority uint16
	// Per is the kind of object that has the counter: switch, host, domain, subnet, policy or
	// vport.
	Per    string
	Reason tenant.Reason
}

// The reasons.
var (
	DropTagged          = Drop{TableClassifier, 200, "switch", tenant.ReasonTagged}
	DropPrime           = Drop{TableClassifier, 150, "switch", "another host primes the way here"}
	DropUnknownVTEP     = Drop{TableClassifier, 90, "switch", "tunnel packet from an unknown VTEP"}
	DropTunnelProtocol  = Drop{TableClassifier, 80, "switch", "tunnel packet that is not IPv4"}
	DropUnknownPort     = Drop{TableClassifier, 0, "switch", "port without a vport"}
	DropUnknownVNI      = Drop{TableTunnel, 0, "switch", "tunnel packet with a VNI that is not here"}
	DropDHCPServer      = Drop{TableGuard, 110, "vport", tenant.ReasonDHCPServer}
	DropDHCPClient      = Drop{TableGuard, 105, "vport", tenant.ReasonDHCPClient}
	DropSpoofedARP      = Drop{TableGuard, 20, "vport", tenant.ReasonSpoofedARP}
	DropSpoofedIP       = Drop{TableGuard, 10, "vport", tenant.ReasonSpoofedIP}
	DropOtherProtocol   = Drop{TableGuard, 5, "vport", tenant.ReasonOtherProtocol}
	DropGuardMiss       = Drop{TableGuard, 0, "switch", "not classified"}
	DropOwnAddress      = Drop{TableARP, 110, "vport", tenant.ReasonOwnAddress}
	DropUnknownARP      = Drop{TableARP, 10, "domain", tenant.ReasonUnknownARP}
	DropARPMiss         = Drop{TableARP, 0, "switch", "not classified"}
	DropToGateway       = Drop{TableGateway, 90, "subnet", tenant.ReasonToGateway}
	DropTTL0            = Drop{TableRouter, 301, "domain", tenant.ReasonTTL0}
	DropTTL1            = Drop{TableRouter, 300, "domain", tenant.ReasonTTL1}
	DropUnknownAddress  = Drop{TableRouter, 100, "subnet", tenant.ReasonUnknownAddress}
	DropOutside         = Drop{TableRouter, 50, "domain", tenant.ReasonOutside}
	DropRemote          = Drop{TableForwarder, 99, "vport", tenant.ReasonNoTunnel}
	DropBroadcast       = Drop{TableForwarder, 90, "domain", tenant.ReasonBroadcast}
	DropNotHere         = Drop{TableForwarder, 20, "domain", "tunnel packet for a vport that is not here"}
	DropUnknownMAC      = Drop{TableForwarder, 10, "domain", tenant.ReasonUnknownMAC}
	DropForwarderMiss   = Drop{TableForwarder, 0, "switch", "not classified"}
	DropConntrackMiss   = Drop{TableConntrack, 0, "switch", "domain without a decision on policy"}
	DropStateMiss       = Drop{TableState, 0, "switch", "fragment out of place"}
	DropIngressClosed   = Drop{TableIngressPolicy, 90, "domain", "policies from the vport into the network that cannot be asked"}
	DropIngressUnasked  = Drop{TableIngressPolicy, 0, "switch", "no decision"}
	DropIngressPolicy   = Drop{TableIngressDecision, 100, "domain", tenant.ReasonIngressPolicy}
	DropIngressDefault  = Drop{TableIngressDecision, 50, "policy", tenant.ReasonIngressPolicy}
	DropIngressMiss     = Drop{TableIngressDecision, 0, "switch", "no decision"}
	DropEgressClosed    = Drop{TableEgressPolicy, 90, "domain", "policies from the network to the vport that cannot be asked"}
	DropEgressUnasked   = Drop{TableEgressPolicy, 0, "switch", "no decision"}
	DropEgressPolicy    = Drop{TableEgressDecision, 100, "domain", tenant.ReasonEgressPolicy}
	DropEgressDefault   = Drop{TableEgressDecision, 50, "policy", tenant.ReasonEgressPolicy}
	DropEgressMiss      = Drop{TableEgressDecision, 0, "switch", "no decision"}
	DropConnections     = Drop{TableReleased, 110, "domain", tenant.ReasonTooManyConnections}
	DropReleasedMiss    = Drop{TableReleased, 0, "switch", "fragment out of place"}
	DropNoTunnel        = Drop{TableOutput, 50, "switch", "no tunnel to the receiver's host"}
	DropTooLarge        = Drop{TableEncapsulate, 100, "host", "too large for the way to the receiver's host (answered)"}
	DropNoEncapsulation = Drop{TableEncapsulate, 0, "switch", "no tunnel port"}
)

// Drops are all the reasons, in packet order.
var Drops = []Drop{
	DropTagged, DropPrime, DropUnknownVTEP, DropTunnelProtocol, DropUnknownPort,
	DropUnknownVNI,
	DropDHCPServer, DropDHCPClient, DropSpoofedARP, DropSpoofedIP, DropOtherProtocol, DropGuardMiss,
	DropOwnAddress, DropUnknownARP, DropARPMiss,
	DropToGateway,
	DropTTL0, DropTTL1, DropUnknownAddress, DropOutside,
	DropRemote, DropBroadcast, DropNotHere, DropUnknownMAC, DropForwarderMiss,
	DropConntrackMiss, DropStateMiss,
	DropIngressClosed, DropIngressUnasked, DropIngressPolicy, DropIngressDefault, DropIngressMiss,
	DropEgressClosed, DropEgressUnasked, DropEgressPolicy, DropEgressDefault, DropEgressMiss,
	DropConnections, DropReleasedMiss,
	DropNoTunnel, DropTooLarge, DropNoEncapsulation,
}

// ReasonOf is why a flow drops; false for a flow that does not. The packets of some drops
// are shown to the agent, which tells their sender.
func ReasonOf(f flow.Flow) (Drop, bool) {
	if len(f.Actions) > 0 {
		if _, shown := f.Actions[0].(flow.Controller); !shown {
			return Drop{}, false
		}
	}
	for _, d := range Drops {
		if d.Table == f.Table && d.Priority == f.Priority {
			return d, true
		}
	}
	return Drop{}, false
}
