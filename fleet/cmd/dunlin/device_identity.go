package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

// certificate is how long the device's certificate is good, or what it waits for.
func (d *deviceView) certificate(now time.Time) string {
	switch {
	case d.Renewal != nil && d.Renewal.Waits:
		return "renew.pending"
	case d.Expires == nil:
		return "–"
	case !now.Before(*d.Expires):
		return "expired " + age(now.Sub(*d.Expires)) + " ago"
	}
	return age(d.Expires.Sub(now)) + " left"
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
	fmt.Fprintf(w, "server\t%s, trusts %d CA%s%s\n", dash(v.Address), max(v.CAs, 1), map[bool]string{true: "s"}[v.CAs > 1], told)
	if v.Trouble != "" {
		fmt.Fprintf(w, "  not where it shall be\t%s\n  next\tit looks again by itself; mend the name, or take it back with 'dunlin-fleet name change'\n", v.Trouble)
	}
}

func (c *cli) deviceAcceptCmd() *cobra.Command {
	var in struct {
		Fingerprint string `json:"fingerprint,omitempty"`
	}
	cmd := &cobra.Command{
		Use: "accept DEVICE", Short: "Let through what of a device waits for an operator", Args: cobra.ExactArgs(1),
		Long: "Accept lets through the renewal of a certificate that expired more than 30 days ago.\n" +
			"Compare the fingerprint with the one that 'dunlin device show' prints, if in doubt at the device.",
		Example: "  dunlin device accept meter-1 --fingerprint 3f1c…",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.callDevice(cmd.Context(), http.MethodPost, "/v1/devices/"+url.PathEscape(args[0])+"/accept", in)
		},
	}
	cmd.Flags().StringVar(&in.Fingerprint, "fingerprint", "", "of the key that is expected")
	return cmd
}
