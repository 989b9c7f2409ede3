package ovs

import (
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"
)

// TestApply checks the updates of ovsdb-server(7), as a real one sent them.
func TestApply(t *testing.T) {
	ts := newTables()
	for _, step := range []struct {
		update string
		want   *interfaceRow // of row u1; nil: it is gone
	}{
		{`{"Interface":{"u1":{"initial":{"name":"p1","ofport_request":1024}},"u2":{"initial":{"name":"p2"}}}}`,
			&interfaceRow{UUID: "u1", Name: "p1", OFPortRequest: 1024}},
		{`{"Interface":{"u1":{"modify":{"ofport":1024,"error":["set",[]],"external_ids":["map",[["a","1"],["b","2"]]]}}}}`,
			&interfaceRow{UUID: "u1", Name: "p1", OFPortRequest: 1024, OFPort: 1024, ExternalIDs: map[string]string{"a": "1", "b": "2"}}},
		{`{"Interface":{"u1":{"modify":{"ofport":-1,"error":"No such device","ifindex":0,"external_ids":["map",[["a","1"],["b","3"],["c","4"]]]}}}}`,
			&interfaceRow{UUID: "u1", Name: "p1", OFPortRequest: 1024, OFPort: -1, Error: "No such device", IfIndex: "0", ExternalIDs: map[string]string{"b": "3", "c": "4"}}},
		{`{"Interface":{"u1":{"modify":{"ofport":["set",[]],"error":["set",[]],"ifindex":["set",[]]}}}}`,
			&interfaceRow{UUID: "u1", Name: "p1", OFPortRequest: 1024, ExternalIDs: map[string]string{"b": "3", "c": "4"}}},
		{`{"Interface":{"u1":{"delete":null}}}`, nil},
		{`{"Interface":{"u1":{"insert":{"name":"p1","type":"internal"}}}}`, &interfaceRow{UUID: "u1", Name: "p1", Type: "internal"}},
	} {
		before := ts.interfaces["u1"]
		var kept interfaceRow
		if before != nil {
			kept = *before
			kept.ExternalIDs = maps.Clone(before.ExternalIDs)
		}
		if err := ts.apply([]byte(step.update)); err != nil {
			t.Fatalf("%s: %v", step.update, err)
		}
		if got := ts.interfaces["u1"]; !reflect.DeepEqual(got, step.want) {
			t.Errorf("%s: %+v, want %+v", step.update, got, step.want)
		}
		if before != nil && !reflect.DeepEqual(*before, kept) {
			t.Errorf("%s: changed the row that others may hold", step.update)
		}
	}
	for _, step := range []struct {
		update string
		want   []string
	}{
		{`{"Bridge":{"b":{"insert":{"name":"br","ports":["uuid","p1"],"protocols":"OpenFlow13"}}}}`, []string{"p1"}},
		{`{"Bridge":{"b":{"modify":{"ports":["set",[["uuid","p2"],["uuid","p3"]]]}}}}`, []string{"p1", "p2", "p3"}},
		{`{"Bridge":{"b":{"modify":{"ports":["set",[["uuid","p1"],["uuid","p4"]]],"stp_enable":true}}}}`, []string{"p2", "p3", "p4"}},
	} {
		if err := ts.apply([]byte(step.update)); err != nil {
			t.Fatalf("%s: %v", step.update, err)
		}
		if got := slices.Sorted(slices.Values(ts.bridges["b"].Ports)); !slices.Equal(got, step.want) {
			t.Errorf("%s: ports %v, want %v", step.update, got, step.want)
		}
	}
	for _, bad := range []string{`[]`, `{"Interface":{"new":{"modify":{"ofport":1}}}}`, `{"Interface":{"u2":{"modify":{"ofport":"x"}}}}`,
		`{"Interface":{"u2":{"modify":{"ofport":["set",[1,2]]}}}}`, `{"Bridge":{"b":{"modify":{"ports":["set",7]}}}}`,
		`{"Interface":{"u2":{"modify":{"external_ids":"x"}}}}`} {
		if err := ts.apply([]byte(bad)); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

func FuzzApply(f *testing.F) {
	f.Add(`{"Bridge":{"b":{"insert":{"name":"br","ports":["set",[["uuid","p1"]]],"other_config":["map",[["a","b"]]]}}}}`)
	f.Add(`{"Port":{"p1":{"initial":{"interfaces":["uuid","i1"]}}},"Interface":{"i1":{"initial":{"ofport":-1}}}}`)
	f.Fuzz(func(t *testing.T, update string) {
		ts := newTables()
		ts.apply([]byte(update))
		v := ts.look("br")
		v.follow(v)
	})
}

func TestNumbers(t *testing.T) {
	now := time.Now()
	port := func(number int) member {
		row := &interfaceRow{OFPort: number}
		return member{Port: row.toPort(), row: row}
	}
	with := func(ports ...int) view {
		v := view{bridge: &bridgeRow{}, ports: map[string]member{}}
		for _, p := range ports {
			v.ports[string(rune('a'+p%20))] = port(p)
		}
		return v
	}
	take := func(n *numbers, name string, v view, want uint32) {
		t.Helper()
		if got, err := n.take(name, v); err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", name, got, err, want)
		}
	}
	var n numbers
	n.see(view{}, with(firstNumber+1), now)
	take(&n, "x", with(firstNumber+1), firstNumber)
	take(&n, "x", with(firstNumber+1), firstNumber) // the same until dropped
	take(&n, "y", with(firstNumber+1), firstNumber+2)
	n.drop(firstNumber)
	take(&n, "z", with(firstNumber+1), firstNumber+3) // in rotation, not the lowest free

	// A number rests after its port is gone, also when the rotation comes round.
	n.see(with(lastNumber), with(), now)
	n.last = lastNumber - 1
	take(&n, "r", with(), firstNumber)
	n.see(with(), with(), now.Add(freedRest+time.Second))
	n.last = lastNumber - 1
	take(&n, "s", with(), lastNumber)

	// A new process goes on where the bridge remembers.
	var again numbers
	v := with()
	v.bridge.ExternalIDs = map[string]string{lastNumberKey: "2000"}
	again.see(view{}, v, now)
	take(&again, "x", v, 2001)
	var odd numbers
	v.bridge.ExternalIDs = map[string]string{lastNumberKey: "-7; rm"}
	odd.see(view{}, v, now)
	take(&odd, "x", v, firstNumber)

	var full numbers
	full.see(view{}, with(), now)
	for i := range uint32(lastNumber - firstNumber + 1) {
		full.asked[firstNumber+i] = "other"
	}
	if _, err := full.take("x", with()); err == nil {
		t.Error("a number although none is free")
	}
}

// Whatever ovs-vswitchd says of a port that it does not use, there is a reason to tell.
func TestPortThatCannotBeUsed(t *testing.T) {
	for name, c := range map[string]struct {
		row   interfaceRow
		error bool
	}{
		"not looked at yet":        {interfaceRow{OFPortRequest: 1024}, false},
		"in use":                   {interfaceRow{OFPortRequest: 1024, OFPort: 1024, IfIndex: "7", MACInUse: "02:00:00:00:00:01"}, false},
		"refused, with a reason":   {interfaceRow{OFPortRequest: 1024, OFPort: -1, Error: "No such device"}, true},
		"refused without a reason": {interfaceRow{OFPortRequest: 1024, OFPort: -1}, true},
		"its link gone":            {interfaceRow{OFPortRequest: 1024, OFPort: 1024, IfIndex: "0"}, true},
	} {
		if p := c.row.toPort(); (p.Error != "") != c.error || p.OFPort != 1024 || p.Confirmed && c.error {
			t.Errorf("%s: %+v", name, p)
		}
	}
}
