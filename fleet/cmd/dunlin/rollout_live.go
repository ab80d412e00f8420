package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/dunlin-edge/dunlin/fleet/cmd/dunlin/rolloutview"
)

// home follows a reverting rollout to its end.
func (c *cli) home(ctx context.Context, id string) error {
	err := c.watch(ctx, id)
	var code exitError
	if errors.As(err, &code) && code == exitNotCompleted {
		return nil // it ended as reverted, which is what was wanted
	}
	return err
}

// screen draws a rollout on a terminal, in place of what was drawn before; false: the
// output is no terminal.
func (c *cli) screen(r *rolloutview.View) bool {
	f, ok := c.out.(*os.File)
	if !ok || c.output == "json" || !term.IsTerminal(int(f.Fd())) {
		return false
	}
	var b strings.Builder
	b.WriteString("\x1b[H\x1b[2J") // home, clear
	r.Draw(&b, time.Now())
	io.WriteString(c.out, b.String())
	return true
}
