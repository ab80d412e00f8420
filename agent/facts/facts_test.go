package facts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestHardwareSerial: a serial is told where firmware has one, and what board makers
// leave in its place is none.
func TestHardwareSerial(t *testing.T) {
	for content, want := range map[string]string{
		"10000000abcdef12\x00": "10000000abcdef12", // as a Raspberry Pi tells it
		" PF3K2ABC\n":          "PF3K2ABC",
		"":                     "", "\x00": "", "0": "", "00000000": "", "None": "", "N/A": "", "Default string": "", "To be filled by O.E.M.": "", "To Be Filled By O.E.M": "",
		"System Serial Number": "", "Not Specified": "", "123456789": "", "0123456789": "", "xxxxxx": "",
		"1234567": "1234567", "00000000ab": "00000000ab", "\xff\xfe": "",
		strings.Repeat("a", 128): strings.Repeat("a", 128), strings.Repeat("a", 129): "",
	} {
		dir := t.TempDir()
		first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
		if err := os.WriteFile(first, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := hardwareSerial([]string{filepath.Join(dir, "missing"), first}); got != want {
			t.Errorf("%q: %q", content, got)
		}
		if err := os.WriteFile(second, []byte("board"), 0o600); err != nil {
			t.Fatal(err)
		}
		if want == "" {
			want = "board"
		}
		if got := hardwareSerial([]string{first, second}); got != want {
			t.Errorf("%q, then a board's: %q", content, got)
		}
	}
	if got := Read("1", Set{Serial: "SN-1"})["serial"]; got != "SN-1" {
		t.Errorf("configured: %q", got)
	}
}

func TestGlibcIsReadFromItsFile(t *testing.T) {
	p := filepath.Join(t.TempDir(), "libc.so.6")
	text := strings.Repeat("\x00", 5000) + "GNU C Library (Debian GLIBC 2.36-9+deb12u10) stable release version 2.36.\n"
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if v := glibcVersion([]string{"/nowhere", p}); v != "2.36" {
		t.Errorf("got %q", v)
	}
	if v := glibcVersion([]string{"/nowhere"}); v != "none" {
		t.Errorf("without a library: %q", v)
	}
}

// TestTold: whatever firmware and configuration say, a fact is one that a server takes.
func TestTold(t *testing.T) {
	for in, want := range map[string]string{
		"Debian GNU/Linux 13":          "Debian GNU/Linux 13",
		"\x1b[31mred\nkey 00":          " [31mred key 00",
		"\xff":                         "\ufffd",
		strings.Repeat("ü", 200):       strings.Repeat("ü", 128),
		strings.Repeat("a", 255) + "ü": strings.Repeat("a", 255),
	} {
		if got := told(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
	if got := Read("1", Set{Class: "a\tb"})["class"]; got != "a b" {
		t.Errorf("configured: %q", got)
	}
}
