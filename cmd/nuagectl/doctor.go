package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// finding is what doctor has seen of one part of the host.
type finding struct {
	Check  string `json:"check"`
	State  string `json:"state"` // ok, note or problem
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"` // what to do about a problem
}

// The states of a finding. A note is no reason to act.
const (
	stateOK      = "ok"
	stateNote    = "note"
	stateProblem = "problem"
)

// doctor looks at this host from outside of the plugin, which may be down or may not see what
// keeps it from working. It changes nothing.
type doctor struct {
	ctx      context.Context
	api      *client
	run      func(program string, args ...string) ([]byte, error)
	status   *status // what the plugin says of itself; nil while it does not answer
	process  process // the plugin's; its ID is 0 if none runs here
	findings []finding
}

func (d *doctor) ok(check, format string, args ...any) {
	d.findings = append(d.findings, finding{check, stateOK, fmt.Sprintf(format, args...), ""})
}

func (d *doctor) note(check, format string, args ...any) {
	d.findings = append(d.findings, finding{check, stateNote, fmt.Sprintf(format, args...), ""})
}

func (d *doctor) problem(check, remedy, format string, args ...any) {
	d.findings = append(d.findings, finding{check, stateProblem, fmt.Sprintf(format, args...), remedy})
}

// examine makes all checks, in the order in which a remedy for one may mend the next.
func (d *doctor) examine() {
	docker := d.checkDocker()
	d.process = findProcess(d.api.name)
	d.checkPlugin(docker)
	d.checkLink()
	d.checkMounts()
	d.checkSwitch()
	d.checkStatus()
	d.checkFleet()
	d.checkCertificates()
	d.checkDisk()
}

func (c *command) doctor() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at this host for what keeps nuage from working",
		Long: `Look at this host from outside of the plugin: Docker and the plugin in it, its sockets and
mounts, Open vSwitch, the bridge and its datapath, the way to other hosts, clocks,
certificates and disk; and say what the plugin says itself (nuagectl status). Nothing is
changed. It needs root. Each problem has a remedy, and if there is one the exit code is 1.`,
		Example: `  nuagectl doctor
  nuagectl doctor -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains([]string{"text", "json", "yaml"}, output) {
				return usagef("unknown output %q: it is one of text, json, yaml", output)
			}
			if c.server != "" {
				return usagef("doctor looks at the host that it runs on, not at --server")
			}
			if os.Geteuid() != 0 {
				return errors.New("doctor looks at what only root may see: run it as root")
			}
			d := &doctor{ctx: cmd.Context(), api: c.client, run: runBounded(cmd.Context())}
			d.examine()
			if err := d.write(cmd.OutOrStdout(), output); err != nil {
				return err
			}
			if n := d.problems(); n > 0 {
				return errors.New(plural(n, "problem"))
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "one of text, json, yaml")
	return cmd
}

// wrong is whether one of these checks has found a problem.
func (d *doctor) wrong(checks ...string) bool {
	return slices.ContainsFunc(d.findings, func(f finding) bool { return f.State == stateProblem && slices.Contains(checks, f.Check) })
}

func (d *doctor) problems() (n int) {
	for _, f := range d.findings {
		if f.State == stateProblem {
			n++
		}
	}
	return n
}

func (d *doctor) write(w io.Writer, output string) error {
	if output != "text" {
		text, err := json.Marshal(d.findings)
		if err != nil {
			return err
		}
		if output == "json" {
			return writeJSON(w, text)
		}
		return writeYAML(w, text)
	}
	var b strings.Builder
	for _, f := range d.findings {
		state := f.State
		if state == stateProblem {
			state = strings.ToUpper(state)
		}
		fmt.Fprintf(&b, "%-8s %-12s %s\n", state, f.Check, escape(f.Text))
		if f.Remedy != "" {
			fmt.Fprintf(&b, "%-8s %-12s remedy: %s\n", "", "", escape(f.Remedy))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// checkStatus repeats what the plugin says itself: it sees its settings, its store and what the
// switch refuses from the inside.
func (d *doctor) checkStatus() {
	if d.status == nil {
		return
	}
	set := "docker plugin disable -f nuage-plugin; docker plugin set nuage-plugin NAME=VALUE; docker plugin enable nuage-plugin"
	if d.process.Daemon {
		set = "write it into /etc/default/nuage-plugin, then " + d.process.anew()
	}
	for _, p := range d.status.Problems {
		part, _, _ := strings.Cut(p, " ")
		switch part = strings.TrimSuffix(part, ":"); {
		case part == "Docker" && d.wrong("docker"), (part == "switch" || part == "agent") && d.wrong("switch", "bridge"):
			// It lacks what has been looked at already.
		case part == "setting":
			d.problem("status", set, "%s", p)
		case part == "store" && d.status.Store.Joined != "":
			d.problem("status", "look at the host that serves, "+d.status.Store.Joined+": whether it can be reached from here, and what nuagectl doctor says there", "%s", p)
		case part == "store" && d.status.Store.Mode == "external":
			d.problem("status", "look at the etcd cluster: etcdctl endpoint health", "%s", p)
		default:
			d.problem("status", "", "%s", p) // which says what to do
		}
	}
	for _, n := range append(d.status.Notes, d.status.Agent.Notes...) {
		d.note("status", "%s", n)
	}
	if len(d.status.Problems) == 0 {
		d.ok("status", "the plugin says that all is well: %s programmed, store revision %d",
			plural(d.status.Agent.Flows, "flow"), d.status.Store.Revision)
	}
}
