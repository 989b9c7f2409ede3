package pipeline

import (
	"fmt"
	"net/netip"

	"nuage/controller/tenant"
	"nuage/ovs/flow"
)

// Input is all that a host's flows depend on.
type Input struct {
	State *tenant.State
	// Host is the name of this host; vports of other hosts are remote.
	Host string
	// Ports are the port numbers of this host's bridge by interface name.
	Ports map[string]uint32
	// Tunnel is the number of the port to other hosts; 0 if there is none.
	Tunnel uint32
	// Shaping is whether ports can be shaped without harm to others.
	Shaping bool
	// ShowMeters is whether what each domain shows to the agent passes a meter of its own.
	ShowMeters bool
}

// Compile is the desired flows of a host, and the notes: why an object that ought to have
// flows has none. It is what a Compiler arrives at, whatever the order of changes.
func Compile(in Input) (flow.Set, map[tenant.Key]string) {
	c := NewCompiler(in.Host)
	c.SetPorts(in.Ports, in.Tunnel)
	c.SetShaping(in.Shaping)
	c.SetShowMeters(in.ShowMeters)
	c.Update(in.State, allKeys(in.State))
	return c.flows, c.notes
}

// allKeys are the objects of a state that flows are made of.
func allKeys(s *tenant.State) []tenant.Key {
	var keys []tenant.Key
	keys = appendKeys(keys, tenant.KindHost, s.Hosts)
	keys = appendKeys(keys, tenant.KindNetworkMacro, s.NetworkMacros)
	keys = appendKeys(keys, tenant.KindDomain, s.Domains)
	keys = appendKeys(keys, tenant.KindZone, s.Zones)
	keys = appendKeys(keys, tenant.KindSubnet, s.Subnets)
	keys = appendKeys(keys, tenant.KindPolicyGroup, s.PolicyGroups)
	keys = appendKeys(keys, tenant.KindPolicy, s.Policies)
	keys = appendKeys(keys, tenant.KindEntry, s.Entries)
	keys = appendKeys(keys, tenant.KindRateLimiter, s.RateLimiters)
	return appendKeys(keys, tenant.KindVport, s.Vports)
}

func appendKeys[T any](keys []tenant.Key, kind tenant.Kind, objects map[string]*T) []tenant.Key {
	for id := range objects {
		keys = append(keys, tenant.Key{Kind: kind, ID: id})
	}
	return keys
}

// Compiler keeps the fragment of flows of every object and recomputes those that a
// change touches. It is not safe for concurrent use.
type Compiler struct {
	host    string
	ports   map[string]uint32
	tunnel  uint32
	records map[tenant.Key]*record
	cookies map[uint64]tenant.Key
	claims  claims
	// local counts the vports of this host in each domain. A domain without any has no
	// flows here.
	local map[string]int
	// byInterface finds this host's vports by the name of their port.
	byInterface map[string]map[string]struct{}
	vteps       map[string]netip.Addr // see VTEPs
	moved       []string              // interfaces whose port changed since the last Update
	tunnelMoved bool
	shaping     bool
	showing     bool // see SetShowMeters
	showMoved   bool // since the last Update
	flows       flow.Set
	notes       map[tenant.Key]string
	// pages counts the entries of each page of a policy, by the policy's ID.
	pages      map[string]map[uint16]int
	meters     map[uint32]Limit  // see Meters
	shapes     map[string]Limit  // see Shapes
	showMeters map[uint32]string // see ShowMeters
	zones      map[uint16]string // see Zones
}

// record is what the compiler remembers of one object.
type record struct {
	key    tenant.Key
	since  tenant.Age
	claims []claim
	domain string // of a vport of this host: the domain that it is counted in
	iface  string // of a vport of this host
	flows  []flow.Key

	member tenant.Key  // of a policy group: what its members are children of
	on     tenant.Key  // of a rate limiter
	page   page        // of an entry
	shape  policyShape // of a policy

	meters [2]uint32 // of a vport whose sending or receiving is limited
	show   uint32    // the meter of a domain
	shaped string    // of a vport whose receiving is limited by its port
	zone   uint16    // of a domain whose connections are tracked
}

// NewCompiler is the compiler of a host without ports, for an empty state. It already has
// the switch's own flows.
func NewCompiler(host string) *Compiler {
	c := &Compiler{
		host:        host,
		records:     map[tenant.Key]*record{},
		cookies:     map[uint64]tenant.Key{},
		claims:      claims{},
		local:       map[string]int{},
		byInterface: map[string]map[string]struct{}{},
		vteps:       map[string]netip.Addr{},
		flows:       flow.Set{},
		notes:       map[tenant.Key]string{},
		pages:       map[string]map[uint16]int{},
		meters:      map[uint32]Limit{},
		shapes:      map[string]Limit{},
		showMeters:  map[uint32]string{},
		zones:       map[uint16]string{},
	}
	e := c.record(SwitchKey)
	c.reclaim(e, []claim{{what: claimCookie, value: Cookie(SwitchKey)}})
	c.refill(e, object{})
	return c
}

// SetPorts replaces the ports and the number of the tunnel port, 0 for none; the next
// Update takes them into account.
func (c *Compiler) SetPorts(ports map[string]uint32, tunnel uint32) {
	c.tunnelMoved = c.tunnelMoved || tunnel != c.tunnel
	c.tunnel = tunnel
	for name, n := range ports {
		if old, ok := c.ports[name]; !ok || old != n {
			c.moved = append(c.moved, name)
		}
	}
	for name := range c.ports {
		if _, ok := ports[name]; !ok {
			c.moved = append(c.moved, name)
		}
	}
	c.ports = ports
}

