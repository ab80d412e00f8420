package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/dunlin-edge/dunlin/agent"
)

// importStick has the running agent take in a stick, or does it itself when none
// runs.
func importStick(ctx context.Context, e *env, args []string) error {
	var wait time.Duration
	words, c, err := parse(e, "import", args, func(fs *flag.FlagSet) {
		fs.DurationVar(&wait, "wait", 10*time.Minute, "how `long` to wait until every model has come to rest")
	}, 1, 1)
	if err != nil {
		return err
	}
	path, err := filepath.Abs(words[0])
	if err != nil {
		return err
	}
	in, err := agent.NewLocal(c).Import(ctx, path, wait)
	var local *agent.LocalError
	if errors.As(err, &local) && local.Code == "agent.not_running" {
		log := slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
		in, err = agent.ImportDirect(ctx, c, path, wait, log)
	}
	if err != nil {
		return err
	}
	if e.json {
		return printJSON(e.stdout, in)
	}
	receipt := "the receipt is written"
	if in.Receipt != "" {
		receipt = "no receipt is written (" + in.Receipt + ")"
	}
	fmt.Fprintf(e.stdout, "taken in: %s, generation %d; %s\n", in.Lockbox, in.Generation, receipt)
	return printStatus(e, &in.Status)
}
