package crashfs_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/durable/crashfs"
)

// outcomes lists what a crash may leave, as names with content.
func outcomes(t *testing.T, f *crashfs.FS) []string {
	t.Helper()
	var out []string
	exhaustive := f.Crashes(1000, rand.New(rand.NewPCG(1, 1)), func(after *crashfs.FS) bool {
		var s []string
		for _, name := range after.Names() {
			if b, err := durable.ReadFile(after, name, 1<<20); err == nil {
				name += "=" + strings.ReplaceAll(string(b), "\x00", "0")
			}
			s = append(s, name)
		}
		out = append(out, strings.Join(s, " "))
		return true
	})
	if !exhaustive {
		t.Fatal("more states than expected")
	}
	slices.Sort(out)
	return out
}

func write(t *testing.T, f durable.FS, path, content string) durable.File {
	t.Helper()
	h, err := f.OpenFile("t", path, durable.CreateNew, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	return h
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestWhatACrashLeaves(t *testing.T) {
	tests := []struct {
		name string
		work func(*testing.T, *crashfs.FS)
		want []string
	}{
		{"nothing synced", func(t *testing.T, f *crashfs.FS) { write(t, f, "/a", "xy") },
			[]string{"", "/a=", "/a=00", "/a=x", "/a=xy"}},
		{"content synced, name not", func(t *testing.T, f *crashfs.FS) { must(t, write(t, f, "/a", "xy").Sync()) },
			[]string{"", "/a=xy"}},
		{"name synced, content not", func(t *testing.T, f *crashfs.FS) { write(t, f, "/a", "xy"); must(t, f.SyncDir("t", "/")) },
			[]string{"/a=", "/a=00", "/a=x", "/a=xy"}},
		{"both synced", func(t *testing.T, f *crashfs.FS) {
			must(t, write(t, f, "/a", "xy").Sync(), f.SyncDir("t", "/"))
		}, []string{"/a=xy"}},
		{"rename not synced", func(t *testing.T, f *crashfs.FS) {
			must(t, write(t, f, "/a", "xy").Sync(), f.SyncDir("t", "/"), f.Rename("t", "/a", "/b"))
		}, []string{"/a=xy", "/b=xy"}},
		{"two names, any order", func(t *testing.T, f *crashfs.FS) {
			must(t, f.Symlink("t", "x", "/a"), f.Symlink("t", "x", "/b"))
		}, []string{"", "/a", "/a /b", "/b"}},
		{"removal not synced", func(t *testing.T, f *crashfs.FS) {
			must(t, write(t, f, "/a", "xy").Sync(), f.SyncDir("t", "/"), f.Remove("t", "/a"))
		}, []string{"", "/a=xy"}},
		{"directory without its own entries", func(t *testing.T, f *crashfs.FS) {
			must(t, f.Mkdir("t", "/d", 0), f.SyncDir("t", "/"), f.Symlink("t", "x", "/d/a"))
		}, []string{"/d/", "/d/ /d/a"}},
		{"failed sync loses for good", func(t *testing.T, f *crashfs.FS) {
			h := write(t, f, "/a", "xy")
			f.Before = func(s crashfs.Step) error {
				if s.Label == "t.sync" {
					return errors.New("input/output error")
				}
				return nil
			}
			if err := h.Sync(); err == nil {
				t.Error("sync did not fail")
			}
			f.Before = nil
			must(t, h.Sync(), f.SyncDir("t", "/"))
		}, []string{"/a=", "/a=00", "/a=x", "/a=xy"}},
		{"later write of another part", func(t *testing.T, f *crashfs.FS) {
			h := write(t, f, "/a", "xy")
			must(t, h.Sync(), f.SyncDir("t", "/"))
			if _, err := h.WriteAt([]byte("Z"), 1); err != nil {
				t.Fatal(err)
			}
		}, []string{"/a=xZ", "/a=xy"}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			f := crashfs.New()
			tc.work(t, f)
			if got := outcomes(t, f); !slices.Equal(got, tc.want) {
				t.Errorf("a crash leaves %q, want %q", got, tc.want)
			}
		})
	}
}

// The real file system and the model answer alike.
func TestModelAnswersLikeTheRealOne(t *testing.T) {
	run := func(f durable.FS, root string) []string {
		var got []string
		say := func(what string, err error) {
			kind := "ok"
			switch {
			case errors.Is(err, fs.ErrNotExist):
				kind = "missing"
			case errors.Is(err, fs.ErrExist):
				kind = "exists"
			case err != nil:
				kind = "error"
			}
			got = append(got, what+": "+kind)
		}
		p := func(name string) string { return root + "/" + name }
		open := func(name string, how durable.How) {
			h, err := f.OpenFile("t", p(name), how, 0o600)
			say("open "+name, err)
			if err == nil {
				_, err := h.Write([]byte("abc"))
				say("write "+name, err)
				say("cut "+name, h.Truncate(2))
				say("close "+name, h.Close())
				say("close again "+name, h.Close())
			}
		}
		open("none", durable.ReadWrite)
		open("a", durable.CreateNew)
		open("a", durable.CreateNew)
		open("a", durable.ReadOnly)
		open("a", durable.ReadWrite)
		open("a", durable.Append)
		say("mkdir", f.Mkdir("t", p("d"), 0o700))
		say("mkdir again", f.Mkdir("t", p("d"), 0o700))
		say("mkdir deep", f.Mkdir("t", p("x/y"), 0o700))
		say("link", f.Link("t", p("a"), p("d/l")))
		say("link again", f.Link("t", p("a"), p("d/l")))
		say("link of none", f.Link("t", p("none"), p("l")))
		say("symlink", f.Symlink("t", "d", p("s")))
		open("s/l", durable.ReadWrite)
		open("s", durable.ReadWrite)
		say("rename across", f.Rename("t", p("d/l"), p("l")))
		say("rename none", f.Rename("t", p("none"), p("l")))
		say("rename file to dir", f.Rename("t", p("a"), p("d")))
		say("rename over link", f.Rename("t", p("a"), p("s")))
		say("remove full", f.Remove("t", p("d")))
		say("remove none", f.Remove("t", p("none")))
		say("sync", f.SyncDir("t", p("d")))
		say("sync none", f.SyncDir("t", p("none")))
		entries, err := f.ReadDir(root)
		say("readdir", err)
		for _, e := range entries {
			i, err := f.Lstat(p(e.Name()))
			say("lstat", err)
			got = append(got, e.Name()+" "+i.Mode().Type().String())
		}
		b, err := durable.ReadFile(f, p("s"), 99)
		say("read "+string(b), err)
		_, err = f.Readlink(p("s"))
		say("readlink of a file", err)
		return got
	}
	model := crashfs.New()
	must(t, model.Mkdir("t", "/r", 0))
	want, got := run(durable.OS{}, t.TempDir()), run(model, "/r")
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("step %d: model %q, real %q", i, got[min(i, len(got)-1):], want[i:])
		}
	}
}
