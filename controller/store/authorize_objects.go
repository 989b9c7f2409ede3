package store

import (
	"encoding/json"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuage/controller/tenant"
)

// put judges the put of a key that is no index.
func (r *review) put(key string, value []byte) error {
	parts := strings.Split(strings.TrimPrefix(key, root), "/")
	if !strings.HasPrefix(key, root) || len(parts) < 2 {
		return deny("not an object")
	}
	domain := ""
	if parts[0] == string(tenant.KindDomain) {
		if len(parts) < 4 {
			return deny("not an object")
		}
		domain, parts = parts[1], parts[2:]
	}
	switch parts[0] {
	case "hosts", "status", "alive":
		if key != root+parts[0]+"/"+r.host {
			return deny("it is another host's")
		}
		return r.putHost(parts[0], value)
	case string(tenant.KindNetwork):
		return r.putNetwork(key, value)
	case string(tenant.KindVport):
		return r.putVport(key, domain, value)
	case string(tenant.KindLease):
		return r.putLease(key, domain, value)
	case string(tenant.KindEnterprise):
		e, err := read[tenant.Enterprise](value)
		if err != nil {
			return err
		}
		return r.create(key, enterpriseEntry(e))
	case "domain":
		d, err := read[tenant.Domain](value)
		if err != nil {
			return err
		}
		return r.create(key, domainEntry(d))
	case string(tenant.KindZone):
		z, err := read[tenant.Zone](value)
		if err != nil {
			return err
		}
		return r.create(key, zoneEntry(z))
	case string(tenant.KindSubnet):
		return r.putSubnet(key, value)
	case string(tenant.KindPolicyGroup):
		g, err := read[tenant.PolicyGroup](value)
		if err != nil {
			return err
		}
		return r.create(key, groupEntry(g))
	case "counters":
		return r.putCounters(key, value)
	case "talk":
		return r.putTalk(key, value)
	}
	return deny("no host writes such")
}

// read is the object of a value.
func read[T any, P interface {
	*T
	Validate() error
}](value []byte) (P, error) {
	p := P(new(T))
	if err := json.Unmarshal(value, p); err != nil {
		return nil, deny("the value cannot be read")
	}
	if err := p.Validate(); err != nil {
		return nil, deny("%v", err)
	}
	return p, nil
}

func (r *review) putHost(kind string, value []byte) error {
	if kind != "hosts" {
		return nil // it is asked about nothing but itself
	}
	h, err := read[tenant.Host](value)
	if err == nil && (h.ID != r.host || h.Name != r.host) {
		err = deny("it names another host")
	}
	if err != nil || !h.VTEP.IsValid() {
		return err
	}
	prefix := hostKey("")
	hosts, revision, err := r.read(prefix, prefixEnd(prefix))
	if err != nil {
		return err
	}
	still := revisionIs(prefix, pb.Compare_LESS, revision+1)
	still.RangeEnd = []byte(prefixEnd(prefix))
	r.conditions = append(r.conditions, still)
	for _, kv := range hosts {
		other, err := read[tenant.Host](kv.Value)
		if err == nil && sameVTEP(h, other) {
			return deny("VTEP %s is host %s's", h.VTEP, other.ID)
		}
	}
	return nil
}

// putCounters judges what a host has counted in a domain that there is.
func (r *review) putCounters(key string, value []byte) error {
	var c tenant.Counters
	switch err := json.Unmarshal(value, &c); {
	case err != nil:
		return deny("the value cannot be read")
	case c.Host != r.host || key != countersKey(r.host, c.DomainID):
		return deny("it is another host's")
	}
	_, err := r.there(domainKey(c.DomainID))
	return err
}

func (r *review) putNetwork(key string, value []byte) error {
	n, err := read[tenant.Network](value)
	if err != nil {
		return err
	}
	if n.Host != r.host || key != root+"networks/"+r.host+"/"+n.ID {
		return deny("it is another host's")
	}
	r.guards[guardKey(n.SubnetID)] = true
	sub, err := r.subnet(n.DomainID, n.SubnetID)
	if err == nil && sub.ZoneID != n.ZoneID {
		err = deny("the subnet is in another zone")
	}
	return err
}

