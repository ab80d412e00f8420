package lockbox_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/lockbox"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// anExport is one blob and a file each for a channel and a device.
func anExport() (*fleet.LockboxExport, lockbox.Fetch) {
	blob := []byte("a model")
	name := func(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) }
	x := &fleet.LockboxExport{
		Blobs:    []fleet.LockboxBlob{{Digest: "sha256:" + name("a model"), Size: int64(len(blob))}},
		Channels: []fleet.LockboxFile{{Of: "dev", Name: name("dev"), Bytes: []byte("channel")}},
		Devices:  []fleet.LockboxFile{{Of: "meter-1", Name: name("meter-1"), Bytes: []byte("device")}},
	}
	return x, func(context.Context, string) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(blob)), nil }
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tree lists the files below a folder with what they hold.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		out[strings.TrimPrefix(path, dir+"/")] = string(b)
		return err
	}))
	return out
}

func TestWrite(t *testing.T) {
	x, fetch := anExport()
	dir := filepath.Join(t.TempDir(), "new")
	w, err := lockbox.Write(t.Context(), dir, x, fetch)
	if err != nil || w != (lockbox.Written{Blobs: 1, Bytes: 7}) {
		t.Fatalf("%+v, %v", w, err)
	}
	got := tree(t, filepath.Join(dir, wire.LockboxDir))
	if len(got) != 4 || got[wire.LockboxMark] != wire.LockboxFormat || got["devices/"+x.Devices[0].Name] != "device" {
		t.Errorf("%v", got)
	}
	blob := filepath.Join(dir, wire.LockboxDir, wire.LockboxBlobs, strings.TrimPrefix(x.Blobs[0].Digest, "sha256:"))
	if w, err = lockbox.Write(t.Context(), dir, x, fetch); err != nil || w.Blobs != 0 {
		t.Errorf("again: %+v, %v", w, err)
	}
	must(t, os.WriteFile(blob, []byte("a modem"), 0o644))
	if w, err = lockbox.Write(t.Context(), dir, x, fetch); err != nil || w.Blobs != 1 {
		t.Errorf("over a damaged blob: %+v, %v", w, err)
	}
}

// What a stick holds under the names of a lockbox leads nowhere else: an export ends
// with a code, or replaces it; nothing outside is read or written.
func TestWriteOntoAHostileStick(t *testing.T) {
	x, fetch := anExport()
	for name, tc := range map[string]struct {
		make    func(t *testing.T, root, outside string)
		refused bool
	}{
		"a folder is a link out":         {func(t *testing.T, root, out string) { must(t, os.Symlink(out, filepath.Join(root, "devices"))) }, true},
		"a folder is a link to another":  {func(t *testing.T, root, out string) { must(t, os.Symlink("blobs", filepath.Join(root, "devices"))) }, true},
		"a folder is a file":             {func(t *testing.T, root, out string) { must(t, os.WriteFile(filepath.Join(root, "blobs"), nil, 0o600)) }, true},
		"the mark is endless":            {func(t *testing.T, root, out string) { must(t, os.Symlink("/dev/zero", filepath.Join(root, "format"))) }, true},
		"the mark is long":               {func(t *testing.T, root, out string) { must(t, os.Truncate(touch(t, root, "format"), 1<<20)) }, true},
		"the mark is a pipe":             {func(t *testing.T, root, out string) { must(t, syscall.Mkfifo(filepath.Join(root, "format"), 0o600)) }, true},
		"a blob is a pipe":               {func(t *testing.T, root, out string) { pipe(t, filepath.Join(root, "blobs"), x.Blobs[0].Digest[7:]) }, false},
		"a blob is a link to its like":   {func(t *testing.T, root, out string) { link(t, root, "blobs", out, x.Blobs[0].Digest[7:]) }, false},
		"a device's file is a link out":  {func(t *testing.T, root, out string) { link(t, root, "devices", out, x.Devices[0].Name) }, false},
		"a channel's file is a link out": {func(t *testing.T, root, out string) { link(t, root, "channels", out, x.Channels[0].Name) }, false},
		"the lockbox is a link out": {func(t *testing.T, root, out string) {
			must(t, os.Remove(root))
			must(t, os.Symlink(out, root))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			stick, outside := t.TempDir(), t.TempDir()
			root := filepath.Join(stick, wire.LockboxDir)
			must(t, os.Mkdir(root, 0o755))
			must(t, os.WriteFile(filepath.Join(outside, "precious"), []byte("precious"), 0o644))
			tc.make(t, root, outside)
			_, err := lockbox.Write(t.Context(), stick, x, fetch)
			if tc.refused != errors.Is(err, fleet.ErrLockboxFolder) || !tc.refused && err != nil {
				t.Errorf("refused: %v", err)
			}
			if got := tree(t, outside); len(got) != 1 || got["precious"] != "precious" {
				t.Errorf("outside the stick: %v", got)
			}
			if got := tree(t, root); !tc.refused && (len(got) != 4 || got["devices/"+x.Devices[0].Name] != "device") {
				t.Errorf("on the stick: %v", got)
			}
		})
	}
}

