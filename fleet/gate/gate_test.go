package gate

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestOutcomeTable compares with likelihood ratios computed by hand from the formula.
func TestOutcomeTable(t *testing.T) {
	for _, c := range []struct {
		units, failed int
		want          Verdict
	}{
		{0, 0, NotYet}, {1, 1, NotYet}, {2, 2, Fail}, {9, 3, Fail}, {55, 0, NotYet}, {56, 0, Pass}, {200, 2, Pass}, {1000, 50, Fail},
	} {
		if r := Evaluate(Evidence{Outcome: InstallOutcome(c.units, c.failed)}); r.Verdict != c.want {
			t.Errorf("%d of %d failed: %+v, want %s", c.failed, c.units, r, c.want)
		}
	}
	// One failure of one: the mean of 5, 10, 20 and 80 over 1.
	if r := Evaluate(Evidence{Outcome: InstallOutcome(1, 1)}); math.Abs(r.Harm-28.75) > 1e-9 {
		t.Errorf("e-value %v, want 28.75", r.Harm)
	}
}

// TestOutcomeIsValid: at the tolerated rate itself, looked at after every unit, the
// test halts in no more than alpha of the runs (Ville).
func TestOutcomeIsValid(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	halts, runs := 0, 4000
	for range runs {
		o := CrashOutcome(0, 0, 0.02)
		for range 400 {
			o.Units++
			if r.Float64() < o.Tolerated {
				o.Failed++
			}
			if o.judge().Verdict == Fail {
				halts++
				break
			}
		}
	}
	if share := float64(halts) / float64(runs); share > 0.02 {
		t.Errorf("halted in %.3f of the runs, promised 0.02", share)
	}
}

func TestLimit(t *testing.T) {
	for _, c := range []struct {
		l    Limit
		want Verdict
	}{
		{Limit{Least: 2}, NotYet}, {Limit{Least: 2, Devices: 5}, Pass}, {Limit{Least: 2, Devices: 5, Over: 1}, NotYet},
		{Limit{Least: 2, Devices: 1, Over: 1}, Fail}, {Limit{Least: 2, Devices: 5, Over: 2}, Fail},
	} {
		r := Evaluate(Evidence{Limit: &c.l})
		if r.Verdict != c.want {
			t.Errorf("%+v: %s, want %s", c.l, r.Verdict, c.want)
		}
		if c.l.Over == 1 && r.GoesOn() {
			t.Errorf("%+v goes on", c.l)
		}
	}
}

// quiet is a device whose every measure is noise about a level; it does as told from
// a step on.
type quiet struct {
	values []float64
	n      float64
	gone   map[int]bool
}

func (q *quiet) Value(_ Measure, from, to int) (v, n float64) {
	from = max(from, 0)
	k := 0.0
	for s := from; s < to && s < len(q.values); s++ {
		if !q.gone[s] {
			v, n, k = v+q.values[s], n+q.n, k+1
		}
	}
	return v / k, n
}

func (q *quiet) Presence(from, to int) (present, expected int) {
	for s := max(from, 0); s < to && s < len(q.values); s++ {
		if !q.gone[s] {
			present++
		}
	}
	return present, to - from
}

// bench is a stratum of n devices with noise of a standard deviation; harm is added
// to the treated ones, all is added to every device from step 150 on.
func bench(r *rand.Rand, n, treated int, sd, harm, all float64) (*Collector, []*quiet) {
	_, timing := Every(20*time.Minute, 24*time.Hour, 1)
	c := &Collector{Timing: timing, Start: 144, Strata: []Stratum{{Name: "a"}}}
	var qs []*quiet
	for i := range n {
		q := &quiet{n: 1000, gone: map[int]bool{}}
		level := r.NormFloat64()
		for s := range 200 {
			x := level + sd*r.NormFloat64()
			if i < treated && s > 148 {
				x += harm
			}
			if s >= 150 {
				x += all
			}
			q.values = append(q.values, x)
		}
		d := Device{Series: q, Left: Never, At: Never}
		if i < treated {
			d.Left, d.At = 148, 149
		}
		c.Strata[0].Devices = append(c.Strata[0].Devices, d)
		qs = append(qs, q)
	}
	return c, qs
}

