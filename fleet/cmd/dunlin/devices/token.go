package devices

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
)

// tokenView is what the API tells of a new token.
type tokenView struct {
	ID       string    `json:"id"`
	Token    string    `json:"token"`
	Channel  string    `json:"channel"`
	Max      int       `json:"max"`
	Expires  time.Time `json:"expires"`
	Hold     bool      `json:"hold,omitempty"`
	Serials  []string  `json:"serials,omitempty"`
	Replaces string    `json:"replaces,omitempty"`
}

func (c *Commands) tokenCmd() *cobra.Command {
	var in struct {
		Channel string            `json:"channel"`
		Labels  map[string]string `json:"labels,omitempty"`
		Max     int               `json:"max,omitempty"`
		Expires fleet.Duration    `json:"expires"`
		Hold    bool              `json:"hold,omitempty"`
		Serials []string          `json:"serials,omitempty"`
	}
	var expires time.Duration
	var serials string
	cmd := &cobra.Command{
		Use: "token", Short: "Make an enrolment token for one device or a batch", Args: cobra.NoArgs,
		Long: "A token lets in whoever has it, until it is used up or expires.\n" +
			"With --hold every device waits until 'dunlin device accept' names its key's fingerprint.\n" +
			"With --serials only devices that tell a listed serial get in, each serial once. A serial is printed\n" +
			"on a box and any program can tell it: it is a list of what is expected, not a secret.",
		Example: "  dunlin device token --max 50 --expires 168h --label site=harbour\n  dunlin device token --serials batch-7.txt --hold",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if in.Max < 1 || expires <= 0 {
				return fleet.ErrBadRequest.With("a token is for at least one device and some time, not %d and %v", in.Max, expires)
			}
			in.Expires = fleet.Duration(expires)
			var err error
			if in.Serials, err = readSerials(serials); err != nil {
				return err
			}
			if len(in.Serials) > 0 && !cmd.Flags().Changed("max") {
				in.Max = len(in.Serials)
			}
			return c.makeToken(cmd.Context(), "/v1/enrol-tokens", in)
		},
	}
	cmd.Flags().StringVar(&in.Channel, "channel", "production", "channel that the devices belong to")
	cmd.Flags().IntVar(&in.Max, "max", 1, "how many devices may use it; with --serials as many as are listed")
	cmd.Flags().DurationVar(&expires, "expires", 24*time.Hour, "for how long")
	cmd.Flags().StringToStringVar(&in.Labels, "label", nil, "labels that the devices get")
	cmd.Flags().BoolVar(&in.Hold, "hold", false, "let nobody in before an operator has accepted the key's fingerprint")
	cmd.Flags().StringVar(&serials, "serials", "", "only these: a,b,c, or a file with one on each line")
	return cmd
}

func (c *Commands) replaceCmd() *cobra.Command {
	var in struct {
		Expires fleet.Duration `json:"expires"`
		Serials []string       `json:"serials,omitempty"`
	}
	var expires time.Duration
	var serial string
	cmd := &cobra.Command{
		Use: "replace DEVICE", Short: "Make a token that gives a device's place to new hardware or a new SD card", Args: cobra.ExactArgs(1),
		Long: "The device that enrols with this token gets the same name, channel and labels, the place in rollouts,\n" +
			"and everything that the name is to run. In the same moment the identity before ends: every copy of it\n" +
			"is shut out, for good. Until then the device goes on as it is.",
		Example: "  dunlin device replace meter-1\n  dunlin-agent enroll --token TOKEN   # on the new one",
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Expires = fleet.Duration(expires)
			if serial != "" {
				in.Serials = []string{serial}
			}
			return c.makeToken(cmd.Context(), path(args[0], "replace"), in)
		},
	}
	cmd.Flags().DurationVar(&expires, "expires", 24*time.Hour, "for how long")
	cmd.Flags().StringVar(&serial, "serial", "", "only the hardware that tells this serial")
	return cmd
}

// makeToken asks for a token and shows it.
func (c *Commands) makeToken(ctx context.Context, path string, in any) error {
	api, err := c.API()
	if err != nil {
		return err
	}
	var out tokenView
	if err := api.Create(ctx, path, "", in, &out); err != nil {
		return err
	}
	return c.Print(out, func(w io.Writer) {
		fmt.Fprintf(w, "%s\n  enrolments: %d, channel: %s, until: %s; shown once\n", out.Token, out.Max, out.Channel, out.Expires.Format(time.RFC3339))
		if out.Replaces != "" {
			fmt.Fprintf(w, "  it gives the place of %s; the identity that has it now ends when it is used\n", out.Replaces)
		}
		if len(out.Serials) > 0 {
			fmt.Fprintf(w, "  only for %d listed serials, each once\n", len(out.Serials))
		}
		fmt.Fprintf(w, "  next: dunlin-agent enroll --token TOKEN, on the device\n")
		if out.Hold {
			fmt.Fprintf(w, "  then: dunlin device accept DEVICE --fingerprint F, with what it prints\n")
		}
	})
}

// readSerials reads a list between commas, or a file with one serial on each line;
// empty lines and what follows a # are left out.
func readSerials(list string) ([]string, error) {
	if list == "" {
		return nil, nil
	}
	f, err := os.Open(list)
	if err != nil {
		if strings.ContainsAny(list, "/\\") { // meant as a file
			return nil, fleet.ErrBadRequest.With("--serials: %v", err)
		}
		return strings.Split(list, ","), nil
	}
	defer f.Close()
	var out []string
	for lines := bufio.NewScanner(f); ; {
		if !lines.Scan() {
			return out, lines.Err()
		}
		line, _, _ := strings.Cut(lines.Text(), "#")
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
}
