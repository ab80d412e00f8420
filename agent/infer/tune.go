package infer

import (
	"cmp"
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer/judge"
	"github.com/dunlin-edge/dunlin/agent/infer/vitals"
	"github.com/dunlin-edge/dunlin/shared/bundle"
)

const (
	maxTuned   = 8    // threads of all workers that are tried at most
	tuneRuns   = 40   // of each worker
	tuneMargin = 0.10 // better by less is not worth a worker or a thread
	tuneTime   = 300 * time.Millisecond
)

// setting is a number of workers with so many threads each, and what they did when
// all of them ran at once.
type setting struct {
	workers, threads int
	p50, p95         time.Duration // of a run
	peakKB           int64         // of all workers
}

// rate is how many runs a second they do.
func (s setting) rate() float64 { return float64(s.workers) / max(s.p50.Seconds(), 1e-9) }

// within tells whether the budget allows to serve like this.
func (s setting) within(b bundle.Budget) bool {
	return (b.LatencyP95US == 0 || s.p95.Microseconds() <= b.LatencyP95US) && (b.PeakMemoryKB == 0 || s.peakKB <= b.PeakMemoryKB)
}

// tune finds how many workers with how many threads a slot is to have, where Config
// leaves it open.
func (t *trial) tune(ctx context.Context) error {
	t.p.Workers, t.p.Threads = t.s.workers(t.slot), t.s.threads(t.slot)
	if accelerated(t.slot.Setup.Kernels) {
		return nil
	}
	settings := t.s.settings(t.slot)
	for i := range settings {
		if len(settings) == 1 {
			break
		}
		if err := t.try(ctx, &settings[i]); err != nil {
			return err
		}
	}
	best := choose(settings, t.budget)
	t.p.Workers, t.p.Threads = best.workers, best.threads
	t.slot.Setup.Workers, t.slot.Setup.Threads = best.workers, best.threads
	return nil
}

// settings are what may be tried: at least one, the smallest first. The workers of a
// model share the processors.
func (s *Server) settings(slot Slot) []setting {
	all := min(runtime.NumCPU(), maxTuned)
	least, most := s.workers(slot), s.workers(slot)
	if s.c.Workers == 0 && !slot.Contract.Carries() {
		least, most = 1, all
	}
	var out []setting
	for n := least; n <= most; n++ {
		from, to := s.threads(slot), s.threads(slot)
		if s.c.Threads == 0 {
			from, to = 1, max(all/n, 1)
		}
		for k := from; k <= to; k++ {
			if len(out) == 0 || n*k <= all {
				out = append(out, setting{workers: n, threads: k})
			}
		}
	}
	return out
}

// try runs as many workers as the setting has at once and measures them.
func (t *trial) try(ctx context.Context, x *setting) error {
	slot := t.slot
	slot.Setup.Workers, slot.Setup.Threads = x.workers, x.threads
	workers := make([]*worker, 0, x.workers)
	defer func() {
		for _, w := range workers {
			w.stop()
		}
	}()
	for range x.workers {
		w, err := t.s.launch(ctx, slot, nil, newPool(1))
		if err != nil {
			return err
		}
		workers = append(workers, w)
	}
	took, errs := make([][]time.Duration, x.workers), make([]error, x.workers)
	var running sync.WaitGroup
	for i, w := range workers {
		running.Go(func() { took[i], errs[i] = timed(ctx, w, t.inputsOf(w, 0), tuneRuns, tuneTime) })
	}
	running.Wait()
	for i, w := range workers {
		if errs[i] != nil {
			return errs[i]
		}
		x.peakKB += vitals.PeakKB(w.cmd.Process.Pid)
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	x.p50, x.p95 = judge.Quantile(all, 0.5), judge.Quantile(all, 0.95)
	return nil
}

// choose takes, of the settings within the budget, the one with the fewest workers
// and then the fewest threads that does hardly fewer runs a second than the best.
// Where none is within it, the smallest: the proof says then what is too much.
func choose(settings []setting, b bundle.Budget) setting {
	fit := slices.DeleteFunc(slices.Clone(settings), func(s setting) bool { return !s.within(b) })
	if len(fit) == 0 {
		return settings[0]
	}
	best := slices.MaxFunc(fit, func(a, b setting) int { return cmp.Compare(a.rate(), b.rate()) }).rate()
	return fit[slices.IndexFunc(fit, func(s setting) bool { return s.rate() >= best/(1+tuneMargin) })]
}
