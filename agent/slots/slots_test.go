package slots_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/agent/slots"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

func digest(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func pair(name string) slots.Pair {
	return slots.Pair{Bundle: digest("bundle " + name), Runtime: digest("runtime " + name)}
}

// device is a store on the real file system with a directory of blobs.
type device struct {
	t     *testing.T
	root  string
	store *slots.Store
	m     *slots.Slots
}

func newDevice(t *testing.T) *device {
	d := &device{t: t, root: t.TempDir()}
	if err := os.Mkdir(filepath.Join(d.root, "blobs"), 0o755); err != nil {
		t.Fatal(err)
	}
	d.restart()
	return d
}

func (d *device) restart() {
	d.t.Helper()
	var err error
	if d.store, err = slots.Open(durable.OS{}, filepath.Join(d.root, "slots")); err != nil {
		d.t.Fatal(err)
	}
	if d.m, err = d.store.Model("meter"); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) blob(content string) string {
	d.t.Helper()
	path := filepath.Join(d.root, "blobs", digest(content)[7:])
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		d.t.Fatal(err)
	}
	return path
}

func file(name, content string) slots.File {
	return slots.File{Name: name, Digest: digest(content), Size: int64(len(content))}
}

// install stages, publishes and returns the place.
func (d *device) install(name string) slots.Place {
	d.t.Helper()
	s, err := d.m.Stage()
	if err != nil {
		d.t.Fatal(err)
	}
	for _, f := range []string{"model.tflite", "meta/labels.txt"} {
		content := f + " of " + name
		if err := s.Add(file(f, content), d.blob(content)); err != nil {
			d.t.Fatal(err)
		}
	}
	p, err := s.Publish(pair(name), []byte(`{"version":"`+name+`"}`))
	if err != nil {
		d.t.Fatal(err)
	}
	return p
}

