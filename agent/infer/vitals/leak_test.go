package vitals

import "testing"

// TestLeak gives looks at memory in MiB and says after which one the worker is to
// be replaced.
func TestLeak(t *testing.T) {
	for _, tc := range []struct {
		name  string
		limit int // MB
		looks []int64
		want  int // index of the look; -1: never
	}{
		{"steady", 1024, []int64{30, 31, 30, 32, 31, 30, 33, 31, 30}, -1},
		{"warm-up is no leak", 1024, []int64{5, 20, 40, 60, 61, 60, 62, 61}, -1},
		{"grows", 1024, []int64{30, 30, 30, 30, 60, 90, 120, 125, 150, 180}, 8},
		{"a peak", 1024, []int64{30, 30, 30, 30, 300, 30, 300, 30, 30}, -1},
		{"near the limit that kills", 128, []int64{30, 30, 30, 30, 90, 95, 97, 100}, 7},
		{"needs nearly all it may have", 128, []int64{100, 100, 100, 100, 110, 120, 125}, -1},
		{"no limit", 0, []int64{10, 10, 10, 10, 80, 85, 86}, 6},
		{"cannot be told", 1024, []int64{0, 0, 0, 0, 0, 0}, -1},
		{"told late", 1024, []int64{0, 30, 0, 30, 30, 30, 200, 0, 200}, 8},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, got := NewLeak(tc.limit), -1
			for i, mb := range tc.looks {
				if l.Grew(mb << 10) {
					got = i
					break
				}
			}
			if got != tc.want {
				t.Errorf("replaced at look %d, want %d", got, tc.want)
			}
		})
	}
}
