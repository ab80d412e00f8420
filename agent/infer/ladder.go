package infer

import (
	"fmt"
	"path/filepath"
	"slices"
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
// worker with one thread where Config says nothing.
type Setup struct {
	Kernels string
	Workers int // that Config leaves to the proof
	Threads int // of each, that Config leaves to the proof
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

// workers that a slot has. State that is carried is in one of them.
func (s *Server) workers(slot Slot) int {
	switch {
	case slot.Contract.Carries():
		return 1
	case s.c.Workers > 0:
		return s.c.Workers
	}
	return max(slot.Setup.Workers, 1)
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
