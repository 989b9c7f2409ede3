package store

import (
	"fmt"

	"nuage/controller/tenant"
)

// words are what messages call the numbers of a class.
var words = map[string]string{classVNI: "VNI", classNumber: "domain number", classCustomer: "customer ID"}

// number chooses a number of a class, between lo and hi: want if it is free, or, for 0,
// the one after the highest in use, starting over from lo at the end. The numbers in use
// are t.used; the transaction's own are added to them.
func (t *txn) number(class string, want, lo, hi uint32, st *tenant.State) (uint32, error) {
	used := t.used[class]
	if want != 0 {
		if id, taken := used[want]; taken {
			return 0, fmt.Errorf("%s %d %w: %s has it", words[class], want, tenant.ErrExists, holder(st, id))
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

func holder(st *tenant.State, id string) string {
	if name := idHolder(st, id); name != "" {
		return name
	}
	return id
}

func (t *txn) vni(st *tenant.State, want uint32) (uint32, error) {
	return t.number(classVNI, want, 1, tenant.MaxVNI, st)
}

func (t *txn) domainNumber(st *tenant.State, want uint16) (uint16, error) {
	n, err := t.number(classNumber, uint32(want), 1, tenant.MaxDomainNumber, st)
	return uint16(n), err
}

func (t *txn) customerID(st *tenant.State, want uint32) (uint32, error) {
	return t.number(classCustomer, want, tenant.MinCustomerID, 1<<32-2, st)
}
