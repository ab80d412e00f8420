package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/dunlin-edge/dunlin/agent"
	"github.com/dunlin-edge/dunlin/agent/batch"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

// askMany asks a model about every case of a folder or a file.
func askMany(ctx context.Context, e *env, args []string) error {
	var model, in, out string
	var parallel int
	_, c, err := parse(e, "batch", args, func(f *flag.FlagSet) {
		f.StringVar(&model, "model", "", "that is asked")
		f.StringVar(&in, "in", "", "`path` of a folder of .npy, .npz, .json, .jpg, .png or .wav, of an .npz with a row a case, or of a .csv")
		f.StringVar(&out, "out", "", "`file` for the answers, one JSON object a line")
		f.IntVar(&parallel, "parallel", 4, "questions at a time, 1 to 64")
	}, 0, 0)
	if err != nil {
		return err
	}
	if model == "" || in == "" || out == "" || parallel < 1 || parallel > 64 {
		return fmt.Errorf("%w: --model, --in and --out are wanted, and --parallel of 1 to 64", errUsage)
	}
	l := agent.NewLocal(c)
	b, err := l.Metadata(ctx, model)
	if err != nil {
		return err
	}
	var meta struct {
		Inputs []batch.Tensor `json:"inputs"`
	}
	if err := json.Unmarshal(b, &meta); err != nil {
		return fmt.Errorf("read model metadata: %w", err)
	}
	source, err := batch.Open(in, meta.Inputs)
	if err != nil {
		return &agent.LocalError{Code: "batch.cases", Detail: err.Error(), Next: "compare with 'dunlin-agent ask " + model + "'"}
	}
	p := &progress{w: e.stderr, began: time.Now(), live: isTerminal(e.stderr)}
	r, err := batch.Run(ctx, batch.Config{
		Source: source, FS: durable.OS{}, Out: out, Parallel: parallel, Progress: p.tell,
		Ask: func(ctx context.Context, q batch.Question) ([]byte, error) {
			b, err := l.InferTensors(ctx, model, q.JSON, q.Tensors)
			return b, outcome(err)
		},
	})
	p.end(r)
	switch {
	case errors.Is(err, batch.ErrOther):
		return &agent.LocalError{Code: "batch.file", Detail: err.Error(), Next: "give --out a name that is free"}
	case err != nil:
		return &agent.LocalError{Code: "batch.stopped", Detail: err.Error(), Next: "run the same command again: it goes on at case " + fmt.Sprint(r.Done)}
	case r.Failed > 0:
		return &agent.LocalError{Code: "batch.failed", Detail: fmt.Sprintf("%d of %d cases have no answer", r.Failed, r.Cases), Next: "look for \"error\" in " + out}
	}
	return nil
}

// outcome says of an error whether asking again helps.
func outcome(err error) error {
	var local *agent.LocalError
	switch {
	case errors.As(err, &local) && local.Code == agent.CodeInferBusy:
		return fmt.Errorf("%w: %w", err, batch.ErrWait)
	case errors.As(err, &local) && local.Code == agent.CodeNotRunning:
		return fmt.Errorf("%w: %w", err, batch.ErrStop)
	}
	return err
}

// progress is one line on a terminal, and a line now and then elsewhere.
type progress struct {
	w     io.Writer
	live  bool
	began time.Time
	last  time.Time
}

func (p *progress) tell(r batch.Result) {
	every := 10 * time.Second
	if p.live {
		every = 200 * time.Millisecond
	}
	now := time.Now()
	if p.last.IsZero() {
		p.last = now
	}
	if now.Sub(p.last) >= every {
		p.last = now
		p.line(r)
	}
}

func (p *progress) line(r batch.Result) {
	end := "\n"
	if p.live {
		end = "\x1b[K\r"
	}
	rate := float64(r.Done-r.Before) / max(time.Since(p.began).Seconds(), 1e-3)
	fmt.Fprintf(p.w, "%d of %d, %d without an answer, %.0f a second%s", r.Done, r.Cases, r.Failed, rate, end)
}

func (p *progress) end(r batch.Result) {
	p.line(r)
	if p.live {
		fmt.Fprintln(p.w)
	}
	if r.Before > 0 {
		fmt.Fprintf(p.w, "%d of them lay there from a run before\n", r.Before)
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
