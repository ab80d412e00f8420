package trust

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// everyFile are the files of both repositories.
var everyFile = append(slices.Clone(everyRole), "director/root", "catalog/root")

// file is one file of the forgery by name; a root is the next one.
func (f *forgery) file(name string) *file {
	if repo, ok := strings.CutSuffix(name, "/root"); ok {
		return f.Root(repo)
	}
	return f.Files[name]
}

// place is an object or a list in a JSON file: where, what, and what puts another
// value there.
type place struct {
	at    string
	value any
	put   func(any)
}

// places are all objects and lists of v, v first, in the order of their keys.
func places(v any) (out []place) {
	var walk func(at string, v any, put func(any))
	walk = func(at string, v any, put func(any)) {
		switch v := v.(type) {
		case doc:
			out = append(out, place{at, v, put})
			for _, k := range slices.Sorted(maps.Keys(v)) {
				walk(at+"/"+k, v[k], func(x any) { v[k] = x })
			}
		case []any:
			out = append(out, place{at, v, put})
			for i := range v {
				walk(at+"/"+strconv.Itoa(i), v[i], func(x any) { v[i] = x })
			}
		}
	}
	walk("", v, func(any) {})
	return out
}

// twice writes v as JSON with the first key of the object at a path twice: who
// takes the last one reads what was signed.
func twice(v any, at, path string) string {
	var parts []string
	switch v := v.(type) {
	case doc:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, fmt.Sprintf("%q:%s", k, twice(v[k], at+"/"+k, path)))
		}
		if at == path {
			parts = append(parts, parts[0])
		}
		return "{" + strings.Join(parts, ",") + "}"
	case []any:
		for i, x := range v {
			parts = append(parts, twice(x, at+"/"+strconv.Itoa(i), path))
		}
		return "[" + strings.Join(parts, ",") + "]"
	}
	b, _ := json.Marshal(v) // of what was read from JSON
	return string(b)
}

func read(t *testing.T, b []byte) doc {
	t.Helper()
	var v doc
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

var keyID = regexp.MustCompile(`[0-9a-f]{64}`)

// eachPlace attacks every file at every place that is wanted: alter makes the bytes
// that are sent, and named, of the file as it would be. Places go by number, for key
// ids are others in every world.
func eachPlace(t *testing.T, want func(place) bool, alter func(x *file, v doc, p place) []byte, code string, refused bool) {
	t.Parallel()
	cases := 0
	for _, name := range everyFile {
		b, _ := forge(newWorld(t)).file(name).Make(t)
		for n, p := range places(read(t, b)) {
			if !want(p) {
				continue
			}
			cases++
			t.Run(name+keyID.ReplaceAllString(p.at, "KEY"), func(t *testing.T) {
				attack(t, func(f *forgery) {
					x := f.file(name)
					x.Bytes = func(b []byte) []byte {
						v := read(t, b)
						return alter(x, v, places(v)[n])
					}
				}, code, refused)
			})
		}
	}
	t.Logf("%d places in %d files", cases, len(everyFile))
}

// signedAgain is a file whose signatures are of what is in it now.
func signedAgain(t *testing.T, x *file, v doc) []byte {
	t.Helper()
	b, _ := (&file{Signed: v["signed"].(doc), Keys: x.Keys}).Make(t)
	v["signatures"] = read(t, b)["signatures"]
	return encoded(t, v)
}

func encoded(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestEveryKeyTwice has a key twice in every object of every file: its signature is
// good for who reads the last one, and it is refused.
func TestEveryKeyTwice(t *testing.T) {
	object := func(p place) bool { o, ok := p.value.(doc); return ok && len(o) > 0 }
	eachPlace(t, object, func(_ *file, v doc, p place) []byte { return []byte(twice(v, "", p.at)) }, CodeMalformed, true)
}

// TestEveryNull has null for every object and list of every file. It is signed so,
// and it is refused.
func TestEveryNull(t *testing.T) {
	inside := func(p place) bool { return p.at != "" }
	eachPlace(t, inside, func(x *file, v doc, p place) []byte {
		p.put(nil)
		if strings.HasPrefix(p.at, "/signed/") {
			return signedAgain(t, x, v)
		}
		return encoded(t, v)
	}, CodeMalformed, true)
}

// keyed are objects in which a key more is not a field more but one more of its kind,
// and the release, which must be the same in both repositories.
var keyed = regexp.MustCompile(`^/signed/(keys|roles|meta|targets|delegations/keys)$|/(hashes|release)$`)

// TestUnknownFields has a field that this version does not know wherever TUF allows
// one: it hinders nothing.
func TestUnknownFields(t *testing.T) {
	allowed := func(p place) bool { _, ok := p.value.(doc); return ok && !keyed.MatchString(p.at) }
	eachPlace(t, allowed, func(x *file, v doc, p place) []byte {
		p.value.(doc)["of-tomorrow"] = doc{"list": []any{true, "x", doc{"n": 1}}}
		if strings.HasPrefix(p.at, "/signed") {
			return signedAgain(t, x, v)
		}
		return encoded(t, v)
	}, "", false)
}
