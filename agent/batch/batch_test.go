package batch

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// count is a source of n cases, of which every seventh is broken.
type count int

func (n count) Len() int          { return int(n) }
func (n count) Name(i int) string { return fmt.Sprintf("case-%d", i) }
func (n count) Question(i int) (Question, error) {
	if i%7 == 6 {
		return Question{}, errors.New("broken")
	}
	return Question{JSON: fmt.Append(nil, i)}, nil
}

// echo answers with the question.
func echo(_ context.Context, q Question) ([]byte, error) {
	return fmt.Appendf(nil, `{"model_version":"1.0.0","outputs":[{"name":"y","data":[%s]}]}`, q.JSON), nil
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestOrder asks many at a time with answers that come as they like: the lines are
// in order, and never more are asked than may be.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "out")
		var now, most atomic.Int32
		r, err := Run(t.Context(), Config{Source: count(300), FS: durable.OS{}, Out: out, Parallel: 8, Ask: func(ctx context.Context, q Question) ([]byte, error) {
			n := now.Add(1)
			defer now.Add(-1)
			most.Store(max(most.Load(), n))
			time.Sleep(rand.N(time.Second)) // of the bubble
			return echo(ctx, q)
		}})
		if d := cmp.Diff(Result{Cases: 300, Done: 300, Failed: 42}, r); err != nil || d != "" {
			t.Fatal(err, d)
		}
		if n := most.Load(); n < 2 || n > 8 {
			t.Errorf("%d at a time", n)
		}
		for i, line := range strings.Split(strings.TrimSpace(read(t, out)), "\n") {
			var l Line
			if err := json.Unmarshal([]byte(line), &l); err != nil || l.N != i || l.Case != count(0).Name(i) {
				t.Fatalf("line %d: %s", i, line)
			}
			if want := fmt.Sprintf("[%d]", i); i%7 == 6 && l.Error != "broken" || i%7 != 6 && string(l.Outputs["y"]) != want {
				t.Errorf("line %d: %s", i, line)
			}
		}
	})
}

// TestResume cuts the file at every byte: the next run makes it whole, and asks no
// case whose line is there.
func TestResume(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	c := Config{Source: count(9), FS: durable.OS{}, Out: out, Parallel: 3, Ask: echo}
	if _, err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	whole := read(t, out)
	for cut := range len(whole) {
		if err := os.WriteFile(out, []byte(whole[:cut]), 0o600); err != nil {
			t.Fatal(err)
		}
		var asked atomic.Int32
		c.Ask = func(ctx context.Context, q Question) ([]byte, error) { asked.Add(1); return echo(ctx, q) }
		r, err := Run(t.Context(), c)
		lines := strings.Count(whole[:cut], "\n")
		if err != nil || r.Before != lines || r.Done != 9 || read(t, out) != whole {
			t.Fatalf("cut at %d: %+v, %v", cut, r, err)
		}
		if want := 8 - min(lines, 6) - max(lines-7, 0); int(asked.Load()) != want { // case 6 is never asked
			t.Fatalf("cut at %d behind %d lines: %d asked, want %d", cut, lines, asked.Load(), want)
		}
	}
}

// TestOther leaves files alone that are not its own.
func TestOther(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"text":              "hello",
		"a line of text":    "hello\n",
		"JSON":              `{"a":1}` + "\n",
		"of another source": `{"n":0,"case":"other","outputs":{}}` + "\n",
		"not in order":      `{"n":1,"case":"case-1","outputs":{}}` + "\n",
		"more than we have": `{"n":0,"case":"case-0","outputs":{}}` + "\n" + `{"n":1,"case":"case-1","outputs":{}}` + "\n" + `{"n":2,"case":"case-2","outputs":{}}` + "\n",
		"no answer":         `{"n":0,"case":"case-0"}` + "\n",
	} {
		out := filepath.Join(dir, "out")
		if err := os.WriteFile(out, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Run(t.Context(), Config{Source: count(2), FS: durable.OS{}, Out: out, Ask: echo})
		if !errors.Is(err, ErrOther) || read(t, out) != text {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// TestWaits asks again when it may help, not for ever, and stops where it cannot go
// on; what was answered stays, and another run finishes.
func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "out")
		busy := 5
		c := Config{Source: count(3), FS: durable.OS{}, Out: out, Parallel: 1, Ask: func(ctx context.Context, q Question) ([]byte, error) {
			if busy--; busy >= 0 {
				return nil, fmt.Errorf("busy: %w", ErrWait)
			}
			return echo(ctx, q)
		}}
		if r, err := Run(t.Context(), c); err != nil || r.Done != 3 || r.Failed != 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		if err := os.Remove(out); err != nil {
			t.Fatal(err)
		}
		for _, stop := range []error{ErrWait, ErrStop} {
			good := c
			good.Ask = func(ctx context.Context, q Question) ([]byte, error) {
				if string(q.JSON) == "1" {
					return nil, fmt.Errorf("no: %w", stop)
				}
				return echo(ctx, q)
			}
			if r, err := Run(t.Context(), good); !errors.Is(err, stop) || r.Done != 1 {
				t.Fatalf("%v: %+v, %v", stop, r, err)
			}
		}
		if r, err := Run(t.Context(), c); err != nil || r.Done != 3 || r.Before != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
	})
}

