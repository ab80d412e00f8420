package gate

import "time"

// Kind of a measure.
type Kind string

// Measures and their scales.
const (
	Errors  Kind = "errors"  // sqrt((errors+3/8)/(requests+3/4)): steady variance (Anscombe 1948)
	Latency Kind = "latency" // ln of a quantile
	Class   Kind = "class"   // share of one class
	Score   Kind = "score"   // mean
	Entropy Kind = "entropy" // mean
	Memory  Kind = "memory"  // slope per hour over the usual memory; requests: its span in hours, squared
	Wrong   Kind = "wrong"   // as Errors, of the answers that applications judged
	Metric  Kind = "metric"  // mean of an application's own measure
)

// Measure is what a gate looks at.
type Measure struct {
	Kind     Kind
	Quantile float64 // of Latency
	Class    int     // of Class
	Name     string  // of Metric
}

// Spec is one gate on behaviour.
type Spec struct {
	Name        string
	Measure     Measure
	Classes     []int    // of a gate on Class: those that are watched
	Names       []string // of Classes, for people
	Margin      float64  // change that is tolerated
	Harm        float64  // change that must be found
	TwoSided    bool
	MinRequests float64 // of a device; fewer make no number
	MinCell     float64 // of a unit; devices with fewer are merged with their neighbours
	MinUnits    int     // to pass, and to fail
	Expect      bool    // Margin and Harm are a stated bound for an intended change
}

func (s *Spec) measures() []Measure {
	if len(s.Classes) == 0 {
		return []Measure{s.Measure}
	}
	out := make([]Measure, len(s.Classes))
	for i, c := range s.Classes {
		out[i] = s.Measure
		out[i].Class = c
	}
	return out
}

// Names of the gates.
const (
	NameErrors  = "errors"
	NameP50     = "latency_p50"
	NameP95     = "latency_p95"
	NameP99     = "latency_p99"
	NameClasses = "classes"
	NameScore   = "score"
	NameEntropy = "entropy"
	NameMemory  = "memory"
	NameTruth   = "truth"
	NameCrash   = "crash"
	NameNaN     = "nan"
	NameSilence = "silence"
)

// Known gates on behaviour by name, without the classes that are watched. The margins
// and harms of latency are ln 1.08 and ln 1.30.
var Known = map[string]Spec{
	NameErrors:  {Name: NameErrors, Measure: Measure{Kind: Errors}, Margin: 0.015, Harm: 0.05, MinCell: 500, MinUnits: 3},
	NameP50:     {Name: NameP50, Measure: Measure{Kind: Latency, Quantile: 0.5}, Margin: 0.07696, Harm: 0.26236, MinRequests: 20, MinUnits: 3},
	NameP95:     {Name: NameP95, Measure: Measure{Kind: Latency, Quantile: 0.95}, Margin: 0.07696, Harm: 0.26236, MinRequests: 20, MinUnits: 3},
	NameP99:     {Name: NameP99, Measure: Measure{Kind: Latency, Quantile: 0.99}, Margin: 0.07696, Harm: 0.26236, MinRequests: 100, MinUnits: 3},
	NameClasses: {Name: NameClasses, Measure: Measure{Kind: Class}, Margin: 0.02, Harm: 0.07, TwoSided: true, MinCell: 30, MinUnits: 3},
	NameScore:   {Name: NameScore, Measure: Measure{Kind: Score}, Margin: 0.02, Harm: 0.06, TwoSided: true, MinCell: 20, MinUnits: 3},
	NameEntropy: {Name: NameEntropy, Measure: Measure{Kind: Entropy}, Margin: 0.02, Harm: 0.06, TwoSided: true, MinCell: 20, MinUnits: 3},
	NameMemory:  {Name: NameMemory, Measure: Measure{Kind: Memory}, Margin: 0.02, Harm: 0.08, MinUnits: 3},
	NameTruth:   {Name: NameTruth, Measure: Measure{Kind: Wrong}, Margin: 0.03, Harm: 0.10, MinCell: 50, MinUnits: 3},
}

// Default is the names of the behaviour gates of the default policy.
var Default = []string{NameErrors, NameP95, NameClasses, NameScore, NameMemory}

// CrashOutcome is the test of hours of devices in which a worker crashed.
func CrashOutcome(hours, crashed int, alpha float64) *Outcome {
	return &Outcome{Units: hours, Failed: crashed, Tolerated: 0.01, Worse: []float64{0.05, 0.20, 0.80}, Alpha: alpha, Beta: Beta}
}

// SilenceOutcome is the test of acknowledged devices that fell silent.
func SilenceOutcome(devices, silent int, alpha float64) *Outcome {
	return &Outcome{Units: devices, Failed: silent, Tolerated: 0.03, Worse: []float64{0.12, 0.30, 0.80}, Alpha: alpha, Beta: Beta}
}

// InstallOutcome is the test of devices that finished an install.
func InstallOutcome(devices, failed int) *Outcome {
	return &Outcome{Units: devices, Failed: failed, Tolerated: 0.01, Worse: []float64{0.05, 0.10, 0.20, 0.80}, Alpha: InstallHalts, Beta: Beta}
}

// Every makes the timing of looks at multiples 1, 2, 4, 8, 16 and 32 of a first look,
// a past of the given length and 24 placebo windows that fill it once. Steps are as
// long as the first look divided by parts. The times are 20 min and 24 h unless a
// policy says otherwise.
func Every(look, past time.Duration, parts int) (step time.Duration, t Timing) {
	parts = max(parts, 1)
	step = look / time.Duration(parts)
	t.Past = max(int(past/step), 24)
	t.Hour = max(1, t.Past/24)
	t.Placebo = 24
	for k := range 6 {
		t.Looks = append(t.Looks, parts<<k)
	}
	return step, t
}
