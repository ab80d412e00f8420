package pack

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// SpecName is the file that people write beside their model.
const SpecName = "model.yaml"

const maxSpec = 64 << 10

// Spec is model.yaml: what the model file cannot say about itself.
type Spec struct {
	Model   string `yaml:"model"`
	Version string `yaml:"version"`
	File    string `yaml:"file"`
	Labels  string `yaml:"labels"`
	Golden  string `yaml:"golden"` // an .npz, or "none"
	Runtime string `yaml:"runtime"`

	Input   said            `yaml:"input"`   // meaning of the only input
	Output  said            `yaml:"output"`  // meaning of the only output
	Inputs  map[string]said `yaml:"inputs"`  // meanings by name, where there are several
	Outputs map[string]said `yaml:"outputs"` // the same

	Tolerance map[string]specTolerance `yaml:"tolerance"` // by output
	Repeat    string                   `yaml:"repeat"`    // "same" (default), "close" or "any"
	Slices    string                   `yaml:"slices"`    // array of golden with the labels of each case
	Shadow    *specShadow              `yaml:"shadow"`
	Reference string                   `yaml:"reference"` // an .npz with the watched output over a validation set
	Watch     string                   `yaml:"watch"`     // name of the output with the scores
	Budgets   map[string]specBudget    `yaml:"budgets"`   // by hardware class, or "any"
	Probation *specProbation           `yaml:"probation"`
	Hardware  string                   `yaml:"hardware"` // selector over facts
	State     string                   `yaml:"state"`
	Serve     string                   `yaml:"serve"`
	Custom    []string                 `yaml:"custom_operators"` // that the application brings along
	Files     []string                 `yaml:"files"`            // carried along: model card, evaluation
	About     specAbout                `yaml:"about"`
	Signing   specSigning              `yaml:"signing"` // whose model.sig the folder must carry
}

type specTolerance struct {
	Relative float64 `yaml:"relative"`
	Absolute float64 `yaml:"absolute"`
	Top      int     `yaml:"top"`
	Cosine   float64 `yaml:"cosine"`
	IoU      float64 `yaml:"iou"`
	Pass     float64 `yaml:"pass"`
}

type specBudget struct {
	LatencyP50US int64         `yaml:"latency_p50_us"`
	LatencyP95US int64         `yaml:"latency_p95_us"`
	LatencyP99US int64         `yaml:"latency_p99_us"`
	PeakMemoryKB int64         `yaml:"peak_memory_kb"`
	StartMS      int64         `yaml:"start_ms"`
	ColdStartMS  int64         `yaml:"cold_start_ms"`
	MaxSliceGap  float64       `yaml:"max_slice_gap"`
	Relative     *specRelative `yaml:"relative"` // multiples of the active slot's
}

type specRelative struct {
	LatencyP50 float64 `yaml:"latency_p50"`
	LatencyP95 float64 `yaml:"latency_p95"`
	LatencyP99 float64 `yaml:"latency_p99"`
	PeakMemory float64 `yaml:"peak_memory"`
	Start      float64 `yaml:"start"`
}

// budget is what the contract holds of it.
func (b *specBudget) budget(class string) bundle.Budget {
	return bundle.Budget{
		Class: class, LatencyP50US: b.LatencyP50US, LatencyP95US: b.LatencyP95US, LatencyP99US: b.LatencyP99US, PeakMemoryKB: b.PeakMemoryKB,
		StartMS: b.StartMS, ColdStartMS: b.ColdStartMS, MaxSliceGap: b.MaxSliceGap, Relative: (*bundle.Relative)(b.Relative),
	}
}

type specShadow struct {
	Share    float64 `yaml:"share"`
	Minutes  float64 `yaml:"minutes"`
	Requests uint64  `yaml:"requests"`
	Duty     float64 `yaml:"duty"`
	Agree    float64 `yaml:"agree"`
}

type specProbation struct {
	Minutes  float64 `yaml:"minutes"`
	Requests uint64  `yaml:"requests"`
}

type specAbout struct {
	Card    string `yaml:"card"`
	Licence string `yaml:"licence"`
	Commit  string `yaml:"commit"`
	DataSet string `yaml:"data_set"`
}

// readSpec reads model.yaml; a missing one is an empty one, so that everything
// is asked for.
func readSpec(dir string) (*Spec, error) {
	f, err := os.Open(filepath.Join(dir, SpecName))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(dir); err != nil {
			return nil, refuse("pack.folder", "name the folder that holds "+SpecName, "%v", err)
		}
		return &Spec{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSpec+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxSpec {
		return nil, refuse("pack.spec", "remove what does not belong there", "%s is larger than %d bytes", SpecName, maxSpec)
	}
	return parseSpec(b)
}

func parseSpec(b []byte) (*Spec, error) {
	s := &Spec{}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(s); err != nil && err != io.EOF {
		return nil, refuse("pack.spec", "see docs/model-yaml.md for every key", "%s: %v", SpecName, err)
	}
	return s, nil
}
