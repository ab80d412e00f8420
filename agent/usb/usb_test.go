package usb

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/durable/crashfs"
	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

var who = Who{Fleet: [32]byte{1}, Device: "meter-1", Channel: "production"}

const content = "the bytes of a blob"

var blob = trust.Blob{Digest: sha256.Sum256([]byte(content)), Length: int64(len(content))}

// names of the files of a stick, below its folder.
var (
	mark       = "dunlin/format"
	deviceFile = "dunlin/devices/" + wire.LockboxName(who.Fleet, who.Device)
	shared     = "dunlin/channels/" + wire.LockboxName(who.Fleet, who.Channel)
	blobFile   = "dunlin/blobs/" + hex.EncodeToString(blob.Digest[:])
	receipt    = "dunlin/receipts/" + wire.LockboxName(who.Fleet, who.Device)
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func set(t testing.TB, files ...wire.MetaFile) []byte {
	t.Helper()
	for i := range files {
		files[i].Bytes, files[i].Total = []byte("{}"), 2
	}
	b, err := wire.Encode(&wire.MetaSet{Files: files})
	must(t, err)
	return b
}

// files of a whole stick.
func files(t testing.TB) map[string][]byte {
	return map[string][]byte{
		mark:       []byte(wire.LockboxFormat),
		deviceFile: set(t, wire.MetaFile{Repo: trust.Director, Role: "timestamp", Version: 3}, wire.MetaFile{Repo: trust.Director, Role: "snapshot", Version: 3}, wire.MetaFile{Repo: trust.Director, Role: "targets", Version: 3}),
		shared:     set(t, wire.MetaFile{Repo: trust.Director, Role: "root", Version: 1}, wire.MetaFile{Repo: trust.Catalog, Role: "root", Version: 1}, wire.MetaFile{Repo: trust.Catalog, Role: "timestamp", Version: 5}),
		blobFile:   []byte(content),
	}
}

// stick writes a whole stick into a new folder beside one with a secret.
func stick(t testing.TB) (dir, secret string) {
	t.Helper()
	top := t.TempDir()
	dir, secret = filepath.Join(top, "stick"), filepath.Join(top, "outside", "secret")
	for name, b := range files(t) {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), b, 0o644))
	}
	must(t, os.MkdirAll(filepath.Dir(secret), 0o755))
	must(t, os.WriteFile(secret, []byte(content), 0o644))
	return dir, secret
}

// into collects what is fetched.
type into struct{ b [64]byte }

func (w *into) WriteAt(p []byte, off int64) (int, error) { return copy(w.b[off:], p), nil }

// use does everything that a device does with a stick.
func use(s *Stick) error {
	if _, err := s.Refresh(context.Background(), trust.Held{}); err != nil {
		return fmt.Errorf("refresh: %w", err)
	}
	w := &into{}
	if err := s.Fetch(context.Background(), blob, []trust.Range{{Offset: 0, Length: 4}, {Offset: 4, Length: blob.Length - 4}}, w); err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	if !bytes.HasPrefix(w.b[:], []byte(content)) {
		return fmt.Errorf("fetched %q", w.b)
	}
	return s.WriteReceipt([]byte("receipt"))
}

