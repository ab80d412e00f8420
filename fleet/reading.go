package fleet

import "time"

// GateReading is a gate's evaluation in numbers and words that people read.
type GateReading struct {
	Gate      string         `json:"gate"`
	Stage     int            `json:"stage"`
	At        time.Time      `json:"at"`
	Verdict   string         `json:"verdict" enum:"pass,fail,not_yet"`
	Says      string         `json:"says" doc:"what was seen, in words"`
	Harm      float64        `json:"harm,omitempty" doc:"e-value against 'no harm'"`
	FailsAt   float64        `json:"fails_at,omitempty" doc:"e-value that fails"`
	Change    float64        `json:"change,omitempty" doc:"best estimate on the gate's scale"`
	Error     float64        `json:"error,omitempty" doc:"its standard error"`
	Margin    float64        `json:"margin,omitempty" doc:"change that is tolerated"`
	Bound     float64        `json:"bound,omitempty" doc:"change that must be found"`
	Sees      float64        `json:"sees,omitempty" doc:"least change that would fail as things stand"`
	Units     int            `json:"units" doc:"devices, cells of devices or hours behind it"`
	Control   string         `json:"control,omitempty" enum:"concurrent,own past,"`
	Decidable bool           `json:"decidable" doc:"with no change at all this evidence would pass"`
	Why       string         `json:"why,omitempty" doc:"no verdict can be had"`
	Classes   []ClassReading `json:"classes,omitempty" doc:"by hardware class, at the look that knows most"`
	LeftOut   map[string]int `json:"left_out,omitempty" doc:"devices that could not be counted in a look, by reason"`
}

// ClassReading is what a gate saw in one hardware class.
type ClassReading struct {
	Class   string  `json:"class"`
	Change  float64 `json:"change"`
	Error   float64 `json:"error"`
	Treated int     `json:"treated"`
	Control int     `json:"control"`
	Says    string  `json:"says"`
}
