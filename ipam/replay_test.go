package ipam

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	api "github.com/docker/go-plugins-helpers/ipam"
	"github.com/google/uuid"

	"nuage/controller/store"
	"nuage/controller/tenant"
)

// step is one line of a recorded conversation: a verb with what must be answered, a
// restart, or a look at what must be in the store and the records.
type step struct {
	Note    string
	Verb    string
	Body    json.RawMessage
	Answer  json.RawMessage
	Error   string
	Once    bool // even where every verb comes twice
	Restart string
	Leases  map[string]string
	Names   map[string]string
	Pools   []string
}

// TestRecordedConversations plays what engines said to a plugin, once as it was, and once
// with every verb twice.
func TestRecordedConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		for _, times := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s/%d", filepath.Base(file), times), func(t *testing.T) { play(t, file, times) })
		}
	}
}

func play(t *testing.T, file string, times int) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var steps []step
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&steps); err != nil {
		t.Fatal(err)
	}
	s := realStore(t)
	makeSubnet(t, s, "DCEnterprise", "App1", "DockerZone", "PrivateSubnet", "10.77.1.0/24")
	e := newEngine(t, s, strings.Contains(file, "global"))
	for i, st := range steps {
		n := times
		if st.Once {
			n = 1
		}
		for range n {
			e.at = fmt.Sprintf("step %d %s %s", i+1, st.Verb, st.Note)
			e.play(st)
		}
	}
}

// engine stands for dockerd, and for the network driver as far as it uses the IPAM driver
// and the store.
type engine struct {
	testing.TB
	store  *store.Store
	driver *Driver
	config Config
	clock  *clock
	vars   map[string]string // $name of a recorded PoolID → ours
	at     string
}

func newEngine(t testing.TB, s *store.Store, global bool) *engine {
	var now clock
	c := Config{Store: s, Now: now.now, Records: realRecords(t), Host: "h1", Enterprise: "DCEnterprise", Autocreate: true, Global: global, Log: quiet()}
	return &engine{TB: t, store: s, config: c, clock: &now, driver: New(c), vars: map[string]string{}}
}

func (e *engine) play(s step) {
	e.Helper()
	if s.Restart == "plugin" {
		e.driver = New(e.config)
	}
	if s.Verb != "" {
		answer, err := e.call(s.Verb, s.Body)
		switch {
		case s.Error != "":
			if err == nil || !strings.Contains(err.Error(), s.Error) {
				e.Fatalf("%s: error %v, want %q", e.at, err, s.Error)
			}
		case err != nil:
			e.Fatalf("%s: %v", e.at, err)
		case s.Answer != nil:
			e.compare(s.Answer, answer)
		}
	}
	if s.Leases != nil {
		e.lookAtLeases(s.Leases)
	}
	for a, name := range s.Names {
		e.store.Feed().View(func(st *tenant.State) {
			for _, l := range st.Leases {
				if l.Address.String() == a && l.Name != name {
					e.Errorf("%s: lease %s is for %q, want %q", e.at, a, l.Name, name)
				}
			}
		})
	}
	if s.Pools != nil {
		e.lookAtPools(s.Pools)
	}
}

func (e *engine) call(verb string, body []byte) (any, error) {
	for name, id := range e.vars {
		body = bytes.ReplaceAll(body, []byte(`"`+name+`"`), []byte(`"`+id+`"`))
	}
	switch d := e.driver; verb {
	case "IpamDriver.GetCapabilities":
		return d.Capabilities(ctx)
	case "IpamDriver.GetDefaultAddressSpaces":
		return d.DefaultAddressSpaces(ctx)
	case "IpamDriver.RequestPool":
		return ask(body, d.RequestPool)
	case "IpamDriver.RequestAddress":
		return ask(body, d.RequestAddress)
	case "IpamDriver.ReleasePool":
		return nil, tell(body, d.ReleasePool)
	case "IpamDriver.ReleaseAddress":
		return nil, tell(body, d.ReleaseAddress)
	case "NetworkDriver.CreateNetwork":
		return e.createNetwork(body)
	case "NetworkDriver.DeleteNetwork":
		return nil, e.deleteNetwork(body)
	case "NetworkDriver.CreateEndpoint":
		return nil, e.createEndpoint(body)
	case "NetworkDriver.DeleteEndpoint":
		return nil, e.deleteEndpoint(body)
	default:
		return nil, fmt.Errorf("no verb %q", verb)
	}
}

func ask[Q, R any](body []byte, do func(context.Context, *Q) (*R, error)) (*R, error) {
	q := new(Q)
	if err := json.Unmarshal(body, q); err != nil {
		return nil, err
	}
	return do(ctx, q)
}

func tell[Q any](body []byte, do func(context.Context, *Q) error) error {
	_, err := ask(body, func(ctx context.Context, q *Q) (*struct{}, error) { return nil, do(ctx, q) })
	return err
}

// network is what a network's or endpoint's verb has in its body.
type network struct {
	NetworkID, EndpointID string
	Options               struct {
		Generic map[string]string `json:"com.docker.network.generic"`
	}
	IPv4Data []struct {
		AddressSpace, Pool, Gateway string
		AuxAddresses                map[string]string
	}
	Interface struct{ Address, MacAddress string }
}

