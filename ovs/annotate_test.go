package ovs

import (
	"errors"
	"maps"
	"testing"

	"nuage/ovs/ovstest"
)

// A port that somebody else made is seen with its external IDs, and told what became of it,
// by those that ovs-vsctl shows; what its maker wrote stays.
func TestAnnotate(t *testing.T) {
	o := ovstest.Start(t)
	b := start(t, o)
	ctx := within(t, limit)
	attach(t, b, "nu1") // the bridge is there
	moved := b.Moved()
	o.Vsctl("add-port", "alubr0", "vnet0", "--", "set", "Interface", "vnet0", "type=dummy", "external_ids:attached-mac=02:00:00:00:00:01", "external_ids:x=old")
	<-moved
	soon(t, "the port is seen", func() bool { return b.Ports()["vnet0"].Confirmed })
	for range 2 {
		if err := b.Annotate(ctx, "vnet0", map[string]string{"nuage-ip": "10.0.0.2", "x": "new, \"quoted\"=1", "nuage-error": ""}); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"attached-mac": "02:00:00:00:00:01", "nuage-ip": "10.0.0.2", "x": "new, \"quoted\"=1"}
	if have := b.Ports()["vnet0"].ExternalIDs; !maps.Equal(have, want) {
		t.Errorf("external IDs %v, want %v", have, want)
	}
	if out := o.Vsctl("get", "Interface", "vnet0", "external_ids:nuage-ip"); out != `"10.0.0.2"` {
		t.Errorf("ovs-vsctl shows %s", out)
	}
	if err := b.Annotate(ctx, "vnet0", map[string]string{"nuage-ip": "", "x": ""}); err != nil {
		t.Fatal(err)
	}
	if out := o.Vsctl("get", "Interface", "vnet0", "external_ids"); out != `{attached-mac="02:00:00:00:00:01"}` {
		t.Errorf("ovs-vsctl shows %s", out)
	}
	if err := b.Annotate(ctx, "vnet1", map[string]string{"x": "y"}); !errors.Is(err, ErrNoPort) {
		t.Errorf("a port that is not there: %v", err)
	}
}
