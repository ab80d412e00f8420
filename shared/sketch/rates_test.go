package sketch

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// seeds is how many fleets each rate below is of.
const seeds = 1000

// atMost is what a binomial count of seeds at rate p exceeds once in 3,000 times.
func atMost(p float64) int {
	return int(math.Ceil(seeds*p + 3.4*math.Sqrt(seeds*p*(1-p)) + 1))
}

func atLeast(p float64) int {
	return max(0, int(math.Floor(seeds*p-3.4*math.Sqrt(seeds*p*(1-p))-1)))
}

// scores draws what a good classifier's scores look like, most near one.
func scores(r *rand.Rand, n int, shift float64) []uint64 {
	h := NewHistogram(0, 1, 20)
	for range n {
		h.Add(min(max(1-math.Abs(r.NormFloat64()*0.2)-shift, 0), 1))
	}
	return h.Counts()
}

// mix draws classes, moved of them from the first to the second.
func mix(r *rand.Rand, n int, moved float64) []uint64 {
	out := make([]uint64, 10)
	for range n {
		i := r.IntN(10)
		if i == 0 && r.Float64() < moved*10 {
			i = 1
		}
		out[i]++
	}
	return out
}

// TestFalseAlarms draws reference and live values from one distribution, a
// thousand times, and counts what each test calls a difference. An exact test must
// be near its level; those that are careful by construction must not be above it.
func TestFalseAlarms(t *testing.T) {
	const level = 0.01
	hits := func(r *rand.Rand, n int) (k uint64) {
		for range n {
			if r.Float64() < 0.02 {
				k++
			}
		}
		return k
	}
	tests := []struct {
		name    string
		careful bool
		alarms  func(r *rand.Rand, ref, n int) bool
	}{
		{"psi score", true, func(r *rand.Rand, ref, n int) bool {
			return Compare(scores(r, ref, 0), scores(r, n, 0)).Significant(0)
		}},
		{"psi classes", true, func(r *rand.Rand, ref, n int) bool {
			return Compare(mix(r, ref, 0), mix(r, n, 0)).Significant(0)
		}},
		{"psi and effect 0.2", true, func(r *rand.Rand, ref, n int) bool {
			return Compare(scores(r, ref, 0), scores(r, n, 0)).Significant(0.2)
		}},
		{"chi-squared score", false, func(r *rand.Rand, ref, n int) bool {
			return Homogeneity(scores(r, ref, 0), scores(r, n, 0)) < level
		}},
		{"chi-squared classes", false, func(r *rand.Rand, ref, n int) bool {
			return Homogeneity(mix(r, ref, 0), mix(r, n, 0)) < level
		}},
		{"kolmogorov score", true, func(r *rand.Rand, ref, n int) bool {
			return Kolmogorov(scores(r, ref, 0), scores(r, n, 0)) < level
		}},
		{"proportions 2 %", true, func(r *rand.Rand, ref, n int) bool {
			return Proportions(hits(r, ref), uint64(ref), hits(r, n), uint64(n)) < level
		}},
	}
	var table strings.Builder
	fmt.Fprintf(&table, "\nfalse alarms of %d, level %.0f %%, reference of 1,000\n%-22s%8s%8s%8s\n", seeds, 100*level, "test", "100", "1,000", "10,000")
	for _, tt := range tests {
		fmt.Fprintf(&table, "%-22s", tt.name)
		for _, n := range []int{100, 1000, 10_000} {
			alarms := 0
			for seed := range seeds {
				if tt.alarms(rand.New(rand.NewPCG(uint64(seed), uint64(n))), 1000, n) {
					alarms++
				}
			}
			fmt.Fprintf(&table, "%8d", alarms)
			if alarms > atMost(level) || !tt.careful && alarms < atLeast(level) {
				t.Errorf("%s at n = %d: %d of %d, wanted %d to %d", tt.name, n, alarms, seeds, atLeast(level), atMost(level))
			}
		}
		table.WriteByte('\n')
	}
	t.Log(table.String())
}