func (e *engine) createNetwork(body []byte) (any, error) {
	var n network
	if err := json.Unmarshal(body, &n); err != nil {
		return nil, err
	}
	said, err := ParseOptions(n.Options.Generic)
	if err != nil {
		return nil, err
	}
	v4 := n.IPv4Data[0]
	r, err := e.driver.Claim(ctx, Network{ID: n.NetworkID, Space: v4.AddressSpace, CIDR: prefix(v4.Pool), Gateway: prefix(v4.Gateway).Addr(), Options: said})
	if err != nil {
		return nil, err
	}
	var aux []netip.Addr
	for _, a := range v4.AuxAddresses {
		aux = append(aux, prefix(a).Addr())
	}
	o := r.Options
	err = e.store.PutNetwork(ctx, tenant.Network{
		Meta: tenant.Meta{ID: n.NetworkID}, Host: "h1", EnterpriseID: r.EnterpriseID, DomainID: r.DomainID, ZoneID: r.ZoneID, SubnetID: r.SubnetID,
		Mode: tenant.AddressTenant, CIDR: r.CIDR, Gateway: r.Gateway, Auxiliary: aux,
	})
	answer := map[string]string{"enterprise": o.Enterprise, "domain": o.Domain, "zone": o.Zone, "subnet": o.Subnet, "user": o.User, "policy-group": strings.Join(o.PolicyGroups, ","), "mtu": fmt.Sprint(o.MTU)}
	return answer, err
}

func (e *engine) deleteNetwork(body []byte) error {
	var n network
	if err := json.Unmarshal(body, &n); err != nil {
		return err
	}
	if err := e.driver.Disclaim(ctx, n.NetworkID); err != nil {
		return err
	}
	return e.store.DeleteNetwork(ctx, n.NetworkID)
}

func (e *engine) createEndpoint(body []byte) error {
	var n network
	if err := json.Unmarshal(body, &n); err != nil {
		return err
	}
	var subnet string
	e.store.Feed().View(func(st *tenant.State) { subnet = st.Networks[tenant.NetworkID("h1", n.NetworkID)].SubnetID })
	m, err := tenant.ParseMAC(n.Interface.MacAddress)
	if err != nil {
		return err
	}
	_, err = e.store.BindVport(ctx, tenant.Vport{
		Meta: tenant.Meta{ID: vportID(n.EndpointID)}, SubnetID: subnet, Name: n.EndpointID,
		Type: tenant.VportContainer, MAC: m, IPv4: prefix(n.Interface.Address).Addr(), Host: "h1",
	})
	return err
}

func (e *engine) deleteEndpoint(body []byte) error {
	var n network
	if err := json.Unmarshal(body, &n); err != nil {
		return err
	}
	return e.store.DeleteVport(ctx, vportID(n.EndpointID))
}

func vportID(endpoint string) string {
	return uuid.NewSHA1(uuid.NameSpaceOID, []byte(endpoint)).String()
}

// compare holds an answer against the recorded one; keys that are not recorded do not
// matter.
func (e *engine) compare(recorded json.RawMessage, answer any) {
	e.Helper()
	text, err := json.Marshal(answer)
	if err != nil {
		e.Fatal(err)
	}
	var want, got map[string]any
	if err := json.Unmarshal(recorded, &want); err != nil {
		e.Fatal(err)
	}
	if err := json.Unmarshal(text, &got); err != nil {
		e.Fatal(err)
	}
	for k, v := range want {
		if name, ok := v.(string); ok && strings.HasPrefix(name, "$") {
			if e.vars[name] == "" {
				e.vars[name] = fmt.Sprint(got[k])
			}
			v = e.vars[name]
		}
		if g, ok := got[k]; !ok || g != v {
			e.Errorf("%s: %s is %v, want %v", e.at, k, g, v)
		}
	}
}

func (e *engine) lookAtLeases(want map[string]string) {
	e.Helper()
	got := map[string]string{}
	e.store.Feed().View(func(st *tenant.State) {
		for _, l := range st.Leases {
			got[l.Address.String()] = string(l.State)
		}
	})
	for a, s := range want {
		if got[a] != s {
			e.Errorf("%s: lease of %s is %q, want %q", e.at, a, got[a], s)
		}
	}
	if len(want) == 0 && len(got) > 0 {
		e.Errorf("%s: leases are left: %v", e.at, got)
	}
}

func (e *engine) lookAtPools(want []string) {
	e.Helper()
	e.clock.forward(abandoned + time.Second)
	got := map[string]bool{}
	rs, err := e.driver.records()
	if err != nil {
		e.Fatal(err)
	}
	for _, r := range rs {
		got[r.ID] = true
	}
	expected := map[string]bool{}
	for _, name := range want {
		expected[e.vars[name]] = true
	}
	if !maps.Equal(got, expected) {
		e.Errorf("%s: pools are %v, want %v", e.at, slices.Collect(maps.Keys(got)), want)
	}
}

// pool requests a pool and returns its ID.
func (e *engine) pool(cidr string, options map[string]string) (*api.RequestPoolResponse, error) {
	return e.driver.RequestPool(ctx, &api.RequestPoolRequest{AddressSpace: SpaceLocal, Pool: cidr, Options: options})
}
