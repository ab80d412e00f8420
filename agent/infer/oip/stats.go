package oip

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer"
)

// statistics count requests by model and version since the server started.
type statistics struct {
	mu sync.Mutex
	of map[served]*counts
}

type served struct{ model, version string }

type counts struct {
	good, bad duration
	last      time.Time // of the newest answer
}

// duration adds up what requests took.
type duration struct {
	Count uint64 `json:"count"`
	NS    int64  `json:"ns"`
}

// maxStatistics bounds the versions that are remembered; the oldest goes.
const maxStatistics = 256

func (s *statistics) add(slot infer.Slot, took time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := served{slot.Key.Model, slot.Version}
	c := s.of[key]
	if c == nil {
		if s.of == nil {
			s.of = map[served]*counts{}
		}
		if len(s.of) >= maxStatistics {
			delete(s.of, slices.MinFunc(slices.Collect(maps.Keys(s.of)), func(a, b served) int { return s.of[a].last.Compare(s.of[b].last) }))
		}
		c = &counts{}
		s.of[key] = c
	}
	d := &c.bad
	if ok {
		d = &c.good
	}
	d.Count++
	d.NS += took.Nanoseconds()
	c.last = time.Now()
}

// modelStatistics is one version as the statistics extension has it. A request is
// one inference and one execution; its time is from the router's door to the
// answer, waiting included.
type modelStatistics struct {
	Name    string              `json:"name"`
	Version string              `json:"version"`
	Last    int64               `json:"last_inference"` // milliseconds since 1970
	Count   uint64              `json:"inference_count"`
	Runs    uint64              `json:"execution_count"`
	Stats   map[string]duration `json:"inference_stats"`
	Batches []any               `json:"batch_stats"`
}

func (s *statistics) list(keep func(served) bool) []modelStatistics {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []modelStatistics{}
	for key, c := range s.of {
		if keep(key) {
			out = append(out, modelStatistics{
				Name: key.model, Version: key.version, Last: c.last.UnixMilli(), Count: c.good.Count, Runs: c.good.Count,
				Stats: map[string]duration{"success": c.good, "fail": c.bad}, Batches: []any{},
			})
		}
	}
	slices.SortFunc(out, func(a, b modelStatistics) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
	return out
}

func (f *front) allStatistics(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]any{"model_stats": f.stats.list(func(served) bool { return true })})
}

// statistics tells of a model's active version, which may have been asked nothing.
func (f *front) statistics(w http.ResponseWriter, r *http.Request) {
	s, ok := f.slot(w, r)
	if !ok {
		return
	}
	reply(w, http.StatusOK, map[string]any{"model_stats": f.stats.one(s)})
}

// one is a slot's version alone.
func (s *statistics) one(slot infer.Slot) []modelStatistics {
	list := s.list(func(k served) bool { return k == served{slot.Key.Model, slot.Version} })
	if len(list) == 0 {
		list = []modelStatistics{{Name: slot.Key.Model, Version: slot.Version, Stats: map[string]duration{"success": {}, "fail": {}}, Batches: []any{}}}
	}
	return list
}

// entry is one model of the index.
type entry struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	State   string `json:"state"`
	Reason  string `json:"reason"`
}

// entries list what is served, ready or not.
func (f *front) entries(onlyReady bool) []entry {
	out := []entry{}
	for _, m := range f.e.Models() {
		s, ok := f.e.Active(m)
		if !ok {
			continue
		}
		e := entry{m, s.Version, "READY", ""}
		if !f.e.Ready(m) {
			e.State, e.Reason = "UNAVAILABLE", "its worker is being started"
		}
		if e.State == "READY" || !onlyReady {
			out = append(out, e)
		}
	}
	return out
}

// index answers with what is served.
func (f *front) index(w http.ResponseWriter, r *http.Request) {
	b, done, err := f.body(w, r, 4<<10)
	if err != nil {
		refuse(w, err)
		return
	}
	defer done()
	var onlyReady bool
	if len(b) > 0 {
		if err := readJSON(b, fields{"ready": value(&onlyReady, "true or false")}); err != nil {
			refuse(w, bad(fmt.Errorf("the body is no request for the index: %w", err)))
			return
		}
	}
	reply(w, http.StatusOK, f.entries(onlyReady))
}

// manage refuses what the protocol lets clients do to the repository: which model
// runs is signed by its publisher and wished by the fleet.
func (f *front) manage(w http.ResponseWriter, r *http.Request) {
	fail(w, http.StatusBadRequest, fmt.Errorf("a client cannot %.20s models here: the fleet says which release runs", r.PathValue("act")))
}

// configuration is what the model configuration extension tells, as far as a
// contract says it.
func (f *front) configuration(w http.ResponseWriter, r *http.Request) {
	s, ok := f.slot(w, r)
	if !ok {
		return
	}
	type tensor struct {
		Name string `json:"name"`
		Type string `json:"data_type"`
		Dims []int  `json:"dims"`
	}
	list := func(ts []tensorMeta) []tensor {
		out := []tensor{}
		for _, t := range ts {
			out = append(out, tensor{t.Name, "TYPE_" + t.Datatype, t.Shape})
		}
		return out
	}
	reply(w, http.StatusOK, map[string]any{
		"name": s.Key.Model, "platform": platform, "backend": platform, "max_batch_size": 0,
		"input": list(describe(s.Contract.Inputs)), "output": list(describe(s.Contract.Outputs)),
	})
}
