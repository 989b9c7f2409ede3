package ovs

import (
	"slices"
	"testing"

	goovs "github.com/digitalocean/go-openvswitch/ovs"

	"nuage/ovs/ovstest"
)

// What go-openvswitch reads through Open vSwitch's own programs is what the Bridge says.
func TestGoOpenvswitchSeesTheSame(t *testing.T) {
	o := ovstest.Start(t)
	b, client := start(t, o), o.Client()
	ctx := within(t, limit)
	for _, name := range []string{"nu1", "nu2", "nu3"} {
		if _, err := b.EnsurePort(ctx, PortSpec{Name: name, Type: "dummy"}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.WaitPort(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.DeletePort(ctx, "nu2"); err != nil {
		t.Fatal(err)
	}
	if mode, err := client.VSwitch.GetFailMode("alubr0"); err != nil || mode != goovs.FailModeSecure {
		t.Errorf("fail mode %q, %v", mode, err)
	}
	names, err := client.VSwitch.ListPorts("alubr0")
	if slices.Sort(names); err != nil || !slices.Equal(names, []string{"nu1", "nu3"}) {
		t.Errorf("ports %v, %v; want nu1 and nu3", names, err)
	}
	if bridge, err := client.VSwitch.PortToBridge("nu3"); err != nil || bridge != "alubr0" {
		t.Errorf("nu3 is on %q, %v", bridge, err)
	}
}
