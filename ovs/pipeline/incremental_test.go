package pipeline

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"nuage/controller/tenant"
	"nuage/ovs/flow"
)

// Whatever changes, in whatever order and grouping, the compiler arrives where a new one
// would, and says which flows have changed: those and no others. The pools are small, so
// that contradictions are the rule.
func TestIncrementalEqualsFull(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := NewCompiler(thisHost)
		s := tenant.NewState()
		in := Input{State: s, Host: thisHost, Ports: map[string]uint32{}}
		var keys []tenant.Key
		if rapid.IntRange(0, 4).Draw(t, "unsound") < 4 {
			s, in.Ports = soundState()
			in.State = s
			c.SetPorts(in.Ports, 0)
			keys = allKeys(s)
		}
		for range rapid.IntRange(10, 25).Draw(t, "updates") {
			for range rapid.SampledFrom([]int{0, 1, 1, 1, 2, 4}).Draw(t, "changes") {
				ch := drawChange(t, s)
				s.Apply(ch)
				keys = append(keys, ch.Key)
			}
			if rapid.IntRange(0, 7).Draw(t, "ports") == 7 {
				in.Ports, in.Tunnel = drawPorts(t), rapid.SampledFrom([]uint32{0, 5, 6}).Draw(t, "tunnel")
				in.Shaping, in.ShowMeters = rapid.Bool().Draw(t, "shaping"), rapid.Bool().Draw(t, "meters of domains")
				c.SetPorts(in.Ports, in.Tunnel)
				c.SetShaping(in.Shaping)
				c.SetShowMeters(in.ShowMeters)
			}
			before := maps.Clone(c.Flows())
			named := c.Update(s, keys)
			d := flow.NewDiff(before, c.Flows())
			differ := map[flow.Key]bool{}
			for _, f := range slices.Concat(d.Add, d.Delete) {
				differ[f.Key()] = true
			}
			for _, k := range named {
				if !differ[k] {
					t.Fatalf("named twice, or has not changed: %v", k)
				}
				delete(differ, k)
			}
			keys = nil
			if len(differ) > 0 {
				t.Fatalf("not all changes were named: %v", differ)
			}
			sameAsFull(t, c, in)
		}
	})
}

// soundState is a state without contradictions, of the objects of pool: a change of it shows.
func soundState() (*tenant.State, map[string]uint32) {
	w := newWorld()
	w.domain("d1", 1)
	for i, sn := range []string{"s1", "s2"} {
		w.subnet(sn, "d1", fmt.Sprintf("10.0.%d.0/24", i+1), uint32(i+1))
		w.zone(fmt.Sprintf("z%d", i+1), "d1", uint16(i+1), sn)
	}
	for i, g := range []string{"g1", "g2"} {
		w.group(g, "d1", uint16(i+1))
		w.state.PolicyGroups[g].Name = fmt.Sprintf("n%d", i+1)
	}
	w.macro("m1", "10.0.0.0/8")
	w.ports = map[string]uint32{"nu1": 1, "nu2": 2}
	for i, v := range []string{"v1", "v2", "v3"} {
		vp := w.vport(v, "s1", fmt.Sprintf("10.0.1.%d", i+10), uint32(i+1)%3)
		vp.PolicyGroups = []string{"n1", "n2"}[:i%3]
		w.put(tenant.KindVport, v, vp)
	}
	w.policy("p1", "d1", tenant.Ingress, 1)
	w.policy("p2", "d1", tenant.Egress, 1)
	for i, e := range pool[tenant.KindEntry] {
		w.put(tenant.KindEntry, e, &tenant.Entry{Meta: w.meta(e), PolicyID: fmt.Sprintf("p%d", i%2+1), Priority: uint32(i * 20_000), Action: tenant.Forward,
			Protocol: tenant.AnyProtocol, From: []tenant.Side{{Kind: tenant.SidePolicyGroup, ID: "g1"}, {Kind: tenant.SideZone, ID: "z2"},
				{Kind: tenant.SideSubnet, ID: "s1"}, {Kind: tenant.SideNetworkMacro, ID: "m1"}, {Kind: tenant.SideSameZone}}[i], To: tenant.Side{Kind: tenant.SideAny}})
	}
	w.limiter("l1", tenant.Key{Kind: tenant.KindDomain, ID: "d1"}, "d1", tenant.Ingress, tenant.MinRate)
	w.limiter("l2", tenant.Key{Kind: tenant.KindSubnet, ID: "s1"}, "d1", tenant.Egress, tenant.MinRate)
	return w.state, w.ports
}

