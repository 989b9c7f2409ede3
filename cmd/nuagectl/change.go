package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// applied is the answer to an apply.
type applied struct {
	Changes []struct{ Op, Kind, Path, Detail string }
	Done    int
}

func (c *command) apply() *cobra.Command {
	var files []string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Bring tenant networks to what a file says",
		Long: `Create what the file names and does not exist yet, and update what differs. Nothing is
deleted but entries of policies: the entries that a file lists of a policy are all that it
is to have, and --dry-run shows which would go. Everything is checked first: a file with a
mistake changes nothing.`,
		Example: `  nuagectl apply -f app1.yaml
  nuagectl apply -f app1.yaml --dry-run
  nuagectl export App1 | sed s/App1/App2/ | nuagectl apply -f -`,
		Args: needs(0, "the file goes behind -f: nuagectl apply -f FILE"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) != 1 {
				return usagef("-f is given %d times: several files are applied one by one, or as one with --- between them", len(files))
			}
			text, err := readFile(cmd.Context(), cmd.InOrStdin(), files[0], maxFile, "can be applied at once: split it, for example by domain")
			if err != nil {
				return err
			}
			query := url.Values{}
			if dryRun {
				query.Set("dryRun", "true")
			}
			answer, err := c.client.do(cmd.Context(), http.MethodPost, "/nuage/v1/apply", query, text)
			switch refused := (*refusal)(nil); {
			case errors.Is(err, context.Canceled) && !dryRun:
				return errors.New("interrupted: some of the changes may be made; apply the file again to make the rest")
			case err != nil && !errors.As(err, &refused):
				return err
			}
			var a applied
			if jsonErr := json.Unmarshal(answer, &a); jsonErr != nil {
				return fmt.Errorf("answer: %w", jsonErr)
			}
			return a.report(cmd.OutOrStdout(), dryRun, err)
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "`FILE` to apply, or - for standard input")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be changed, and change nothing")
	_ = cmd.MarkFlagRequired("filename") // the flag is there
	return cmd
}

// maxFile is what the API takes at once.
const maxFile = 8 << 20

// readFile reads a file, or standard input for as long as ctx lasts; one of more than most
// bytes is refused with what can be said of that.
func readFile(ctx context.Context, in io.Reader, name string, most int, say string) ([]byte, error) {
	what := name
	if name == "-" {
		what = "standard input"
	} else {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	type result struct {
		text []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		text, err := io.ReadAll(io.LimitReader(in, int64(most)+1))
		read <- result{text, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-read:
		switch path := (*fs.PathError)(nil); {
		case errors.As(r.err, &path):
			return nil, fmt.Errorf("%s: %w", what, path.Err)
		case r.err != nil:
			return nil, fmt.Errorf("%s: %w", what, r.err)
		case len(r.text) > most:
			return nil, fmt.Errorf("%s: it is larger than the %d MB that %s", what, most>>20, say)
		}
		return r.text, nil
	}
}

// report says what was changed, up to an error in the midst of it.
func (a *applied) report(w io.Writer, dryRun bool, err error) error {
	shown := a.Changes[:min(a.Done, len(a.Changes))]
	if dryRun {
		shown = a.Changes
	}
	for _, ch := range shown {
		noun := strings.TrimSuffix(ch.Kind, "s")
		if k, err := findKind(ch.Kind); err == nil {
			noun = k.singular()
		}
		line := fmt.Sprintf("%s %s %s", ch.Op, noun, ch.Path)
		if ch.Detail != "" {
			line += ": " + ch.Detail
		}
		fmt.Fprintln(w, escape(line))
	}
	switch n := len(a.Changes); {
	case err != nil && n > 0:
		return fmt.Errorf("%w\n%d of %d changes are made; apply the file again to make the rest", err, a.Done, n)
	case err != nil:
		return err
	case n == 0:
		fmt.Fprintln(w, "Nothing to change.")
	case dryRun:
		fmt.Fprintf(w, "%s would be made.\n", plural(n, "change"))
	default:
		fmt.Fprintf(w, "%s made.\n", plural(n, "change"))
	}
	return nil
}

func (c *command) export() *cobra.Command {
	var enterprise string
	cmd := &cobra.Command{
		Use:   "export [DOMAIN]",
		Short: "Print tenant networks as a file for apply",
		Example: `  nuagectl export > all.yaml
  nuagectl export App1 --enterprise DCEnterprise`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := place{enterprise: enterprise, domain: strings.Join(args, "")}
			text, err := c.client.do(cmd.Context(), http.MethodGet, "/nuage/v1/export", in.query(""), nil)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text) // YAML has what does not print in quotes and escaped
			return err
		},
	}
	cmd.Flags().StringVarP(&enterprise, "enterprise", "e", "", "only the enterprise of this `NAME`")
	return cmd
}