// TestPower wants every test to find a real difference at the sizes where it says
// that it can.
func TestPower(t *testing.T) {
	for _, tt := range []struct {
		name   string
		n      int
		least  int // of 200
		alarms func(r *rand.Rand, n int) bool
	}{
		{"psi: scores fall by 0.2", 100, 198, func(r *rand.Rand, n int) bool { return Compare(scores(r, 1000, 0), scores(r, n, 0.2)).Significant(0.2) }},
		{"chi-squared: scores fall by 0.1", 100, 190, func(r *rand.Rand, n int) bool { return Homogeneity(scores(r, 1000, 0), scores(r, n, 0.1)) < 0.01 }},
		{"kolmogorov: scores fall by 0.1", 100, 190, func(r *rand.Rand, n int) bool { return Kolmogorov(scores(r, 1000, 0), scores(r, n, 0.1)) < 0.01 }},
		{"psi: a tenth of the answers is another class", 1000, 198, func(r *rand.Rand, n int) bool { return Compare(mix(r, 1000, 0), mix(r, n, 0.1)).Significant(0.2) }},
		{"chi-squared: five points change class", 1000, 170, func(r *rand.Rand, n int) bool { return Homogeneity(mix(r, 1000, 0), mix(r, n, 0.05)) < 0.01 }},
		{"proportions: 1 % becomes 5 %", 1000, 198, func(r *rand.Rand, n int) bool {
			k := uint64(0)
			for range n {
				if r.Float64() < 0.05 {
					k++
				}
			}
			return Proportions(10, 1000, k, uint64(n)) < 0.01
		}},
	} {
		found := 0
		for seed := range 200 {
			if tt.alarms(rand.New(rand.NewPCG(uint64(seed), 5)), tt.n) {
				found++
			}
		}
		t.Logf("%-46s n = %4d: %d of 200", tt.name, tt.n, found)
		if found < tt.least {
			t.Errorf("%s at n = %d is found in %d of 200", tt.name, tt.n, found)
		}
	}
}

// usual is a reference of so many values.
func usual(n int, draw func(*rand.Rand) float64) Histogram {
	r, h := rand.New(rand.NewPCG(9, 9)), NewHistogram(0, 1, 20)
	for range n {
		h.Add(draw(r))
	}
	return h
}

func normal(mean float64) func(*rand.Rand) float64 {
	return func(r *rand.Rand) float64 { return mean + 0.1*r.NormFloat64() }
}

// TestPageHinkleyRate sets alarms to one false one in at least 20,000 values and
// counts how many streams have one after n, by shape and size of the reference: at
// most 1-exp(-n/20,000) of them, and not so few that the limit were nonsense.
func TestPageHinkleyRate(t *testing.T) {
	const every = 20_000
	var table strings.Builder
	fmt.Fprintf(&table, "\nalarms of %d streams, at most one in %d values is stated\n%-30s%8s%8s%8s\n", seeds, every, "", "100", "1,000", "10,000")
	fmt.Fprintf(&table, "%-30s%8.0f%8.0f%8.0f\n", "stated", seeds*(1-math.Exp(-100./every)), seeds*(1-math.Exp(-1000./every)), seeds*(1-math.Exp(-10_000./every)))
	for name, draw := range map[string]func(*rand.Rand) float64{
		"normal":          normal(0.5),
		"scores near one": func(r *rand.Rand) float64 { return max(0, 1-math.Abs(0.2*r.NormFloat64())) },
		"uniform":         (*rand.Rand).Float64,
		"one in 50 is low": func(r *rand.Rand) float64 {
			if r.IntN(50) == 0 {
				return 0.1
			}
			return 0.99
		},
	} {
		for _, samples := range []int{1000, 100_000} {
			at := alarms(usual(samples, draw), every, draw)
			fmt.Fprintf(&table, "%-30s%8d%8d%8d\n", fmt.Sprintf("%s, %d", name, samples), at[100], at[1000], at[10_000])
			for n, k := range at {
				if p := 1 - math.Exp(-float64(n)/every); k > atMost(p) {
					t.Errorf("%s, reference of %d: %d of %d streams alarm within %d values, at most %.1f wanted", name, samples, k, seeds, n, seeds*p)
				}
			}
			if samples == 100_000 && at[10_000] < seeds/100 && !strings.HasPrefix(name, "one in") {
				t.Errorf("%s: only %d alarms, the limit is too high", name, at[10_000])
			}
		}
	}
	t.Log(table.String())
}

// alarms counts the streams that have alarmed within 100, 1,000, 10,000 values.
func alarms(h Histogram, every float64, draw func(*rand.Rand) float64) map[int]int {
	at := map[int]int{}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(uint64(seed), 11))
		p := NewPageHinkley(h, every)
		for i := range 10_000 {
			if !p.Add(draw(r)) {
				continue
			}
			for _, n := range []int{100, 1000, 10_000} {
				if i < n {
					at[n]++
				}
			}
			break
		}
	}
	return at
}

