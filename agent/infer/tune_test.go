package infer

import (
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// TestChoose: the fewest workers, then threads, that do hardly less than the best
// within the budget.
func TestChoose(t *testing.T) {
	ms := func(f float64) time.Duration { return time.Duration(f * float64(time.Millisecond)) }
	of := func(workers, threads int, p50 float64) setting {
		return setting{workers: workers, threads: threads, p50: ms(p50), p95: ms(2 * p50), peakKB: int64(workers) * 30_000}
	}
	scales := []setting{of(1, 1, 10), of(1, 2, 5.2), of(1, 4, 4), of(2, 1, 10.1), of(2, 2, 5.3), of(4, 1, 10.3)}
	for _, tc := range []struct {
		name             string
		of               []setting
		budget           bundle.Budget
		workers, threads int
	}{
		{"no bound", scales, bundle.Budget{}, 2, 2},
		{"memory for one", scales, bundle.Budget{PeakMemoryKB: 50_000}, 1, 4},
		{"memory for two", scales, bundle.Budget{PeakMemoryKB: 60_000}, 2, 2},
		{"sooner", scales, bundle.Budget{LatencyP95US: 9_000}, 1, 4},
		{"nothing fits", scales, bundle.Budget{LatencyP95US: 1}, 1, 1},
		{"more do not help", []setting{of(1, 1, 1), of(1, 2, 0.95), of(2, 1, 1.9)}, bundle.Budget{}, 1, 1},
		{"one", []setting{{workers: 3, threads: 5}}, bundle.Budget{}, 3, 5},
		{"faster than the clock", []setting{of(1, 1, 0), of(2, 1, 0)}, bundle.Budget{}, 2, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if have := choose(tc.of, tc.budget); have.workers != tc.workers || have.threads != tc.threads {
				t.Errorf("%d workers with %d threads, want %d with %d", have.workers, have.threads, tc.workers, tc.threads)
			}
		})
	}
}
