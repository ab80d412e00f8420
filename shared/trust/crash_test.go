package trust

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/durable/crashfs"
)

// offered is a Source that was prepared. It sends what is newer; a thief, and a
// server whose versions a thief has overtaken, everything.
type offered struct {
	files []File
	all   bool
}

func (o *offered) Refresh(_ context.Context, held Held) ([]File, error) {
	return slices.DeleteFunc(slices.Clone(o.files), func(f File) bool { return !o.all && !newer(f, held) }), nil
}

func (o *offered) Fetch(context.Context, Blob, []Range, io.WriterAt) error { return errCut }

// moment is what a device has acted on, and what may come then.
type moment struct {
	generation int64
	offer      *offered            // brings it here
	older      map[string]*offered // must be refused from then on
	newest     *offered            // must be believed, and be below the floor
}

const newestGeneration = 99

// history is a device's metadata, as it gets newer; the first moment is settled.
type history struct {
	name    string
	fs      func() (*crashfs.FS, error)
	moments []moment
	// damage takes away a file besides, see inspectDamaged.
	damage bool
	// skip, when set, leaves out states of no interest, for speed.
	skip func(quiet bool) bool
	// inspected are the states that were found good, by what is on the disk.
	inspected map[[32]byte]bool
}

const crashTrust = "/var/trust"

func openTrust(f durable.FS) (*Client, error) {
	return Open(Config{FS: f, Dir: crashTrust, Blobs: "/var/blobs", Device: "meter-1", Channel: "production", Now: func() time.Time { return now }})
}

// say prepares what the repositories say with some of it changed.
func (w *world) say(all bool, change func(*offer)) *offered {
	before := w.o
	defer func() { w.o = before }()
	change(&w.o)
	return &offered{append(w.files(), w.extra...), all}
}

// at is a moment with these versions and this floor. Counter floor-1 is below it.
func (w *world) at(version, floor int64) moment {
	set := func(o *offer) {
		o.version, o.generation, o.catalogVersion, o.floors, o.counter = version, version, version, nil, floor-1
		if floor > 0 {
			o.floors = map[string]int64{"meter-digits": floor}
		}
	}
	return moment{
		generation: version,
		offer:      w.say(false, set),
		older: map[string]*offered{
			"everything": w.say(true, func(o *offer) { set(o); o.version, o.catalogVersion, o.generation = version-1, version-1, version-1 }),
			"catalog":    w.say(true, func(o *offer) { set(o); o.catalogVersion-- }),
			"director":   w.say(true, func(o *offer) { set(o); o.version-- }),
			"generation": w.say(true, func(o *offer) { set(o); o.version += 1000; o.generation-- }),
		},
		newest: w.say(false, func(o *offer) {
			set(o)
			o.version, o.catalogVersion, o.generation, o.floors = version+newestGeneration, version+newestGeneration, newestGeneration, nil
		}),
	}
}

// histories are what happens to a device's metadata.
func histories(t *testing.T) []*history {
	w := newWorld(t)
	begin := func() (*crashfs.FS, error) {
		f := crashfs.New()
		err := Install(f, crashTrust, [][]byte{w.catalogRoot}, [][]byte{w.directorRoot})
		return f, err
	}
	out := []*history{
		{name: "first refresh", moments: []moment{{newest: w.at(5, 4).newest}, w.at(5, 4)}},
		// The floor rises, then it is left out: only what was seen has it.
		{name: "newer metadata", moments: []moment{w.at(5, 4), w.at(7, 6), w.at(8, 0)}},
		w.rotation(),
	}
	last := &out[1].moments[2]
	last.newest = w.say(false, func(o *offer) {
		o.version, o.catalogVersion, o.generation, o.counter = newestGeneration, newestGeneration, newestGeneration, 5
	})
	for _, h := range out {
		h.fs, h.inspected = begin, map[[32]byte]bool{}
	}
	return out
}