func TestPageHinkleyFinds(t *testing.T) {
	var delays []int
	for seed := range 200 {
		r := rand.New(rand.NewPCG(uint64(seed), 12))
		p := NewPageHinkley(usual(1000, normal(0.7)), 1e7)
		for i := range 2000 {
			mean := 0.7
			if i >= 1000 {
				mean = 0.6
			}
			if p.Add(normal(mean)(r)) {
				delays = append(delays, i-1000)
				break
			}
		}
	}
	slices.Sort(delays)
	t.Logf("one in 10,000,000: a move of one standard deviation is found after %d values (median; all %d to %d)", delays[len(delays)/2], delays[0], delays[len(delays)-1])
	if len(delays) != 200 || delays[0] < 0 || delays[199] > 150 {
		t.Errorf("%d found, after %v", len(delays), delays)
	}
}

// TestRate: one alarm in at least so many values at the share that is fine, a
// quick one above.
func TestRate(t *testing.T) {
	const every = 20_000
	alarms, found := 0, 0
	for seed := range seeds {
		r := rand.New(rand.NewPCG(uint64(seed), 13))
		p, q := NewRate(0.01, 0.05, every), NewRate(0.01, 0.05, 1e7)
		for range 10_000 {
			if p.Add(r.Float64() < 0.01) {
				alarms++
				break
			}
		}
		for range 200 {
			if q.Add(r.Float64() < 0.3) {
				found++
				break
			}
		}
	}
	t.Logf("of %d streams of 10,000 with 1 %% errors %d alarm, %.0f are allowed; 30 %% errors are found within 200 values in %d", seeds, alarms, seeds*(1-math.Exp(-0.5)), found)
	if alarms > atMost(1-math.Exp(-0.5)) || found < seeds-5 {
		t.Errorf("%d false alarms, %d found", alarms, found)
	}
}

// TestAlarmEnds: an alarm does not flutter, and ends after the values are as before.
func TestAlarmEnds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 14))
	p := NewPageHinkley(usual(1000, normal(0.5)), 1e7)
	changes, on := 0, false
	for i := range 3000 {
		mean := 0.5
		if i >= 1000 && i < 2000 {
			mean = 0.7
		}
		if now := p.Add(mean + 0.1*r.NormFloat64()); now != on {
			changes, on = changes+1, now
		}
	}
	if changes != 2 || on {
		t.Errorf("%d changes, at the end %v", changes, on)
	}
	var c Cusum
	if c.Add(1e9) || p.Add(math.NaN()) {
		t.Error("an alarm without a limit or of no number")
	}
}

// TestTail checks chi2Tail with tables of the distribution.
func TestTail(t *testing.T) {
	for _, c := range []struct{ x, df, p float64 }{
		{6.6349, 1, 0.01}, {13.2767, 4, 0.01}, {36.1909, 19, 0.01}, {16.9190, 9, 0.05}, {3.8415, 1, 0.05}, {148.2304, 99, 0.001}, {0, 3, 1}, {0.0039, 1, 0.95},
	} {
		if got := chi2Tail(c.x, c.df); math.Abs(got-c.p) > 0.02*c.p {
			t.Errorf("chi2Tail(%v, %v) = %v, want %v", c.x, c.df, got, c.p)
		}
	}
}

// TestProportions checks Fisher's test with the lady who tasted tea, and edges.
func TestProportions(t *testing.T) {
	for _, c := range []struct {
		a, n, b, m uint64
		p          float64
	}{
		{3, 4, 1, 4, 0.4857}, {4, 4, 0, 4, 0.0286}, {0, 0, 1, 2, 1}, {5, 4, 1, 2, 1}, {0, 9, 0, 9, 1}, {9, 9, 3, 3, 1},
		{50, 1000, 100, 1000, 0.00002188}, {math.MaxUint64, math.MaxUint64, 1, 1, 1},
	} {
		if got := Proportions(c.a, c.n, c.b, c.m); math.Abs(got-c.p) > 0.02*c.p {
			t.Errorf("Proportions(%d, %d, %d, %d) = %v, want %v", c.a, c.n, c.b, c.m, got, c.p)
		}
	}
}

func TestSamplesFor(t *testing.T) {
	n, ok := SamplesFor(0.2, 1000, 20)
	if !ok || PSIThreshold(1000, n, 20) > 0.2 || PSIThreshold(1000, n-1, 20) <= 0.2 {
		t.Errorf("%d, %v", n, ok)
	}
	if n, ok := SamplesFor(0.2, 50, 20); ok || PSIThreshold(n, n, 20) > 0.2 {
		t.Errorf("a reference of 50: %d, %v", n, ok)
	}
}

