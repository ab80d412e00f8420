package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet/fleetd"
)

// place is what every command about the server's face wants.
type place struct {
	dir, output string
	force       bool
}

func (p *place) flags(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&p.dir, "dir", fleetd.DefaultDir, "directory of the server")
	cmd.Flags().StringVarP(&p.output, "output", "o", "", "json: for programs")
	return cmd
}

func (p *place) forced(cmd *cobra.Command, what string) *cobra.Command {
	cmd.Flags().BoolVar(&p.force, "force", false, what)
	return p.flags(cmd)
}

// show writes a result as JSON, or has people write it.
func (p *place) show(w io.Writer, v any, people func(io.Writer) error) error {
	if p.output == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	return people(w)
}

func caCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ca", Short: "Change the server's CA while devices follow: rotate, switch, retire",
		Long: "A CA is changed in three steps, each of which waits for the devices: 'rotate' makes the new one, which\n" +
			"devices learn from the server; 'switch' has it issue; 'retire' ends the former one when no certificate\n" +
			"hangs on it. 'status' says how far devices are, and by name which are waited for. A server that serves\n" +
			"takes each step in within a second.",
		Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	status, rotate, change, retire := &place{}, &place{}, &place{}, &place{}
	cmd.AddCommand(
		status.flags(&cobra.Command{Use: "status", Short: "Show the CAs, and how many devices know each and hang on it", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			return status.cas(cmd, func(ctx context.Context) (*fleetd.CAStatus, error) { return fleetd.CAs(ctx, status.dir) })
		}}),
		rotate.flags(&cobra.Command{Use: "rotate", Short: "Make the next CA; devices learn it, nothing else changes", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			return rotate.cas(cmd, func(ctx context.Context) (*fleetd.CAStatus, error) {
				return fleetd.RotateCA(ctx, rotate.dir, time.Now())
			})
		}}),
		change.forced(&cobra.Command{Use: "switch", Short: "Have the newest CA issue certificates, the server's own among them", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			return change.cas(cmd, func(ctx context.Context) (*fleetd.CAStatus, error) {
				return fleetd.SwitchCA(ctx, change.dir, change.force, time.Now())
			})
		}}, "also if devices do not know it yet"),
		retire.forced(&cobra.Command{Use: "retire", Short: "End the former CA", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			return retire.cas(cmd, func(ctx context.Context) (*fleetd.CAStatus, error) {
				return fleetd.RetireCA(ctx, retire.dir, retire.force, time.Now())
			})
		}}, "also if devices need it; they are lost"),
	)
	return cmd
}

func (p *place) cas(cmd *cobra.Command, act func(context.Context) (*fleetd.CAStatus, error)) error {
	s, err := act(cmd.Context())
	if err != nil {
		return err
	}
	return p.show(cmd.OutOrStdout(), s, func(w io.Writer) error {
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "CA\tROLE\tMADE\tEXPIRES\tKNOWN BY\tCERTIFICATES")
		for _, c := range s.CAs {
			role := "accepted"
			if c.Issues {
				role = "issues"
			}
			fmt.Fprintf(t, "%.16s\t%s\t%s\t%s\t%d of %d\t%d\n", c.Fingerprint, role, c.Made.Format(time.DateOnly), c.Expires.Format(time.DateOnly), c.Known, s.Devices, c.Hangs)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		waiting(w, s.Waiting)
		next := "next: " + s.Next
		if cmd.Name() != "status" {
			next += "\n      make a backup: an older one does not know this change"
		}
		_, err := fmt.Fprintln(w, next)
		return err
	})
}

// waiting names the devices that a step waits for.
func waiting(w io.Writer, fs []fleetd.Followed) {
	for _, f := range fs {
		seen := "never seen"
		if !f.LastSeen.IsZero() {
			seen = "last seen " + f.LastSeen.Format(time.RFC3339)
		}
		why := ""
		if f.Trouble != "" {
			why = ": " + f.Trouble
		}
		fmt.Fprintf(w, "waiting for %s, %s%s\n", f.Device, seen, why)
	}
}

func nameCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "name", Short: "Change the server's host name while devices follow: change, finish",
		Long: "'change' gives the server another name: devices are told, try it first and stay at the former one until it\n" +
			"works, so a name that is wrong strands nobody. 'finish' drops the former names when every device uses the\n" +
			"new one. 'status' says which device uses which name. A server that serves takes each step in within a second.",
		Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	status, change, finish := &place{}, &place{}, &place{}
	cmd.AddCommand(
		status.flags(&cobra.Command{Use: "status", Short: "Show the server's names and how many devices use each", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			return status.names(cmd, func(ctx context.Context) (*fleetd.NameStatus, error) { return fleetd.Names(ctx, status.dir) })
		}}),
		change.flags(&cobra.Command{Use: "change NEW", Short: "Give the server another host name; the former one stays good", RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage(cmd, "arguments", "the new host name is wanted")
			}
			return change.names(cmd, func(ctx context.Context) (*fleetd.NameStatus, error) {
				return fleetd.Rename(ctx, change.dir, args[0], time.Now())
			})
		}}),
		finish.forced(&cobra.Command{Use: "finish", Short: "Drop the former names", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			return finish.names(cmd, func(ctx context.Context) (*fleetd.NameStatus, error) {
				return fleetd.FinishRename(ctx, finish.dir, finish.force, time.Now())
			})
		}}, "also if devices do not use the new one; they are lost once the former one ends"),
	)
	return cmd
}

func (p *place) names(cmd *cobra.Command, act func(context.Context) (*fleetd.NameStatus, error)) error {
	s, err := act(cmd.Context())
	if err != nil {
		return err
	}
	return p.show(cmd.OutOrStdout(), s, func(w io.Writer) error {
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "NAME\tROLE\tDEVICES")
		fmt.Fprintf(t, "%s\tto be used\t%d of %d\n", s.Name, s.Using[s.Name], s.Devices)
		for _, n := range s.Former {
			fmt.Fprintf(t, "%s\tformer\t%d\n", n, s.Using[n])
		}
		if n := s.Using[""]; n > 0 {
			fmt.Fprintf(t, "–\tas enrolled\t%d\n", n)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		waiting(w, s.Waiting)
		next := "next: none needed"
		if len(s.Former) > 0 {
			next = "next: when every device uses it: 'dunlin-fleet name finish'"
		}
		_, err := fmt.Fprintln(w, next)
		return err
	})
}
