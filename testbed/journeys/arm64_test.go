package journeys

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
)

// arm64 writes NAME.yaml of an arm64 device and puts its programs on PATH as
// dunlin-agent-arm64 and dunlin-infer-arm64, each run by qemu-user over the root of
// cross/sysroot: arm64 NAME.
func arm64(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: arm64 NAME")
	}
	sysroot, err := filepath.Abs(root + "/build/sysroot-arm64")
	ts.Check(err)
	qemu, err := exec.LookPath("qemu-aarch64-static")
	ts.Check(err)
	run(ts, "cross/sysroot/get", sysroot)
	run(ts, "cross/build", filepath.Join(bin, "release"), "arm64", "dunlin-agent")
	run(ts, "cross/build", filepath.Join(bin, "release"), "arm64", "dunlin-infer")
	for _, name := range []string{"dunlin-agent", "dunlin-infer"} {
		// Without SVE, as scripts/arm64 says.
		script := fmt.Sprintf("#!/bin/sh\nexec %s -L %s -cpu cortex-a72 %s/release/linux-arm64/%s \"$@\"\n", qemu, sysroot, bin, name)
		ts.Check(os.WriteFile(filepath.Join(bin, name+"-arm64"), []byte(script), 0o755))
	}
	device(ts, false, args)
	config := ts.MkAbs(args[0]) + ".yaml"
	b, err := os.ReadFile(config)
	ts.Check(err)
	text := append(b[:len(b)-1], "-arm64\nclass: arm64-emulated\n"...) // the worker is the last line
	ts.Check(os.WriteFile(config, text, 0o644))
}

// run runs a script of the repository.
func run(ts *testscript.TestScript, name string, args ...string) {
	cmd := exec.Command(name, args...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		ts.Fatalf("%s: %v\n%s", name, err, out)
	}
}