// rotation replaces the keys of a director that a thief has pushed far ahead, and
// online keys of the catalog.
func (w *world) rotation() *history {
	const far = 1_000_000
	before := w.at(5, 4)
	before.generation = far
	before.offer = w.say(false, func(o *offer) {
		o.version, o.generation, o.catalogVersion, o.floors = far, far, 5, map[string]int64{"meter-digits": 4}
	})
	thief := w.say(true, func(o *offer) { o.version, o.generation, o.catalogVersion = far+1, far+1, 6 })
	behind := w.say(false, func(o *offer) { o.version, o.generation, o.catalogVersion = far+1, far-1, 6 })
	director, stamp, snap := newKey(), newKey(), newKey()
	w.extra = []File{
		{Director, metadata.ROOT, 2, w.root(map[string]ed25519.PrivateKey{metadata.TARGETS: director, metadata.SNAPSHOT: director, metadata.TIMESTAMP: director}, 2, w.rootA, w.rootB)},
		{Catalog, metadata.ROOT, 2, w.root(map[string]ed25519.PrivateKey{metadata.TARGETS: w.targets, metadata.SNAPSHOT: snap, metadata.TIMESTAMP: stamp}, 2, w.rootA, w.rootB)},
	}
	w.o.directorKey, w.snap, w.o.stampKey = director, snap, stamp
	after := w.at(6, 4)
	after.older["the thief's keys"] = thief
	after.offer.all, after.newest.all = true, true
	before.newest = after.newest
	for _, made := range []string{"everything", "catalog", "director", "generation"} {
		delete(before.older, made) // versions and generations begin anew with the keys
	}
	before.older["generation under the old keys"] = behind
	return &history{name: "replaced keys", moments: []moment{before, after}}
}

// inspect opens what a crash has left. quiet says that no refresh was under way.
func (h *history) inspect(f *crashfs.FS, done int, quiet bool) error {
	m := &h.moments[done]
	c, err := openTrust(f)
	if err != nil {
		return err
	}
	got := c.Wish().Generation
	// While files are being replaced there may be no wish until the next refresh;
	// a wrong one is never there.
	if ok := got == m.generation || !quiet && (got == 0 || got == h.moments[done+1].generation); !ok {
		return fmt.Errorf("generation %d after acting on %d", got, m.generation)
	}
	if got != 0 && got != m.generation {
		m = &h.moments[done+1] // from now on the device acts on it
	}
	for i, name := range slices.Sorted(maps.Keys(m.older)) {
		thief := m.older[name]
		if !quiet && i != len(h.inspected)%len(m.older) {
			continue // one after the other, for speed
		}
		if w, err := c.Refresh(context.Background(), thief); err == nil {
			return fmt.Errorf("older %s was believed: generation %d after %d", name, w.Generation, m.generation)
		}
	}
	w, err := c.Refresh(context.Background(), m.newest)
	if err != nil {
		return fmt.Errorf("the next refresh: %w", err)
	}
	if below := w.Targets[0].BelowFloor; m.generation > 0 && !below {
		return errors.New("the floor is forgotten")
	}
	for _, name := range f.Names() {
		if strings.Contains(name, "/.") {
			return fmt.Errorf("%s is left over", name)
		}
	}
	if c, err = openTrust(f); err != nil || !cmp.Equal(c.Wish(), w) {
		return fmt.Errorf("the next refresh is not kept: %w", err)
	}
	return nil
}

// inspectOnce leaves out states that were found good before: most crashes leave
// what another one left.
func (h *history) inspectOnce(f *crashfs.FS, done int, quiet bool) error {
	if h.skip != nil && h.skip(quiet) {
		return nil
	}
	d := digest(f, done, quiet)
	if h.inspected[d] {
		return nil
	}
	if h.damage && quiet && done == len(h.moments)-1 {
		if err := h.inspectDamaged(f, done); err != nil {
			return err
		}
	}
	err := h.inspect(f, done, quiet)
	h.inspected[d] = err == nil
	return err
}

