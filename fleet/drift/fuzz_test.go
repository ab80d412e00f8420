package drift

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// FuzzSample takes bytes in as a sample of a device beside honest ones: no panic,
// and an answer that JSON can carry, with every verdict one that there is.
func FuzzSample(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 1))
	good := usual.window(r, "dev/m/1.0.0", 50)
	huge := good
	huge.Requests, huge.Classes = math.MaxUint64, []uint64{math.MaxUint64, math.MaxUint64, 3}
	huge.Errors = map[string]uint64{"a": math.MaxUint64, "b": 7}
	wide := good
	wide.Score = &sketch.Histogram{Lo: -math.MaxFloat64 / 4, Hi: math.MaxFloat64 / 4, Bins: []uint64{math.MaxUint64, 1}, Over: math.MaxUint64}
	for _, s := range []wire.Sample{good, huge, wide, {Path: "dev/m/1.0.0", Seconds: 1}} {
		b, err := wire.Encode(&s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	ref := usual.window(r, "", 1000)
	full := &bundle.Contract{Reference: &bundle.Reference{Samples: 1000, Score: *ref.Score, Classes: ref.Classes, Entropy: ref.Entropy, Inputs: ref.Inputs}}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s wire.Sample
		if wire.Decode(b, &s) != nil {
			return
		}
		for _, c := range []*bundle.Contract{full, nil} {
			st := &state{by: ByDevice, releases: map[string]*bundle.Contract{s.Path: c}, groups: map[groupKey]*sums{}, alone: map[groupKey]*folded{}}
			for i, x := range []wire.Sample{s, usual.window(r, s.Path, 60), usual.window(r, s.Path, 60), usual.window(r, s.Path, 60), usual.window(r, s.Path, 60), usual.window(r, s.Path, 60), s} {
				if err := st.add(&fleet.Sample{Device: string(rune('a' + i)), Sample: x}); err != nil {
					t.Fatal(err)
				}
			}
			gs := st.judge()
			if _, err := json.Marshal([]any{gs, st.outliers()}); err != nil {
				t.Fatal(err)
			}
			for _, g := range gs {
				for _, m := range g.Measures {
					if rank(m.Verdict) < 0 {
						t.Fatalf("%+v", m)
					}
				}
			}
		}
	})
}
