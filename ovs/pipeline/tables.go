// Package pipeline compiles tenant state to the flows of one host's bridge: the one list
// of tables, the registers, one file a stage, and the Compiler that recomputes only what
// a change touches.
//
// It is pure: it never talks to a switch or a store and never reads a clock. Input that
// contradicts itself (a dangling name, two vports with one address) has a closed outcome,
// no flows for what came last, and a note; it is never an error and never a panic.
package pipeline

import (
	"nuage/controller/tenant"
	"nuage/ovs/flow"
)

// The tables, by number. A packet only ever moves to a higher one.
const (
	TableClassifier    flow.Table = 0
	TableTunnel        flow.Table = 5
	TableGuard         flow.Table = 10
	TableARP           flow.Table = 20
	TableGateway       flow.Table = 30
	TableRouter        flow.Table = 40
	TableForwarder     flow.Table = 50
	TableSourceGroups  flow.Table = 60
	TableTargetGroups  flow.Table = 61
	TableConntrack     flow.Table = 70
	TableState         flow.Table = 71
	TableIngressPolicy flow.Table = 80
	TableEgressPolicy  flow.Table = 81
	TableCommit        flow.Table = 90
	TableLimiter       flow.Table = 100
	TableOutput        flow.Table = 110
	TableEncapsulate   flow.Table = 120
)

// Table describes one stage. The unexported functions add the stage's flows for the
// switch as a whole, for another host, for a domain, for a subnet and for a vport; nil adds
// none.
type Table struct {
	Number  flow.Table
	Name    string
	Purpose string
	// Arrives is what a packet in this table has behind it.
	Arrives string
	// Miss is what happens to a packet that no flow of an object matches.
	Miss string
	// Next are the tables that a packet may continue in.
	Next []flow.Table

	base, host, domain, subnet, vport func(*fragment, object)
}

