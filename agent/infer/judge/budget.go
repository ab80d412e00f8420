package judge

import (
	"fmt"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Within compares a proof with the budgets.
func Within(p *bundle.Proof, b bundle.Budget) error {
	c := &p.Cost
	for _, x := range []struct {
		code, what, unit string
		have, most       int64
	}{
		{"prove.latency_p50", "half of the runs take more than", "us", c.P50US, b.LatencyP50US},
		{"prove.latency", "95 of 100 runs take up to", "us", c.P95US, b.LatencyP95US},
		{"prove.latency_p99", "99 of 100 runs take up to", "us", c.P99US, b.LatencyP99US},
		{"prove.memory", "the worker needs", "kB", c.PeakKB, b.PeakMemoryKB},
		{"prove.start", "the first result takes", "ms", c.Start / 1000, b.StartMS},
		{"prove.cold_start", "the first result from the disk takes", "ms", c.Cold / 1000, b.ColdStartMS},
	} {
		if x.most > 0 && x.have > x.most {
			return &Refusal{x.code, fmt.Sprintf("%s %d %s, the budget is %d %s", x.what, x.have, x.unit, x.most, x.unit)}
		}
	}
	if gap, best, worst := widest(p.Slices); b.MaxSliceGap > 0 && gap > b.MaxSliceGap {
		return &Refusal{"prove.slices", fmt.Sprintf("%d of %d golden cases of %s hold, but %d of %d of %s: a gap of %.3f, the budget is %v",
			best.Held, best.Cases, best.Slice, worst.Held, worst.Cases, worst.Slice, gap, b.MaxSliceGap)}
	}
	return relative(b.Relative, c, p.Base)
}

// relative compares costs with those of the active slot.
func relative(r *bundle.Relative, c, base *bundle.Cost) error {
	if r == nil || base == nil {
		return nil
	}
	for _, x := range []struct {
		code, what string
		have, than int64
		most       float64
	}{
		{"prove.relative_latency", "the median of the runs", c.P50US, base.P50US, r.LatencyP50},
		{"prove.relative_latency", "the 95th percentile of the runs", c.P95US, base.P95US, r.LatencyP95},
		{"prove.relative_latency", "the 99th percentile of the runs", c.P99US, base.P99US, r.LatencyP99},
		{"prove.relative_memory", "the memory in kB", c.PeakKB, base.PeakKB, r.PeakMemory},
		{"prove.relative_start", "the time to the first result", c.Start, base.Start, r.Start},
	} {
		if x.most > 0 && x.than > 0 && float64(x.have) > x.most*float64(x.than) {
			return &Refusal{x.code, fmt.Sprintf("%s is %d, that of the active slot %d: %.2f times as much, the budget is %v times", x.what, x.have, x.than, float64(x.have)/float64(x.than), x.most)}
		}
	}
	return nil
}
