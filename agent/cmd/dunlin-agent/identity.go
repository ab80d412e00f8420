package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/agent"
)

func enroll(ctx context.Context, e *env, args []string) error {
	var token, name, stick string
	var wait time.Duration
	_, c, err := parse(e, "enroll", args, func(fs *flag.FlagSet) {
		fs.StringVar(&token, "token", os.Getenv("DUNLIN_ENROL_TOKEN"), "enrolment `token`, or @FILE")
		fs.StringVar(&name, "name", "", "wished device `id`: a-z, 0-9 and -")
		fs.StringVar(&stick, "stick", "", "`folder` of a stick that carries the request, without a network")
		fs.DurationVar(&wait, "wait", 0, "for how long it is asked again while an operator has to accept the key")
	}, 0, 0)
	if err != nil {
		return err
	}
	if path, ok := strings.CutPrefix(token, "@"); ok {
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read token: %w", err)
		}
		token = strings.TrimSpace(string(b))
	}
	if token == "" {
		return fmt.Errorf("%w: no token", errUsage)
	}
	if stick != "" {
		if err := agent.EnrollByStick(c, token, name, stick); err != nil {
			return err
		}
		fmt.Fprintf(e.stdout, "the request is on the stick, key %s\n  next: dunlin usb import, then dunlin usb export, then here dunlin-agent import %s\n", agent.Fingerprint(c), stick)
		return nil
	}
	id, err := enrollPatiently(ctx, e, c, token, name, wait)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "enrolled as %s\n  key %s\n  next: dunlin-agent run\n", id, agent.Fingerprint(c))
	return nil
}

// askEvery is the pause between two looks whether an operator has accepted the key.
const askEvery = 5 * time.Second

// enrollPatiently shows the key when it has to be accepted, and asks again for as
// long as it may.
func enrollPatiently(ctx context.Context, e *env, c agent.Config, token, name string, wait time.Duration) (string, error) {
	end := time.Now().Add(wait)
	for said := false; ; said = true {
		id, err := agent.Enroll(ctx, c, token, name)
		var local *agent.LocalError
		if !errors.As(err, &local) || local.Code != codePending {
			return id, err
		}
		if !said {
			fmt.Fprintf(e.stdout, "this device waits for an operator\n  key %s\n  next: dunlin device accept NAME --fingerprint %[1]s\n", agent.Fingerprint(c))
		}
		if wait == 0 || time.Now().Add(askEvery).After(end) {
			return id, err
		}
		timer := time.NewTimer(askEvery)
		select {
		case <-ctx.Done():
			timer.Stop()
			return id, err
		case <-timer.C:
		}
	}
}

// codePending is the server's while an operator has to accept the key.
const codePending = "enrol.pending"

func reset(_ context.Context, e *env, args []string) error {
	var yes bool
	_, c, err := parse(e, "reset", args, func(fs *flag.FlagSet) {
		fs.BoolVar(&yes, "yes", false, "do not ask")
	}, 0, 0)
	if err != nil {
		return err
	}
	id := agent.WhoIs(c)
	word := id
	if word == "" {
		word = "yes"
	}
	if !yes {
		fmt.Fprintf(e.stdout, "this wipes %s: its identity, its models and every record that was not sent\ntype %s to go on: ", c.State, word)
		answer, err := bufio.NewReader(e.stdin).ReadString('\n')
		if strings.TrimSpace(answer) != word {
			return &agent.LocalError{Code: "reset.not_confirmed", Detail: fmt.Sprintf("nothing was wiped: %q was not typed%s", word, because(err)), Next: "run it again, or pass --yes"}
		}
	}
	if err := agent.Reset(c); err != nil {
		return err
	}
	if id == "" {
		fmt.Fprintln(e.stdout, "wiped\n  next: dunlin-agent enroll --token TOKEN")
		return nil
	}
	fmt.Fprintf(e.stdout, "wiped\n  the server still knows %s: give its place to a new identity with 'dunlin device replace %[1]s', or end it with 'dunlin device retire %[1]s'\n  next: dunlin-agent enroll --token TOKEN\n", id)
	return nil
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return " (" + err.Error() + ")"
}
