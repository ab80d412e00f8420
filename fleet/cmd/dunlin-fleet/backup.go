package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/fleetd"
)

// minPassphrase is the fewest bytes of a passphrase that seals.
const minPassphrase = 8

// passphrase reads what seals the secrets of a backup, from a file or the
// environment: backups are made where nobody sits.
func passphrase(cmd *cobra.Command, file string) ([]byte, error) {
	p := []byte(os.Getenv("DUNLIN_PASSPHRASE"))
	if file != "" {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, usage(cmd, "passphrase", err.Error())
		}
		p = bytes.TrimRight(b, "\r\n")
	}
	if len(p) < minPassphrase {
		return nil, usage(cmd, "passphrase", fmt.Sprintf("a passphrase of at least %d bytes is wanted: pass --passphrase-file or set DUNLIN_PASSPHRASE", minPassphrase))
	}
	return p, nil
}

func backupCmd() *cobra.Command {
	var dir, out, file string
	cmd := &cobra.Command{
		Use: "backup --out FILE", Short: "Write a backup while the server serves: database, configuration, sealed keys, names of blobs", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return usage(cmd, "flag", "--out is missing: the file to write")
			}
			p, err := passphrase(cmd, file)
			if err != nil {
				return err
			}
			m, err := fleetd.Backup(cmd.Context(), dir, out, p, time.Now())
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			var bytes int64
			for _, b := range m.Blobs {
				bytes += max(b.Size, 0)
				if b.Size < 0 {
					fmt.Fprintf(w, "blob %s is missing on this server\n", b.Digest)
				}
			}
			fmt.Fprintf(w, "backup of %s in %s\n%d blobs, %d bytes, are named in it and not contained: copy '%s/blobs' too\nnext: keep the passphrase elsewhere; try it with 'dunlin-fleet restore --from %s --dir NEW --blobs %s/blobs'\n",
				m.Server, out, len(m.Blobs), bytes, dir, out, dir)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", fleetd.DefaultDir, "directory of the server")
	cmd.Flags().StringVar(&out, "out", "", "file to write; it must not exist")
	cmd.Flags().StringVar(&file, "passphrase-file", "", "file with the passphrase that seals the keys, in place of DUNLIN_PASSPHRASE")
	return cmd
}

func restoreCmd() *cobra.Command {
	var c fleetd.RestoreConfig
	var file string
	cmd := &cobra.Command{
		Use: "restore --from FILE --dir NEW", Short: "Make a server from a backup; devices keep what they run", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.From == "" {
				return usage(cmd, "flag", "--from is missing: the backup")
			}
			if c.Jump < fleet.RestoreJump {
				return usage(cmd, "flag", fmt.Sprintf("--jump is at least %d", fleet.RestoreJump))
			}
			var err error
			if c.Passphrase, err = passphrase(cmd, file); err != nil {
				return err
			}
			r, err := fleetd.Restore(cmd.Context(), c, time.Now())
			w := cmd.OutOrStdout()
			if r != nil {
				for _, d := range r.Missing {
					fmt.Fprintf(w, "missing: blob %s\n", d)
				}
			}
			if err != nil {
				return err
			}
			for _, path := range r.Absent {
				fmt.Fprintf(w, "missing: %s, which 'signatures' in fleet.yaml names: bring it before the server starts\n", path)
			}
			fmt.Fprintf(w, "server %s, backed up at %s, restored in %s\n%d devices keep what they run until they are heard of; %d rollouts are paused\n"+
				"next: end the old server for ever, if it still runs\n      dunlin-fleet serve --dir '%s'\n      dunlin-fleet restore status --dir '%s'\n",
				r.Manifest.Server, r.Manifest.Made.Format(time.RFC3339), c.Dir, r.Devices, r.Rollouts, c.Dir, c.Dir)
			return nil
		},
	}
	cmd.Flags().StringVar(&c.From, "from", "", "the backup")
	cmd.Flags().StringVar(&c.Dir, "dir", fleetd.DefaultDir, "directory of the new server; it must not exist or be empty")
	cmd.Flags().StringVar(&c.Blobs, "blobs", "", "directory 'blobs' of a server, or a copy of one, that has the blobs")
	cmd.Flags().BoolVar(&c.MissingBlobs, "missing-blobs", false, "restore without the blobs that are missing; they are to be uploaded again")
	cmd.Flags().Int64Var(&c.Jump, "jump", fleet.RestoreJump, "by how much versions and generations rise; more when this backup was restored before")
	cmd.Flags().StringVar(&file, "passphrase-file", "", "file with the passphrase of the backup, in place of DUNLIN_PASSPHRASE")
	cmd.AddCommand(restoreStatusCmd())
	return cmd
}

func restoreStatusCmd() *cobra.Command {
	var dir, output string
	cmd := &cobra.Command{
		Use: "status", Short: "What the last restore has left open, by device", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rs, err := fleetd.RestoreStatus(cmd.Context(), dir)
			if err != nil {
				return err
			}
			if output == "json" {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(rs)
			}
			return printRestored(cmd.OutOrStdout(), rs)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", fleetd.DefaultDir, "directory of the server")
	cmd.Flags().StringVarP(&output, "output", "o", "", "json: for programs")
	return cmd
}

func printRestored(w io.Writer, rs []fleet.Restored) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "DEVICE\tSTATE\tRECORDS SINCE THE BACKUP\tRECEIVED AGAIN\tSTILL OUT\tLOST")
	for _, r := range rs {
		state := "not heard of yet"
		if !r.Reconciled.IsZero() {
			state = "reconciled"
		}
		var since, received, open, lost uint64
		for _, x := range r.Records {
			since, received, open, lost = since+x.Last-x.Known, received+x.Received, open+x.Open(), lost+x.Lost
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\n", r.Device, state, since, received, open, lost)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range rs {
		if r.Detail != "" {
			fmt.Fprintf(w, "%s: %s\n", r.Device, r.Detail)
		}
		for _, x := range r.Records {
			if x.Missing != "" {
				fmt.Fprintf(w, "%s: lost %s records of epoch %x: %s\n", r.Device, x.Kind, x.Epoch, x.Missing)
			}
		}
	}
	return nil
}
