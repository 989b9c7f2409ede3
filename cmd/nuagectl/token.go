package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

func (c *command) token() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make tokens by which other hosts join",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.tokenCreate())
	return cmd
}

func (c *command) tokenCreate() *cobra.Command {
	var ttl time.Duration
	var output string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Print a token by which one other host joins this one",
		Long: `Print a token by which one other host joins this one, which must serve (NUAGE_LISTEN).
It is a secret, can be used once, and lapses after its time.`,
		Example: `  nuagectl token create
  nuagectl token create --ttl 10m -o json
  docker plugin set nuage-plugin NUAGE_JOIN=TOKEN    # on the other host, while disabled`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case output != "text" && output != "json":
				return usagef("unknown output %q: it is one of text, json", output)
			case ttl <= 0:
				return usagef("--ttl %s: a token must live for some time, such as 1h", ttl)
			}
			body, err := json.Marshal(map[string]string{"ttl": ttl.String()})
			if err != nil {
				return err
			}
			text, err := c.client.do(cmd.Context(), http.MethodPost, "/nuage/v1/tokens", nil, body)
			if err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), text)
			}
			var made struct{ Token string }
			if err := json.Unmarshal(text, &made); err != nil {
				return fmt.Errorf("answer: %w", err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), escape(made.Token))
			return err
		},
	}
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "how `LONG` the token can be used")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "one of text, json")
	return cmd
}
