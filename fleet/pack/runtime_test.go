package pack

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// libraries are the official ones, put there by 'make runtime'.
const libraries = "../../build/runtime/litert-2.3.0"

func TestPackRuntime(t *testing.T) {
	for arch, glibc := range map[string]string{"amd64": "2.27", "arm64": "2.34"} {
		lib := filepath.Join(libraries, arch, "libLiteRt.so")
		if _, err := os.Stat(lib); err != nil {
			t.Fatalf("run 'make runtime': %v", err)
		}
		p, err := Runtime(RuntimeConfig{Library: lib, Version: "2.3.0", Arch: arch})
		if err != nil {
			t.Fatal(err)
		}
		want := &bundle.RuntimeABI{Name: "litert", Version: "2.3.0", Arch: arch, GLibC: glibc}
		if d := cmp.Diff(want, p.Contract.ABI); d != "" {
			t.Error(d)
		}
		if p.Contract.Model != "runtime-litert-"+arch || p.Contract.Hardware != "arch="+arch {
			t.Errorf("%+v", p.Contract)
		}
	}
	out := filepath.Join(t.TempDir(), "out")
	p, err := Runtime(RuntimeConfig{Library: filepath.Join(libraries, "amd64", "libLiteRt.so"), Version: "2.3.0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Write(out); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.OpenLayout(os.DirFS(out))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Verify(); err != nil || b.Release(1).ABI.Arch != "amd64" {
		t.Errorf("%v, %+v", err, b.Release(1))
	}
}

func TestPackRuntimeRefuses(t *testing.T) {
	text := filepath.Join(t.TempDir(), "lib.so")
	if err := os.WriteFile(text, []byte("no library"), 0o644); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		code   string
		config RuntimeConfig
	}{
		"no version":    {"pack.missing", RuntimeConfig{Library: text}},
		"not there":     {"pack.library", RuntimeConfig{Library: text + "x", Version: "2.3.0"}},
		"text":          {"pack.library", RuntimeConfig{Library: text, Version: "2.3.0"}},
		"other program": {"pack.library", RuntimeConfig{Library: self, Version: "2.3.0"}},
		"other library": {"pack.library", RuntimeConfig{Library: libc(t), Version: "2.3.0"}},
		"other arch":    {"pack.arch", RuntimeConfig{Library: filepath.Join(libraries, "amd64", "libLiteRt.so"), Version: "2.3.0", Arch: "arm64"}},
		"odd version":   {bundle.CodeContractInvalid, RuntimeConfig{Library: filepath.Join(libraries, "amd64", "libLiteRt.so"), Version: "latest"}},
	} {
		if _, err := Runtime(c.config); code(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// libc is a shared library of the machine that is no runtime.
func libc(t *testing.T) string {
	t.Helper()
	list, _ := filepath.Glob("/lib/*-linux-gnu/libc.so.6")
	if len(list) == 0 {
		t.Fatal("no libc below /lib/*-linux-gnu")
	}
	return list[0]
}
