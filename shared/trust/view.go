package trust

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gowebpki/jcs"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// view is both repositories as they are verified at one moment.
type view struct {
	c                 *Config
	director, catalog *repo
	seen              seen
	noted             []byte    // what is stored of seen
	known             bool      // both repositories verified
	issued            time.Time // by the director, like generation
	generation        int64
	lockbox           bool            // what is brought comes from one
	note              json.RawMessage // see Client.Note
}

// seen is the greatest of everything that was ever verified. It is kept apart
// from the metadata, and twice: losing any one file lowers nothing.
type seen struct {
	Generation int64                       `json:"generation"`
	Floors     map[string]int64            `json:"floors"`   // by model
	Versions   map[string]map[string]int64 `json:"versions"` // by repository and role
}

// forget drops what was seen of a repository under keys that a root has replaced.
// Floors stay: people sign them.
func (s *seen) forget(repo string) {
	delete(s.Versions, repo)
	if repo == Director {
		s.Generation = 0
	}
}

// seenFiles are the copies, in the order of their writing.
var seenFiles = [2]string{"seen.json", "seen.2.json"}

// load verifies what is stored, without judging expiry.
func (c *Client) load() (*view, error) {
	v := &view{c: &c.c}
	var err error
	if v.director, err = openRepo(c.c.FS, c.c.Dir, Director); err != nil {
		return nil, err
	}
	if v.catalog, err = openRepo(c.c.FS, c.c.Dir, Catalog); err != nil {
		return nil, err
	}
	v.seen, v.noted = readSeen(c.c.FS, c.c.Dir)
	director := v.director.verify(nothing, time.Time{}) == nil
	catalog := v.catalog.verify(nothing, time.Time{}) == nil && v.channelRoles(nothing) == nil
	v.known = director && catalog
	v.learn(director, catalog)
	return v, nil
}

// learn takes what is stored for seen: a power cut may have come between the two.
func (v *view) learn(director, catalog bool) {
	if director && v.namesDevice() == nil {
		v.seeVersions(v.director)
		v.seen.Generation = max(v.seen.Generation, v.generation)
	}
	if !catalog {
		return
	}
	v.seeVersions(v.catalog)
	if floors, err := v.floors(); err == nil {
		v.seeFloors(floors)
	}
}

// readSeen takes the first copy that is whole. When both are damaged it begins
// anew: the metadata files themselves still count. noted is what both copies say,
// nil when they differ.
func readSeen(fsys durable.FS, dir string) (s seen, noted []byte) {
	s = seen{Floors: map[string]int64{}, Versions: map[string]map[string]int64{}}
	var texts [len(seenFiles)][]byte
	for i := len(seenFiles) - 1; i >= 0; i-- {
		var one seen
		b, err := durable.ReadFile(fsys, filepath.Join(dir, seenFiles[i]), 1<<20)
		if err == nil && json.Unmarshal(b, &one) == nil && one.Floors != nil && one.Versions != nil {
			s, texts[i] = one, b
		}
	}
	switch {
	case texts[0] == nil && texts[1] == nil:
		noted, _ = json.Marshal(s) // of maps and numbers: it always works
	case bytes.Equal(texts[0], texts[1]):
		noted = texts[0]
	}
	return s, noted
}

// held tells the source what need not be sent.
func (v *view) held() Held {
	versions := func(r *repo) Versions {
		return Versions{r.versions[metadata.ROOT], r.versions[metadata.TIMESTAMP], r.versions[metadata.SNAPSHOT], r.versions[metadata.TARGETS]}
	}
	h := Held{Director: versions(v.director), Catalog: versions(v.catalog), Roles: map[string]int64{v.c.Channel: v.catalog.versions[v.c.Channel]}}
	for role, version := range v.catalog.versions {
		if speaks(v.c.Channel, role) {
			h.Roles[role] = version
		}
	}
	return h
}