// sameAsFull compares a compiler with a new one.
func sameAsFull(t *rapid.T, c *Compiler, in Input) {
	full := NewCompiler(in.Host)
	full.SetPorts(in.Ports, in.Tunnel)
	full.SetShaping(in.Shaping)
	full.SetShowMeters(in.ShowMeters)
	full.Update(in.State, allKeys(in.State))
	if d := flow.NewDiff(c.Flows(), full.Flows()); !d.Empty() {
		t.Fatalf("incremental differs: lacks %v, has %v", d.Add, d.Delete)
	}
	for what, same := range map[string]bool{
		"notes":  maps.Equal(c.Notes(), full.Notes()),
		"meters": maps.Equal(c.Meters(), full.Meters()), "shapes": maps.Equal(c.Shapes(), full.Shapes()),
		"zones": maps.Equal(c.Zones(), full.Zones()), "VTEPs": maps.Equal(c.VTEPs(), full.VTEPs()),
		"meters of domains": maps.Equal(c.ShowMeters(), full.ShowMeters()),
	} {
		if !same {
			t.Fatalf("%s differ: %v, %v, %v, %v", what, c.Notes(), full.Notes(), c.Meters(), full.Meters())
		}
	}
	for k, n := range c.Notes() {
		if strings.Contains(n, "defect") {
			t.Fatalf("%v: %s", k, n)
		}
		denies := k.Kind == tenant.KindEntry && in.State.Entries[k.ID].Action != tenant.Forward
		if got := len(c.Fragment(k)); got != 0 && !denies && !strings.Contains(n, "not reachable") && !strings.Contains(n, "closed in direction") {
			t.Fatalf("%v has %d flows and the note %s", k, got, n)
		}
	}
	used := map[uint32]bool{}
	for _, f := range c.Flows() {
		for _, a := range f.Actions {
			switch a := a.(type) {
			case flow.MeterAction:
				if used[a.ID] = true; c.Meters()[a.ID].Rate == 0 {
					t.Fatalf("%v uses a meter that is not listed", f)
				}
			case flow.CT:
				if a.ZoneSrc.Width == 0 && c.Zones()[a.Zone] == "" {
					t.Fatalf("%v uses a zone that is not listed", f)
				}
			}
		}
	}
	if len(used) != len(c.Meters()) {
		t.Fatalf("meters %v are listed, %v in use", c.Meters(), used)
	}
}

func drawPorts(t *rapid.T) map[string]uint32 {
	return rapid.MapOfN(rapid.SampledFrom([]string{"nu1", "nu2", "nu3"}), rapid.Uint32Range(1, 4), 0, 3).Draw(t, "port")
}

// pool are the IDs of each kind of object.
var pool = map[tenant.Kind][]string{
	tenant.KindHost:         {thisHost, "host-2", "host-3"},
	tenant.KindDomain:       {"d1", "d1", "d2"},
	tenant.KindZone:         {"z1", "z2", "z3"},
	tenant.KindSubnet:       {"s1", "s2", "s3"},
	tenant.KindPolicyGroup:  {"g1", "g2", "g3"},
	tenant.KindNetworkMacro: {"m1"},
	tenant.KindPolicy:       {"p1", "p2", "p3", "p4"},
	tenant.KindEntry:        {"e1", "e2", "e3", "e4", "e5"},
	tenant.KindRateLimiter:  {"l1", "l2", "l3"},
	tenant.KindVport:        {"v1", "v2", "v3", "v4", "v5"},
}

