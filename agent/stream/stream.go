// Package stream asks a model about messages as they come and answers each in its
// turn: lines of text, or a topic of a local MQTT broker. So many messages as may be
// ahead are here at a time, and no more; whoever sends them waits.
package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Message is one question and the way of its answer.
type Message struct {
	Body []byte
	// Err says that the message cannot be asked about; Answer gets the error.
	Err error
	// Answer hands over the answer. The message is done when it returns nil.
	Answer func(ctx context.Context, line []byte) error
}

// Source gives messages in their order. io.EOF: none comes any more.
type Source interface {
	Next(ctx context.Context) (Message, error)
}

// Config of Run.
type Config struct {
	Source Source
	// Ask asks the model about a message. ErrWait is wrapped when asking again later
	// helps, whether the model is busy or the agent is away.
	Ask func(ctx context.Context, body []byte) ([]byte, error)
	// Tell parts an error of Ask into its code, which may be empty, and its sentence.
	Tell  func(err error) (code, detail string)
	Ahead int           // messages at a time, at least 1
	Drain time.Duration // for what is under way when the context ends
}

// ErrWait says that asking again helps.
var ErrWait = errors.New("ask again later")

const (
	waitMin = 50 * time.Millisecond
	waitMax = 5 * time.Second
)

// Run answers messages until the source ends or ctx does; then those under way are
// answered within the drain time. A source's or an answer's error ends it, with what
// is not answered left to the source.
func Run(ctx context.Context, c Config) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(c.Drain, stop) })()
	reading, end := context.WithCancel(ctx)
	turns := make(chan turn, max(c.Ahead, 1)-1)
	ended := make(chan error, 1)
	go func() { ended <- c.read(reading, work, turns) }()
	var err error
	for t := range turns {
		line := <-t.line
		if err == nil && line != nil {
			if err = t.m.Answer(work, line); err != nil {
				end()
				stop()
			}
		}
	}
	end()
	if read := <-ended; err == nil && !errors.Is(read, io.EOF) && ctx.Err() == nil {
		err = read
	}
	return err
}

// turn is a message whose answer will come.
type turn struct {
	m    Message
	line chan []byte // nil: there is none, because the work was stopped
}

// read takes messages and has each asked about; the turns are in their order.
func (c *Config) read(ctx, work context.Context, turns chan<- turn) error {
	defer close(turns)
	for {
		m, err := c.Source.Next(ctx)
		if err != nil {
			return err
		}
		t := turn{m, make(chan []byte, 1)}
		turns <- t
		go func() { t.line <- c.ask(work, m) }() // Run waits for it
	}
}

// ask asks until there is an answer, a refusal or no more time.
func (c *Config) ask(ctx context.Context, m Message) []byte {
	if m.Err != nil {
		return c.refusal(m)
	}
	for pause := waitMin; ; pause = min(2*pause, waitMax) {
		b, err := c.Ask(ctx, m.Body)
		switch {
		case err == nil:
			return b
		case ctx.Err() != nil:
			return nil
		case !errors.Is(err, ErrWait):
			m.Err = err
			return c.refusal(m)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// refusal is what stands for an answer: the error with its code and, when the message
// has one, its id.
func (c *Config) refusal(m Message) []byte {
	var q struct {
		ID any `json:"id"`
	}
	json.Unmarshal(m.Body, &q) // what is no JSON has no id
	code, detail := "", m.Err.Error()
	if c.Tell != nil {
		code, detail = c.Tell(m.Err)
	}
	if code == "" {
		code = "stream.message"
	}
	line, err := json.Marshal(struct {
		ID    any    `json:"id,omitempty"`
		Error string `json:"error"`
		Code  string `json:"code"`
	}{q.ID, detail, code})
	if err != nil { // an id that was JSON is JSON again
		line = fmt.Appendf(nil, `{"error":%q,"code":%q}`, detail, code)
	}
	return line
}
