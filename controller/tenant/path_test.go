package tenant

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

// sample is a state of two domains with the same addresses.
func sample() *State {
	s := NewState()
	for _, c := range []Change{
		{Key{KindEnterprise, "e"}, &Enterprise{Meta: Meta{ID: "e"}, Name: "Acme"}},
		{Key{KindDomain, "d"}, &Domain{Meta: Meta{ID: "d"}, EnterpriseID: "e", Name: "App1"}},
		{Key{KindDomain, "d2"}, &Domain{Meta: Meta{ID: "d2"}, EnterpriseID: "e", Name: "App2"}},
		{Key{KindZone, "z"}, &Zone{Meta: Meta{ID: "z"}, DomainID: "d", Name: "Front"}},
		{Key{KindZone, "z1"}, &Zone{Meta: Meta{ID: "z1"}, DomainID: "d", Name: "Back"}},
		{Key{KindZone, "z2"}, &Zone{Meta: Meta{ID: "z2"}, DomainID: "d2", Name: "Front"}},
		{Key{KindSubnet, "n"}, &Subnet{Meta: Meta{ID: "n"}, DomainID: "d", ZoneID: "z", Name: "web",
			CIDR: netip.MustParsePrefix("10.0.1.0/24"), Gateway: netip.MustParseAddr("10.0.1.1")}},
		{Key{KindSubnet, "n2"}, &Subnet{Meta: Meta{ID: "n2"}, DomainID: "d2", ZoneID: "z2", Name: "web",
			CIDR: netip.MustParsePrefix("10.0.1.0/24"), Gateway: netip.MustParseAddr("10.0.1.254")}},
		// A zone with two subnets, and one that came with a Docker network.
		{Key{KindDomain, "d3"}, &Domain{Meta: Meta{ID: "d3"}, EnterpriseID: "e", Name: "App3"}},
		{Key{KindZone, "z3"}, &Zone{Meta: Meta{ID: "z3"}, DomainID: "d3", Name: "Front"}},
		{Key{KindSubnet, "b"}, &Subnet{Meta: Meta{ID: "b"}, DomainID: "d3", ZoneID: "z3", Name: "b"}},
		{Key{KindSubnet, "a"}, &Subnet{Meta: Meta{ID: "a"}, DomainID: "d3", ZoneID: "z3", Name: "a"}},
		{Key{KindSubnet, "k"}, &Subnet{Meta: Meta{ID: "k"}, DomainID: "d3", ZoneID: "z3", Name: "k", DockerOwned: true}},
		{Key{KindSubnet, "k1"}, &Subnet{Meta: Meta{ID: "k1"}, DomainID: "d", ZoneID: "z", Name: "k1", DockerOwned: true, CIDR: netip.MustParsePrefix("10.9.0.0/24")}},
	} {
		s.Apply(c)
	}
	return s
}

