package main

import (
	"errors"
	"testing"
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