// there is an object that must be there and stay, or come with the transaction.
func (r *review) there(key string) ([]byte, error) {
	if value, ok := r.puts[key]; ok {
		return value, nil
	}
	kv, err := r.get(key)
	if err != nil {
		return nil, err
	}
	if kv == nil || r.deletes[key] {
		return nil, deny("there is no %s", key)
	}
	return kv.Value, nil
}

func (r *review) subnet(domain, id string) (*tenant.Subnet, error) {
	value, err := r.there(subnetKey(domain, id))
	if err != nil {
		return nil, err
	}
	return read[tenant.Subnet](value)
}

// create judges the making of an object that belongs to no host.
func (r *review) create(key string, e entry) error {
	have, err := r.get(key)
	switch {
	case err != nil:
		return err
	case have != nil:
		return deny("only the host that serves changes it")
	case !r.autocreate:
		return deny("the host that serves makes nothing by itself (NUAGE_AUTOCREATE=false there): make it there first")
	case tenant.ValidateID(e.Base().ID) != nil || e.key != key:
		return deny("the value is another object's")
	}
	for class, n := range e.numbers {
		if n == 0 {
			return deny("it has no %s", wordOf(class))
		}
	}
	return r.comes(e)
}

// comes calls for the index of a new object.
func (r *review) comes(e entry) error {
	m := e.Base()
	r.claims[idKey(m.ID)] = e.key
	for _, key := range e.index() {
		r.claims[key] = m.ID
	}
	if e.within == "" {
		return nil
	}
	_, err := r.there(e.within)
	return err
}

// goes calls for the end of an object's index, and of the rate limiters on it.
func (r *review) goes(domain string, e entry) error {
	m := e.Base()
	r.unindex[idKey(m.ID)], r.unindex[guardKey(m.ID)] = true, true
	for _, key := range e.index() {
		r.unindex[key] = true
	}
	if !limited[e.kind] {
		return nil
	}
	for _, d := range directions {
		limiter, err := r.get(limiterKey(m.ID, d))
		if err != nil {
			return err
		}
		if limiter != nil && !r.deletes[keyIn(domain, tenant.KindRateLimiter, string(limiter.Value))] {
			return deny("the rate limiter on it is left behind")
		}
	}
	return nil
}

// removeLimiter judges the removal of a rate limiter, which goes with what it is on.
func (r *review) removeLimiter(key, domain string) error {
	have, err := r.get(key)
	if err != nil || have == nil {
		return err
	}
	l, err := read[tenant.RateLimiter](have.Value)
	if err != nil {
		return err
	}
	if !r.deletes[keyOf(domain, l.On)] {
		return deny("no host removes such but with what it is on")
	}
	return r.goes(domain, limiterEntry(l))
}

func (r *review) putSubnet(key string, value []byte) error {
	n, err := read[tenant.Subnet](value)
	if err != nil {
		return err
	}
	if have, err := r.get(key); err != nil {
		return err
	} else if have != nil {
		return r.finishSubnet(n, have.Value)
	}
	if err := r.create(key, subnetEntry(n)); err != nil {
		return err
	}
	r.guards[guardKey(n.DomainID)] = true
	prefix := domainPrefix(n.DomainID) + "subnets/"
	others, revision, err := r.read(prefix, clientv3.GetPrefixRangeEnd(prefix))
	if err != nil {
		return err
	}
	r.quiet(n.DomainID, revision)
	for _, kv := range others {
		if err := apart(n, kv.Value); err != nil {
			return err
		}
	}
	for other, value := range r.puts {
		if other != key && strings.HasPrefix(other, prefix) {
			if err := apart(n, value); err != nil {
				return err
			}
		}
	}
	return nil
}

