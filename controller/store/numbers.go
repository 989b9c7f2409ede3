package store

import (
	"fmt"
	"strings"

	"nuage/controller/tenant"
)

// words are what messages call the numbers of a class.
var words = map[string]string{classVNI: "VNI", classNumber: "domain number", classCustomer: "customer ID",
	classZone: "zone number", classGroup: "policy group number", classPolicy: "policy number"}

func wordOf(class string) string {
	class, _, _ = strings.Cut(class, "/")
	return words[class]
}

// number chooses a number of a class, between lo and hi: want if it is free, or, for 0,
// the one after the highest in use, starting over from lo at the end. The numbers in use
// are t.used, to which it is added.
func (t *txn) number(class string, want, lo, hi uint32, st *tenant.State) (uint32, error) {
	if t.used == nil {
		t.used = map[string]map[uint32]string{}
	}
	used := t.used[class]
	if used == nil {
		used = map[uint32]string{}
		t.used[class] = used
	}
	if id, taken := used[want]; taken {
		return 0, fmt.Errorf("%s %d %w: %s has it", wordOf(class), want, tenant.ErrExists, holder(st, id))
	}
	if want == 0 {
		if want = free(used, lo, hi); want == 0 {
			return 0, tenant.Errorf(tenant.ErrExhausted, "no %s left: all from %d to %d are in use", wordOf(class), lo, hi)
		}
	}
	used[want] = ""
	return want, nil
}

// free is the number after the highest in use or, at the end, the lowest that is not; 0 if
// there is none.
func free(used map[uint32]string, lo, hi uint32) uint32 {
	n := lo - 1
	for u := range used {
		n = max(n, u)
	}
	if n < hi {
		return n + 1
	}
	for n = lo; n <= hi; n++ {
		if _, taken := used[n]; !taken {
			return n
		}
	}
	return 0
}

// holder names the object that has the ID.
func holder(st *tenant.State, id string) string {
	for kind := range identified {
		if _, ok := entryOf(st, tenant.Key{Kind: kind, ID: id}); ok {
			return nameOf(st, tenant.Key{Kind: kind, ID: id})
		}
	}
	return id
}

// numberIn gives an object of an existing domain the number that it asks for, or one of
// 1 to hi if it has none yet.
func (t *txn) numberIn(st *tenant.State, class, domain string, n *uint16, hi uint32) error {
	if st.Domains[domain] == nil {
		return notFound(tenant.KindDomain, domain)
	}
	if *n != 0 {
		return nil // the index tells whether another has it
	}
	got, err := t.number(classIn(class, domain), 0, 1, hi, st)
	*n = uint16(got)
	return err
}

// numbersIn reads a domain, and for an object without a number those that others have.
func (r *reader) numbersIn(domain, class string, n uint16) error {
	if err := r.objects(domainKey(domain)); err != nil || n != 0 {
		return err
	}
	return r.used(classIn(class, domain))
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
