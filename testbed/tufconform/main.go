// Command tufconform is the device's TUF code behind the command line that the
// public suite tuf-conformance expects of a client:
//
//	tufconform --metadata-dir D init ROOT
//	tufconform --metadata-dir D --metadata-url U refresh
//	tufconform --metadata-dir D --metadata-url U --target-name P… --target-base-url T --target-dir TD download
//
// It ends with 0 when all was verified and with 1 when not. It asks date for the
// time, which the suite turns by faketime: that does not reach a static program.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := run(context.Background(), os.Args[1:], date); err != nil {
		fmt.Fprintln(os.Stderr, "tufconform:", err)
		os.Exit(1)
	}
}

// date is the time as the program of that name tells it.
func date() (time.Time, error) {
	out, err := exec.Command("date", "+%s").Output()
	if err != nil {
		return time.Time{}, fmt.Errorf("ask for the date: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	return time.Unix(n, 0).UTC(), err
}

// list is a flag that may be given again.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func run(ctx context.Context, args []string, clock func() (time.Time, error)) error {
	flags := flag.NewFlagSet("tufconform", flag.ContinueOnError)
	var c client
	var targets list
	flags.StringVar(&c.dir, "metadata-dir", "", "`folder` of the metadata that is trusted")
	flags.StringVar(&c.metadataURL, "metadata-url", "", "`URL` of the repository's metadata")
	flags.StringVar(&c.targetURL, "target-base-url", "", "`URL` of the repository's targets")
	flags.StringVar(&c.targetDir, "target-dir", "", "`folder` of downloads")
	flags.Var(&targets, "target-name", "`path` of a target; may be given again")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch command := flags.Arg(0); {
	case c.dir == "":
		return errors.New("--metadata-dir is needed")
	case command == "init" && flags.NArg() == 2:
		return c.init(flags.Arg(1))
	case flags.NArg() == 1 && (command == "refresh" || command == "download" && len(targets) > 0):
		now, err := clock()
		if err != nil {
			return err
		}
		if err := c.refresh(ctx, now); err != nil {
			return err
		}
		return c.download(ctx, targets)
	}
	return fmt.Errorf("init ROOT, refresh or download is needed, not %q", flags.Args())
}
