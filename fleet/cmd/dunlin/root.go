package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/captures"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/devices"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/remote"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/say"
	"github.com/dunlin-edge/dunlin/fleet/pack"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// cli is what every command shares: where to read and write, and the global
// options.
type cli struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string

	output string // "table" or "json"
	server string // https://host:8443
	token  string
	ca     string // path of the server's CA certificate
}

// exitError ends the program with a code of its own, with nothing left to say.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// run carries out one command and returns the program's exit code: 0, 1 for an
// error, or what the command chose.
func (c *cli) run(ctx context.Context, args []string) int {
	root := c.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	default:
		c.printError(err)
		return 1
	}
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "dunlin",
		Short:         "Ship signed models to devices, and take them back",
		Version:       fleet.Version,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if c.output != "table" && c.output != "json" {
				return &fleet.Error{Code: "usage.output", Message: fmt.Sprintf("-o %s is not known", c.output), Next: "pass -o table or -o json"}
			}
			return nil
		},
	}
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	flags := root.PersistentFlags()
	flags.StringVarP(&c.output, "output", "o", "table", "table for people, json for programs")
	flags.StringVar(&c.server, "server", c.getenv("DUNLIN_SERVER"), "address of the server, https://host:8443 (DUNLIN_SERVER)")
	flags.StringVar(&c.token, "token", "", "access token (DUNLIN_TOKEN)")
	flags.StringVar(&c.ca, "ca", c.getenv("DUNLIN_CA"), "file with the server's CA certificate (DUNLIN_CA)")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &fleet.Error{Code: "usage.flag", Message: err.Error(), Next: "run '" + cmd.CommandPath() + " --help'"}
	})
	root.AddCommand(c.keysCmd(), c.modelCmd(), (&devices.Commands{Print: c.print, API: c.api}).Command(), c.rolloutCmd(), c.usbCmd(), c.accessCmd(), c.alarmsCmd())
	inputs := &captures.Commands{Print: c.print, API: c.api}
	root.AddCommand(inputs.Capture(), inputs.Data())
	return root
}

// accessToken is the token of the option or the environment; it is no default of
// the option, so that --help never prints it.
func (c *cli) accessToken() string {
	if c.token != "" {
		return c.token
	}
	return c.getenv("DUNLIN_TOKEN")
}

// printError writes what went wrong, its code and the next step.
func (c *cli) printError(err error) {
	var outward *fleet.Error
	var refused *bundle.Error
	switch {
	case errors.As(err, &outward):
		fmt.Fprintf(c.err, "error: %s (%s)\n", say.Plain(outward.Message), outward.Code)
		if outward.Next != "" {
			fmt.Fprintf(c.err, "  next: %s\n", say.Plain(outward.Next))
		}
	case errors.As(err, &refused):
		fmt.Fprintf(c.err, "error: %s (%s)\n  next: %s\n", refused.Message, refused.Code, "pack the bundle again, or fetch it anew from where it came")
	default:
		fmt.Fprintf(c.err, "error: %s\n", err)
	}
}

// print writes v as JSON, or calls table for people.
func (c *cli) print(v any, table func(w io.Writer)) error {
	if c.output == "json" {
		e := json.NewEncoder(c.out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	w := tabwriter.NewWriter(c.out, 0, 8, 2, ' ', 0)
	table(w)
	return w.Flush()
}

// asker puts questions to the person at the terminal; nil if nobody is there.
func (c *cli) asker() pack.Asker {
	f, ok := c.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || c.output == "json" {
		return nil
	}
	return pack.Terminal{In: bufio.NewReader(c.in), Out: c.err}
}

func (c *cli) api() (remote.API, error) {
	p, err := c.publisher()
	return remote.API{Client: p}, err
}

// all reads every page of a list.
func all[T any](ctx context.Context, c *cli, path string, q url.Values) ([]T, error) {
	api, err := c.api()
	if err != nil {
		return nil, err
	}
	return remote.All[T](ctx, api, path, q)
}