// inspectDamaged takes away any one file of a device at rest: older metadata is
// still refused, the floor is known, and the next refresh works.
func (h *history) inspectDamaged(f *crashfs.FS, done int) error {
	for _, name := range f.Names() {
		if !strings.HasSuffix(name, ".json") || strings.HasSuffix(name, "/1.root.json") || strings.Contains(name, "/.") {
			continue
		}
		var err error
		f.Crashes(1, nil, func(less *crashfs.FS) bool {
			if err = less.Remove("damage", name); err == nil {
				m := h.moments[done]
				again := history{moments: []moment{m, m}}
				err = again.inspect(less, 0, false)
			}
			return false
		})
		if err != nil {
			return fmt.Errorf("%s is lost besides: %w", name, err)
		}
	}
	return nil
}

var tempSuffix = regexp.MustCompile(`\.(tmp|trash)-[0-9a-f]{8}`)

func digest(f *crashfs.FS, done int, quiet bool) [32]byte {
	sum := sha256.New()
	fmt.Fprintln(sum, done, quiet)
	for _, name := range f.Names() {
		b, err := durable.ReadFile(f, name, MaxBlob)
		fmt.Fprintf(sum, "%s %x %v\n", tempSuffix.ReplaceAllString(name, ".tmp"), sha256.Sum256(b), err != nil)
	}
	return [32]byte(sum.Sum(nil))
}

func (h *history) explore(x crashfs.Explorer) (crashfs.Result, error) {
	f, err := h.fs()
	if err != nil {
		return crashfs.Result{}, err
	}
	c, err := openTrust(f)
	if err != nil {
		return crashfs.Result{}, err
	}
	if first := h.moments[0].offer; first != nil {
		if _, err := c.Refresh(context.Background(), first); err != nil {
			return crashfs.Result{}, err
		}
	}
	f.Settle()
	quiet := true
	x.Check = func(after *crashfs.FS, done int) error { return h.inspectOnce(after, done, quiet) }
	return x.Run(f, func(f durable.FS, done func()) error {
		for _, m := range h.moments[1:] {
			quiet = false
			if _, err := c.Refresh(context.Background(), m.offer); err != nil {
				return err
			}
			quiet = true
			done()
		}
		return nil
	})
}

func TestCrashesInRefresh(t *testing.T) {
	for _, h := range histories(t) {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			h.damage = true
			r, err := h.explore(crashfs.Explorer{Limit: 64})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d operations, %d crash points, %d states, %d of them different", len(h.moments)-1, len(r.Labels)+len(h.moments), r.States, len(h.inspected))
		})
	}
}

// What was seen and is not noted, as after a power cut between the two, is noted
// before newer files take the place of those that it was seen in.
func TestSeenIsMendedFirst(t *testing.T) {
	h := histories(t)[1]
	f, err := h.fs()
	if err != nil {
		t.Fatal(err)
	}
	refresh := func(from *offered) (Wish, error) {
		c, err := openTrust(f)
		if err != nil {
			t.Fatal(err)
		}
		return c.Refresh(context.Background(), from)
	}
	before, risen := h.moments[0], h.moments[1]
	if _, err := refresh(before.offer); err != nil {
		t.Fatal(err)
	}
	f.Before = func(s crashfs.Step) error {
		if s.Label == "trust.seen.open" {
			return errors.New("the power is gone")
		}
		return nil
	}
	if _, err := refresh(risen.offer); err == nil {
		t.Fatal("nothing was to be noted")
	}
	f.Before = func(s crashfs.Step) error {
		if s.Label == "trust.director.open" {
			return errors.New("the power is gone again")
		}
		return nil
	}
	if _, err := refresh(risen.newest); err == nil {
		t.Fatal("nothing was to be stored")
	}
	f.Before = nil
	if w, err := refresh(risen.newest); err != nil || !w.Targets[0].BelowFloor {
		t.Errorf("the floor is forgotten: %v", err)
	}
}
