package stream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// MaxMessage bounds one message in bytes.
const MaxMessage = 16 << 20

// Lines are messages, a line each; the answers are lines as well. Empty lines are
// passed over.
type Lines struct {
	lines chan Message
	fail  error // set before lines is closed
}

// NewLines reads from in and writes to out. The goroutine that reads stays behind
// when a read never returns, as one from a terminal may.
func NewLines(in io.Reader, out io.Writer) *Lines {
	l := &Lines{lines: make(chan Message)}
	answer := func(_ context.Context, line []byte) error {
		if _, err := out.Write(append(bytes.TrimRight(line, "\n"), '\n')); err != nil {
			return fmt.Errorf("write an answer: %w", err)
		}
		return nil
	}
	go func() {
		defer close(l.lines)
		r := bufio.NewReaderSize(in, 64<<10)
		for {
			b, err := line(r)
			if err == nil || len(b) > 0 {
				l.lines <- Message{Body: b, Answer: answer}
			}
			switch {
			case errors.Is(err, errLong):
				l.lines <- Message{Err: err, Answer: answer}
			case err != nil:
				l.fail = err
				return
			}
		}
	}()
	return l
}

// Next implements Source.
func (l *Lines) Next(ctx context.Context) (Message, error) {
	for {
		select {
		case <-ctx.Done():
			return Message{}, ctx.Err()
		case m, ok := <-l.lines:
			if !ok {
				return Message{}, l.fail
			}
			if m.Body = bytes.TrimSpace(m.Body); len(m.Body) > 0 || m.Err != nil {
				return m, nil
			}
		}
	}
}

var errLong = fmt.Errorf("the line has more than %d bytes", MaxMessage)

// line reads to the end of a line. Of one that is too long nothing is returned but
// errLong, and the next call reads the line after it.
func line(r *bufio.Reader) ([]byte, error) {
	var b []byte
	long := false
	for {
		part, err := r.ReadSlice('\n')
		if len(b)+len(part) > MaxMessage {
			b, long = nil, true
		}
		if !long {
			b = append(b, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case long:
			return nil, errLong
		default:
			return b, err
		}
	}
}
