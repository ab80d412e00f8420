// Package sandbox starts workers with as little as they need. The agent runs
// itself again as `dunlin-agent sandbox-exec`; that process, which is static and
// has loaded nothing, takes rights away from itself layer by layer and becomes
// the worker. What a kernel lacks is reported, never passed over in silence.
package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Word is the first argument that makes dunlin-agent the launcher.
const Word = "sandbox-exec"

// Limits of a worker.
type Limits struct {
	DataMB int // RLIMIT_DATA; 0: none
	Files  int // RLIMIT_NOFILE
}

// Layer is one protective layer and whether it took hold.
type Layer struct {
	Name   string `json:"layer"`
	Have   bool   `json:"have"`
	Detail string `json:"detail,omitempty"`
}

// Arguments returns the command line after the agent's own path that starts
// worker with args under the limits.
func Arguments(l Limits, worker string, args ...string) []string {
	return append([]string{Word, strconv.Itoa(l.DataMB), strconv.Itoa(l.Files), worker}, args...)
}

// layer is one thing that the launcher takes away. Limits can also be set on a
// process from outside; they have a resource and a value.
type layer struct {
	name     string
	resource int // -1: not a limit
	value    func(Limits) uint64
}

// layers in the order in which they are applied. Address space is not bounded:
// the runtime reserves more than it uses.
var layers = []layer{
	{"no_new_privs", -1, nil},
	{"no_core", unix.RLIMIT_CORE, func(Limits) uint64 { return 0 }},
	{"files", unix.RLIMIT_NOFILE, func(l Limits) uint64 { return uint64(max(l.Files, 16)) }},
	{"data", unix.RLIMIT_DATA, func(l Limits) uint64 {
		if l.DataMB <= 0 {
			return unix.RLIM_INFINITY
		}
		return uint64(l.DataMB) << 20
	}},
}

// apply takes the layer's right from this thread or process.
func (y layer) apply(l Limits) error {
	if y.resource < 0 {
		return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	}
	return y.limit(0, l)
}

func (y layer) limit(pid int, l Limits) error {
	v := y.value(l)
	if v == unix.RLIM_INFINITY {
		return nil
	}
	return unix.Prlimit(pid, y.resource, &unix.Rlimit{Cur: v, Max: v}, nil)
}

// Limit bounds a process that was started without the launcher.
func Limit(pid int, l Limits) error {
	for _, y := range layers {
		if y.resource >= 0 {
			if err := y.limit(pid, l); err != nil {
				return fmt.Errorf("limit %s of process %d: %w", y.name, pid, err)
			}
		}
	}
	return nil
}

// Posture says which layers surround the workers, and by name those that this
// version does not have yet. The launcher starts no worker without the layers of
// the list; without launcher, which is how an emulated agent runs, there are the
// limits only.
func Posture(withoutLauncher bool) []Layer {
	var out []Layer
	for _, y := range layers {
		l := Layer{Name: y.name, Have: true}
		if withoutLauncher && y.resource < 0 {
			l = Layer{Name: y.name, Detail: "this machine cannot start the launcher"}
		}
		out = append(out, l)
	}
	for _, name := range []string{"landlock", "seccomp", "cgroup"} {
		out = append(out, Layer{Name: name, Detail: "not in this version"})
	}
	return out
}

// Main is the launcher: it applies the layers and becomes the worker. It returns
// only when it cannot; the exit code is 126 then, with the reason on standard
// error as JSON.
func Main(args []string) int {
	if len(args) < 3 {
		return fail("arguments", fmt.Errorf("DATA_MB FILES WORKER [ARGS] wanted"))
	}
	data, err1 := strconv.Atoi(args[0])
	files, err2 := strconv.Atoi(args[1])
	if err1 != nil || err2 != nil {
		return fail("arguments", fmt.Errorf("limits %q and %q are no numbers", args[0], args[1]))
	}
	l := Limits{DataMB: data, Files: files}
	// Some layers belong to a thread; the one that takes them becomes the worker.
	runtime.LockOSThread()
	for _, y := range layers {
		if err := y.apply(l); err != nil {
			return fail(y.name, err)
		}
	}
	return fail("exec", syscall.Exec(args[2], args[2:], Environment()))
}

// Environment is what a worker gets of it: what Go's own runtime reads, and what
// an emulator reads in tests of another architecture.
func Environment() []string {
	env := []string{"GOMAXPROCS=2"}
	if v := os.Getenv("QEMU_LD_PREFIX"); v != "" {
		env = append(env, "QEMU_LD_PREFIX="+v)
	}
	return env
}

func fail(layer string, err error) int {
	json.NewEncoder(os.Stderr).Encode(Layer{Name: layer, Detail: err.Error()})
	return 126
}
