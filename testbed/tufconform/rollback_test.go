package main

import (
	"fmt"
	"testing"
)

func TestTimestampRollback(t *testing.T) {
	r := newRig(t)
	r.publish("timestamp")
	r.accepts()
	r.rewind("timestamp")
	r.publish("timestamp")
	r.asked = nil
	r.refuses()
	r.trusts(versions(1, 2, 1, 1))
	r.asks("2.root", "timestamp")
}

// TestRollback publishes an older snapshot or older targets under newer files that
// name them.
func TestRollback(t *testing.T) {
	for role, want := range map[string]map[string]int{"snapshot": versions(1, 2, 2, 2), "targets": versions(1, 3, 2, 2)} {
		for _, hashes := range []bool{false, true} {
			t.Run(fmt.Sprint(role, " hashes ", hashes), func(t *testing.T) {
				r := newRig(t)
				r.hashes = hashes
				r.publish("targets", "snapshot", "timestamp")
				r.accepts()
				r.rewind(role)
				if role == "targets" {
					r.publish("targets", "snapshot", "timestamp")
				} else {
					r.publish("snapshot", "timestamp")
				}
				r.refuses()
				r.trusts(want)
			})
		}
	}
}

func TestRoleRemovedFromSnapshot(t *testing.T) {
	r := newRig(t)
	r.delegate("targets", "team", false, []any{"team/*"})
	r.publish("team", "targets", "snapshot", "timestamp")
	r.accepts()
	delete(r.docs["snapshot"]["meta"].(object), "team.json")
	r.publish("snapshot", "timestamp")
	r.refuses()
	if v := r.trusted("snapshot"); v != 2 {
		t.Errorf("snapshot %d is trusted", v)
	}
}

// TestFastForward lets a thief sign far ahead: once the keys are replaced, versions
// begin again.
func TestFastForward(t *testing.T) {
	for role, replaced := range map[string][]string{"targets": {"snapshot"}, "snapshot": {"snapshot", "timestamp"}, "timestamp": {"timestamp"}} {
		for _, rotate := range []bool{true, false} {
			t.Run(fmt.Sprint(role, " keys replaced ", rotate), func(t *testing.T) {
				r := newRig(t)
				r.delegate("targets", "team", false, []any{"team/*"})
				r.publish("team")
				for range 99 {
					r.publish(role)
				}
				r.publish("targets", "snapshot", "timestamp")
				r.accepts()
				had := r.trusted(role)
				if had < 100 {
					t.Fatal("the thief did not come far", had)
				}
				r.rewind(role)
				if rotate {
					for _, x := range replaced {
						r.grant(x, 1, newKey(t, "ed25519"))
					}
					r.publish("root")
				}
				if role == "targets" && rotate {
					delete(r.docs["snapshot"]["meta"].(object), "team.json")
				}
				if role != "timestamp" {
					r.publish("targets", "snapshot")
				}
				r.publish("timestamp")
				if !rotate {
					r.refuses()
					if got := r.trusted(role); got != had {
						t.Errorf("%s %d is trusted", role, got)
					}
					return
				}
				r.accepts()
				if got := r.trusted(role); got > 2 {
					t.Errorf("%s %d is trusted", role, got)
				}
			})
		}
	}
}
