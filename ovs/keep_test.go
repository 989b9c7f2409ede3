package ovs

import (
	"encoding/json"
	"strings"
	"testing"

	"nuage/ovs/ovstest"
)

// good is a view of a bridge that is as it should be.
func good(datapath string) view {
	return view{
		root: &rootRow{UUID: "r", DatapathTypes: []string{Netdev, System}, NextCfg: 9, CurCfg: 9},
		bridge: &bridgeRow{UUID: "b", Name: "br", DatapathType: datapath, DatapathID: "1", FailMode: "secure",
			Protocols: protocols, OtherConfig: map[string]string{"disable-in-band": "true", "hwaddr": "02:00:00:00:00:09"}},
		ports: map[string]member{}, elsewhere: map[string]string{},
	}
}

func TestKeep(t *testing.T) {
	change := func(datapath string, f func(*view)) view {
		v := good(datapath)
		f(&v)
		return v
	}
	withPort := func(v *view) { v.ports["p1"] = member{row: &interfaceRow{}} }
	broken := func(v *view) { v.bridge.DatapathID = "" }
	for name, c := range map[string]struct {
		v               view
		datapath        string
		asked           int
		want, wantNot   string // parts of the operations; want "" means none
		problem, remedy string // parts of the problem
	}{
		"as it should be":         {v: good(System), datapath: Auto},
		"netdev under auto":       {v: good(Netdev), datapath: Auto},
		"empty type is system":    {v: good(""), datapath: System},
		"no root row":             {v: view{}, datapath: Auto, want: `"table":"Open_vSwitch"`},
		"no bridge":               {v: change("", func(v *view) { v.bridge = nil }), datapath: Auto, want: `"datapath_type":"system"`},
		"no bridge, no system":    {v: change("", func(v *view) { v.bridge, v.root.DatapathTypes = nil, []string{Netdev} }), datapath: Auto, want: `"datapath_type":"netdev"`},
		"no bridge, netdev":       {v: change("", func(v *view) { v.bridge = nil }), datapath: Netdev, want: `"datapath_type":"netdev"`},
		"name is a port's":        {v: change("", func(v *view) { v.bridge = nil; v.elsewhere["br"] = "other" }), datapath: Auto, problem: "bridge other has that name"},
		"fail mode":               {v: change(System, func(v *view) { v.bridge.FailMode = "" }), datapath: Auto, want: `"fail_mode":"secure"`, wantNot: "datapath"},
		"protocols":               {v: change(System, func(v *view) { v.bridge.Protocols = []string{"OpenFlow13"} }), datapath: Auto, want: `["OpenFlow13","OpenFlow14"]`},
		"all protocols":           {v: change(System, func(v *view) { v.bridge.Protocols = nil }), datapath: Auto},
		"spanning tree":           {v: change(System, func(v *view) { v.bridge.RSTP = true }), datapath: Auto, want: `"rstp_enable":false`},
		"hwaddr":                  {v: change(System, func(v *view) { v.bridge.OtherConfig = nil }), datapath: Auto, want: `["hwaddr","02:00:00:00:00:01"]`},
		"not open, not asked":     {v: change(System, broken), datapath: Auto, want: `["next_cfg","+=",1]`, wantNot: "datapath"},
		"not open, no answer yet": {v: change(System, broken), datapath: Auto, asked: 10},
		"not open, answered":      {v: change(System, broken), datapath: Auto, asked: 9, want: `"datapath_type":"netdev"`},
		"not open, with a port":   {v: change(System, func(v *view) { broken(v); withPort(v) }), datapath: Auto, asked: 9, want: `"datapath_type":"netdev"`},
		"system does not open":    {v: change(System, broken), datapath: System, asked: 9, problem: "could not open datapath system", remedy: "set the datapath to netdev"},
		"other datapath, empty":   {v: good(System), datapath: Netdev, want: `"datapath_type":"netdev"`},
		"other datapath, a port":  {v: change(System, withPort), datapath: Netdev, problem: "datapath system and ports (p1)", remedy: "set the datapath to system"},
	} {
		ops, problem := keep(c.v, "br", c.datapath, "02:00:00:00:00:01", c.asked)
		b, err := json.Marshal(ops)
		if err != nil {
			t.Fatal(err)
		}
		got := string(b)
		if (c.want == "") != (len(ops) == 0) || !strings.Contains(got, c.want) || c.wantNot != "" && strings.Contains(got, c.wantNot) {
			t.Errorf("%s: operations %s, want %q and not %q", name, got, c.want, c.wantNot)
		}
		if (c.problem == "") != (problem == "") || !strings.Contains(problem, c.problem) || !strings.Contains(problem, c.remedy) {
			t.Errorf("%s: problem %q, want %q … %q", name, problem, c.problem, c.remedy)
		}
	}
}

// TestAutoWithoutKernelModule starts ovs-vswitchd with the kernel's datapath. Where the
// kernel has none, auto must end with netdev although datapath_types has "system".
func TestAutoWithoutKernelModule(t *testing.T) {
	o := ovstest.Start(t, ovstest.System(), ovstest.InNetNS(namespace(t)))
	b := start(t, o)
	connected(t, b, 0)
	if types := o.Vsctl("get", "open", ".", "datapath_types"); !strings.Contains(types, System) {
		t.Fatalf("datapath_types is %s", types)
	}
	s := b.Status()
	if s.Problem != "" || s.Datapath != System && s.Datapath != Netdev {
		t.Errorf("status %+v", s)
	}
	t.Logf("auto is %s here", s.Datapath)
	if s.Datapath == System {
		return
	}
	o.Vsctl("add-port", "alubr0", "vx", "--", "set", "interface", "vx", "type=vxlan", "options:remote_ip=flow")
	o.KillDB() // which empties datapath_id: no reason to judge anew
	o.StartDB()
	soon(t, "the datapath ID again", func() bool { return b.look().bridge.DatapathID != "" })
	if s := b.Status(); s.Problem != "" || s.Datapath != Netdev {
		t.Errorf("after a restart of ovsdb-server: %+v", s)
	}
	// The same with the datapath demanded is a problem in words, and ends with its cause.
	other := start(t, o, func(c *Config) { c.Bridge, c.Datapath = "other", System })
	soon(t, "the problem", func() bool { return strings.Contains(other.Status().Problem, "openvswitch") })
}

func TestOtherDatapathWithPorts(t *testing.T) {
	o := ovstest.Start(t)
	o.Vsctl("add-br", "alubr0", "--", "set", "bridge", "alubr0", "datapath_type=dummy", "--", "add-port", "alubr0", "tap1")
	b := start(t, o, func(c *Config) { c.Datapath = Netdev })
	soon(t, "the problem", func() bool { return strings.Contains(b.Status().Problem, "tap1") })
	attach(t, b, "p1") // it goes on being used as it is
	if got := o.Vsctl("get", "bridge", "alubr0", "datapath_type"); got != "dummy" {
		t.Errorf("datapath became %s", got)
	}
	o.Vsctl("del-port", "tap1")
	if err := b.DeletePort(within(t, limit), "p1"); err != nil {
		t.Fatal(err)
	}
	soon(t, "the change of an empty bridge", func() bool { s := b.Status(); return s.Problem == "" && s.Datapath == Netdev })
	attach(t, b, "p1")
}
