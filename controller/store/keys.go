package store

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuage/controller/tenant"
)

// The layout of the keys. Objects are under root, those of a domain under one prefix, so
// that a host can follow only the domains present on it. What transactions need to find
// or to exclude one another is under index, which nobody follows:
//
//	index/names/KIND/PARENT/NAME  the ID that has the name in the parent
//	index/ids/ID                  the key of the object
//	index/external/KIND/EXTID     the ID that has the external ID
//	index/priority/DOMAIN/DIRECTION/N  the ID of the policy that has the priority
//	index/vni/N, number/N, customer/N, CLASS/DOMAIN/N  the ID that has the number
//	index/uses/ID/BY              the object BY names the object, which cannot go while it does
//	index/guard/ID                written whenever something is put into the object
//
// Names and external IDs come last in their keys, so that a slash in them is harmless.
const (
	root  = "/nuage/v1/"
	index = "/nuage/index/v1/"

	talkPrefix = root + "talk/"
	// restoredKey is written by each restoration, and is no object.
	restoredKey = root + "restored"
)

func prefixEnd(prefix string) string { return clientv3.GetPrefixRangeEnd(prefix) }

// All that belongs to the state lies in [wholeFrom, wholeTo), and no secret does.
var (
	wholeFrom = aliveKey("")
	wholeTo   = prefixEnd(statusKey(""))
)

// The questions that hosts ask each other lie outside of the state, each under the name of
// the host that is asked, by who asks and which of its slots; the answer likewise.
func askedPrefix(host string) string { return talkPrefix + "asked/" + host + "/" }
func askedKey(host, asker string, slot int) string {
	return askedPrefix(host) + asker + "/" + strconv.Itoa(slot)
}
func answeredKey(host, asker string, slot int) string {
	return talkPrefix + "answered/" + host + "/" + asker + "/" + strconv.Itoa(slot)
}

func enterpriseKey(id string) string         { return root + "enterprises/" + id }
func hostKey(id string) string               { return root + "hosts/" + id }
func statusKey(host string) string           { return root + "status/" + host }
func aliveKey(host string) string            { return root + "alive/" + host }
func networkPrefix(host string) string       { return root + "networks/" + host + "/" }
func networkKey(host, id string) string      { return networkPrefix(host) + id }
func domainPrefix(domain string) string      { return root + "domains/" + domain + "/" }
func domainKey(id string) string             { return domainPrefix(id) + "domain/" + id }
func macroKey(id string) string              { return root + "networkmacros/" + id }
func countersPrefix(host string) string      { return root + "counters/" + host + "/" }
func countersKey(host, domain string) string { return countersPrefix(host) + domain }
func keyIn(domain string, kind tenant.Kind, id string) string {
	return domainPrefix(domain) + string(kind) + "/" + id
}
func zoneKey(domain, id string) string   { return keyIn(domain, tenant.KindZone, id) }
func subnetKey(domain, id string) string { return keyIn(domain, tenant.KindSubnet, id) }
func vportKey(domain, id string) string  { return keyIn(domain, tenant.KindVport, id) }
func leasePrefix(domain, subnet string) string {
	return domainPrefix(domain) + "addresses/" + subnet + "/"
}
func leaseKey(l *tenant.Lease) string {
	return leasePrefix(l.DomainID, l.SubnetID) + l.Address.String()
}

// keyOf is the key of an object of a domain, or of the domain or a macro itself.
func keyOf(domain string, k tenant.Key) string {
	switch k.Kind {
	case tenant.KindDomain:
		return domainKey(k.ID)
	case tenant.KindNetworkMacro:
		return macroKey(k.ID)
	}
	return keyIn(domain, k.Kind, k.ID)
}

func namePrefix(kind tenant.Kind, parent string) string {
	return index + "names/" + string(kind) + "/" + parent + "/"
}
func nameKey(kind tenant.Kind, parent, name string) string { return namePrefix(kind, parent) + name }

