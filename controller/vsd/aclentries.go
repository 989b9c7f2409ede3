package vsd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"nuage/controller/tenant"
)

// sideWords are VSD's types of location and network.
var sideWords = map[tenant.SideKind]string{
	tenant.SideAny: "ANY", tenant.SideCIDR: "ANY", tenant.SidePolicyGroup: "POLICYGROUP", tenant.SideZone: "ZONE", tenant.SideSubnet: "SUBNET",
	tenant.SideNetworkMacro: "ENTERPRISE_NETWORK",
	tenant.SideSameZone:     "ENDPOINT_ZONE", tenant.SideSameSubnet: "ENDPOINT_SUBNET", tenant.SideSameDomain: "ENDPOINT_DOMAIN",
}

// sideAttributes are the attributes of one side of an entry. The location is the vport that
// the policy is decided for, so the sender of an ingress entry and the receiver of an
// egress entry; the network is the other side. A side that is a prefix has the type ANY and
// the prefix in an attribute: the location in VSD's own addressOverride, the network in
// networkCIDR, which VSD does not have (its clients use network macros).
type sideAttributes struct {
	kind, id, cidr string
	at             func(*tenant.Entry) *tenant.Side
}

func sidesOf(d tenant.Direction) []sideAttributes {
	from := func(e *tenant.Entry) *tenant.Side { return &e.From }
	to := func(e *tenant.Entry) *tenant.Side { return &e.To }
	if d == tenant.Egress {
		from, to = to, from
	}
	return []sideAttributes{{"locationType", "locationID", "addressOverride", from}, {"networkType", "networkID", "networkCIDR", to}}
}

// aclEntries are the entries of the policies of a direction.
func aclEntries(d tenant.Direction) *spec[tenant.Entry] {
	sides := sidesOf(d)
	r := &spec[tenant.Entry]{
		called: words{name: string(d) + "aclentrytemplates", rest: string(d) + "aclentrytemplate", parent: string(d) + "acltemplates"},
		objects: func(s *tenant.State) map[string]*tenant.Entry {
			return some(s.Entries, func(e *tenant.Entry) bool { p := s.Policies[e.PolicyID]; return p != nil && p.Direction == d })
		},
		meta: func(o *tenant.Entry) *tenant.Meta { return &o.Meta },
		within: map[string]func(*tenant.Entry) string{
			string(d) + "acltemplates": func(o *tenant.Entry) string { return o.PolicyID },
			"domains":                  func(o *tenant.Entry) string { return o.DomainID },
		},
		adopt: func(s *tenant.State, o *tenant.Entry, parentID string) {
			o.PolicyID = parentID
			if p := s.Policies[parentID]; p != nil {
				o.DomainID = p.DomainID
			}
		},
		initial: func(o *tenant.Entry) {
			o.Action, o.Protocol = tenant.Forward, tenant.TCP // as in VSD
			o.From.Kind, o.To.Kind = tenant.SideAny, tenant.SideAny
		},
		fields: append(fixed[tenant.Entry](map[string]any{"associatedLiveEntityID": nil}),
			// What would have an entry match less than it does here.
			only[tenant.Entry]("etherType", "0x0800", "an entry is about IPv4 (0x0800), and about nothing else"),
			only[tenant.Entry]("policyState", "LIVE", noDrafts),
			only[tenant.Entry]("associatedTrafficTypeID", "", "there are no L4 services: say protocol and ports"),
			only[tenant.Entry]("associatedL7ApplicationSignatureID", "", "applications are not told apart: say protocol and ports"),
			only[tenant.Entry]("webFilterID", "", "there are no web filters: say protocol and ports"),
			kept(field[tenant.Entry]{name: "action",
				get: func(_ *tenant.State, o *tenant.Entry) any { return string(o.Action) },
				set: func(o *tenant.Entry, v string) error { o.Action = tenant.Action(strings.ToUpper(v)); return nil }}),
			kept(field[tenant.Entry]{name: "protocol",
				get: func(_ *tenant.State, o *tenant.Entry) any {
					if o.Protocol == tenant.AnyProtocol {
						return "ANY"
					}
					return strconv.Itoa(int(o.Protocol))
				},
				set: parsed("protocol", tenant.ParseProtocol, func(o *tenant.Entry) *tenant.Protocol { return &o.Protocol })}),
			textual("sourcePort", tenant.ParsePortRange, func(o *tenant.Entry) *tenant.PortRange { return &o.SourcePort }),
			textual("destinationPort", tenant.ParsePortRange, func(o *tenant.Entry) *tenant.PortRange { return &o.DestinationPort }),
			textual("ICMPType", tenant.ParseOptionalByte, func(o *tenant.Entry) *tenant.OptionalByte { return &o.ICMPType }),
			textual("ICMPCode", tenant.ParseOptionalByte, func(o *tenant.Entry) *tenant.OptionalByte { return &o.ICMPCode }),
			kept(textual("DSCP", tenant.ParseOptionalByte, func(o *tenant.Entry) *tenant.OptionalByte { return &o.DSCP })),
			chosen("priority", func(o *tenant.Entry) *uint32 { return &o.Priority }),
			text("description", func(o *tenant.Entry) *string { return &o.Description }),
			flagged("stateful", func(o *tenant.Entry) *bool { return &o.Stateful }),
			flagged("statsLoggingEnabled", func(o *tenant.Entry) *bool { return &o.StatsLogging }),
			flagged("flowLoggingEnabled", func(o *tenant.Entry) *bool { return &o.FlowLogging }),
			derived("domainName", func(s *tenant.State, o *tenant.Entry) any { return orNull(placeOf(s, o.DomainID, "", "").Domain) }),
		),
		finish: func(o *tenant.Entry, b body) error {
			return errors.Join(sides[0].read(o, b), sides[1].read(o, b))
		},
		insert:   insertEntry,
		write:    Store.UpdateEntry,
		takeAway: Store.DeleteEntry,
	}
	for _, side := range sides {
		r.fields = append(r.fields, side.fields()...)
	}
	return r
}

