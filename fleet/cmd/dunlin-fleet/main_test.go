package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/fleet/fleetd"
)

// TestInit wants the first token once, on a line of its own, before what the
// command line needs.
func TestInit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fleet")
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"init", "--name", "localhost", "--dir", dir}, &out, &errs); code != 0 {
		t.Fatalf("code %d: %s", code, &errs)
	}
	text := out.String()
	if got := regexp.MustCompile(`(?m)^\s*dunlin_[0-9a-f]{48}$`).FindAllString(text, -1); len(got) != 1 || strings.Count(text, "dunlin_") != 1 {
		t.Errorf("tokens %q in:\n%s", got, text)
	}
	order := -1
	for _, want := range []string{"dunlin_", "\n  export DUNLIN_SERVER=https://localhost:8443\n", "\n  export DUNLIN_CA='" + filepath.Join(dir, "ca.pem") + "'\n", "\n  export DUNLIN_TOKEN=", "\nnext: "} {
		at := strings.Index(text, want)
		if at <= order {
			t.Errorf("%q at %d, after %d in:\n%s", want, at, order, text)
		}
		order = at
	}
}

// TestRefusals wants everything that goes wrong to have a code and a next step.
func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ args, code string }{
		{"init", "usage.flag"},
		{"init --nam a", "usage.flag"},
		{"init --name a more", "usage.arguments"},
		{"serve more", "usage.arguments"},
		{"serve --api", "usage.flag"},
		{"sevre", "usage.arguments"},
		{"serve --dir " + dir, "server.absent"},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), strings.Fields(c.args), &out, &errs)
		if want := regexp.MustCompile(`^error: .+ \(` + regexp.QuoteMeta(c.code) + `\)\n  next: .+\n$`); code != 1 || !want.MatchString(errs.String()) || out.Len() > 0 {
			t.Errorf("%s: code %d, %q, %q; want %s", c.args, code, &errs, &out, c.code)
		}
	}
}

// TestServe wants the ready file whole, with where the server really listens, and
// a clean end.
func TestServe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fleet")
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"init", "--name", "localhost", "--dir", dir}, &out, &errs); code != 0 {
		t.Fatalf("code %d: %s", code, &errs)
	}
	ctx, stop := context.WithCancel(t.Context())
	file := filepath.Join(t.TempDir(), "ready.json")
	seen := &stopWhen{text: "serving", stop: stop}
	if code := run(ctx, []string{"serve", "--dir", dir, "--api", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--ready-file", file}, &out, seen); code != 0 {
		t.Fatalf("code %d: %s", code, &seen.log)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var a fleetd.Addresses
	if err := json.Unmarshal(b, &a); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	address := regexp.MustCompile(`^127\.0\.0\.1:[1-9][0-9]*$`)
	if !address.MatchString(a.API) || !address.MatchString(a.MQTT) || a.API == a.MQTT || a.PID != os.Getpid() {
		t.Errorf("ready: %s", b)
	}
}

// stopWhen is a log that stops the server when a text is written; slog writes one
// line at a time.
type stopWhen struct {
	log  bytes.Buffer
	text string
	stop func()
}

func (s *stopWhen) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(s.text)) {
		s.stop()
	}
	return s.log.Write(p)
}
