package amend

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/fleet/offline"
	"github.com/dunlin-edge/dunlin/fleet/publish"
)

// TestStrangersBase hands holders a file that ends with their own ceremony and begins
// with a stranger's, whose production role holds a release of the stranger. Holders
// who have roots do not sign it, whether the stranger calls theirs practice or not.
func TestStrangersBase(t *testing.T) {
	for name, practice := range map[string]bool{"earnest": false, "practice": true} {
		t.Run(name, func(t *testing.T) {
			victims := begun(t)
			own, err := publish.OpenCeremony(victims.Dir)
			if err != nil {
				t.Fatal(err)
			}
			path := stranger(t, own, practice)
			if _, err := Read(path, victims.Dir); code(err) != "amendment.other" {
				t.Errorf("%v, want amendment.other", err)
			}
		})
	}
}

// stranger writes an amendment from a ceremony of strangers to the given one.
func stranger(t *testing.T, to *publish.Ceremony, practice bool) string {
	t.Helper()
	shape := &publish.Ceremony{Holders: 3, Threshold: 2, Joined: []publish.Holder{{Name: "x"}, {Name: "y"}, {Name: "z"}}}
	if practice {
		shape = &publish.Ceremony{Holders: 1, Threshold: 1, Practice: true, Joined: shape.Joined[:1]}
	}
	dir := t.TempDir()
	shape.Format = 1
	b, err := copyOf(shape, dir, now)
	if err != nil {
		t.Fatal(err)
	}
	role, err := offline.Parse[metadata.TargetsType]("role", b.State.Roles["production"])
	if err != nil {
		t.Fatal(err)
	}
	evil, err := metadata.TargetFile().FromBytes("production/evil/9.9.9", []byte("a manifest"))
	if err != nil {
		t.Fatal(err)
	}
	custom := json.RawMessage(`{"release":{"kind":"model","model":"evil","version":"9.9.9","counter":1}}`)
	evil.Custom, role.Signed.Targets["production/evil/9.9.9"] = &custom, evil
	role.ClearSignatures()
	for i := range b.cer.Threshold {
		k, err := b.open(b.cer.Joined[i].Where(dir, publish.KindRelease))
		if err != nil {
			t.Fatal(err)
		}
		if err := offline.SignPaper(role, k); err != nil {
			t.Fatal(err)
		}
	}
	if b.State.Roles["production"], err = role.ToBytes(true); err != nil {
		t.Fatal(err)
	}
	if _, err = b.act("sign anew: production.json", nil, func(a *Amendment) error {
		a.New = *to
		a.New.Editions = nil
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, File)
}

func held(t *testing.T, dir string) *State {
	t.Helper()
	s := &State{}
	c, err := publish.OpenCeremony(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files(c) {
		b, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		s.put(f, b)
	}
	return s
}

// TestChanges names a key that changes though the act is silent about it.
func TestChanges(t *testing.T) {
	b := begun(t)
	other, err := b.make("other")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.act("sign anew: catalog-root.json", nil, func(a *Amendment) error {
		a.New.Joined[1].Root = other
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	a, err := Read(filepath.Join(b.Dir, File), b.Dir)
	if err != nil {
		t.Fatal(err)
	}
	list, err := a.Changes()
	if err != nil {
		t.Fatal(err)
	}
	_, id, err := offline.TUFKey(other)
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.IndexFunc(list, func(s string) bool { return strings.HasPrefix(s, "the root key of ben changes: ") }); i < 0 || !strings.HasSuffix(list[i], " becomes "+id) {
		t.Errorf("%q", list)
	}
}

// TestDates refuses lives that count from a day that has not come, said or hidden.
func TestDates(t *testing.T) {
	b := begun(t)
	b.Now = now.AddDate(100, 0, 0)
	a, err := b.Renew(true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Sign(b.Dir, "ada", nil, now); code(err) != "amendment.suspect" {
		t.Error(err)
	}
	a.Made = now
	path := filepath.Join(b.Dir, File)
	if err := a.Write(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path, b.Dir); code(err) != "amendment.suspect" {
		t.Error(err)
	}
}

// TestHistoryGone takes the beginning of the history away, and then all of it.
func TestHistoryGone(t *testing.T) {
	b := begun(t)
	for range 2 {
		a, err := b.Renew(true)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"ada", "ben"} {
			if _, err := a.sign(b.Dir, name, b.open); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.settle(b.Dir); err != nil {
			t.Fatal(err)
		}
		b.State = held(t, b.Dir)
	}
	if r, err := Check(b.Dir); err != nil || len(r.Acts) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	history := filepath.Join(b.Dir, HistoryDir)
	if err := os.Rename(filepath.Join(history, "2.json"), filepath.Join(history, "1.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := Check(b.Dir); code(err) != "amendment.suspect" {
		t.Errorf("without its beginning: %v", err)
	}
	if err := os.RemoveAll(history); err != nil {
		t.Fatal(err)
	}
	if _, err := Check(b.Dir); code(err) != "amendment.suspect" {
		t.Errorf("without a history: %v", err)
	}
}
