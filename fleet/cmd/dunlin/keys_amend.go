package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/amend"
	"github.com/dunlin-edge/dunlin/fleet/offline"
)

// amendCmds change a ceremony after it was installed.
func (c *cli) amendCmds() []*cobra.Command {
	return []*cobra.Command{c.keysRotateCmd(), c.keysReplaceCmd(), c.keysRevokeCmd(), c.keysHardenCmd(), c.keysFloorCmd(), c.keysRenewCmd(), c.keysCheckCmd(), c.keysDrillCmd()}
}

// begin is what an act begins with: the server's files, and the folder.
func (c *cli) begin(cmd *cobra.Command, k *keyFlags) (*amend.Begin, error) {
	client, err := c.publisher()
	if err != nil {
		return nil, err
	}
	state, err := amend.Fetch(cmd.Context(), client)
	if err != nil {
		return nil, err
	}
	return &amend.Begin{Dir: k.dir, State: state, Passphrase: c.passphrase(k.passphraseFile, k.holder), Now: time.Now()}, nil
}

// begun signs an amendment with the keys of the holder who began it, if one did,
// and says how it goes on.
func (c *cli) begun(k *keyFlags, a *amend.Amendment, pass offline.Passphrase) error {
	path := filepath.Join(k.dir, amend.File)
	if k.holder != "" {
		if _, err := a.Sign(k.dir, k.holder, pass, time.Now()); err != nil {
			return err
		}
		if err := a.Write(path); err != nil {
			return err
		}
	}
	return c.printAmendment(k.dir, a)
}

type amendmentView struct {
	Act     string         `json:"act"`
	Made    time.Time      `json:"made"`
	Changes []string       `json:"changes"`
	Files   []amend.Signed `json:"files"`
	Ready   bool           `json:"ready"`
}

func (c *cli) printAmendment(dir string, a *amend.Amendment) error {
	list, err := a.Status()
	if err != nil {
		return err
	}
	changes, err := a.Changes()
	if err != nil {
		return err
	}
	v := amendmentView{a.Act, a.Made, changes, list, true}
	for _, s := range list {
		v.Ready = v.Ready && s.Missing == 0
	}
	return c.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "%s\n", a.Act)
		for _, line := range changes {
			fmt.Fprintf(w, "  %s\n", line)
		}
		printSigned(w, list)
		if v.Ready {
			fmt.Fprintf(w, "next: dunlin keys install --dir %s\n", dir)
		} else {
			fmt.Fprintf(w, "next: dunlin keys sign --dir %s --holder NAME; on another machine, copy %s there and back\n", dir, filepath.Join(dir, amend.File))
		}
	})
}

func printSigned(w io.Writer, list []amend.Signed) {
	fmt.Fprintln(w, "FILE\tKEYS\tSIGNED BY\tMISSING\tCOULD SIGN")
	for _, s := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d of %d\t%s\n", s.File, s.Keys, orDash(s.By), s.Missing, s.Threshold, orDash(s.Open))
	}
}

// actCmd is a command that begins an amendment.
func (c *cli) actCmd(use, short, example string, k *keyFlags, args cobra.PositionalArgs, do func(b *amend.Begin, args []string) (*amend.Amendment, error)) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Example: example, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
		b, err := c.begin(cmd, k)
		if err != nil {
			return err
		}
		a, err := do(b, args)
		if err != nil {
			return err
		}
		return c.begun(k, a, b.Passphrase)
	}}
	k.add(cmd, false)
	cmd.Flags().StringVar(&k.passphraseFile, "passphrase-file", "", "file with the passphrase (default DUNLIN_PASSPHRASE, else it is asked for)")
	return cmd
}

func (c *cli) keysRotateCmd() *cobra.Command {
	var k keyFlags
	var ref string
	cmd := c.actCmd("rotate root|release|online --dir DIR [--holder NAME]", "Give a holder a new key in place of one that they have, or the server its next ones",
		"  dunlin keys rotate root --dir ceremony --holder ada\n  dunlin-fleet keys rotate director    # on the server, then:\n  dunlin keys rotate online --dir ceremony", &k, cobra.ExactArgs(1), func(b *amend.Begin, args []string) (*amend.Amendment, error) {
			if args[0] != "online" {
				return b.Rotate(k.holder, args[0], ref)
			}
			client, err := c.publisher()
			if err != nil {
				return nil, err
			}
			next, err := amend.NextOnline(context.Background(), client)
			if err != nil {
				return nil, err
			}
			return b.Online(next)
		})
	cmd.Flags().StringVar(&k.holder, "holder", "", "whose key it is")
	cmd.Flags().StringVar(&ref, "key", "", "key that a plug-in holds, as NAME://KEY; left out, one is made")
	return cmd
}

func (c *cli) keysReplaceCmd() *cobra.Command {
	var k keyFlags
	var lost string
	cmd := c.actCmd("replace --dir DIR --holder LOST [--with NAME]", "Replace the keys of a holder who has lost them",
		"  dunlin keys replace --dir ceremony --holder ben --with dora", &k, cobra.NoArgs, func(b *amend.Begin, _ []string) (*amend.Amendment, error) {
			if k.holder == "" {
				k.holder = lost
			}
			return b.Replace(lost, k.holder)
		})
	cmd.Flags().StringVar(&lost, "holder", "", "whose keys are lost")
	cmd.MarkFlagRequired("holder")
	cmd.Flags().StringVar(&k.holder, "with", "", "who holds keys in their place (default: the same person)")
	return cmd
}

