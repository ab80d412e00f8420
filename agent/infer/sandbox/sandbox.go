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
	"strings"
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

// layers in the order in which they are applied. Address space is not bounded:
// the runtime reserves more than it uses.
var layers = []struct {
	name  string
	apply func(Limits) error
}{
	{"no_new_privs", func(Limits) error { return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }},
	{"no_core", func(Limits) error { return setLimit(unix.RLIMIT_CORE, 0) }},
	{"files", func(l Limits) error { return setLimit(unix.RLIMIT_NOFILE, uint64(max(l.Files, 16))) }},
	{"data", func(l Limits) error {
		if l.DataMB <= 0 {
			return nil
		}
		return setLimit(unix.RLIMIT_DATA, uint64(l.DataMB)<<20)
	}},
}

func setLimit(resource int, n uint64) error {
	return unix.Setrlimit(resource, &unix.Rlimit{Cur: n, Max: n})
}

// Posture says which layers surround every worker: those of the list, because the
// launcher starts none without them, and by name those that this version does not
// have yet.
func Posture() []Layer {
	var out []Layer
	for _, l := range layers {
		out = append(out, Layer{Name: l.name, Have: true})
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
	for _, layer := range layers {
		if err := layer.apply(l); err != nil {
			return fail(layer.name, err)
		}
	}
	// The worker gets an empty environment but for what Go's own runtime reads.
	env := []string{"GOMAXPROCS=2"}
	for _, e := range os.Environ() {
		if strings.HasPrefix(e, "QEMU_LD_PREFIX=") {
			env = append(env, e) // for tests of another architecture
		}
	}
	return fail("exec", syscall.Exec(args[2], args[2:], env))
}

func fail(layer string, err error) int {
	json.NewEncoder(os.Stderr).Encode(Layer{Name: layer, Detail: err.Error()})
	return 126
}