// TestHostile spoils one thing of a stick: each has an end with a code, nothing
// outside is read or written, and nothing hangs.
func TestHostile(t *testing.T) {
	replace := func(name string, by func(t *testing.T, path, secret string)) func(*testing.T, string, string) {
		return func(t *testing.T, dir, secret string) {
			path := filepath.Join(dir, name)
			must(t, os.RemoveAll(path))
			by(t, path, secret)
		}
	}
	link := func(t *testing.T, path, secret string) { must(t, os.Symlink(secret, path)) }
	linkDir := func(t *testing.T, path, secret string) { must(t, os.Symlink(filepath.Dir(secret), path)) }
	within := func(t *testing.T, path, _ string) {
		must(t, os.WriteFile(path+".x", []byte(content), 0o644))
		must(t, os.Symlink(filepath.Base(path)+".x", path))
	}
	pipe := func(t *testing.T, path, _ string) { must(t, unix.Mkfifo(path, 0o644)) }
	folderOf := func(t *testing.T, path, _ string) { must(t, os.Mkdir(path, 0o755)) }
	gone := func(*testing.T, string, string) {}
	long := func(size int64) func(*testing.T, string, string) {
		return func(t *testing.T, path, _ string) {
			must(t, os.WriteFile(path, nil, 0o644))
			must(t, os.Truncate(path, size))
		}
	}
	text := func(s string) func(*testing.T, string, string) {
		return func(t *testing.T, path, _ string) { must(t, os.WriteFile(path, []byte(s), 0o644)) }
	}
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir, secret string)
		want  string
	}{
		"nothing":                      {func(*testing.T, string, string) {}, ""},
		"no mark":                      {replace(mark, gone), CodeNotOurs},
		"mark is a link":               {replace(mark, within), CodeNotOurs},
		"mark is a pipe":               {replace(mark, pipe), CodeNotOurs},
		"mark is a folder":             {replace(mark, folderOf), CodeNotOurs},
		"mark is endless":              {replace(mark, long(1<<40)), CodeNotOurs},
		"a later format":               {replace(mark, text("dunlin lockbox 2\n")), CodeFormat},
		"all of it is a link":          {replace("dunlin", linkDir), CodeNotOurs},
		"not for this device":          {replace(deviceFile, gone), CodeNotOurs},
		"device file is a link out":    {replace(deviceFile, link), CodeGone},
		"device file is a link within": {replace(deviceFile, within), CodeGone},
		"device file is a pipe":        {replace(deviceFile, pipe), CodeGone},
		"device file is endless":       {replace(deviceFile, long(1<<40)), CodeGone},
		"device file is empty":         {replace(deviceFile, text("")), CodeMalformed},
		"device file is no metadata":   {replace(deviceFile, text(content)), CodeMalformed},
		"channel file is missing":      {replace(shared, gone), CodeGone},
		"channel file is a link":       {replace(shared, within), CodeGone},
		"blob is missing":              {replace(blobFile, gone), CodeGone},
		"blob is a link out":           {replace(blobFile, link), CodeGone},
		"blob is a link within":        {replace(blobFile, within), CodeGone},
		"blob is a pipe":               {replace(blobFile, pipe), CodeGone},
		"blob is a folder":             {replace(blobFile, folderOf), CodeGone},
		"blob is shorter":              {replace(blobFile, text(content[1:])), CodeMalformed},
		"blob is longer":               {replace(blobFile, text(content+"x")), CodeMalformed},
		"blob is endless":              {replace(blobFile, long(1<<40)), CodeMalformed},
		"blobs is a link":              {replace("dunlin/blobs", linkDir), CodeGone},
		"receipts is a link out":       {replace("dunlin/receipts", linkDir), CodeGone},
		"receipts is a file":           {replace("dunlin/receipts", text("x")), CodeGone},
		"the receipt is a link out": {replace("dunlin/receipts", func(t *testing.T, path, secret string) {
			folderOf(t, path, "")
			must(t, os.Symlink(secret, filepath.Join(path, filepath.Base(receipt))))
		}), ""},
		"the receipt is a pipe": {replace("dunlin/receipts", func(t *testing.T, path, _ string) {
			folderOf(t, path, "")
			pipe(t, filepath.Join(path, filepath.Base(receipt)), "")
		}), ""},
		"the receipt is a folder": {replace("dunlin/receipts", func(t *testing.T, path, _ string) {
			must(t, os.MkdirAll(filepath.Join(path, filepath.Base(receipt), "x"), 0o755))
		}), CodeGone},
		"receipts has links to be swept": {replace("dunlin/receipts", func(t *testing.T, path, secret string) {
			folderOf(t, path, "")
			must(t, os.Symlink(filepath.Dir(secret), filepath.Join(path, ".x.tmp-00000000")))
		}), ""},
	} {
		for _, stepwise := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/stepwise %v", name, stepwise), func(t *testing.T) {
				dir, secret := stick(t)
				c.spoil(t, dir, secret)
				s, err := OpenIn(folder{dir, stepwise}, wire.LockboxDir, who)
				if err == nil {
					err = use(s)
				}
				if Code(err) != c.want || (err == nil) != (c.want == "") {
					t.Errorf("%v, want %q", err, c.want)
				}
				if b, err := os.ReadFile(secret); err != nil || string(b) != content {
					t.Errorf("outside: %q, %v", b, err)
				}
				if e, err := os.ReadDir(filepath.Dir(secret)); err != nil || len(e) != 1 {
					t.Errorf("outside: %v, %v", e, err)
				}
			})
		}
	}
}

