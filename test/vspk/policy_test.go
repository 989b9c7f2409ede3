package vspk

import (
	"net/netip"
	"testing"

	"github.com/google/uuid"
	"github.com/nuagenetworks/go-bambou/bambou"
	sdk "github.com/nuagenetworks/vspk-go/vspk"

	"nuage/controller/tenant"
)

// TestPolicies makes policies by the SDK alone, and looks at what the model has of them.
func TestPolicies(t *testing.T) {
	st, url := controller(t)
	root, err := login(t, url, "secret")
	if err != nil {
		t.Fatal(err)
	}
	enterprise, domain, zone, subnet := sdk.NewEnterprise(), sdk.NewDomain(), sdk.NewZone(), sdk.NewSubnet()
	enterprise.Name, domain.Name, zone.Name = "DCEnterprise", "App1", "DockerZone"
	subnet.Name, subnet.Address, subnet.Netmask = "PrivateSubnet", "10.85.85.0", "255.255.255.0"
	must(t, root.CreateEnterprise(enterprise))
	must(t, enterprise.CreateDomain(domain))
	must(t, domain.CreateZone(zone))
	must(t, zone.CreateSubnet(subnet))

	web, db := sdk.NewPolicyGroup(), sdk.NewPolicyGroup()
	web.Name, db.Name = "web", "db"
	must(t, domain.CreatePolicyGroup(web))
	must(t, domain.CreatePolicyGroup(db))
	if web.PolicyGroupID == 0 || web.PolicyGroupID == db.PolicyGroupID || web.Type != "SOFTWARE" {
		t.Errorf("groups: %+v, %+v", web, db)
	}
	macro := sdk.NewEnterpriseNetwork()
	macro.Name, macro.Address, macro.Netmask = "corp", "192.0.2.0", "255.255.255.0"
	must(t, enterprise.CreateEnterpriseNetwork(macro))

	in, out := sdk.NewIngressACLTemplate(), sdk.NewEgressACLTemplate()
	in.Name, in.Active, in.DefaultAllowIP = "in", true, true
	out.Name, out.Active = "out", true
	must(t, domain.CreateIngressACLTemplate(in))
	must(t, domain.CreateEgressACLTemplate(out))
	if in.Priority != 100 || out.Priority != 100 {
		t.Errorf("priorities %d and %d were chosen", in.Priority, out.Priority)
	}
	twin := sdk.NewIngressACLTemplate()
	twin.Name, twin.Priority = "twin", in.Priority
	refused(t, domain.CreateIngressACLTemplate(twin), "already has priority 100")

	allow, drop := sdk.NewEgressACLEntryTemplate(), sdk.NewIngressACLEntryTemplate()
	allow.Protocol, allow.DestinationPort, allow.SourcePort, allow.Stateful, allow.StatsLoggingEnabled = "6", "5432", "*", true, true
	allow.LocationType, allow.LocationID, allow.NetworkType, allow.NetworkID = "POLICYGROUP", db.ID, "POLICYGROUP", web.ID
	must(t, out.CreateEgressACLEntryTemplate(allow))
	drop.Protocol, drop.Action, drop.NetworkType, drop.NetworkID = "ANY", "DROP", "ENTERPRISE_NETWORK", macro.ID
	must(t, in.CreateIngressACLEntryTemplate(drop))
	s, err := st.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if e := s.Entries[allow.ID]; e == nil || e.From.ID != web.ID || e.To.ID != db.ID || e.Priority != 100 || !e.Stateful || e.DestinationPort != (tenant.PortRange{From: 5432, To: 5432}) {
		t.Errorf("egress entry: %+v", e)
	}
	if e := s.Entries[drop.ID]; e == nil || e.From.Kind != tenant.SideAny || e.To.ID != macro.ID || e.Action != tenant.Deny || e.Protocol != tenant.AnyProtocol {
		t.Errorf("ingress entry: %+v", e)
	}
	allow.DestinationPort = "5432-5433"
	must(t, allow.Save())
	must(t, allow.Fetch())
	if allow.DestinationPort != "5432-5433" || allow.LocationID != db.ID || allow.ParentID != out.ID {
		t.Errorf("after Save and Fetch: %+v", allow)
	}
	list, err2 := out.EgressACLEntryTemplates(&bambou.FetchingInfo{Filter: `protocol == "6"`})
	must(t, err2)
	if len(list) != 1 || list[0].ID != allow.ID {
		t.Errorf("entries: %+v", list)
	}

	limit := sdk.NewQOS()
	limit.Name, limit.RateLimitingActive, limit.Peak, limit.Burst = "10M", true, "10", "100"
	must(t, zone.CreateQOS(limit))
	if l := func() *tenant.RateLimiter { s, _ := st.Read(t.Context()); return s.RateLimiters[limit.ID] }(); l == nil || l.Rate != 10e6 || l.Burst != 800_000 || l.On.ID != zone.ID {
		t.Errorf("limiter: %+v", l)
	}
	limit.Peak = "20"
	must(t, limit.Save())

	v, bindErr := st.BindVport(t.Context(), tenant.Vport{Meta: tenant.Meta{ID: uuid.NewString()}, SubnetID: subnet.ID, Name: "web-1",
		Type: tenant.VportContainer, MAC: tenant.MAC{2, 0, 0, 0, 0, 1}, IPv4: netip.MustParseAddr("10.85.85.7"), Host: "h1", Interface: "nu1"})
	if bindErr != nil {
		t.Fatal(bindErr)
	}
	vport := sdk.NewVPort()
	vport.ID = v.ID
	must(t, vport.Fetch())
	must(t, vport.AssignPolicyGroups(sdk.PolicyGroupsList{web, db}))
	groups, err2 := vport.PolicyGroups(&bambou.FetchingInfo{})
	must(t, err2)
	members, err2 := web.VPorts(&bambou.FetchingInfo{})
	must(t, err2)
	if len(groups) != 2 || len(members) != 1 || members[0].ID != v.ID {
		t.Errorf("groups %+v, members %+v", groups, members)
	}
	refused(t, web.Delete(), "in use by")
	must(t, vport.AssignPolicyGroups(nil))
	vport.AddressSpoofing = "ENABLED"
	must(t, vport.Save())
	vip := sdk.NewVirtualIP()
	vip.VirtualIP = "10.85.85.9"
	must(t, vport.CreateVirtualIP(vip))
	s, _ = st.Read(t.Context())
	if now := s.Vports[v.ID]; len(now.PolicyGroups) != 0 || !now.AddressSpoofing || len(now.VirtualIPs) != 1 {
		t.Errorf("vport: %+v", now)
	}
	must(t, vip.Delete())
	refused(t, macro.Delete(), "corp")
	must(t, limit.Delete())
	must(t, drop.Delete())
	must(t, macro.Delete())
	must(t, out.Delete()) // with its entry
	must(t, in.Delete())
	must(t, web.Delete())
	must(t, db.Delete())
}
