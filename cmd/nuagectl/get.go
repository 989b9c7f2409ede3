package main

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// kind is one class of object that can be shown.
type kind struct {
	name    string // as in the API: "subnets"
	aliases []string
	columns []column
	wide    []column // beside columns
	// lines makes several rows of one object for wide, which then has all of its columns.
	lines func(object) []object
	// path is that of the VSD API, if it is not the name.
	path func(object) string
	// keep says who deletes these objects, if nuagectl cannot.
	keep string
}

var (
	inEnterprise = []column{key("ENTERPRISE", "enterprise")}
	inDomain     = append(slices.Clone(inEnterprise), key("DOMAIN", "domain"))
	inZone       = append(slices.Clone(inDomain), key("ZONE", "zone"))
	inSubnet     = append(slices.Clone(inZone), key("SUBNET", "subnet"))
)

var kinds = []kind{
	{
		name: "enterprises", aliases: []string{"enterprise", "ent"},
		columns: []column{key("NAME", "name"), key("DOMAINS", "domains"), key("DESCRIPTION", "description")},
		wide:    []column{key("CUSTOMER", "customerID"), key("ID", "id")},
	}, {
		name: "domains", aliases: []string{"domain", "dom"},
		columns: columns(inEnterprise, key("NAME", "name"), key("ZONES", "zones"), key("SUBNETS", "subnets"), key("VPORTS", "vports")),
		wide:    []column{key("VNI", "vni"), key("OVER LIMIT", "overLimit.packets"), key("DESCRIPTION", "description"), key("ID", "id")},
	}, {
		name: "zones", aliases: []string{"zone"},
		columns: columns(inDomain, key("NAME", "name"), key("SUBNETS", "subnets"), key("VPORTS", "vports")),
		wide:    []column{key("DESCRIPTION", "description"), key("ID", "id")},
	}, {
		name: "subnets", aliases: []string{"subnet", "sub"},
		columns: columns(inZone, key("NAME", "name"), key("ADDRESS", "address"), key("GATEWAY", "gateway"), key("VPORTS", "vports")),
		wide: []column{key("NETWORKS", "networks"), key("VNI", "vni"), key("DOCKER'S", "dockerOwned"),
			key("DESCRIPTION", "description"), key("ID", "id")},
	}, {
		name: "vports", aliases: []string{"vport", "vp"},
		columns: columns(inSubnet, key("NAME", "name"), key("TYPE", "type"), key("IPV4", "ipv4"), key("HOST", "host"), column{"STATE", vportState}),
		wide: []column{key("MAC", "mac"), key("INTERFACE", "interface"), key("CONTAINER", "owner.containerName"),
			key("GROUPS", "policyGroups"), {"MAY SEND", maySend}, key("SPOOFED", "spoofDrops.packets"), key("LIMITED", "limited.packets"),
			key("USER", "user"), key("ID", "id")},
	}, {
		name: "policygroups", aliases: []string{"policygroup", "pg"},
		columns: columns(inDomain, key("NAME", "name"), key("MEMBERS", "members"), key("ENTRIES", "entries")),
		wide:    []column{key("DESCRIPTION", "description"), key("ID", "id")},
	}, {
		name: "policies", aliases: []string{"policy", "pol"}, lines: entryLines,
		path: func(o object) string { return o.text("direction") + "acltemplates" },
		columns: columns(inDomain, key("NAME", "name"), key("DIRECTION", "direction"), key("PRIORITY", "priority"), key("ACTIVE", "active"),
			column{"ENTRIES", func(o object) string { return strconv.Itoa(len(o.list("entries"))) }}, column{"DEFAULT", defaultAction}),
		wide: columns(inDomain, key("POLICY", "name"), key("DIRECTION", "direction"), key("PRIORITY", "priority"), key("ACTIVE", "active"),
			key("ENTRY", "entry.priority"), key("ACTION", "entry.action"), key("MATCH", "entry.match"), key("FROM", "entry.from"), key("TO", "entry.to"),
			key("STATEFUL", "entry.stateful"), column{"PACKETS", counted("entry", "packets")}, column{"BYTES", counted("entry", "bytes")}),
	}, {
		name: "entries", aliases: []string{"entry"},
		path: func(o object) string { return o.text("direction") + "aclentrytemplates" },
		columns: columns(inDomain, key("POLICY", "policy"), key("PRIORITY", "priority"), key("ACTION", "action"), key("MATCH", "match"),
			key("FROM", "from"), key("TO", "to")),
		wide: []column{key("STATEFUL", "stateful"), key("LOGGED", "flowLogging"), {"PACKETS", counted("", "packets")}, {"BYTES", counted("", "bytes")},
			key("DESCRIPTION", "description"), key("ID", "id")},
	}, {
		name: "networkmacros", aliases: []string{"networkmacro", "macro"}, path: func(object) string { return "enterprisenetworks" },
		columns: columns(inEnterprise, key("NAME", "name"), key("ADDRESS", "address"), key("ENTRIES", "entries")),
		wide:    []column{key("DESCRIPTION", "description"), key("ID", "id")},
	}, {
		name: "ratelimiters", aliases: []string{"ratelimiter", "limiter"}, path: func(object) string { return "qos" },
		columns: columns(inDomain, key("ON", "on"), key("DIRECTION", "direction"), key("RATE", "rate"), key("BURST", "burst")),
		wide:    []column{key("NAME", "name"), key("ID", "id")},
	}, {
		name: "networks", aliases: []string{"network", "net"}, keep: "docker network rm",
		columns: slices.Concat([]column{{"ID", shortID}, key("NAME", "name"), key("HOST", "host")}, inSubnet,
			[]column{key("ADDRESS", "address"), key("ADDRESSES BY", "mode"), key("VPORTS", "vports")}),
		wide: []column{key("GATEWAY", "gateway"), key("MTU", "mtu"), key("INTERNAL", "internal"), key("FULL ID", "id")},
	}, {
		name: "hosts", aliases: []string{"host"},
		columns: []column{key("NAME", "name"), key("VTEP", "vtep"), key("VERSION", "version"), {"STATE", hostState}, key("VPORTS", "vports")},
		wide: []column{key("NETWORKS", "networks"), key("MTU", "mtu"), key("PROGRAMMED", "programmed"), key("CREATED", "created"),
			key("DOMAINS", "domains")},
	},
}

