package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// status is what the plugin says of itself and of what it works with.
type status struct {
	Problems            []string
	Host, Version, VTEP string
	UptimeSeconds       int64
	Settings            []struct{ Name, Problem string }
	Store               struct {
		Mode      string
		Endpoints []string
		Ready     bool
		Revision  int64
		Following int
		Serving   string
		Joined    string
		Error     string
	}
	Switch struct {
		Bridge, Datapath, Version string
		Connected                 bool
		Ports                     int
		Error                     string
		Tunnel                    struct{ Port, VTEP, Problem string }
	}
	Agent struct {
		Revision int64
		Flows    int
		Notes    []string
		Error    string
	}
	Docker struct {
		Reachable      bool
		Version, Error string
	}
	Endpoints, Networks    int
	HostsKnown, HostsAlive int
	Notes                  []string
}

func (c *command) status() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the plugin on this host is doing",
		Long: `Show how the plugin on this host is doing, as it is at once. If something is wrong, it is
named on standard error and the exit code is 1.`,
		Example: `  nuagectl status
  nuagectl status -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains([]string{"text", "json", "yaml"}, output) {
				return usagef("unknown output %q: it is one of text, json, yaml", output)
			}
			text, err := c.client.do(cmd.Context(), http.MethodGet, "/nuage/v1/status", nil, nil)
			if err != nil {
				return err
			}
			var s status
			if err := json.Unmarshal(text, &s); err != nil {
				return fmt.Errorf("answer: %w", err)
			}
			write := map[string]func() error{
				"text": func() error { return s.write(cmd.OutOrStdout()) },
				"json": func() error { return writeJSON(cmd.OutOrStdout(), text) },
				"yaml": func() error { return writeYAML(cmd.OutOrStdout(), text) },
			}[output]
			if err := write(); err != nil {
				return err
			}
			if n := len(s.Problems); n > 0 {
				return fmt.Errorf("%s:\n  %s", plural(n, "problem"), strings.Join(s.Problems, "\n  "))
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "one of text, json, yaml")
	return cmd
}

func (s *status) write(w io.Writer) error {
	var b strings.Builder
	line := func(label string, parts ...string) {
		var said []string
		for _, p := range parts {
			if p != "" {
				said = append(said, p)
			}
		}
		fmt.Fprintf(&b, "%-11s%s\n", label, escape(strings.Join(said, ", ")))
	}
	line("host", s.Host, prefixed("nuage ", s.Version), "up "+(time.Duration(s.UptimeSeconds)*time.Second).String())
	line("vtep", orElse(s.VTEP, "none"))
	line("bridge", orElse(s.Switch.Bridge, "none"), prefixed("datapath ", s.Switch.Datapath), prefixed("Open vSwitch ", s.Switch.Version),
		yes(s.Switch.Connected, "connected", "NOT CONNECTED"), plural(s.Switch.Ports, "port"), prefixed("error: ", s.Switch.Error))
	if t := s.Switch.Tunnel; t.Port+t.Problem != "" {
		line("tunnel", orElse(t.Port, "none"), prefixed("local address ", t.VTEP), prefixed("problem: ", t.Problem))
	}
	line("flows", plural(s.Agent.Flows, "flow"), fmt.Sprintf("revision %d", s.Agent.Revision), prefixed("error: ", s.Agent.Error))
	line("store", s.Store.Mode, strings.Join(s.Store.Endpoints, " "), yes(s.Store.Ready, "ready", "NOT READY"),
		fmt.Sprintf("revision %d", s.Store.Revision), "following "+plural(s.Store.Following, "domain"), prefixed("error: ", s.Store.Error))
	if fleet := []string{prefixed("serves other hosts at ", s.Store.Serving), prefixed("joined ", s.Store.Joined), s.hosts()}; strings.Join(fleet, "") != "" {
		line("fleet", fleet...)
	}
	line("docker", prefixed("Docker ", s.Docker.Version), yes(s.Docker.Reachable, "reachable", "NOT REACHABLE"), prefixed("error: ", s.Docker.Error))
	line("endpoints", plural(s.Endpoints, "endpoint"), plural(s.Networks, "network"))
	for _, p := range s.Settings {
		line("setting", p.Name+": "+p.Problem)
	}
	for _, n := range append(s.Notes, s.Agent.Notes...) {
		line("note", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// hosts is empty while they are not known.
func (s *status) hosts() string {
	if s.HostsKnown == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %s alive", s.HostsAlive, plural(s.HostsKnown, "host"))
}

func yes(is bool, then, otherwise string) string {
	if is {
		return then
	}
	return otherwise
}

func orElse(s, empty string) string {
	if s == "" {
		return empty
	}
	return s
}

// prefixed is empty if s is.
func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
