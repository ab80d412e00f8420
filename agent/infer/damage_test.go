package infer_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/infertest"
)

// TestDamagedModels proves a model that is cut or flipped at many places while a
// whole one serves: each proof ends with a verdict, and what serves goes on.
func TestDamagedModels(t *testing.T) {
	s, _ := infertest.Server(t)
	activate(t, s, infertest.Digits(t, "1.0.0"))
	images, _ := heldOut(t)
	pid := s.Status()[0].PID
	whole := infertest.Digits(t, "1.0.0")
	b, err := os.ReadFile(filepath.Join(whole.Dir, "model.tflite"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	copyFile(t, filepath.Join(whole.Dir, "golden.npz"), filepath.Join(dir, "golden.npz"))
	rng := rand.New(rand.NewPCG(5, 6))
	codes := map[string]int{}
	for i := range 100 {
		bad := append([]byte{}, b...)
		if i < 40 {
			bad = bad[:len(bad)*i/40]
		} else {
			for range 1 + i%4*i%3 {
				bad[rng.IntN(len(bad))] ^= byte(1 + rng.IntN(255))
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "model.tflite"), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		slot := whole
		slot.Dir = dir
		_, err := s.Prove(t.Context(), slot)
		var r *infer.Refusal
		switch {
		case err == nil:
			codes["passed"]++
		case errors.As(err, &r):
			codes[r.Code]++
		default:
			t.Fatal(err)
		}
		if i < 40 && err == nil {
			t.Errorf("a model cut to %d bytes passed", len(bad))
		}
		if _, err := s.Infer(t.Context(), "digits", [][]byte{images[i]}); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(codes)
	if st := s.Status()[0]; st.PID != pid || st.Restarts != 0 {
		t.Errorf("the serving worker was touched: %+v", st)
	}
}

// TestProofIsCalledOff: the agent stops while a worker starts; that says nothing
// about the model.
func TestProofIsCalledOff(t *testing.T) {
	s, _ := infertest.Server(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var r *infer.Refusal
	if _, err := s.Prove(ctx, infertest.Digits(t, "1.0.0")); err == nil || errors.As(err, &r) {
		t.Errorf("%v, want another error than a refusal", err)
	}
}

// TestMissingThings are errors that say what is missing.
func TestMissingThings(t *testing.T) {
	s, _ := infertest.Server(t)
	for name, change := range map[string]func(*infer.Slot){
		"the model":   func(s *infer.Slot) { s.Dir = t.TempDir() },
		"the runtime": func(s *infer.Slot) { s.Library = "/nonexistent/libLiteRt.so" },
	} {
		slot := infertest.Digits(t, "1.0.0")
		change(&slot)
		if err := s.Activate(t.Context(), slot); err == nil || !strings.Contains(err.Error(), "no such file") && !strings.Contains(err.Error(), "cannot open") {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := infertest.Config(t)
	c.Worker = "/nonexistent/dunlin-infer"
	lost := infer.New(c)
	defer lost.Close()
	if err := lost.Activate(t.Context(), infertest.Digits(t, "1.0.0")); err == nil || !strings.Contains(err.Error(), "exec") {
		t.Errorf("the worker: %v", err)
	}
}

// TestHolder is no test but the process that TestOrphanEnds kills: it starts a
// worker on a library that is a pipe nobody writes, so that the worker hangs.
func TestHolder(t *testing.T) {
	library := os.Getenv("DUNLIN_TEST_HOLD")
	if library == "" {
		return
	}
	s := infer.New(infertest.Config(t))
	slot := infertest.Digits(t, "1.0.0")
	slot.Library = library
	t.Fatal(s.Activate(t.Context(), slot))
}

// TestOrphanEnds: a worker whose agent was killed ends by itself, although the
// runtime is busy.
func TestOrphanEnds(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	library := filepath.Join(t.TempDir(), "pipe.so")
	if err := syscall.Mkfifo(library, 0o600); err != nil {
		t.Fatal(err)
	}
	agent := exec.Command(self, "-test.run", "^TestHolder$")
	agent.Env = append(os.Environ(), "DUNLIN_TEST_HOLD="+library, "DUNLIN_TEST_WORKER="+infertest.Worker(t))
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	worker := 0
	until(t, "a worker", func() bool {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", agent.Process.Pid))
		for _, list := range lists {
			b, _ := os.ReadFile(list)
			for _, child := range strings.Fields(string(b)) {
				if c, _ := os.ReadFile("/proc/" + child + "/cmdline"); strings.Contains(string(c), "dunlin-infer\x00-lib") {
					worker, _ = strconv.Atoi(child)
				}
			}
		}
		return worker != 0
	})
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	agent.Wait()
	// Whoever adopts it may be slow to bury it.
	until(t, "the worker's end", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", worker))
		return err != nil || strings.Contains(string(b), ") Z ")
	})
}