func (c *cli) keysRevokeCmd() *cobra.Command {
	var k keyFlags
	cmd := c.actCmd("revoke NAME --dir DIR", "Take away the keys of a holder or a machine, because they were stolen or are not needed",
		"  dunlin keys revoke ben --dir ceremony", &k, cobra.ExactArgs(1), func(b *amend.Begin, args []string) (*amend.Amendment, error) {
			return b.Revoke(args[0])
		})
	cmd.Long = "What the keys have signed stays published: look through 'dunlin model list', raise floors above what\n" +
		"you do not want with 'dunlin keys floor', and roll back devices that run it."
	return cmd
}

func (c *cli) keysHardenCmd() *cobra.Command {
	var k keyFlags
	cmd := c.actCmd("harden NEWDIR --dir PRACTICE", "Hand a practice fleet over to the holders of a whole ceremony",
		"  dunlin keys init --dir real --holder ada    # and ben, and cleo\n  dunlin keys harden real --dir practice\n  dunlin keys sign --dir practice --holder eve    # then ada and ben, each with their folder", &k,
		cobra.ExactArgs(1), func(b *amend.Begin, args []string) (*amend.Amendment, error) { return b.Harden(args[0]) })
	return cmd
}

func (c *cli) keysFloorCmd() *cobra.Command {
	var k keyFlags
	var channel string
	cmd := c.actCmd("floor MODEL=COUNTER… --channel CHANNEL --dir DIR", "Raise the lowest counter of models that may be activated",
		"  dunlin keys floor meter-digits=4 --channel production --dir ceremony", &k, cobra.MinimumNArgs(1), func(b *amend.Begin, args []string) (*amend.Amendment, error) {
			floors := map[string]int64{}
			for _, a := range args {
				model, n, ok := strings.Cut(a, "=")
				floor, err := strconv.ParseInt(n, 10, 64)
				if !ok || err != nil || floor < 1 {
					return nil, &fleet.Error{Code: "floor.malformed", Message: fmt.Sprintf("%q is not understood", a), Next: "write it like meter-digits=4; 'dunlin model show' lists the counters"}
				}
				floors[model] = floor
			}
			return b.Floor(channel, floors)
		})
	cmd.Flags().StringVar(&channel, "channel", "", "of the models")
	cmd.MarkFlagRequired("channel")
	return cmd
}

func (c *cli) keysRenewCmd() *cobra.Command {
	var k keyFlags
	var due, all bool
	cmd := c.actCmd("renew --due|--all --dir DIR", "Sign anew what expires soon, all in one sitting",
		"  dunlin keys renew --due --dir ceremony", &k, cobra.NoArgs, func(b *amend.Begin, _ []string) (*amend.Amendment, error) {
			if due == all {
				return nil, &fleet.Error{Code: "keys.renew", Message: "one of --due and --all is wanted", Next: "pass --due: what expires within 60 days"}
			}
			return b.Renew(all)
		})
	cmd.Flags().BoolVar(&due, "due", false, "what expires within 60 days")
	cmd.Flags().BoolVar(&all, "all", false, "everything")
	return cmd
}

// signAmendment adds a holder's signatures; of another folder's amendment with their
// own folder's keys.
func (c *cli) signAmendment(k *keyFlags, path string) error {
	a, err := amend.Read(path, k.dir)
	if err != nil {
		return err
	}
	files, err := a.Sign(k.dir, k.holder, c.passphrase(k.passphraseFile, k.holder), time.Now())
	if err != nil {
		return err
	}
	if err := a.Write(path); err != nil {
		return err
	}
	if len(files) > 0 && c.output != "json" {
		fmt.Fprintf(c.out, "%s signed %s\n", k.holder, strings.Join(files, ", "))
	}
	return c.printAmendment(filepath.Dir(path), a)
}

// amendment is the path of the amendment that is under way in a folder, empty: none.
func amendment(dir string) (string, error) {
	path := filepath.Join(dir, amend.File)
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return path, err
}

// underWay is the amendment of a folder with its signatures; nil: there is none.
func underWay(dir string) (*amend.Amendment, []amend.Signed, error) {
	path, err := amendment(dir)
	if err != nil || path == "" {
		return nil, nil, err
	}
	a, err := amend.Read(path, dir)
	if err != nil {
		return nil, nil, err
	}
	list, err := a.Status()
	return a, list, err
}

func (c *cli) keysCheckCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check DIR", Short: "Check the folder of a ceremony from its first roots to its newest files, without the server",
		Long: "For somebody who was not there: verifies that each amendment of the history follows from the one before and is\n" +
			"signed by the thresholds of the old keys and of the new, and that the newest files are those that it ends with.",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := amend.Check(args[0])
			if err != nil {
				return err
			}
			return c.print(r, func(w io.Writer) { fmt.Fprint(w, r.Text()) })
		},
	}
	return cmd
}

func (c *cli) keysDrillCmd() *cobra.Command {
	var k keyFlags
	cmd := &cobra.Command{
		Use: "drill root|release|snapshot|timestamp|director --dir DIR", Short: "Rehearse loss and theft of a key on a copy, and say what it would take",
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := amend.Drill(k.dir, args[0], time.Now())
			if err != nil {
				return err
			}
			return c.print(r, func(w io.Writer) { fmt.Fprint(w, r.Text()) })
		},
	}
	k.add(cmd, false)
	return cmd
}
