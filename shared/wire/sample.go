package wire

import (
	"fmt"

	"github.com/dunlin-edge/dunlin/shared/sketch"
)

// Sample is one aligned window of one {bundle, runtime, rollout, arm}. With an
// empty Model it is the host's own. It holds counts and measures, never an input
// or an output; docs/privacy.md lists its fields.
type Sample struct {
	Start    int64              `cbor:"1,keyasint"` // trusted seconds, a multiple of Seconds
	Seconds  int64              `cbor:"2,keyasint"`
	Model    string             `cbor:"3,keyasint,omitempty"`
	Bundle   string             `cbor:"4,keyasint,omitempty"`
	Runtime  string             `cbor:"5,keyasint,omitempty"`
	Rollout  string             `cbor:"6,keyasint,omitempty"`
	Arm      string             `cbor:"7,keyasint,omitempty"`
	Requests uint64             `cbor:"8,keyasint,omitempty"`
	Errors   map[string]uint64  `cbor:"9,keyasint,omitempty"`  // by code, at most MaxSampleErrors
	Latency  sketch.Latency     `cbor:"10,keyasint,omitempty"` // of the runs
	Classes  []uint64           `cbor:"11,keyasint,omitempty"` // at most MaxSampleClasses
	Score    *sketch.Histogram  `cbor:"12,keyasint,omitempty"`
	Input    *sketch.Moments    `cbor:"13,keyasint,omitempty"` // of the mean of the first input, one value a request that was looked at
	NaN      uint64             `cbor:"14,keyasint,omitempty"` // answers with a non-finite value
	Host     map[string]float64 `cbor:"15,keyasint,omitempty"` // "load1", "mem_available_kb", "temperature_c", "disk_free_kb"
	Path     string             `cbor:"16,keyasint,omitempty"` // catalog path of the release

	Wait       sketch.Latency    `cbor:"19,keyasint,omitempty"` // of answered requests, before their run
	Entropy    *sketch.Histogram `cbor:"20,keyasint,omitempty"` // as sketch.Certainty has it, 0..1
	Margin     *sketch.Histogram `cbor:"21,keyasint,omitempty"` // as sketch.Certainty has it, 0..1
	Detections *sketch.Histogram `cbor:"22,keyasint,omitempty"` // things found per answer
	Inputs     []sketch.Input    `cbor:"23,keyasint,omitempty"` // by the contract's order, of the requests that were looked at; at most MaxSampleInputs
	Sizes      map[string]uint64 `cbor:"24,keyasint,omitempty"` // pictures by "640x480", at most MaxSampleSizes and "other"
	Memory     uint64            `cbor:"25,keyasint,omitempty"` // kB of the model's workers when last looked at; 0: not looked at
	Crashes    uint64            `cbor:"26,keyasint,omitempty"` // workers that died by themselves

	Truth   *Truth                    `cbor:"40,keyasint,omitempty"` // what applications said of answers
	Metrics map[string]sketch.Moments `cbor:"41,keyasint,omitempty"` // what applications measured, by name; at most MaxMetrics
}

// Bounds of a Sample.
const (
	MaxSampleErrors  = 32
	MaxSampleClasses = 4096
	MaxSampleInputs  = 8
	MaxSampleSizes   = 16
)

// Check refuses what cannot be added up with others.
func (s *Sample) Check() error {
	if s.Start < 0 || s.Seconds < 1 || s.Seconds > 86400 {
		return fmt.Errorf("sample: window of %d s at %d", s.Seconds, s.Start)
	}
	if len(s.Errors) > MaxSampleErrors || len(s.Classes) > MaxSampleClasses || len(s.Inputs) > MaxSampleInputs || len(s.Sizes) > MaxSampleSizes+1 {
		return fmt.Errorf("sample: %d errors, %d classes, %d inputs, %d sizes", len(s.Errors), len(s.Classes), len(s.Inputs), len(s.Sizes))
	}
	for name, l := range map[string]sketch.Latency{"latency": s.Latency, "wait": s.Wait} {
		if _, err := l.Decode(); err != nil {
			return fmt.Errorf("sample: %s: %w", name, err)
		}
	}
	for name, h := range map[string]*sketch.Histogram{"score": s.Score, "entropy": s.Entropy, "margin": s.Margin, "detections": s.Detections} {
		if h != nil && !h.Valid() {
			return fmt.Errorf("sample: %s: no histogram", name)
		}
	}
	if err := s.checkTruth(); err != nil {
		return err
	}
	for i := range s.Inputs {
		if !s.Inputs[i].Valid() {
			return fmt.Errorf("sample: input %d: no histogram", i)
		}
	}
	return nil
}
