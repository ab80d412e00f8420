package attacks

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/shared/trust/trusttest"
)

// late alters a file behind everybody's back, bytes alters it before it is named.
func late(file string, f func([]byte) []byte) func(*forgery) {
	return func(x *forgery) { x.Files[file].Late = f }
}

func inText(old, new string) func([]byte) []byte {
	return func(b []byte) []byte { return bytes.Replace(b, []byte(old), []byte(new), 1) }
}

func longer(n int) func([]byte) []byte {
	return func(b []byte) []byte { return append(b, bytes.Repeat([]byte(" "), n)...) }
}

func instead(text string) func([]byte) []byte { return func([]byte) []byte { return []byte(text) } }

func gone(file string) func(*forgery) { return func(x *forgery) { x.Files[file].Gone = true } }

// networkRows need no key: whoever is between server and device, or writes into the
// server's database.
func networkRows() []group {
	return []group{{"Network, or the server's storage", "no key; sees, holds back, repeats, mixes and alters everything on its way", []attack{
		{name: "alters a timestamp", code: trust.CodeSignature, forge: late("director/timestamp", inText(`"version":2`, `"version":3`))},
		{name: "takes the signature away", code: trust.CodeSignature, forge: func(f *forgery) { f.Files["director/timestamp"].Keys = nil }},
		{name: "alters which release a device gets", code: trust.CodeMixAndMatch, forge: late("director/targets", inText("1.1.0", "1.0.0"))},
		{name: "sends a snapshot of yesterday with today's timestamp", code: trust.CodeMixAndMatch, forge: func(f *forgery) { f.swap("catalog/snapshot", f.w.early) }},
		{name: "sends a channel's role of yesterday with today's snapshot", code: trust.CodeMixAndMatch, forge: func(f *forgery) { f.swap("catalog/production", f.w.early) }},
		{name: "holds the snapshot back", code: trust.CodeMixAndMatch, forge: gone("director/snapshot")},
		{name: "holds the channel's role back", code: trust.CodeMixAndMatch, forge: gone("catalog/production")},
		{name: "sends the files of another device, at a higher version", code: trust.CodeWrongDevice, forge: func(f *forgery) {
			for _, role := range []string{"timestamp", "snapshot", "targets"} {
				f.swap("director/"+role, f.w.other)
			}
		}},
		{name: "repeats files of the same device that are older", code: trust.CodeRollback, run: func(t *testing.T, w *world) {
			d := w.device(t)
			d.believes(honest(w.later))
			d.refuses(honest(w.early), trust.CodeRollback)
		}},
		{name: "repeats the catalog of before the floor", code: trust.CodeRollback, run: func(t *testing.T, w *world) {
			d := w.device(t)
			d.believes(honest(w.later))
			f := w.forge(t, w.last)
			for _, role := range []string{"timestamp", "snapshot", "targets", channel} {
				f.swap("catalog/"+role, w.early)
			}
			d.refuses(sends(f.Send()), trust.CodeRollback)
		}},
		{name: "freezes the timestamp until it has expired", code: trust.CodeFreeze, holds: "what is installed serves on", run: func(t *testing.T, w *world) {
			d := w.device(t)
			want := d.believes(honest(w.early))
			d.now = start.Add(30 * 24 * time.Hour)
			d.refuses(honest(w.early), trust.CodeFreeze)
			if len(d.Wish().Targets) != len(want.Targets) {
				t.Error("the wish is forgotten")
			}
		}},
		{name: "never answers", holds: "the device gives up after its deadline and serves on", run: func(t *testing.T, w *world) {
			d := w.device(t)
			d.believes(honest(w.early))
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if _, err := d.Refresh(ctx, silent{}); !errors.Is(err, context.DeadlineExceeded) || len(d.Wish().Targets) == 0 {
				t.Errorf("%v, %+v", err, d.Wish())
			}
			d.believes(honest(w.last))
		}},
		{name: "sends an endless timestamp", code: trust.CodeTooLarge, forge: late("director/timestamp", longer(20_000))},
		{name: "sends an endless role", code: trust.CodeTooLarge, forge: late("catalog/production", longer(5_000_000))},
		{name: "sends a thousand roots", code: trust.CodeTooLarge, forge: func(f *forgery) {
			for range 1000 {
				f.Root(trust.Catalog).Keys = nil
			}
		}},
		{name: "cuts a file", code: trust.CodeMalformed, forge: late("director/timestamp", func(b []byte) []byte { return b[:len(b)/2] })},
		{name: "sends null maps, which crash parsers", code: trust.CodeMalformed, forge: late("director/targets", instead(`{"signed":{"_type":"targets","targets":{"a":null}},"signatures":[]}`))},
		{name: "sends a key of JSON twice", code: trust.CodeMalformed, forge: late("director/timestamp", inText(`{`, `{"signatures":[],`))},
		{name: "sends a key of JSON in capitals", code: trust.CodeMalformed, forge: late("director/timestamp", inText(`"version"`, `"VERSION"`))},
		{name: "sends JSON nested ten thousand deep", code: trust.CodeMalformed, forge: late("director/timestamp", instead(string(bytes.Repeat([]byte("["), 10_000))))},
		{name: "holds one root of a chain back", code: trust.CodeRootGap, forge: func(f *forgery) { f.Root(trust.Catalog).Signed["version"] = 3 }},
		{name: "alters a byte of a model", code: trust.CodeBlob, run: func(t *testing.T, w *world) { w.blob(t, len(model), trust.CodeBlob, flipped) }},
		{name: "sends less of a model than there is", code: trust.CodeBlob, run: func(t *testing.T, w *world) { w.blob(t, len(model), trust.CodeBlob, []byte(model[:3])) }},
		{name: "sends more of a model than there is", code: trust.CodeTooLarge, run: func(t *testing.T, w *world) { w.blob(t, len(model), trust.CodeTooLarge, append([]byte(model), 0)) }},
		{name: "makes a device lose its stored metadata and repeats older files", code: trust.CodeRollback, run: func(t *testing.T, w *world) {
			d := w.device(t)
			d.believes(honest(w.later))
			for path := range d.disk() {
				if filepath.Base(path) != "1.root.json" && filepath.Dir(path) != filepath.Join(d.dir, "trust") {
					must(t, os.Remove(path))
				}
			}
			d.open()
			d.refuses(honest(w.early), trust.CodeRollback)
			f := w.forge(t, w.last) // the generation alone would not stop these
			for _, role := range []string{"timestamp", "snapshot", "targets", channel} {
				f.swap("catalog/"+role, w.early)
			}
			d.refuses(sends(f.Send()), trust.CodeRollback)
			d.believes(honest(w.last))
		}},
		{name: "damages, empties or removes any stored file of a device", holds: "the device fetches it again; no floor and no version falls", test: "shared/trust TestDamageNeverLowersAnything"},
		{name: "cuts the power at any instant of a refresh", holds: "the old wish or the new one, whole", test: "shared/trust TestEveryMissingSyncIsFound"},
	}}}
}

