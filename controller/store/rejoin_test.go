package store

import (
	"strings"
	"testing"
)

// A host whose certificate looks valid keeps it when another token is of no use, and can say
// why the token is not.
func TestUselessTokenOfAJoinedHost(t *testing.T) {
	t.Parallel()
	s, _ := runServing(t, Config{})
	dir, used := t.TempDir(), newToken(t, s)
	c, err := joinAs(t, used, "h1", dir)
	if err != nil || c.TokenRefused != nil {
		t.Fatal(c.TokenRefused, err)
	}
	tk, err := parseToken(newToken(t, s))
	if err != nil {
		t.Fatal(err)
	}
	forged, other, gone := tk, tk, tk
	forged.Secret = append([]byte{tk.Secret[0] ^ 1}, tk.Secret[1:]...)
	other.Authority = strings.Repeat("ab", 32)
	gone.Endpoint = "127.0.0.1:1"
	for _, bad := range []struct{ token, why string }{
		{forged.String(), "forged"},
		{other.String(), "another fleet"},
		{gone.String(), "refused"},
		{"garbage", "token"},
	} {
		c, err := joinAs(t, bad.token, "h1", dir)
		if err != nil || len(c.Endpoints) != 1 || c.TokenRefused == nil || !strings.Contains(c.TokenRefused.Error(), bad.why) {
			t.Errorf("%s: %v, %v, refused %v", bad.why, c.Endpoints, err, c.TokenRefused)
		}
	}
	for _, good := range []string{tk.String(), ""} {
		if c, err := joinAs(t, good, "h1", dir); err != nil || c.TokenRefused != nil {
			t.Errorf("%v, %v", c.TokenRefused, err)
		}
	}
}