// SetShaping says whether what vports receive is limited by their ports' shape, or else by
// meters; the next Update takes it into account.
func (c *Compiler) SetShaping(can bool) {
	if c.shaping == can {
		return
	}
	c.shaping = can
	for name := range c.byInterface {
		c.moved = append(c.moved, name)
	}
}

// SetShowMeters says whether what each domain shows to the agent passes a meter of its own;
// the next Update takes it into account.
func (c *Compiler) SetShowMeters(on bool) {
	c.showMoved = c.showMoved || c.showing != on
	c.showing = on
}

// Update recomputes the fragments that depend on the changed objects or ports, and
// returns the identities of all flows that have changed, each once. The state is the
// one in which the changes have been applied; nothing of it is kept but its objects.
func (c *Compiler) Update(s *tenant.State, changed []tenant.Key) []flow.Key {
	d := dirty{seen: map[tenant.Key]struct{}{}, light: map[tenant.Key]struct{}{}}
	for _, k := range changed {
		if !c.reordered(s, k, &d) {
			d.touch(k)
		}
	}
	for _, name := range c.moved {
		for id := range c.byInterface[name] {
			d.touch(tenant.Key{Kind: tenant.KindVport, ID: id})
		}
	}
	c.moved = nil
	if c.showMoved {
		c.showMoved = false
		for k := range c.records {
			d.touch(k)
		}
	}
	tunnelMoved := c.tunnelMoved
	if c.tunnelMoved = false; tunnelMoved {
		c.everyHost(s, d.touch)
	}
	for i := 0; i < len(d.queue); i++ {
		k := d.queue[i]
		c.restate(s, k, &d)
		c.dependents(s, k, &d)
	}
	keys := d.all()
	if tunnelMoved {
		keys = append(keys, SwitchKey)
	}
	return c.rebuild(s, keys)
}

// rebuild computes the fragments of the given objects anew: first all old flows go, then
// the new ones come, so that an address may change hands.
func (c *Compiler) rebuild(s *tenant.State, keys []tenant.Key) []flow.Key {
	was := map[flow.Key]flow.Flow{}
	for _, k := range keys {
		e := c.records[k]
		if e == nil {
			continue
		}
		for _, id := range e.flows {
			was[id] = c.flows[id]
			delete(c.flows, id)
		}
		e.flows = e.flows[:0]
		c.forget(e)
		if len(e.claims) > 0 {
			continue
		}
		delete(c.records, k)
		if cookie := Cookie(k); c.cookies[cookie] == k {
			delete(c.cookies, cookie)
		}
	}
	var changed []flow.Key
	for _, k := range keys {
		e := c.records[k]
		if e == nil {
			continue
		}
		o, note, live := c.resolve(s, k)
		if note != "" {
			c.notes[k] = note
		}
		if !live {
			continue
		}
		c.refill(e, o)
		c.remember(e, o)
		for _, id := range e.flows {
			if old, ok := was[id]; !ok || !old.Equal(c.flows[id]) {
				changed = append(changed, id)
			}
		}
	}
	for id := range was {
		if _, ok := c.flows[id]; !ok {
			changed = append(changed, id)
		}
	}
	return changed
}

// remember notes what a live object needs on the switch beside its flows; forget undoes it.
func (c *Compiler) remember(e *record, o object) {
	switch e.key.Kind {
	case tenant.KindHost:
		c.vteps[e.key.ID] = o.vtep
	case tenant.KindDomain:
		if c.showing {
			e.show = showMeter(o.domain)
			c.showMeters[e.show] = o.domain.ID
		}
		if o.chains != nil {
			e.zone = o.domain.Number
			c.zones[e.zone] = o.domain.ID
		}
	case tenant.KindVport:
		if o.sends.Rate != 0 {
			e.meters[0] = o.port
			c.meters[o.port] = o.sends
		}
		switch {
		case o.receives.Rate == 0:
		case !o.shaping:
			e.meters[1] = receiveMeter(o)
			c.meters[e.meters[1]] = o.receives
		default:
			e.shaped = o.vport.Interface
			c.shapes[e.shaped] = o.receives
		}
	}
}

func (c *Compiler) forget(e *record) {
	delete(c.notes, e.key)
	switch e.key.Kind {
	case tenant.KindHost:
		delete(c.vteps, e.key.ID)
	case tenant.KindDomain:
		delete(c.zones, e.zone)
		delete(c.showMeters, e.show)
	case tenant.KindVport:
		delete(c.meters, e.meters[0])
		delete(c.meters, e.meters[1])
		delete(c.shapes, e.shaped)
	}
	e.zone, e.meters, e.shaped, e.show = 0, [2]uint32{}, "", 0
}

// refill runs the stages for one object.
func (c *Compiler) refill(e *record, o object) {
	f := fragment{cookie: Cookie(e.key)}
	if o.domain != nil && c.showing {
		f.meter = showMeter(o.domain)
	}
	c.cookies[f.cookie] = e.key
	for _, t := range Tables {
		if stage := t.stage(e.key.Kind); stage != nil {
			stage(&f, o)
		}
	}
	for _, f := range f.flows {
		c.put(e, f)
	}
}

// put adds a flow of e. Claims exclude that another object has a flow of that identity;
// if one does all the same, it is a defect of a stage, the flow stays the other's, and
// the note says so.
func (c *Compiler) put(e *record, f flow.Flow) {
	if other, ok := c.flows[f.Key()]; ok {
		c.notes[e.key] = fmt.Sprintf("defect: flow %v of %v is already %v", f, e.key, c.cookies[other.Cookie])
		return
	}
	c.flows.Put(f)
	e.flows = append(e.flows, f.Key())
}
