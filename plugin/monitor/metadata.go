package monitor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"nuage/controller/tenant"
	"nuage/driver"
)

// The names of what a container says of itself, with - or _ between the words.
const (
	keyEnterprise  = "NUAGE-ENTERPRISE"
	keyDomain      = "NUAGE-DOMAIN"
	keyZone        = "NUAGE-ZONE"
	keyNetwork     = "NUAGE-NETWORK"
	keyUser        = "NUAGE-USER"
	keyPolicyGroup = "NUAGE-POLICY-GROUP"
	keyStaticIP    = "NUAGE-STATIC-IP"
	keyMAC         = "NUAGE-MAC"
)

// metadata is what the environment and the labels say under names that begin as ours. The
// environment comes before labels, and of two spellings the first: Docker puts what the user
// gave before what the image has. Of one spelling the last counts, as it does for the process:
// `-e` comes after --env-file. An empty value says nothing, but hides what comes after it.
func metadata(env []string, labels map[string]string) map[string]string {
	said := map[string]string{}
	add := func(name, value string) {
		name = strings.ReplaceAll(name, "_", "-")
		if _, have := said[name]; !have && strings.HasPrefix(name, "NUAGE-") {
			said[name] = value
		}
	}
	last := map[string]string{}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		last[name] = value
	}
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		add(name, last[name])
	}
	for name, value := range labels {
		if strings.Contains(name, "-") { // of two spellings the one with dashes
			add(name, value)
		}
	}
	for name, value := range labels {
		add(name, value)
	}
	return said
}

// place tells whether the metadata says where the container belongs, so that it is ours.
func place(said map[string]string) bool {
	return said[keyEnterprise]+said[keyDomain]+said[keyZone]+said[keyNetwork] != ""
}

// read fills in what the metadata says. All its errors are tenant.ErrInvalid, and what
// could be read is filled in all the same.
func read(said map[string]string, c *driver.Direct) error {
	c.Enterprise, c.Domain, c.Zone, c.Subnet = said[keyEnterprise], said[keyDomain], said[keyZone], said[keyNetwork]
	for name := range strings.SplitSeq(said[keyPolicyGroup], ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		if err := tenant.ValidateName(name); err != nil {
			return fmt.Errorf("%s: %w", keyPolicyGroup, err)
		}
		if !slices.Contains(c.PolicyGroups, name) {
			c.PolicyGroups = append(c.PolicyGroups, name)
		}
	}
	if user := said[keyUser]; user != "" {
		if err := tenant.ValidateName(user); err != nil {
			return fmt.Errorf("%s: %w", keyUser, err)
		}
		c.User = user
	}
	if ip := said[keyStaticIP]; ip != "" {
		addr, err := netip.ParseAddr(ip)
		if err != nil || !addr.Is4() {
			return tenant.Errorf(tenant.ErrInvalid, "%s: %.80q is not an IPv4 address", keyStaticIP, ip)
		}
		c.StaticIP = addr
	}
	if text := said[keyMAC]; text != "" {
		mac, err := tenant.ParseMAC(text)
		if err != nil {
			return fmt.Errorf("%s: %w", keyMAC, err)
		}
		if mac == tenant.GatewayMAC {
			return tenant.Errorf(tenant.ErrInvalid, "%s: %s is the gateway's", keyMAC, mac)
		}
		c.MAC = mac
	}
	return nil
}