func drawID(t *rapid.T, k tenant.Kind) string {
	return rapid.SampledFrom(pool[k]).Draw(t, string(k))
}

// drawChange is a new value of an object, or, more often than not, of one field of it.
func drawChange(t *rapid.T, s *tenant.State) tenant.Change {
	c := drawValue(t)
	old := objectOf(s, c.Key)
	if c.Value == nil || !old.IsValid() || rapid.IntRange(0, 3).Draw(t, "whole") == 3 {
		return c
	}
	value := reflect.New(old.Type())
	value.Elem().Set(old)
	i := rapid.IntRange(0, old.NumField()-1).Draw(t, "field")
	value.Elem().Field(i).Set(reflect.ValueOf(c.Value).Elem().Field(i))
	return tenant.Change{Key: c.Key, Value: value.Interface()}
}

// objectOf is an object of the state, not valid if there is none.
func objectOf(s *tenant.State, k tenant.Key) reflect.Value {
	objects := map[tenant.Kind]any{tenant.KindHost: s.Hosts, tenant.KindDomain: s.Domains, tenant.KindZone: s.Zones, tenant.KindSubnet: s.Subnets,
		tenant.KindPolicyGroup: s.PolicyGroups, tenant.KindNetworkMacro: s.NetworkMacros, tenant.KindPolicy: s.Policies, tenant.KindEntry: s.Entries,
		tenant.KindRateLimiter: s.RateLimiters, tenant.KindVport: s.Vports}[k.Kind]
	v := reflect.ValueOf(objects).MapIndex(reflect.ValueOf(k.ID))
	if v.IsValid() {
		v = v.Elem()
	}
	return v
}