// Tables is the pipeline in packet order: numbers, names and docs/pipeline.md come from
// here and from nowhere else.
var Tables = []Table{
	{
		Number: TableClassifier, Name: "classifier",
		Purpose: "Port to domain number and subnet VNI; what comes by the tunnel's port, by the VTEP that it is from.",
		Arrives: "Every frame.",
		Miss:    "Dropped: a port without a vport, an unknown VTEP.",
		Next:    []flow.Table{TableTunnel, TableGuard},
		base:    classifyBase, host: classifyHost, vport: classifyVport,
	},
	{
		Number: TableTunnel, Name: "tunnel",
		Purpose: "The VNI of a tunnel packet to domain number and subnet.",
		Arrives: "IPv4 from the VTEP of another host: its sender was guarded, its way was routed there.",
		Miss:    "Dropped: a VNI that is not here.",
		Next:    []flow.Table{TableForwarder},
		base:    missDrop(DropUnknownVNI), subnet: tunnelSubnet,
	},
	{
		Number: TableGuard, Name: "guard",
		Purpose: "A vport sends with its own MAC and IPv4 address only, in the Ethernet, IP and ARP headers. What it asks of DHCP goes to the agent.",
		Arrives: "Frames of a vport, domain and subnet known.",
		Miss:    "Dropped.",
		Next:    []flow.Table{TableARP, TableGateway},
		base:    missDrop(DropGuardMiss), vport: guardVport,
	},
	{
		Number: TableARP, Name: "arp",
		Purpose: "Answers for the gateway and for the vports of the subnet.",
		Arrives: "ARP with the sender's true addresses.",
		Miss:    "Dropped, counted by domain: an address that nobody has, or a reply that nobody needs.",
		base:    missDrop(DropARPMiss), domain: arpDomain, subnet: arpSubnet, vport: arpVport,
	},
	{
		Number: TableGateway, Name: "gateway",
		Purpose: "Answers ICMP echo to every gateway of the domain (ttl 64); drops all else to a gateway.",
		Arrives: "IPv4 with the sender's true addresses.",
		Miss:    "To the router.",
		Next:    []flow.Table{TableRouter},
		base:    missGoto(TableGateway, TableRouter), subnet: gatewaySubnet,
	},
	{
		Number: TableRouter, Name: "router",
		Purpose: "Frames to the gateway's MAC: ttl one less, MAC addresses and subnet of the next hop, by destination address.",
		Arrives: "IPv4 that is not for a gateway.",
		Miss:    "To the forwarder: the frame stays in its subnet.",
		Next:    []flow.Table{TableForwarder},
		base:    missGoto(TableRouter, TableForwarder), domain: routeDomain, subnet: routeSubnet, vport: routeVport,
	},
	{
		Number: TableForwarder, Name: "forwarder",
		Purpose: "Subnet and MAC (or, where nobody has the MAC any more, address) to the output port, or to the VTEP of the receiver's host. From a tunnel to this host's vports only.",
		Arrives: "IPv4 with its final MAC addresses, subnet and ttl.",
		Miss:    "Dropped, counted by domain: broadcast and multicast, or neither MAC nor address of the subnet.",
		Next:    []flow.Table{TableSourceGroups},
		base:    missDrop(DropForwarderMiss), domain: forwardDomain, vport: forwardVport,
	},
	{
		Number: TableSourceGroups, Name: "source-groups",
		Purpose: "Place for the policy groups of the sender, as register bits.",
		Arrives: "IPv4 whose output port is known.",
		Miss:    "To target-groups.",
		Next:    []flow.Table{TableTargetGroups},
		base:    missGoto(TableSourceGroups, TableTargetGroups),
	},
	{
		Number: TableTargetGroups, Name: "target-groups",
		Purpose: "Place for the policy groups of the receiver, as register bits.",
		Arrives: "As above.",
		Miss:    "To conntrack.",
		Next:    []flow.Table{TableConntrack},
		base:    missGoto(TableTargetGroups, TableConntrack),
	},
	{
		Number: TableConntrack, Name: "conntrack",
		Purpose: "A domain without policy skips connection tracking and goes to the limiter; place for ct(zone=domain).",
		Arrives: "As above.",
		Miss:    "Dropped: a domain that said neither.",
		Next:    []flow.Table{TableState, TableLimiter},
		base:    missDrop(DropConntrackMiss), domain: conntrackDomain,
	},
	{
		Number: TableState, Name: "state",
		Purpose: "Place for decisions by connection state.",
		Arrives: "Tracked packets of domains with policies.",
		Miss:    "Dropped.",
		Next:    []flow.Table{TableIngressPolicy, TableLimiter},
		base:    missDrop(DropStateMiss),
	},
	{
		Number: TableIngressPolicy, Name: "ingress-policy",
		Purpose: "Place for policies from the vport into the network.",
		Arrives: "New connections.",
		Miss:    "Dropped.",
		Next:    []flow.Table{TableEgressPolicy},
		base:    missDrop(DropIngressMiss),
	},
	{
		Number: TableEgressPolicy, Name: "egress-policy",
		Purpose: "Place for policies from the network to the vport.",
		Arrives: "New connections that the sender's side allows.",
		Miss:    "Dropped.",
		Next:    []flow.Table{TableCommit},
		base:    missDrop(DropEgressMiss),
	},
	{
		Number: TableCommit, Name: "commit",
		Purpose: "Place for remembering the connection.",
		Arrives: "New connections that both sides allow.",
		Miss:    "Dropped.",
		Next:    []flow.Table{TableLimiter},
		base:    missDrop(DropCommitMiss),
	},
	{
		Number: TableLimiter, Name: "limiter",
		Purpose: "Place for meters.",
		Arrives: "Allowed packets.",
		Miss:    "To output.",
		Next:    []flow.Table{TableOutput},
		base:    missGoto(TableLimiter, TableOutput),
	},
	{
		Number: TableOutput, Name: "output",
		Purpose: "Out of the port in the register; never out of the port that the packet came from. For another host: whether the packet is too large for the way there.",
		Arrives: "Allowed packets.",
		Miss:    "Output.",
		Next:    []flow.Table{TableEncapsulate},
		base:    outputBase, host: outputHost,
	},
	{
		Number: TableEncapsulate, Name: "encapsulate",
		Purpose: "Out of the tunnel's port with the receiver's VTEP and VNI. What is too large goes to the agent, which answers ICMP fragmentation needed.",
		Arrives: "Allowed packets for another host.",
		Miss:    "Output.",
		base:    encapsulateBase, host: encapsulateHost,
	},
}

// stage is what the table adds for an object of a kind; nil for nothing.
func (t *Table) stage(k tenant.Kind) func(*fragment, object) {
	switch k {
	case kindSwitch:
		return t.base
	case tenant.KindHost:
		return t.host
	case tenant.KindDomain:
		return t.domain
	case tenant.KindSubnet:
		return t.subnet
	default:
		return t.vport
	}
}
