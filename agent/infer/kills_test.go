package infer_test

import (
	"context"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/infertest"
)

// load asks without a pause from several clients and compares each answer with
// what the model says of that image when nothing is wrong.
type load struct {
	answered, wrong, lost atomic.Int64
	wg                    sync.WaitGroup
	stop                  context.CancelFunc
}

func startLoad(t *testing.T, s *infer.Server, clients int) *load {
	t.Helper()
	images, _ := heldOut(t)
	images = images[:64]
	want := make([]string, len(images))
	for i, x := range images {
		a, err := s.Infer(t.Context(), "digits", [][]byte{x})
		if err != nil {
			t.Fatal(err)
		}
		want[i] = string(a.Outputs[0])
	}
	l := &load{}
	ctx, cancel := context.WithCancel(t.Context())
	l.stop = cancel
	for c := range clients {
		l.wg.Go(func() {
			for i := c; ctx.Err() == nil; i++ {
				a, err := s.Infer(context.WithoutCancel(ctx), "digits", [][]byte{images[i%len(images)]})
				switch {
				case err != nil:
					l.lost.Add(1)
					t.Errorf("lost: %v", err)
					return
				case string(a.Outputs[0]) != want[i%len(want)]:
					l.wrong.Add(1)
				}
				l.answered.Add(1)
			}
		})
	}
	return l
}

func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

// TestKilledUnderLoad kills a worker at a random moment again and again: every
// request is answered, and rightly, and this process keeps nothing of the dead.
func TestKilledUnderLoad(t *testing.T) {
	kills := 1000
	if testing.Short() {
		kills = 50
	}
	c := infertest.Config(t)
	c.Workers = 2
	s := infer.New(c)
	t.Cleanup(s.Close)
	activate(t, s, infertest.Digits(t, "1.1.0"))
	l := startLoad(t, s, 8)
	until(t, "both workers", func() bool { return len(s.Status()[0].PIDs) == 2 })
	var memory, files []float64
	for killed := 0; killed < kills; {
		st := s.Status()[0]
		for len(st.PIDs) == 0 {
			waitAnswers(t, l, 1)
			st = s.Status()[0]
		}
		waitAnswers(t, l, 30+rand.Int64N(60))
		syscall.Kill(st.PIDs[rand.N(len(st.PIDs))], syscall.SIGKILL) // gone already: the next one then
		if n := s.Status()[0].Restarts; n/(kills/10) > killed/(kills/10) {
			killed = n
			memory, files = append(memory, pss(t, syscall.Getpid())/1024), append(files, float64(openFiles(t)))
		}
	}
	l.end()
	st := s.Status()[0]
	t.Logf("%d workers killed and replaced, %d requests answered, %d lost, %d wrong; memory in MB after each tenth %.0f, descriptors %.0f",
		st.Restarts, l.answered.Load(), l.lost.Load(), l.wrong.Load(), memory, files)
	if l.lost.Load() != 0 || l.wrong.Load() != 0 {
		t.Error("not every request had its right answer")
	}
	if last := len(files) - 1; files[last] > files[0]+16 {
		t.Errorf("descriptors grew from %.0f to %.0f", files[0], files[last])
	}
	if last := len(memory) - 1; memory[last] > 1.5*memory[1]+16 {
		t.Errorf("memory grew from %.1f to %.1f MB", memory[1], memory[last])
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// waitAnswers waits for more answers.
func waitAnswers(t *testing.T, l *load, more int64) {
	t.Helper()
	from := l.answered.Load()
	until(t, "answers", func() bool { return l.answered.Load() >= from+more || l.lost.Load() > 0 })
}

// TestLeakIsReplaced lets a worker's memory grow, as far as the server can see: it
// is replaced under load before anybody notices, and once only.
func TestLeakIsReplaced(t *testing.T) {
	c := infertest.Config(t)
	s := infer.New(c)
	t.Cleanup(s.Close)
	var leaky atomic.Int64
	var kb atomic.Int64
	s.LookAt(2*time.Millisecond, func(pid int) int64 {
		if leaky.CompareAndSwap(0, int64(pid)); leaky.Load() == int64(pid) {
			return kb.Add(20 << 10)
		}
		return 20 << 10
	})
	slot := infertest.Digits(t, "1.1.0")
	activate(t, s, slot)
	l := startLoad(t, s, 4)
	until(t, "another worker", func() bool { return s.Status()[0].Recycled == 1 })
	waitAnswers(t, l, 500)
	l.end()
	st := s.Status()[0]
	if l.wrong.Load() != 0 || st.Restarts != 0 || st.Recycled != 1 || st.PID == int(leaky.Load()) {
		t.Errorf("%+v, %d wrong", st, l.wrong.Load())
	}
	if !gone(int(leaky.Load()))() {
		t.Error("the leaking worker is still there")
	}
}

// TestReasons gives each end of a worker its name.
func TestReasons(t *testing.T) {
	for sig, want := range map[syscall.Signal]string{
		syscall.SIGKILL: "(killed)", syscall.SIGTERM: "(signal): terminated", syscall.SIGSEGV: "(crash)", syscall.SIGILL: "(illegal_instruction)",
	} {
		t.Run(sig.String(), func(t *testing.T) {
			s, _ := infertest.Server(t)
			activate(t, s, infertest.Digits(t, "1.0.0"))
			syscall.Kill(s.Status()[0].PID, sig)
			until(t, "its end", func() bool { return s.Status()[0].Restarts == 1 })
			if words := s.Status()[0].LastWords; !strings.Contains(words, want) {
				t.Errorf("%q, want %s", words, want)
			}
		})
	}
}
