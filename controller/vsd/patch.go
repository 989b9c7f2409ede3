package vsd

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"nuage/controller/tenant"
)

// VportChange is the body of a PATCH of a vport: what is nil stays as it is.
type VportChange struct {
	// PolicyGroups are the names of all groups that the vport is to be in.
	PolicyGroups *[]string `json:"policyGroups,omitempty"`
	// AddressSpoofing is ENABLED or DISABLED; INHERITED means DISABLED.
	AddressSpoofing *string `json:"addressSpoofing,omitempty"`
	// VirtualIPs are all that the vport is to have, each an address, or an address, an @ and
	// a MAC.
	VirtualIPs *[]string `json:"virtualIPs,omitempty"`
}

func (a *api) servePatch(w http.ResponseWriter, r *http.Request) {
	changed, err := a.patch(r)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]bool{"changed": changed})
}

func (a *api) patch(r *http.Request) (changed bool, err error) {
	text, err := readAll(r)
	if err != nil {
		return false, err
	}
	var c VportChange
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return false, tenant.Errorf(tenant.ErrInvalid, "the request is not a change of a vport: %v", err)
	}
	for attempt := 1; ; attempt++ {
		s, err := a.read(r.Context())
		if err != nil {
			return false, err
		}
		have := s.Vports[r.PathValue("id")]
		if have == nil {
			return false, tenant.Errorf(tenant.ErrNotFound, "vport %s not found", r.PathValue("id"))
		}
		want, err := c.apply(s, *have)
		if err != nil || reflect.DeepEqual(*have, want) {
			return false, err
		}
		_, err = a.Store.UpdateVport(r.Context(), want)
		if err == nil || !errors.Is(err, tenant.ErrStale) || attempt == writeAttempts {
			return err == nil, err
		}
	}
}

// apply is the vport as it is to be.
func (c *VportChange) apply(s *tenant.State, v tenant.Vport) (tenant.Vport, error) {
	if c.PolicyGroups != nil {
		groups := slices.Compact(slices.Sorted(slices.Values(*c.PolicyGroups)))
		if missing := lacking(s, v.DomainID, groups); len(missing) > 0 {
			return v, tenant.Errorf(tenant.ErrNotFound, "policy group %s not found in domain %s: make it first (nuagectl apply)",
				strings.Join(missing, ", "), placeOf(s, v.DomainID, "", "").Domain)
		}
		if !slices.Equal(groups, slices.Sorted(slices.Values(v.PolicyGroups))) {
			v.PolicyGroups = groups
		}
	}
	if c.AddressSpoofing != nil {
		enabled, err := spoofing(*c.AddressSpoofing)
		if err != nil {
			return v, err
		}
		v.AddressSpoofing = enabled
	}
	if c.VirtualIPs != nil {
		var vips []tenant.VirtualIP
		for _, text := range *c.VirtualIPs {
			vip, err := parseVirtualIP(text)
			if err != nil {
				return v, err
			}
			vips = append(vips, vip)
		}
		if !slices.Equal(vips, v.VirtualIPs) {
			v.VirtualIPs = vips
		}
	}
	return v, v.Validate()
}

// lacking are the names that no group of the domain has.
func lacking(s *tenant.State, domainID string, groups []string) (missing []string) {
	for _, g := range groups {
		if s.PolicyGroupByName(domainID, g) == nil {
			missing = append(missing, g)
		}
	}
	return missing
}

// spoofing reads VSD's three words. Nothing is inherited here.
func spoofing(word string) (bool, error) {
	switch strings.ToUpper(word) {
	case "ENABLED":
		return true, nil
	case "DISABLED", "INHERITED", "":
		return false, nil
	}
	return false, badProperty("addressSpoofing", "addressSpoofing %q is neither ENABLED nor DISABLED", word)
}

func parseVirtualIP(text string) (vip tenant.VirtualIP, err error) {
	address, mac, hasMAC := strings.Cut(text, "@")
	if vip.IPv4, err = netip.ParseAddr(address); err != nil || !vip.IPv4.Is4() {
		return vip, tenant.Errorf(tenant.ErrInvalid, "virtual IP %q is neither an IPv4 address nor ADDRESS@MAC", text)
	}
	if hasMAC {
		if err := vip.MAC.UnmarshalText([]byte(mac)); err != nil {
			return vip, tenant.Errorf(tenant.ErrInvalid, "virtual IP %q: %v", text, err)
		}
	}
	return vip, nil
}