// maySend are the addresses that a vport may send from beside its own.
func maySend(o object) string {
	if o.text("addressSpoofing") == "yes" {
		return "any"
	}
	var ips []string
	for _, vip := range o.list("virtualIPs") {
		ips = append(ips, vip.text("ipv4")+prefixed("@", vip.text("mac")))
	}
	return strings.Join(ips, ",")
}

// entryLines are a policy's entries and, last, its default.
func entryLines(o object) []object {
	var lines []object
	add := func(entry object) {
		line := maps.Clone(o)
		line["entry"] = map[string]any(entry)
		lines = append(lines, line)
	}
	for _, e := range o.list("entries") {
		add(e)
	}
	add(object{"priority": "default", "action": defaultAction(o), "counter": o["default"], "statsLogging": true})
	return lines
}

func defaultAction(o object) string {
	if o.text("defaultAllowIP") == "yes" {
		return "FORWARD"
	}
	return "DROP"
}

// counted is a counter of an entry; of one that nobody counts for, none.
func counted(at, what string) func(object) string {
	at = strings.TrimPrefix(at+".", ".")
	return func(o object) string {
		if o.text(at+"statsLogging") != "yes" {
			return ""
		}
		return o.text(at + "counter." + what)
	}
}

func columns(place []column, own ...column) []column { return slices.Concat(place, own) }

// vportState says in the table itself why a vport is not attached.
func vportState(o object) string {
	state := o.text("state")
	if state == "lost" {
		return "lost: " + o.text("host") + " is not alive"
	}
	return state + prefixed(": ", o.text("error"))
}

// hostState says since when a host is not alive.
func hostState(o object) string {
	state := o.text("state")
	if state == "not alive" {
		return state + prefixed(" since ", o.text("seen"))
	}
	return state + prefixed(": ", o.text("error"))
}

// shortID is as docker network ls shows it.
func shortID(o object) string {
	id := o.text("id")
	return id[:min(12, len(id))]
}

func findKind(word string) (kind, error) {
	for _, k := range kinds {
		if k.name == word || slices.Contains(k.aliases, word) {
			return k, nil
		}
	}
	return kind{}, usagef("unknown kind %q: it is one of %s", word, strings.Join(kindNames(), ", "))
}

func kindNames() []string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// singular is the kind's word for one object.
func (k kind) singular() string { return k.aliases[0] }

