package ipam

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"nuage/controller/tenant"
)

// The address spaces. They are two names only with scope global, since swarm's manager and
// the node's agent then ask the same plugin for the same pool; with scope local both
// default spaces are SpaceLocal, which keeps engines from comparing pools with the host's
// routes and asking for ever.
const (
	SpaceLocal  = "nuage"
	SpaceGlobal = "nuage-global"
)

// poolID is what Docker keeps of a pool and sends with every address. It says all that an
// answer needs, so that a pool outlives every record of it, and equal requests have equal
// IDs over restarts and hosts.
type poolID struct {
	space    string
	domainID string
	subnetID string
	rng      netip.Prefix // not valid: the whole subnet
	// variant tells apart pools of one subnet whose networks differ in what the path does
	// not say: user, policy groups, MTU.
	variant string
}

func (id poolID) String() string {
	rng := "all"
	if id.rng.IsValid() {
		rng = strings.ReplaceAll(id.rng.String(), "/", "-")
	}
	return strings.Join([]string{id.space, id.domainID, id.subnetID, rng, id.variant}, "/")
}

// parsePoolID reads what String wrote; anything else is tenant.ErrNotFound.
func parsePoolID(s string) (poolID, error) {
	unknown := tenant.Errorf(tenant.ErrNotFound, "pool %q is unknown: remove the network and create it again", s)
	f := strings.Split(s, "/")
	if len(f) != 5 || f[0] != SpaceLocal && f[0] != SpaceGlobal || tenant.ValidateID(f[1]) != nil || tenant.ValidateID(f[2]) != nil {
		return poolID{}, unknown
	}
	id := poolID{space: f[0], domainID: f[1], subnetID: f[2], variant: f[4]}
	if f[3] != "all" {
		rng, err := netip.ParsePrefix(strings.ReplaceAll(f[3], "-", "/"))
		if err != nil || !rng.Addr().Is4() {
			return poolID{}, unknown
		}
		id.rng = rng
	}
	return id, nil
}

func variant(o Options) string {
	if o.User == "" && len(o.PolicyGroups) == 0 && o.MTU == 0 {
		return "plain"
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %d", o.User, o.PolicyGroups, o.MTU))
	return hex.EncodeToString(sum[:6])
}

// Records keeps values durably: each is on disk when Put returns. driver/journal is one.
type Records interface {
	Put(kind, id string, v any) error
	Get(kind, id string, v any) (bool, error)
	Delete(kind, id string) error
	List(kind string, f func(id string, value []byte) error) error
}

const kindPool = "pools"

// PoolRecord is what is known of a pool: the subnet behind it, and what was said with it.
type PoolRecord struct {
	ID    string `json:"id"`
	Space string `json:"space"`

	EnterpriseID string `json:"enterpriseID"`
	DomainID     string `json:"domainID"`
	ZoneID       string `json:"zoneID"`
	SubnetID     string `json:"subnetID"`

	CIDR    netip.Prefix `json:"cidr"`
	Gateway netip.Addr   `json:"gateway"`
	Range   netip.Prefix `json:"range,omitzero"`
	// Options are what was said, completed by the names of the path.
	Options Options `json:"options"`
	// Made tells that the subnet was made for a network which has not come yet: it goes with
	// the pool if that does not come.
	Made bool `json:"made,omitempty"`
	// Networks are the Docker networks that claimed the pool.
	Networks []string `json:"networks,omitempty"`
	// Requested is when the pool was last asked for.
	Requested time.Time `json:"requested"`
}

func (r *PoolRecord) place() place { return place{r.Space, r.CIDR} }

// records lists the pools, in the order of their IDs, and drops those whose network never
// came.
func (d *Driver) records() ([]PoolRecord, error) {
	var rs []PoolRecord
	err := d.c.Records.List(kindPool, func(id string, value []byte) error {
		var r PoolRecord
		if err := json.Unmarshal(value, &r); err != nil {
			return fmt.Errorf("pool %s: %w", id, err)
		}
		rs = append(rs, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, r := range rs {
		if d.forgotten(&r) {
			err = errors.Join(err, d.change(r.ID, func(r *PoolRecord) {
				if d.forgotten(r) {
					r.ID = ""
				}
			}))
		}
	}
	rs = slices.DeleteFunc(rs, func(r PoolRecord) bool { return d.forgotten(&r) })
	slices.SortFunc(rs, func(a, b PoolRecord) int { return strings.Compare(a.ID, b.ID) })
	return rs, err
}

func (d *Driver) forgotten(r *PoolRecord) bool {
	return len(r.Networks) == 0 && d.c.Now().Sub(r.Requested) > abandoned
}

// change rewrites a pool's record, and removes one that f empties of its ID. A record that
// does not exist comes to f empty.
func (d *Driver) change(id string, f func(*PoolRecord)) error {
	d.recordsMu.Lock()
	defer d.recordsMu.Unlock()
	var r PoolRecord
	was, err := d.c.Records.Get(kindPool, id, &r)
	if err != nil {
		return fmt.Errorf("pool %s: %w", id, err)
	}
	f(&r)
	switch {
	case r.ID != "":
		err = d.c.Records.Put(kindPool, id, r)
	case was:
		err = d.c.Records.Delete(kindPool, id)
	}
	if err != nil {
		return fmt.Errorf("pool %s: %w", id, err)
	}
	return nil
}