func (d *device) look() slots.State {
	d.t.Helper()
	s, err := d.m.Look()
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

func (d *device) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func TestLifeOfTwoPlaces(t *testing.T) {
	d := newDevice(t)
	if s := d.look(); s.Active != slots.None || s.Inactive() != slots.A {
		t.Fatalf("a new model: %+v", s)
	}
	if err := d.m.Switch(slots.A); !errors.Is(err, slots.ErrIncomplete) {
		t.Errorf("switch to an empty place: %v", err)
	}
	if p := d.install("one"); p != slots.A {
		t.Fatalf("first install in %q", p)
	}
	d.must(d.m.Switch(slots.A))
	d.must(d.m.Judge(slots.A, slots.Judged{Verdict: slots.Good, Attempt: 1, Proven: true}))
	if p := d.install("two"); p != slots.B {
		t.Fatalf("second install in %q", p)
	}
	if s := d.look(); s.Active != slots.A || s.Previous != slots.None {
		t.Fatalf("before the switch: %+v", s)
	}
	d.must(d.m.Switch(slots.B))
	d.restart()
	s := d.look()
	if s.Active != slots.B || s.Previous != slots.A || s.Slot(slots.A).Verdict != slots.Good || s.Slot(slots.B).Verdict != slots.Unknown {
		t.Fatalf("after the switch: %+v", s)
	}
	if got, err := os.ReadFile(filepath.Join(d.m.CurrentDir(), "meta", "labels.txt")); err != nil || string(got) != "meta/labels.txt of two" {
		t.Errorf("stable path reads %q, %v", got, err)
	}
	if diff := cmp.Diff(slots.Record{Pair: pair("two"), Note: []byte(`{"version":"two"}`), Files: []slots.File{
		file("model.tflite", "model.tflite of two"), file("meta/labels.txt", "meta/labels.txt of two"),
	}}, s.Slot(slots.B).Record); diff != "" {
		t.Error(diff)
	}
	if s.Find(pair("one")) != slots.A || s.Find(pair("two")) != slots.B || s.Find(pair("three")) != slots.None {
		t.Error("Find does not find")
	}
	d.must(d.m.Back())
	if s := d.look(); s.Active != slots.A || s.Previous != slots.None {
		t.Fatalf("after going back: %+v", s)
	}
	if err := d.m.Back(); !errors.Is(err, slots.ErrNoWayBack) {
		t.Errorf("going back twice: %v", err)
	}
	d.must(d.m.Retire())
	if s := d.look(); s.Active != slots.None || s.Slot(slots.A).Content != slots.Complete {
		t.Fatalf("after retiring: %+v", s)
	}
	d.must(d.m.Remove())
	if names, err := d.store.Models(); err != nil || len(names) != 0 {
		t.Errorf("after removing: %v, %v", names, err)
	}
}

func TestReplacingThePreviousForgetsTheWayBack(t *testing.T) {
	d := newDevice(t)
	d.must(d.m.Switch(d.install("one")))
	d.must(d.m.Switch(d.install("two")))
	d.must(d.m.Judge(slots.A, slots.Judged{Verdict: slots.Bad, Code: "x.y"}))
	if p := d.install("three"); p != slots.A {
		t.Fatalf("third install in %q", p)
	}
	s := d.look()
	if s.Active != slots.B || s.Previous != slots.None || s.Slot(slots.A).Verdict != slots.Unknown {
		t.Errorf("after the third install: %+v", s)
	}
}

func TestTheActivePlaceIsNotTouched(t *testing.T) {
	d := newDevice(t)
	d.must(d.m.Switch(d.install("one")))
	if err := d.m.Erase(slots.A); !errors.Is(err, slots.ErrActive) {
		t.Errorf("erase of the active place: %v", err)
	}
	// Installing the version that is active goes to the other place.
	if p := d.install("one"); p != slots.B {
		t.Errorf("same version installed in %q", p)
	}
	s := d.look()
	if s.Active != slots.A || s.Find(pair("one")) != slots.A {
		t.Errorf("%+v", s)
	}
	d.must(d.m.Erase(slots.B))
	if s := d.look(); s.Slot(slots.B).Content != slots.Empty {
		t.Errorf("erased place: %+v", s.Slot(slots.B))
	}
}

func TestDamagedPlaces(t *testing.T) {
	tests := map[string]struct {
		damage  func(dir string) error
		content slots.Content
		verify  error
	}{
		"intact":          {func(string) error { return nil }, slots.Complete, nil},
		"record missing":  {func(d string) error { return os.Remove(d + "/slot.json") }, slots.Empty, slots.ErrIncomplete},
		"record cut":      {func(d string) error { return os.Truncate(d+"/slot.json", 10) }, slots.Empty, slots.ErrIncomplete},
		"file missing":    {func(d string) error { return os.Remove(d + "/meta/labels.txt") }, slots.Empty, slots.ErrIncomplete},
		"file cut":        {func(d string) error { return os.Truncate(d+"/model.tflite", 3) }, slots.Empty, slots.ErrIncomplete},
		"file grown":      {func(d string) error { return os.Truncate(d+"/model.tflite", 99) }, slots.Empty, slots.ErrIncomplete},
		"file altered":    {func(d string) error { return overwrite(d + "/model.tflite") }, slots.Complete, slots.ErrDigest},
		"file is a link":  {func(d string) error { return relink(d + "/model.tflite") }, slots.Complete, slots.ErrDigest},
		"directory there": {func(d string) error { return swapDir(d + "/model.tflite") }, slots.Empty, slots.ErrIncomplete},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			p := d.install("one")
			d.must(tc.damage(d.m.Dir(p)))
			if s := d.look(); s.Slot(p).Content != tc.content {
				t.Errorf("content %q, want %q", s.Slot(p).Content, tc.content)
			}
			if err := d.m.Verify(p); !errors.Is(err, tc.verify) {
				t.Errorf("verify: %v, want %v", err, tc.verify)
			}
		})
	}
}

