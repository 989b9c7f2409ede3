package main

import (
	"errors"
	"testing"

	"nuage/controller/tenant"
)

// Who is not let in is told what is wrong with the token, not only to get one.
func TestStoreErrorHasTheToken(t *testing.T) {
	withdrawn, expired := errors.New("the certificate has been withdrawn"), errors.New("the token has expired")
	for _, c := range []struct {
		ready, token error
		want         string
	}{
		{nil, nil, ""},
		{nil, expired, ""}, // the certificate does
		{withdrawn, nil, "the certificate has been withdrawn"},
		{withdrawn, expired, "the certificate has been withdrawn; the token in NUAGE_JOIN is of no use: the token has expired"},
	} {
		if got := text(storeError(c.ready, c.token)); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// A record with an MTU that no container can have takes the network from none.
func TestNarrowest(t *testing.T) {
	for _, c := range []struct {
		own    int
		others []int
		want   int
	}{
		{0, nil, 0},
		{1500, nil, 1500},
		{1500, []int{9000, 0}, 1500},
		{9000, []int{1500, 60}, 1500},
		{0, []int{60, 1 << 30}, 0},
		{0, []int{626, 625}, 626},
	} {
		s := tenant.NewState()
		for i, mtu := range c.others {
			h := tenant.Host{Meta: tenant.Meta{ID: string(rune('a' + i))}, MTU: mtu}
			s.Apply(tenant.Change{Key: tenant.Key{Kind: tenant.KindHost, ID: h.ID}, Value: &h})
		}
		if got := narrowest(s, c.own); got != c.want {
			t.Errorf("%d beside %d: %d, want %d", c.own, c.others, got, c.want)
		}
	}
}
