// Package facts is what the device tells of itself. Facts select and explain; they
// are never authority.
package facts

import (
	"bytes"
	"cmp"
	"io"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/shirou/gopsutil/v4/mem"
	"golang.org/x/sys/unix"
)

// Set is what the configuration says in place of the hardware; empty: nothing.
type Set struct{ Class, Serial string }

// Read looks at the device. Version is that of the agent.
func Read(version string, set Set) map[string]string {
	f := map[string]string{
		"arch":  runtime.GOARCH,
		"os":    osName(),
		"libc":  "glibc " + LibC(),
		"cores": strconv.Itoa(runtime.NumCPU()),
		"class": hardwareClass(),
		"agent": version,
	}
	if set.Class != "" {
		f["class"] = set.Class
	}
	if s := cmp.Or(set.Serial, hardwareSerial(serialPaths)); s != "" {
		f["serial"] = s
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		f["kernel"] = unix.ByteSliceToString(u.Release[:])
	}
	if m, err := mem.VirtualMemory(); err == nil {
		f["memory_mb"] = strconv.FormatUint(m.Total>>20, 10)
	}
	for k, v := range f {
		f[k] = told(v)
	}
	return f
}

// maxValue is how long a fact may be; a server refuses longer ones, and characters
// that do not show.
const maxValue = 256

func told(v string) string {
	v = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, v)
	for len(v) > maxValue {
		_, n := utf8.DecodeLastRuneInString(v)
		v = v[:len(v)-n]
	}
	return v
}

// serialPaths are where firmware tells a serial; those of DMI only root may read.
var serialPaths = []string{"/proc/device-tree/serial-number", "/sys/class/dmi/id/product_serial", "/sys/class/dmi/id/board_serial"}

// maxSerial bounds what is told, in bytes.
const maxSerial = 128

// noSerial is what boards carry whose maker filled nothing in.
var noSerial = regexp.MustCompile(`(?i)^(0*|none|n/?a|default string|to be filled by o\.?e\.?m\.?|not (specified|applicable|available)|system serial number|(base ?)?board serial number|0?123456789a?0?|x+)$`)

// hardwareSerial is the first serial that is one; empty: firmware tells none.
func hardwareSerial(paths []string) string {
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		s := strings.TrimSpace(strings.Trim(string(b), "\x00"))
		if len(s) <= maxSerial && !noSerial.MatchString(s) && utf8.ValidString(s) {
			return s
		}
	}
	return ""
}

var notSlug = regexp.MustCompile(`[^a-z0-9]+`)

// hardwareClass is the stratum of the device in rollouts: the board's name where
// firmware tells one, else the architecture.
func hardwareClass() string {
	b, err := os.ReadFile("/proc/device-tree/model")
	if err != nil {
		return runtime.GOARCH
	}
	slug := strings.Trim(notSlug.ReplaceAllString(strings.ToLower(string(b)), "-"), "-")
	return runtime.GOARCH + "-" + slug[:min(len(slug), 48)]
}

func osName() string {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return "unknown"
}

var libcPaths = []string{
	"/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6",
	"/lib64/libc.so.6", "/usr/lib64/libc.so.6", "/usr/lib/libc.so.6",
}

var libcBanner = regexp.MustCompile(`GNU C Library .* release version ([0-9]+\.[0-9]+)`)

// LibC is the version of glibc, "none" where there is none.
func LibC() string { return glibcVersion(libcPaths) }

// glibcVersion reads the banner out of the C library's file; "none" where there
// is no glibc. Nothing is run.
func glibcVersion(paths []string) string {
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			continue
		}
		b, err := io.ReadAll(io.LimitReader(f, 8<<20))
		f.Close()
		if err != nil {
			continue
		}
		if i := bytes.Index(b, []byte("GNU C Library ")); i >= 0 {
			if m := libcBanner.FindSubmatch(b[i:min(len(b), i+200)]); m != nil {
				return string(m[1])
			}
		}
	}
	return "none"
}
