package main

import (
	"testing"
	"time"
)

// root is one version: who may sign, how many must, who does.
type root struct {
	keys      []int
	threshold int
	signers   []int
	refused   bool
}

func pick(keys []*key, which []int) []*key {
	var out []*key
	for _, i := range which {
		out = append(out, keys[i])
	}
	return out
}

var (
	firstFive = []int{0, 1, 2, 3, 4}
	oneChange = []int{0, 1, 3, 4, 5}
	lastFive  = []int{5, 6, 7, 8, 9}
)

func TestRootRotation(t *testing.T) {
	for name, chain := range map[string][]root{
		"one key":                           {{[]int{1}, 1, []int{1}, false}, {[]int{2}, 1, []int{2, 1}, false}, {[]int{2}, 1, []int{2}, false}},
		"one key, strangers sign too":       {{[]int{1}, 1, []int{3, 1, 4}, false}, {[]int{2}, 1, []int{3, 2, 1, 4}, false}, {[]int{2}, 1, []int{3, 2, 4}, false}},
		"any three of five":                 {{firstFive, 3, []int{0, 2, 4}, false}, {firstFive, 3, []int{0, 4, 1}, false}, {firstFive, 3, []int{0, 1, 3}, false}, {firstFive, 3, []int{0, 1, 3}, false}},
		"one of five changes":               {{firstFive, 3, []int{0, 2, 4}, false}, {oneChange, 3, []int{0, 4, 1}, false}},
		"one of five changes, both sign":    {{firstFive, 3, []int{0, 2, 4}, false}, {oneChange, 3, []int{0, 2, 4, 5}, false}, {oneChange, 3, []int{0, 4, 5}, false}},
		"all five change":                   {{firstFive, 3, []int{0, 2, 4}, false}, {lastFive, 3, []int{0, 2, 4, 5, 6, 7}, false}, {lastFive, 3, []int{5, 6, 7}, false}},
		"threshold rises":                   {{[]int{1, 2, 3}, 1, []int{1}, false}, {[]int{1, 2, 3}, 2, []int{1, 2}, false}},
		"threshold falls":                   {{[]int{1, 2, 3}, 2, []int{1, 2}, false}, {[]int{1, 2, 3}, 1, []int{1, 2}, false}, {[]int{1, 2, 3}, 1, []int{1}, false}},
		"a practice key becomes two of two": {{[]int{1}, 1, []int{1}, false}, {[]int{1, 2}, 2, []int{1, 2}, false}},
		"the old key did not sign":          {{[]int{1}, 1, []int{1}, false}, {[]int{2}, 1, []int{2, 3, 4}, true}},
		"the new key did not sign":          {{[]int{1}, 1, []int{1}, false}, {[]int{2}, 1, []int{1, 3, 4}, true}},
		"too few of the new keys signed":    {{firstFive, 3, []int{0, 2, 4}, false}, {oneChange, 3, []int{0, 2, 4}, true}},
		"too few of the old keys signed":    {{firstFive, 3, []int{0, 2, 4}, false}, {oneChange, 3, []int{0, 4, 5}, true}},
		"the risen threshold is missed":     {{[]int{1, 2, 3}, 1, []int{1}, false}, {[]int{1, 2, 3}, 2, []int{2}, true}},
		"the fallen threshold is not yet":   {{[]int{1, 2, 3}, 2, []int{1, 2}, false}, {[]int{1, 2, 3}, 1, []int{1}, true}},
	} {
		t.Run(name, func(t *testing.T) {
			r, keys, good := bareRig(t), newKeys(t, 10), 0
			r.rewind("root")
			refused := false
			for _, version := range chain {
				r.allow("root", version.threshold, pick(keys, version.keys)...)
				r.signers["root"] = pick(keys, version.signers)
				r.publish("root")
				if refused = version.refused; !refused {
					good++
				}
			}
			r.publish("targets", "snapshot", "timestamp")
			must(t, r.init(r.files["root"][0]))
			if refused {
				r.refuses()
			} else {
				r.accepts()
			}
			if v := r.trusted("root"); v != good {
				t.Errorf("root %d is trusted, want %d", v, good)
			}
		})
	}
}

func TestRotationOfOtherRoles(t *testing.T) {
	for name, c := range map[string]root{
		"one key":                      {[]int{2}, 1, []int{2}, false},
		"strangers sign too":           {[]int{1}, 1, []int{3, 1, 4}, false},
		"the new key did not sign":     {[]int{2}, 1, []int{3, 4}, true},
		"one of three is an old key":   {oneChange, 3, []int{0, 2, 4}, true},
		"two of three":                 {oneChange, 3, []int{0, 4}, true},
		"three of five":                {firstFive, 3, []int{0, 2, 4}, false},
		"three of five, another order": {firstFive, 3, []int{0, 4, 1}, false},
		"three of five in the middle":  {firstFive, 3, []int{1, 2, 3}, false},
		"the last three of five":       {firstFive, 3, []int{2, 3, 4}, false},
	} {
		for _, role := range []string{"timestamp", "snapshot", "targets"} {
			t.Run(role+" "+name, func(t *testing.T) {
				r, keys := newRig(t), newKeys(t, 6)
				r.allow(role, c.threshold, pick(keys, c.keys)...)
				r.signers[role] = pick(keys, c.signers)
				r.publish("root", "targets", "snapshot", "timestamp")
				if c.refused {
					r.refuses()
					if v := r.trusted(role); v != 0 {
						t.Errorf("%s %d is trusted", role, v)
					}
					return
				}
				r.accepts()
				r.trusts(versions(2, 2, 2, 2))
			})
		}
	}
}

// TestRootChain is walked one by one, and no further than there is an end to it.
func TestRootChain(t *testing.T) {
	r := newRig(t)
	for range 4 {
		r.publish("root")
	}
	r.accepts()
	r.asks("2.root", "3.root", "4.root", "5.root", "6.root", "timestamp", "1.snapshot", "1.targets")
	r.accepts()
	r.asks("6.root", "timestamp")

	gap := newRig(t)
	for range 3 {
		gap.publish("root")
	}
	gap.files["root"][1] = gap.files["root"][2] // 3 in place of 2
	gap.refuses()
	gap.trusts(versions(1, 0, 0, 0))

	endless := newRig(t)
	for range 300 {
		endless.publish("root")
	}
	endless.accepts()
	if v := endless.trusted("root"); v != 257 {
		t.Errorf("root %d after one refresh", v)
	}
	endless.accepts()
	if v := endless.trusted("root"); v != 301 {
		t.Errorf("root %d after two", v)
	}
}

// TestIntermediateRootsMayExpire: only the last one counts.
func TestIntermediateRootsMayExpire(t *testing.T) {
	r := bareRig(t)
	r.rewind("root")
	for _, days := range []int{-20, -10, 20} {
		r.expire("root", time.Duration(days)*day)
		r.publish("root")
	}
	must(t, r.init(r.files["root"][0]))
	r.accepts()
	r.trusts(versions(3, 1, 1, 1))
}
