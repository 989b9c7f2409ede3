package vm

import (
	"cmp"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"nuage/controller/tenant"
)

// The external IDs that an interface's maker writes.
const (
	keyEnterprise = "nuage-enterprise"
	keyDomain     = "nuage-domain"
	keyZone       = "nuage-zone"
	keyNetwork    = "nuage-network"
	keyCIDR       = "nuage-cidr"
	keyUser       = "nuage-user"
	keyGroup      = "nuage-policy-group"
	keyStaticIP   = "nuage-static-ip"
	keyMAC        = "attached-mac"
	keyName       = "vm-name"
	keyIfaceID    = "iface-id"
)

// Other spellings.
var (
	uuidKeys     = []string{"vm-uuid", "vm_uuid", "vm-id"} // the last is libvirt's
	staticIPKeys = []string{keyStaticIP, "static-ip"}
	mineKeys     = []string{keyEnterprise, keyDomain, keyZone, keyNetwork, keyCIDR, keyUser, keyGroup, keyStaticIP}
)

// The external IDs that are answers.
const (
	keyIP    = "nuage-ip"
	keyVport = "nuage-vport"
	keyError = "nuage-error"
)

var answers = []string{keyIP, keyVport, keyError}

// machine is what an interface says of the machine behind it.
type machine struct {
	Port                             string
	Enterprise, Domain, Zone, Subnet string
	CIDR                             netip.Prefix
	User                             string
	Groups                           []string
	Want                             netip.Addr
	MAC                              tenant.MAC
	UUID, Name                       string
	// Made is the ID or external ID of a vport made ahead, where nothing else is said.
	Made string
}

func (m machine) equal(o machine) bool {
	return reflect.DeepEqual(m, o)
}

// place is where the machine belongs.
func (m machine) place() tenant.PathSpec {
	return tenant.PathSpec{Enterprise: m.Enterprise, Domain: m.Domain, Zone: m.Zone, Subnet: m.Subnet, CIDR: m.CIDR}
}

// name is what the vport is called.
func (m machine) name() string { return cmp.Or(m.Name, m.UUID, m.Port) }

// own are the ports of the driver and of the bridge itself.
var own = regexp.MustCompile(`^(nu[0-9a-f]{11}|nuage-.*)$`)

// concerns tells whether a port is a machine's that asks to be attached.
func concerns(port string, ids map[string]string) bool {
	if own.MatchString(port) {
		return false
	}
	return ids[keyIfaceID] != "" || slices.ContainsFunc(mineKeys, func(k string) bool { return ids[k] != "" })
}

// read understands an interface's external IDs. What it says of the machine is as far as it
// was understood also beside an error, which is tenant.ErrInvalid.
func read(port string, ids map[string]string) (machine, error) {
	m := machine{Port: port, Enterprise: ids[keyEnterprise], Domain: ids[keyDomain], Zone: ids[keyZone], Subnet: ids[keyNetwork]}
	if !slices.ContainsFunc(mineKeys, func(k string) bool { return ids[k] != "" }) {
		m.Made = ids[keyIfaceID]
	}
	bad := func(key string, err error) (machine, error) {
		return m, tenant.Errorf(tenant.ErrInvalid, "%s: %v", key, err)
	}
	for _, said := range []struct {
		key, text string
		into      *string
	}{{keyName, ids[keyName], &m.Name}, {uuidKeys[0], first(ids, uuidKeys), &m.UUID}, {keyUser, ids[keyUser], &m.User}} {
		if said.text == "" {
			continue
		}
		if err := tenant.ValidateName(said.text); err != nil {
			return bad(said.key, err)
		}
		*said.into = said.text
	}
	var err error
	if text := ids[keyMAC]; text != "" {
		if m.MAC, err = tenant.ParseMAC(text); err == nil && m.MAC == tenant.GatewayMAC {
			err = tenant.Errorf(tenant.ErrInvalid, "%s is the gateway's", text)
		}
		if err != nil {
			m.MAC = tenant.MAC{}
			return bad(keyMAC, err)
		}
	} else if m.Made == "" {
		return bad(keyMAC, tenant.Errorf(tenant.ErrInvalid, "missing: the MAC address that the machine's own interface has"))
	}
	if text := ids[keyCIDR]; text != "" {
		if m.CIDR, err = netip.ParsePrefix(text); err != nil {
			return bad(keyCIDR, tenant.Errorf(tenant.ErrInvalid, "%.80q is not a prefix such as 10.34.49.0/24", text))
		}
	}
	if text := first(ids, staticIPKeys); text != "" {
		if m.Want, err = netip.ParseAddr(text); err != nil || !m.Want.Is4() {
			return bad(keyStaticIP, tenant.Errorf(tenant.ErrInvalid, "%.80q is not an IPv4 address", text))
		}
	}
	for g := range strings.SplitSeq(ids[keyGroup], ",") {
		if g = strings.TrimSpace(g); g == "" || slices.Contains(m.Groups, g) {
			continue
		}
		if err := tenant.ValidateName(g); err != nil {
			return bad(keyGroup, err)
		}
		m.Groups = append(m.Groups, g)
	}
	return m, nil
}

func first(ids map[string]string, keys []string) string {
	for _, k := range keys {
		if ids[k] != "" {
			return ids[k]
		}
	}
	return ""
}