// place is the flags that narrow what is meant to what is in an enterprise, domain, …
type place struct{ enterprise, domain, zone, subnet string }

func (p *place) flags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&p.enterprise, "enterprise", "e", "", "only in the enterprise of this `NAME`")
	cmd.Flags().StringVarP(&p.domain, "domain", "d", "", "only in the domain of this `NAME`")
	cmd.Flags().StringVarP(&p.zone, "zone", "z", "", "only in the zone of this `NAME`")
	cmd.Flags().StringVarP(&p.subnet, "subnet", "s", "", "only in the subnet of this `NAME`")
}

func (p *place) query(name string) url.Values {
	q := url.Values{}
	for k, v := range map[string]string{"enterprise": p.enterprise, "domain": p.domain, "zone": p.zone, "subnet": p.subnet, "name": name} {
		if v != "" {
			q.Set(k, v)
		}
	}
	return q
}

// words says the place after what is there: " in domain App1 of enterprise DCEnterprise".
func (p *place) words() string {
	var words string
	for _, in := range []struct{ kind, name string }{{"subnet", p.subnet}, {"zone", p.zone}, {"domain", p.domain}, {"enterprise", p.enterprise}} {
		switch {
		case in.name == "":
		case words == "":
			words = " in " + in.kind + " " + in.name
		default:
			words += " of " + in.kind + " " + in.name
		}
	}
	return words
}

func (c *command) get() *cobra.Command {
	var in place
	var output string
	cmd := &cobra.Command{
		Use:   "get KIND [NAME]",
		Short: "Show objects: " + strings.Join(kindNames(), ", "),
		Long: `Show the objects of a kind, or the one of that name or ID.

Kinds: ` + strings.Join(kindNames(), ", ") + `; also in the singular and short (ent, dom, sub, vp, pg, pol, net).

Wide, policies are shown with their entries and what these have decided: packets and bytes
since the switches count, over all hosts, of entries with statsLogging and of the default. An
entry's name is POLICY/PRIORITY, a rate limiter's "zone NAME ingress".`,
		Example: `  nuagectl get enterprises
  nuagectl get subnets --enterprise DCEnterprise --domain App1
  nuagectl get vports -o wide
  nuagectl get policies --domain App1 -o wide
  nuagectl get vport web-1 -o yaml`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usagef("say what to show: nuagectl get KIND [NAME]; the kinds are %s", strings.Join(kindNames(), ", "))
			}
			return nil
		},
		ValidArgsFunction: completeKind,
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := findKind(args[0])
			if err != nil {
				return err
			}
			if !slices.Contains(outputs, output) {
				return usagef("unknown output %q: it is one of %s", output, strings.Join(outputs, ", "))
			}
			if k.name == "hosts" && in != (place{}) {
				return usagef("a host is in no enterprise, domain, zone or subnet: nuagectl get hosts -o wide shows the domains that are on it")
			}
			name := strings.Join(args[1:], "")
			text, err := c.client.do(cmd.Context(), http.MethodGet, "/nuage/v1/"+k.name, in.query(name), nil)
			if err != nil {
				return err
			}
			list, err := decodeObjects(text)
			if err != nil {
				return err
			}
			if name != "" && len(list) == 0 {
				return fmt.Errorf("%s %s not found%s", k.singular(), name, in.words())
			}
			return k.write(cmd, output, in.words(), text, list)
		},
	}
	in.flags(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "table", "one of "+strings.Join(outputs, ", "))
	return cmd
}

var outputs = []string{"table", "wide", "json", "yaml"}

func (k kind) write(cmd *cobra.Command, output, where string, text []byte, list []object) error {
	out := cmd.OutOrStdout()
	switch {
	case output == "json":
		return writeJSON(out, text)
	case output == "yaml":
		return writeYAML(out, text)
	case len(list) == 0:
		_, err := fmt.Fprintf(cmd.ErrOrStderr(), "There are no %s%s.\n", k.name, escape(where))
		return err
	case output == "wide" && k.lines != nil:
		var lines []object
		for _, o := range list {
			lines = append(lines, k.lines(o)...)
		}
		return writeTable(out, k.wide, lines)
	case output == "wide":
		return writeTable(out, slices.Concat(k.columns, k.wide), list)
	}
	return writeTable(out, k.columns, list)
}

func completeKind(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return kindNames(), cobra.ShellCompDirectiveNoFileComp
}
