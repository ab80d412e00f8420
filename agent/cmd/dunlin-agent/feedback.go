package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"strconv"

	"github.com/dunlin-edge/dunlin/agent"
)

// feedback says what was right of an answer, or whether it was.
func feedback(ctx context.Context, e *env, args []string) error {
	var right, wrong bool
	var model string
	words, c, err := parse(e, "feedback", args, func(fs *flag.FlagSet) {
		fs.BoolVar(&right, "right", false, "the answer was right")
		fs.BoolVar(&wrong, "wrong", false, "the answer was wrong")
		fs.StringVar(&model, "model", "", "the `model` that answered, if two have")
	}, 1, 2)
	if err != nil {
		return err
	}
	body := map[string]any{"request_id": words[0]}
	if model != "" {
		body["model"] = model
	}
	switch {
	case len(words) == 2 && !right && !wrong:
		body["label"] = words[1]
	case len(words) == 1 && right != wrong:
		body["correct"] = right
	default:
		return fmt.Errorf("%w: a LABEL, --right or --wrong is wanted", errUsage)
	}
	l := agent.NewLocal(c)
	out, err := send(ctx, l, body)
	if index, numeric := strconv.Atoi(words[len(words)-1]); err != nil && numeric == nil && body["label"] != nil {
		body["label"] = index // no class has this name
		if again, e := send(ctx, l, body); e == nil {
			out, err = again, nil
		}
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "%s", out)
	return nil
}

func send(ctx context.Context, l *agent.Local, body map[string]any) ([]byte, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return l.Feedback(ctx, b)
}