// take verifies what the source brought, the director first.
func (v *view) take(files []File) error {
	// What load has verified for its own sake cannot be verified further.
	var err error
	if v.director, err = openRepo(v.c.FS, v.c.Dir, Director); err != nil {
		return err
	}
	if v.catalog, err = openRepo(v.c.FS, v.c.Dir, Catalog); err != nil {
		return err
	}
	v.catalog.lockbox = v.lockbox
	director, err := v.roots(v.director, files)
	if err != nil {
		return err
	}
	now := v.now()
	if err := v.director.verify(brought(director), now); err != nil {
		return fmt.Errorf("director: %w", err)
	}
	if err := v.namesDevice(); err != nil {
		return fmt.Errorf("director: %w", err)
	}
	catalog, err := v.roots(v.catalog, files)
	if err != nil {
		return err
	}
	if err := v.catalog.verify(brought(catalog), now); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	if err := v.channelRoles(brought(catalog)); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	for _, r := range []*repo{v.director, v.catalog} {
		if err := v.notOlder(r); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	v.known = true
	return nil
}

// brought hands out files by role: they all came at once.
func brought(files map[string][]byte) bringer {
	return func(role string, _, _ int64) ([]byte, error) { return files[role], nil }
}

// now is the time that expiry is judged at.
func (v *view) now() time.Time {
	if v.c.NowUnder != nil {
		return v.c.NowUnder(v.timeKey())
	}
	return v.c.Now()
}

// timeKey names the keys that sign the director's time.
func (v *view) timeKey() string {
	if v.director.tm == nil || v.director.tm.Root == nil {
		return ""
	}
	role := v.director.tm.Root.Signed.Roles[metadata.TIMESTAMP]
	return strings.Join(slices.Sorted(slices.Values(role.KeyIDs)), "+")
}

func (v *view) evidence() Evidence {
	return Evidence{Issued: v.issued, Horizon: v.catalog.tm.Root.Signed.Expires, Key: v.timeKey()}
}

// roots applies the roots of a repository in order and returns its other files by
// role.
func (v *view) roots(r *repo, files []File) (map[string][]byte, error) {
	var roots []File
	out := map[string][]byte{}
	for _, f := range files {
		switch {
		case f.Repo != r.name:
		case f.Role == metadata.ROOT:
			roots = append(roots, f)
		default:
			out[f.Role] = f.Bytes
		}
	}
	if len(roots) > maxRotations {
		return nil, refuse(CodeTooLarge, "%s: %d roots at once", r.name, len(roots))
	}
	slices.SortFunc(roots, func(a, b File) int { return cmp.Compare(a.Version, b.Version) })
	for _, f := range roots {
		if f.Version <= r.versions[metadata.ROOT] {
			continue
		}
		if err := r.root(f.Bytes); err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return out, nil
}

// notOlder compares with the greatest versions ever seen. Versions and generations
// that were seen under keys that a root has replaced do not count: so a fleet
// recovers from a thief who signed far ahead.
func (v *view) notOlder(r *repo) error {
	if r.rotated {
		v.seen.forget(r.name)
	}
	for role, version := range v.seen.Versions[r.name] {
		if have, ok := r.versions[role]; ok && have < version {
			return refuse(CodeRollback, "%s has version %d, version %d was seen", role, have, version)
		}
	}
	return nil
}

// directorCustom is the custom object of the director's three roles.
type directorCustom struct {
	Device     string `json:"device"`
	Generation int64  `json:"generation"`
	Issued     int64  `json:"issued"` // seconds
	// Lockbox is in metadata that travels in one.
	Lockbox json.RawMessage `json:"lockbox,omitempty"`
}

func customOf(fields map[string]any, into any) error {
	b, err := json.Marshal(fields["custom"])
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

// namesDevice wants timestamp, snapshot and targets to name this device and the
// same generation.
func (v *view) namesDevice() error {
	tm := v.director.tm
	var all [3]directorCustom
	for i, f := range []map[string]any{tm.Timestamp.Signed.UnrecognizedFields, tm.Snapshot.Signed.UnrecognizedFields, v.director.roles[metadata.TARGETS].Signed.UnrecognizedFields} {
		if err := customOf(f, &all[i]); err != nil {
			return refuse(CodeMalformed, "custom: %w", err)
		}
		if all[i].Device != v.c.Device {
			return refuse(CodeWrongDevice, "the files are for device %q", all[i].Device)
		}
		if all[i].Generation != all[0].Generation {
			return refuse(CodeMixAndMatch, "generations %d and %d", all[0].Generation, all[i].Generation)
		}
	}
	if all[0].Generation < v.seen.Generation && !v.director.rotated {
		return refuse(CodeRollback, "generation %d, generation %d was seen", all[0].Generation, v.seen.Generation)
	}
	if v.director.roles[metadata.TARGETS].Signed.Delegations != nil {
		return refuse(CodeMalformed, "the director delegates, which it may not")
	}
	v.issued, v.generation, v.note = time.Unix(all[0].Issued, 0).UTC(), all[0].Generation, all[0].Lockbox
	return nil
}

// release is what is read here of a target's custom.release.
type release struct {
	Release json.RawMessage `json:"release"`
}

// released is what is read of a release, once both repositories say the same.
type released struct {
	Kind    string `json:"kind"`
	Counter int64  `json:"counter"`
}

// agree returns the wish when director and catalog say the same about each
// target: length, hash and release.
func (v *view) agree() (Wish, error) {
	if !v.known {
		return Wish{}, errors.New("nothing is verified yet")
	}
	if err := v.namesDevice(); err != nil {
		return Wish{}, err
	}
	floors, err := v.floors()
	if err != nil {
		return Wish{}, err
	}
	v.seeFloors(floors)
	targets := v.director.roles[metadata.TARGETS].Signed
	w, models := Wish{Generation: v.generation}, map[string]bool{}
	for _, path := range slices.Sorted(maps.Keys(targets.Targets)) {
		t, r, err := v.target(path, targets.Targets[path])
		if err != nil {
			return Wish{}, err
		}
		// Models may pair with different runtimes, but a model has one version.
		if name := model(path); r.Kind == "model" && models[name] {
			return Wish{}, refuse(CodeMalformed, "two releases of %s in one wish", name)
		} else if r.Kind == "model" {
			models[name] = true
		}
		w.Targets = append(w.Targets, t)
	}
	v.seen.Generation = max(v.seen.Generation, v.generation)
	return w, nil
}

func (v *view) seeFloors(floors map[string]int64) {
	for model, floor := range floors {
		v.seen.Floors[model] = max(v.seen.Floors[model], floor)
	}
}

func (v *view) seeVersions(r *repo) {
	m := v.seen.Versions[r.name]
	if m == nil {
		m = map[string]int64{}
		v.seen.Versions[r.name] = m
	}
	for role, version := range r.versions {
		m[role] = max(m[role], version)
	}
}

// target compares what director and catalog say of a path.
func (v *view) target(path string, d *metadata.TargetFiles) (t Target, r released, err error) {
	if channel, _, _ := strings.Cut(path, "/"); channel != v.c.Channel || strings.Count(path, "/") != 2 {
		return t, r, refuse(CodeWrongChannel, "target %s is not of channel %s", path, v.c.Channel)
	}
	role := v.owner(path)
	if role == "" || v.catalog.roles[role].Signed.Targets[path] == nil {
		return t, r, refuse(CodeDisagree, "target %s is not in the catalog", path)
	}
	c := v.catalog.roles[role].Signed.Targets[path]
	hash, ok := d.Hashes["sha256"]
	if !ok || len(hash) != 32 || len(d.Hashes) != 1 || len(c.Hashes) != 1 || d.Custom == nil || c.Custom == nil {
		return t, r, refuse(CodeMalformed, "target %s: one SHA-256 and a custom object wanted", path)
	}
	if d.Length != c.Length || !bytes.Equal(hash, c.Hashes["sha256"]) {
		return t, r, refuse(CodeDisagree, "target %s: length or hash differ between director and catalog", path)
	}
	r, err = sameRelease(*d.Custom, *c.Custom)
	if err != nil {
		return t, r, fmt.Errorf("target %s: %w", path, err)
	}
	below := r.Counter < v.seen.Floors[model(path)]
	return Target{Path: path, Digest: "sha256:" + hash.String(), Length: d.Length, Custom: *d.Custom, BelowFloor: below}, r, nil
}

// model is the name in channel/model/version.
func model(path string) string { return strings.Split(path, "/")[1] }

// sameRelease compares custom.release of both as canonical JSON (RFC 8785) and
// returns what is read of it.
func sameRelease(d, c json.RawMessage) (r released, err error) {
	var a, b release
	if json.Unmarshal(d, &a) != nil || json.Unmarshal(c, &b) != nil || a.Release == nil || b.Release == nil {
		return r, refuse(CodeMalformed, "custom without a release")
	}
	x, err := jcs.Transform(a.Release)
	if err != nil {
		return r, refuse(CodeMalformed, "release: %w", err)
	}
	y, err := jcs.Transform(b.Release)
	if err != nil {
		return r, refuse(CodeMalformed, "release: %w", err)
	}
	if !bytes.Equal(x, y) {
		return r, refuse(CodeDisagree, "the release differs between director and catalog")
	}
	if err := json.Unmarshal(x, &r); err != nil {
		return r, refuse(CodeMalformed, "release: %w", err)
	}
	return r, nil
}

// store writes what was verified: the catalog, then the director, whose wish then
// has everything that it needs, then what was seen.
func (v *view) store() error {
	v.seeVersions(v.director)
	v.seeVersions(v.catalog)
	if len(v.director.fresh) == 0 && len(v.catalog.fresh) == 0 {
		return nil
	}
	if v.director.rotated || v.catalog.rotated {
		// What was seen under old keys must be forgotten before the root that
		// replaced them is there, or it would be held against the new ones.
		forgetful := v.seen
		forgetful.Versions = maps.Clone(v.seen.Versions)
		for _, r := range []*repo{v.director, v.catalog} {
			if r.rotated {
				forgetful.forget(r.name)
			}
		}
		if err := v.storeSeen(forgetful); err != nil {
			return err
		}
	}
	if err := v.catalog.store(); err != nil {
		return err
	}
	if err := v.director.store(); err != nil {
		return err
	}
	return v.storeSeen(v.seen)
}

// storeSeen writes both copies, unless they say so already.
func (v *view) storeSeen(s seen) error {
	b, err := json.Marshal(s)
	if err != nil || bytes.Equal(b, v.noted) {
		return err
	}
	for _, name := range seenFiles {
		if err := durable.WriteFile(v.c.FS, "trust.seen", filepath.Join(v.c.Dir, name), b, 0o600); err != nil {
			return fmt.Errorf("store what was seen: %w", err)
		}
	}
	v.noted = b
	return nil
}
