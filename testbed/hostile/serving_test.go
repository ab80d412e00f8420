package hostile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/infertest"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/tflite"
)

// TestServesThroughHostileModels brings every hostile file before the static check and,
// whatever that says, before the runtime in its worker, while another model answers
// requests without a pause: each answer is the right one and comes from the same
// process, each file gets a verdict with a reason, and no other file changes.
func TestServesThroughHostileModels(t *testing.T) {
	digits := filepath.Join(infertest.Root(t), "testbed", "models", "digits")
	var whole [][]byte
	for _, release := range []string{"1.0.0", "1.1.0", "1.1.1"} {
		b, err := os.ReadFile(filepath.Join(digits, release, "model.tflite"))
		if err != nil {
			t.Fatal(err)
		}
		whole = append(whole, b)
	}
	files := Files(whole, 7)
	if len(files) < 500 {
		t.Fatalf("only %d files", len(files))
	}
	s, _ := infertest.Server(t)
	active := infertest.Digits(t, "1.1.0")
	if err := s.Activate(t.Context(), active); err != nil {
		t.Fatal(err)
	}
	pid := s.Status()[0].PID
	stop := ask(t, s, filepath.Join(digits, "test.npz"))
	outside := t.TempDir()
	for _, name := range []string{"device.key", "state.db", "other-slot/model.tflite"} {
		path := filepath.Join(outside, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(name), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	before := sums(t, outside, digits)
	static, proof, dir := map[string]int{}, map[string]map[string]int{}, t.TempDir()
	for _, f := range files {
		checked, proven := verdict(t, s, active, dir, f)
		if proof[f.Family] == nil {
			proof[f.Family] = map[string]int{}
		}
		proof[f.Family][proven]++
		if checked != "" {
			static[f.Family]++
		}
		// What it computes and how much of it no static check can know.
		if checked == "" && (proven == "prove.crash" || proven == "prove.hang" && f.Family != "endless loop") {
			t.Errorf("%s, %s: the static check lets it pass, and the worker ends with %s", f.Family, f.Name, proven)
		}
	}
	asked := stop()
	for family, codes := range proof {
		t.Logf("%-24s refused by the static check: %3d; in the worker: %v", family, static[family], codes)
	}
	t.Logf("%d files, %d requests answered meanwhile", len(files), asked)
	if st := s.Status()[0]; st.PID != pid || st.Restarts != 0 || st.Recycled != 0 {
		t.Errorf("the worker that serves was touched: %+v", st)
	}
	if after := sums(t, outside, digits); !slices.Equal(before, after) {
		t.Errorf("files changed:\n%v\n%v", before, after)
	}
	if asked < len(files) {
		t.Errorf("only %d requests in all this time", asked)
	}
}

// verdict is what the static check says, "" when nothing, and the code of the proof,
// "" when it passes. Both have a reason, or the test fails.
func verdict(t *testing.T, s *infer.Server, like infer.Slot, dir string, f File) (checked, proven string) {
	t.Helper()
	m, err := tflite.Parse(f.Bytes)
	switch {
	case err != nil:
		checked = err.Error()
	default:
		if p := tflite.Check(m, tflite.Policy{}); p != nil {
			checked = fmt.Sprint(p)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "model.tflite"), f.Bytes, 0o600); err != nil {
		t.Fatal(err)
	}
	slot := like
	slot.Dir = dir
	c := *like.Contract
	c.Golden = nil
	slot.Contract, slot.Key.Bundle = &c, bundle.DigestOf(f.Bytes)
	if m != nil && err == nil {
		// The contract that its maker would give it.
		if in, out, err := bundle.Describe(m); err == nil {
			c.Inputs, c.Outputs = in, out
		}
	}
	_, err = s.Prove(t.Context(), slot)
	var r *infer.Refusal
	switch {
	case errors.As(err, &r):
		if r.Reason == "" {
			t.Errorf("%s, %s: %s without a reason", f.Family, f.Name, r.Code)
		}
		return checked, r.Code
	case err != nil:
		t.Errorf("%s, %s: no verdict: %v", f.Family, f.Name, err)
	}
	return checked, ""
}

// ask sends requests until the returned function is called, which says how many were
// answered. Each answer is compared with the first one to the same image.
func ask(t *testing.T, s *infer.Server, npz string) (stop func() int) {
	t.Helper()
	images := infertest.Array(t, npz, "images")
	want := make([]string, 50)
	for i := range want {
		a, err := s.Infer(t.Context(), "digits", [][]byte{images.Row(i)})
		if err != nil {
			t.Fatal(err)
		}
		want[i] = string(a.Outputs[0])
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	n := 0
	wg.Go(func() {
		for ; ctx.Err() == nil; n++ {
			i := n % len(want)
			a, err := s.Infer(context.WithoutCancel(ctx), "digits", [][]byte{images.Row(i)})
			if err != nil || string(a.Outputs[0]) != want[i] {
				t.Errorf("request %d: another answer, or %v", n, err)
				return
			}
		}
	})
	return func() int { cancel(); wg.Wait(); return n }
}

// sums lists every file below the folders with its hash.
func sums(t *testing.T, dirs ...string) []string {
	t.Helper()
	var out []string
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			h := sha256.Sum256(b)
			out = append(out, strings.TrimPrefix(path, dir)+" "+hex.EncodeToString(h[:]))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}
