package wipe

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/durable/crashfs"
)

const dir = "/state"

// files are what a device has, and what is not its own.
var files = []string{
	"identity/device.json", "identity/key.pem", "identity/.key.pem.tmp-0000000a", "trust/catalog/root.json", "slots/m/a/model", "queue/report/1",
	"blobs/sha256-1", "cache/x", "state.db", "state.db.copy-1", ".state.db.tmp-0000000b",
}

var strangers = []string{"lock", "notes.txt", "agent/a/dunlin-agent", "stated/x"}

// device is a disk with everything on it, and with what an interrupted operation
// has left, or not.
func device(t testing.TB, left bool) *crashfs.FS {
	t.Helper()
	f := crashfs.New()
	for _, name := range slices.Concat(files, strangers) {
		if !left && strings.Contains(name, ".tmp-") {
			continue
		}
		p := path.Join(dir, name)
		if err := durable.MkdirAll(f, "setup", path.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := durable.WriteFile(f, "setup", p, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.Settle()
	return f
}

func have(f durable.FS, name string) bool {
	b, err := durable.ReadFile(f, path.Join(dir, name), 1<<10)
	return err == nil && string(b) == name
}

// clean wants nothing of the device left, under any name, and all that is not its
// own.
func clean(f *crashfs.FS) error {
	for _, n := range f.Names() {
		rest := strings.TrimPrefix(n, dir+"/")
		if first, _, _ := strings.Cut(rest, "/"); owned(first) || durable.IsTemp(first) || first == Mark {
			return fmt.Errorf("%s is there", n)
		}
	}
	for _, name := range strangers {
		if !have(f, name) {
			return fmt.Errorf("%s is gone", name)
		}
	}
	return nil
}

// whole wants a device that still is what it was, apart from what interrupted
// operations had left.
func whole(f durable.FS) error {
	for _, name := range files {
		if !strings.Contains(name, ".tmp-") && !have(f, name) {
			return fmt.Errorf("%s is gone, and nothing says that it was to be", name)
		}
	}
	return nil
}

func TestAll(t *testing.T) {
	f := device(t, true)
	if err := Finish(f, dir); err != nil {
		t.Fatal(err)
	}
	if err := whole(f); err != nil {
		t.Error("without a mark:", err)
	}
	if err := All(f, dir); err != nil {
		t.Fatal(err)
	}
	if err := clean(f); err != nil {
		t.Error(err)
	}
	if err := All(f, dir); err != nil {
		t.Error("a clean device:", err)
	}
}

// TestCrashes cuts the power at every step of a wipe, and at every step of the next
// one: the device is whole or becomes clean.
func TestCrashes(t *testing.T) {
	check := func(after *crashfs.FS, done int) error {
		begun, err := Begun(after, dir)
		if err != nil {
			return err
		}
		if !begun && done == 0 && have(after, "identity/device.json") {
			return whole(after)
		}
		if err := Finish(after, dir); err != nil {
			return err
		}
		return clean(after)
	}
	work := func(f durable.FS, done func()) error {
		if err := All(f, dir); err != nil {
			return err
		}
		done()
		return nil
	}
	for _, left := range []bool{true, false} {
		x := crashfs.Explorer{Limit: 24, Check: check}
		r, err := x.Run(device(t, left), work)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d crash points, %d states", len(r.Labels)+1, r.States)
	}
	second := 0
	x := crashfs.Explorer{Limit: 4, Check: func(after *crashfs.FS, done int) error {
		again := crashfs.Explorer{Limit: 2, Check: func(after *crashfs.FS, _ int) error { second++; return check(after, 1) }}
		if begun, err := Begun(after, dir); err != nil || !begun {
			return err
		}
		_, err := again.Run(after, func(f durable.FS, _ func()) error { return Finish(f, dir) })
		return err
	}}
	if _, err := x.Run(device(t, true), work); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d states of a second try", second)
}