func drawValue(t *rapid.T) tenant.Change {
	k := tenant.Key{Kind: rapid.SampledFrom(append([]tenant.Kind{tenant.KindVport, tenant.KindVport, tenant.KindSubnet, tenant.KindDomain,
		tenant.KindEntry, tenant.KindPolicy}, kinds...)).Draw(t, "kind")}
	k.ID = drawID(t, k.Kind)
	meta := tenant.Meta{ID: k.ID, Created: time.Unix(rapid.Int64Range(0, 2).Draw(t, "created"), 0), Committed: rapid.Int64Range(0, 2).Draw(t, "committed")}
	if rapid.IntRange(0, 7).Draw(t, "gone") == 7 {
		return tenant.Change{Key: k}
	}
	name := rapid.SampledFrom([]string{"n1", "n2"})
	direction := rapid.SampledFrom([]tenant.Direction{tenant.Ingress, tenant.Egress})
	number := rapid.SampledFrom([]uint16{1, 1, 2, 3, 0, 200})
	switch k.Kind {
	case tenant.KindHost:
		h := &tenant.Host{Meta: meta, Name: k.ID, MTU: rapid.SampledFrom([]int{0, 1500, 9000, -1}).Draw(t, "MTU")}
		h.VTEP, _ = netip.ParseAddr(rapid.SampledFrom([]string{"192.0.2.1", "192.0.2.2", "224.0.0.1", "2001:db8::1", ""}).Draw(t, "VTEP"))
		return tenant.Change{Key: k, Value: h}
	case tenant.KindDomain:
		return tenant.Change{Key: k, Value: &tenant.Domain{Meta: meta, Name: k.ID, Number: rapid.SampledFrom([]uint16{1, 1, 2, 3, 0}).Draw(t, "number")}}
	case tenant.KindZone:
		return tenant.Change{Key: k, Value: &tenant.Zone{Meta: meta, Name: name.Draw(t, "name"), DomainID: drawID(t, tenant.KindDomain),
			Number: number.Draw(t, "number")}}
	case tenant.KindSubnet:
		p := netip.MustParsePrefix(rapid.SampledFrom([]string{"10.0.1.0/24", "10.0.2.0/24", "10.0.0.0/16"}).Draw(t, "cidr"))
		return tenant.Change{Key: k, Value: &tenant.Subnet{Meta: meta, Name: k.ID, DomainID: drawID(t, tenant.KindDomain), ZoneID: drawID(t, tenant.KindZone),
			CIDR: p, Gateway: p.Addr().Next(), VNI: rapid.Uint32Range(0, 3).Draw(t, "VNI")}}
	case tenant.KindPolicyGroup:
		return tenant.Change{Key: k, Value: &tenant.PolicyGroup{Meta: meta, Name: name.Draw(t, "name"), DomainID: drawID(t, tenant.KindDomain),
			Number: number.Draw(t, "number")}}
	case tenant.KindNetworkMacro:
		return tenant.Change{Key: k, Value: &tenant.NetworkMacro{Meta: meta, Name: k.ID, CIDR: netip.MustParsePrefix(rapid.SampledFrom([]string{"10.0.0.0/8", "0.0.0.0/0"}).Draw(t, "cidr"))}}
	case tenant.KindPolicy:
		return tenant.Change{Key: k, Value: &tenant.Policy{Meta: meta, Name: k.ID, DomainID: drawID(t, tenant.KindDomain), Direction: direction.Draw(t, "direction"),
			Priority: rapid.Uint32Range(0, 3).Draw(t, "priority"), Active: rapid.IntRange(0, 3).Draw(t, "active") > 0,
			DefaultAllowIP: rapid.Bool().Draw(t, "default"), Number: number.Draw(t, "number")}}
	case tenant.KindEntry:
		e := drawEntry(t, func(k tenant.Kind) string { return drawID(t, k) })
		e.Meta, e.PolicyID = meta, drawID(t, tenant.KindPolicy)
		return tenant.Change{Key: k, Value: e}
	case tenant.KindRateLimiter:
		on := tenant.Key{Kind: rapid.SampledFrom([]tenant.Kind{tenant.KindDomain, tenant.KindZone, tenant.KindSubnet, tenant.KindVport}).Draw(t, "on")}
		on.ID = drawID(t, on.Kind)
		l := &tenant.RateLimiter{Meta: meta, DomainID: drawID(t, tenant.KindDomain), On: on, Direction: direction.Draw(t, "direction"),
			Rate: rapid.Uint64Range(tenant.MinRate, tenant.MinRate+2).Draw(t, "rate")}
		if on.Kind == tenant.KindDomain {
			l.DomainID = on.ID
		}
		return tenant.Change{Key: k, Value: l}
	default:
		return tenant.Change{Key: k, Value: drawVport(t, meta)}
	}
}

func drawVport(t *rapid.T, meta tenant.Meta) *tenant.Vport {
	addr := func(label string) netip.Addr {
		return netip.AddrFrom4([4]byte{10, 0, 1, rapid.ByteRange(0, 3).Draw(t, label)})
	}
	v := &tenant.Vport{Meta: meta, Name: meta.ID, DomainID: drawID(t, tenant.KindDomain), SubnetID: drawID(t, tenant.KindSubnet),
		MAC:             tenant.MAC{2, 0, 0, 0, 0, rapid.ByteRange(0, 2).Draw(t, "mac")},
		IPv4:            addr("addr"),
		Host:            rapid.SampledFrom([]string{thisHost, thisHost, "host-2", "host-3", ""}).Draw(t, "host"),
		Interface:       rapid.SampledFrom([]string{"nu1", "nu2", "nu3", ""}).Draw(t, "interface"),
		PolicyGroups:    rapid.SliceOfN(rapid.SampledFrom([]string{"n1", "n2", "n3"}), 0, 3).Draw(t, "groups"),
		AddressSpoofing: rapid.IntRange(0, 5).Draw(t, "spoofing") == 0}
	for range rapid.IntRange(0, 2).Draw(t, "virtual") {
		v.VirtualIPs = append(v.VirtualIPs, tenant.VirtualIP{IPv4: addr("virtual"),
			MAC: rapid.SampledFrom([]tenant.MAC{{}, {2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 9}, {1}, tenant.GatewayMAC}).Draw(t, "virtual MAC")})
	}
	return v
}

