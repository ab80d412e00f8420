package drift

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/shared/bundle"
	"github.com/dunlin-edge/dunlin/shared/sketch"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// memory are blobs.
type memory map[string][]byte

func (m memory) Open(digest string) (io.ReadCloser, error) {
	b, ok := m[digest]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

// store is the database with devices that need no enrolment.
type store struct {
	*sqlite.DB
	devices []*fleet.Device
}

func (s *store) Devices(context.Context, fleet.DeviceFilter) ([]*fleet.Device, error) {
	return s.devices, nil
}

// world is how things look before the devices.
type world struct {
	score, bright float64 // means
	mix           []float64
	fails         float64
}

var usual = world{score: 0.9, bright: 0.5, mix: []float64{.25, .25, .25, .25}}

// window makes a sample of n requests.
func (w world) window(r *rand.Rand, path string, n int) wire.Sample {
	score, entropy, in := sketch.NewHistogram(0, 1, 20), sketch.NewHistogram(0, 1, 20), sketch.NewInput(0, 1)
	s := wire.Sample{Start: noon.Unix() - 3600, Seconds: 3600, Model: "m", Path: path, Requests: uint64(n), Classes: make([]uint64, len(w.mix)), Score: &score, Entropy: &entropy}
	for range n {
		if r.Float64() < w.fails {
			s.Errors = map[string]uint64{"worker.run": s.Errors["worker.run"] + 1}
			continue
		}
		x, class := r.Float64(), 0
		for x -= w.mix[0]; x > 0 && class < len(w.mix)-1; x -= w.mix[class] {
			class++
		}
		v := min(max(w.score+0.08*r.NormFloat64(), 0), 1)
		score.Add(v)
		entropy.Add((1 - v) / 2)
		in.Add([]float64{min(max(w.bright+0.1*r.NormFloat64(), 0), 1)})
		s.Classes[class]++
	}
	s.Inputs = []sketch.Input{in}
	return s
}

// rig is a service over a real database with two releases: 1.0.0 with a reference
// of 2,000, 2.0.0 without one.
type rig struct {
	t  testing.TB
	db *store
	s  *Service
	r  *rand.Rand
	n  uint64
}

func newRig(t testing.TB, reference int) *rig {
	t.Helper()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "fleet.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	g := &rig{t: t, db: &store{DB: db}, r: rand.New(rand.NewPCG(1, 2))}
	blobs := memory{}
	g.s = &Service{Store: g.db, Blobs: blobs, Now: func() time.Time { return noon }}
	w := usual.window(rand.New(rand.NewPCG(8, 8)), "", reference)
	for version, ref := range map[string]*bundle.Reference{"1.0.0": {Samples: uint64(reference), Score: *w.Score, Classes: w.Classes, Entropy: w.Entropy, Inputs: w.Inputs}, "2.0.0": nil} {
		c := &bundle.Contract{
			Number: bundle.ContractNumber, Kind: bundle.KindModel, Model: "m", Version: version, File: "model.tflite", Runtime: &bundle.RuntimeNeed{Name: "litert", Min: "2.1.6"},
			Inputs:  []bundle.Tensor{{Name: "image", DType: "FP32", Shape: []int{1, 4}, Meaning: &bundle.Meaning{Kind: "tensor"}}},
			Outputs: []bundle.Tensor{{Name: "scores", DType: "FP32", Shape: []int{1, 4}, Meaning: &bundle.Meaning{Kind: "classes", Score: "softmax"}}},
			Watch:   &bundle.Watch{Output: "scores"}, Reference: ref,
		}
		p, err := bundle.Pack(c, []bundle.Source{{Path: "model.tflite", Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("a model")), nil }}})
		if err != nil {
			t.Fatal(err)
		}
		blobs[p.Digest] = p.Raw
		for _, b := range [][]byte{p.RawConfig, p.RawContract} {
			blobs[bundle.DigestOf(b)] = b
		}
		r := fleet.Release{ID: fleet.NewID(fleet.PrefixRelease, noon), Channel: "dev", Digest: p.Digest, Length: int64(len(p.Raw)), Published: noon, Release: bundle.Release{Kind: bundle.KindModel, Model: "m", Version: version, Counter: int64(version[0])}}
		if err := db.PutMetadata(t.Context(), nil, nil, []fleet.Release{r}, fleet.Audit{}); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// device has its windows stored.
func (g *rig) device(name, site string, w world, requests ...int) {
	g.t.Helper()
	g.db.devices = append(g.db.devices, &fleet.Device{ID: name, Labels: map[string]string{"site": site}, Facts: map[string]string{"class": "pi"}})
	var ss []fleet.Sample
	for _, n := range requests {
		ss = append(ss, g.sample(name, w.window(g.r, "dev/m/1.0.0", n)))
	}
	g.store(ss...)
}

func (g *rig) sample(device string, w wire.Sample) fleet.Sample {
	g.n++
	return fleet.Sample{Device: device, Epoch: 1, Sequence: g.n, Sample: w}
}

func (g *rig) store(ss ...fleet.Sample) {
	g.t.Helper()
	if err := g.db.InsertSamples(g.t.Context(), ss); err != nil {
		g.t.Fatal(err)
	}
}

func (g *rig) ask(by string) *fleet.Drift {
	g.t.Helper()
	d, err := g.s.Ask(g.t.Context(), fleet.DriftAsk{Model: "m", By: by})
	if err != nil {
		g.t.Fatal(err)
	}
	return d
}

// verdicts are those of the groups and, behind a slash, of their measures.
func verdicts(d *fleet.Drift) map[string]string {
	out := map[string]string{}
	for _, g := range d.Groups {
		out[g.Group] = g.Verdict
		for _, m := range g.Measures {
			out[g.Group+"/"+m.Measure] = m.Verdict
		}
	}
	return out
}

// TestBySite: one site is dark, one sees other things, one is as ever, one has
// hardly been asked; each gets its verdict, by its measures.
func TestBySite(t *testing.T) {
	g := newRig(t, 2000)
	dark, other := usual, usual
	dark.bright, dark.score = 0.2, 0.7
	other.mix, other.fails = []float64{.7, .1, .1, .1}, 0.1
	for i := range 4 {
		g.device(fmt.Sprint("harbour-", i), "harbour", usual, 200, 300)
		g.device(fmt.Sprint("mine-", i), "mine", dark, 200, 300)
		g.device(fmt.Sprint("shop-", i), "shop", other, 500)
	}
	g.device("new-1", "new", usual, 20)
	d := g.ask("site")
	s, x, f := fleet.DriftSteady, fleet.DriftDrifts, fleet.DriftTooFew
	want := map[string]string{
		"harbour": s, "harbour/score": s, "harbour/classes": s, "harbour/entropy": s, "harbour/input": s, "harbour/errors": s,
		"mine": x, "mine/score": x, "mine/classes": s, "mine/entropy": x, "mine/input": x, "mine/errors": s,
		"shop": x, "shop/score": s, "shop/classes": x, "shop/entropy": s, "shop/input": s, "shop/errors": x,
		"new": f, "new/score": f, "new/classes": f, "new/entropy": f, "new/input": f, "new/errors": f,
	}
	if diff := cmp.Diff(want, verdicts(d)); diff != "" {
		t.Error(diff)
	}
	if d.Groups[0].Verdict != x || d.Groups[3].Group != "harbour" {
		t.Errorf("order: %s first, %s last", d.Groups[0].Group, d.Groups[3].Group)
	}
	for _, grp := range d.Groups {
		for _, m := range grp.Measures {
			t.Logf("%-8s %-8s %-8s n %5d psi %.3f threshold %.3f js %.3f p %.2g: %s", grp.Group, m.Measure, m.Verdict, m.Live, m.PSI, m.Threshold, m.JS, m.P, m.Says)
			if m.Verdict == f && (m.Needs <= m.Live || m.Live != 20) {
				t.Errorf("%+v", m)
			}
		}
		if grp.Group == "mine" && (grp.Devices != 4 || grp.Windows != 8 || grp.Requests != 2000 || grp.Version != "1.0.0") {
			t.Errorf("%+v", grp)
		}
	}
	if all := g.ask(""); len(all.Groups) != 1 || all.Groups[0].Group != "1.0.0" || all.By != ByVersion {
		t.Errorf("by version: %+v", all.Groups)
	}
	if by := g.ask(ByClass); len(by.Groups) != 1 || by.Groups[0].Group != "pi" {
		t.Errorf("by class: %+v", by.Groups)
	}
}

// TestFleetsWithoutDrift: of 300 answers about ten groups each that see what the
// reference saw, about one in a hundred may say 'drifts' somewhere.
func TestFleetsWithoutDrift(t *testing.T) {
	g := newRig(t, 1000)
	contract := g.contract()
	said, groups := 0, 0
	for seed := range 300 {
		r := rand.New(rand.NewPCG(uint64(seed), 3))
		st := &state{by: ByDevice, releases: map[string]*bundle.Contract{"dev/m/1.0.0": contract}, groups: map[groupKey]*sums{}, alone: map[groupKey]*folded{}}
		for i, n := range []int{30, 50, 100, 100, 200, 300, 500, 1000, 2000, 5000} {
			x := g.sample(fmt.Sprint(i), usual.window(r, "dev/m/1.0.0", n))
			if err := st.add(&x); err != nil {
				t.Fatal(err)
			}
		}
		drifts := false
		for _, x := range st.judge() {
			groups++
			drifts = drifts || x.Verdict == fleet.DriftDrifts
		}
		if drifts {
			said++
		}
	}
	t.Logf("'drifts' in %d of 300 answers about %d groups", said, groups)
	if said > 9 {
		t.Errorf("%d of 300 answers are false", said)
	}
}

func (g *rig) contract() *bundle.Contract {
	rs, err := g.db.Releases(g.t.Context(), fleet.ReleaseFilter{Model: "m"})
	if err != nil {
		g.t.Fatal(err)
	}
	for _, r := range rs {
		if r.Version == "1.0.0" {
			c, err := g.s.contract(r)
			if err != nil {
				g.t.Fatal(err)
			}
			return c
		}
	}
	return nil
}

// TestSumIsExact: in whatever order and windows requests come, the answer is the
// same to the byte.
func TestSumIsExact(t *testing.T) {
	g := newRig(t, 1000)
	contract := g.contract()
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 4))
		var ss []fleet.Sample
		for i := range rapid.IntRange(1, 12).Draw(t, "windows") {
			ss = append(ss, fleet.Sample{Device: fmt.Sprint(i % 3), Sample: usual.window(r, "dev/m/1.0.0", rapid.IntRange(1, 80).Draw(t, "requests"))})
		}
		answer := func(ss []fleet.Sample) string {
			st := &state{by: ByVersion, releases: map[string]*bundle.Contract{"dev/m/1.0.0": contract}, groups: map[groupKey]*sums{}, alone: map[groupKey]*folded{}}
			for _, s := range ss {
				if err := st.add(&s); err != nil {
					t.Fatal(err)
				}
			}
			b, err := json.Marshal([]any{st.judge(), st.outliers()})
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		first := answer(ss)
		r.Shuffle(len(ss), func(i, j int) { ss[i], ss[j] = ss[j], ss[i] })
		if second := answer(ss); first != second {
			t.Fatalf("%s\nin another order\n%s", first, second)
		}
	})
}

