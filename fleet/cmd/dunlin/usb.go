package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/say"
	"github.com/dunlin-edge/dunlin/fleet/lockbox"
)

func (c *cli) usbCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "usb", Short: "Carry updates to devices without a network, and their receipts back"}
	cmd.AddCommand(c.usbExportCmd(), c.usbImportCmd())
	return cmd
}

// exported is what `usb export` tells.
type exported struct {
	ID      string    `json:"id"`
	Expires time.Time `json:"expires"`
	Devices []string  `json:"devices"`
	lockbox.Written
}

func (c *cli) usbExportCmd() *cobra.Command {
	var selector, channel, out string
	var valid time.Duration
	var full bool
	cmd := &cobra.Command{
		Use: "export --selector SELECTOR --out DIR", Short: "Write a lockbox for the devices that a selector matches now", Args: cobra.NoArgs,
		Example: "  dunlin usb export --selector 'site=mine-3' --out /media/stick",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return &fleet.Error{Code: "usage.out", Message: "no folder is named", Next: "pass --out DIR, the folder where the stick is mounted"}
			}
			api, err := c.api()
			if err != nil {
				return err
			}
			in := map[string]any{"selector": selector, "channel": channel, "full": full}
			if valid > 0 {
				in["valid"] = fleet.Duration(valid)
			}
			var x fleet.LockboxExport
			if err := api.Call(cmd.Context(), http.MethodPost, "/v1/usb/exports", in, &x); err != nil {
				return err
			}
			w, err := lockbox.Write(cmd.Context(), out, &x, func(ctx context.Context, digest string) (io.ReadCloser, error) {
				return api.Stream(ctx, "/v1/blobs/"+url.PathEscape(digest))
			})
			if err != nil {
				return err
			}
			e := exported{ID: x.ID, Expires: x.Expires, Devices: []string{}, Written: w}
			for _, d := range x.Devices {
				e.Devices = append(e.Devices, d.Of)
			}
			return c.print(e, func(w io.Writer) {
				fmt.Fprintf(w, "%s for %d devices, valid until %s\n  %d blobs written, %d bytes\n  next: unmount it, and bring it to the devices\n", e.ID, len(e.Devices), e.Expires.Format(time.DateOnly), e.Blobs, e.Bytes)
			})
		},
	}
	cmd.Flags().StringVarP(&selector, "selector", "l", "", "labels and facts, like site=mine-3; empty: every device")
	cmd.Flags().StringVar(&channel, "channel", "", "only of this channel")
	cmd.Flags().StringVar(&out, "out", "", "folder of the stick; 'dunlin' is made in it")
	cmd.Flags().DurationVar(&valid, "valid", 0, "how long it may travel, at most 2160h (default 720h)")
	cmd.Flags().BoolVar(&full, "full", false, "every blob, also those that the devices have")
	return cmd
}

func (c *cli) usbImportCmd() *cobra.Command {
	return &cobra.Command{
		Use: "import DIR", Short: "Bring home the receipts of a lockbox, and enrol devices that ask on it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.api()
			if err != nil {
				return err
			}
			got := []fleet.LockboxReceipt{}
			unanswered := lockbox.Requests(args[0], func(b []byte) ([]byte, error) {
				answer, err := api.Do(cmd.Context(), http.MethodPost, "/v1/enrol", b)
				if err == nil {
					var d struct{ Device string }
					err = json.Unmarshal(answer, &d)
					fmt.Fprintf(c.err, "%s is enrolled; its answer is on the stick\n", d.Device)
				}
				return answer, err
			})
			failed := lockbox.Receipts(args[0], func(b []byte) error {
				answer, err := api.Do(cmd.Context(), http.MethodPost, "/v1/usb/receipts", b)
				if err != nil {
					return err
				}
				var r fleet.LockboxReceipt
				if err := json.Unmarshal(answer, &r); err != nil {
					return err
				}
				got = append(got, r)
				return nil
			})
			err = c.print(got, func(w io.Writer) {
				fmt.Fprintln(w, "DEVICE\tPROOF\tREPORTS\tSAMPLES\tEVENTS\tLOCKBOX")
				for _, r := range got {
					fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%s\n", r.Device, say.Dash(r.Proof), r.Reports, r.Samples, r.Events, say.Dash(r.Lockbox))
				}
			})
			return c.everyError(errors.Join(err, unanswered, failed))
		},
	}
}

// everyError prints each of several errors; one stick carries many receipts.
func (c *cli) everyError(err error) error {
	many, ok := err.(interface{ Unwrap() []error })
	if !ok || len(many.Unwrap()) < 2 {
		return err
	}
	for _, e := range many.Unwrap() {
		if err := c.everyError(e); err != nil && !errors.As(err, new(exitError)) {
			c.printError(err)
		}
	}
	return exitError(1)
}
