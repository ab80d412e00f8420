package infer_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/agent/infer"
	"github.com/dunlin-edge/dunlin/agent/infer/infertest"
)

// TestSandboxDeaths: a launcher that could not take a right away and a worker that
// the sandbox ended are deaths with that reason.
func TestSandboxDeaths(t *testing.T) {
	for name, tt := range map[string]struct{ script, want string }{
		"a layer fails":   {`echo '{"layer":"landlock","have":false,"detail":"make rules: busy"}' >&2; exit 126`, "(sandbox): layer landlock could not be made: make rules: busy"},
		"it is forbidden": {`kill -SYS $$`, "(forbidden): "},
	} {
		c := infertest.Config(t)
		c.Launcher = filepath.Join(t.TempDir(), "launcher")
		if err := os.WriteFile(c.Launcher, []byte("#!/bin/sh\n"+tt.script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		s := infer.New(c)
		if err := s.Activate(t.Context(), infertest.Digits(t, "1.0.0")); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
	}
}

// TestWorkerIsHeld looks at the sandbox of a live worker from outside.
func TestWorkerIsHeld(t *testing.T) {
	s, _ := infertest.Server(t)
	activate(t, s, infertest.Digits(t, "1.0.0"))
	have := map[string]bool{}
	for _, l := range s.Posture() {
		have[l.Name] = l.Have
	}
	proc := filepath.Join("/proc", strconv.Itoa(s.Status()[0].PID))
	status, groups := read(t, proc, "status"), read(t, proc, "cgroup")
	for layer, ok := range map[string]bool{
		"no_new_privs": strings.Contains(status, "NoNewPrivs:\t1"),
		"own_user":     !strings.Contains(status, fmt.Sprintf("Uid:\t%d\t", os.Geteuid())),
		"cgroup":       strings.Contains(groups, "dunlin-worker-"),
		// The launcher's, Seal's and Settle's.
		"seccomp": filters(status) == filters(read(t, "/proc/self", "status"))+3,
	} {
		if have[layer] != ok {
			t.Errorf("%s: posture says %v, the process %v:\n%s%s", layer, have[layer], ok, status, groups)
		}
	}
	s.Close()
	if left, _ := filepath.Glob("/sys/fs/cgroup/*/dunlin-worker-" + strconv.Itoa(os.Getpid()) + "-*"); len(left) > 0 {
		t.Errorf("control groups stay: %v", left)
	}
}

// TestClosedLibrary: a worker opens a library that others may not read, in a folder
// that is closed to it.
func TestClosedLibrary(t *testing.T) {
	s, _ := infertest.Server(t)
	slot := infertest.Digits(t, "1.0.0")
	to := filepath.Join(t.TempDir(), "libLiteRt.so")
	copyFile(t, slot.Library, to)
	slot.Library = to
	if err := os.Chmod(filepath.Dir(to), 0o700); err != nil {
		t.Fatal(err)
	}
	activate(t, s, slot)
}

// filters is how many filters of system calls hold a process, by its status.
func filters(status string) (n int) {
	_, after, _ := strings.Cut(status, "Seccomp_filters:")
	fmt.Sscan(after, &n)
	return n
}