func apart(n *tenant.Subnet, other []byte) error {
	o, err := read[tenant.Subnet](other)
	if err == nil && o.CIDR.Overlaps(n.CIDR) {
		err = deny("%s overlaps subnet %s (%s)", n.CIDR, o.Name, o.CIDR)
	}
	return err
}

// remove judges the deletion of a key that is no index.
func (r *review) remove(key string) error {
	rest, ok := strings.CutPrefix(key, root)
	parts := strings.Split(rest, "/")
	switch {
	case !ok || len(parts) < 2:
	case len(parts) == 2 && (parts[0] == "hosts" || parts[0] == "status" || parts[0] == "alive") && parts[1] == r.host:
		return nil
	case len(parts) == 3 && (parts[0] == string(tenant.KindNetwork) || parts[0] == "counters") && parts[1] == r.host:
		return nil
	case len(parts) == 4 && parts[0] == string(tenant.KindDomain) && parts[2] == string(tenant.KindVport):
		return r.removeVport(key)
	case len(parts) == 4 && parts[0] == string(tenant.KindDomain) && parts[2] == string(tenant.KindSubnet):
		return r.removeSubnet(key)
	case len(parts) == 4 && parts[0] == string(tenant.KindDomain) && parts[2] == string(tenant.KindRateLimiter):
		return r.removeLimiter(key, parts[1])
	case len(parts) == 5 && parts[0] == string(tenant.KindDomain) && parts[2] == string(tenant.KindLease):
		return r.removeLease(key)
	}
	return deny("only the host that serves deletes it")
}

// finishSubnet judges what is settled late of a subnet that was made for a Docker network: that
// it is to outlive the network and, while nothing uses it, its gateway, which any host could
// come to as well by releasing and making the subnet.
func (r *review) finishSubnet(n *tenant.Subnet, value []byte) error {
	old, err := read[tenant.Subnet](value)
	if err != nil {
		return err
	}
	can := *old
	can.Gateway, can.Updated, can.DockerOwned = n.Gateway, n.Updated, n.DockerOwned
	if !old.DockerOwned || can != *n {
		return deny("only the host that serves changes it")
	}
	if n.Gateway == old.Gateway {
		return nil
	}
	r.guards[guardKey(n.DomainID)] = true
	r.empties[leasePrefix(n.DomainID, n.ID)] = true
	return r.unused(n)
}

// removeSubnet judges the release of a subnet that was made for a Docker network.
func (r *review) removeSubnet(key string) error {
	have, err := r.get(key)
	if err != nil || have == nil {
		return err
	}
	n, err := read[tenant.Subnet](have.Value)
	if err != nil {
		return err
	}
	if !n.DockerOwned {
		return deny("only the host that serves deletes it: it was not made for a Docker network")
	}
	if err := r.goes(n.DomainID, subnetEntry(n)); err != nil {
		return err
	}
	users, _, err := r.read(usesPrefix(n.ID), clientv3.GetPrefixRangeEnd(usesPrefix(n.ID)))
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return deny("entries of policies name it")
	}
	r.conditions = append(r.conditions, nothingIn(usesPrefix(n.ID)))
	r.empties[leasePrefix(n.DomainID, n.ID)] = true
	return r.unused(n)
}

// unused: no vport and no network is in the subnet, nor comes to be.
func (r *review) unused(n *tenant.Subnet) error {
	for _, prefix := range []string{domainPrefix(n.DomainID) + "vports/", root + "networks/"} {
		users, revision, err := r.read(prefix, clientv3.GetPrefixRangeEnd(prefix))
		if err != nil {
			return err
		}
		r.quiet(n.ID, revision)
		for _, kv := range users {
			var user struct{ SubnetID string }
			if json.Unmarshal(kv.Value, &user) == nil && user.SubnetID == n.ID && !r.deletes[string(kv.Key)] {
				return deny("%s uses it", kv.Key)
			}
		}
	}
	return nil
}