var spec = Spec{Name: "metric", Measure: Measure{Kind: Metric}, Margin: 0.02, Harm: 0.06, TwoSided: true, MinCell: 20, MinUnits: 3}

func look(c *Collector, s Spec, now int) Result {
	return Evaluate(Evidence{Difference: c.Difference(s, Alpha(0), now)})
}

func TestDifference(t *testing.T) {
	for _, c := range []struct {
		name             string
		devices, treated int
		harm, all        float64
		want             Verdict
		why              string
	}{
		{"good", 30, 6, 0, 0, Pass, ""},
		{"bad", 30, 6, 0.12, 0, Fail, ""},
		{"bad the other way", 30, 6, -0.12, 0, Fail, ""},
		{"inside the margin", 30, 6, 0.01, 0, Pass, ""},
		{"everybody changed", 30, 6, 0, 0.3, Pass, ""},
		{"everybody changed and the release is bad", 30, 6, 0.12, 0.3, Fail, ""},
		{"bad, among devices that never wander", 30, 6, 0.5, 0, Fail, ""},
		{"one device changed", 30, 1, 5, 0, NotYet, TooFew},
		{"no control", 6, 6, 0.12, 0, NotYet, NoControl},
		{"two for control", 8, 6, 0.12, 0, NotYet, NoControl},
	} {
		r := rand.New(rand.NewPCG(7, 7))
		sd := 0.02
		if strings.Contains(c.name, "never wander") {
			sd = 0
		}
		b, _ := bench(r, c.devices, c.treated, sd, c.harm, c.all)
		if got := look(b, spec, 190); got.Verdict != c.want || got.Why != c.why {
			t.Errorf("%s: %+v, want %s %q", c.name, got, c.want, c.why)
		}
	}
}

// TestOneDeviceAloneNeverHalts: whatever a single device does, the others being as
// ever, the gate does not fail; the same of three of the four is not let through.
func TestOneDeviceAloneNeverHalts(t *testing.T) {
	for seed := range uint64(4) {
		for _, bad := range []float64{0.1, 1, 1e9, -1} {
			for _, n := range []int{1, 3} {
				c, qs := bench(rand.New(rand.NewPCG(seed, 1)), 20, 4, 0.02, 0, 0)
				for i := range n {
					for s := 149; s < len(qs[i].values); s++ {
						qs[i].values[s] += bad
					}
				}
				for _, now := range []int{150, 153, 157, 181} {
					got := look(c, spec, now)
					if n == 1 && got.Verdict == Fail {
						t.Fatalf("one device halts: %+v", got)
					}
					if n == 3 && now > 153 && got.Verdict != Fail && got.GoesOn() {
						t.Fatalf("three devices do not matter: %+v", got)
					}
				}
			}
		}
	}
}

// TestNaNFails: a number that is no number never makes a gate blind.
func TestNaNFails(t *testing.T) {
	c, qs := bench(rand.New(rand.NewPCG(1, 1)), 30, 6, 0.02, 0.12, 0)
	for i := range qs {
		if i%4 == 0 {
			qs[i].values[151], qs[i].values[60] = math.NaN(), math.Inf(1)
		}
	}
	x := c.Difference(spec, Alpha(0), 190)
	if r := Evaluate(Evidence{Difference: x}); r.Verdict != Fail || x.LeftOut.NaN == 0 {
		t.Errorf("the others' evidence is lost: %+v, left out %+v", r, x.LeftOut)
	}
	x.Measures[0].Looks[0].Strata[0].D = math.NaN()
	if r := Evaluate(Evidence{Difference: x}); r.Verdict != Fail || r.Why == "" {
		t.Errorf("stored NaN: %+v", r)
	}
}

