package pack

import (
	"debug/elf"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// RuntimeConfig says which runtime library to pack.
type RuntimeConfig struct {
	Library string // path of libLiteRt.so
	Version string // "2.3.0": the library does not say it itself
	Arch    string // GOARCH; empty: what the library is
}

// runtimeFile is the library's path inside its bundle.
const runtimeFile = "libLiteRt.so"

var machines = map[elf.Machine]string{
	elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_RISCV: "riscv64", elf.EM_ARM: "arm", elf.EM_386: "386",
}

// Runtime makes a bundle of a LiteRT library. Architecture and lowest glibc
// come from the file; a library of before 2.1.6 is refused, because its functions
// take other arguments under the same names.
func Runtime(c RuntimeConfig) (*Plan, error) {
	if c.Version == "" {
		return nil, refuse("pack.missing", "pass it like '--version 2.3.0'", "the version of the runtime is not said, and the library does not say it")
	}
	arch, glibc, err := inspectLibrary(c.Library)
	if err != nil {
		return nil, err
	}
	if c.Arch != "" && c.Arch != arch {
		return nil, refuse("pack.arch", "pass the library for "+c.Arch, "%s is made for %s, not for %s", c.Library, arch, c.Arch)
	}
	contract := &bundle.Contract{
		Number: bundle.ContractNumber, Kind: bundle.KindRuntime, Model: "runtime-litert-" + arch, Version: c.Version, File: runtimeFile,
		ABI:      &bundle.RuntimeABI{Name: "litert", Version: c.Version, Arch: arch, GLibC: glibc},
		Hardware: "arch=" + arch,
	}
	return plan(contract, []bundle.Source{fileSource(runtimeFile, c.Library)})
}

func inspectLibrary(path string) (arch, glibc string, err error) {
	wrong := func(format string, args ...any) error {
		return refuse("pack.library", "get the official libLiteRt.so with 'make runtime'", path+": "+format, args...)
	}
	f, err := elf.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", "", wrong("there is no such file")
	}
	if err != nil {
		return "", "", wrong("no ELF library: %v", err)
	}
	defer f.Close()
	if arch = machines[f.Machine]; arch == "" || f.Type != elf.ET_DYN {
		return "", "", wrong("not a shared library of a known architecture (%v)", f.Machine)
	}
	symbols, err := f.DynamicSymbols()
	if err != nil {
		return "", "", wrong("%v", err)
	}
	if !slices.ContainsFunc(symbols, func(s elf.Symbol) bool { return s.Name == "LiteRtCreateModelFromFd" && s.Section != elf.SHN_UNDEF }) {
		return "", "", wrong("not LiteRT 2.1.6 or newer: it has no LiteRtCreateModelFromFd")
	}
	needs, err := f.DynamicVersionNeeds()
	if err != nil {
		return "", "", wrong("%v", err)
	}
	glibc = "2.0"
	for _, lib := range needs {
		for _, n := range lib.Needs {
			if v, ok := strings.CutPrefix(n.Dep, "GLIBC_"); ok && bundle.CompareNumbers(v, glibc) > 0 {
				glibc = v
			}
		}
	}
	return arch, glibc, nil
}
