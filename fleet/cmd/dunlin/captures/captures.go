// Package captures holds the commands of dunlin that ask devices for inputs, bring
// them here and erase them.
package captures

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/remote"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/say"
	"github.com/dunlin-edge/dunlin/fleet/web"
)

// Commands is what these commands take from the program.
type Commands struct {
	// Print writes v as JSON, or calls table for people.
	Print func(v any, table func(io.Writer)) error
	// API reaches the server.
	API func() (remote.API, error)
}

// Capture returns 'dunlin capture' with all of its commands.
func (c *Commands) Capture() *cobra.Command {
	cmd := &cobra.Command{Use: "capture", Short: "Ask devices for inputs of a model, within bounds and with a trace"}
	cmd.AddCommand(c.createCmd(), c.listCmd(), c.showCmd(), c.stopCmd(), c.pullCmd())
	return cmd
}

// Data returns 'dunlin data'.
func (c *Commands) Data() *cobra.Command {
	cmd := &cobra.Command{Use: "data", Short: "Erase what was captured"}
	cmd.AddCommand(c.eraseCmd())
	return cmd
}

func (c *Commands) createCmd() *cobra.Command {
	s := fleet.CaptureSpec{}
	var expires string
	cmd := &cobra.Command{
		Use: "create MODEL", Short: "Have devices keep and send inputs of a model", Args: cobra.ExactArgs(1),
		Long: `Have devices keep and send inputs of a model, where the answer meets a condition.

Only devices whose owner allows it (capture: allow in agent.yaml) do; see
docs/capture.md. Everything is erased when the capture expires.`,
		Example: "  dunlin capture create meter-digits --where 'feedback=wrong or score<0.5' --max 500 --mb-per-device 5 --expires 7d --to site=harbour",
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			s.Model = args[0]
			if s.Hours, err = hours(expires); err != nil {
				return err
			}
			api, err := c.API()
			if err != nil {
				return err
			}
			var v web.CaptureView
			if err := api.Create(cmd.Context(), "/v1/captures", "", s, &v); err != nil {
				return err
			}
			return c.show(&v)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&s.Where, "where", "", "condition over feedback, class, score, entropy, latency")
	flags.Int64Var(&s.Max, "max", 500, "samples of all devices together")
	flags.Int64Var(&s.MBPerDevice, "mb-per-device", 5, "inputs of one device, in MiB")
	flags.StringVar(&expires, "expires", "7d", "when it ends and everything is erased: 12h, 7d, at most 90d")
	flags.StringVar(&s.Selector, "to", "", "selector of devices; all without it")
	cmd.MarkFlagRequired("where") // the flag is there
	return cmd
}

// hours reads 12h or 7d.
func hours(s string) (int, error) {
	bad := &fleet.Error{Code: "usage.flag", Message: fmt.Sprintf("--expires %q is not understood", s), Next: "write it like 12h or 7d"}
	number, days := strings.CutSuffix(s, "d")
	if !days {
		var ok bool
		if number, ok = strings.CutSuffix(s, "h"); !ok {
			return 0, bad
		}
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > 10_000 {
		return 0, bad
	}
	if days {
		n *= 24
	}
	return n, nil
}

func (c *Commands) listCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List captures, the newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.API()
			if err != nil {
				return err
			}
			vs, err := remote.All[web.CaptureView](cmd.Context(), api, "/v1/captures", url.Values{})
			if err != nil {
				return err
			}
			return c.Print(vs, func(w io.Writer) {
				fmt.Fprintln(w, "CAPTURE\tMODEL\tSTATUS\tSAMPLES\tBYTES\tENDS\tTO\tWHERE")
				for _, v := range vs {
					fmt.Fprintf(w, "%s\t%s\t%s\t%d of %d\t%d\t%s\t%s\t%s\n", v.ID, say.Plain(v.Spec.Model), v.Status, v.Samples, v.Spec.Max, v.Bytes, v.Expires.Format(time.RFC3339), to(&v), say.Plain(v.Spec.Where))
				}
			})
		},
	}
}

func to(v *web.CaptureView) string {
	if v.Spec.Selector == "" {
		return "all"
	}
	return say.Plain(v.Spec.Selector)
}

func (c *Commands) showCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show CAPTURE", Short: "Show a capture and what devices brought to it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.ask(cmd, http.MethodGet, args[0], "") },
	}
}

func (c *Commands) stopCmd() *cobra.Command {
	return &cobra.Command{
		Use: "stop CAPTURE", Short: "Have no more inputs kept; what was captured stays until the capture ends", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return c.ask(cmd, http.MethodPost, args[0], "/stop") },
	}
}

func (c *Commands) ask(cmd *cobra.Command, method, id, act string) error {
	api, err := c.API()
	if err != nil {
		return err
	}
	var v web.CaptureView
	if err := api.Call(cmd.Context(), method, "/v1/captures/"+url.PathEscape(id)+act, nil, &v); err != nil {
		return err
	}
	return c.show(&v)
}

func (c *Commands) show(v *web.CaptureView) error {
	return c.Print(v, func(w io.Writer) {
		fmt.Fprintf(w, "capture\t%s\nmodel\t%s\nwhere\t%s\nto\t%s\nstatus\t%s\nmade by\t%s\nends\t%s\n", v.ID, say.Plain(v.Spec.Model), say.Plain(v.Spec.Where), to(v), v.Status, v.By, v.Expires.Format(time.RFC3339))
		fmt.Fprintf(w, "samples\t%d of %d\nbytes\t%d, at most %d MiB of a device\n", v.Samples, v.Spec.Max, v.Bytes, v.Spec.MBPerDevice)
		if v.Refused > 0 {
			fmt.Fprintf(w, "refused\t%d records beyond these bounds\n", v.Refused)
		}
		for _, d := range v.Devices {
			fmt.Fprintf(w, "device\t%s: %d samples, %d bytes, last %s\n", d.Device, d.Samples, d.Bytes, d.Last.Format(time.RFC3339))
		}
	})
}

func (c *Commands) eraseCmd() *cobra.Command {
	var e fleet.Erase
	cmd := &cobra.Command{
		Use: "erase", Short: "Erase what was captured from a device, or a whole capture", Args: cobra.NoArgs,
		Example: "  dunlin data erase --device meter-17\n  dunlin data erase --capture cap_01J…",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (e.Device == "") == (e.Capture == "") {
				return &fleet.Error{Code: "usage.flag", Message: "--device or --capture is wanted", Next: "run 'dunlin data erase --help'"}
			}
			api, err := c.API()
			if err != nil {
				return err
			}
			var out web.Erased
			if err := api.Call(cmd.Context(), http.MethodPost, "/v1/data/erase", e, &out); err != nil {
				return err
			}
			return c.Print(out, func(w io.Writer) { fmt.Fprintf(w, "%d samples are erased\n", out.Samples) })
		},
	}
	cmd.Flags().StringVar(&e.Device, "device", "", "everything that this device sent")
	cmd.Flags().StringVar(&e.Capture, "capture", "", "a capture, with all that came of it")
	return cmd
}
