// Package batch asks a model about many cases and writes an answer for each, in
// their order, one JSON object a line. A run that was cut goes on where it stopped.
package batch

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// Question is one case as the Open Inference Protocol asks it: the JSON of an infer
// request, and the binary tensors that follow it, if any.
type Question struct {
	JSON, Tensors []byte
}

// Source holds cases in a fixed order.
type Source interface {
	Len() int
	// Name is what people know case i by.
	Name(i int) string
	// Question asks case i. An error is about this case alone.
	Question(i int) (Question, error)
}

// Line is what is written of one case.
type Line struct {
	N       int                        `json:"n"` // from 0
	Case    string                     `json:"case"`
	Version string                     `json:"version,omitempty"` // that answered
	Outputs map[string]json.RawMessage `json:"outputs,omitempty"`
	Error   string                     `json:"error,omitempty"`
}

// Config of a run.
type Config struct {
	// Ask returns the answer's JSON. An error that wraps ErrWait says that asking
	// again later may help, one that wraps ErrStop that the run cannot go on now;
	// any other is written as the case's own.
	Ask    func(ctx context.Context, q Question) ([]byte, error)
	Source Source
	FS     durable.FS
	Out    string // path
	// Parallel is how many questions are asked at a time, at least 1.
	Parallel int
	// Progress is told how far the run is, after each line; may be nil.
	Progress func(Result)
}

// Errors of Ask.
var (
	ErrWait = errors.New("not now")
	ErrStop = errors.New("the run cannot go on")
)

// ErrOther is returned when the file that answers go to holds something else.
var ErrOther = errors.New("the file holds no answers to these cases")

// Result counts what was done, what lay there from a run before included.
type Result struct {
	Cases, Done, Failed int
	Before              int // lines that lay there
}

// Run asks from where the file ends. The file is synced when Run returns, also with
// an error, and every syncEvery lines.
func Run(ctx context.Context, c Config) (r Result, err error) {
	r.Cases = c.Source.Len()
	f, err := c.open(&r)
	if err != nil {
		return r, fmt.Errorf("open %s: %w", c.Out, err)
	}
	defer func() { err = errors.Join(err, f.Sync(), f.Close()) }()
	ctx, cancel := context.WithCancel(ctx)
	answers := make(chan chan outcome, max(c.Parallel, 1)-1)
	ended := make(chan struct{})
	go func() { defer close(ended); c.askAll(ctx, r.Done, answers) }()
	defer func() {
		cancel()
		for one := range answers { // nobody is left behind
			<-one
		}
		<-ended
	}()
	for one := range answers {
		o := <-one
		if o.err != nil {
			return r, fmt.Errorf("case %d: %w", r.Done, o.err)
		}
		if err := c.write(f, o.line, &r); err != nil {
			return r, fmt.Errorf("write %s: %w", c.Out, err)
		}
	}
	return r, ctx.Err()
}

// outcome is a line, or why the run ends here.
type outcome struct {
	line Line
	err  error
}

// askAll asks from case first on and hands out, in order, where each answer will
// come.
func (c *Config) askAll(ctx context.Context, first int, answers chan<- chan outcome) {
	defer close(answers)
	for i := first; i < c.Source.Len() && ctx.Err() == nil; i++ {
		one := make(chan outcome, 1)
		answers <- one
		go func() { one <- c.ask(ctx, i) }() // Run waits for it
	}
}

const (
	waitMin = 100 * time.Millisecond
	waitMax = 5 * time.Second
	waits   = 20 // about a minute and a half
)

func (c *Config) ask(ctx context.Context, i int) outcome {
	name := c.Source.Name(i)
	q, err := c.Source.Question(i)
	if err != nil {
		return outcome{line: Line{N: i, Case: name, Error: err.Error()}}
	}
	var b []byte
	pause := waitMin
	for try := 0; ; try++ {
		b, err = c.Ask(ctx, q)
		if !errors.Is(err, ErrWait) || try == waits {
			break
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, waitMax)
	}
	switch {
	case ctx.Err() != nil:
		return outcome{err: ctx.Err()}
	case errors.Is(err, ErrWait), errors.Is(err, ErrStop):
		return outcome{err: err}
	case err != nil:
		return outcome{line: Line{N: i, Case: name, Error: err.Error()}}
	}
	l, err := lineOf(b)
	l.N, l.Case = i, name
	return outcome{l, err}
}

// lineOf reads the answer to an infer request.
func lineOf(answer []byte) (l Line, err error) {
	var a struct {
		Version string `json:"model_version"`
		Outputs []struct {
			Name string          `json:"name"`
			Data json.RawMessage `json:"data"`
		} `json:"outputs"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return l, fmt.Errorf("read the answer: %w", err)
	}
	l.Version, l.Outputs = a.Version, map[string]json.RawMessage{}
	for _, o := range a.Outputs {
		l.Outputs[o.Name] = o.Data
	}
	return l, nil
}

const syncEvery = 256

func (c *Config) write(f durable.File, l Line, r *Result) error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if _, err := f.Write(append(b, '\n')); err != nil {
		return err
	}
	r.count(&l)
	if r.Done%syncEvery == 0 {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	if c.Progress != nil {
		c.Progress(*r)
	}
	return nil
}

func (r *Result) count(l *Line) {
	r.Done++
	if l.Error != "" {
		r.Failed++
	}
}

// open makes the file or finds where an earlier run stopped: behind the last whole
// line. A line that was cut off is taken away; a file of something else is left as
// it is.
func (c *Config) open(r *Result) (durable.File, error) {
	f, err := c.FS.OpenFile("batch", c.Out, durable.Append, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := durable.WriteFile(c.FS, "batch", c.Out, nil, 0o644); err != nil {
			return nil, err
		}
		return c.FS.OpenFile("batch", c.Out, durable.Append, 0)
	}
	if err != nil {
		return nil, err
	}
	end, err := c.resume(f, r)
	if err == nil {
		r.Before = r.Done
		err = f.Truncate(end)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// maxLine bounds a line that is read back.
const maxLine = 256 << 20

// resume counts the lines that are there and returns where they end.
func (c *Config) resume(f durable.File, r *Result) (end int64, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	in := bufio.NewScanner(f)
	in.Buffer(make([]byte, 64<<10), maxLine)
	in.Split(wholeLines)
	for in.Scan() {
		var l Line
		if json.Unmarshal(in.Bytes(), &l) != nil || l.N != r.Done || l.N >= r.Cases || l.Outputs == nil && l.Error == "" {
			return 0, fmt.Errorf("line %d: %w", r.Done+1, ErrOther)
		}
		if name := c.Source.Name(l.N); name != l.Case {
			return 0, fmt.Errorf("line %d is of case %q, not %q: %w", r.Done+1, l.Case, name, ErrOther)
		}
		r.count(&l)
		end += int64(len(in.Bytes())) + 1
	}
	if err := in.Err(); err != nil {
		return 0, err
	}
	if end == 0 && st.Size() > 0 && !c.torn(f) {
		return 0, ErrOther
	}
	return end, nil
}

// torn tells whether a file without a whole line is the beginning of one of ours.
func (c *Config) torn(f durable.File) bool {
	want := []byte(`{"n":0,"case":`)
	have := make([]byte, len(want))
	n, _ := f.ReadAt(have, 0)
	return bytes.HasPrefix(want, have[:n])
}

// wholeLines splits at line ends and leaves out what does not end.
func wholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF {
		return len(data), nil, nil
	}
	return 0, nil, nil
}
