package main

import (
	"slices"
	"testing"

	"nuage/controller/tenant"
)

// What was refused on this host is in the status, also where the compiler has no note of it:
// a machine that was to move to a place that does not exist has its flows as before.
func TestNotesHaveAllThatWasRefusedHere(t *testing.T) {
	s := tenant.NewState()
	for _, v := range []tenant.Vport{
		{Meta: tenant.Meta{ID: "v1"}, Name: "fine", Host: "h1", DomainID: "d", SubnetID: "s"},
		{Meta: tenant.Meta{ID: "v2"}, Name: "lost", Host: "h1", DomainID: "d", SubnetID: "s", Error: "enterprise Nope not found"},
		{Meta: tenant.Meta{ID: "v3"}, Name: "compiled", Host: "h1", DomainID: "d", SubnetID: "s", Error: "address in use"},
		{Meta: tenant.Meta{ID: "v4"}, Name: "elsewhere", Host: "h2", Error: "enterprise Nope not found"},
	} {
		s.Apply(tenant.Change{Key: tenant.Key{Kind: tenant.KindVport, ID: v.ID}, Value: &v})
	}
	for _, h := range []tenant.Host{{Meta: tenant.Meta{ID: "h1"}, MTU: 1500}, {Meta: tenant.Meta{ID: "h2"}}, {Meta: tenant.Meta{ID: "h3"}, MTU: 60}} {
		s.Apply(tenant.Change{Key: tenant.Key{Kind: tenant.KindHost, ID: h.ID}, Value: &h})
	}
	got := notes(s, "h1", map[tenant.Key]string{
		{Kind: tenant.KindVport, ID: "v3"}:  "vport compiled: not attached: address in use",
		{Kind: tenant.KindSubnet, ID: "s2"}: "subnet web: its domain is gone",
	})
	slices.Sort(got)
	want := []string{
		"hosts h3: its record is not heeded for containers' MTU: MTU 60 is not from 626 to 65585",
		"subnets s2: subnet web: its domain is gone",
		"vports v2: vport lost: enterprise Nope not found",
		"vports v3: vport compiled: not attached: address in use",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
