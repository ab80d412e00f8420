package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// These are the scenarios of the public suite, by area and in its order, without
// its code: CI needs neither the suite nor a network.

func TestFirstRefresh(t *testing.T) {
	r := newRig(t)
	r.asks()
	r.accepts()
	r.asks("2.root", "timestamp", "1.snapshot", "1.targets")
	for _, role := range topLevel {
		if got, err := os.ReadFile(filepath.Join(r.dir, role+".json")); err != nil || !bytes.Equal(got, r.newest(role)) {
			t.Errorf("%s is not what the repository sent: %v", role, err)
		}
	}
	r.accepts()
	r.asks("2.root", "timestamp")
}

func TestDownloadRefreshesFirst(t *testing.T) {
	r := newRig(t)
	if r.download("there is none") == nil {
		t.Fatal("a target that does not exist was downloaded")
	}
	r.asks("2.root", "timestamp", "1.snapshot", "1.targets")
	r.trusts(versions(1, 1, 1, 1))
}

func TestInitialRoot(t *testing.T) {
	for name, spoil := range map[string]func(root object){
		"without a version":   func(o object) { delete(o["signed"].(object), "version") },
		"with a wrong sig":    func(o object) { o["signatures"].([]any)[0].(object)["sig"] = "00ff" },
		"without a signature": func(o object) { o["signatures"] = []any{} },
		"altered":             func(o object) { o["signed"].(object)["expires"] = "2099-01-01T00:00:00Z" },
		"of threshold zero":   func(o object) { o["signed"].(object)["roles"].(object)["root"].(object)["threshold"] = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			r := bareRig(t)
			var o object
			must(t, json.Unmarshal(r.files["root"][0], &o))
			spoil(o)
			b, err := json.Marshal(o)
			must(t, err)
			r.init(b) // may or may not look at it
			r.refuses()
			r.asks()
		})
	}
	r := bareRig(t)
	r.refuses() // init was forgotten
	r.asks()
}

// TestBrokenRole lets one role be wrong: what comes before it in the order of the
// specification is kept, the role and what comes after it is not.
func TestBrokenRole(t *testing.T) {
	kept := map[string]map[string]int{"root": versions(1, 0, 0, 0), "timestamp": versions(2, 0, 0, 0), "snapshot": versions(2, 2, 0, 0), "targets": versions(2, 2, 2, 0)}
	for name, c := range map[string]struct {
		roles []string
		spoil func(*rig, string)
	}{
		"unsigned":                  {topLevel, func(r *rig, role string) { r.signers[role] = nil }},
		"of another version":        {[]string{"root", "snapshot", "targets"}, func(r *rig, role string) { r.docs[role]["version"] = 2 }},
		"of another type":           {topLevel, func(r *rig, role string) { r.docs[role]["_type"] = "mirrors" }},
		"of another major version":  {topLevel, func(r *rig, role string) { r.docs[role]["spec_version"] = "2.0.0" }},
		"without a date":            {topLevel, func(r *rig, role string) { delete(r.docs[role], "expires") }},
		"without a version":         {topLevel, func(r *rig, role string) { delete(r.docs[role], "spec_version") }},
		"signed by a key of nobody": {topLevel, func(r *rig, role string) { r.signers[role] = []*key{newKey(r.t, "ed25519")} }},
	} {
		for _, role := range c.roles {
			t.Run(role+" "+name, func(t *testing.T) {
				r := newRig(t)
				c.spoil(r, role)
				want := kept[role]
				if name == "of another version" { // the file is the second, what is in it says the third
					r.publishNamed(role, 2)
				} else {
					r.publish("root", "targets", "snapshot", "timestamp")
				}
				r.refuses()
				r.trusts(want)
			})
		}
	}
}

// publishNamed publishes all, and one role under another version than is in it.
func (r *rig) publishNamed(role string, named int) {
	for _, x := range []string{"root", "targets", "snapshot", "timestamp"} {
		if x == role {
			r.docs[x]["version"] = named
		}
		r.publish(x)
	}
}

func TestTimestampAlteredUnderItsVersion(t *testing.T) {
	r := newRig(t)
	r.accepts()
	r.rewind("timestamp")
	r.meta("timestamp", "snapshot")["version"] = 100
	r.publish("timestamp")
	r.asked = nil
	r.accepts()
	r.asks("2.root", "timestamp")
	b, err := os.ReadFile(filepath.Join(r.dir, "timestamp.json"))
	must(t, err)
	if bytes.Contains(b, []byte(`"version":100`)) {
		t.Error("another timestamp of the same version took its place")
	}
}

func TestHashes(t *testing.T) {
	for role, want := range map[string]map[string]int{"": versions(1, 3, 3, 3), "targets": versions(1, 3, 3, 2), "snapshot": versions(1, 3, 2, 2)} {
		t.Run("wrong "+role, func(t *testing.T) {
			r := newRig(t)
			r.hashes = true
			r.publish("targets", "snapshot", "timestamp")
			r.accepts()
			for _, x := range []string{"targets", "snapshot", "timestamp"} {
				r.publish(x)
				if x == role {
					by := map[string]string{"targets": "snapshot", "snapshot": "timestamp"}[x]
					r.meta(by, x)["hashes"] = object{"sha256": fmt.Sprintf("%064d", 0)}
				}
			}
			if role == "" {
				r.accepts()
			} else {
				r.refuses()
			}
			r.trusts(want)
		})
	}
}

