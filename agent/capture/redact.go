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

// morePicture is how much longer a redacted picture may be than the one that came.
const morePicture = 4

// redact gives each input to the owner's program and takes what it writes: of a
// tensor as many bytes as there were, of a picture another one in the same encoding,
// at most four times as long. The program starts with an
// environment of its own: DUNLIN_MODEL_PATH, DUNLIN_INPUT, DUNLIN_DTYPE,
// DUNLIN_SHAPE, DUNLIN_ENCODING.
func (k *Keeper) redact(ctx context.Context, s *sample) ([][]byte, error) {
	var out [][]byte
	for i, in := range s.inputs {
		t := &s.tensors[i]
		env := []string{"DUNLIN_MODEL_PATH=" + s.path, "DUNLIN_INPUT=" + t.Name, "DUNLIN_DTYPE=" + t.DType, "DUNLIN_SHAPE=" + fmt.Sprint(s.shape(i, in)), "DUNLIN_ENCODING=" + s.coded[i], "PATH=/usr/bin:/bin"}
		limit := len(in) + 1
		if s.coded[i] != "" {
			limit = len(in) * morePicture
		}
		b, err := run(ctx, k.c.Redact, env, in, limit)
		if err != nil {
			return nil, fmt.Errorf("input %s: %w", t.Name, err)
		}
		if s.coded[i] != "" && encoding(b) != s.coded[i] {
			return nil, fmt.Errorf("input %s: no %s came back", t.Name, s.coded[i])
		}
		if s.coded[i] == "" && len(b) != len(in) {
			return nil, fmt.Errorf("input %s: %d bytes came back, %d are wanted", t.Name, len(b), len(in))
		}
		out = append(out, b)
	}
	return out, nil
}

// run gives in to a program and returns what it wrote, at most limit bytes.
func run(ctx context.Context, program string, env []string, in []byte, limit int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, redactTime)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, program)
	cmd.Env, cmd.Stdin, cmd.WaitDelay = env, bytes.NewReader(in), time.Second
	cmd.Stdout = &limited{&out, limit}
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
