package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/amend"
	"github.com/dunlin-edge/dunlin/fleet/publish"
)

func (c *cli) keysCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Hold the ceremony of the offline keys",
		Long: "The roots of trust of a fleet are keys that people hold, not the server. Each holder runs\n" +
			"'keys init', then each runs 'keys sign'; 'keys install' brings the result to the server.",
	}
	cmd.AddCommand(c.amendCmds()...)
	cmd.AddCommand(c.keysInitCmd(), c.keysSignCmd(), c.keysStatusCmd(), c.keysInstallCmd(), c.keysMachineCmd(), c.keysTeamCmd(), c.keysModelSigningCmd())
	return cmd
}

// keyFlags are what several of these commands take.
type keyFlags struct{ dir, holder, passphraseFile string }

func (k *keyFlags) add(cmd *cobra.Command, holder bool) {
	cmd.Flags().StringVar(&k.dir, "dir", "", "folder of the ceremony")
	cmd.MarkFlagRequired("dir")
	if !holder {
		return
	}
	cmd.Flags().StringVar(&k.holder, "holder", "", "name of the person whose keys these are")
	cmd.MarkFlagRequired("holder")
	cmd.Flags().StringVar(&k.passphraseFile, "passphrase-file", "", "file with the passphrase (default DUNLIN_PASSPHRASE, else it is asked for)")
}

func (c *cli) keysInitCmd() *cobra.Command {
	var k keyFlags
	var online string
	conf := publish.JoinConfig{}
	cmd := &cobra.Command{
		Use:   "init --dir DIR --holder NAME",
		Short: "Make one holder's keys; the first call begins the ceremony",
		Example: "  dunlin keys init --dir ceremony --holder alice\n  dunlin keys init --dir ceremony --holder bob\n" +
			"  dunlin keys init --dir ceremony --holder carol",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conf.Dir, conf.Holder, conf.Passphrase = k.dir, k.holder, c.passphrase(k.passphraseFile, k.holder)
			conf.Online = func() (*publish.Online, error) { return c.onlineKeys(cmd, online) }
			cer, err := publish.Join(conf, time.Now())
			if err != nil {
				return err
			}
			return c.printJoined(k.dir, k.holder, cer)
		},
	}
	k.add(cmd, true)
	cmd.Flags().IntVar(&conf.Holders, "holders", 0, "how many people hold keys (default 3)")
	cmd.Flags().IntVar(&conf.Threshold, "threshold", 0, "how many of them must sign (default 2)")
	cmd.Flags().BoolVar(&conf.Practice, "practice", false, "one person holds everything: to try things out only")
	cmd.Flags().StringVar(&conf.RootKey, "root-key", "", "root key that a plug-in holds, as NAME://KEY of sigstore-kms-NAME; left out, one is made")
	cmd.Flags().StringVar(&conf.ReleaseKey, "release-key", "", "release key that a plug-in holds, as NAME://KEY; left out, one is made")
	cmd.Flags().StringVar(&online, "online", "", "file with the answer of the server's /v1/keys/online, if it cannot be reached from here")
	return cmd
}

// onlineKeys are the server's public keys, from a file or from the server.
func (c *cli) onlineKeys(cmd *cobra.Command, file string) (*publish.Online, error) {
	if file == "" {
		client, err := c.publisher()
		if err != nil {
			return nil, err
		}
		return client.Online(cmd.Context())
	}
	b, err := os.ReadFile(file)
	o := &publish.Online{}
	if err == nil {
		err = json.Unmarshal(b, o)
	}
	if err != nil {
		return nil, &fleet.Error{Code: "keys.online", Message: fmt.Sprintf("%s: %v", file, err), Next: "save the answer of the server's /v1/keys/online there"}
	}
	return o, nil
}

func (c *cli) publisher() (*publish.Client, error) {
	return publish.NewClient(publish.ClientConfig{Server: c.server, Token: c.accessToken(), CA: c.ca})
}

func (c *cli) printJoined(dir, holder string, cer *publish.Ceremony) error {
	complete := len(cer.Joined) == cer.Holders
	view := map[string]any{"dir": dir, "holder": holder, "joined": len(cer.Joined), "holders": cer.Holders, "threshold": cer.Threshold, "practice": cer.Practice, "complete": complete}
	return c.print(view, func(w io.Writer) {
		root, release := cer.Where(dir, holder)
		fmt.Fprintf(w, "%s holds %s and %s\n", holder, root, release)
		if complete {
			fmt.Fprintf(w, "every holder (%d) has joined, the drafts are written\nnext: each holder runs 'dunlin keys sign --dir %s --holder NAME'\n", cer.Holders, dir)
		} else {
			fmt.Fprintf(w, "%d of %d holders have joined\nnext: the next holder runs 'dunlin keys init --dir %s --holder NAME'\n", len(cer.Joined), cer.Holders, dir)
		}
	})
}

