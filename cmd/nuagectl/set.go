package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

// settings are what can be set of a vport, and whether it is a list.
var settings = map[string]bool{"policyGroups": true, "addressSpoofing": false, "virtualIPs": true}

const settingNames = "policyGroups, addressSpoofing, virtualIPs"

func (c *command) set() *cobra.Command {
	var in place
	cmd := &cobra.Command{
		Use:   "set vport NAME KEY=VALUE...",
		Short: "Change a vport: its policy groups, and what it may send from",
		Long: `Change the vport of that name or ID, or that of a container, at once and while it runs.

  policyGroups=A,B           it is in these groups, and in no others; nothing behind the =
                             takes it out of all
  addressSpoofing=ENABLED    it may send from any address; DISABLED: only from its own and
                             its virtual IPs
  virtualIPs=IP,IP@MAC       it may also send from these, with its own MAC or that given;
                             nothing behind the = takes all away

Setting what is set already changes nothing, and says so.`,
		Example: `  nuagectl set vport web-1 policyGroups=web,db
  nuagectl set vport lb-1 virtualIPs=10.85.85.9,10.85.85.10@02:00:00:00:00:0a addressSpoofing=DISABLED`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 3 {
				return usagef("say what to set: nuagectl set vport NAME KEY=VALUE...; the keys are %s", settingNames)
			}
			return nil
		},
		ValidArgsFunction: completeKind,
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := findKind(args[0])
			if err != nil {
				return err
			}
			if k.name != "vports" {
				return usagef("of %s nothing can be set here: change them by nuagectl apply", k.name)
			}
			change, err := parseSettings(args[2:])
			if err != nil {
				return err
			}
			o, err := c.resolve(cmd, k, in, args[1])
			if err != nil {
				return err
			}
			body, err := json.Marshal(change)
			if err != nil {
				return err
			}
			text, err := c.client.do(cmd.Context(), http.MethodPatch, "/nuage/v1/vports/"+url.PathEscape(o.text("id")), nil, body)
			if err != nil {
				return err
			}
			var said struct{ Changed bool }
			if err := json.Unmarshal(text, &said); err != nil {
				return fmt.Errorf("answer: %w", err)
			}
			if !said.Changed {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "Nothing to change.")
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "vport %s changed.\n", escape(args[1]))
			return err
		},
	}
	in.flags(cmd)
	return cmd
}

// parseSettings reads KEY=VALUE.
func parseSettings(args []string) (map[string]any, error) {
	change := map[string]any{}
	for _, arg := range args {
		name, value, cut := strings.Cut(arg, "=")
		list, known := settings[name]
		switch {
		case !cut:
			return nil, usagef("%q is not KEY=VALUE", arg)
		case !known:
			return nil, usagef("unknown key %q: it is one of %s", name, settingNames)
		case change[name] != nil:
			return nil, usagef("%s is given twice", name)
		case !list:
			change[name] = value
		case value == "":
			change[name] = []string{}
		default:
			change[name] = strings.Split(value, ",")
		}
	}
	return change, nil
}
