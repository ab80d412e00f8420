package infertest

import (
	"math"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

func TestMain(m *testing.M) { Main(m) }

// TestWorker is the whole way through a worker in short, so that it can also run
// where everything is emulated: golden answers, a death and a replacement, and
// what is told of the layers round it.
func TestWorker(t *testing.T) {
	s, _ := Server(t)
	slot := Digits(t, "1.0.0")
	if err := s.Activate(t.Context(), slot); err != nil {
		t.Fatal(err)
	}
	images := Array(t, filepath.Join(slot.Dir, "golden.npz"), "image")
	scores := Array(t, filepath.Join(slot.Dir, "golden.npz"), "scores")
	for i := range 6 {
		if i == 3 {
			syscall.Kill(s.Status()[0].PID, syscall.SIGKILL)
		}
		a, err := s.Infer(t.Context(), "digits", [][]byte{images.Row(i)})
		if err != nil {
			t.Fatal(err)
		}
		want := bundle.Values("FP32", scores.Row(i))
		for k, x := range bundle.Values("FP32", a.Outputs[0]) {
			if !(math.Abs(x-want[k]) < 1e-3) {
				t.Fatalf("case %d, score %d: %v, want %v", i, k, x, want[k])
			}
		}
	}
	if st := s.Status()[0]; st.Restarts != 1 {
		t.Errorf("%+v, want one restart", st)
	}
	for _, l := range s.Posture() {
		if l.Name == "no_new_privs" && l.Have == Emulated() {
			t.Errorf("%+v, emulated %v", l, Emulated())
		}
	}
}