func (c *command) delete() *cobra.Command {
	var in place
	var force bool
	cmd := &cobra.Command{
		Use:   "delete KIND NAME",
		Short: "Delete an object, or evict a host",
		Long: `Delete the object of that name or ID. What still contains something, and what a policy
or a rate limiter names, is refused. A policy goes with its entries.

A host is evicted for good: its vports, addresses and networks are freed. That is refused
while the host is alive, unless --force is given.`,
		Example: `  nuagectl delete subnet PrivateSubnet --domain App1 --zone DockerZone
  nuagectl delete enterprise DCEnterprise
  nuagectl delete entry web-to-db/20
  nuagectl delete ratelimiter "zone DockerZone ingress"
  nuagectl delete host node3`,
		Args:              needs(2, "say what to delete: nuagectl delete KIND NAME"),
		ValidArgsFunction: completeKind,
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := findKind(args[0])
			switch {
			case err != nil:
				return err
			case k.keep != "":
				return usagef("%s are removed by %s, not by nuagectl", k.name, k.keep)
			case k.name == "hosts":
				err = c.evict(cmd, args[1], force)
			case force:
				return usagef("--force is for hosts only")
			default:
				err = c.remove(cmd, k, args[1], in)
			}
			if err == nil {
				fmt.Fprintf(cmd.OutOrStdout(), "%s %s deleted.\n", k.singular(), escape(args[1]))
			}
			return err
		},
	}
	in.flags(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "evict a host although it is alive: its containers lose their network")
	return cmd
}

func (c *command) remove(cmd *cobra.Command, k kind, name string, in place) error {
	o, err := c.resolve(cmd, k, in, name)
	if err != nil {
		return err
	}
	path := k.name
	if k.path != nil {
		path = k.path(o)
	}
	_, err = c.client.do(cmd.Context(), http.MethodDelete, "/nuage/api/v6/"+path+"/"+url.PathEscape(o.text("id")), nil, nil)
	return err
}

func (c *command) evict(cmd *cobra.Command, host string, force bool) error {
	query := url.Values{}
	if force {
		query.Set("force", "true")
	}
	_, err := c.client.do(cmd.Context(), http.MethodDelete, "/nuage/v1/hosts/"+url.PathEscape(host), query, nil)
	if refused := (*refusal)(nil); errors.As(err, &refused) && refused.status == http.StatusConflict && !force {
		return fmt.Errorf("%w\n--force evicts it all the same: its containers lose their network, and their addresses are free for others", err)
	}
	return err
}

// Docker tells a container's name a moment after it has started it: a script that names
// what it has just started is right all the same.
const (
	nameTries = 10
	nameEvery = 100 * time.Millisecond
)

// resolve is the only object meant.
func (c *command) resolve(cmd *cobra.Command, k kind, in place, name string) (object, error) {
	var list []object
	for n := 0; len(list) == 0 && (n == 0 || k.name == "vports" && n < nameTries); n++ {
		if n > 0 {
			time.Sleep(nameEvery)
		}
		if err := c.client.get(cmd.Context(), "/nuage/v1/"+k.name, in.query(name), &list); err != nil {
			return nil, err
		}
	}
	switch len(list) {
	case 0:
		return nil, fmt.Errorf("%s %s not found%s", k.singular(), name, in.words())
	case 1:
		return list[0], nil
	}
	var where []string
	for _, o := range list {
		var path []string
		for _, p := range []string{"enterprise", "domain", "zone", "subnet"} {
			if v := o.text(p); v != "" {
				path = append(path, v)
			}
		}
		what := strings.Join(append(path, name), "/")
		for _, p := range []string{"ipv4", "host"} { // of a vport, whose name another may have
			if v := o.text(p); v != "" {
				what += " " + v
			}
		}
		where = append(where, fmt.Sprintf("  %s (%s)", what, o.text("id")))
	}
	return nil, fmt.Errorf("there are %d %s called %s; say which by --enterprise, --domain, --zone, --subnet, or by its ID:\n%s",
		len(list), k.name, name, strings.Join(where, "\n"))
}
