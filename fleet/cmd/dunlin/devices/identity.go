package devices

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/say"
)

// certificate is how long the device's certificate is good, or what it waits for.
func (d *deviceView) certificate(now time.Time) string {
	switch {
	case d.Status == fleet.DevicePending:
		return "enrol.pending"
	case d.Status == fleet.DeviceRevoked || d.Status == fleet.DeviceRetired:
		return "refused"
	case d.Renewal != nil && d.Renewal.Waits:
		return "renew.pending"
	case d.Expires == nil:
		return "–"
	case !now.Before(*d.Expires):
		return "expired " + say.Age(now.Sub(*d.Expires)) + " ago"
	}
	return say.Age(d.Expires.Sub(now)) + " left"
}

// showRenewal says what is to be done about a renewal.
func (d *deviceView) showRenewal(w io.Writer) {
	r := d.Renewal
	switch {
	case r == nil:
	case r.Waits:
		fmt.Fprintf(w, "renewal\tits certificate expired long ago: it waits for an operator (renew.pending)\n  next key\t%s\n  next\tdunlin device accept %s --fingerprint %s\n", r.Fingerprint, d.ID, r.Fingerprint)
	default:
		fmt.Fprintf(w, "renewal\tthe device has its next certificate and is about to come with it\n  next key\t%s\n", r.Fingerprint)
	}
}

// serverView is how the device knows its server, once that has changed.
type serverView struct {
	Address string `json:"address"`
	Trouble string `json:"trouble,omitempty"`
	CAs     int    `json:"cas"`
	Newest  bool   `json:"newest"`
}

// showServer says which of the server's addresses the device uses, and why.
func (d *deviceView) showServer(w io.Writer) {
	v := d.Server
	if v == nil {
		return
	}
	told := ""
	if !v.Newest {
		told = "; it does not hold yet what changed"
	}
	fmt.Fprintf(w, "server\t%s, trusts %d CA%s%s\n", say.Dash(say.Plain(v.Address)), max(v.CAs, 1), map[bool]string{true: "s"}[v.CAs > 1], told)
	if v.Trouble != "" {
		fmt.Fprintf(w, "  not where it shall be\t%s\n  next\tit looks again by itself; mend the name, or take it back with 'dunlin-fleet name change'\n", say.Plain(v.Trouble))
	}
}

// formerView is an identity that the name had before.
type formerView struct {
	Fingerprint string    `json:"fingerprint"`
	Since       time.Time `json:"since"`
	Ended       time.Time `json:"ended"`
	How         string    `json:"how"`
	By          string    `json:"by,omitempty"`
}

// alarmView is what is wrong with the device.
type alarmView struct {
	Kind  string    `json:"kind"`
	Since time.Time `json:"since"`
	Text  string    `json:"text"`
	Next  string    `json:"next"`
}

// showIdentity says which key the device is known by, which it was known by before,
// and what is wrong with it.
func (d *deviceView) showIdentity(w io.Writer) {
	key := d.Key
	if len(d.Former) > 0 && d.Former[0].By == d.Key {
		key += ", replaces " + short(d.Former[0].Fingerprint)
	}
	fmt.Fprintf(w, "key\t%s\n", key)
	if d.Status == fleet.DevicePending {
		fmt.Fprintf(w, "  next\tif 'dunlin-agent enroll' prints this key on the device: dunlin device accept %s --fingerprint %s\n  \tif not: dunlin device reject %s\n", d.ID, d.Key, d.ID)
	}
	for _, f := range d.Former {
		fmt.Fprintf(w, "  former key\t%s, %s to %s, %s", short(f.Fingerprint), f.Since.Format(time.DateOnly), f.Ended.Format(time.DateOnly), f.How)
		if f.By != "" {
			fmt.Fprintf(w, ", then %s", short(f.By))
		}
		fmt.Fprintln(w)
	}
	for _, a := range d.Alarms {
		fmt.Fprintf(w, "alarm\t%s (%s), for %s\n  next\t%s\n", say.Plain(a.Text), a.Kind, say.Age(time.Since(a.Since)), say.Plain(a.Next))
	}
}

// short is the beginning of a fingerprint, enough to tell a few apart.
func short(fingerprint string) string { return fingerprint[:min(len(fingerprint), 16)] }

func (c *Commands) acceptCmd() *cobra.Command {
	var in struct {
		Fingerprint string `json:"fingerprint,omitempty"`
	}
	cmd := &cobra.Command{
		Use: "accept DEVICE", Short: "Let through what of a device waits for an operator", Args: cobra.ExactArgs(1),
		Long: "Accept lets in a device that enrolled with a token made with --hold, and lets through the renewal\n" +
			"of a certificate that expired more than 30 days ago. Compare the fingerprint with the one that\n" +
			"'dunlin-agent enroll' prints at the device; for an enrolment it has to be passed.",
		Example: "  dunlin device accept meter-1 --fingerprint 3f1c…",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.callDevice(cmd.Context(), http.MethodPost, path(args[0], "accept"), in)
		},
	}
	cmd.Flags().StringVar(&in.Fingerprint, "fingerprint", "", "of the key that is expected")
	return cmd
}

// path is the API's path of an act on a device.
func path(device, act string) string { return "/v1/devices/" + url.PathEscape(device) + "/" + act }

func (c *Commands) rejectCmd() *cobra.Command {
	return &cobra.Command{
		Use: "reject DEVICE", Short: "Refuse a device that waits to be let in; its key never gets in", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.API()
			if err != nil {
				return err
			}
			if err := api.Call(cmd.Context(), http.MethodPost, path(args[0], "reject"), nil, nil); err != nil {
				return err
			}
			return c.Print(map[string]string{"rejected": args[0]}, func(w io.Writer) {
				fmt.Fprintf(w, "rejected: the key that waited for the name %s is never let in; the name is free\n", args[0])
			})
		},
	}
}

func (c *Commands) revokeCmd() *cobra.Command {
	return &cobra.Command{
		Use: "revoke DEVICE", Short: "End a device's identity and its sessions", Args: cobra.ExactArgs(1),
		Long: "Revoke ends the identity: sessions end within seconds, and its key never gets in again.\n" +
			"The name, its labels and its wish stay; the next key that enrols under it goes on with them.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.callDevice(cmd.Context(), http.MethodPost, path(args[0], "revoke"), nil)
		},
	}
}

func (c *Commands) retireCmd() *cobra.Command {
	return &cobra.Command{
		Use: "retire DEVICE", Short: "End a device for good", Args: cobra.ExactArgs(1),
		Long: "Retire ends the identity like revoke, drops what the device was to run, and takes it out of rollouts.\n" +
			"Its history stays; 'dunlin device list --all' shows it. Its name is given again only by\n" +
			"'dunlin device replace'.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.callDevice(cmd.Context(), http.MethodPost, path(args[0], "retire"), nil)
		},
	}
}