// ruleKey is the index of an entry by its priority, such that they are in order.
func ruleKey(policy string, priority uint32) string {
	return nameKey(tenant.KindEntry, policy, fmt.Sprintf("%010d", priority))
}
func priorityKey(p *tenant.Policy) string {
	return index + "priority/" + p.DomainID + "/" + string(p.Direction) + "/" + strconv.FormatUint(uint64(p.Priority), 10)
}
func limiterKey(on string, d tenant.Direction) string {
	return nameKey(tenant.KindRateLimiter, on, string(d))
}
func usesPrefix(id string) string  { return index + "uses/" + id + "/" }
func usesKey(id, by string) string { return usesPrefix(id) + by }
func idKey(id string) string       { return index + "ids/" + id }
func guardKey(id string) string    { return index + "guard/" + id }
func externalKey(kind tenant.Kind, external string) string {
	return index + "external/" + string(kind) + "/" + external
}
func numberPrefix(class string) string { return index + class + "/" }
func numberKey(class string, n uint32) string {
	return numberPrefix(class) + strconv.FormatUint(uint64(n), 10)
}

// The classes of unique numbers. Those of the last three are unique in a domain.
const (
	classVNI      = "vni"
	classNumber   = "number"
	classCustomer = "customer"
	classZone     = "zonenumber"
	classGroup    = "groupnumber"
	classPolicy   = "policynumber"
)

func classIn(class, domain string) string { return class + "/" + domain }

// identified are the kinds of object that have an ID of their own, each with an empty one.
var identified = map[tenant.Kind]func() object{
	tenant.KindEnterprise:   func() object { return &tenant.Enterprise{} },
	tenant.KindNetworkMacro: func() object { return &tenant.NetworkMacro{} },
	tenant.KindDomain:       func() object { return &tenant.Domain{} },
	tenant.KindZone:         func() object { return &tenant.Zone{} },
	tenant.KindSubnet:       func() object { return &tenant.Subnet{} },
	tenant.KindVport:        func() object { return &tenant.Vport{} },
	tenant.KindPolicyGroup:  func() object { return &tenant.PolicyGroup{} },
	tenant.KindPolicy:       func() object { return &tenant.Policy{} },
	tenant.KindEntry:        func() object { return &tenant.Entry{} },
	tenant.KindRateLimiter:  func() object { return &tenant.RateLimiter{} },
}

// parseKey tells which object a key under root holds; ok is false for a key of a kind
// that this version does not know.
func parseKey(key string) (k tenant.Key, ok bool) {
	parts := strings.Split(strings.TrimPrefix(key, root), "/")
	switch kind := tenant.Kind(parts[0]); {
	case len(parts) == 2 && (kind == tenant.KindEnterprise || kind == tenant.KindHost || kind == tenant.KindNetworkMacro):
		return tenant.Key{Kind: kind, ID: parts[1]}, true
	case len(parts) == 3 && kind == tenant.KindNetwork:
		return tenant.Key{Kind: kind, ID: tenant.NetworkID(parts[1], parts[2])}, true
	case kind != tenant.KindDomain || len(parts) < 4:
		return tenant.Key{}, false
	case len(parts) == 4 && parts[2] == "domain":
		return tenant.Key{Kind: tenant.KindDomain, ID: parts[3]}, true
	case len(parts) == 5 && tenant.Kind(parts[2]) == tenant.KindLease:
		return tenant.Key{Kind: tenant.KindLease, ID: tenant.LeaseID(parts[3], parts[4])}, true
	case len(parts) == 4 && domainal[tenant.Kind(parts[2])]:
		return tenant.Key{Kind: tenant.Kind(parts[2]), ID: parts[3]}, true
	}
	return tenant.Key{}, false
}

// domainal are the kinds of object that lie under a domain's prefix by their ID.
var domainal = map[tenant.Kind]bool{tenant.KindZone: true, tenant.KindSubnet: true, tenant.KindVport: true,
	tenant.KindPolicyGroup: true, tenant.KindPolicy: true, tenant.KindEntry: true, tenant.KindRateLimiter: true}

// decode reads the value of an object's key.
func decode(k tenant.Key, kv *mvccpb.KeyValue) (any, error) {
	var o object
	switch k.Kind {
	case tenant.KindLease:
		o = &tenant.Lease{}
	case tenant.KindHost:
		o = &tenant.Host{}
	case tenant.KindNetwork:
		o = &tenant.Network{}
	default:
		o = identified[k.Kind]()
	}
	if err := json.Unmarshal(kv.Value, o); err != nil {
		return nil, fmt.Errorf("%s %s: %w", k.Kind.Noun(), k.ID, err)
	}
	m := o.Base()
	m.ID, m.Revision, m.Committed = k.ID, kv.ModRevision, kv.CreateRevision
	if n, ok := o.(*tenant.Network); ok {
		_, n.ID, _ = strings.Cut(k.ID, "/")
	}
	return o, nil
}