func TestResolve(t *testing.T) {
	cidr := netip.MustParsePrefix
	for _, c := range []struct {
		name string
		spec PathSpec
		// want is the IDs of the path, ? for what is to be made, with the subnet's name,
		// CIDR and gateway; or it is the error.
		want  string
		class error
	}{
		{"by name", PathSpec{Enterprise: "Acme", Domain: "App1", Zone: "Front", Subnet: "web"}, "e d z n web 10.0.1.0/24 10.0.1.1", nil},
		{"by CIDR", PathSpec{Enterprise: "Acme", Domain: "App2", Zone: "Front", CIDR: cidr("10.0.1.0/24")}, "e d2 z2 n2 web 10.0.1.0/24 10.0.1.254", nil},
		{"by both", PathSpec{Enterprise: "Acme", Domain: "App1", Zone: "Front", Subnet: "web", CIDR: cidr("10.0.1.0/24"), Gateway: netip.MustParseAddr("10.0.1.1")}, "e d z n web 10.0.1.0/24 10.0.1.1", nil},
		{"made in a zone", PathSpec{Enterprise: "Acme", Domain: "App1", Zone: "Back", CIDR: cidr("10.0.2.0/24"), Create: true}, "e d z1 ? 10.0.2.0-24 10.0.2.0/24 10.0.2.1", nil},
		{"all made", PathSpec{Enterprise: "New", Domain: "App1", Zone: "Front", Subnet: "db", CIDR: cidr("10.0.1.0/24"), Gateway: netip.MustParseAddr("10.0.1.9"), Create: true}, "? ? ? ? db 10.0.1.0/24 10.0.1.9", nil},
		{"zone made", PathSpec{Enterprise: "Acme", Domain: "App1", Zone: "New Zone", Subnet: "web", CIDR: cidr("10.0.2.0/24"), Create: true}, "e d ? ? web 10.0.2.0/24 10.0.2.1", nil},
		{"no enterprise", PathSpec{Domain: "App1", Zone: "Front", Subnet: "web"}, "no enterprise given: a subnet is named by enterprise, domain and zone, and by subnet or CIDR", ErrInvalid},
		{"no zone", PathSpec{Enterprise: "Acme", Domain: "App1", Subnet: "web"}, "no zone given: a subnet is named by enterprise, domain and zone, and by subnet or CIDR", ErrInvalid},
		{"the only one", PathSpec{Enterprise: "Acme", Domain: "App1", Zone: "Front", Create: true}, "e d z n web 10.0.1.0/24 10.0.1.1", nil},
		{"the only one, other gateway", PathSpec{Enterprise: "Acme", Domain: "App1", Zone: "Front", Gateway: netip.MustParseAddr("10.0.1.2")}, "subnet web (10.0.1.0/24) has gateway 10.0.1.1, not 10.0.1.2", ErrConflict},
		{"none to choose", PathSpec{Enterprise: "Acme", Domain: "App1", Zone: "Back", Create: true}, "zone Back of domain App1 has no subnet, and no CIDR given to make one", ErrNotFound},
		{"none to choose in a new zone", PathSpec{Enterprise: "Acme", Domain: "App1", Zone: "Nope", Create: true}, "zone Nope of domain App1 not found: create it first (nuagectl apply)", ErrNotFound},
		{"several to choose from", PathSpec{Enterprise: "Acme", Domain: "App3", Zone: "Front"}, "zone Front of domain App3 has several subnets, and neither a name nor a CIDR given: a, b", ErrConflict},
		{"bad name", PathSpec{Enterprise: "Acme", Domain: "App1", Zone: "Fr\nont", Subnet: "web"}, `zone: the name "Fr\nont" contains the unprintable character U+000A`, ErrInvalid},
		{"host bits", PathSpec{Enterprise: "Acme", Domain: "App1", Zone: "Front", CIDR: cidr("10.0.1.7/24")}, "10.0.1.7/24 has host bits set; its prefix is 10.0.1.0/24", ErrInvalid},
		{"gateway outside", PathSpec{Enterprise: "Acme", Domain: "App1", Zone: "Back", CIDR: cidr("10.0.2.0/24"), Gateway: netip.MustParseAddr("10.0.3.1"), Create: true}, "gateway: 10.0.3.1 is not in 10.0.2.0/24", ErrInvalid},
		{"other CIDR", PathSpec{Enterprise: "Acme", Domain: "App1", Zone: "Front", Subnet: "web", CIDR: cidr("10.0.2.0/24"), Create: true}, "subnet web is 10.0.1.0/24, not 10.0.2.0/24", ErrConflict},
		{"other gateway", PathSpec{Enterprise: "Acme", Domain: "App1", Zone: "Front", Subnet: "web", Gateway: netip.MustParseAddr("10.0.1.2")}, "subnet web (10.0.1.0/24) has gateway 10.0.1.1, not 10.0.1.2", ErrConflict},
		{"other zone", PathSpec{Enterprise: "Acme", Domain: "App1", Zone: "Back", CIDR: cidr("10.0.1.0/24"), Create: true}, "10.0.1.0/24 is subnet web of zone Front in domain App1, not of zone Back", ErrConflict},
		{"overlap", PathSpec{Enterprise: "Acme", Domain: "App1", Zone: "Back", Subnet: "big", CIDR: cidr("10.0.0.0/16"), Create: true}, "subnet big: 10.0.0.0/16 overlaps subnet web (10.0.1.0/24) in domain App1", ErrConflict},
		{"named otherwise", PathSpec{Enterprise: "Acme", Domain: "App1", Zone: "Front", Subnet: "other", CIDR: cidr("10.0.1.0/24"), Create: true}, "subnet other: 10.0.1.0/24 overlaps subnet web (10.0.1.0/24) in domain App1", ErrConflict},
		{"nothing to make it of", PathSpec{Enterprise: "Acme", Domain: "App1", Zone: "Front", Subnet: "other", Create: true}, "subnet other not found in zone Front of domain App1, and no CIDR given to make it", ErrNotFound},
		{"creation not allowed", PathSpec{Enterprise: "Acme", Domain: "Nope", Zone: "Front", CIDR: cidr("10.0.1.0/24")}, "domain Nope of enterprise Acme not found: create it first (nuagectl apply), or allow making it on the fly (NUAGE_AUTOCREATE=true)", ErrNotFound},
	} {
		p, err := sample().Resolve(c.spec)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			for _, id := range []string{p.Enterprise.ID, p.Domain.ID, p.Zone.ID, p.Subnet.ID} {
				got += map[bool]string{true: "? ", false: id + " "}[id == ""]
			}
			got += strings.Join([]string{p.Subnet.Name, p.Subnet.CIDR.String(), p.Subnet.Gateway.String()}, " ")
		}
		if got != c.want || !errors.Is(err, c.class) {
			t.Errorf("%s:\nwant %s\n got %s", c.name, c.want, got)
		}
	}
}
