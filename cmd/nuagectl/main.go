// Command nuagectl shows and changes the tenant networks of nuage. It is a client of the
// REST API, by default over the unix socket of the plugin on this host, and of nothing
// else: but for doctor, which looks at this host from outside, it never reads the plugin's
// state, the switch or Docker itself.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "devel"

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1 // refused or failed; the reason is on stderr
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the command with everything that it touches but the network and files.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	c := &command{}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	called, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	fmt.Fprintf(errOut, "nuagectl: %s\n", escapeLines(strings.ReplaceAll(err.Error(), "\n\t", "\n  "))) // the library's suggestions
	if usage := (*usageError)(nil); c.started && !errors.As(err, &usage) {
		return exitFailed
	}
	fmt.Fprintf(errOut, "See '%s --help'.\n", called.CommandPath())
	return exitUsage
}

// usageError is a mistake on the command line that only the command itself can see.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// needs is a check for so many arguments, which says what they are.
func needs(n int, say string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usagef("%s", say)
		}
		return nil
	}
}

// command holds the global flags. Until started, an error is one of usage: the library
// refuses flags and arguments with plain errors.
type command struct {
	socket, server string
	started        bool
	client         *client
}

func (c *command) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "nuagectl",
		Short: "Show and change the tenant networks of nuage",
		Example: `  nuagectl status
  nuagectl get subnets --domain App1
  nuagectl apply -f app1.yaml --dry-run`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.PersistentFlags().StringVar(&c.socket, "socket", "/run/nuage/api.sock", "`PATH` of the plugin's socket on this host")
	root.PersistentFlags().StringVar(&c.server, "server", "", "`URL` of a proxy to the socket of a plugin, which serves no TCP port itself")
	root.MarkFlagsMutuallyExclusive("socket", "server")
	token := c.token()
	for _, sub := range append(token.Commands(), c.get(), c.status(), c.apply(), c.export(), c.set(), c.delete(), c.explain(), c.doctor(), c.backup(), c.restore(), c.version()) {
		body := sub.RunE
		sub.RunE = func(cmd *cobra.Command, args []string) (err error) {
			limit, _ := cmd.Flags().GetDuration("wait") // 0 where there is no such flag
			if c.client, err = newClient(c.socket, c.server, patience{limit: limit, since: time.Now(), tell: cmd.ErrOrStderr()}); err != nil {
				return err
			}
			c.started = true
			return body(cmd, args)
		}
		if sub.Name() != "status" && sub.Name() != "doctor" { // which show what is, at once
			sub.Flags().Duration("wait", 10*time.Second, "wait so `LONG` for a plugin that is still starting; 0: do not")
		}
		if !sub.HasParent() {
			root.AddCommand(sub)
		}
	}
	root.AddCommand(token)
	return root
}

func (c *command) version() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show the version of nuagectl and of the plugin",
		Example: "  nuagectl version",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintf(cmd.OutOrStdout(), "nuagectl      %s\n", version)
			var v struct{ Version string }
			if err := c.client.get(cmd.Context(), "/nuage/v1/version", nil, &v); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "nuage-plugin  %s\n", escape(v.Version))
			return nil
		},
	}
}