// TestReplay: evidence that went through JSON gives the verdict again.
func TestReplay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 3))
		c, _ := bench(r, rapid.IntRange(1, 40).Draw(t, "devices"), rapid.IntRange(0, 10).Draw(t, "treated"), 0.05, rapid.Float64Range(-0.2, 0.2).Draw(t, "harm"), 0)
		for _, e := range []Evidence{
			{Difference: c.Difference(spec, Alpha(0), 145+rapid.IntRange(0, 50).Draw(t, "now"))},
			{Outcome: SilenceOutcome(rapid.IntRange(0, 50).Draw(t, "n"), 0, Alpha(9))},
			{Limit: &Limit{Bound: 1, Over: 1, Devices: 3, Least: 2}},
		} {
			b, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			var again Evidence
			if err := json.Unmarshal(b, &again); err != nil {
				t.Fatal(err)
			}
			if got, want := Evaluate(again), Evaluate(e); got != want {
				t.Fatalf("replayed %+v, stored %+v", got, want)
			}
		}
	})
}

// TestAbsence: devices that were off, or whose past is too short, are left out and
// counted.
func TestAbsence(t *testing.T) {
	c, qs := bench(rand.New(rand.NewPCG(1, 1)), 30, 6, 0.02, 0.12, 0)
	for s := 149; s < 200; s++ {
		qs[0].gone[s] = true
	}
	for s := range 148 {
		qs[1].gone[s] = s < 140
	}
	x := c.Difference(spec, Alpha(0), 190)
	if x.LeftOut.Off == 0 || x.LeftOut.NoPast == 0 || x.Measures[0].Looks[0].Strata[0].Devices != 4 {
		t.Errorf("left out %+v, looked at %+v", x.LeftOut, x.Measures[0].Looks[0])
	}
}

// TestTooSmallToLearn: a stratum whose noise is not known says so.
func TestTooSmallToLearn(t *testing.T) {
	c, qs := bench(rand.New(rand.NewPCG(1, 1)), 4, 3, 0.02, 0.12, 0)
	for i := range qs {
		for s := range 130 {
			qs[i].gone[s] = true
		}
	}
	if x := c.Difference(spec, Alpha(0), 190); x.LeftOut.Unscaled == 0 || Evaluate(Evidence{Difference: x}).Why != TooFew {
		t.Errorf("%+v", x.LeftOut)
	}
}

// TestScaleFindsTheNoise: variances of known noise are found within a fifth, and the
// part that yesterday or the last hour foretells is taken out.
func TestScaleFindsTheNoise(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	var hours [][]placebo
	for range 24 {
		together := 0.3 * r.NormFloat64()
		var h []placebo
		for range 200 {
			n := 50 + 2000*r.Float64()
			y, b := r.NormFloat64(), r.NormFloat64()
			c := together + 0.4*y + 0.2*b + 0.1*r.NormFloat64() + math.Sqrt(4/n)*r.NormFloat64()
			h = append(h, placebo{unit: unit{n: n, c: c, devices: 1}, yesterday: y, before: b})
		}
		hours = append(hours, h)
	}
	s := learn(hours)
	near := func(name string, got, want, by float64) {
		if math.Abs(got-want) > by*want {
			t.Errorf("%s: %.4f, want %.4f", name, got, want)
		}
	}
	near("sigma2", s.Sigma2, 0.01, 0.2)
	near("phi", s.Phi, 4, 0.2)
	near("tau2", s.Tau2, 2*0.09, 0.8)
	near("yesterday", s.Yesterday, 0.4, 0.05)
	near("before", s.Before, 0.2, 0.1)
	if s.K < 1 || s.K > 1.3 {
		t.Errorf("K %.2f of Gaussian noise", s.K)
	}
}

func TestEvery(t *testing.T) {
	step, x := Every(20*time.Minute, 24*time.Hour, 4)
	if step != 5*time.Minute || x.Past != 288 || x.Hour != 12 || x.Looks[0] != 4 || x.Looks[5] != 128 {
		t.Errorf("%v %+v", step, x)
	}
}
