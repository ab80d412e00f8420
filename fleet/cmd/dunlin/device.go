package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
)

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
}

type slotView struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	Verdict string `json:"verdict"`
	Code    string `json:"code,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Proven  bool   `json:"proven"`
}

// listView is a page of the API.
type listView[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

// all reads every page of a list.
func all[T any](ctx context.Context, c *cli, path string, q url.Values) ([]T, error) {
	api, err := c.api()
	if err != nil {
		return nil, err
	}
	items := []T{}
	for {
		var p listView[T]
		at := path
		if len(q) > 0 {
			at += "?" + q.Encode()
		}
		if err := api.Call(ctx, http.MethodGet, at, nil, &p); err != nil {
			return nil, err
		}
		items = append(items, p.Items...)
		if p.Next == "" {
			return items, nil
		}
		q.Set("after", p.Next)
	}
}

func (c *cli) deviceCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "device", Short: "Enrol, list, label and revoke devices"}
	cmd.AddCommand(c.deviceListCmd(), c.deviceShowCmd(), c.deviceLabelCmd(), c.deviceTokenCmd(), c.deviceRevokeCmd(), c.deviceAcceptCmd(), c.deviceEventsCmd())
	return cmd
}

func (c *cli) deviceListCmd() *cobra.Command {
	var selector, channel string
	cmd := &cobra.Command{
		Use: "list", Short: "List devices", Args: cobra.NoArgs,
		Example: "  dunlin device list -l 'site=harbour,class!=rpi3'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ds, err := all[deviceView](cmd.Context(), c, "/v1/devices", url.Values{"selector": {selector}, "channel": {channel}, "limit": {"1000"}})
			if err != nil {
				return err
			}
			return c.print(ds, func(w io.Writer) {
				fmt.Fprintln(w, "DEVICE\tSTATUS\tCHANNEL\tCLASS\tSEEN\tCERTIFICATE\tPROOF\tRUNS\tLABELS")
				for _, d := range ds {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", d.ID, d.Status, d.Channel, d.Class, d.seen(), d.certificate(time.Now()), dash(d.Proof), d.runs(), pairs(d.Labels))
				}
			})
		},
	}
	cmd.Flags().StringVarP(&selector, "selector", "l", "", "labels and facts, like site=harbour,arch in (arm64)")
	cmd.Flags().StringVar(&channel, "channel", "", "only of this channel")
	return cmd
}

func (d *deviceView) seen() string {
	switch {
	case d.Online:
		return "online"
	case d.LastSeen == nil:
		return "never"
	}
	return age(time.Since(*d.LastSeen)) + " ago"
}

// age is a duration in at most two units.
func age(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24))
}

func (d *deviceView) runs() string {
	var out []string
	for _, m := range d.Models {
		if m.Active != nil {
			out = append(out, m.Model+"@"+m.Active.Version)
		}
	}
	return dash(strings.Join(out, " "))
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

func pairs(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return dash(strings.Join(out, ","))
}

func (c *cli) deviceShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show DEVICE", Short: "Show what a device runs, what it shall run, and why the two differ", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.callDevice(cmd.Context(), http.MethodGet, "/v1/devices/"+url.PathEscape(args[0]), nil)
		},
	}
}

// callDevice calls the API for a device and shows it.
func (c *cli) callDevice(ctx context.Context, method, path string, in any) error {
	api, err := c.api()
	if err != nil {
		return err
	}
	var d deviceView
	if err := api.Call(ctx, method, path, in, &d); err != nil {
		return err
	}
	return c.print(&d, func(w io.Writer) {
		fmt.Fprintf(w, "device\t%s\nstatus\t%s, %s\nchannel\t%s\nclass\t%s\nagent\t%s\nlabels\t%s\nfacts\t%s\nproof\t%s\ncertificate\t%s\n", d.ID, d.Status, d.seen(), d.Channel, d.Class, dash(d.Agent), pairs(d.Labels), pairs(d.Facts), dash(d.Proof), d.certificate(time.Now()))
		d.showRenewal(w)
		d.showServer(w)
		if d.Wish != nil {
			fmt.Fprintf(w, "wish\tgeneration %d, the device has verified %d\n", d.Wish.Generation, d.Generation)
			for _, it := range d.Wish.Items {
				fmt.Fprintf(w, "  shall run\t%s with %s %s\n", it.Path, it.Runtime, it.Rollout)
			}
		}
		for _, m := range d.Models {
			showSlot(w, "  serves", m.Active)
			showSlot(w, "  candidate", m.Candidate)
			if m.Step != "" {
				fmt.Fprintf(w, "  step\t%s\n", m.Step)
			}
		}
	})
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
	fmt.Fprintf(w, "%s\t%s, %s%s%s\n", use, s.Path, s.Verdict, proven, why)
}

func (c *cli) deviceLabelCmd() *cobra.Command {
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

func (c *cli) deviceTokenCmd() *cobra.Command {
	var in struct {
		Channel string            `json:"channel"`
		Labels  map[string]string `json:"labels,omitempty"`
		Max     int               `json:"max"`
		Expires fleet.Duration    `json:"expires"`
	}
	var expires time.Duration
	cmd := &cobra.Command{
		Use: "token", Short: "Make an enrolment token for one device or a batch", Args: cobra.NoArgs,
		Example: "  dunlin device token --max 50 --expires 168h --label site=harbour",
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			in.Expires = fleet.Duration(expires)
			var out struct {
				ID      string    `json:"id"`
				Token   string    `json:"token"`
				Channel string    `json:"channel"`
				Max     int       `json:"max"`
				Expires time.Time `json:"expires"`
			}
			if err := api.Create(cmd.Context(), "/v1/enrol-tokens", "", in, &out); err != nil {
				return err
			}
			return c.print(out, func(w io.Writer) {
				fmt.Fprintf(w, "%s\n  enrolments: %d, channel: %s, until: %s; shown once\n  next: dunlin-agent enroll --token TOKEN, on the device\n", out.Token, out.Max, out.Channel, out.Expires.Format(time.RFC3339))
			})
		},
	}
	cmd.Flags().StringVar(&in.Channel, "channel", "production", "channel that the devices belong to")
	cmd.Flags().IntVar(&in.Max, "max", 1, "how many devices may use it")
	cmd.Flags().DurationVar(&expires, "expires", 24*time.Hour, "for how long")
	cmd.Flags().StringToStringVar(&in.Labels, "label", nil, "labels that the devices get")
	return cmd
}

func (c *cli) deviceRevokeCmd() *cobra.Command {
	return &cobra.Command{
		Use: "revoke DEVICE", Short: "End a device's identity and its sessions", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.callDevice(cmd.Context(), http.MethodPost, "/v1/devices/"+url.PathEscape(args[0])+"/revoke", nil)
		},
	}
}

func (c *cli) deviceEventsCmd() *cobra.Command {
	return &cobra.Command{
		Use: "events DEVICE", Short: "List what happened on a device, the newest first", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			type event struct {
				At     time.Time `json:"at"`
				Type   string    `json:"type"`
				Path   string    `json:"path,omitempty"`
				Code   string    `json:"code,omitempty"`
				Detail string    `json:"detail,omitempty"`
			}
			es, err := all[event](cmd.Context(), c, "/v1/devices/"+url.PathEscape(args[0])+"/events", url.Values{})
			if err != nil {
				return err
			}
			return c.print(es, func(w io.Writer) {
				fmt.Fprintln(w, "AGE\tEVENT\tRELEASE\tCODE\tDETAIL")
				for _, e := range es {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", age(time.Since(e.At)), e.Type, dash(e.Path), dash(e.Code), dash(e.Detail))
				}
			})
		},
	}
}