// overwrite changes the content in a file of its own: the blob is a hard link.
func overwrite(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[0] ^= 1
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

func relink(path string) error {
	if err := overwrite(path); err != nil {
		return err
	}
	if err := os.Rename(path, path+".x"); err != nil {
		return err
	}
	return os.Symlink(filepath.Base(path)+".x", path)
}

func swapDir(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.Mkdir(path, 0o755)
}

func TestAStagedFileIsWhatItSays(t *testing.T) {
	d := newDevice(t)
	s, err := d.m.Stage()
	d.must(err)
	from := d.blob("content")
	good := file("f", "content")
	refused := map[string]struct {
		f    slots.File
		want error
	}{
		"other content": {file("f", "another"), slots.ErrDigest},
		"longer":        {slots.File{Name: "f", Digest: good.Digest, Size: 6}, slots.ErrDigest},
		"shorter":       {slots.File{Name: "f", Digest: good.Digest, Size: 8}, slots.ErrDigest},
		"no digest":     {slots.File{Name: "f", Size: 7}, slots.ErrDigest},
		"negative":      {slots.File{Name: "f", Digest: good.Digest, Size: -1}, slots.ErrDigest},
	}
	for _, name := range []string{"", ".", "..", "../x", "a/../../x", "/etc/x", "a//b", "a/./b", "a/", `a\b`, "slot.json", "SLOT.JSON", ".hidden", "a/.x.tmp-00000000", "a b", "a\x00b", "é", strings.Repeat("x", 600)} {
		refused["name "+name] = struct {
			f    slots.File
			want error
		}{slots.File{Name: name, Digest: good.Digest, Size: good.Size}, slots.ErrName}
	}
	for name, tc := range refused {
		if err := s.Add(tc.f, from); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	d.must(s.Add(good, from))
	if err := s.Add(good, from); !errors.Is(err, slots.ErrName) {
		t.Errorf("the same name twice: %v", err)
	}
	if _, err := s.Publish(slots.Pair{Bundle: "md5:1"}, nil); !errors.Is(err, slots.ErrRecord) {
		t.Errorf("publish without a digest: %v", err)
	}
	d.must(s.Drop())
	d.must(s.Drop())
	if _, err := s.Publish(pair("x"), nil); err == nil {
		t.Error("published what was dropped")
	}
}

func TestReuse(t *testing.T) {
	d := newDevice(t)
	d.must(d.m.Switch(d.install("one")))
	s, err := d.m.Stage()
	d.must(err)
	f := file("renamed.tflite", "model.tflite of one")
	if ok, err := s.Reuse(f); !ok || err != nil {
		t.Fatalf("reuse: %v, %v", ok, err)
	}
	if ok, err := s.Reuse(file("x", "not there")); ok || err != nil {
		t.Fatalf("reuse of what is not there: %v, %v", ok, err)
	}
	d.must(overwrite(filepath.Join(d.m.CurrentDir(), "meta", "labels.txt")))
	if ok, err := s.Reuse(file("y", "meta/labels.txt of one")); ok || err != nil {
		t.Fatalf("reuse of a damaged file: %v, %v", ok, err)
	}
	p, err := s.Publish(pair("two"), nil)
	d.must(err)
	d.must(d.m.Verify(p))
}

func TestAnotherStagingReplacesTheFirst(t *testing.T) {
	d := newDevice(t)
	first, err := d.m.Stage()
	d.must(err)
	_, err = d.m.Stage()
	d.must(err)
	if _, err := first.Publish(pair("one"), nil); err == nil {
		t.Error("the first staging was published")
	}
}

func TestModelNames(t *testing.T) {
	d := newDevice(t)
	for _, name := range []string{"", ".", "..", "a/b", "A", "-a", ".a", "a b", strings.Repeat("a", 64)} {
		if _, err := d.store.Model(name); !errors.Is(err, slots.ErrName) {
			t.Errorf("model %q: %v", name, err)
		}
	}
}