// TestReceiptTouchesNothingElse compares every other file before and after.
func TestReceiptTouchesNothingElse(t *testing.T) {
	dir, _ := stick(t)
	s, err := Open(dir, who)
	must(t, err)
	for _, r := range []string{"first", "second"} {
		must(t, s.WriteReceipt([]byte(r)))
		want := files(t)
		want[receipt] = []byte(r)
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			name, _ := filepath.Rel(dir, path)
			b, err := os.ReadFile(path)
			if w, ok := want[name]; !ok || !bytes.Equal(w, b) {
				t.Errorf("%s: %q", name, b)
			}
			delete(want, name)
			return err
		})
		if err != nil || len(want) != 0 {
			t.Errorf("missing: %v, %v", want, err)
		}
	}
	if err := s.WriteReceipt(make([]byte, wire.MaxReceipt+1)); Code(err) != CodeFull {
		t.Errorf("a receipt without measure: %v", err)
	}
}

// memory is a whole stick that forgets what is not synced.
func memory(t testing.TB) *crashfs.FS {
	t.Helper()
	f := crashfs.New()
	for name, b := range files(t) {
		must(t, durable.MkdirAll(f, "prepare", "/"+filepath.Dir(name), 0o755))
		must(t, durable.WriteFile(f, "prepare", "/"+name, b, 0o644))
	}
	must(t, durable.MkdirAll(f, "prepare", "/dunlin/receipts", 0o755))
	must(t, durable.WriteFile(f, "prepare", "/"+receipt, []byte("old"), 0o644))
	f.Settle()
	return f
}

// TestReceiptEnds fails every step of a receipt in every way that sticks do.
func TestReceiptEnds(t *testing.T) {
	steps := 0
	for errno, want := range map[syscall.Errno]string{
		syscall.ENOSPC: CodeFull, syscall.EDQUOT: CodeFull, syscall.EFBIG: CodeFull, syscall.EROFS: CodeReadOnly, syscall.EACCES: CodeReadOnly,
		syscall.EIO: CodeGone, syscall.ENODEV: CodeGone,
	} {
		for n := 0; ; n++ {
			f := memory(t)
			s, err := OpenIn(f, "/dunlin", who)
			must(t, err)
			at, failed := 0, false
			f.Before = func(x crashfs.Step) error {
				if at++; at-1 == n {
					failed = true
					return &fs.PathError{Op: x.Label, Path: x.Path, Err: errno}
				}
				return nil
			}
			err = s.WriteReceipt([]byte("new"))
			f.Before = nil
			if !failed {
				must(t, err)
				break
			}
			if Code(err) != want {
				t.Errorf("step %d fails with %v: %v, want %s", n, errno, err, want)
			}
			steps++
			if b, err := durable.ReadFile(f, "/"+receipt, 99); err != nil || string(b) != "old" && string(b) != "new" {
				t.Errorf("step %d fails with %v: the receipt is %q, %v", n, errno, b, err)
			}
			must(t, s.WriteReceipt([]byte("again")))
		}
	}
	t.Logf("%d failing steps", steps)
}

