// Package stats counts requests as the statistics extension of the Open Inference
// Protocol tells them.
package stats

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer"
)

// Statistics count requests by model and version since the server started.
type Statistics struct {
	mu sync.Mutex
	of map[Version]*counts
}

// Version is one of a model.
type Version struct{ Model, Name string }

type counts struct {
	good, bad                   Duration
	input, queue, infer, output Duration  // of the good ones
	last                        time.Time // of the newest answer
}

// Spent is where the time of an answered request went.
type Spent struct {
	Input  time.Duration // to make tensors of what came
	Queue  time.Duration // to wait for a worker, there and back
	Infer  time.Duration // in the runtime
	Output time.Duration // to make the answer
}

// Duration adds up what requests took.
type Duration struct {
	Count uint64 `json:"count"`
	NS    int64  `json:"ns"`
}

func (d *Duration) add(took time.Duration) {
	d.Count++
	d.NS += took.Nanoseconds()
}

// maxStatistics bounds the versions that are remembered; the oldest goes.
const maxStatistics = 256

// Add counts an answer.
func (s *Statistics) Add(slot infer.Slot, t Spent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts(slot)
	c.good.add(t.Input + t.Queue + t.Infer + t.Output)
	c.input.add(t.Input)
	c.queue.add(t.Queue)
	c.infer.add(t.Infer)
	c.output.add(t.Output)
}

// Fail counts a request that the slot did not answer.
func (s *Statistics) Fail(slot infer.Slot, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts(slot).bad.add(took)
}

// counts are those of a slot's version, which was just asked.
func (s *Statistics) counts(slot infer.Slot) *counts {
	key := Version{slot.Key.Model, slot.Version}
	c := s.of[key]
	if c == nil {
		if s.of == nil {
			s.of = map[Version]*counts{}
		}
		if len(s.of) >= maxStatistics {
			delete(s.of, slices.MinFunc(slices.Collect(maps.Keys(s.of)), func(a, b Version) int { return s.of[a].last.Compare(s.of[b].last) }))
		}
		c = &counts{}
		s.of[key] = c
	}
	c.last = time.Now()
	return c
}

// Model is one version as the statistics extension has it. A request is
// one inference and one execution; its time is from the read request to the made
// answer, and queue, compute_input, compute_infer and compute_output add up to it.
type Model struct {
	Name    string              `json:"name"`
	Version string              `json:"version"`
	Last    int64               `json:"last_inference"` // milliseconds since 1970
	Count   uint64              `json:"inference_count"`
	Runs    uint64              `json:"execution_count"`
	Stats   map[string]Duration `json:"inference_stats"`
	Batches []any               `json:"batch_stats"`
}

func (c *counts) durations() map[string]Duration {
	return map[string]Duration{"success": c.good, "fail": c.bad, "queue": c.queue, "compute_input": c.input, "compute_infer": c.infer, "compute_output": c.output}
}

// List are the versions that keep takes, in order.
func (s *Statistics) List(keep func(Version) bool) []Model {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Model{}
	for key, c := range s.of {
		if keep(key) {
			out = append(out, Model{
				Name: key.Model, Version: key.Name, Last: c.last.UnixMilli(), Count: c.good.Count, Runs: c.good.Count,
				Stats: c.durations(), Batches: []any{},
			})
		}
	}
	slices.SortFunc(out, func(a, b Model) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
	return out
}

// One is a slot's version alone.
func (s *Statistics) One(slot infer.Slot) []Model {
	list := s.List(func(k Version) bool { return k == Version{slot.Key.Model, slot.Version} })
	if len(list) == 0 {
		list = []Model{{Name: slot.Key.Model, Version: slot.Version, Stats: (&counts{}).durations(), Batches: []any{}}}
	}
	return list
}
