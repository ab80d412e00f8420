// Package sandbox starts workers with as little as they need. The agent runs
// itself again as `dunlin-agent sandbox-exec`; that process, which is static and
// has loaded nothing, takes rights away from itself layer by layer and becomes
// the worker, which takes two more away from itself: Seal and Settle. What a
// kernel lacks is reported, never passed over in silence; what it has and does
// not give keeps the worker from starting.
package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Word is the first argument that makes dunlin-agent the launcher.
const Word = "sandbox-exec"

// Limits of a worker.
type Limits struct {
	DataMB  int `json:"data_mb"` // RLIMIT_DATA, and with some room the group's memory; 0: none
	Files   int `json:"files"`   // RLIMIT_NOFILE, at least 16
	FileMB  int `json:"file_mb"` // RLIMIT_FSIZE: how long a file may become; 0: none may grow
	Threads int `json:"threads"` // of the group and of the worker's own user; 0: not bounded
}

// Layer is one protective layer and whether it took hold.
type Layer struct {
	Name   string `json:"layer"`
	Have   bool   `json:"have"`
	Detail string `json:"detail,omitempty"`
}

// plan is what the agent tells its launcher.
type plan struct {
	Limits
	Library int      `json:"library"` // descriptor of the runtime's library, 0: none
	User    bool     `json:"user"`    // become a user of its own
	Groups  []string `json:"groups"`  // directories of control groups to enter
}

// layer is one thing that the launcher takes away.
type layer struct {
	name string
	take func(*plan, []string) error
}

// layers in the order in which they are applied. Groups come first because their
// files are closed to the worker's user, Landlock and seccomp last because they
// forbid what the others need.
func layers() []layer {
	return []layer{
		{"cgroup", func(p *plan, _ []string) error { return enter(p.Groups) }},
		{"limits", func(p *plan, _ []string) error { return limit(0, p.Limits) }},
		{"no_new_privs", func(*plan, []string) error { return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }},
		{"own_user", func(p *plan, _ []string) error { return becomeNobody(p) }},
		{"landlock", func(p *plan, worker []string) error { return confine(p, worker[0]) }},
		{"seccomp", func(*plan, []string) error { return filterCalls() }},
	}
}

// Main is the launcher: it applies the layers and becomes the worker. It returns
// only when it cannot; the exit code is 126 then, with the reason on standard
// error as a Layer in JSON.
func Main(args []string) int {
	if len(args) < 2 {
		return fail("arguments", errors.New("PLAN WORKER [ARGS] wanted"))
	}
	var p plan
	if err := json.Unmarshal([]byte(args[0]), &p); err != nil {
		return fail("arguments", fmt.Errorf("plan: %w", err))
	}
	// Most layers belong to a thread; the one that takes them becomes the worker.
	runtime.LockOSThread()
	for _, y := range layers() {
		if err := y.take(&p, args[1:]); err != nil {
			return fail(y.name, err)
		}
	}
	return fail("exec", syscall.Exec(args[1], args[1:], Environment()))
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
