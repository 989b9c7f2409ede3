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

// The tables, by number. A packet moves to a higher one, but for a reply that the commit
// table sends through the policies again, once.
const (
	TableClassifier      flow.Table = 0
	TableTunnel          flow.Table = 5
	TableGuard           flow.Table = 10
	TableARP             flow.Table = 20
	TableGateway         flow.Table = 30
	TableRouter          flow.Table = 40
	TableForwarder       flow.Table = 50
	TableConntrack       flow.Table = 60
	TableState           flow.Table = 61
	TableSourceGroups    flow.Table = 70
	TableTargetGroups    flow.Table = 71
	TableRelation        flow.Table = 72
	TableIngressPolicy   flow.Table = 80
	TableIngressEntries  flow.Table = 81
	TableIngressDecision flow.Table = 82
	TableEgressPolicy    flow.Table = 84
	TableEgressEntries   flow.Table = 85
	TableEgressDecision  flow.Table = 86
	TableCommit          flow.Table = 90
	TableReleased        flow.Table = 91
	TableLimiter         flow.Table = 100
	TableOutput          flow.Table = 110
	TableEncapsulate     flow.Table = 120
)

// Table describes one stage. The unexported functions add the stage's flows for the
// switch as a whole, for another host, for a domain, a zone, a subnet, a policy, an entry of
// one, and for a vport; nil adds none.
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
	// Asks are the tables that a packet visits and comes back from.
	Asks []flow.Table

	base, host, domain, zone, subnet, policy, entry, vport func(*fragment, object)
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
		Purpose: "A vport sends with its own MAC and IPv4 address or with those of its virtual IPs only, in the Ethernet, IP and ARP headers; with address spoofing, with any. What it asks of DHCP goes to the agent.",
		Arrives: "Frames of a vport, domain and subnet known.",
		Miss:    "Dropped.",
		Next:    []flow.Table{TableARP, TableGateway},
		base:    missDrop(DropGuardMiss), vport: guardVport,
	},
	{
		Number: TableARP, Name: "arp",
		Purpose: "Answers for the gateway and for the vports of the subnet and their virtual IPs.",
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
		Purpose: "Subnet and MAC (or, where no vport has the MAC, address) to the output port, or to the VTEP of the receiver's host. From a tunnel to this host's vports only.",
		Arrives: "IPv4 with its final MAC addresses, subnet and ttl.",
		Miss:    "Dropped, counted by domain: broadcast and multicast, or neither MAC nor address of the subnet.",
		Next:    []flow.Table{TableConntrack},
		base:    missDrop(DropForwarderMiss), domain: forwardDomain, vport: forwardVport,
	},
	{
		Number: TableConntrack, Name: "conntrack",
		Purpose: "ICMP, TCP and UDP of a domain with active policies through connection tracking, in the domain's zone. A domain without skips all to the limiter.",
		Arrives: "IPv4 whose output port is known.",
		Miss:    "Dropped: a domain that said neither.",
		Next:    []flow.Table{TableState, TableLimiter},
		base:    missDrop(DropConntrackMiss), domain: conntrackDomain,
	},
	{
		Number: TableState, Name: "state",
		Purpose: "The addresses that policies judge: of who opened the connection and to whom; of what belongs to none, the packet's own.",
		Arrives: "Packets of domains with policies.",
		Miss:    "Dropped: fragments that are no whole datagram's, or that connection tracking put into the place of another domain's packet.",
		Next:    []flow.Table{TableSourceGroups, TableCommit},
		base:    missDrop(DropStateMiss), domain: stateDomain,
	},
	{
		Number: TableSourceGroups, Name: "source-groups",
		Purpose: "The source's zone and policy groups, by its address.",
		Arrives: "As above; from the commit table, replies to be judged by their own header.",
		Miss:    "To target-groups: the source is no address of the domain's.",
		Next:    []flow.Table{TableTargetGroups},
		base:    missGoto(TableSourceGroups, TableTargetGroups), subnet: sourceSubnet, vport: sourceVport,
	},
	{
		Number: TableTargetGroups, Name: "target-groups",
		Purpose: "The target's, likewise.",
		Arrives: "As above.",
		Miss:    "To relation.",
		Next:    []flow.Table{TableRelation},
		base:    missGoto(TableTargetGroups, TableRelation), subnet: targetSubnet, vport: targetVport,
	},
	{
		Number: TableRelation, Name: "relation",
		Purpose: "Whether source and target are in one zone, and in one subnet.",
		Arrives: "As above.",
		Miss:    "To ingress-policy: neither.",
		Next:    []flow.Table{TableIngressPolicy},
		base:    missGoto(TableRelation, TableIngressPolicy), zone: relateZone, subnet: relateSubnet,
	},
	{
		Number: TableIngressPolicy, Name: "ingress-policy",
		Purpose: "Asks the policies from the vport into the network, page by page in their order: one flow a domain.",
		Arrives: "Packets of which all is known that policies ask.",
		Miss:    "Dropped.",
		Next:    []flow.Table{TableIngressDecision, TableEgressPolicy},
		Asks:    []flow.Table{TableIngressEntries},
		base:    missDrop(DropIngressUnasked), domain: askIngress.policyDomain,
	},
	{
		Number: TableIngressEntries, Name: "ingress-entries",
		Purpose: "The entries of these policies. One that matches sets allowed or denied, after which none does.",
		Arrives: "Packets with the policy and the page that is asked, and back.",
		Miss:    "Back, undecided.",
		base:    missReturn(TableIngressEntries), entry: askIngress.entry,
	},
	{
		Number: TableIngressDecision, Name: "ingress-decision",
		Purpose: "Drops what is denied, and what the default does not allow.",
		Arrives: "Packets that all these policies have been asked about.",
		Miss:    "Dropped: a domain without a default.",
		Next:    []flow.Table{TableEgressPolicy},
		base:    askIngress.decisionBase, domain: askIngress.decisionDomain, policy: askIngress.decisionPolicy,
	},
	{
		Number: TableEgressPolicy, Name: "egress-policy",
		Purpose: "The same for the policies from the network to the vport.",
		Arrives: "What the sender's side allows.",
		Miss:    "Dropped.",
		Next:    []flow.Table{TableEgressDecision, TableCommit},
		Asks:    []flow.Table{TableEgressEntries},
		base:    missDrop(DropEgressUnasked), domain: askEgress.policyDomain,
	},
	{
		Number: TableEgressEntries, Name: "egress-entries",
		Purpose: "Their entries.",
		Arrives: "As in ingress-entries.",
		Miss:    "Back, undecided.",
		base:    missReturn(TableEgressEntries), entry: askEgress.entry,
	},
	{
		Number: TableEgressDecision, Name: "egress-decision",
		Purpose: "As ingress-decision.",
		Arrives: "As there.",
		Miss:    "Dropped: a domain without a default.",
		Next:    []flow.Table{TableCommit},
		base:    askEgress.decisionBase, domain: askEgress.decisionDomain, policy: askEgress.decisionPolicy,
	},
	{
		Number: TableCommit, Name: "commit",
		Purpose: "Remembers a new connection, unless a stateless entry allowed it; has a reply to one that is remembered, and that a stateless entry allows now, judged by its own header. Fragments wait here for each other.",
		Arrives: "What both sides allow.",
		Miss:    "To the limiter.",
		Next:    []flow.Table{TableReleased, TableLimiter},
		base:    commitBase,
	},
	{
		Number: TableReleased, Name: "released",
		Purpose: "Takes what has been remembered, and fragments of which all are allowed. Drops a connection that there is no room to remember.",
		Arrives: "New connections, and fragments.",
		Miss:    "Dropped, as in state.",
		Next:    []flow.Table{TableLimiter},
		base:    missDrop(DropReleasedMiss), domain: releasedDomain,
	},
	{
		Number: TableLimiter, Name: "limiter",
		Purpose: "What a vport with a rate limiter for ingress sends passes the meter of its port's number.",
		Arrives: "Allowed packets.",
		Miss:    "To output.",
		Next:    []flow.Table{TableOutput},
		base:    missGoto(TableLimiter, TableOutput), vport: limiterVport,
	},
	{
		Number: TableOutput, Name: "output",
		Purpose: "Out of the port in the register; never out of the port that the packet came from. What a vport with a rate limiter for egress receives passes a meter first, of its port's number and 65536, where ports cannot be shaped. For another host: whether the packet is too large for the way there.",
		Arrives: "Allowed packets.",
		Miss:    "Output.",
		Next:    []flow.Table{TableEncapsulate},
		base:    outputBase, host: outputHost, vport: outputVport,
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
	case tenant.KindZone:
		return t.zone
	case tenant.KindSubnet:
		return t.subnet
	case tenant.KindPolicy:
		return t.policy
	case tenant.KindEntry:
		return t.entry
	default:
		return t.vport
	}
}
