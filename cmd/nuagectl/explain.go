package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// explained is what the controller says of a packet.
type explained struct {
	Revision                int64
	Packet, Verdict, Reason string
	From, To                *end
	Hops                    []struct {
		Stage, Text string
		Dropped     bool
	}
	Replies *struct{ Text string }
	Remedy  *struct {
		Text  string
		Steps []struct{ Text, Command, Policy, YAML string }
	}
	Switches []struct {
		Host, Text    string
		Asked, Agrees bool
		Flows         []string
	}
	Differs bool
}

// end is one of the two vports.
type end struct {
	Vport, Address, Domain, Zone, Subnet, Host string
	PolicyGroups                               []string
}

func (c *command) explain() *cobra.Command {
	var in place
	var output string
	var sourcePort uint16
	cmd := &cobra.Command{
		Use:   "explain SRC DST PROTO[/PORT]",
		Short: "Say whether a vport reaches another, and what decides",
		Long: `Say what becomes of the first packet of a connection: the verdict, each hop, what the
policies of both directions say, whether it may be answered, and, of a packet that is
dropped, the smallest change that would allow it.

SRC and DST are each the name of a vport or of a container, or an address; PROTO is tcp,
udp, sctp (with a PORT), icmp (an echo request, or icmp/TYPE) or a number. The switches of
the sender's host and of the receiver's are asked as well, wherever they are: if one would
do something else than the model says, that is told loudly, and the exit code is 1. It is 0
for allow and for drop, and of a host that does not answer it is said why.`,
		Example: `  nuagectl explain web-1 db-1 tcp/5432
  nuagectl explain 10.85.85.2 10.34.49.2 icmp --domain App1 --enterprise DCEnterprise
  nuagectl explain web-1 198.51.100.1 udp/53 -o json`,
		Args: needs(3, "say what to explain: nuagectl explain SRC DST PROTO[/PORT], such as web-1 db-1 tcp/5432"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains([]string{"text", "json", "yaml"}, output) {
				return usagef("unknown output %q: it is one of text, json, yaml", output)
			}
			query := in.query("")
			query.Set("from", args[0])
			query.Set("to", args[1])
			addProtocol(query, args[2])
			if sourcePort != 0 {
				query.Set("sourcePort", strconv.Itoa(int(sourcePort)))
			}
			text, err := c.client.do(cmd.Context(), http.MethodGet, "/nuage/v1/explain", query, nil)
			if err != nil {
				return err
			}
			var x explained
			if err := json.Unmarshal(text, &x); err != nil {
				return fmt.Errorf("answer: %w", err)
			}
			write := map[string]func() error{
				"text": func() error { return x.write(cmd.OutOrStdout()) },
				"json": func() error { return writeJSON(cmd.OutOrStdout(), text) },
				"yaml": func() error { return writeYAML(cmd.OutOrStdout(), text) },
			}[output]
			if err := write(); err != nil {
				return err
			}
			return x.differences()
		},
	}
	cmd.Flags().StringVarP(&in.enterprise, "enterprise", "e", "", "SRC is in the enterprise of this `NAME`")
	cmd.Flags().StringVarP(&in.domain, "domain", "d", "", "SRC is in the domain of this `NAME`")
	cmd.Flags().Uint16Var(&sourcePort, "source-port", 0, "the sender's `PORT`; 49152 if it does not matter")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "one of text, json, yaml")
	return cmd
}

// addProtocol splits PROTO/PORT, or icmp/TYPE.
func addProtocol(query url.Values, word string) {
	proto, number, has := strings.Cut(word, "/")
	query.Set("protocol", proto)
	if has && (strings.EqualFold(proto, "icmp") || proto == "1") {
		query.Set("icmpType", number)
	} else if has {
		query.Set("port", number)
	}
}

func (x *explained) write(w io.Writer) error {
	var b strings.Builder
	line := func(label, text string) { fmt.Fprintf(&b, "%-10s %s\n", label, escape(text)) }
	line("packet", x.Packet)
	for _, e := range []struct {
		label string
		*end
	}{{"from", x.From}, {"to", x.To}} {
		if e.end != nil {
			line(e.label, fmt.Sprintf("%s (%s) in %s/%s/%s%s%s", e.Vport, e.Address, e.Domain, e.Zone, e.Subnet,
				prefixed(", on host ", e.Host), prefixed(", policy groups ", strings.Join(e.PolicyGroups, ", "))))
		}
	}
	line("verdict", strings.ToUpper(x.Verdict)+": "+x.Reason)
	b.WriteString("\n")
	for i, h := range x.Hops {
		mark := ""
		if h.Dropped {
			mark = "  <- DROPPED"
		}
		line(fmt.Sprintf("%2d %s", i+1, h.Stage), h.Text+mark)
	}
	if x.Replies != nil {
		line("replies", x.Replies.Text)
	}
	for _, s := range x.Switches {
		line("switch", s.Host+": "+s.Text)
		if s.Asked && !s.Agrees {
			for _, f := range s.Flows {
				line("", f)
			}
		}
	}
	line("state", fmt.Sprintf("revision %d", x.Revision))
	if x.Remedy != nil {
		b.WriteString("\n")
		line("remedy", x.Remedy.Text)
		for _, s := range x.Remedy.Steps {
			if s.Command != "" {
				line("", s.Command)
			} else {
				line("", "in a file for nuagectl apply that has all entries of policy "+s.Policy+":")
				line("", s.YAML)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// differences is the error of a switch that does not do what the model says.
func (x *explained) differences() error {
	if !x.Differs {
		return nil
	}
	var hosts []string
	for _, s := range x.Switches {
		if s.Asked && !s.Agrees {
			hosts = append(hosts, s.Host+": "+s.Text)
		}
	}
	return fmt.Errorf("THE SWITCH DOES NOT DO WHAT THE MODEL SAYS:\n  %s\nSee nuagectl status on that host; please report this", strings.Join(hosts, "\n  "))
}
