package vitals

import (
	"testing"
	"time"
)

// TestLoop gives pauses between deaths, in minutes, and says at which one they are
// a loop.
func TestLoop(t *testing.T) {
	for _, tc := range []struct {
		name   string
		pauses []float64
		want   int // -1: never
	}{
		{"at once", []float64{0, 0, 0, 0, 0, 0}, 4},
		{"now and then", []float64{0, 3, 3, 3, 3, 3, 3, 3}, -1},
		{"just within", []float64{0, 2.5, 2.5, 2.5, 2.5}, 4},
		{"after a long time", []float64{0, 60, 60, 60, 60, 1, 1, 1, 1, 1}, 8},
		{"four are none", []float64{0, 0, 0, 0}, -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, now, got := Loop{}, time.Unix(1e9, 0), -1
			for i, p := range tc.pauses {
				now = now.Add(time.Duration(p * float64(time.Minute)))
				if l.Death(now) {
					if got >= 0 {
						t.Errorf("told again at %d", i)
					}
					got = i
				}
			}
			if got != tc.want {
				t.Errorf("a loop at death %d, want %d", got, tc.want)
			}
		})
	}
}