func TestLengthsAreLimits(t *testing.T) {
	for role, want := range map[string]map[string]int{"targets": versions(1, 2, 2, 0), "snapshot": versions(1, 2, 0, 0), "timestamp": versions(1, 0, 0, 0)} {
		t.Run(role, func(t *testing.T) {
			r := newRig(t)
			r.hashes = true
			r.publish("targets", "snapshot", "timestamp")
			more := 1
			if role == "timestamp" {
				more = 20_000
			}
			r.replace(role, func(b []byte) []byte { return append(b, bytes.Repeat([]byte(" "), more)...) })
			r.refuses()
			r.trusts(want)
		})
	}
}

func TestBytesAreKept(t *testing.T) {
	r := newRig(t)
	r.replace("timestamp", func(b []byte) []byte { return append(b, ' ') })
	r.accepts()
	if b, err := os.ReadFile(filepath.Join(r.dir, "timestamp.json")); err != nil || !bytes.Equal(b, r.newest("timestamp")) {
		t.Error("the timestamp was written anew", err)
	}
}

func TestUnknownFields(t *testing.T) {
	r := newRig(t)
	r.accepts()
	k := newKey(t, "ecdsa")
	k.public["extra"] = object{"a": 1}
	k.identify()
	r.docs["root"]["x-custom"] = "value"
	r.grant("root", 1, r.signers["root"][0], k)
	r.docs["root"]["roles"].(object)["root"].(object)["another"] = "value"
	r.docs["targets"]["x-custom"], r.docs["snapshot"]["x-custom"], r.docs["timestamp"]["x-custom"] = []any{1}, object{"b": 2}, "c"
	snap := newKey(t, "ed25519")
	snap.public["keyid_hash_algorithms"] = "md5"
	snap.identify()
	r.grant("snapshot", 1, snap)
	r.publish("root", "targets", "snapshot", "timestamp")
	r.accepts()
	r.trusts(versions(2, 2, 2, 2))
}

func TestMissingFiles(t *testing.T) {
	for _, c := range []struct {
		missing string
		want    map[string]int
		last    string
	}{
		{"snapshot", versions(1, 2, 1, 1), "2.snapshot"},
		{"targets", versions(1, 2, 2, 1), "2.targets"},
		{"timestamp", versions(1, 1, 1, 1), "timestamp"},
	} {
		t.Run(c.missing, func(t *testing.T) {
			r := newRig(t)
			r.accepts()
			r.publish("targets", "snapshot", "timestamp")
			r.files[c.missing] = r.files[c.missing][:1]
			if c.missing == "timestamp" {
				r.files["timestamp"] = nil
			}
			r.refuses()
			r.trusts(c.want)
			if last := r.asked[len(r.asked)-1]; last != c.last {
				t.Errorf("the last request was %s", last)
			}
		})
	}
}

// TestSnapshotAsTimestamp signs a snapshot with the timestamp's key and serves it in
// its place: only the type is wrong.
func TestSnapshotAsTimestamp(t *testing.T) {
	r := newRig(t)
	both := []*key{r.signers["snapshot"][0], r.signers["timestamp"][0]}
	r.grant("snapshot", 1, both...)
	r.docs["snapshot"]["meta"] = object{"snapshot.json": object{"version": 1}}
	r.publish("root", "snapshot")
	r.files["timestamp"] = [][]byte{r.newest("snapshot")}
	r.refuses()
	r.trusts(versions(2, 0, 0, 0))
}

func TestWithoutConsistentSnapshot(t *testing.T) {
	r := newRig(t)
	r.docs["root"]["consistent_snapshot"] = false
	r.add("targets", "a/file", "content")
	r.publish("root", "targets", "snapshot", "timestamp")
	must(t, r.download("a/file"))
	r.asks("2.root", "3.root", "timestamp", "snapshot", "targets")
	r.has("content")
	if !slices.Equal(r.fetched, []string{"a/file"}) {
		t.Errorf("fetched %v", r.fetched)
	}
}

// TestExpiry turns the clock to the instant of the date, which is too late, and to
// the second before it.
func TestExpiry(t *testing.T) {
	for role, want := range map[string]map[string]int{"root": versions(2, 1, 1, 1), "timestamp": versions(1, 1, 1, 1), "snapshot": versions(1, 2, 1, 1), "targets": versions(1, 2, 2, 1)} {
		for _, c := range []struct {
			left time.Duration
			good bool
		}{{-day, false}, {0, false}, {time.Second, true}} {
			t.Run(fmt.Sprint(role, " in ", c.left), func(t *testing.T) {
				r := newRig(t)
				r.accepts()
				r.expire(role, c.left)
				if role == "root" {
					r.publish("root")
				}
				r.publish("targets", "snapshot", "timestamp")
				if c.good {
					r.accepts()
					return
				}
				r.refuses()
				r.trusts(want)
			})
		}
	}
}

// TestExpiredIsReplaced lets what is held expire: newer files are taken, and what
// is held still counts against older ones.
func TestExpiredIsReplaced(t *testing.T) {
	for _, role := range []string{"root", "timestamp", "snapshot", "targets"} {
		t.Run(role, func(t *testing.T) {
			r := newRig(t)
			r.expire(role, 7*day)
			r.publish("root", "targets", "snapshot", "timestamp")
			r.accepts()
			r.expire(role, 21*day)
			r.publish("root", "targets", "snapshot", "timestamp")
			r.now = start.Add(18 * day)
			r.accepts()
			r.trusts(versions(3, 3, 3, 3))
		})
	}
	r := newRig(t)
	r.expire("timestamp", 7*day)
	r.publish("timestamp")
	r.accepts()
	r.expire("timestamp", 21*day)
	r.docs["timestamp"]["version"] = 0
	r.publish("timestamp")
	r.now = start.Add(18 * day)
	r.refuses()
}

func TestTheClockCounts(t *testing.T) {
	r := newRig(t)
	r.expire("root", 7*day)
	r.publish("root")
	r.accepts()
	r.now = start.Add(8 * day)
	r.refuses()
}
