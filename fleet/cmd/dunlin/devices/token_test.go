package devices

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadSerials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "serials.txt")
	if err := os.WriteFile(file, []byte("# batch 7\nSN-1\n\n  SN-2  # spare\r\nSN 3"), 0o600); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(t.TempDir(), "long")
	if err := os.WriteFile(long, []byte(strings.Repeat("a", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	for list, want := range map[string][]string{
		"": nil, "a": {"a"}, "a,b,c": {"a", "b", "c"}, file: {"SN-1", "SN-2", "SN 3"},
	} {
		got, err := readSerials(list)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%q: %v %s", list, err, diff)
		}
	}
	for _, bad := range []string{file + ".missing", "./missing", long} {
		if got, err := readSerials(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}
