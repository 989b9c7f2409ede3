package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// status is what the plugin says of itself and of what it works with.
type status struct {
	Host, Version, VTEP string
	UptimeSeconds       int64
	Settings            []struct{ Name, Problem string }
	Store               struct {
		Mode      string
		Endpoints []string
		Ready     bool
		Revision  int64
		Error     string
	}
	Switch struct {
		Bridge, Datapath, Version string
		Connected                 bool
		Ports                     int
		Error                     string
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
	Endpoints, Networks int
	Notes               []string
}

func (c *command) status() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the plugin on this host is doing",
		Example: `  nuagectl status
  nuagectl status -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := c.client.do(cmd.Context(), http.MethodGet, "/nuage/v1/status", nil, nil)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch output {
			case "json":
				return writeJSON(out, text)
			case "yaml":
				return writeYAML(out, text)
			case "text":
			default:
				return usagef("unknown output %q: it is one of text, json, yaml", output)
			}
			var s status
			if err := json.Unmarshal(text, &s); err != nil {
				return fmt.Errorf("answer: %w", err)
			}
			return s.write(out)
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
	line("flows", plural(s.Agent.Flows, "flow"), fmt.Sprintf("revision %d", s.Agent.Revision), prefixed("error: ", s.Agent.Error))
	line("store", s.Store.Mode, strings.Join(s.Store.Endpoints, " "), yes(s.Store.Ready, "ready", "NOT READY"),
		fmt.Sprintf("revision %d", s.Store.Revision), prefixed("error: ", s.Store.Error))
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
