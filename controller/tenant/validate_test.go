package tenant

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestValidateName(t *testing.T) {
	for _, name := range []string{"web", "Docker Domain", "Ünïcode", "ネット", "a/b", "x'y\"z;$(id)", "a-b", strings.Repeat("ü", 255)} {
		if err := ValidateName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", " web", "web ", "-web", "a\nb", "a\x00b", "a\x1b[31mb", "a\u202eb", "a\u200bb", "a\xffb", strings.Repeat("x", 256)} {
		if err := ValidateName(name); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q is taken as a name: %v", name, err)
		} else if strings.ContainsAny(err.Error(), "\n\x00\x1b\u202e") {
			t.Errorf("the message about %q repeats it unescaped", name)
		}
	}
}

func TestValidateCIDR(t *testing.T) {
	for _, s := range []string{"10.0.0.0/8", "192.168.1.4/30", "100.64.0.0/10", "8.8.8.0/24"} {
		if _, err := ParseCIDR(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{"", "10.0.0.0", "10.0.0.0/7", "10.0.0.0/31", "10.0.0.1/24", "fd00::/64", "::ffff:10.0.0.0/120",
		"127.0.0.0/8", "169.254.1.0/24", "224.0.0.0/8", "240.0.0.0/8", "0.0.0.0/8"} {
		if _, err := ParseCIDR(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s is taken as a subnet's prefix: %v", s, err)
		}
	}
}

// TestAddresses compares the bounds of a prefix with those found by walking through it.
func TestAddresses(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(rt, "address")
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte(b)), rapid.IntRange(20, 30).Draw(rt, "bits")).Masked()
		last := p.Addr()
		for a := last.Next(); p.Contains(a); a = a.Next() {
			last = a
		}
		if Broadcast(p) != last || FirstHost(p) != p.Addr().Next() {
			rt.Fatalf("%s: broadcast %s, want %s; first host %s", p, Broadcast(p), last, FirstHost(p))
		}
		for a, ok := range map[netip.Addr]bool{p.Addr(): false, last: false, last.Next(): false, p.Addr().Next(): true} {
			if err := ValidateAddress(p, a); (err == nil) != ok {
				rt.Fatalf("%s in %s: %v", a, p, err)
			}
		}
	})
}

func TestValidateID(t *testing.T) {
	if err := ValidateID("0b1f54a5-8fd4-4f0e-9c1c-0e8b9c5d7a10"); err != nil {
		t.Error(err)
	}
	for _, id := range []string{"", "x", "0B1F54A5-8fd4-4f0e-9c1c-0e8b9c5d7a10", "0b1f54a5-8fd4-4f0e-9c1c-0e8b9c5d7a1", "0b1f54a5/8fd4-4f0e-9c1c-0e8b9c5d7a10"} {
		if err := ValidateID(id); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q is taken as an ID: %v", id, err)
		}
	}
}

func TestValidateHost(t *testing.T) {
	for _, c := range []struct {
		host Host
		ok   bool
	}{
		{Host{Meta: Meta{ID: "h1"}}, true}, {Host{Meta: Meta{ID: "h1"}, MTU: 1500}, true}, {Host{Meta: Meta{ID: "h1"}, MTU: 65536}, true},
		{Host{Meta: Meta{ID: "h1"}, MTU: 60}, false}, {Host{Meta: Meta{ID: "h1"}, MTU: -1}, false}, {Host{Meta: Meta{ID: "h1"}, MTU: 65586}, false}, {Host{Meta: Meta{ID: "a/b"}}, false}, {Host{}, false},
	} {
		if err := c.host.Validate(); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.host, err)
		}
	}
}
