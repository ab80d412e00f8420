package infer_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/infertest"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// live asks the active slot until stop, from two clients, and wants the answer of
// the release that serves to every request.
func live(tb testing.TB, s *infer.Server, version string) (stop func() (asked int64)) {
	images, _ := heldOut(tb)
	ctx, cancel := context.WithCancel(tb.Context())
	var clients sync.WaitGroup
	var asked, wrong atomic.Int64
	for c := range 2 {
		clients.Go(func() {
			for i := c; ctx.Err() == nil; i++ {
				a, err := s.Infer(context.Background(), "digits", [][]byte{images[i%len(images)]})
				if err != nil || a.Slot.Version != version {
					wrong.Add(1)
				}
				asked.Add(1)
				time.Sleep(time.Millisecond) // a client that is no flood
			}
		})
	}
	return func() int64 {
		cancel()
		clients.Wait()
		if wrong.Load() > 0 {
			tb.Errorf("%d of %d live requests were lost or answered by another", wrong.Load(), asked.Load())
		}
		return asked.Load()
	}
}

func shaded(tb testing.TB, release string, want bundle.Shadow) infer.Slot {
	slot := infertest.Digits(tb, release)
	slot.Contract.Shadow = &want
	return slot
}

// TestShadow puts candidates beside a slot that serves: what answers alike passes,
// what does not or dies is refused; no live request is lost, and nothing of it is
// served or watched.
func TestShadow(t *testing.T) {
	for release, code := range map[string]string{
		"1.1.0": "", "slow": "", "wrong": "prove.shadow", "crash": "prove.crash",
	} {
		t.Run(release, func(t *testing.T) {
			s, m := infertest.Server(t)
			activate(t, s, infertest.Digits(t, "1.0.0"))
			slot := shaded(t, release, bundle.Shadow{Share: 0.5, Minutes: 0.3, Requests: 60, Duty: 0.5, Agree: 0.8})
			stop := live(t, s, "1.0.0")
			seen, err := s.Shadow(t.Context(), slot)
			asked := stop()
			t.Logf("%d live requests: %+v %v", asked, seen, err)
			r := refusalOf(t, err)
			if codeOf(r) != code {
				t.Fatalf("%v, want %q", err, code)
			}
			if code == "" && (seen.Requests != 60 || seen.Agreed < 48 || seen.P50US == 0 || seen.LiveP95 == 0 || seen.Note != "") {
				t.Errorf("%+v", seen)
			}
			if code == "prove.shadow" && (seen.Requests == 60 || !strings.Contains(r.Reason, "the first other one: output scores: highest at element")) {
				t.Errorf("not ended early, or not named: %+v %v", seen, r)
			}
			for _, w := range m.Take(true) {
				if w.Bundle != infertest.Digits(t, "1.0.0").Key.Bundle {
					t.Errorf("%s is watched", w.Path)
				}
			}
		})
	}
}

// TestShadowUnseen: without live requests, or without anything that serves the same
// inputs, a candidate passes and it is said; who is told to stop stops.
func TestShadowUnseen(t *testing.T) {
	s, _ := infertest.Server(t)
	slot := shaded(t, "1.1.0", bundle.Shadow{Share: 1, Minutes: 0.002, Requests: 60, Duty: 1, Agree: 0.9})
	if seen, err := s.Shadow(t.Context(), slot); err != nil || !strings.Contains(seen.Note, "nothing serves") {
		t.Errorf("nothing is active: %+v %v", seen, err)
	}
	activate(t, s, infertest.Digits(t, "1.0.0"))
	if seen, err := s.Shadow(t.Context(), slot); err != nil || seen.Note != "no live request came: not seen" {
		t.Errorf("nobody asks: %+v %v", seen, err)
	}
	slot.Contract.Shadow.Minutes = 60
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := s.Shadow(ctx, slot); err != context.DeadlineExceeded {
		t.Errorf("told to stop: %v", err)
	}
	slot.Contract.Inputs[0].Shape = []int{1, 64}
	if seen, err := s.Shadow(t.Context(), slot); err != nil || !strings.Contains(seen.Note, "nothing serves that takes the same inputs") {
		t.Errorf("other inputs: %+v %v", seen, err)
	}
}

// TestShadowNeverWaits: a candidate that is far slower than what is live takes no
// more than its queue; the rest is dropped and counted.
func TestShadowNeverWaits(t *testing.T) {
	s, _ := infertest.Server(t)
	activate(t, s, infertest.Digits(t, "1.0.0"))
	stop := live(t, s, "1.0.0")
	seen, err := s.Shadow(t.Context(), shaded(t, "slow", bundle.Shadow{Share: 1, Minutes: 0.02, Requests: 1000, Duty: 0.2, Agree: 0.1}))
	asked := stop()
	// A run takes 10 ms and four times that is rest.
	if err != nil || seen.Dropped == 0 || seen.Requests > 40 || int64(seen.Requests+seen.Dropped) > asked {
		t.Errorf("%d asked: %+v %v", asked, seen, err)
	}
	t.Logf("%d asked: %+v", asked, seen)
}

// BenchmarkShadow is a live request with and without a candidate beside it, in turns:
// the ratios of p50 and p99 are what a shadow costs those who ask.
func BenchmarkShadow(b *testing.B) {
	for _, release := range []string{"1.1.0", "slow"} {
		b.Run(release, func(b *testing.B) {
			s, _ := infertest.Server(b)
			activate(b, s, infertest.Digits(b, "1.0.0"))
			images, _ := heldOut(b)
			var with, without []time.Duration
			round := func() (took []time.Duration) {
				for i := range 300 {
					began := time.Now()
					if _, err := s.Infer(b.Context(), "digits", [][]byte{images[i%len(images)]}); err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(began))
					time.Sleep(500 * time.Microsecond)
				}
				return took
			}
			for b.Loop() {
				without = append(without, round()...)
				ctx, cancel := context.WithCancel(b.Context())
				var g sync.WaitGroup
				g.Go(func() {
					for ctx.Err() == nil {
						s.Shadow(ctx, shaded(b, release, bundle.Shadow{Share: 0.1, Minutes: 5, Requests: 1e6, Duty: 0.2, Agree: 0.01}))
					}
				})
				time.Sleep(200 * time.Millisecond) // it has started
				with = append(with, round()...)
				cancel()
				g.Wait()
			}
			slices.Sort(with)
			slices.Sort(without)
			for _, q := range []int{50, 99} {
				b.ReportMetric(float64(with[len(with)*q/100])/float64(without[len(without)*q/100]), fmt.Sprintf("p%d-ratio", q))
			}
			b.ReportMetric(float64(without[len(without)/2].Microseconds()), "p50-us-without")
		})
	}
}