// TestReceiptCrashes pulls the stick after every step of a receipt: the old or the
// new one is there, whole, every file of the update is as it was, and the next
// receipt sweeps what is left.
func TestReceiptCrashes(t *testing.T) {
	check := func(after *crashfs.FS, done int) error {
		b, err := durable.ReadFile(after, "/"+receipt, 99)
		if got := string(b); err != nil || got != "new" && (got != "old" || done > 0) {
			return fmt.Errorf("the receipt is %q, %w", got, err)
		}
		for name, want := range files(t) {
			if b, err := durable.ReadFile(after, "/"+name, 1<<20); err != nil || !bytes.Equal(b, want) {
				return fmt.Errorf("%s is %q, %w", name, b, err)
			}
		}
		s, err := OpenIn(after, "/dunlin", who)
		if err == nil {
			err = s.WriteReceipt([]byte("next"))
		}
		for _, n := range after.Names() {
			if strings.Contains(n, ".tmp-") {
				return errors.Join(err, fmt.Errorf("%s is left", n))
			}
		}
		return err
	}
	f := memory(t)
	s, err := OpenIn(f, "/dunlin", who)
	must(t, err)
	r, err := (&crashfs.Explorer{Limit: 512, Check: check}).Run(f, func(_ durable.FS, done func()) error {
		err := s.WriteReceipt([]byte("new"))
		done()
		return err
	})
	must(t, err)
	if r.Sampled > 0 {
		t.Errorf("%d steps were only sampled", r.Sampled)
	}
	t.Logf("%d steps, %d crash states", len(r.Labels), r.States)
}

// TestCatalogIsFiltered gives the catalog only when it is newer, the director
// always.
func TestCatalogIsFiltered(t *testing.T) {
	dir, _ := stick(t)
	s, err := Open(dir, who)
	must(t, err)
	for held, want := range map[trust.Versions]int{
		{Root: 1}: 6, {Root: 1, Timestamp: 4}: 6, {Root: 1, Timestamp: 5}: 5, {Root: 1, Timestamp: 6}: 5, {Root: 0, Timestamp: 1 << 40}: 6,
	} {
		got, err := s.Refresh(t.Context(), trust.Held{Catalog: held, Director: trust.Versions{Timestamp: 9}})
		must(t, err)
		if len(got) != want {
			t.Errorf("%+v is held: %d files, want %d", held, len(got), want)
		}
	}
}

// TestDirectorIsWanted: a stick that says nothing of this device's wish is not taken
// for one that brings the wish that is held.
func TestDirectorIsWanted(t *testing.T) {
	for name, b := range map[string][]byte{
		"the catalog's files only": set(t, wire.MetaFile{Repo: trust.Catalog, Role: "timestamp", Version: 3}),
		"no targets":               set(t, wire.MetaFile{Repo: trust.Director, Role: "timestamp", Version: 3}, wire.MetaFile{Repo: trust.Director, Role: "snapshot", Version: 3}),
	} {
		dir, _ := stick(t)
		must(t, os.WriteFile(filepath.Join(dir, deviceFile), b, 0o644))
		s, err := Open(dir, who)
		must(t, err)
		if _, err := s.Refresh(t.Context(), trust.Held{}); Code(err) != CodeMalformed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzMetadata gives a stick's metadata files any bytes: no panic, and only files
// of the two repositories come out, no root from a device's own file.
func FuzzMetadata(f *testing.F) {
	whole := files(f)
	f.Add(whole[deviceFile], whole[shared])
	f.Add([]byte{0xa1, 1, 0x80}, []byte{})
	f.Add(bytes.Repeat([]byte{0x81}, 100), []byte{0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, own, channel []byte) {
		fsys := crashfs.New()
		for name, b := range map[string][]byte{mark: []byte(wire.LockboxFormat), deviceFile: own, shared: channel} {
			must(t, durable.MkdirAll(fsys, "prepare", "/"+filepath.Dir(name), 0o755))
			must(t, durable.WriteFile(fsys, "prepare", "/"+name, b, 0o644))
		}
		s, err := OpenIn(fsys, "/dunlin", who)
		must(t, err)
		out, err := s.Refresh(context.Background(), trust.Held{})
		if err != nil && Code(err) == "" {
			t.Fatalf("an end without a code: %v", err)
		}
		for _, x := range out {
			if len(x.Bytes) > len(own)+len(channel) || x.Repo == trust.Catalog && err != nil {
				t.Fatalf("%d bytes from %d, %v", len(x.Bytes), len(own)+len(channel), err)
			}
		}
	})
}
