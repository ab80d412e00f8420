package bundle

import "github.com/dunlin-edge/dunlin/shared/sketch"

// ContractNumber is the format number this code writes and reads.
const ContractNumber = 1

// Kinds of bundle.
const (
	KindModel   = "model"
	KindRuntime = "runtime"
)

// Contract says what a bundle promises and needs. It is stored as JSON with
// unknown and duplicate keys refused, and it is part of what the manifest's
// digest covers.
type Contract struct {
	Number     int          `json:"contract"`           // ContractNumber
	Kind       string       `json:"kind"`               // KindModel or KindRuntime
	Model      string       `json:"model"`              // name of the line of releases, ValidName
	Version    string       `json:"version"`            // semantic version, for people
	File       string       `json:"file"`               // path of the .tflite or of the library inside the bundle
	Runtime    *RuntimeNeed `json:"runtime,omitempty"`  // models: what they need
	ABI        *RuntimeABI  `json:"abi,omitempty"`      // runtimes: what they offer
	Hardware   string       `json:"hardware,omitempty"` // selector over device facts; empty: any device
	Inputs     []Tensor     `json:"inputs,omitempty"`
	Outputs    []Tensor     `json:"outputs,omitempty"`
	Labels     string       `json:"labels,omitempty"` // path of a file with one class name a line
	State      string       `json:"state,omitempty"`  // "none" (default) or "carry": requests depend on earlier ones
	Golden     *Golden      `json:"golden,omitempty"`
	Budgets    []Budget     `json:"budgets,omitempty"`
	Watch      *Watch       `json:"watch,omitempty"`
	Reference  *Reference   `json:"reference,omitempty"`
	Shadow     *Shadow      `json:"shadow,omitempty"`
	Probation  Probation    `json:"probation"`
	Serve      string       `json:"serve,omitempty"`            // "worker" (default), "file", "external"
	Custom     []string     `json:"custom_operators,omitempty"` // serve "file": those that the application brings along, Flex ones too
	Provenance *Provenance  `json:"provenance,omitempty"`
}

// RuntimeNeed names a runtime and the lowest version of it that will do.
type RuntimeNeed struct {
	Name string `json:"name"` // "litert"
	Min  string `json:"min"`  // "2.1.6"
}

// RuntimeABI describes a runtime component.
type RuntimeABI struct {
	Name    string `json:"name"`    // "litert"
	Version string `json:"version"` // "2.3.0"
	Arch    string `json:"arch"`    // GOARCH: "amd64", "arm64"
	GLibC   string `json:"glibc"`   // lowest glibc, "2.34"
}

// Watch says what to observe in live outputs.
type Watch struct {
	Output string `json:"output"`          // the output that holds the scores
	Score  string `json:"score,omitempty"` // "max" (default): highest value of the output is the score, its index the class
}

// Reference is how the watched output was distributed over a validation set
// (not over the golden cases). What is nil or empty was not measured.
type Reference struct {
	Samples uint64            `json:"samples"`
	Score   sketch.Histogram  `json:"score"`   // 20 bins over the score's range
	Classes []uint64          `json:"classes"` // count per class index
	Entropy *sketch.Histogram `json:"entropy,omitempty"`
	Margin  *sketch.Histogram `json:"margin,omitempty"`
	Inputs  []sketch.Input    `json:"inputs,omitempty"` // by the order of the contract's inputs; one without requests was not measured
}

// Probation is the watched time after the first serving of a candidate. It
// passes when both Minutes and Requests are reached without a finding.
type Probation struct {
	Minutes  float64 `json:"minutes"`
	Requests uint64  `json:"requests"`
}

// Provenance is carried and shown, never interpreted.
type Provenance struct {
	Card    string `json:"card,omitempty"`
	Licence string `json:"licence,omitempty"`
	Commit  string `json:"commit,omitempty"`
	DataSet string `json:"data_set,omitempty"`
}
