package openflow_test

import (
	"errors"
	"strings"
	"testing"

	"nuage/ovs/flow"
	"nuage/ovs/openflow"
)

func TestMeters(t *testing.T) {
	f := start(t)
	ctx := ctxOf(t)
	m := openflow.Meter{ID: 3, Rate: 50000, Burst: 25000}
	if err := f.AddMeter(ctx, m); err != nil {
		t.Fatal(err)
	}
	var refused *openflow.Error
	if err := f.AddMeter(ctx, m); !errors.As(err, &refused) || refused.Name != "OFPMMFC_METER_EXISTS" {
		t.Errorf("second add: %v", err)
	}
	user := drop(1, 1)
	user.Actions = []flow.Action{flow.MeterAction{ID: 3}, flow.Goto{Table: 2}}
	f.apply(t, flow.Diff{Add: []flow.Flow{user}})
	m.Rate = 70000
	if err := f.ModifyMeter(ctx, m); err != nil {
		t.Fatal(err)
	}
	packets := openflow.Meter{ID: 9, Rate: 5, Packets: true}
	if err := f.AddMeter(ctx, packets); err != nil {
		t.Fatal(err)
	}
	got, err := f.Meters(ctx)
	if err != nil || len(got) != 2 || got[0] != m && got[1] != m || got[0] != packets && got[1] != packets {
		t.Errorf("meters are %v, %v", got, err)
	}
	if out := f.ovs.Ofctl("dump-meters", bridge); !strings.Contains(out, "meter=3 kbps burst bands=") || !strings.Contains(out, "rate=70000 burst_size=25000") {
		t.Errorf("ovs-ofctl has %s", out)
	}
	same(t, "flows after modification", f.dump(), []string{user.String()})
	for range 2 {
		if err := f.DeleteMeter(ctx, 3); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	same(t, "flows after deletion", f.dump(), nil)
}
