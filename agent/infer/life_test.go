package infer_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/infertest"
	"github.com/dunlin-edge/dunlin/agent/observe"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// heldOut are the images that clients send, with their labels.
func heldOut(tb testing.TB) (images [][]byte, labels []int) {
	file := filepath.Join(infertest.Root(tb), "testbed", "models", "digits", "test.npz")
	im, la := infertest.Array(tb, file, "images"), infertest.Array(tb, file, "labels")
	for i := range im.Len() {
		images = append(images, im.Row(i))
		labels = append(labels, int(bundle.Values(la.DType, la.Row(i))[0]))
	}
	return images, labels
}

func class(out []byte) int {
	best := 0
	v := bundle.Values("FP32", out)
	for i, x := range v {
		if x > v[best] {
			best = i
		}
	}
	return best
}

func activate(tb testing.TB, s *infer.Server, slot infer.Slot) {
	tb.Helper()
	if err := s.Activate(tb.Context(), slot); err != nil {
		tb.Fatal(err)
	}
}

// until waits for something that another process does.
func until(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatalf("%s: not within 20 s", what)
		}
	}
}

// gone tells whether no process has the number.
func gone(pid int) func() bool {
	return func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH }
}

func TestAnswersAreRight(t *testing.T) {
	s, _ := infertest.Server(t)
	images, labels := heldOut(t)
	for release, least := range map[string]float64{"1.0.0": 0.88, "1.1.0": 0.96} {
		activate(t, s, infertest.Digits(t, release))
		right := 0
		for i, x := range images {
			a, err := s.Infer(t.Context(), "digits", [][]byte{x})
			if err != nil || a.Slot.Version != release {
				t.Fatal(a.Slot.Version, err)
			}
			if class(a.Outputs[0]) == labels[i] {
				right++
			}
		}
		if share := float64(right) / float64(len(images)); share < least {
			t.Errorf("%s: %.3f right, at least %.2f wanted", release, share, least)
		}
	}
}

// TestSwitchUnderLoad changes the active slot back and forth under requests: each
// is answered, by one of the two, and the workers that were left are gone. The
// models carry state, so that no request is tried a second time.
func TestSwitchUnderLoad(t *testing.T) {
	s, m := infertest.Server(t)
	a, b := infertest.Digits(t, "1.0.0"), infertest.Digits(t, "1.1.0")
	a.Contract.State, b.Contract.State = "carry", "carry"
	activate(t, s, a)
	images, _ := heldOut(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var answered, longest atomic.Int64
	for c := range 4 {
		wg.Go(func() {
			for i := c; ctx.Err() == nil; i++ {
				began := time.Now()
				have, err := s.Infer(context.WithoutCancel(ctx), "digits", [][]byte{images[i%len(images)]})
				if err != nil || have.Slot.Version == "" {
					t.Errorf("lost: %v", err)
					return
				}
				answered.Add(1)
				for took := time.Since(began).Nanoseconds(); ; {
					if old := longest.Load(); took <= old || longest.CompareAndSwap(old, took) {
						break
					}
				}
			}
		})
	}
	var pids []int
	for i := range 10 {
		pids = append(pids, s.Status()[0].PID)
		activate(t, s, []infer.Slot{b, a}[i%2])
	}
	cancel()
	wg.Wait()
	t.Logf("%d requests over 10 switches, the longest took %v", answered.Load(), time.Duration(longest.Load()))
	for _, pid := range pids {
		if !gone(pid)() {
			t.Errorf("worker %d is still there", pid)
		}
	}
	var counted uint64
	for _, w := range m.Take(true) {
		counted += w.Requests
	}
	if counted != uint64(answered.Load()) {
		t.Errorf("%d requests were observed, %d answered", counted, answered.Load())
	}
}

// TestDeadWorkerIsReplaced kills the worker under load: its requests are tried
// again and none is lost.
func TestDeadWorkerIsReplaced(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSEGV} {
		t.Run(sig.String(), func(t *testing.T) {
			s, m := infertest.Server(t)
			slot := infertest.Digits(t, "slow")
			activate(t, s, slot)
			m.Begin(slot.Key)
			images, _ := heldOut(t)
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						if _, err := s.Infer(context.WithoutCancel(ctx), "digits", [][]byte{images[i]}); err != nil {
							t.Errorf("lost: %v", err)
						}
					}
				})
			}
			pid := s.Status()[0].PID
			if err := syscall.Kill(pid, sig); err != nil {
				t.Fatal(err)
			}
			until(t, "another worker", func() bool { st := s.Status()[0]; return st.PID != pid && st.PID != 0 && st.Restarts == 1 })
			cancel()
			wg.Wait()
			t.Log(s.Status()[0].LastWords)
			if v := m.Judge(slot.Key, observe.Expect{}, 0); v.Code != "probation.crash" {
				t.Errorf("verdict %+v, want probation.crash", v)
			}
		})
	}
}

