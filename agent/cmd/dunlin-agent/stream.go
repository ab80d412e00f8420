package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/agent"
	"github.com/dunlin-edge/dunlin/agent/stream"
)

// streamDrain is the time of what is under way when the stream is told to end.
const streamDrain = 10 * time.Second

// askStream asks a model about messages as they come, of standard input or a broker.
func askStream(ctx context.Context, e *env, args []string) error {
	var model, password string
	var ahead int
	var b stream.Broker
	_, c, err := parse(e, "stream", args, func(f *flag.FlagSet) {
		f.StringVar(&model, "model", "", "that is asked")
		f.IntVar(&ahead, "ahead", 4, "messages at a time, 1 to 64")
		f.StringVar(&b.URL, "broker", "", "`address` of an MQTT broker, tcp://127.0.0.1:1883 or tls://name:8883; without it lines of standard input are answered on standard output")
		f.StringVar(&b.In, "from", "", "`topic` or filter of the questions")
		f.StringVar(&b.Out, "to", "", "`topic` of the answers")
		f.StringVar(&b.Client, "client", "", "`id` under which the broker keeps questions while nobody is there; dunlin-stream-MODEL if empty")
		f.StringVar(&b.User, "user", "", "`name` at the broker")
		f.StringVar(&password, "password-file", "", "`file` with the password at the broker")
	}, 0, 0)
	if err != nil {
		return err
	}
	if model == "" || ahead < 1 || ahead > 64 {
		return fmt.Errorf("%w: --model is wanted, and --ahead of 1 to 64", errUsage)
	}
	l := agent.NewLocal(c)
	ask, err := asker(ctx, l, model)
	if err != nil {
		return err
	}
	source, end, err := e.source(ctx, b, model, password)
	if err != nil {
		return err
	}
	defer end()
	err = stream.Run(ctx, stream.Config{Source: source, Ask: ask, Tell: tell, Ahead: ahead, Drain: streamDrain})
	if err != nil {
		return &agent.LocalError{Code: "stream.ended", Detail: err.Error(), Next: "start it again: what has no answer yet is asked about then, if it came from a broker"}
	}
	return nil
}

// source is standard input, or the broker when there is one.
func (e *env) source(ctx context.Context, b stream.Broker, model, password string) (stream.Source, func(), error) {
	if b.URL == "" {
		if b.In != "" || b.Out != "" || b.Client != "" || b.User != "" || password != "" {
			return nil, nil, fmt.Errorf("%w: --from, --to, --client, --user and --password-file are for a --broker", errUsage)
		}
		return stream.NewLines(e.stdin, e.stdout), func() {}, nil
	}
	if err := b.Check(); err != nil {
		return nil, nil, fmt.Errorf("%w: %v", errUsage, err)
	}
	if b.Client == "" {
		b.Client = "dunlin-stream-" + model
	}
	if password != "" {
		text, err := os.ReadFile(password)
		if err != nil {
			return nil, nil, err
		}
		b.Password = strings.TrimRight(string(text), "\r\n")
	}
	b.Log = slog.New(slog.NewTextHandler(e.stderr, nil))
	m, err := stream.Dial(ctx, b)
	if err != nil {
		return nil, nil, &agent.LocalError{Code: "stream.broker", Detail: err.Error(), Next: "see whether the broker runs and lets this client in"}
	}
	return m, m.Close, nil
}

// asker asks the model about one message: a picture as it is, else JSON. What it
// returns is one line.
func asker(ctx context.Context, l *agent.Local, model string) (func(context.Context, []byte) ([]byte, error), error) {
	b, err := l.Metadata(ctx, model)
	if err != nil {
		return nil, err
	}
	var meta struct {
		Inputs []stream.Tensor `json:"inputs"`
	}
	if err := json.Unmarshal(b, &meta); err != nil {
		return nil, fmt.Errorf("read model metadata: %w", err)
	}
	return func(ctx context.Context, message []byte) ([]byte, error) {
		answer, err := askOne(ctx, l, model, message, meta.Inputs)
		var local *agent.LocalError
		if errors.As(err, &local) && (local.Code == agent.CodeInferBusy || local.Code == agent.CodeNotRunning) {
			return nil, fmt.Errorf("%w: %w", err, stream.ErrWait)
		}
		if err != nil {
			return nil, err
		}
		var line bytes.Buffer
		if err := json.Compact(&line, answer); err != nil {
			return nil, fmt.Errorf("read the answer: %w", err)
		}
		return line.Bytes(), nil
	}, nil
}

func askOne(ctx context.Context, l *agent.Local, model string, message []byte, inputs []stream.Tensor) ([]byte, error) {
	switch {
	case bytes.HasPrefix(message, []byte("\xff\xd8\xff")):
		return l.InferFile(ctx, model, "image/jpeg", message, url.Values{})
	case bytes.HasPrefix(message, []byte("\x89PNG\r\n")):
		return l.InferFile(ctx, model, "image/png", message, url.Values{})
	}
	request, err := stream.Request(message, inputs)
	if err != nil {
		return nil, err
	}
	return l.Infer(ctx, model, request)
}

// tell parts an error of the local API.
func tell(err error) (code, detail string) {
	var local *agent.LocalError
	if errors.As(err, &local) {
		return local.Code, local.Detail
	}
	return "", err.Error()
}
