package oip

import (
	"fmt"
	"net/http"

	"github.com/dunlin-edge/dunlin/agent/infer/oip/stats"
)

func (f *front) allStatistics(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]any{"model_stats": f.stats.List(func(stats.Version) bool { return true })})
}

// statistics tells of a model's active version, which may have been asked nothing.
func (f *front) statistics(w http.ResponseWriter, r *http.Request) {
	s, ok := f.slot(w, r)
	if !ok {
		return
	}
	reply(w, http.StatusOK, map[string]any{"model_stats": f.stats.One(s)})
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
