package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// numbers is a source of n messages; after them it waits or ends.
type numbers struct {
	n, next int
	endless bool
	got     []string
	fail    int // the answer to this one cannot be handed over
}

func (s *numbers) Next(ctx context.Context) (Message, error) {
	if s.next == s.n {
		if s.endless {
			<-ctx.Done()
			return Message{}, ctx.Err()
		}
		return Message{}, io.EOF
	}
	s.next++
	n := s.next
	m := Message{Body: fmt.Append(nil, n), Answer: func(_ context.Context, line []byte) error {
		if n == s.fail {
			return errors.New("nobody takes it")
		}
		s.got = append(s.got, string(line))
		return nil
	}}
	if n%10 == 0 {
		m.Body, m.Err = nil, errors.New("too long")
	}
	return m, nil
}

// TestOrder asks many at a time, with answers that come as they like and a model that
// is away now and then: the answers are in order, and never more are asked than may be.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &numbers{n: 200}
		var now, most atomic.Int32
		err := Run(t.Context(), Config{Source: s, Ahead: 4, Ask: func(_ context.Context, b []byte) ([]byte, error) {
			n := now.Add(1)
			defer now.Add(-1)
			most.Store(max(most.Load(), n))
			time.Sleep(rand.N(time.Second))
			switch rand.N(4) {
			case 0:
				return nil, fmt.Errorf("away: %w", ErrWait)
			case 1:
				return nil, errors.New("refused")
			}
			return b, nil
		}, Tell: func(err error) (string, string) {
			if err.Error() == "refused" {
				return "infer.refused", err.Error()
			}
			return "", err.Error()
		}})
		if err != nil || len(s.got) != 200 || most.Load() != 4 {
			t.Fatal(err, len(s.got), most.Load())
		}
		for i, line := range s.got {
			want := []string{fmt.Sprint(i + 1), `{"error":"refused","code":"infer.refused"}`}
			if (i+1)%10 == 0 {
				want = []string{`{"error":"too long","code":"stream.message"}`}
			}
			if !slices.Contains(want, line) {
				t.Errorf("answer %d is %s", i+1, line)
			}
		}
	})
}

// TestDrain answers what is under way when it is told to end, and nothing more; what
// takes longer than the drain time stays with the source.
func TestDrain(t *testing.T) {
	for _, tc := range []struct {
		each time.Duration
		want int
	}{{time.Second, 5}, {time.Hour, 0}} {
		synctest.Test(t, func(t *testing.T) {
			s := &numbers{n: 5, endless: true}
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(100*time.Millisecond, cancel)
			err := Run(ctx, Config{Source: s, Ahead: 8, Drain: 10 * time.Second, Ask: func(ctx context.Context, b []byte) ([]byte, error) {
				select {
				case <-ctx.Done():
					return nil, ctx.Err()
				case <-time.After(tc.each):
					return b, nil
				}
			}})
			if err != nil || len(s.got) != tc.want {
				t.Errorf("%v: %v, answers %v", tc.each, err, s.got)
			}
		})
	}
}

// TestNobodyTakesAnswers ends with what was wrong and answers nothing after it.
func TestNobodyTakesAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &numbers{n: 9, fail: 3, endless: true}
		err := Run(t.Context(), Config{Source: s, Ahead: 4, Ask: func(_ context.Context, b []byte) ([]byte, error) { return b, nil }})
		if err == nil || !strings.Contains(err.Error(), "nobody takes it") || len(s.got) != 2 {
			t.Errorf("%v, %v", err, s.got)
		}
	})
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", MaxMessage)
	for name, tc := range map[string]struct{ in, want string }{
		"lines":            {"a\nb\n", "a;b;"},
		"no end":           {"a\nb", "a;b;"},
		"empty ones":       {"\n a \r\n\n\nb\n", "a;b;"},
		"nothing":          {"", ""},
		"too long":         {"a\n" + long + "x\nb\n", "a;" + errLong.Error() + ";b;"},
		"too long, no end": {"a\n" + long + "x", "a;" + errLong.Error() + ";"},
		"just not":         {long[:MaxMessage-1] + "\n", long[:MaxMessage-1] + ";"},
	} {
		t.Run(name, func(t *testing.T) {
			l, got := NewLines(strings.NewReader(tc.in), io.Discard), ""
			for {
				m, err := l.Next(t.Context())
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if m.Err != nil {
					m.Body = []byte(m.Err.Error())
				}
				got += string(m.Body) + ";"
			}
			if got != tc.want {
				t.Errorf("%.80q, want %.80q", got, tc.want)
			}
		})
	}
	var out bytes.Buffer
	l := NewLines(strings.NewReader("a\nb\n"), &out)
	if err := Run(t.Context(), Config{Source: l, Ahead: 2, Ask: func(_ context.Context, b []byte) ([]byte, error) { return append(b, '\n'), nil }}); err != nil || out.String() != "a\nb\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestRequest(t *testing.T) {
	one := []Tensor{{"x", "FP32", []int{-1, 2}}}
	for message, want := range map[string]string{
		`{"inputs":[]}`: `{"inputs":[]}`,
		` [1, 2] `:      `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}`,
		`[1`:            "no JSON",
		`7`:             "an array of numbers",
		``:              "an array of numbers",
	} {
		b, err := Request([]byte(message), one)
		if err != nil && !strings.Contains(err.Error(), want) || err == nil && string(b) != want {
			t.Errorf("%s: %s %v, want %s", message, b, err, want)
		}
	}
	if _, err := Request([]byte("[1]"), append(one, one...)); err == nil {
		t.Error("an array for two inputs")
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`[1,2]`))
	f.Add([]byte(`{"inputs":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		Request(b, []Tensor{{"x", "FP32", []int{1, 2}}})
		l := NewLines(bytes.NewReader(b), io.Discard)
		for {
			if _, err := l.Next(t.Context()); err != nil {
				break
			}
		}
	})
}
