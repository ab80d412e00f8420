package infer

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/dunlin-edge/dunlin/agent/infer/judge"
)

// Kernels that a worker can run a model with.
const (
	XNNPACK = "xnnpack" // of the processor, fast
	Builtin = "builtin" // the runtime's own for the processor, for models that XNNPACK does not run
	GPU     = "gpu"
	NPU     = "npu"
	EdgeTPU = "edgetpu"

	lastRung = Builtin
)

// accelerators are the libraries, beside the runtime's, that each needs. None: the
// runtime has no way to use one.
var accelerators = map[string][]string{
	GPU:     {"libLiteRtWebGpuAccelerator.so", "libLiteRtGpuAccelerator.so", "libLiteRtClGlAccelerator.so"},
	NPU:     {"libLiteRtDispatch_*.so"},
	EdgeTPU: nil,
}

func accelerated(kernels string) bool {
	_, ok := accelerators[kernels]
	return ok
}

// Accelerators lists the names that Config.Accelerators may hold.
func Accelerators() []string { return []string{GPU, NPU, EdgeTPU} }

// Setup is how a slot's workers run its model. The zero value: XNNPACK, and one
// thread where Config says nothing.
type Setup struct {
	Kernels string
	Threads int // that Config leaves to the proof
}

// rungs are the kernels in the order in which they are tried.
func (s *Server) rungs() []string { return append(slices.Clone(s.c.Accelerators), XNNPACK, Builtin) }

// threads of a slot's workers. What Config says goes before what a proof found.
func (s *Server) threads(slot Slot) int {
	if s.c.Threads > 0 {
		return s.c.Threads
	}
	return max(slot.Setup.Threads, 1)
}

// arguments tell a worker its setup.
func (s *Server) arguments(slot Slot) []string {
	args := []string{"-threads", fmt.Sprint(s.threads(slot))}
	if slot.Setup.Kernels != "" {
		args = append(args, "-kernels", slot.Setup.Kernels)
	}
	if accelerated(slot.Setup.Kernels) {
		args = append(args, "-accelerators", filepath.Dir(slot.Library))
	}
	if slot.Contract.Carries() {
		args = append(args, "-state")
	}
	return args
}

// present tells why a slot's kernels are not on this device.
func (s *Server) present(slot Slot) error {
	names, special := accelerators[slot.Setup.Kernels]
	if !special {
		return nil
	}
	if len(names) == 0 {
		return fmt.Errorf("not on this device: the runtime has no delegate for %s on Linux", slot.Setup.Kernels)
	}
	for _, n := range names {
		if found, _ := filepath.Glob(filepath.Join(filepath.Dir(slot.Library), n)); len(found) > 0 {
			return nil
		}
	}
	return fmt.Errorf("not on this device: %s does not lie beside the runtime's library", names[0])
}

const (
	maxTuned   = 8    // threads that are tried at most
	tuneRuns   = 40   // of each number of threads
	tuneMargin = 0.10 // faster by less is not worth a thread
	tuneTime   = 300 * time.Millisecond
)

// tune finds how many threads a worker is to have, where Config leaves it open: the
// fewest that are within a tenth of the fastest. The workers of a model share the
// processors.
func (t *trial) tune(ctx context.Context) error {
	t.p.Threads = t.s.threads(t.slot)
	if t.s.c.Threads != 0 || accelerated(t.slot.Setup.Kernels) {
		return nil
	}
	most := min(max(runtime.NumCPU()/t.s.c.Workers, 1), maxTuned)
	var took []time.Duration
	for n := 1; n <= most && most > 1; n++ {
		t.slot.Setup.Threads = n
		w, err := t.s.launch(ctx, t.slot, nil, newPool(1))
		if err != nil {
			return err
		}
		runs, err := timed(ctx, w, t.inputsOf(w, 0), tuneRuns, tuneTime)
		w.stop()
		if err != nil {
			return err
		}
		took = append(took, judge.Quantile(runs, 0.5))
	}
	t.slot.Setup.Threads = 1 + fewest(took)
	t.p.Threads = t.slot.Setup.Threads
	return nil
}

// fewest is the first index that is hardly slower than the least; 0 of none.
func fewest(took []time.Duration) int {
	if len(took) == 0 {
		return 0
	}
	bound := time.Duration(float64(slices.Min(took)) * (1 + tuneMargin))
	return slices.IndexFunc(took, func(d time.Duration) bool { return d <= bound })
}
