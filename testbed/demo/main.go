// Command demo shows Dunlin's main job with real processes on this machine: one
// server, six agents with workers of their own, clients that never stop asking,
// two good releases and four bad ones, and a seventh agent that no network reaches
// and a stick does. It ends with a table of claims; the exit code is 0 only when
// every one of them held.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

const (
	modelName   = "meter-digits"
	channel     = "production"
	deviceCount = 6
	bake        = "2s"
)

func main() {
	var c config
	flag.StringVar(&c.bin, "bin", "build/bin", "`folder` of the four programs")
	flag.StringVar(&c.out, "out", "build/demo", "`folder` for state, logs and summary.json")
	flag.StringVar(&c.models, "models", "testbed/models/digits", "`folder` of the releases")
	flag.StringVar(&c.runtime, "runtime", "build/runtime/litert-2.3.0", "`folder` of the runtime libraries")
	flag.BoolVar(&c.exit, "exit", false, "leave when the story is told")
	flag.Float64Var(&c.setup, "setup-seconds", 0, "how long set-up took, for the summary")
	flag.Float64Var(&c.build, "build-seconds", 0, "how long the build took, for the summary")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(tell(ctx, c))
}

// config is what the demo is told by its flags.
type config struct {
	bin, out, models, runtime string
	exit                      bool
	setup, build              float64
}

// tell runs the story and returns the exit code.
func tell(ctx context.Context, c config) int {
	for _, p := range []*string{&c.bin, &c.out, &c.models, &c.runtime} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			fmt.Fprintln(os.Stderr, "demo:", err)
			return 1
		}
		*p = abs
	}
	began := time.Now()
	d, err := newDemo(c)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	defer d.ps.stop()
	s, err := d.play(ctx)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			fmt.Fprintln(os.Stderr, "\ndemo: stopped")
			return 130
		}
		fmt.Fprintf(os.Stderr, "\ndemo: %v\nlogs are in %s\n", err, c.out)
		return 1
	}
	s.SetupSeconds, s.BuildSeconds, s.DemoSeconds = c.setup, c.build, time.Since(began).Seconds()
	s.Broken = s.check()
	s.Held = len(s.Broken) == 0
	if err := s.write(filepath.Join(c.out, "summary.json")); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	d.say("\n")
	s.print(os.Stdout)
	if !c.exit {
		d.stay(ctx)
	}
	if !s.Held {
		return 1
	}
	return 0
}
