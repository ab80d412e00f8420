package main

import (
	"encoding/hex"
	"encoding/json"
	"slices"
	"testing"
)

func TestThresholds(t *testing.T) {
	for name, c := range map[string]struct {
		threshold, keys int
		sign            []int
		good            bool
	}{
		"one of one": {1, 1, []int{0}, true}, "two of three": {2, 3, []int{0, 2}, true}, "two of three, one signs": {2, 3, []int{1}, false},
		"three of three, two sign": {3, 3, []int{0, 1}, false}, "six of five": {6, 5, []int{0, 1, 2, 3, 4}, false}, "zero of one": {0, 1, []int{0}, false},
		"nobody signs": {1, 2, nil, false}, "one signs twice": {2, 2, []int{0, 0}, false}, "five of five": {5, 5, []int{4, 3, 2, 1, 0}, true},
	} {
		for _, role := range []string{"targets", "snapshot", "timestamp"} {
			t.Run(role+" "+name, func(t *testing.T) {
				r := newRig(t)
				r.accepts()
				keys := newKeys(t, c.keys)
				r.grant(role, c.threshold, keys...)
				r.signers[role] = nil
				for _, i := range c.sign {
					r.signers[role] = append(r.signers[role], keys[i])
				}
				r.publish("root", "targets", "snapshot", "timestamp")
				if c.good {
					r.accepts()
					return
				}
				r.refuses()
				if v := r.trusted(role); v != 1 {
					t.Errorf("%s %d is trusted", role, v)
				}
			})
		}
	}
}

func newKeys(t *testing.T, n int) []*key {
	var out []*key
	for range n {
		out = append(out, newKey(t, "ed25519"))
	}
	return out
}

// edit changes the newest file of a role as JSON.
func (r *rig) edit(role string, change func(object)) {
	r.replace(role, func(b []byte) []byte {
		var o object
		must(r.t, json.Unmarshal(b, &o))
		change(o)
		b, err := json.Marshal(o)
		must(r.t, err)
		return b
	})
}

// TestOneKeyManyTimes tries to reach a threshold with one key.
func TestOneKeyManyTimes(t *testing.T) {
	for name, c := range map[string]struct {
		ids  func(*rig, *key) []*key
		sigs int
	}{
		"its id nine times":  {func(_ *rig, k *key) []*key { return slices.Repeat([]*key{k}, 9) }, 9},
		"under several ids":  {func(_ *rig, k *key) []*key { return []*key{k, alias(k, "a"), alias(k, "b")} }, 1},
		"in several schemes": {func(_ *rig, k *key) []*key { return []*key{k, alias(k, "")} }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.accepts()
			k := newKey(t, "ecdsa")
			r.grant("snapshot", 2, c.ids(r, k)...)
			r.publish("root", "snapshot", "timestamp")
			r.refuses()
			if v := r.trusted("snapshot"); v != 1 {
				t.Errorf("snapshot %d is trusted", v)
			}
		})
	}
}

// alias is the same key under another id.
func alias(k *key, id string) *key {
	other := &key{id: k.id, sign: k.sign, public: object{}}
	for n, v := range k.public {
		other.public[n] = v
	}
	if id == "" {
		other.public["keytype"] = "ecdsa-sha2-nistp256"
	} else {
		other.public["note"] = id
	}
	other.identify()
	return other
}

func TestSignatureTwice(t *testing.T) {
	r := newRig(t)
	r.edit("snapshot", func(o object) { sigs := o["signatures"].([]any); o["signatures"] = append(sigs, sigs[0]) })
	r.refuses()
	if v := r.trusted("snapshot"); v != 0 {
		t.Errorf("snapshot %d is trusted", v)
	}
}

func TestKeyTypes(t *testing.T) {
	for _, keytype := range []string{"rsa", "ecdsa", "ed25519"} {
		t.Run(keytype, func(t *testing.T) {
			r := newRig(t)
			k := newKey(t, keytype)
			r.grant("root", 2, r.signers["root"][0], k)
			r.publish("root")
			r.accepts()
			r.publish("root")
			// A right signature, but of other bytes.
			r.edit("root", func(o object) {
				for _, s := range o["signatures"].([]any) {
					if s := s.(object); s["keyid"] == k.id {
						s["sig"] = hex.EncodeToString(k.sign([]byte("something else")))
					}
				}
			})
			r.refuses()
			r.trusts(versions(2, 1, 1, 1))
		})
	}
}

// TestUnknownKeyType stops a role that has one: what cannot be checked is not
// counted away.
func TestUnknownKeyType(t *testing.T) {
	r := newRig(t)
	k := newKey(t, "ed25519")
	k.public["keytype"], k.public["scheme"] = "ml-dsa", "ml-dsa-65"
	k.identify()
	r.grant("snapshot", 1, r.signers["snapshot"][0], k)
	r.publish("root", "snapshot", "timestamp")
	r.refuses()
	r.trusts(versions(2, 2, 0, 0))
}

// TestInvalidBesideValid lets a second key of a role sign wrongly: enough others
// signed.
func TestInvalidBesideValid(t *testing.T) {
	for _, sig := range []string{"00ff", ""} {
		r := newRig(t)
		r.grant("timestamp", 1, newKey(t, "ecdsa"), newKey(t, "ed25519"))
		r.publish("root", "timestamp")
		r.edit("timestamp", func(o object) { o["signatures"].([]any)[0].(object)["sig"] = sig })
		r.accepts()
	}
}

// TestKeysWithoutMeaning has keys that no role names and signatures of keys that
// nobody knows.
func TestKeysWithoutMeaning(t *testing.T) {
	r := newRig(t)
	stranger := newKey(t, "ed25519")
	r.docs["root"]["keys"].(object)[stranger.id] = stranger.public
	for _, role := range topLevel {
		r.signers[role] = append(r.signers[role], newKey(t, "ed25519"))
	}
	r.publish("root", "targets", "snapshot", "timestamp")
	r.accepts()
	r.trusts(versions(2, 2, 2, 2))
	// A role whose key is not there is nobody's.
	r.docs["root"]["roles"].(object)["snapshot"].(object)["keyids"] = []any{newKey(t, "ed25519").id}
	r.publish("root", "snapshot", "timestamp")
	r.refuses()
	r.trusts(versions(3, 3, 2, 2))
}
