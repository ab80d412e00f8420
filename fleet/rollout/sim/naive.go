package sim

import (
	"math"

	"github.com/dunlin-edge/dunlin/fleet/gate"
	"github.com/dunlin-edge/dunlin/shared/sketch"
)

// Naive is what rules that pool requests would have done on the same data, looked at
// once a step.
type Naive struct {
	Errors  bool // two-proportion z-test on errors, p < 0.01
	PSI     bool // PSI of pooled class counts above 0.2
	Latency bool // pooled p95 above 1.5 times that of the others
}

// pooled is the sum over devices of one arm since the rollout began.
type pooled struct {
	n, errs, lat float64
	classes      []uint64
}

func (n *Naive) look(w *world) {
	t, c := pooled{classes: make([]uint64, answers)}, pooled{classes: make([]uint64, answers)}
	for _, d := range w.list {
		from, into := w.start, &c
		if d.at != gate.Never {
			from, into = d.at, &t
		}
		into.add(&d.series, from)
	}
	if t.n == 0 || c.n == 0 {
		return
	}
	p := (t.errs + c.errs) / (t.n + c.n)
	if z := (t.errs/t.n - c.errs/c.n) / math.Sqrt(p*(1-p)*(1/t.n+1/c.n)); z > 2.326 {
		n.Errors = true
	}
	n.PSI = n.PSI || sketch.Compare(c.classes, t.classes).PSI > 0.2
	n.Latency = n.Latency || t.lat/t.n-c.lat/c.n > math.Log(1.5)
}

func (p *pooled) add(s *series, from int) {
	to := len(s.n) - 1
	if from >= to {
		return
	}
	p.n += s.n[to] - s.n[from]
	p.errs += s.errs[to] - s.errs[from]
	p.lat += s.lat[to] - s.lat[from]
	for k := range p.classes {
		p.classes[k] += uint64(s.classes[k][to] - s.classes[k][from])
	}
}