// insertEntry gives an entry without a priority the next one, as VSD does.
func insertEntry(st Store, ctx context.Context, e tenant.Entry) (tenant.Entry, error) {
	if e.Priority != 0 {
		return st.CreateEntry(ctx, e)
	}
	for attempt := 1; ; attempt++ {
		next, err := st.NextEntryPriority(ctx, e.PolicyID)
		if err != nil {
			return e, err
		}
		e.Priority = next
		made, err := st.CreateEntry(ctx, e)
		if err == nil || !errors.Is(err, tenant.ErrExists) || attempt == writeAttempts {
			return made, err
		}
	}
}

// textual is an attribute whose text the model reads and writes.
func textual[V interface{ String() string }](name string, parse func(string) (V, error), at func(*tenant.Entry) *V) field[tenant.Entry] {
	return field[tenant.Entry]{name: name,
		get: func(_ *tenant.State, o *tenant.Entry) any { return (*at(o)).String() },
		set: parsed(name, parse, at)}
}

func parsed[V any](name string, parse func(string) (V, error), at func(*tenant.Entry) *V) func(*tenant.Entry, string) error {
	return func(o *tenant.Entry, v string) error {
		value, err := parse(cmp.Or(v, "*"))
		if err != nil {
			return &propertyError{name, err}
		}
		*at(o) = value
		return nil
	}
}

func (a sideAttributes) fields() []field[tenant.Entry] {
	return []field[tenant.Entry]{
		derived(a.kind, func(_ *tenant.State, o *tenant.Entry) any { return sideWords[a.at(o).Kind] }),
		derived(a.id, func(_ *tenant.State, o *tenant.Entry) any { return orNull(a.at(o).ID) }),
		derived(a.cidr, func(_ *tenant.State, o *tenant.Entry) any {
			if !a.at(o).CIDR.IsValid() {
				return nil
			}
			return a.at(o).CIDR.String()
		}),
	}
}

// read merges the attributes of a side into what it is.
func (a sideAttributes) read(o *tenant.Entry, b body) error {
	kind, _, err := b.text(a.kind)
	if err != nil {
		return err
	}
	id, hasID, err := b.text(a.id)
	if err != nil {
		return err
	}
	cidr, hasCIDR, err := b.text(a.cidr)
	if err != nil {
		return err
	}
	side := a.at(o)
	switch {
	case cidr != "":
		prefix, err := netip.ParsePrefix(cidr)
		if one, bad := netip.ParseAddr(cidr); err != nil && bad == nil {
			prefix, err = netip.PrefixFrom(one, one.BitLen()), nil
		}
		if err != nil {
			return badProperty(a.cidr, "%q is neither an address nor a prefix such as 192.0.2.0/24", cidr)
		}
		*side = tenant.Side{Kind: tenant.SideCIDR, CIDR: prefix}
		if kind != "" && kind != "ANY" {
			return badProperty(a.kind, "%s goes with the type ANY", a.cidr)
		}
		return nil
	case kind == "" && !hasID && !hasCIDR, kind == "ANY" && side.Kind == tenant.SideCIDR && !hasCIDR:
		return nil
	}
	for k, word := range sideWords {
		if k != tenant.SideCIDR && word == cmp.Or(strings.ToUpper(kind), sideWords[side.Kind]) {
			now := tenant.Side{Kind: k, ID: side.ID}
			if hasID {
				now.ID = id
			}
			if _, named := now.Key(); !named {
				now.ID = ""
			}
			*side = now
			return nil
		}
	}
	return badProperty(a.kind, "type %q is not known: it is ANY, POLICYGROUP, ZONE, SUBNET, ENTERPRISE_NETWORK, ENDPOINT_ZONE, ENDPOINT_SUBNET or ENDPOINT_DOMAIN", kind)
}