// TestNoReference: a release that says nothing is not judged, and one whose
// reference is small says so.
func TestNoReference(t *testing.T) {
	g := newRig(t, 30)
	g.device("a", "x", usual, 500)
	g.store(g.sample("a", usual.window(g.r, "dev/m/2.0.0", 500)))
	d := g.ask("")
	if v := verdicts(d); v["2.0.0"] != fleet.DriftUnknown || v["1.0.0"] != fleet.DriftTooFew {
		t.Errorf("%v", v)
	}
	for _, grp := range d.Groups {
		if grp.Group == "1.0.0" && !strings.Contains(grp.Measures[0].Says, "the reference holds 30") {
			t.Errorf("%+v", grp.Measures[0])
		}
	}
	if _, err := g.s.Ask(t.Context(), fleet.DriftAsk{Model: "other"}); !errors.Is(err, fleet.ErrModelUnknown) {
		t.Errorf("another model: %v", err)
	}
}

// TestLeftOut: what does not fit is counted and changes nothing.
func TestLeftOut(t *testing.T) {
	g := newRig(t, 2000)
	g.device("a", "x", usual, 1000)
	want := g.ask("").Groups
	odd := usual.window(g.r, "dev/m/1.0.0", 100)
	*odd.Score = sketch.NewHistogram(0, 2, 20)
	inputs := usual.window(g.r, "dev/m/1.0.0", 100)
	*inputs.Inputs[0].Means = sketch.NewHistogram(0, 2, 20)
	late := usual.window(g.r, "dev/m/1.0.0", 100)
	late.Start -= 86400
	g.store(g.sample("b", odd), g.sample("b", inputs), g.sample("b", usual.window(g.r, "dev/m/9.9.9", 100)), g.sample("b", late))
	got := g.ask("")
	if d := cmp.Diff(want, got.Groups); d != "" || got.LeftOut != 3 {
		t.Errorf("%d left out\n%s", got.LeftOut, d)
	}
}

// TestOutliers: of twenty devices with mixes of their own, the one before which
// the camera is blind is found, and nobody else.
func TestOutliers(t *testing.T) {
	g := newRig(t, 2000)
	for i := range 20 {
		w := usual
		w.mix = []float64{.2 + .01*float64(i%5), .3 - .01*float64(i%5), .25, .25}
		if i == 7 {
			w.bright = 0.05
		}
		g.device(fmt.Sprint("d", i), "x", w, 400)
	}
	d := g.ask("")
	if len(d.Outliers) != 1 || d.Outliers[0].Device != "d7" || d.Outliers[0].Measure != "input" || d.Outliers[0].Live != 400 {
		t.Errorf("%+v", d.Outliers)
	}
}

// BenchmarkAsk answers about 100 devices with 24 windows each, from the database.
func BenchmarkAsk(b *testing.B) {
	g := newRig(b, 2000)
	for i := range 100 {
		g.device(fmt.Sprint("d", i), fmt.Sprint("site", i%10), usual, slices.Repeat([]int{100}, 24)...)
	}
	for b.Loop() {
		if d := g.ask("site"); len(d.Groups) != 10 || d.Groups[0].Requests != 24_000 {
			b.Fatalf("%+v", d.Groups[0])
		}
	}
}