// drawEntry is any entry that Validate accepts, and some that it does not; name gives the ID
// of an object of a kind.
func drawEntry(t *rapid.T, name func(tenant.Kind) string) *tenant.Entry {
	side := func(label string) tenant.Side {
		s := tenant.Side{Kind: rapid.SampledFrom([]tenant.SideKind{tenant.SideAny, tenant.SideAny, tenant.SidePolicyGroup, tenant.SideZone, tenant.SideSubnet,
			tenant.SideNetworkMacro, tenant.SideCIDR, tenant.SideSameZone, tenant.SideSameSubnet, tenant.SideSameDomain}).Draw(t, label)}
		if s.Kind == tenant.SideCIDR {
			s.CIDR = netip.MustParsePrefix(rapid.SampledFrom([]string{"0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/23", "10.0.1.0/25", "10.0.1.2/32"}).Draw(t, "cidr"))
		}
		if k, named := s.Key(); named {
			s.ID = name(k.Kind)
		}
		return s
	}
	e := &tenant.Entry{
		Priority: rapid.SampledFrom([]uint32{0, 1, 2, 29_999, 30_000, 59_999, 60_000, tenant.MaxPriority - 1, tenant.MaxPriority}).Draw(t, "entry priority"),
		Action:   rapid.SampledFrom([]tenant.Action{tenant.Forward, tenant.Forward, tenant.Deny, tenant.Reject}).Draw(t, "action"),
		Protocol: rapid.SampledFrom([]tenant.Protocol{tenant.AnyProtocol, tenant.TCP, tenant.UDP, tenant.ICMP, tenant.SCTP, 47, 0}).Draw(t, "protocol"),
		From:     side("from"), To: side("to"),
		StatsLogging: rapid.Bool().Draw(t, "stats"), FlowLogging: rapid.Bool().Draw(t, "log"),
	}
	if e.Protocol.HasPorts() {
		e.SourcePort, e.DestinationPort = drawRange(t, "source port"), drawRange(t, "destination port")
	}
	if e.Protocol == tenant.ICMP && rapid.Bool().Draw(t, "typed") {
		e.ICMPType = tenant.SomeByte(rapid.SampledFrom([]uint8{0, 3, 8}).Draw(t, "type"))
		if rapid.Bool().Draw(t, "coded") {
			e.ICMPCode = tenant.SomeByte(rapid.Uint8Range(0, 3).Draw(t, "code"))
		}
	}
	switch {
	case rapid.IntRange(0, 4).Draw(t, "dscp") == 0:
		e.DSCP = tenant.SomeByte(rapid.SampledFrom([]uint8{0, 46}).Draw(t, "mark"))
	case e.Protocol.Tracked() || e.Protocol == tenant.AnyProtocol:
		e.Stateful = rapid.IntRange(0, 2).Draw(t, "stateful") > 0
	}
	return e
}

// ports are of packets, and the ends of ranges.
var somePorts = []uint16{1, 79, 80, 81, 443, 1023, 1024, 65535}

func drawRange(t *rapid.T, label string) tenant.PortRange {
	if rapid.IntRange(0, 1).Draw(t, label) == 0 {
		return tenant.PortRange{}
	}
	a, b := rapid.SampledFrom(somePorts).Draw(t, "first"), rapid.SampledFrom(somePorts).Draw(t, "last")
	return tenant.PortRange{From: min(a, b), To: max(a, b)}
}
