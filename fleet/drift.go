package fleet

import "time"

// Verdicts on how what devices see differs from a release's reference.
const (
	DriftSteady  = "steady"       // no difference that matters
	DriftDrifts  = "drifts"       // a difference that matters and is more than chance
	DriftTooFew  = "too few"      // a difference that matters could not be told from chance
	DriftUnknown = "no reference" // the release says nothing about this measure
)

// DriftAsk is a question about a model.
type DriftAsk struct {
	Model string
	By    string        // "version", "device", "class", or the key of a label or fact
	Since time.Duration // how far back
}

// Drift compares what devices see of a model with its releases' references.
type Drift struct {
	Model    string         `json:"model"`
	By       string         `json:"by" doc:"what the groups have in common: version, device, class, or a label's key"`
	Since    time.Time      `json:"since" doc:"windows that began at or after this"`
	Effect   float64        `json:"effect" doc:"PSI that is taken to matter"`
	Level    float64        `json:"level" doc:"probability of one false 'drifts' in the whole answer, if requests are independent"`
	Groups   []DriftGroup   `json:"groups" doc:"those that drift first"`
	Outliers []DriftOutlier `json:"outliers" doc:"devices that differ from the rest of their version far more than others do, the farthest first"`
	LeftOut  int            `json:"left_out,omitempty" doc:"windows that do not fit the release's bins"`
}

// DriftGroup is devices that have something in common and run one release.
type DriftGroup struct {
	Group    string         `json:"group"`
	Path     string         `json:"path" doc:"of the release, whose reference is compared with"`
	Version  string         `json:"version"`
	Devices  int            `json:"devices"`
	Windows  int            `json:"windows"`
	Requests uint64         `json:"requests"`
	Failed   uint64         `json:"failed"`
	Verdict  string         `json:"verdict" enum:"steady,drifts,too few,no reference" doc:"the worst of the measures"`
	Measures []DriftMeasure `json:"measures"`
}

// DriftMeasure is one measure of a group.
type DriftMeasure struct {
	Measure   string  `json:"measure" doc:"score, classes, entropy, input NAME or errors"`
	Verdict   string  `json:"verdict" enum:"steady,drifts,too few,no reference"`
	Live      uint64  `json:"live" doc:"values compared"`
	Reference uint64  `json:"reference" doc:"values compared with; for errors the requests of all other groups of the release"`
	PSI       float64 `json:"psi,omitempty"`
	Threshold float64 `json:"threshold,omitempty" doc:"what PSI exceeds by chance once in a hundred at these numbers"`
	JS        float64 `json:"js,omitempty" doc:"Jensen-Shannon divergence in bits"`
	P         float64 `json:"p" doc:"probability of such a difference by chance"`
	Mean      float64 `json:"mean" doc:"of the live values; for errors the share"`
	Usual     float64 `json:"usual" doc:"of the reference"`
	Needs     uint64  `json:"needs,omitempty" doc:"too few: live values that would do"`
	Says      string  `json:"says" doc:"in words"`
}

// DriftOutlier is a device unlike the others.
type DriftOutlier struct {
	Device   string  `json:"device"`
	Path     string  `json:"path"`
	Measure  string  `json:"measure"`
	Live     uint64  `json:"live" doc:"values of the device"`
	Distance float64 `json:"distance" doc:"square root of the Jensen-Shannon divergence from all others of its release, 0..1"`
	Usual    float64 `json:"usual" doc:"median of this over the devices"`
}
