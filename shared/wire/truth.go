package wire

import (
	"fmt"
	"math"

	"github.com/dunlin-edge/dunlin/shared/sketch"
)

// Truth is what applications on a device said of answers of one window: that of
// their word, not of the answer. Only what could be matched to the release that
// answered is counted.
type Truth struct {
	Right uint64 `cbor:"1,keyasint,omitempty"`
	Wrong uint64 `cbor:"2,keyasint,omitempty"`
	// Confused are wrong answers by pair of classes, at most MaxConfused pairs; Other
	// counts the wrong answers beyond them and those whose right class was not said.
	Confused []Confused `cbor:"3,keyasint,omitempty"`
	Other    uint64     `cbor:"4,keyasint,omitempty"`
	Late     uint64     `cbor:"5,keyasint,omitempty"` // words that came for an answer that was no longer known
}

// Confused counts answers of class Answered that were of class Right in truth, by
// their indices.
type Confused struct {
	Right    uint32 `cbor:"1,keyasint"`
	Answered uint32 `cbor:"2,keyasint"`
	Count    uint64 `cbor:"3,keyasint"`
}

// Bounds of what applications say in one window.
const (
	MaxConfused   = 64
	MaxMetrics    = 16
	MaxMetricName = 48 // bytes
)

// ValidMetric tells whether name may be an application's measure: 1 to
// MaxMetricName of a-z, 0-9, '_', '-' and '.', a letter first.
func ValidMetric(name string) bool {
	if name == "" || len(name) > MaxMetricName || name[0] < 'a' || name[0] > 'z' {
		return false
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// checkTruth refuses what cannot be added up with others.
func (s *Sample) checkTruth() error {
	if t := s.Truth; t != nil {
		if len(t.Confused) > MaxConfused {
			return fmt.Errorf("sample: %d pairs of confused classes", len(t.Confused))
		}
		for _, c := range t.Confused {
			if c.Right >= MaxSampleClasses || c.Answered >= MaxSampleClasses {
				return fmt.Errorf("sample: classes %d and %d confused", c.Right, c.Answered)
			}
		}
	}
	if len(s.Metrics) > MaxMetrics {
		return fmt.Errorf("sample: %d metrics", len(s.Metrics))
	}
	for name, m := range s.Metrics {
		if !ValidMetric(name) || m.N == 0 || !wholeMoments(m) {
			return fmt.Errorf("sample: metric %.60q", name)
		}
	}
	return nil
}

// wholeMoments tells whether moments can be those of some values.
func wholeMoments(m sketch.Moments) bool {
	slack := 1e-9 * (math.Abs(m.Min) + math.Abs(m.Max))
	return m.M2 >= 0 && m.Min <= m.Max && m.Mean >= m.Min-slack && m.Mean <= m.Max+slack
}
