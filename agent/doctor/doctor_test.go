package doctor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/dunlin-edge/dunlin/agent"
	"github.com/dunlin-edge/dunlin/agent/infer/sandbox"
)

func TestNamesWhatWillNotWork(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o755); err != nil {
			t.Fatal(err)
		}
		return p
	}
	elf := func(class, machine byte) []byte {
		b := make([]byte, 64)
		copy(b, []byte{0x7f, 'E', 'L', 'F', class, 1, 1})
		b[16], b[18], b[20] = 2, machine, 1
		if class == 2 {
			b[52] = 64
		}
		return b
	}
	for name, c := range map[string]struct {
		got   Finding
		grade string
	}{
		"32-bit userland":      {checkUserland(file("sh32", elf(1, 3))), Fail},
		"whole sandbox":        {checkSandbox([]sandbox.Layer{{Name: "landlock", Have: true}, {Name: "seccomp", Have: true}}), OK},
		"half a sandbox":       {checkSandbox([]sandbox.Layer{{Name: "landlock"}, {Name: "seccomp", Have: true}}), Warn},
		"64-bit userland":      {checkUserland(file("sh64", elf(2, 62))), OK},
		"old glibc on arm64":   {checkLibc("arm64", "2.31"), Fail},
		"same glibc on amd64":  {checkLibc("amd64", "2.31"), OK},
		"lowest on arm64":      {checkLibc("arm64", "2.34"), OK},
		"musl":                 {checkLibc("amd64", "none"), Fail},
		"32-bit ARM":           {checkArch("arm"), Fail},
		"worker missing":       {checkWorker(filepath.Join(dir, "none")), Fail},
		"worker of another":    {checkWorker(file("worker", elf(2, 8))), Fail},
		"worker is a text":     {checkWorker(file("text", []byte("not a program"))), Fail},
		"worker by a script":   {checkWorker(file("script", []byte("#!/bin/sh\n"))), Warn},
		"state can be made":    {checkState(filepath.Join(dir, "a", "b")), OK},
		"address of a machine": {checkListen(agent.Config{Listen: "256.0.0.1:80"}), Fail},
		"socket only":          {checkListen(agent.Config{}), OK},
	} {
		if c.got.Grade != c.grade {
			t.Errorf("%s: %+v, want %s", name, c.got, c.grade)
		}
		if c.got.Grade != OK && c.got.Next == "" {
			t.Errorf("%s: no next step: %+v", name, c.got)
		}
	}
}