// TestLatencyMillion compares the sketch with sorted values: a million durations
// of three shapes, two of them on different machines.
func TestLatencyMillion(t *testing.T) {
	const n = 1_000_000
	for name, draw := range map[string]func(r *rand.Rand) float64{
		"lognormal": func(r *rand.Rand) float64 { return math.Exp(8 + 0.7*r.NormFloat64()) },
		"bimodal":   func(r *rand.Rand) float64 { return []float64{900, 40_000}[r.IntN(2)] * (1 + 0.1*r.NormFloat64()) },
		"heavy":     func(r *rand.Rand) float64 { return 200 / math.Pow(1-r.Float64(), 0.8) },
	} {
		r := rand.New(rand.NewPCG(3, 4))
		list := make([]int64, n)
		parts := [2]Quantiles{}
		for i := range list {
			list[i] = int64(min(max(draw(r), 1), 3e9))
			parts[i%2].Add(list[i])
		}
		parts[0].Merge(&parts[1])
		slices.Sort(list)
		worst, where := 0.0, 0.0
		for p := 0.0; p <= 1; p += 0.001 {
			want := float64(list[int(p*float64(n-1))])
			if e := math.Abs(parts[0].Quantile(p)-want) / want; e > worst {
				worst, where = e, p
			}
		}
		t.Logf("%-10s %d values, two parts: worst relative error %.4f at p%.1f, %d bytes", name, n, worst, 100*where, len(parts[0].Encode().Bytes))
		if worst > Accuracy*1.0000001 {
			t.Errorf("%s: %.5f at p%.1f", name, worst, 100*where)
		}
	}
}

// TestCertainty checks the measures with the formulas written out.
func TestCertainty(t *testing.T) {
	soft := func(v []float64) []float64 {
		s, out := 0.0, make([]float64, len(v))
		for _, x := range v {
			s += math.Exp(x)
		}
		for i, x := range v {
			out[i] = math.Exp(x) / s
		}
		return out
	}
	logits := []float64{2, -1, 0.5, 0}
	want := CertaintyOf(soft(logits), Softmax)
	got := CertaintyOf(logits, Logits)
	if got.Best != 0 || got.Score != 2 || math.Abs(got.Entropy-want.Entropy) > 1e-12 || math.Abs(got.Margin-want.Margin) > 1e-12 {
		t.Errorf("logits %+v, probabilities %+v", got, want)
	}
	for _, c := range []struct {
		name   string
		values []float64
		kind   string
		want   Certainty
	}{
		{"even", []float64{.25, .25, .25, .25}, Softmax, Certainty{0, .25, true, 1, 0}},
		{"sure", []float64{0, 1, 0}, Softmax, Certainty{1, 1, true, 0, 1}},
		{"half and half", []float64{.5, .5, 0, 0}, "", Certainty{0, .5, true, .5, 0}},
		{"huge logits", []float64{1000, -1000}, Logits, Certainty{0, 1000, true, 0, 1}},
		{"even logits", []float64{-3, -3}, Logits, Certainty{0, -3, true, 1, 0}},
		{"one sigmoid", []float64{0.5}, Sigmoid, Certainty{0, 0.5, true, 1, 0}},
		{"sigmoids", []float64{0.9, 0.2, 1}, Sigmoid, Certainty{2, 1, true, 0, 0.1}},
		{"no probabilities", []float64{3, 4}, "", Certainty{1, 4, false, 0, 0}},
		{"NaN among them", []float64{math.NaN(), 1, 0}, Softmax, Certainty{1, 1, true, 0, 1}},
		{"none", []float64{math.NaN()}, Softmax, Certainty{Best: -1}},
		{"infinite", []float64{1, math.Inf(1)}, Logits, Certainty{Best: 1, Score: math.Inf(1)}},
		{"empty", nil, Softmax, Certainty{Best: -1}},
	} {
		got := CertaintyOf(c.values, c.kind)
		near := func(a, b float64) bool { return cmp.Compare(a, b) == 0 || math.Abs(a-b) < 1e-9 }
		if got.Best != c.want.Best || !near(got.Score, c.want.Score) || got.OK != c.want.OK || !near(got.Entropy, c.want.Entropy) || !near(got.Margin, c.want.Margin) {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
