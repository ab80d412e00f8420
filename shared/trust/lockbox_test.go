package trust

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"
)

// TestLockboxDates takes the same files from a lockbox and from the network after
// their dates: from the lockbox only those of the catalog's timestamp and snapshot
// do not count.
func TestLockboxDates(t *testing.T) {
	week := 7 * 24 * time.Hour
	for name, c := range map[string]struct {
		shape   func(*world)
		after   time.Duration
		lockbox string // code of the refusal
		network string
	}{
		"fresh":                            {func(*world) {}, 0, "", ""},
		"the catalog's short dates passed": {func(w *world) { w.o.directorExpires = now.Add(4 * week); w.o.targetsExpires = now.Add(20 * week) }, 2 * week, "", CodeFreeze},
		"the lockbox's own date passed":    {func(w *world) { w.o.directorExpires = now.Add(4 * week); w.o.targetsExpires = now.Add(20 * week) }, 5 * week, CodeFreeze, CodeFreeze},
		"the channel's date passed":        {func(w *world) { w.o.directorExpires = now.Add(4 * week) }, 2 * week, CodeFreeze, CodeFreeze},
		"the roots' date passed":           {func(w *world) { w.o.directorExpires = now.Add(400 * week); w.o.targetsExpires = now.Add(400 * week) }, 60 * week, CodeFreeze, CodeFreeze},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c.shape(w)
			for _, way := range []struct {
				refresh func(*Client, context.Context, Source) (Wish, error)
				want    string
			}{{(*Client).RefreshLockbox, c.lockbox}, {(*Client).Refresh, c.network}} {
				d := w.device("meter-1")
				d.now = now.Add(c.after)
				wish, err := way.refresh(d.c, t.Context(), w)
				var r *Refusal
				if errors.As(err, &r); (err == nil) != (way.want == "") || r != nil && r.Code != way.want {
					t.Errorf("%v, want %q", err, way.want)
				}
				if err == nil && wish.Generation != 1 {
					t.Errorf("wish %+v", wish)
				}
			}
		})
	}
}

// TestLockboxVersions wants an older stick refused whatever its dates, by what came
// from the network and by what came from another stick; and a device that has
// expired files from a stick to go on in the network.
func TestLockboxVersions(t *testing.T) {
	for name, newer := range map[string]func(*Client, context.Context, Source) (Wish, error){"by network": (*Client).Refresh, "by another stick": (*Client).RefreshLockbox} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			old := w.files()
			d := w.device("meter-1")
			w.o.version, w.o.generation, w.o.catalogVersion = 2, 2, 2
			if _, err := newer(d.c, t.Context(), w); err != nil {
				t.Fatal(err)
			}
			_, err := d.c.RefreshLockbox(t.Context(), allOf(old))
			var r *Refusal
			if !errors.As(err, &r) || r.Code != CodeRollback {
				t.Errorf("%v, want %s", err, CodeRollback)
			}
			if g := d.c.Wish().Generation; g != 2 {
				t.Errorf("generation %d", g)
			}
		})
	}
	w := newWorld(t)
	w.o.directorExpires, w.o.targetsExpires = now.Add(60*24*time.Hour), now.Add(100*24*time.Hour)
	d := w.device("meter-1")
	d.now = now.Add(30 * 24 * time.Hour)
	if _, err := d.c.RefreshLockbox(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if _, err := d.c.RefreshLockbox(t.Context(), w); err != nil {
		t.Errorf("the same stick again: %v", err)
	}
	w.o.catalogVersion, w.o.version, w.o.catalogExpires = 2, 2, d.now.Add(time.Hour)
	if _, err := d.refresh(); err != nil {
		t.Errorf("in the network afterwards: %v", err)
	}
	d.open("meter-1")
	if g := d.c.Wish().Generation; g != 1 {
		t.Errorf("generation %d after a restart", g)
	}
}

// allOf hands out the same files whatever is held.
type allOf []File

func (a allOf) Refresh(context.Context, Held) ([]File, error) { return a, nil }

func (allOf) Fetch(context.Context, Blob, []Range, io.WriterAt) error { return errCut }

// TestNote is of the newest wish, also after a restart.
func TestNote(t *testing.T) {
	w := newWorld(t)
	w.o.note = map[string]any{"id": "lbx_1", "share": 5}
	d := w.device("meter-1")
	if _, err := d.c.RefreshLockbox(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	d.open("meter-1")
	if n := string(d.c.Note()); n != `{"id":"lbx_1","share":5}` {
		t.Errorf("note %s", n)
	}
	w.o.note, w.o.version = nil, 2
	if _, err := d.refresh(); err != nil || d.c.Note() != nil {
		t.Errorf("note %s after a wish by network, %v", d.c.Note(), err)
	}
}