func touch(t *testing.T, in, name string) string {
	t.Helper()
	path := filepath.Join(in, name)
	must(t, os.WriteFile(path, nil, 0o644))
	return path
}

func pipe(t *testing.T, in, name string) {
	t.Helper()
	must(t, os.MkdirAll(in, 0o755))
	must(t, syscall.Mkfifo(filepath.Join(in, name), 0o644))
}

// link puts a link to the precious file into a folder of the stick.
func link(t *testing.T, root, folder, outside, name string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Join(root, folder), 0o755))
	must(t, os.Symlink(filepath.Join(outside, "precious"), filepath.Join(root, folder, name)))
}

// What comes home is read from regular files of the lockbox alone.
func TestReceiptsOfAHostileStick(t *testing.T) {
	stick, outside := t.TempDir(), t.TempDir()
	in := filepath.Join(stick, wire.LockboxDir, wire.LockboxReceipts)
	must(t, os.MkdirAll(in, 0o755))
	name := func(c string) string { return strings.Repeat(c, 64) }
	must(t, os.WriteFile(filepath.Join(in, name("a")), []byte("a receipt"), 0o644))
	must(t, os.WriteFile(filepath.Join(in, "README"), []byte("no receipt"), 0o644))
	must(t, os.WriteFile(filepath.Join(outside, "precious"), []byte("precious"), 0o644))
	pipe(t, in, name("b"))
	link(t, filepath.Join(stick, wire.LockboxDir), wire.LockboxReceipts, outside, name("c"))
	must(t, os.Mkdir(filepath.Join(in, name("d")), 0o755))
	must(t, os.Truncate(touch(t, in, name("e")), 1<<40))
	var got []string
	err := lockbox.Receipts(stick, func(b []byte) error { got = append(got, string(b)); return nil })
	if !errors.Is(err, fleet.ErrReceipt) || len(got) != 1 || got[0] != "a receipt" {
		t.Errorf("%q, %v", got, err)
	}
	must(t, os.Rename(in, filepath.Join(outside, "receipts")))
	must(t, os.Symlink(filepath.Join(outside, "receipts"), in))
	err = lockbox.Receipts(stick, func([]byte) error { t.Error("read through a link"); return nil })
	if !errors.Is(err, fleet.ErrLockboxFolder) {
		t.Error(err)
	}
	must(t, os.RemoveAll(filepath.Join(stick, wire.LockboxDir)))
	if err := lockbox.Receipts(stick, nil); !errors.Is(err, fleet.ErrLockboxFolder) {
		t.Error("without a lockbox:", err)
	}
}

// An answer goes by the hash of the key that asked, whatever the request's file is
// called, and never through what lies under that name.
func TestAnswerGoesByTheKey(t *testing.T) {
	stick, outside := t.TempDir(), t.TempDir()
	root := filepath.Join(stick, wire.LockboxDir)
	must(t, os.MkdirAll(filepath.Join(root, wire.LockboxRequests), 0o755))
	must(t, os.WriteFile(filepath.Join(outside, "precious"), []byte("precious"), 0o644))
	key := []byte("a public key")
	mine, other := fmt.Sprintf("%x", sha256.Sum256(key)), strings.Repeat("f", 64)
	b, err := json.Marshal(wire.EnrolRequest{PublicKey: key})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, wire.LockboxRequests, other), b, 0o644))
	must(t, os.WriteFile(filepath.Join(root, wire.LockboxRequests, strings.Repeat("e", 64)), []byte("no JSON"), 0o644))
	link(t, root, wire.LockboxAnswers, outside, mine)
	err = lockbox.Requests(stick, func(got []byte) ([]byte, error) {
		if !bytes.Equal(got, b) {
			t.Errorf("%s", got)
		}
		return []byte("welcome"), nil
	})
	if !errors.Is(err, fleet.ErrBadRequest) {
		t.Error(err)
	}
	got := tree(t, root)
	if len(got) != 2 || got["answers/"+mine] != "welcome" || got["requests/"+other] != "" {
		t.Errorf("%v", got)
	}
	if got := tree(t, outside); got["precious"] != "precious" {
		t.Errorf("outside: %v", got)
	}
	if err := lockbox.Requests(t.TempDir(), nil); err != nil {
		t.Error("without a lockbox:", err)
	}
}