const model = "the bytes of a model"

var flipped = []byte("The bytes of a model")

// blob has a source bring these bytes for a model.
func (w *world) blob(t *testing.T, length int, code string, sent []byte) {
	d := w.device(t)
	sum := sha256.Sum256([]byte(model))
	_, err := d.Download(t.Context(), brings(sent), "sha256:"+hex.EncodeToString(sum[:]), int64(length))
	var r *trust.Refusal
	if !errors.As(err, &r) || r.Code != code {
		t.Errorf("%v, want %s", err, code)
	}
	if _, ok := d.Have("sha256:" + hex.EncodeToString(sum[:])); ok {
		t.Error("it is there under its name")
	}
	if _, err := d.Download(t.Context(), brings(model), "sha256:"+hex.EncodeToString(sum[:]), int64(length)); err != nil {
		t.Errorf("an honest source afterwards: %v", err)
	}
}

// brings is a Source of one blob, whatever is asked for.
type brings []byte

func (brings) Refresh(context.Context, trust.Held) ([]trust.File, error) { return nil, nil }

func (b brings) Fetch(_ context.Context, _ trust.Blob, _ []trust.Range, w io.WriterAt) error {
	_, err := w.WriteAt(b, 0)
	return err
}

// silent never answers.
type silent struct{ sends }

