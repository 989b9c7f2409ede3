package tenant

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// children are the IDs that Children reports, sorted.
func children(s *State, k Key, kind Kind) []string {
	var ids []string
	s.Children(k, kind, func(id string) { ids = append(ids, id) })
	slices.Sort(ids)
	return ids
}

// TestChildren compares the index with a search through all objects, after random changes.
func TestChildren(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := NewState()
		id := rapid.SampledFrom([]string{"1", "2", "3"})
		for range rapid.IntRange(1, 40).Draw(rt, "changes") {
			c := Change{Key: Key{rapid.SampledFrom([]Kind{KindSubnet, KindVport, KindNetwork}).Draw(rt, "kind"), id.Draw(rt, "id")}}
			parent, host := id.Draw(rt, "parent"), rapid.SampledFrom([]string{"", "h"}).Draw(rt, "host")
			if rapid.IntRange(0, 3).Draw(rt, "keep") > 0 {
				switch c.Key.Kind {
				case KindSubnet:
					c.Value = &Subnet{Meta: Meta{ID: c.Key.ID}, ZoneID: parent, DomainID: parent}
				case KindVport:
					c.Value = &Vport{Meta: Meta{ID: c.Key.ID}, SubnetID: parent, Host: host}
				case KindNetwork:
					c.Value = &Network{Meta: Meta{ID: c.Key.ID}, SubnetID: parent}
				}
			}
			s.Apply(c)
			if rapid.Bool().Draw(rt, "twice") {
				s.Apply(c)
			}
		}
		want := map[string][]string{}
		for id, n := range s.Subnets {
			for _, k := range []Kind{KindZone, KindDomain} {
				want[fmt.Sprint(k, n.ZoneID, KindSubnet)] = append(want[fmt.Sprint(k, n.ZoneID, KindSubnet)], id)
			}
		}
		for id, v := range s.Vports {
			want[fmt.Sprint(KindSubnet, v.SubnetID, KindVport)] = append(want[fmt.Sprint(KindSubnet, v.SubnetID, KindVport)], id)
			if v.Host != "" {
				want[fmt.Sprint(KindHost, v.Host, KindVport)] = append(want[fmt.Sprint(KindHost, v.Host, KindVport)], id)
			}
		}
		for id, n := range s.Networks {
			want[fmt.Sprint(KindSubnet, n.SubnetID, KindNetwork)] = append(want[fmt.Sprint(KindSubnet, n.SubnetID, KindNetwork)], id)
		}
		for _, parent := range []Kind{KindZone, KindDomain, KindSubnet, KindHost} {
			for _, id := range []string{"1", "2", "3", "h"} {
				for _, kind := range []Kind{KindSubnet, KindVport, KindNetwork} {
					w := want[fmt.Sprint(parent, id, kind)]
					slices.Sort(w)
					if got := children(s, Key{parent, id}, kind); !slices.Equal(got, w) {
						rt.Fatalf("%s of %s %s: %v, want %v", kind, parent, id, got, w)
					}
				}
			}
		}
		for _, objects := range []any{s.Subnets, s.Vports, s.Networks} {
			for _, k := range reflect.ValueOf(objects).MapKeys() {
				for kind := range map[Kind]bool{KindSubnet: true, KindVport: true, KindNetwork: true} {
					s.Apply(Change{Key: Key{kind, k.String()}})
				}
			}
		}
		if len(s.children) != 0 {
			rt.Fatalf("an empty state keeps an index: %v", s.children)
		}
	})
}
