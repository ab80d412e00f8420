package fleet

import "time"

// TruthAsk is a question about what was said of a model's answers.
type TruthAsk struct {
	Model string
	By    string        // "version", "device", "class", or the key of a label or fact
	Since time.Duration // how far back
}

// Truth is what applications said of a model's answers.
type Truth struct {
	Model  string       `json:"model"`
	By     string       `json:"by" doc:"what the groups have in common: version, device, class, or a label's key"`
	Since  time.Time    `json:"since" doc:"windows that began at or after this"`
	Groups []TruthGroup `json:"groups" doc:"the least accurate first"`
}

// TruthGroup is devices that have something in common and run one release.
type TruthGroup struct {
	Group    string         `json:"group"`
	Path     string         `json:"path" doc:"of the release that answered"`
	Version  string         `json:"version"`
	Devices  int            `json:"devices" doc:"that something was said on"`
	Requests uint64         `json:"requests" doc:"answered or failed in the same time"`
	Right    uint64         `json:"right"`
	Wrong    uint64         `json:"wrong"`
	Late     uint64         `json:"late,omitempty" doc:"words that came for answers no longer known"`
	Accuracy float64        `json:"accuracy" doc:"share that was right of what was judged, 0..1"`
	Low      float64        `json:"low" doc:"lower end of its 95 % interval (Wilson)"`
	High     float64        `json:"high" doc:"upper end of it"`
	Confused []Confused     `json:"confused,omitempty" doc:"the most frequent pairs, at most 10"`
	Other    uint64         `json:"other,omitempty" doc:"wrong answers whose right class was not said or not counted by pair"`
	Metrics  []MetricTotals `json:"metrics,omitempty" doc:"applications' own measures"`
}

// Confused counts answers of one class that were of another in truth, by index.
type Confused struct {
	Right    uint32 `json:"right"`
	Answered uint32 `json:"answered"`
	Count    uint64 `json:"count"`
}

// MetricTotals are an application's own measure over a group.
type MetricTotals struct {
	Name  string  `json:"name"`
	Count uint64  `json:"count"`
	Mean  float64 `json:"mean"`
	SD    float64 `json:"sd"`
	Min   float64 `json:"min"`
	Max   float64 `json:"max"`
}