// TestRollbackWhileDead switches away from a slot whose worker is dead and cannot
// come back: those who wait for it are answered by the other.
func TestRollbackWhileDead(t *testing.T) {
	s, _ := infertest.Server(t)
	bad := infertest.Digits(t, "1.1.0")
	dir := t.TempDir()
	copyFile(t, filepath.Join(bad.Dir, "model.tflite"), filepath.Join(dir, "model.tflite"))
	bad.Dir = dir
	activate(t, s, bad)
	images, _ := heldOut(t)
	if err := os.Remove(filepath.Join(dir, "model.tflite")); err != nil {
		t.Fatal(err)
	}
	pid := s.Status()[0].PID
	syscall.Kill(pid, syscall.SIGKILL)
	until(t, "the worker's end", func() bool { return s.Status()[0].PID == 0 })
	if s.Ready("digits") {
		t.Error("ready without a worker")
	}
	type answer struct {
		by  infer.Slot
		err error
	}
	answers := make(chan answer, 5)
	for range cap(answers) {
		go func() {
			a, err := s.Infer(t.Context(), "digits", [][]byte{images[0]})
			answers <- answer{a.Slot, err}
		}()
	}
	activate(t, s, infertest.Digits(t, "1.0.0"))
	for range cap(answers) {
		if a := <-answers; a.err != nil || a.by.Version != "1.0.0" {
			t.Errorf("answered by %q, %v", a.by.Version, a.err)
		}
	}
}

// TestHangIsKilled stops the worker's process under a request: the deadline kills
// it and the request is answered by the next.
func TestHangIsKilled(t *testing.T) {
	s, _ := infertest.Server(t)
	slot := infertest.Digits(t, "1.1.0")
	slot.Contract.Budgets[0].LatencyP95US = 6000 // far over it is a hang
	activate(t, s, slot)
	images, _ := heldOut(t)
	syscall.Kill(s.Status()[0].PID, syscall.SIGSTOP)
	began := time.Now()
	if _, err := s.Infer(t.Context(), "digits", [][]byte{images[0]}); err != nil {
		t.Fatal(err)
	}
	st := s.Status()[0]
	if st.Restarts != 1 || !strings.Contains(st.LastWords, "deadline") {
		t.Errorf("%+v after %v", st, time.Since(began))
	}
}

// TestStateIsNotRetried tells the caller of a model with state that it is lost.
func TestStateIsNotRetried(t *testing.T) {
	s, _ := infertest.Server(t)
	slot := infertest.Digits(t, "1.1.0")
	slot.Contract.State = "carry"
	slot.Contract.Budgets[0].LatencyP95US = 6000
	activate(t, s, slot)
	images, _ := heldOut(t)
	syscall.Kill(s.Status()[0].PID, syscall.SIGSTOP)
	if _, err := s.Infer(t.Context(), "digits", [][]byte{images[0]}); !errors.Is(err, infer.ErrReset) {
		t.Fatalf("%v, want ErrReset", err)
	}
	if _, err := s.Infer(t.Context(), "digits", [][]byte{images[0]}); err != nil {
		t.Fatalf("the next request: %v", err)
	}
}

