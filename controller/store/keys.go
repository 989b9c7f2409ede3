package store

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

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
//	index/vni/N, number/N, customer/N  the ID that has the number
//	index/guard/ID                written whenever something is put into the object
//
// Names and external IDs come last in their keys, so that a slash in them is harmless.
const (
	root  = "/nuage/v1/"
	index = "/nuage/index/v1/"
)

func prefixEnd(prefix string) string { return clientv3.GetPrefixRangeEnd(prefix) }

// All that belongs to the state lies in [wholeFrom, wholeTo), and no secret does.
var (
	wholeFrom = aliveKey("")
	wholeTo   = prefixEnd(statusKey(""))
)

func enterpriseKey(id string) string     { return root + "enterprises/" + id }
func hostKey(id string) string           { return root + "hosts/" + id }
func statusKey(host string) string       { return root + "status/" + host }
func aliveKey(host string) string        { return root + "alive/" + host }
func networkPrefix(host string) string   { return root + "networks/" + host + "/" }
func networkKey(host, id string) string  { return networkPrefix(host) + id }
func domainPrefix(domain string) string  { return root + "domains/" + domain + "/" }
func domainKey(id string) string         { return domainPrefix(id) + "domain/" + id }
func zoneKey(domain, id string) string   { return domainPrefix(domain) + "zones/" + id }
func subnetKey(domain, id string) string { return domainPrefix(domain) + "subnets/" + id }
func vportKey(domain, id string) string  { return domainPrefix(domain) + "vports/" + id }
func leasePrefix(domain, subnet string) string {
	return domainPrefix(domain) + "addresses/" + subnet + "/"
}
func leaseKey(l *tenant.Lease) string {
	return leasePrefix(l.DomainID, l.SubnetID) + l.Address.String()
}

func namePrefix(kind tenant.Kind, parent string) string {
	return index + "names/" + string(kind) + "/" + parent + "/"
}
func nameKey(kind tenant.Kind, parent, name string) string { return namePrefix(kind, parent) + name }
func idKey(id string) string                               { return index + "ids/" + id }
func guardKey(id string) string                            { return index + "guard/" + id }
func externalKey(kind tenant.Kind, external string) string {
	return index + "external/" + string(kind) + "/" + external
}
func numberPrefix(class string) string { return index + class + "/" }
func numberKey(class string, n uint32) string {
	return numberPrefix(class) + strconv.FormatUint(uint64(n), 10)
}

// The classes of unique numbers.
const (
	classVNI      = "vni"
	classNumber   = "number"
	classCustomer = "customer"
)

// parseKey tells which object a key under root holds; ok is false for a key of a kind
// that this version does not know.
func parseKey(key string) (k tenant.Key, ok bool) {
	parts := strings.Split(strings.TrimPrefix(key, root), "/")
	switch kind := tenant.Kind(parts[0]); {
	case len(parts) == 2 && (kind == tenant.KindEnterprise || kind == tenant.KindHost):
		return tenant.Key{Kind: kind, ID: parts[1]}, true
	case len(parts) == 3 && kind == tenant.KindNetwork:
		return tenant.Key{Kind: kind, ID: parts[2]}, true
	case kind != tenant.KindDomain || len(parts) < 4:
		return tenant.Key{}, false
	case len(parts) == 4 && parts[2] == "domain":
		return tenant.Key{Kind: tenant.KindDomain, ID: parts[3]}, true
	case len(parts) == 5 && tenant.Kind(parts[2]) == tenant.KindLease:
		return tenant.Key{Kind: tenant.KindLease, ID: tenant.LeaseID(parts[3], parts[4])}, true
	case len(parts) == 4:
		switch kind := tenant.Kind(parts[2]); kind {
		case tenant.KindZone, tenant.KindSubnet, tenant.KindVport:
			return tenant.Key{Kind: kind, ID: parts[3]}, true
		}
	}
	return tenant.Key{}, false
}

// decode reads the value of an object's key.
func decode(k tenant.Key, value []byte, revision int64) (any, error) {
	switch k.Kind {
	case tenant.KindEnterprise:
		return decodeAs[tenant.Enterprise](k, value, revision)
	case tenant.KindDomain:
		return decodeAs[tenant.Domain](k, value, revision)
	case tenant.KindZone:
		return decodeAs[tenant.Zone](k, value, revision)
	case tenant.KindSubnet:
		return decodeAs[tenant.Subnet](k, value, revision)
	case tenant.KindVport:
		return decodeAs[tenant.Vport](k, value, revision)
	case tenant.KindLease:
		return decodeAs[tenant.Lease](k, value, revision)
	case tenant.KindHost:
		return decodeAs[tenant.Host](k, value, revision)
	default:
		return decodeAs[tenant.Network](k, value, revision)
	}
}

func decodeAs[T any, P interface {
	*T
	object
}](k tenant.Key, value []byte, revision int64) (any, error) {
	p := P(new(T))
	if err := json.Unmarshal(value, p); err != nil {
		return nil, fmt.Errorf("%s %s: %w", k.Kind.Noun(), k.ID, err)
	}
	m := p.Base()
	m.ID, m.Revision = k.ID, revision
	return p, nil
}
