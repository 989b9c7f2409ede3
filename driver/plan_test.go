package driver

import (
	"errors"
	"strings"
	"testing"

	"nuage/controller/tenant"
)

func ipv4(space, pool, gateway string) []m {
	return []m{{"AddressSpace": space, "Pool": pool, "Gateway": gateway}}
}

func TestReadNetworkRefuses(t *testing.T) {
	docker := ipv4("LocalDefault", "172.18.0.0/16", "172.18.0.1/16")
	for name, c := range map[string]struct {
		options m
		v4      []m
		v6      []m
		id      string
		says    string
	}{
		"unknown key":        {m{keyGeneric: m{"domian": "App1"}}, docker, nil, netID(1), `unknown option "domian": known are domain`},
		"key said twice":     {m{keyGeneric: m{"organization": "A", "enterprise": "B"}}, docker, nil, netID(1), "said twice"},
		"not text":           {m{keyGeneric: m{"mtu": 1400}}, docker, nil, netID(1), "option mtu is not text"},
		"generic not a map":  {m{keyGeneric: "domain=App1"}, docker, nil, netID(1), "not a map"},
		"MTU":                {m{keyGeneric: m{"mtu": "9"}}, docker, nil, netID(1), "mtu"},
		"IPv6":               {m{keyIPv6: true}, docker, nil, netID(1), "without --ipv6"},
		"IPv6 as text":       {m{keyIPv6: "true"}, docker, nil, netID(1), "without --ipv6"},
		"IPv6 pool":          {m{}, docker, ipv4("LocalDefault", "fd00::/64", ""), netID(1), "without --ipv6"},
		"no IPv4":            {m{keyIPv4: false}, nil, nil, netID(1), "--ipv4=false"},
		"no pool":            {m{}, nil, nil, netID(1), "needs IPv4"},
		"two subnets":        {m{}, append(ipv4("LocalDefault", "172.19.0.0/16", ""), docker...), nil, netID(1), "one --subnet"},
		"pool is no prefix":  {m{}, ipv4("LocalDefault", "172.18.0.0", ""), nil, netID(1), "not an IPv4 prefix"},
		"gateway is nothing": {m{}, ipv4("LocalDefault", "172.18.0.0/16", "here"), nil, netID(1), "gateway"},
		"auxiliary":          {m{}, []m{{"AddressSpace": "LocalDefault", "Pool": "172.18.0.0/16", "AuxAddresses": m{"a": 7}}}, nil, netID(1), "auxiliary address a"},
		"no ID":              {m{}, docker, nil, "", "not an ID of Docker"},
		"ID is a path":       {m{}, docker, nil, "../../../etc/passwd", "not an ID of Docker"},
	} {
		_, err := readNetwork(decode[CreateNetworkRequest](m{"NetworkID": c.id, "Options": c.options, "IPv4Data": c.v4, "IPv6Data": c.v6}))
		if !errors.Is(err, tenant.ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

func TestAddressingMode(t *testing.T) {
	for space, want := range map[string]tenant.AddressMode{"nuage": tenant.AddressTenant, "nuage-global": tenant.AddressTenant, "LocalDefault": tenant.AddressDocker, "GlobalDefault": tenant.AddressDocker, "": tenant.AddressDocker} {
		a, err := readNetwork(decode[CreateNetworkRequest](m{"NetworkID": netID(1), "IPv4Data": ipv4(space, "10.0.0.0/24", "10.0.0.1/24")}))
		if err != nil || a.mode() != want {
			t.Errorf("space %q: %s %v, want %s", space, a.mode(), err, want)
		}
	}
	a, err := readNetwork(nullRequest(1, m{}))
	if err != nil || a.mode() != tenant.AddressNull {
		t.Errorf("null: %s %v", a.mode(), err)
	}
}

func TestReadEndpointRefuses(t *testing.T) {
	n := &tenant.Network{Mode: tenant.AddressTenant, CIDR: prefix("10.0.0.0/24")}
	for name, c := range map[string]struct {
		given   m
		options m
		says    string
	}{
		"unknown key":        {m{"Address": "10.0.0.2/24"}, m{"policygroup": "web"}, "known are"},
		"key of the network": {m{"Address": "10.0.0.2/24"}, m{"domain": "App2"}, "only policy-group"},
		"empty group":        {m{"Address": "10.0.0.2/24"}, m{"policy-group": "web,,db"}, "empty name"},
		"not text":           {m{"Address": "10.0.0.2/24"}, m{"policy-group": []string{"web"}}, "not text"},
		"foreign address":    {m{"Address": "10.0.1.2/24"}, nil, "not in the network's subnet 10.0.0.0/24"},
		"no address":         {m{}, nil, "no IPv4 address"},
		"not an address":     {m{"Address": "ten"}, nil, "not an IPv4 address"},
		"IPv6":               {m{"Address": "10.0.0.2/24", "AddressIPv6": "fd00::2/64"}, nil, "IPv6 is not supported"},
		"group MAC":          {m{"Address": "10.0.0.2/24", "MacAddress": "01:00:5e:00:00:01"}, nil, "unicast"},
		"not a MAC":          {m{"Address": "10.0.0.2/24", "MacAddress": "02:42"}, nil, "MAC"},
	} {
		_, err := readEndpoint(decode[CreateEndpointRequest](m{"Interface": c.given, "Options": c.options}), n)
		if !errors.Is(err, tenant.ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
	if _, err := readEndpoint(&CreateEndpointRequest{}, n); err == nil {
		t.Error("no interface at all: accepted")
	}
}
