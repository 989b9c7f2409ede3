package pipeline

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

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
}

// Compile is the desired flows of a host, and the notes: why an object that ought to have
// flows has none. It is what a Compiler arrives at, whatever the order of changes.
func Compile(in Input) (flow.Set, map[tenant.Key]string) {
	c := NewCompiler(in.Host)
	c.SetPorts(in.Ports, in.Tunnel)
	c.Update(in.State, allKeys(in.State))
	return c.flows, c.notes
}

// allKeys are the objects of a state that have flows.
func allKeys(s *tenant.State) []tenant.Key {
	keys := make([]tenant.Key, 0, len(s.Hosts)+len(s.Domains)+len(s.Subnets)+len(s.Vports))
	for id := range s.Hosts {
		keys = append(keys, tenant.Key{Kind: tenant.KindHost, ID: id})
	}
	for id := range s.Domains {
		keys = append(keys, tenant.Key{Kind: tenant.KindDomain, ID: id})
	}
	for id := range s.Subnets {
		keys = append(keys, tenant.Key{Kind: tenant.KindSubnet, ID: id})
	}
	for id := range s.Vports {
		keys = append(keys, tenant.Key{Kind: tenant.KindVport, ID: id})
	}
	return keys
}

// Compiler keeps the fragment of flows of every object and recomputes those that a
// change touches. It is not safe for concurrent use.
type Compiler struct {
	host    string
	ports   map[string]uint32
	tunnel  uint32
	entries map[tenant.Key]*entry
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
	flows       flow.Set
	notes       map[tenant.Key]string
}

// entry is what the compiler remembers of one object.
type entry struct {
	key     tenant.Key
	created time.Time
	claims  []claim
	domain  string // of a vport of this host: the domain that it is counted in
	iface   string // of a vport of this host
	flows   []flow.Key
}

