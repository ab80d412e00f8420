package bundle

import (
	"fmt"
	"strings"
	"time"
)

// Proof is what a pair of model and runtime showed on a device before it served. It
// is stored as JSON beside the slot and travels as CBOR in reports.
type Proof struct {
	Cases  int          `json:"cases,omitempty" cbor:"1,keyasint,omitempty"` // golden cases
	Held   int          `json:"held,omitempty" cbor:"2,keyasint,omitempty"`  // those that held
	Slices []SliceShare `json:"slices,omitempty" cbor:"3,keyasint,omitempty"`
	Cost   Cost         `json:"cost" cbor:"4,keyasint"`
	Base   *Cost        `json:"base,omitempty" cbor:"5,keyasint,omitempty"` // of the slot that was active, measured in turns
	// How the pair is to be served: with these kernels ("xnnpack", "builtin", "gpu",
	// "npu", or KernelsExternal), this many workers and threads of each.
	Kernels string  `json:"kernels,omitempty" cbor:"6,keyasint,omitempty"`
	Threads int     `json:"threads,omitempty" cbor:"7,keyasint,omitempty"`
	Tried   []Tried `json:"tried,omitempty" cbor:"8,keyasint,omitempty"` // what did not do
	Shadow  *Shade  `json:"shadow,omitempty" cbor:"9,keyasint,omitempty"`
	Workers int     `json:"workers,omitempty" cbor:"10,keyasint,omitempty"`
}

// KernelsExternal stands for those of an engine beside the agent.
const KernelsExternal = "external"

// Cost is what a worker took. What was not measured is 0.
type Cost struct {
	P50US  int64 `json:"p50_us,omitempty" cbor:"1,keyasint,omitempty"` // of a run, microseconds
	P95US  int64 `json:"p95_us,omitempty" cbor:"2,keyasint,omitempty"`
	P99US  int64 `json:"p99_us,omitempty" cbor:"3,keyasint,omitempty"`
	Start  int64 `json:"start_us,omitempty" cbor:"4,keyasint,omitempty"`      // spawn to first result, microseconds
	Cold   int64 `json:"cold_start_us,omitempty" cbor:"5,keyasint,omitempty"` // the same from the disk, without packed weights
	PeakKB int64 `json:"peak_kb,omitempty" cbor:"6,keyasint,omitempty"`       // highest resident memory
}

// SliceShare is how many golden cases of a slice held.
type SliceShare struct {
	Slice string `json:"slice" cbor:"1,keyasint"`
	Cases int    `json:"cases" cbor:"2,keyasint"`
	Held  int    `json:"held" cbor:"3,keyasint"`
}

// Tried is a way to run the pair that did not do, and why.
type Tried struct {
	Kernels string `json:"kernels" cbor:"1,keyasint"`
	Why     string `json:"why" cbor:"2,keyasint"`
}

// Shade is what shadowing live requests showed.
type Shade struct {
	Requests uint64 `json:"requests" cbor:"1,keyasint"`                        // that were answered and compared
	Agreed   uint64 `json:"agreed" cbor:"2,keyasint"`                          // of them
	Dropped  uint64 `json:"dropped,omitempty" cbor:"3,keyasint,omitempty"`     // that were chosen while the worker was busy
	P50US    int64  `json:"p50_us,omitempty" cbor:"4,keyasint,omitempty"`      // of its runs, at the lowest priority
	P95US    int64  `json:"p95_us,omitempty" cbor:"5,keyasint,omitempty"`      //
	LiveP95  int64  `json:"live_p95_us,omitempty" cbor:"6,keyasint,omitempty"` // of the active slot's runs of the same requests
	Note     string `json:"note,omitempty" cbor:"7,keyasint,omitempty"`        // when it saw nothing, or too little: why
}

// Lines are the figures for people, each line one thing; none of a nil proof.
func (p *Proof) Lines() []string {
	if p == nil {
		return nil
	}
	lines := []string{}
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if p.Cases > 0 {
		add("%d of %d golden cases held", p.Held, p.Cases)
	}
	if len(p.Slices) > 0 {
		var parts []string
		for _, s := range p.Slices {
			parts = append(parts, fmt.Sprintf("%s %d/%d", s.Slice, s.Held, s.Cases))
		}
		add("by slice: %s", strings.Join(parts, ", "))
	}
	switch {
	case p.Cost == (Cost{}):
	case p.Kernels == KernelsExternal:
		add("%s in the engine beside the agent, whose memory is not measured", p.Cost.text())
	default:
		add("%s with %s kernels, workers: %d, threads: %d", p.Cost.text(), p.Kernels, max(p.Workers, 1), p.Threads)
	}
	if p.Base != nil {
		add("the active slot at the same time: %s", p.Base.text())
	}
	for _, t := range p.Tried {
		add("not with %s: %s", t.Kernels, t.Why)
	}
	if s := p.Shadow; s != nil && s.Note != "" {
		add("on live requests: %s", s.Note)
	} else if s != nil {
		add("on live requests: %d of %d answers agreed, p95 %s beside %s, %d dropped", s.Agreed, s.Requests, micros(s.P95US), micros(s.LiveP95), s.Dropped)
	}
	return lines
}

func (c *Cost) text() string {
	var parts []string
	for _, x := range []struct {
		name string
		us   int64
	}{{"p50", c.P50US}, {"p95", c.P95US}, {"p99", c.P99US}, {"start", c.Start}, {"from the disk", c.Cold}} {
		if x.us > 0 {
			parts = append(parts, x.name+" "+micros(x.us))
		}
	}
	if c.PeakKB > 0 {
		parts = append(parts, fmt.Sprintf("peak %.1f MB", float64(c.PeakKB)/1024))
	}
	return strings.Join(parts, ", ")
}

func micros(us int64) string { return (time.Duration(us) * time.Microsecond).String() }
