package pipeline

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"nuage/controller/tenant"
)

// claim is something that one object alone may have on a switch. Objects that claim the
// same thing contradict each other: the one that was created first has it, and each of
// the others gets no flows at all. Whether the first has flows of its own does not
// matter, so that the outcome never depends on the order in which changes arrived.
type claim struct {
	what  claimed
	in    string // ID of the domain or subnet that it is unique in; empty for the switch
	value uint64
}

type claimed uint8

const (
	claimCookie   claimed = iota
	claimVTEP             // of a host
	claimNumber           // of a domain
	claimVNI              // of a subnet
	claimPrefix           // of a subnet in a domain
	claimAddress          // in a domain
	claimMAC              // in a subnet
	claimPort             // of this host's bridge
	claimZone             // number in a domain
	claimPolicy           // number in a domain
	claimPriority         // of an entry in a policy
	claimGroup            // number in a domain
	claimMembers          // of a group's name in a domain
	claimLimit            // of an object, in a direction
	claimVirtual          // address to receive for, in a domain
)

func (c claim) String() string {
	switch c.what {
	case claimVTEP:
		return "VTEP " + addr4(c.value).String()
	case claimNumber:
		return fmt.Sprintf("domain number %d", c.value)
	case claimVNI:
		return fmt.Sprintf("VNI %d", c.value)
	case claimPrefix:
		return netip.PrefixFrom(addr4(c.value>>8), int(c.value&0xff)).String()
	case claimAddress:
		return "address " + addr4(c.value).String()
	case claimMAC:
		return "MAC " + tenant.MAC(binary.BigEndian.AppendUint64(nil, c.value)[2:]).String()
	case claimPort:
		return fmt.Sprintf("port number %d", c.value)
	case claimZone, claimPolicy, claimGroup:
		return fmt.Sprintf("number %d", c.value)
	case claimPriority:
		return fmt.Sprintf("priority %d", c.value)
	case claimMembers:
		return "the name"
	case claimLimit:
		return "the rate of " + c.in
	case claimVirtual:
		return "virtual IP " + addr4(c.value).String()
	default:
		return fmt.Sprintf("cookie %#x", c.value)
	}
}

func addressClaim(domainID string, a netip.Addr) claim {
	return claim{claimAddress, domainID, uint4(a)}
}

func virtualClaim(domainID string, a netip.Addr) claim {
	return claim{claimVirtual, domainID, uint4(a)}
}

func membersClaim(domainID, group string) claim {
	return claim{what: claimMembers, in: domainID + "/" + group}
}

func limitClaim(on tenant.Key, d tenant.Direction) claim {
	return claim{what: claimLimit, in: fmt.Sprintf("%s/%s/%s", on.Kind, on.ID, d)}
}

func vtepClaim(a netip.Addr) claim { return claim{what: claimVTEP, value: uint4(a)} }

func uint4(a netip.Addr) uint64 {
	b := a.As4()
	return uint64(binary.BigEndian.Uint32(b[:]))
}

func addr4(v uint64) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(v))))
}

func macClaim(subnetID string, m tenant.MAC) claim {
	return claim{claimMAC, subnetID, binary.BigEndian.Uint64(append([]byte{0, 0}, m[:]...))}
}

// rivals are the objects of one claim, the one that has it first. Almost always there is
// one, which costs no allocation.
type rivals struct {
	first  *record
	others []*record
}

// claims is who claims what.
type claims map[claim]rivals

// add and remove return the objects whose standing changed besides e's own: those
// that now lose to e, or that no longer do.
func (cs claims) add(c claim, e *record) []*record {
	r := cs[c]
	switch {
	case r.first == nil:
		r.first = e
	case before(e, r.first):
		r.others = append(slices.Clip(r.others), r.first)
		r.first = e
	default:
		r.others = append(slices.Clip(r.others), e)
	}
	cs[c] = r
	return r.others
}

func (cs claims) remove(c claim, e *record) []*record {
	r := cs[c]
	if r.first != e {
		r.others = slices.DeleteFunc(slices.Clone(r.others), func(o *record) bool { return o == e })
		cs[c] = r
		return nil
	}
	if len(r.others) == 0 {
		delete(cs, c)
		return nil
	}
	i := 0
	for j := range r.others {
		if before(r.others[j], r.others[i]) {
			i = j
		}
	}
	all := r.others
	cs[c] = rivals{all[i], slices.Delete(slices.Clone(all), i, i+1)}
	return all
}

// before orders rivals: what contains before what is contained, the older before the
// younger, and at last by ID.
func before(a, b *record) bool {
	return cmp.Or(cmp.Compare(order(a.key.Kind), order(b.key.Kind)), a.since.Compare(b.since), cmp.Compare(a.key.ID, b.key.ID)) < 0
}

// kinds are the kinds of object that flows are made of; order is a kind's place among them,
// -1 for another.
var kinds = []tenant.Kind{tenant.KindHost, tenant.KindNetworkMacro, tenant.KindDomain, tenant.KindZone, tenant.KindSubnet,
	tenant.KindPolicyGroup, tenant.KindPolicy, tenant.KindEntry, tenant.KindRateLimiter, tenant.KindVport}

func order(k tenant.Kind) int { return slices.Index(kinds, k) }
