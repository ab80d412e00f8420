package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// TestUnsignedBytes serves, in the place of each role, what a library may stumble
// over before it has looked at any signature.
func TestUnsignedBytes(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"empty":       func([]byte) []byte { return []byte{} },
		"cut":         func(b []byte) []byte { return b[:len(b)/2] },
		"two values":  func(b []byte) []byte { return append(b, "{}"...) },
		"null":        func([]byte) []byte { return []byte("null") },
		"a list":      func([]byte) []byte { return []byte("[]") },
		"null signed": func([]byte) []byte { return []byte(`{"signed":null,"signatures":[]}`) },
		"null maps": func([]byte) []byte {
			return []byte(`{"signed":{"_type":"targets","targets":{"a":null},"meta":{"snapshot.json":null},"roles":{"root":null},"keys":{"a":null}},"signatures":[]}`)
		},
		"null signatures": func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"signatures":[`), []byte(`"signatures":[null,`), 1)
		},
		"deep nesting": func([]byte) []byte { return []byte(strings.Repeat(`{"a":`, 5000)) },
		"key twice": func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"spec_version"`), []byte(`"version":9,"spec_version"`), 1)
		},
		"signed twice": func(b []byte) []byte {
			return bytes.Replace(b, []byte(`{"signatures"`), []byte(`{"signed":{},"signatures"`), 1)
		},
		"key in capitals":  func(b []byte) []byte { return bytes.Replace(b, []byte(`"version"`), []byte(`"Version"`), 1) },
		"negative version": func(b []byte) []byte { return bytes.Replace(b, []byte(`"version":`), []byte(`"version":-`), 1) },
		"version as float": func(b []byte) []byte { return bytes.Replace(b, []byte(`"version":`), []byte(`"version":0.`), 1) },
		"version as text": func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"spec_version":"1.0.31"`), []byte(`"spec_version":1`), 1)
		},
		"invalid UTF-8": func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"expires":"`), []byte("\"expires\":\"\xff\xfe"), 1)
		},
		"no date":          func(b []byte) []byte { return bytes.Replace(b, []byte(`"expires":"2`), []byte(`"expires":"x`), 1) },
		"signature no hex": func(b []byte) []byte { return bytes.Replace(b, []byte(`"sig":"`), []byte(`"sig":"zz`), 1) },
		"one bit":          func(b []byte) []byte { return bytes.Replace(b, []byte(`"1.0.31"`), []byte(`"1.0.30"`), 1) },
	} {
		for _, role := range topLevel {
			t.Run(role+" "+name, func(t *testing.T) {
				r := newRig(t)
				r.accepts()
				r.publish("root", "targets", "snapshot", "timestamp")
				r.replace(role, change)
				r.refuses()
				if v := r.trusted(role); v != 1 {
					t.Errorf("%s %d is trusted", role, v)
				}
				// What was refused leaves nothing behind.
				r.files[role] = r.files[role][:1]
				r.docs[role]["version"] = 1
				r.publish(role)
				r.publish("targets", "snapshot", "timestamp")
				r.accepts()
			})
		}
	}
}

// TestKeyIDTwice gives one id to two keys by naming it twice in JSON: who reads the
// first and who reads the last would trust different keys.
func TestKeyIDTwice(t *testing.T) {
	r := newRig(t)
	id, other := r.signers["snapshot"][0].id, newKey(t, "ed25519")
	public, err := json.Marshal(other.public)
	must(t, err)
	r.publish("root")
	r.replace("root", func(b []byte) []byte {
		return bytes.Replace(b, []byte(`"keys":{`), []byte(`"keys":{"`+id+`":`+string(public)+`,`), 1)
	})
	r.refuses()
	r.trusts(versions(1, 0, 0, 0))
	// The same in the first root, which nobody can refuse but the client itself.
	r = bareRig(t)
	r.init(bytes.Replace(r.files["root"][0], []byte(`"keys":{`), []byte(`"keys":{"`+r.signers["root"][0].id+`":`+string(public)+`,`), 1))
	r.refuses()
	r.asks()
}

// TestRootWithoutRoles leaves out what every root must have.
func TestRootWithoutRoles(t *testing.T) {
	for _, role := range topLevel {
		r := newRig(t)
		delete(r.docs["root"]["roles"].(object), role)
		r.publish("root", "targets", "snapshot", "timestamp")
		r.refuses()
	}
}

// TestLocalDamage spoils each file that is kept: the next refresh brings it again,
// and nothing older.
func TestLocalDamage(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"empty":   func([]byte) []byte { return nil },
		"cut":     func(b []byte) []byte { return b[:len(b)/2] },
		"flipped": func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b },
		"null":    func([]byte) []byte { return []byte("null") },
	} {
		for _, role := range []string{"2.root", "timestamp", "snapshot", "targets"} {
			t.Run(role+" "+name, func(t *testing.T) {
				r := newRig(t)
				r.publish("root", "targets", "snapshot", "timestamp")
				r.accepts()
				r.spoil(role, damage)
				r.accepts()
				r.trusts(versions(2, 2, 2, 2))
			})
		}
	}
}
