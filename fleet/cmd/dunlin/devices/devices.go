// Package devices holds the commands of dunlin about devices and their identities.
package devices

import (
	"context"
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
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Commands is what these commands take from the program.
type Commands struct {
	// Print writes v as JSON, or calls table for people.
	Print func(v any, table func(io.Writer)) error
	// API reaches the server.
	API func() (remote.API, error)
}

// deviceView is what the API tells of a device.
type deviceView struct {
	ID       string            `json:"id"`
	Status   string            `json:"status"`
	Channel  string            `json:"channel"`
	Class    string            `json:"class"`
	Labels   map[string]string `json:"labels"`
	Facts    map[string]string `json:"facts"`
	Agent    string            `json:"agent"`
	Online   bool              `json:"online"`
	LastSeen *time.Time        `json:"last_seen,omitempty"`
	Expires  *time.Time        `json:"expires,omitempty"`
	Key      string            `json:"fingerprint"`
	Former   []formerView      `json:"former,omitempty"`
	Alarms   []alarmView       `json:"alarms,omitempty"`
	Renewal  *struct {
		Waits       bool      `json:"waits"`
		Fingerprint string    `json:"fingerprint"`
		Asked       time.Time `json:"asked"`
	} `json:"renewal,omitempty"`
	Server     *serverView `json:"server,omitempty"`
	Generation int64       `json:"generation"`
	Proof      string      `json:"proof,omitempty"`
	Models     []struct {
		Model     string    `json:"model"`
		Active    *slotView `json:"active,omitempty"`
		Candidate *slotView `json:"candidate,omitempty"`
		Step      string    `json:"step,omitempty"`
		Rollout   string    `json:"rollout,omitempty"`
	} `json:"models"`
	Wish *struct {
		Generation int64        `json:"generation"`
		Items      []fleet.Item `json:"items"`
	} `json:"wish,omitempty"`
	Refusal *eventView `json:"refusal,omitempty"`
}

// eventView is what the API tells of an event.
type eventView struct {
	At     time.Time `json:"at"`
	Type   string    `json:"type"`
	Model  string    `json:"model,omitempty"`
	Path   string    `json:"path,omitempty"`
	Code   string    `json:"code,omitempty"`
	Detail string    `json:"detail,omitempty"`
	Next   string    `json:"next,omitempty"`
	Times  int       `json:"times,omitempty"`
}

func (e *eventView) times() string {
	if e.Times < 2 {
		return ""
	}
	return fmt.Sprintf(" (%d times)", e.Times)
}

type slotView struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	Verdict string `json:"verdict"`
	Code    string `json:"code,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Proven  bool   `json:"proven"`

	Proof *bundle.Proof `json:"proof,omitempty"`
}

// Command returns 'dunlin device' with all of them.
func (c *Commands) Command() *cobra.Command {
	cmd := &cobra.Command{Use: "device", Short: "Enrol, list, label, replace and retire devices"}
	cmd.AddCommand(c.listCmd(), c.showCmd(), c.labelCmd(), c.eventsCmd(), c.tokenCmd(), c.acceptCmd(), c.rejectCmd(), c.replaceCmd(), c.revokeCmd(), c.retireCmd(), c.whyCmd())
	return cmd
}

func (c *Commands) listCmd() *cobra.Command {
	var selector, channel string
	var retired bool
	cmd := &cobra.Command{
		Use: "list", Short: "List devices", Args: cobra.NoArgs,
		Example: "  dunlin device list -l 'site=harbour,class!=rpi3'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.API()
			if err != nil {
				return err
			}
			ds, err := remote.All[deviceView](cmd.Context(), api, "/v1/devices", url.Values{"selector": {selector}, "channel": {channel}, "all": {strconv.FormatBool(retired)}, "limit": {"1000"}})
			if err != nil {
				return err
			}
			return c.Print(ds, func(w io.Writer) {
				fmt.Fprintln(w, "DEVICE\tSTATUS\tCHANNEL\tCLASS\tSEEN\tCERTIFICATE\tPROOF\tRUNS\tLABELS")
				for _, d := range ds {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.ID, d.Status, d.Channel, say.Plain(d.Class), d.seen(), d.certificate(time.Now()), say.Dash(d.Proof), d.runs(), say.Pairs(d.Labels))
				}
			})
		},
	}
	cmd.Flags().StringVarP(&selector, "selector", "l", "", "labels and facts, like site=harbour,arch in (arm64)")
	cmd.Flags().StringVar(&channel, "channel", "", "only of this channel")
	cmd.Flags().BoolVar(&retired, "all", false, "also the retired ones")
	return cmd
}

func (d *deviceView) seen() string {
	switch {
	case d.Online:
		return "online"
	case d.LastSeen == nil:
		return "never"
	}
	return say.Age(time.Since(*d.LastSeen)) + " ago"
}

func (d *deviceView) runs() string {
	var out []string
	for _, m := range d.Models {
		if m.Active != nil {
			out = append(out, m.Model+"@"+m.Active.Version)
		}
	}
	return say.Dash(say.Plain(strings.Join(out, " ")))
}

func (c *Commands) showCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show DEVICE", Short: "Show what a device runs, what it shall run, and why the two differ", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.callDevice(cmd.Context(), http.MethodGet, "/v1/devices/"+url.PathEscape(args[0]), nil)
		},
	}
}

// callDevice calls the API for a device and shows it.
func (c *Commands) callDevice(ctx context.Context, method, path string, in any) error {
	api, err := c.API()
	if err != nil {
		return err
	}
	var d deviceView
	if err := api.Call(ctx, method, path, in, &d); err != nil {
		return err
	}
	return c.Print(&d, d.show)
}

// show writes what is known of the device; most of it the device has told.
func (d *deviceView) show(w io.Writer) {
	fmt.Fprintf(w, "device\t%s\nstatus\t%s, %s\nchannel\t%s\nclass\t%s\nagent\t%s\nlabels\t%s\nfacts\t%s\nproof\t%s\ncertificate\t%s\n", d.ID, d.Status, d.seen(), d.Channel, say.Plain(d.Class), say.Dash(say.Plain(d.Agent)), say.Pairs(d.Labels), say.Pairs(d.Facts), say.Dash(d.Proof), d.certificate(time.Now()))
	d.showIdentity(w)
	d.showRenewal(w)
	d.showServer(w)
	if d.Wish != nil {
		fmt.Fprintf(w, "wish\tgeneration %d, the device has verified %d\n", d.Wish.Generation, d.Generation)
		for _, it := range d.Wish.Items {
			fmt.Fprintf(w, "  shall run\t%s with %s %s\n", it.Path, it.Runtime, it.Rollout)
		}
	}
	if e := d.Refusal; e != nil {
		fmt.Fprintf(w, "refused\t%s ago%s: %s (%s)\n", say.Age(time.Since(e.At)), e.times(), say.Plain(e.Detail), say.Plain(e.Code))
		if e.Next != "" {
			fmt.Fprintf(w, "next\t%s\n", say.Plain(e.Next))
		}
	}
	for _, m := range d.Models {
		showSlot(w, "  serves", m.Active)
		showSlot(w, "  candidate", m.Candidate)
		if m.Step != "" {
			fmt.Fprintf(w, "  step\t%s\n", say.Plain(m.Step))
		}
	}
}

func showSlot(w io.Writer, use string, s *slotView) {
	if s == nil {
		return
	}
	proven := ""
	if s.Proven {
		proven = ", proven"
	}
	why := ""
	if s.Code != "" {
		why = ": " + s.Reason + " (" + s.Code + ")"
	}
	fmt.Fprintf(w, "%s\t%s\n", use, say.Plain(s.Path+", "+s.Verdict+proven+why))
	for _, line := range s.Proof.Lines() {
		fmt.Fprintf(w, "    showed\t%s\n", say.Plain(line))
	}
}

func (c *Commands) labelCmd() *cobra.Command {
	return &cobra.Command{
		Use: "label DEVICE KEY=VALUE… KEY-…", Short: "Set and remove labels", Args: cobra.MinimumNArgs(2),
		Example: "  dunlin device label meter-1 site=harbour floor=2 spare-",
		RunE: func(cmd *cobra.Command, args []string) error {
			in := struct {
				Set    map[string]string `json:"set,omitempty"`
				Remove []string          `json:"remove,omitempty"`
			}{Set: map[string]string{}}
			for _, a := range args[1:] {
				k, v, ok := strings.Cut(a, "=")
				key, drop := strings.CutSuffix(a, "-")
				switch {
				case ok:
					in.Set[k] = v
				case drop:
					in.Remove = append(in.Remove, key)
				default:
					return fleet.ErrLabel.With("%q is neither KEY=VALUE nor KEY-", a)
				}
			}
			return c.callDevice(cmd.Context(), http.MethodPatch, "/v1/devices/"+url.PathEscape(args[0])+"/labels", in)
		},
	}
}

func (c *Commands) eventsCmd() *cobra.Command {
	return &cobra.Command{
		Use: "events DEVICE", Short: "List what happened on a device, the newest first", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.API()
			if err != nil {
				return err
			}
			es, err := remote.All[eventView](cmd.Context(), api, "/v1/devices/"+url.PathEscape(args[0])+"/events", url.Values{})
			if err != nil {
				return err
			}
			return c.Print(es, func(w io.Writer) {
				fmt.Fprintln(w, "AGE\tEVENT\tRELEASE\tCODE\tDETAIL")
				for _, e := range es {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s%s\n", say.Age(time.Since(e.At)), say.Plain(e.Type), say.Dash(say.Plain(e.Path)), say.Dash(say.Plain(e.Code)), say.Dash(say.Plain(e.Detail)), e.times())
					if e.Next != "" {
						fmt.Fprintf(w, "\t\t\t\tnext: %s\n", say.Plain(e.Next))
					}
				}
			})
		},
	}
}
