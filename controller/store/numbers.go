package store

import (
	"fmt"

	"nuage/controller/tenant"
)

// words are what messages call the numbers of a class.
var words = map[string]string{classVNI: "VNI", classNumber: "domain number", classCustomer: "customer ID"}

// number chooses a number of a class, between lo and hi: want if it is free, or, for 0,
// the one after the highest in use, starting over from lo at the end. used are those in
// use with their holders; the transaction's own are added to it.
func (t *txn) number(class string, want, lo, hi uint32, used map[uint32]tenant.Key, st *tenant.State) (uint32, error) {
	if want != 0 {
		if k, taken := used[want]; taken {
			return 0, fmt.Errorf("%s %d %w: %s has it", words[class], want, tenant.ErrExists, nameOf(st, k))
		}
		return want, nil
	}
	highest := lo - 1
	for n := range used {
		highest = max(highest, n)
	}
	highest = max(highest, t.numbers[class])
	n := highest + 1
	if n > hi {
		for n = lo; n <= hi; n++ {
			if _, taken := used[n]; !taken && n != t.numbers[class] {
				break
			}
		}
	}
	if n > hi {
		return 0, tenant.Errorf(tenant.ErrExhausted, "no %s left: all from %d to %d are in use", words[class], lo, hi)
	}
	t.numbers[class] = n
	return n, nil
}

func (t *txn) vni(st *tenant.State, want uint32) (uint32, error) {
	used := make(map[uint32]tenant.Key, len(st.Domains)+len(st.Subnets))
	for id, d := range st.Domains {
		used[d.VNI] = tenant.Key{Kind: tenant.KindDomain, ID: id}
	}
	for id, n := range st.Subnets {
		used[n.VNI] = tenant.Key{Kind: tenant.KindSubnet, ID: id}
	}
	return t.number(classVNI, want, 1, tenant.MaxVNI, used, st)
}

func (t *txn) domainNumber(st *tenant.State, want uint16) (uint16, error) {
	used := make(map[uint32]tenant.Key, len(st.Domains))
	for id, d := range st.Domains {
		used[uint32(d.Number)] = tenant.Key{Kind: tenant.KindDomain, ID: id}
	}
	n, err := t.number(classNumber, uint32(want), 1, tenant.MaxDomainNumber, used, st)
	return uint16(n), err
}

func (t *txn) customerID(st *tenant.State, want uint32) (uint32, error) {
	used := make(map[uint32]tenant.Key, len(st.Enterprises))
	for id, e := range st.Enterprises {
		used[e.CustomerID] = tenant.Key{Kind: tenant.KindEnterprise, ID: id}
	}
	return t.number(classCustomer, want, tenant.MinCustomerID, 1<<32-2, used, st)
}
