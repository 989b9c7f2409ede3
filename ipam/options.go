// Package ipam is the IPAM driver of Docker's plugin protocol: pools are tenant subnets,
// addresses are leases in the tenant store, unique over all hosts. It never talks to Docker,
// never touches an interface, and keeps nothing of its own but which pool was asked for.
package ipam

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"nuage/controller/tenant"
)

// Options are what a user says about a network with -o or --ipam-opt; both places take
// the same keys. Empty means not said.
type Options struct {
	Enterprise   string   `json:"enterprise,omitempty"`
	Domain       string   `json:"domain,omitempty"`
	Zone         string   `json:"zone,omitempty"`
	Subnet       string   `json:"subnet,omitempty"`
	User         string   `json:"user,omitempty"`
	PolicyGroups []string `json:"policyGroups,omitempty"` // sorted, none twice
	MTU          int      `json:"mtu,omitempty"`
}

// The MTU that an option can ask for. Below the minimum IPv4 has no obligation to work.
const (
	minMTU = 576
	maxMTU = 65535
)

const knownOptions = "domain, enterprise (or organization), mtu, policy-group, subnet, user, zone"

// ParseOptions reads the options of a network. Each key may carry the prefix "nuage." or
// "nuage-" in any case, so that NUAGE-DOMAIN, nuage.domain and domain are one key; NETWORK
// is then another name of subnet. Keys of Docker itself are skipped. An unknown key, an
// empty value, and one option said twice with different values are tenant.ErrInvalid.
func ParseOptions(given map[string]string) (Options, error) {
	var o Options
	for _, key := range sortedKeys(given) {
		if strings.HasPrefix(key, "com.docker.") || key == requestType {
			continue
		}
		one, err := parseOption(key, strings.TrimSpace(given[key]))
		if err != nil {
			return Options{}, err
		}
		if o, err = Merge(o, one); err != nil {
			return Options{}, err
		}
	}
	return o, nil
}

func parseOption(key, value string) (Options, error) {
	name := strings.ToLower(key)
	for _, prefix := range []string{"nuage.", "nuage-"} {
		if bare, ok := strings.CutPrefix(name, prefix); ok {
			if name = bare; name == "network" {
				name = "subnet"
			}
		}
	}
	var o Options
	switch name {
	case "enterprise", "organization":
		o.Enterprise = value
	case "domain":
		o.Domain = value
	case "zone":
		o.Zone = value
	case "subnet":
		o.Subnet = value
	case "user":
		if o.User = value; value != "" {
			if err := tenant.ValidateName(value); err != nil {
				return o, fmt.Errorf("option %s: %w", key, err)
			}
		}
	case "policy-group":
		return parseGroups(key, value)
	case "mtu":
		n, err := strconv.Atoi(value)
		if err != nil || n < minMTU || n > maxMTU {
			return o, tenant.Errorf(tenant.ErrInvalid, "option %s: %q is not a number from %d to %d", key, value, minMTU, maxMTU)
		}
		o.MTU = n
	default:
		return o, tenant.Errorf(tenant.ErrInvalid, "unknown option %q: known are %s", key, knownOptions)
	}
	if value == "" {
		return o, tenant.Errorf(tenant.ErrInvalid, "option %s: the value is empty", key)
	}
	return o, nil
}

func parseGroups(key, value string) (Options, error) {
	var o Options
	for group := range strings.SplitSeq(value, ",") {
		if group = strings.TrimSpace(group); group == "" {
			return o, tenant.Errorf(tenant.ErrInvalid, "option %s: %q has an empty name in it", key, value)
		}
		o.PolicyGroups = append(o.PolicyGroups, group)
	}
	slices.Sort(o.PolicyGroups)
	o.PolicyGroups = slices.Compact(o.PolicyGroups)
	return o, nil
}

// Merge joins what was said in two places. What both say must be the same; otherwise it is
// tenant.ErrInvalid naming both values.
func Merge(a, b Options) (Options, error) {
	for _, f := range []struct {
		name string
		into *string
		from string
	}{
		{name: "enterprise", into: &a.Enterprise, from: b.Enterprise},
		{name: "domain", into: &a.Domain, from: b.Domain},
		{name: "zone", into: &a.Zone, from: b.Zone},
		{name: "subnet", into: &a.Subnet, from: b.Subnet},
		{name: "user", into: &a.User, from: b.User},
	} {
		switch {
		case *f.into == "":
			*f.into = f.from
		case f.from != "" && f.from != *f.into:
			return Options{}, saidTwice(f.name, *f.into, f.from)
		}
	}
	switch {
	case len(a.PolicyGroups) == 0:
		a.PolicyGroups = b.PolicyGroups
	case len(b.PolicyGroups) > 0 && !slices.Equal(a.PolicyGroups, b.PolicyGroups):
		return Options{}, saidTwice("policy-group", strings.Join(a.PolicyGroups, ","), strings.Join(b.PolicyGroups, ","))
	}
	switch {
	case a.MTU == 0:
		a.MTU = b.MTU
	case b.MTU != 0 && b.MTU != a.MTU:
		return Options{}, saidTwice("mtu", strconv.Itoa(a.MTU), strconv.Itoa(b.MTU))
	}
	return a, nil
}

func saidTwice(name, a, b string) error {
	return tenant.Errorf(tenant.ErrInvalid, "option %s is said twice, as %q and as %q (-o and --ipam-opt count the same): say it once, or the same", name, a, b)
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
