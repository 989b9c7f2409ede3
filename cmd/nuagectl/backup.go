package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (c *command) backup() *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE",
		Short: "Write the whole state to a file",
		Long: `Write all that the store has, as of one moment, to a file (- for standard output): tenants,
vports, addresses, hosts, and the authority by which hosts have joined. The file is a secret.
To be run on the host that keeps the store; an etcd cluster has its own tools.`,
		Example: `  nuagectl backup /var/backups/nuage-$(date +%F)`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := c.client.do(cmd.Context(), http.MethodGet, "/nuage/v1/backup", nil, nil)
			if err != nil {
				return err
			}
			if args[0] == "-" {
				_, err := cmd.OutOrStdout().Write(text)
				return err
			}
			return writeSecret(args[0], text)
		},
	}
}

// writeSecret puts a file that only its owner can read in the place of what is there, whole
// or not at all; never in that of a device or a pipe, which a rename would replace.
func writeSecret(name string, text []byte) error {
	if is, err := os.Lstat(name); err == nil && !is.Mode().IsRegular() {
		return fmt.Errorf("%s: it is no regular file; - is standard output", name)
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	return err
}

// maxBackup is what the API takes at once of a backup.
const maxBackup = 128 << 20

// restored is the answer to a restore.
type restored struct {
	Created           time.Time
	Host, Version     string
	Restored, Removed map[string]int
}

func (c *command) restore() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make the state what it was when a backup was made",
		Long: `Put what a file (- for standard input) of nuagectl backup says in the place of the whole state,
all at once. What was made since is gone: each host attaches its containers again where
their network is still there and their address still free. A host that was evicted since stays
locked out, but its vports are there again: evict it again. A file that is damaged, or of another
format, changes nothing.`,
		Example: `  nuagectl restore /var/backups/nuage-2026-01-31 --dry-run
  nuagectl restore /var/backups/nuage-2026-01-31`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readFile(cmd.Context(), cmd.InOrStdin(), args[0], maxBackup, "a backup can be")
			if err != nil {
				return err
			}
			query := url.Values{}
			if dryRun {
				query.Set("dryRun", "true")
			}
			answer, err := c.client.do(cmd.Context(), http.MethodPost, "/nuage/v1/restore", query, text)
			if err != nil {
				return err
			}
			var r restored
			if err := json.Unmarshal(answer, &r); err != nil {
				return fmt.Errorf("answer: %w", err)
			}
			r.report(cmd.OutOrStdout(), dryRun)
			return nil
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be restored and removed, and change nothing")
	return cmd
}

func (r *restored) report(w io.Writer, dryRun bool) {
	would := ""
	if dryRun {
		would = "would be "
	}
	fmt.Fprintf(w, "Backup of %s, host %s, nuage %s.\n", r.Created.UTC().Format("2006-01-02 15:04:05 MST"), escape(r.Host), escape(r.Version))
	fmt.Fprintf(w, "%sas they were: %s\n", would, counts(r.Restored))
	fmt.Fprintf(w, "%sremoved: %s\n", would, counts(r.Removed))
}

// counts are numbers of objects by kind, in words.
func counts(of map[string]int) string {
	var all []string
	for _, kind := range slices.Sorted(maps.Keys(of)) {
		all = append(all, fmt.Sprintf("%d %s", of[kind], escape(kind)))
	}
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, ", ")
}