func (silent) Refresh(ctx context.Context, _ trust.Held) ([]trust.File, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// directorRows have the key that assigns releases to devices.
func directorRows() []group {
	move := func(f *forgery, to string) {
		targets := f.Files["director/targets"].Signed["targets"].(doc)
		targets[to] = targets[second]
		delete(targets, second)
	}
	return []group{{"Stolen director key", "the director's online key, and the network", []attack{
		{name: "assigns a model that no publisher signed", code: trust.CodeDisagree, forge: func(f *forgery) { move(f, "production/digits/6.6.6") }},
		{name: "assigns other bytes under a published name", code: trust.CodeDisagree, forge: func(f *forgery) {
			f.target("director/targets", second)["hashes"] = doc{"sha256": trusttest.Hash("evil")}
		}},
		{name: "assigns another length", code: trust.CodeDisagree, forge: func(f *forgery) { f.target("director/targets", second)["length"] = 1 }},
		{name: "assigns a model of dev", code: trust.CodeWrongChannel, forge: func(f *forgery) { move(f, untried) }},
		{name: "assigns a model of dev as one of production", code: trust.CodeDisagree, forge: func(f *forgery) { move(f, "production/digits/2.0.0") }},
		{name: "assigns a runtime library that no publisher signed", code: trust.CodeDisagree, forge: func(f *forgery) {
			targets := f.Files["director/targets"].Signed["targets"].(doc)
			targets["production/runtime-litert-arm64/9.9.9"] = targets[library]
		}},
		{name: "assigns a path that leaves its folder", code: trust.CodeWrongChannel, forge: func(f *forgery) { move(f, "production/../dev/digits/2.0.0") }},
		{name: "assigns a release below its floor", holds: "it is marked and not activated: `check.below_floor`", run: func(t *testing.T, w *world) {
			d := w.device(t)
			f := w.forge(t, w.later)
			f.Files["director/targets"].Signed["targets"] = w.forge(t, w.early).Files["director/targets"].Signed["targets"]
			for _, x := range d.believes(sends(f.Send())).Targets {
				if x.Path == first && !x.BelowFloor {
					t.Error("it may be activated")
				}
			}
		}},
		{name: "assigns a release whose floor rises on its way", code: "check.below_floor", test: "agent/update TestFloorRisesOnTheWay"},
		{name: "raises the counter of a release above the floor", code: trust.CodeDisagree, forge: func(f *forgery) {
			f.target("director/targets", second)["custom"].(doc)["release"].(doc)["counter"] = 99
		}},
		{name: "says that a release is for other hardware", code: trust.CodeDisagree, forge: func(f *forgery) {
			f.target("director/targets", second)["custom"].(doc)["release"].(doc)["hardware"] = "arch=amd64"
		}},
		{name: "leaves the release out of a target", code: trust.CodeMalformed, forge: func(f *forgery) { delete(f.target("director/targets", second), "custom") }},
		{name: "names another device in one file", code: trust.CodeWrongDevice, forge: func(f *forgery) { f.custom("director/snapshot")["device"] = "meter-2" }},
		{name: "names no device", code: trust.CodeWrongDevice, forge: func(f *forgery) { delete(f.custom("director/targets"), "device") }},
		{name: "goes back to an earlier generation", code: trust.CodeRollback, forge: func(f *forgery) {
			for _, role := range []string{"timestamp", "snapshot", "targets"} {
				f.custom("director/" + role)["generation"] = 0
			}
		}},
		{name: "mixes generations", code: trust.CodeMixAndMatch, forge: func(f *forgery) { f.custom("director/targets")["generation"] = 7 }},
		{name: "delegates to itself", code: trust.CodeMalformed, forge: func(f *forgery) {
			f.Files["director/targets"].Signed["delegations"] = doc{"keys": doc{}, "roles": []any{}}
		}},
		{name: "assigns two releases of one model", code: trust.CodeMalformed, forge: func(f *forgery) {
			targets := f.Files["director/targets"].Signed["targets"].(doc)
			targets[first] = w1(f)
		}},
		{name: "runs ahead with versions, so that nothing newer can come", holds: "a root that replaces the key lets versions begin anew", run: fastForward},
		{name: "pushes the time far ahead", holds: "not beyond the catalog root's expiry; a root that replaces the key takes it back", test: "agent/identity TestStolenTimeKey"},
		{name: "pushes the time beyond every expiry", code: trust.CodeFreeze, holds: "a root that replaces the key ends it in the same refresh", test: "shared/trust TestTimeOfAReplacedKey"},
		{name: "assigns any published release of the channel at or above its floor", holds: "**this succeeds**: it is what the key is for", run: func(t *testing.T, w *world) {
			d := w.device(t)
			d.believes(honest(w.early))
			d.believes(honest(w.later))
		}},
	}}}
}

// w1 is the first release as the director of early named it.
func w1(f *forgery) doc {
	return f.w.forge(f.T.(*testing.T), f.w.early).target("director/targets", first)
}

func fastForward(t *testing.T, w *world) {
	d := w.device(t)
	d.believes(honest(w.early))
	f := w.forge(t, w.later)
	for _, role := range []string{"timestamp", "snapshot", "targets"} {
		f.Files["director/"+role].Signed["version"] = 1 << 40
		f.custom("director/" + role)["generation"] = 1 << 53
	}
	d.believes(sends(f.Send()))
	d.refuses(honest(w.last), trust.CodeRollback)
	key := catalogtest.NewKey()
	f = w.forge(t, w.last)
	root := f.Root(trust.Director)
	for _, role := range []string{"timestamp", "snapshot", "targets"} {
		root.Grant(t, role, key)
		f.Files["director/"+role].Keys = []ed25519.PrivateKey{key}
	}
	if got := d.believes(sends(f.Send())); got.Generation != 99 {
		t.Errorf("%+v", got)
	}
}

// onlineRows have everything that is on the server.
func onlineRows() []group {
	online := func(f *forgery) []ed25519.PrivateKey {
		return []ed25519.PrivateKey{f.w.pub.Online.Snapshot, f.w.pub.Online.Timestamp, f.w.pub.Online.Director}
	}
	return []group{{"Stolen server", "all online keys (director, snapshot, timestamp), the database and the network", []attack{
		{name: "signs the channel's role", code: trust.CodeSignature, forge: func(f *forgery) {
			f.Files["catalog/production"].Signed["targets"].(doc)["production/digits/6.6.6"] = f.target("catalog/production", second)
			f.Files["catalog/production"].Keys = online(f)
		}},
		{name: "adds a model to the role and keeps its signatures", code: trust.CodeSignature, forge: func(f *forgery) {
			f.Files["catalog/production"].Bytes = inText("digits/1.1.0", "digits/6.6.6")
		}},
		{name: "lowers a floor", code: trust.CodeSignature, forge: func(f *forgery) {
			f.Files["catalog/production"].Bytes = inText(`"floors":{"digits":2}`, `"floors":{"digits":0}`)
		}},
		{name: "signs who may sign a channel", code: trust.CodeSignature, forge: func(f *forgery) {
			x := f.Files["catalog/targets"]
			x.Signed["version"], x.Keys = 2, online(f)
		}},
		{name: "signs a root", code: trust.CodeSignature, forge: func(f *forgery) { f.Root(trust.Catalog).Keys = online(f) }},
		{name: "signs a director's root", code: trust.CodeSignature, forge: func(f *forgery) { f.Root(trust.Director).Keys = online(f) }},
		{name: "serves the role of dev as that of production", code: trust.CodeWrongChannel, forge: func(f *forgery) {
			f.Files["catalog/production"].Bytes = func([]byte) []byte { return bytesOf(f.w.dev, "catalog/dev") }
			f.Files["catalog/production"].Signed["version"] = trusttest.SignedOf(f.T, bytesOf(f.w.dev, "catalog/dev"))["version"]
		}},
		{name: "names a channel's role of before its floor in a new snapshot", code: trust.CodeRollback, run: func(t *testing.T, w *world) {
			d := w.device(t)
			d.believes(honest(w.later))
			f := w.forge(t, w.last)
			x := f.Files["catalog/production"]
			x.Signed = trusttest.SignedOf(t, bytesOf(w.early, "catalog/production"))
			x.Bytes = func([]byte) []byte { return bytesOf(w.early, "catalog/production") }
			d.refuses(sends(f.Send()), trust.CodeRollback)
		}},
		{name: "leaves the channel's role out of the snapshot", code: trust.CodeMixAndMatch, forge: func(f *forgery) { delete(f.Files["catalog/snapshot"].Signed["meta"].(doc), "production.json") }},
		{name: "names a version of the role that is not there", code: trust.CodeMixAndMatch, forge: func(f *forgery) {
			f.Files["catalog/production"].Named = func(m doc) { m["version"] = 1 << 40 }
		}},
		{name: "names files without length and hash, so that unsigned bytes are parsed", code: trust.CodeMalformed, forge: func(f *forgery) {
			f.Files["catalog/production"].Named = func(m doc) { delete(m, "hashes") }
		}},
		{name: "names files by a hash that is not SHA-256", code: trust.CodeMalformed, forge: func(f *forgery) {
			f.Files["catalog/production"].Named = func(m doc) { m["hashes"] = doc{"md5": "00"} }
		}},
		{name: "signs metadata of a TUF that means something else", code: trust.CodeSpecVersion, forge: func(f *forgery) { f.Files["director/timestamp"].Signed["spec_version"] = "2.0.0" }},
		{name: "tries every mixture of all that was ever signed, with all its keys", holds: "no device has a release that its publisher did not sign for the channel, and no floor falls", test: "testbed/attacks TestEveryPath"},
		{name: "hands a device the director's files of another", code: trust.CodeWrongDevice, test: "testbed/lab TestOwnFilesOnly"},
		{name: "alters its database", holds: "each device refuses, and the operator sees it with its code", test: "testbed/lab TestRefusalsReachTheServer"},
		{name: "restores an old backup over newer versions", holds: "versions jump above what devices have seen", test: "testbed/lab TestRestore"},
	}}}
}
