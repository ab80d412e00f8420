package attacks

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/shared/trust/trusttest"
)

// TestEveryPath has a thief with all online keys try mixtures of everything that was
// ever signed, by publishers and by the director, with everything that these keys can
// sign. Whatever the device believes, each of its targets is one that the publishers
// signed for its channel, bit for bit; what is below the newest floor that the device
// was ever shown is marked; and no version of the channel's role falls.
func TestEveryPath(t *testing.T) {
	w := newWorld(t)
	sets := [][]trusttest.Genuine{w.early, w.later, w.last}
	signed := map[string]string{} // by path: digests that publishers signed for production
	for _, set := range sets {
		for path, x := range w.forge(t, set).Files["catalog/production"].Signed["targets"].(doc) {
			signed[path] = "sha256:" + x.(doc)["hashes"].(doc)["sha256"].(string)
		}
	}
	var targets []doc
	for _, set := range [][]trusttest.Genuine{w.early, w.later, w.dev} {
		for name, f := range w.forge(t, set).Files {
			if x, ok := f.Signed["targets"].(doc); ok && name != "catalog/targets" {
				for _, path := range slices.Sorted(maps.Keys(x)) {
					targets = append(targets, x[path].(doc))
				}
			}
		}
	}
	paths := []string{first, second, untried, library, "production/digits/2.0.0", "production/digits/6.6.6", "production/../dev/digits/2.0.0"}
	believed, marked := 0, 0
	rapid.Check(t, func(r *rapid.T) {
		d := w.device(t)
		d.believes(honest(w.early))
		floor, version := 0.0, int64(0)
		for step := range rapid.IntRange(1, 4).Draw(r, "steps") {
			f := w.mixture(t, r, sets, targets, paths, step)
			got, err := d.Refresh(t.Context(), sends(f.Send()))
			if err != nil {
				continue
			}
			believed++
			role := d.Held().Roles[channel]
			if role < version {
				r.Fatalf("the role's version fell from %d to %d", version, role)
			}
			version = role
			if version >= 3 { // the floor came with the third
				floor = 2
			}
			for _, x := range got.Targets {
				if signed[x.Path] != x.Digest {
					r.Fatalf("%s %s was never signed", x.Path, x.Digest)
				}
				if x.Path == first && float64(1) < floor {
					if marked++; !x.BelowFloor {
						r.Fatalf("%s is below the floor and not marked", x.Path)
					}
				}
			}
		}
	})
	if believed == 0 || marked == 0 {
		t.Errorf("%d mixtures were believed, %d below the floor: the search is too narrow to say anything", believed, marked)
	}
	t.Logf("%d mixtures were believed, %d of them below the floor", believed, marked)
}

// mixture is what the thief sends in a step.
func (w *world) mixture(t *testing.T, r *rapid.T, sets [][]trusttest.Genuine, targets []doc, paths []string, step int) *forgery {
	set := func(what string) []trusttest.Genuine { return rapid.SampledFrom(sets).Draw(r, what) }
	f := w.forge(t, set("base"))
	for _, role := range []string{"timestamp", "snapshot", "targets"} {
		f.Files["director/"+role].Signed["version"] = int64(100 + step)
		f.custom("director/" + role)["generation"] = int64(100 + step)
	}
	wish := doc{}
	for range rapid.IntRange(0, 3).Draw(r, "targets") {
		wish[rapid.SampledFrom(paths).Draw(r, "path")] = rapid.SampledFrom(targets).Draw(r, "target")
	}
	if rapid.Bool().Draw(r, "own wish") {
		f.Files["director/targets"].Signed["targets"] = wish
	}
	// The role is one that publishers signed once, of this channel or of dev, or one
	// that the thief signs; the thief's snapshot and timestamp name it.
	role := f.Files["catalog/production"]
	switch from := rapid.IntRange(0, 5).Draw(r, "role"); from {
	case 0, 1, 2:
		b := bytesOf(sets[from], "catalog/production")
		role.Bytes, role.Signed["version"] = func([]byte) []byte { return b }, trusttest.SignedOf(t, b)["version"]
	case 3:
		b := bytesOf(w.dev, "catalog/dev")
		role.Bytes, role.Signed["version"] = func([]byte) []byte { return b }, trusttest.SignedOf(t, b)["version"]
	case 4:
		role.Signed["targets"] = wish
		role.Signed["version"] = int64(200 + step)
		role.Keys = append(role.Keys[:0:0], w.pub.Online.Snapshot, w.pub.Online.Director)
	}
	for _, x := range []string{"catalog/snapshot", "catalog/timestamp"} {
		f.Files[x].Signed["version"] = int64(rapid.IntRange(1, 300).Draw(r, x))
	}
	if rapid.IntRange(0, 9).Draw(r, "root") == 0 {
		f.Root(trust.Catalog).Keys = append(role.Keys[:0:0], w.pub.Online.Snapshot, w.pub.Online.Director)
	}
	return f
}