func (c *cli) keysSignCmd() *cobra.Command {
	var k keyFlags
	var other string
	cmd := &cobra.Command{
		Use:   "sign --dir DIR --holder NAME",
		Short: "Add one holder's signatures to every draft, or to the amendment that is under way",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			path, err := amendment(k.dir)
			if other != "" {
				path = other
			}
			if err != nil {
				return err
			}
			if path != "" {
				return c.signAmendment(&k, path)
			}
			files, err := publish.Sign(k.dir, k.holder, c.passphrase(k.passphraseFile, k.holder))
			if err != nil {
				return err
			}
			return c.print(map[string]any{"holder": k.holder, "signed": append([]string{}, files...)}, func(w io.Writer) {
				if len(files) == 0 {
					fmt.Fprintf(w, "%s had signed everything already\n", k.holder)
					return
				}
				fmt.Fprintf(w, "%s signed %s\n", k.holder, strings.Join(files, ", "))
			})
		},
	}
	k.add(cmd, true)
	cmd.Flags().StringVar(&other, "amendment", "", "`file` of an amendment that came from another folder")
	return cmd
}

func (c *cli) keysStatusCmd() *cobra.Command {
	var k keyFlags
	cmd := &cobra.Command{
		Use:   "status --dir DIR",
		Short: "Show who has signed what, and who is missing",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cer, list, err := publish.Status(k.dir)
			if err != nil {
				return err
			}
			a, signed, err := underWay(k.dir)
			if err != nil {
				return err
			}
			view := map[string]any{"practice": cer.Practice, "threshold": cer.Threshold, "holders": cer.Holders, "files": list, "under_way": signed}
			if cer.Practice && c.output != "json" {
				fmt.Fprintln(c.out, c.red("PRACTICE: one person alone can sign everything; not for devices that matter"))
			}
			now := time.Now()
			return c.print(view, func(w io.Writer) {
				fmt.Fprintln(w, "FILE\tSIGNED BY\tMISSING\tCOULD SIGN\tEXPIRES")
				for i := range list {
					s := &list[i]
					fmt.Fprintf(w, "%s\t%s\t%d of %d\t%s\t%s\n", s.File, orDash(s.By), s.Missing, s.Threshold, orDash(s.Open), c.left(s.Expires.Sub(now)))
				}
				if a != nil {
					fmt.Fprintf(w, "\nunder way: %s\n", a.Act)
					printSigned(w, signed)
				}
			})
		},
	}
	k.add(cmd, false)
	return cmd
}

// left says for how long a file is good, and from 60 days on what to do.
func (c *cli) left(d time.Duration) string {
	days := fmt.Sprintf("in %d days", int(d.Hours()/24))
	switch {
	case d <= 0:
		return c.red("EXPIRED: dunlin keys renew --due")
	case d < amend.Urgent:
		return c.red(days + ", urgent: dunlin keys renew --due")
	case d < amend.Warning:
		return days + ", soon: dunlin keys renew --due"
	}
	return days
}

func orDash(list []string) string {
	if len(list) == 0 {
		return "-"
	}
	return strings.Join(list, ", ")
}

// red colours a warning if a person looks at it.
func (c *cli) red(s string) string {
	if f, ok := c.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) && c.getenv("NO_COLOR") == "" {
		return "\x1b[1;31m" + s + "\x1b[0m"
	}
	return s
}

func (c *cli) keysInstallCmd() *cobra.Command {
	var k keyFlags
	cmd := &cobra.Command{
		Use:   "install --dir DIR",
		Short: "Bring a finished ceremony, or the amendment that is under way, to the server",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.publisher()
			if err != nil {
				return err
			}
			path, err := amendment(k.dir)
			if err != nil {
				return err
			}
			if path != "" {
				a, err := amend.Install(cmd.Context(), client, k.dir)
				if err != nil {
					return err
				}
				return c.print(map[string]any{"installed": true, "act": a.Act}, func(w io.Writer) { fmt.Fprintf(w, "installed: %s\n", a.Act) })
			}
			if err := client.Install(cmd.Context(), k.dir, time.Now()); err != nil {
				return err
			}
			transcript := filepath.Join(k.dir, publish.TranscriptFile)
			return c.print(map[string]any{"installed": true, "transcript": transcript}, func(w io.Writer) {
				fmt.Fprintf(w, "installed; the transcript is %s\nnext: move the root keys off this machine, then 'dunlin model publish'\n", transcript)
			})
		},
	}
	k.add(cmd, false)
	return cmd
}
