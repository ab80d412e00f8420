package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"
)

// redactTime bounds one run of the program.
const redactTime = 10 * time.Second

// redact gives each input to the owner's program and takes what it writes: as many
// bytes as there were, since it is the same tensor. The program starts with an
// environment of its own: DUNLIN_MODEL_PATH, DUNLIN_INPUT, DUNLIN_DTYPE,
// DUNLIN_SHAPE.
func (k *Keeper) redact(ctx context.Context, s *sample) ([][]byte, error) {
	var out [][]byte
	for i, in := range s.inputs {
		t := &s.tensors[i]
		env := []string{"DUNLIN_MODEL_PATH=" + s.path, "DUNLIN_INPUT=" + t.Name, "DUNLIN_DTYPE=" + t.DType, "DUNLIN_SHAPE=" + fmt.Sprint(shape(t, in)), "PATH=/usr/bin:/bin"}
		b, err := run(ctx, k.c.Redact, env, in)
		if err != nil {
			return nil, fmt.Errorf("input %s: %w", t.Name, err)
		}
		if len(b) != len(in) {
			return nil, fmt.Errorf("input %s: %d bytes came back, %d are wanted", t.Name, len(b), len(in))
		}
		out = append(out, b)
	}
	return out, nil
}

// run gives in to a program and returns what it wrote, at most one byte more.
func run(ctx context.Context, program string, env []string, in []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, redactTime)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, program)
	cmd.Env, cmd.Stdin, cmd.WaitDelay = env, bytes.NewReader(in), time.Second
	cmd.Stdout = &limited{&out, len(in) + 1}
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// limited takes at most that many bytes more.
type limited struct {
	to   io.Writer
	left int
}

var errTooMuch = errors.New("the program writes too much")

// Write implements io.Writer.
func (l *limited) Write(b []byte) (int, error) {
	if len(b) > l.left {
		return 0, errTooMuch
	}
	l.left -= len(b)
	return l.to.Write(b)
}