func virtualMeta(v *tenant.Vport, vip tenant.VirtualIP) tenant.Meta {
	return tenant.Meta{ID: uuid.NewSHA1(uuid.NameSpaceOID, []byte(v.ID+"/"+vip.IPv4.String())).String(), Created: v.Created, Updated: v.Updated}
}

func allVirtualIPs(s *tenant.State) map[string]*virtualIP {
	m := map[string]*virtualIP{}
	for _, v := range s.Vports {
		for _, vip := range v.VirtualIPs {
			meta := virtualMeta(v, vip)
			m[meta.ID] = &virtualIP{meta, vip, v}
		}
	}
	return m
}

// assign replaces the list of the policy groups of a vport, or of the vports of a group. No
// body, null and [] are the empty list.
func (a *api) assign(w http.ResponseWriter, r *http.Request, s *tenant.State, parent, id, children string) error {
	text, err := readAll(r)
	if err != nil {
		return err
	}
	var ids []string
	if len(text) > 0 {
		if err := json.Unmarshal(text, &ids); err != nil {
			return tenant.Errorf(tenant.ErrInvalid, "the request is not a list of IDs: %v", err)
		}
	}
	switch {
	case parent == "vports" && children == "policygroups":
		err = a.join(r, s, id, ids)
	case parent == "policygroups" && children == "vports":
		err = a.enlist(r, s, s.PolicyGroups[id], ids)
	default:
		return errMethod
	}
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

// join makes a vport a member of just these groups.
func (a *api) join(r *http.Request, s *tenant.State, vportID string, groupIDs []string) error {
	v := s.Vports[vportID]
	var names []string
	for _, id := range groupIDs {
		g := s.PolicyGroups[id]
		if g == nil {
			return notFound("policygroup", id)
		}
		if g.DomainID != v.DomainID {
			return tenant.Errorf(tenant.ErrConflict, "policy group %s is of another domain than vport %s", g.Name, v.Name)
		}
		names = append(names, g.Name)
	}
	slices.Sort(names)
	return a.regroup(r, v, func([]string) []string { return slices.Compact(names) })
}

// enlist makes just these vports members of a group.
func (a *api) enlist(r *http.Request, s *tenant.State, g *tenant.PolicyGroup, vportIDs []string) error {
	for _, id := range vportIDs {
		switch v := s.Vports[id]; {
		case v == nil:
			return notFound("vport", id)
		case v.DomainID != g.DomainID:
			return tenant.Errorf(tenant.ErrConflict, "vport %s is of another domain than policy group %s", v.Name, g.Name)
		}
	}
	for id, v := range s.Vports {
		shall := slices.Contains(vportIDs, id)
		if isMember(s, v, g.ID) == shall {
			continue
		}
		err := a.regroup(r, v, func(names []string) []string {
			names = slices.DeleteFunc(names, func(n string) bool { return n == g.Name })
			if shall {
				names = append(names, g.Name)
			}
			slices.Sort(names)
			return slices.Compact(names)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// regroup changes the names of a vport's groups, of which change is given a copy.
func (a *api) regroup(r *http.Request, v *tenant.Vport, change func(names []string) []string) error {
	if slices.Equal(change(slices.Clone(v.PolicyGroups)), v.PolicyGroups) {
		return nil
	}
	_, err := changeVport(a.Store, r.Context(), v, func(v *tenant.Vport) error {
		v.PolicyGroups = change(slices.Clone(v.PolicyGroups))
		return nil
	})
	return err
}

// statistics are the counters of an entry, over all hosts, since they count.
func statistics(w http.ResponseWriter, r *http.Request, s *tenant.State, parent, id string) error {
	if !strings.HasSuffix(parent, "aclentrytemplates") {
		return noResource(r)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return errMethod
	}
	n := addUp(s).entries[id]
	writeJSON(w, http.StatusOK, []map[string]any{{
		"ID": id, "parentID": id, "parentType": strings.TrimSuffix(parent, "s"), "numberOfDataPoints": 1,
		"statsData": map[string][]uint64{"PACKETS_IN": {n.Packets}, "BYTES_IN": {n.Bytes}},
	}})
	return nil
}