// NewCompiler is the compiler of a host without ports, for an empty state. It already has
// the switch's own flows.
func NewCompiler(host string) *Compiler {
	c := &Compiler{
		host:        host,
		entries:     map[tenant.Key]*entry{},
		cookies:     map[uint64]tenant.Key{},
		claims:      claims{},
		local:       map[string]int{},
		byInterface: map[string]map[string]struct{}{},
		vteps:       map[string]netip.Addr{},
		flows:       flow.Set{},
		notes:       map[tenant.Key]string{},
	}
	e := c.entry(SwitchKey)
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

// Update recomputes the fragments that depend on the changed objects or ports, and
// returns the identities of all flows that may have changed, each once. The state is the
// one in which the changes have been applied; nothing of it is kept but its objects.
func (c *Compiler) Update(s *tenant.State, changed []tenant.Key) []flow.Key {
	d := dirty{seen: map[tenant.Key]struct{}{}}
	for _, k := range changed {
		d.touch(k)
	}
	for _, name := range c.moved {
		for id := range c.byInterface[name] {
			d.touch(tenant.Key{Kind: tenant.KindVport, ID: id})
		}
	}
	c.moved = nil
	tunnelMoved := c.tunnelMoved
	if c.tunnelMoved = false; tunnelMoved {
		c.everyHost(s, d.touch)
	}
	for i := 0; i < len(d.queue); i++ {
		k := d.queue[i]
		c.restate(s, k, &d)
		c.dependents(s, k, d.touch)
	}
	if tunnelMoved {
		d.queue = append(d.queue, SwitchKey)
	}
	return c.rebuild(s, d.queue)
}

// dirty is the objects to look at again, in the order in which they were found.
type dirty struct {
	seen  map[tenant.Key]struct{}
	queue []tenant.Key
}

func (d *dirty) touch(k tenant.Key) {
	if order(k.Kind) < 0 {
		return
	}
	if _, ok := d.seen[k]; !ok {
		d.seen[k] = struct{}{}
		d.queue = append(d.queue, k)
	}
}

// dependents calls f with the objects whose fragments depend directly on k's object.
func (c *Compiler) dependents(s *tenant.State, k tenant.Key, f func(tenant.Key)) {
	var kind tenant.Kind
	switch k.Kind {
	case tenant.KindHost:
		if k.ID == c.host { // whose MTU counts on the way to each other
			c.everyHost(s, f)
			return
		}
		kind = tenant.KindVport
	case tenant.KindDomain:
		kind = tenant.KindSubnet
	case tenant.KindSubnet:
		kind = tenant.KindVport
	default:
		return
	}
	s.Children(k, kind, func(id string) { f(tenant.Key{Kind: kind, ID: id}) })
}

func (c *Compiler) everyHost(s *tenant.State, f func(tenant.Key)) {
	for id := range s.Hosts {
		f(tenant.Key{Kind: tenant.KindHost, ID: id})
	}
}

// restate brings the indexes up to date with k's object, and touches the objects whose
// standing that changes: rivals, and a domain that is now present or no longer.
func (c *Compiler) restate(s *tenant.State, k tenant.Key, d *dirty) {
	cs, created := claimsOf(s, k, c.host, c.ports)
	if cs == nil && c.entries[k] == nil {
		return
	}
	e := c.entry(k)
	if !created.Equal(e.created) {
		// The order among rivals changes with it: leave, and come again.
		for _, o := range c.reclaim(e, nil) {
			d.touch(o.key)
		}
		e.created = created
	}
	for _, o := range c.reclaim(e, cs) {
		d.touch(o.key)
	}
	if k.Kind == tenant.KindVport {
		c.relocate(s, e, d)
	}
}

func (c *Compiler) entry(k tenant.Key) *entry {
	e := c.entries[k]
	if e == nil {
		e = &entry{key: k}
		c.entries[k] = e
	}
	return e
}

// reclaim replaces the claims of e and returns the rivals whose standing may change.
func (c *Compiler) reclaim(e *entry, now []claim) []*entry {
	var touched []*entry
	for _, cl := range e.claims {
		if !slices.Contains(now, cl) {
			touched = append(touched, c.claims.remove(cl, e)...)
		}
	}
	for _, cl := range now {
		if !slices.Contains(e.claims, cl) {
			touched = append(touched, c.claims.add(cl, e)...)
		}
	}
	e.claims = now
	return touched
}

// relocate counts a vport of this host in its domain, and finds it by its interface.
func (c *Compiler) relocate(s *tenant.State, e *entry, d *dirty) {
	domain, iface := "", ""
	if v := s.Vports[e.key.ID]; v != nil && v.Host == c.host {
		iface = v.Interface
		if sn := s.Subnets[v.SubnetID]; sn != nil {
			domain = sn.DomainID
		}
	}
	if domain != e.domain {
		c.count(e.domain, -1, d)
		c.count(domain, +1, d)
		e.domain = domain
	}
	if iface != e.iface {
		delete(c.byInterface[e.iface], e.key.ID)
		if len(c.byInterface[e.iface]) == 0 {
			delete(c.byInterface, e.iface)
		}
		if iface != "" {
			if c.byInterface[iface] == nil {
				c.byInterface[iface] = map[string]struct{}{}
			}
			c.byInterface[iface][e.key.ID] = struct{}{}
		}
		e.iface = iface
	}
}

func (c *Compiler) count(domain string, by int, d *dirty) {
	if domain == "" {
		return
	}
	was := c.local[domain]
	if c.local[domain] = was + by; was+by == 0 {
		delete(c.local, domain)
	}
	if was == 0 || was+by == 0 {
		d.touch(tenant.Key{Kind: tenant.KindDomain, ID: domain})
	}
}

// rebuild computes the fragments of the given objects anew: first all old flows go, then
// the new ones come, so that an address may change hands.
func (c *Compiler) rebuild(s *tenant.State, keys []tenant.Key) []flow.Key {
	var changed []flow.Key
	seen := map[flow.Key]struct{}{}
	mark := func(id flow.Key) {
		if _, ok := seen[id]; !ok {
			seen[id] = struct{}{}
			changed = append(changed, id)
		}
	}
	for _, k := range keys {
		e := c.entries[k]
		if e == nil {
			continue
		}
		for _, id := range e.flows {
			delete(c.flows, id)
			mark(id)
		}
		e.flows = e.flows[:0]
		delete(c.notes, k)
		if k.Kind == tenant.KindHost {
			delete(c.vteps, k.ID)
		}
		if len(e.claims) > 0 {
			continue
		}
		delete(c.entries, k)
		if cookie := Cookie(k); c.cookies[cookie] == k {
			delete(c.cookies, cookie)
		}
	}
	for _, k := range keys {
		e := c.entries[k]
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
		if k.Kind == tenant.KindHost {
			c.vteps[k.ID] = o.vtep
		}
		for _, id := range e.flows {
			mark(id)
		}
	}
	return changed
}

// refill runs the stages for one object.
func (c *Compiler) refill(e *entry, o object) {
	f := fragment{cookie: Cookie(e.key)}
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
func (c *Compiler) put(e *entry, f flow.Flow) {
	if other, ok := c.flows[f.Key()]; ok {
		c.notes[e.key] = fmt.Sprintf("defect: flow %v of %v is already %v", f, e.key, c.cookies[other.Cookie])
		return
	}
	c.flows.Put(f)
	e.flows = append(e.flows, f.Key())
}
