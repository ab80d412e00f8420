// Command dunlin-fleet is the server: `init` makes one, `serve` runs it, `backup`
// and `restore` bring it back after a loss.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/fleetd"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run carries out one command and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{Use: "dunlin-fleet", Short: "The fleet server", Args: noArgs, SilenceErrors: true, SilenceUsage: true, Version: fleet.Version}
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetArgs(args)
	root.AddCommand(initCmd(), serveCmd(stderr), backupCmd(), restoreCmd(), caCmd(), nameCmd(), keysCmd())
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, "flag", err.Error()) })
	if err := root.ExecuteContext(ctx); err != nil {
		printError(stderr, err)
		return 1
	}
	return 0
}

func usage(cmd *cobra.Command, reason, message string) error {
	return &fleet.Error{Code: "usage." + reason, Message: message, Next: "run '" + cmd.CommandPath() + " --help'"}
}

// noArgs is cobra.NoArgs with a code.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(cmd, "arguments", fmt.Sprintf("%q is not understood", args[0]))
	}
	return nil
}

// printError writes what went wrong, its code and the next step.
func printError(w io.Writer, err error) {
	var outward *fleet.Error
	if !errors.As(err, &outward) {
		fmt.Fprintf(w, "error: %v\n", err)
		return
	}
	fmt.Fprintf(w, "error: %v\n  next: %s\n", outward, outward.Next)
}

func initCmd() *cobra.Command {
	var dir, name string
	cmd := &cobra.Command{
		Use: "init --name HOST", Short: "Make a server: CA, online keys, database, first admin token", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if name == "" {
				return usage(cmd, "flag", "--name is missing: the host name that devices and people use")
			}
			token, err := fleetd.Init(cmd.Context(), dir, name, time.Now())
			if err != nil {
				return err
			}
			abs, err := filepath.Abs(dir)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "server %s made in %s\nfirst admin token, shown once:\n\n  %s\n\n"+
				"for the command line:\n\n  export DUNLIN_SERVER=https://%s:8443\n  export DUNLIN_CA='%s'\n  export DUNLIN_TOKEN='the token above'\n\n"+
				"next: dunlin-fleet serve --dir '%s'\n      dunlin keys init\n",
				name, abs, token, name, filepath.Join(abs, "ca.pem"), abs)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", fleetd.DefaultDir, "directory of the server")
	cmd.Flags().StringVar(&name, "name", "", "host name that devices and people use")
	return cmd
}

func serveCmd(stderr io.Writer) *cobra.Command {
	var dir, api, mqtt, readyFile string
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the server until it is told to stop", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := fleetd.LoadConfig(dir)
			if err != nil {
				return err
			}
			if api != "" {
				c.API = api
			}
			if mqtt != "" {
				c.MQTT = mqtt
			}
			var level slog.Level
			if err := level.UnmarshalText([]byte(c.Log)); err != nil {
				return err // LoadConfig has read it once
			}
			log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
			return fleetd.Run(cmd.Context(), c, log, func(a fleetd.Addresses) error { return writeReady(readyFile, a) })
		},
	}
	cmd.Flags().StringVar(&dir, "dir", fleetd.DefaultDir, "directory of the server")
	cmd.Flags().StringVar(&api, "api", "", "address of API and enrolment, in place of the configured one")
	cmd.Flags().StringVar(&mqtt, "mqtt", "", "address of MQTT, in place of the configured one")
	cmd.Flags().StringVar(&readyFile, "ready-file", "", "write the real addresses to this file as JSON once both are open")
	return cmd
}

// writeReady makes the file appear whole.
func writeReady(path string, a fleetd.Addresses) error {
	if path == "" {
		return nil
	}
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", b, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
