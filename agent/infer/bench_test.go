package infer_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer/infertest"
)

// BenchmarkHop is one request through router, worker and runtime; hop-us is what
// router and process add to the runtime's own run of the same requests.
func BenchmarkHop(b *testing.B) {
	s, m := infertest.Server(b)
	activate(b, s, infertest.Digits(b, "1.0.0"))
	images, _ := heldOut(b)
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		if _, err := s.Infer(b.Context(), "digits", [][]byte{images[len(took)%len(images)]}); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	q, err := m.Take(true)[0].Latency.Decode()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1000-q.Quantile(0.5), "hop-p50-us")
}

// BenchmarkSpawn is the time from nothing to a first result.
func BenchmarkSpawn(b *testing.B) {
	for _, release := range []string{"1.0.0", "1.1.0"} {
		b.Run(release, func(b *testing.B) {
			s, _ := infertest.Server(b)
			slot := infertest.Digits(b, release)
			for b.Loop() {
				activate(b, s, slot)
			}
		})
	}
}

// BenchmarkSwitch switches under requests: stall-us is the longest that one
// waited over all switches, lost how many had no answer.
func BenchmarkSwitch(b *testing.B) {
	s, _ := infertest.Server(b)
	slots := []string{"1.0.0", "1.1.0"}
	activate(b, s, infertest.Digits(b, slots[0]))
	images, _ := heldOut(b)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var lost, longest, requests atomic.Int64
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			began := time.Now()
			if _, err := s.Infer(b.Context(), "digits", [][]byte{images[i%len(images)]}); err != nil {
				lost.Add(1)
			}
			requests.Add(1)
			longest.Store(max(longest.Load(), time.Since(began).Microseconds()))
		}
	})
	i := 0
	for b.Loop() {
		i++
		activate(b, s, infertest.Digits(b, slots[i%2]))
	}
	close(stop)
	wg.Wait()
	b.ReportMetric(float64(longest.Load()), "stall-us")
	b.ReportMetric(float64(lost.Load()), "lost")
	b.ReportMetric(float64(requests.Load()), "requests")
}

// BenchmarkWorkerMemory tells the proportional memory of an idle worker beyond
// its model file.
func BenchmarkWorkerMemory(b *testing.B) {
	s, _ := infertest.Server(b)
	slot := infertest.Digits(b, "1.1.0")
	activate(b, s, slot)
	st, err := os.Stat(filepath.Join(slot.Dir, "model.tflite"))
	if err != nil {
		b.Fatal(err)
	}
	var kb float64
	for b.Loop() {
		kb = pss(b, s.Status()[0].PID)
	}
	b.ReportMetric(kb/1024, "pss-MB")
	b.ReportMetric((kb-float64(st.Size())/1024)/1024, "beyond-model-MB")
}

func pss(tb testing.TB, pid int) float64 {
	for line := range strings.Lines(read(tb, filepath.Join("/proc", strconv.Itoa(pid)), "smaps_rollup")) {
		if v, ok := strings.CutPrefix(line, "Pss:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(v)[0], 64)
			if err != nil {
				tb.Fatal(err)
			}
			return kb
		}
	}
	tb.Fatal(fmt.Errorf("process %d tells no Pss", pid))
	return 0
}
