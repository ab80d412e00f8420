package main

import (
	"fmt"
	"slices"
	"testing"
)

func TestDownload(t *testing.T) {
	for _, name := range []string{"file.txt", "path/to/a/file.txt"} {
		r := newRig(t)
		r.add("targets", name, "content")
		r.publish("targets", "snapshot", "timestamp")
		r.accepts()
		r.has()
		must(t, r.download(name))
		r.has("content")
		must(t, r.download(name))
		if len(r.fetched) != 1 {
			t.Errorf("%s: fetched %v", name, r.fetched)
		}
	}
}

func TestSubstitutedTarget(t *testing.T) {
	r := newRig(t)
	r.add("targets", "one", "content 1")
	r.add("targets", "two", "content 2")
	r.publish("targets", "snapshot", "timestamp")
	must(t, r.download("one"))
	for _, evil := range []string{"evil, 1!!", "short", "much longer than it should be"} {
		r.targets["one"], r.targets["two"] = []byte(evil), []byte(evil)
		r.download("one") // from its own store: it may succeed
		if r.download("two") == nil {
			t.Errorf("%q was taken", evil)
		}
		r.has("content 1")
	}
}

func TestTargetChangesOften(t *testing.T) {
	r := newRig(t)
	want := []string{"first"}
	r.add("targets", "file", "first")
	r.publish("targets", "snapshot", "timestamp")
	must(t, r.download("file"))
	for i := range 11 {
		changed, added := fmt.Sprint("changed ", i), fmt.Sprint("added ", i)
		r.add("targets", "file", changed)
		r.add("targets", added, added)
		r.publish("targets", "snapshot", "timestamp")
		if i%5 != 0 {
			continue
		}
		want[0] = changed
		want = append(want, added)
		must(t, r.download("file", added))
		r.has(slices.Clone(want)...)
		r.targets["file"] = []byte("evil")
		r.publish("targets", "snapshot", "timestamp")
		r.download("file")
		r.has(slices.Clone(want)...)
	}
}

func TestHashAlgorithms(t *testing.T) {
	const content = "content"
	for name, c := range map[string]struct {
		algorithms []string
		good       bool
	}{
		"SHA-256": {[]string{"sha256"}, true}, "SHA-512": {[]string{"sha512"}, true}, "both": {[]string{"sha256", "sha512"}, true},
		"unknown": {[]string{"unknown-hash"}, false}, "none": {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			target := r.add("targets", "file", content)
			all := object{"sha256": target["hashes"].(object)["sha256"], "sha512": sha512Of(content), "unknown-hash": sha512Of(content)}
			hashes := object{}
			for _, a := range c.algorithms {
				hashes[a] = all[a]
			}
			target["hashes"] = hashes
			r.publish("targets", "snapshot", "timestamp")
			err := r.download("file")
			if (err == nil) != c.good {
				t.Fatal(err)
			}
			if c.good {
				r.has(content)
			} else {
				r.has()
			}
		})
	}
	// One hash is right and the other is not.
	r := newRig(t)
	r.add("targets", "file", content)["hashes"].(object)["sha512"] = sha512Of("another")
	r.publish("targets", "snapshot", "timestamp")
	if r.download("file") == nil {
		t.Error("one of two hashes was enough")
	}
}

// TestTargetNames wants names to stay inside the folder of downloads.
func TestTargetNames(t *testing.T) {
	for _, name := range []string{"../../escape", "/etc/escape", "..", ".", "a b", "%2e%2e/x", "ᚩ/ᚱ"} {
		r := newRig(t)
		r.docs["root"]["consistent_snapshot"] = false
		r.add("targets", name, "content")
		r.publish("root", "targets", "snapshot", "timestamp")
		if r.download(name) == nil { // not every name is one of the web
			r.has("content")
		} else {
			r.has()
		}
	}
}