// TestQueueIsBounded refuses what is too much at once and says so.
func TestQueueIsBounded(t *testing.T) {
	s, _ := infertest.Server(t)
	activate(t, s, infertest.Digits(t, "1.1.0"))
	images, _ := heldOut(t)
	pid := s.Status()[0].PID
	syscall.Kill(pid, syscall.SIGSTOP)
	var wg sync.WaitGroup
	var busy, answered atomic.Int64
	for range 300 {
		wg.Go(func() {
			switch _, err := s.Infer(t.Context(), "digits", [][]byte{images[0]}); {
			case errors.Is(err, infer.ErrBusy):
				busy.Add(1)
			case err == nil:
				answered.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	until(t, "refusals", func() bool { return busy.Load() == 300-128 })
	syscall.Kill(pid, syscall.SIGCONT)
	wg.Wait()
	if answered.Load() != 128 {
		t.Errorf("%d answered, 128 wanted", answered.Load())
	}
}

func TestErrors(t *testing.T) {
	s, m := infertest.Server(t)
	if _, err := s.Infer(t.Context(), "digits", nil); !errors.Is(err, infer.ErrUnknown) {
		t.Errorf("unknown model: %v", err)
	}
	activate(t, s, infertest.Digits(t, "1.0.0"))
	for _, in := range [][][]byte{nil, {make([]byte, 255)}, {make([]byte, 256), nil}} {
		if _, err := s.Infer(t.Context(), "digits", in); !errors.Is(err, infer.ErrInputs) {
			t.Errorf("%d inputs: %v", len(in), err)
		}
	}
	if got := m.Take(true); len(got) != 0 {
		t.Errorf("bad requests were held against the model: %+v", got)
	}
	if err := s.Activate(t.Context(), infertest.Digits(t, "crash")); err == nil {
		t.Error("a model that crashes was made active")
	}
	if a, _ := s.Active("digits"); a.Version != "1.0.0" {
		t.Errorf("active is %q after an activation that did not succeed", a.Version)
	}
	s.Deactivate("digits")
	if _, err := s.Infer(t.Context(), "digits", nil); !errors.Is(err, infer.ErrUnknown) {
		t.Errorf("deactivated model: %v", err)
	}
}

// TestCloseLeavesNobody closes while a worker is dead, and while one runs.
func TestCloseLeavesNobody(t *testing.T) {
	s, _ := infertest.Server(t)
	activate(t, s, infertest.Digits(t, "1.0.0"))
	pid := s.Status()[0].PID
	syscall.Kill(pid, syscall.SIGKILL)
	s.Close()
	if !gone(pid)() {
		t.Error("the dead worker was not waited for")
	}
	if err := s.Activate(t.Context(), infertest.Digits(t, "1.0.0")); err == nil {
		t.Error("a closed server took a slot")
	}
}

// TestSandbox looks at the limits of a live worker from outside.
func TestSandbox(t *testing.T) {
	s, _ := infertest.Server(t)
	activate(t, s, infertest.Digits(t, "1.0.0"))
	proc := filepath.Join("/proc", strconv.Itoa(s.Status()[0].PID))
	limits, status, env := read(t, proc, "limits"), read(t, proc, "status"), read(t, proc, "environ")
	for what, ok := range map[string]bool{
		"no core file":        strings.Contains(limits, "Max core file size        0                    0 "),
		"64 files":            strings.Contains(limits, "Max open files            64                   64 "),
		"data is bounded":     strings.Contains(limits, "Max data size             536870912            536870912 "),
		"no new privileges":   strings.Contains(status, "NoNewPrivs:\t1"),
		"an environment of 1": env == "GOMAXPROCS=2\x00",
	} {
		if !ok {
			t.Errorf("%s: not so\n%s%s", what, limits, env)
		}
	}
}

func read(tb testing.TB, dir, name string) string {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

func copyFile(tb testing.TB, from, to string) {
	tb.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// TestCacheOfPackedWeights builds it in the proof, uses it after, and does not
// use one that is damaged or another's: both would give wrong answers in silence.
func TestCacheOfPackedWeights(t *testing.T) {
	c := infertest.Config(t)
	c.CacheMin = 1
	dir := c.CacheDir
	s := infer.New(c)
	t.Cleanup(s.Close)
	a := infertest.Digits(t, "1.1.0")
	if _, err := s.Prove(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.xnn"))
	if len(files) != 1 {
		t.Fatalf("packed weights: %v", files)
	}
	images, _ := heldOut(t)
	ask := func(slot infer.Slot) []float64 {
		t.Helper()
		activate(t, s, slot)
		a, err := s.Infer(t.Context(), "digits", [][]byte{images[0]})
		if err != nil {
			t.Fatal(err)
		}
		return bundle.Values("FP32", a.Outputs[0])
	}
	plain, _ := infertest.Server(t)
	activate(t, plain, a)
	first, err := plain.Infer(t.Context(), "digits", [][]byte{images[0]})
	if err != nil {
		t.Fatal(err)
	}
	want := bundle.Values("FP32", first.Outputs[0])
	same := func(have []float64) bool {
		for i := range want {
			if math.Abs(have[i]-want[i]) > 1e-5 || math.IsNaN(have[i]) {
				return false
			}
		}
		return true
	}
	if have := ask(a); !same(have) {
		t.Errorf("with packed weights %v, without %v", have, want)
	}
	if maps := read(t, filepath.Join("/proc", strconv.Itoa(s.Status()[0].PID)), "maps"); !strings.Contains(maps, filepath.Base(files[0])) {
		t.Error("the packed weights are not in use")
	}
	b, err := os.ReadFile(files[0])
	if err != nil || len(b) < 4096 {
		t.Fatalf("%d bytes of packed weights, %v", len(b), err)
	}
	for i := 1024; i+4 < len(b); i += 4 {
		binary.LittleEndian.PutUint32(b[i:], math.Float32bits(float32(math.NaN())))
	}
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	if have := ask(a); !same(have) {
		t.Errorf("with damaged packed weights %v, without %v", have, want)
	}
	// Whole, but the runtime wants nothing of it: the worker starts without.
	if err := os.WriteFile(files[0], []byte("no weights"), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("no weights"))
	if err := os.WriteFile(files[0]+".sha256", []byte(hex.EncodeToString(sum[:])+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if have := ask(a); !same(have) {
		t.Errorf("with useless packed weights %v, without %v", have, want)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}