// TestCancel ends a run in the middle; it returns when nothing of it runs any more.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := Config{Source: count(100), FS: durable.OS{}, Out: filepath.Join(t.TempDir(), "out"), Parallel: 4}
		c.Ask = func(ctx context.Context, q Question) ([]byte, error) {
			if string(q.JSON) == "22" {
				cancel()
			}
			<-time.After(time.Millisecond)
			return echo(ctx, q)
		}
		r, err := Run(ctx, c)
		if !errors.Is(err, context.Canceled) || r.Done < 15 || r.Done > 23 {
			t.Fatalf("%+v, %v", r, err)
		}
	})
}

// npy writes an array of FP32 as numpy does.
func npy(shape string, values ...float32) []byte {
	var b bytes.Buffer
	head := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }", shape)
	b.WriteString("\x93NUMPY\x01\x00")
	b.Write([]byte{byte(len(head)), 0})
	b.WriteString(head)
	for _, v := range values {
		b.Write(le(v))
	}
	return b.Bytes()
}

// TestSources reads cases of each kind.
func TestSources(t *testing.T) {
	dir := t.TempDir()
	put := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one := []Tensor{{"x", "FP32", []int{1, 2}}}
	put("folder/b.npy", npy("1, 2", 3, 4))
	put("folder/a.npy", npy("2,", 1, 2))
	put("folder/c.json", []byte(`{"inputs":[]}`))
	put("folder/d.npy", npy("3,", 1, 2, 3))
	put("folder/e.npz", []byte("no zip"))
	put("folder/f.JPG", []byte("a photo"))
	put("folder/notes.txt", nil)
	head := `{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}]}`
	type got struct{ Name, JSON, Tensors, Err string }
	for _, c := range []struct {
		path   string
		inputs []Tensor
		want   []got
	}{
		{filepath.Join(dir, "folder"), one, []got{
			{"a.npy", head, string(le(1)) + string(le(2)), ""},
			{"b.npy", head, string(le(3)) + string(le(4)), ""},
			{"c.json", `{"inputs":[]}`, "", ""},
			{"d.npy", "", "", "[1 2] is wanted"},
			{"e.npz", "", "", "no .npz file"},
			{"f.JPG", `{"inputs":[{"datatype":"BYTES","name":"x","parameters":{"binary_data_size":11},"shape":[1]}]}`, "\x07\x00\x00\x00a photo", ""},
		}},
		{put("rows.npz", npz("x", npy("3, 2", 1, 2, 3, 4, 5, 6))), one, []got{
			{"rows.npz#0", head, string(le(1)) + string(le(2)), ""},
			{"rows.npz#1", head, string(le(3)) + string(le(4)), ""},
			{"rows.npz#2", head, string(le(5)) + string(le(6)), ""},
		}},
		{put("table.csv", []byte("first,second\n1, 2\n3,x\n5,6\n")), one, []got{
			{"table.csv#0", `{"inputs":[{"data":[1,2],"datatype":"FP32","name":"x","shape":[1,2]}]}`, "", ""},
			{"table.csv#1", "", "", "is no number"},
			{"table.csv#2", `{"inputs":[{"data":[5,6],"datatype":"FP32","name":"x","shape":[1,2]}]}`, "", ""},
		}},
		{put("short.csv", []byte("1\n2\n")), one, []got{{"short.csv#0", "", "", "1 numbers, 2 are wanted"}, {"short.csv#1", "", "", "1 numbers, 2 are wanted"}}},
	} {
		s, err := Open(c.path, c.inputs)
		if err != nil {
			t.Fatal(c.path, err)
		}
		var have []got
		for i := range s.Len() {
			q, err := s.Question(i)
			g := got{s.Name(i), string(q.JSON), string(q.Tensors), ""}
			if err != nil {
				g = got{Name: s.Name(i), Err: err.Error()}
				if i < len(c.want) && c.want[i].Err != "" && strings.Contains(g.Err, c.want[i].Err) {
					g.Err = c.want[i].Err
				}
			}
			have = append(have, g)
		}
		if d := cmp.Diff(c.want, have); d != "" {
			t.Errorf("%s: %s", c.path, d)
		}
	}
	for says, path := range map[string]string{
		"are not read":           put("a.txt", nil),
		"no such file":           filepath.Join(dir, "nothing.npz"),
		"there is no array":      put("other.npz", npz("y", npy("1, 2", 1, 2))),
		"cases of this kind":     filepath.Dir(put("empty/readme.md", nil)),
		"wrong number of fields": put("ragged.csv", []byte("1,2\n3\n")),
	} {
		if _, err := Open(path, one); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "table.csv"), append(one, one...)); err == nil {
		t.Error("a .csv for two inputs")
	}
}

func le(v float32) []byte { return binary.LittleEndian.AppendUint32(nil, math.Float32bits(v)) }

// npz is an archive of one array.
func npz(name string, array []byte) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create(name + ".npy")
	if err == nil {
		_, err = w.Write(array)
	}
	if err := errors.Join(err, z.Close()); err != nil {
		panic(err) // a buffer takes everything
	}
	return b.Bytes()
}
