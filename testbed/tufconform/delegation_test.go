package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// edge is one delegation; empty paths are all.
type edge struct {
	by, role    string
	terminating bool
	paths       []any
}

func (r *rig) graph(edges ...edge) {
	roles := []string{}
	for _, e := range edges {
		if e.paths == nil {
			e.paths = []any{"*"}
		}
		r.delegate(e.by, e.role, e.terminating, e.paths)
		if !slices.Contains(roles, e.role) {
			roles = append(roles, e.role)
		}
	}
	r.publish(append(roles, "targets", "snapshot", "timestamp")...)
}

// visited are the delegated roles that were asked for, in order.
func (r *rig) visited() []string {
	var out []string
	for _, a := range r.asked {
		if role, ok := strings.CutPrefix(a, "1."); ok && !slices.Contains(topLevel, role) {
			out = append(out, role)
		}
	}
	return out
}

func TestOrderOfSearch(t *testing.T) {
	py := []any{"*.py"}
	for name, c := range map[string]struct {
		edges []edge
		want  string
	}{
		"one":                             {[]edge{{by: "targets", role: "A"}}, "A"},
		"two":                             {[]edge{{by: "targets", role: "A"}, {by: "targets", role: "B"}}, "A B"},
		"a child of the second":           {[]edge{{by: "targets", role: "A"}, {by: "targets", role: "B"}, {by: "B", role: "C"}}, "A B C"},
		"depth first":                     {[]edge{{by: "targets", role: "A"}, {by: "targets", role: "B"}, {by: "A", role: "C"}, {by: "A", role: "D"}}, "A C D B"},
		"three deep":                      {[]edge{{by: "targets", role: "A"}, {by: "targets", role: "B"}, {by: "A", role: "C"}, {by: "C", role: "D"}}, "A C D B"},
		"terminating":                     {[]edge{{by: "targets", role: "A"}, {by: "targets", role: "B"}, {by: "A", role: "C", terminating: true}, {by: "A", role: "D"}}, "A C"},
		"terminating, but for its own":    {[]edge{{by: "targets", role: "A"}, {by: "targets", role: "B"}, {by: "A", role: "C", terminating: true}, {by: "C", role: "D"}}, "A C D"},
		"another's paths":                 {[]edge{{by: "targets", role: "A", paths: py}, {by: "targets", role: "B"}, {by: "A", role: "C"}}, "B"},
		"another's paths, one level down": {[]edge{{by: "targets", role: "A"}, {by: "targets", role: "B"}, {by: "A", role: "C", paths: py}, {by: "C", role: "D"}}, "A B"},
		"a terminating role for others":   {[]edge{{by: "targets", role: "A", paths: py, terminating: true}, {by: "targets", role: "B"}}, "B"},
		"a circle":                        {[]edge{{by: "targets", role: "A"}, {by: "targets", role: "B"}, {by: "B", role: "C"}, {by: "C", role: "D"}, {by: "D", role: "B"}}, "A B C D"},
		"a role that delegates to itself": {[]edge{{by: "targets", role: "A"}, {by: "A", role: "A"}}, "A"},
		"two ways":                        {[]edge{{by: "targets", role: "A"}, {by: "targets", role: "B"}, {by: "B", role: "C"}, {by: "A", role: "C"}}, "A C B"},
		"two ways, one for others":        {[]edge{{by: "targets", role: "A"}, {by: "targets", role: "B"}, {by: "B", role: "C"}, {by: "A", role: "C", paths: py}}, "A B C"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.graph(c.edges...)
			if r.download("there is none") == nil {
				t.Fatal("a target that does not exist was found")
			}
			if got := strings.Join(r.visited(), " "); got != c.want {
				t.Errorf("visited %s, want %s", got, c.want)
			}
		})
	}
}

func TestTargetsOfDelegations(t *testing.T) {
	for _, c := range []struct {
		name, target string
		found        bool
		visited      string
	}{
		{"of nobody else", "targetfile", true, ""},
		{"wildcard", "README.md", true, "A"},
		{"in a folder", "releases/x/x_v1", true, "B C"},
		{"in another folder", "releases/y/y_v1.zip", true, "B D"},
		{"the role has it, nobody gave it", "releases/z/z_v1.zip", false, "B"},
		{"a wildcard crosses no slash", "releases/README.md", false, ""},
		{"question mark", "foo-1.tgz", true, "A"},
		{"a question mark is one letter", "foo-alpha.tgz", false, ""},
		{"case counts", "README.MD", false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.delegate("targets", "A", false, []any{"*.doc", "*.md", "foo-?.tgz"})
			r.delegate("targets", "B", false, []any{"releases/*/*"})
			r.delegate("B", "C", false, []any{"releases/x/*"})
			r.delegate("B", "D", false, []any{"releases/y/*.zip"})
			for name, role := range map[string]string{"targetfile": "targets", "README.md": "A", "releases/README.md": "A", "foo-1.tgz": "A", "foo-alpha.tgz": "A", "releases/x/x_v1": "C", "releases/y/y_v1.zip": "D", "releases/z/z_v1.zip": "D"} {
				r.add(role, name, name+" of "+role)
			}
			r.publish("D", "C", "B", "A", "targets", "snapshot", "timestamp")
			if err := r.download(c.target); (err == nil) != c.found {
				t.Fatal(err)
			}
			if c.found {
				r.has(string(r.targets[c.target]))
			} else {
				r.has()
			}
			if got := strings.Join(r.visited(), " "); got != c.visited {
				t.Errorf("visited %s, want %s", got, c.visited)
			}
		})
	}
}

// TestRoleByTwoWays has a role that two others delegate to, with different keys. It
// is signed for one only: by way of the other it counts for nothing, though it was
// verified a moment before.
func TestRoleByTwoWays(t *testing.T) {
	for _, processes := range []int{1, 2} {
		t.Run(fmt.Sprint(processes, " processes"), func(t *testing.T) {
			r := newRig(t)
			r.delegate("targets", "parent-a", false, []any{"team-a/*"})
			r.delegate("targets", "parent-b", false, []any{"team-b/*"})
			r.delegate("parent-a", "release", false, []any{"team-a/*"})
			signers := r.signers["release"]
			r.delegate("parent-b", "release", false, []any{"team-b/*"})
			r.signers["release"] = signers
			r.add("release", "team-a/file", "honest")
			r.add("release", "team-b/file", "evil")
			r.publish("release", "parent-a", "parent-b", "targets", "snapshot", "timestamp")
			var err error
			if processes == 1 {
				err = r.download("team-a/file", "team-b/file")
			} else {
				must(t, r.download("team-a/file"))
				err = r.download("team-b/file")
			}
			if err == nil {
				t.Error("team B's file was believed")
			}
			r.has("honest")
		})
	}
}

func TestRoleNotInSnapshot(t *testing.T) {
	r := newRig(t)
	r.delegate("targets", "team", false, []any{"team/*"})
	r.publish("team", "targets")
	delete(r.docs["snapshot"]["meta"].(object), "team.json")
	r.publish("snapshot", "timestamp")
	r.accepts()
	r.asked = nil
	if r.download("team/file") == nil {
		t.Error("a role that the snapshot does not name was used")
	}
	r.asks("2.root", "timestamp")
	if v := r.trusted("team"); v != 0 {
		t.Errorf("team %d is trusted", v)
	}
}

// TestBrokenDelegation spoils the role that has the target.
func TestBrokenDelegation(t *testing.T) {
	for name, spoil := range map[string]func(*rig){
		"unsigned":           func(r *rig) { r.signers["team"] = nil },
		"a stranger signs":   func(r *rig) { r.signers["team"] = newKeys(r.t, 1) },
		"expired":            func(r *rig) { r.expire("team", -day) },
		"of another type":    func(r *rig) { r.docs["team"]["_type"] = "snapshot" },
		"threshold unmet":    func(r *rig) { r.entry()["threshold"] = 2 },
		"threshold zero":     func(r *rig) { r.entry()["threshold"] = 0 },
		"a key that is none": func(r *rig) { r.entry()["keyids"] = []any{"00"} },
		"no keys":            func(r *rig) { r.entry()["keyids"] = []any{} },
		"key left out":       func(r *rig) { r.docs["targets"]["delegations"].(object)["keys"] = object{} },
		"another's paths":    func(r *rig) { r.entry()["paths"] = []any{"other/*"} },
		"no paths":           func(r *rig) { r.entry()["paths"] = []any{} },
		"a broken pattern":   func(r *rig) { r.entry()["paths"] = []any{"team/[*"} },
		"no delegations":     func(r *rig) { delete(r.docs["targets"], "delegations") },
		"empty":              func(r *rig) { r.docs["team"]["targets"] = object{} },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.delegate("targets", "team", true, []any{"team/*"})
			r.add("team", "team/file", "content")
			spoil(r)
			r.publish("team", "targets", "snapshot", "timestamp")
			r.accepts()
			if r.download("team/file") == nil {
				t.Error("it was downloaded")
			}
			r.has()
			if v := r.trusted("team"); v != 0 && name != "empty" {
				t.Errorf("team %d is trusted", v)
			}
		})
	}
}

// entry is the delegation to team.
func (r *rig) entry() object {
	return r.docs["targets"]["delegations"].(object)["roles"].([]any)[0].(object)
}

// TestBins delegates by the hash of the path: to two bins by its first digit, and to
// the bins of succinct roles.
func TestBins(t *testing.T) {
	sum := sha256.Sum256([]byte("some/file"))
	digit := hex.EncodeToString(sum[:])[:1]
	others := []any{}
	for _, d := range "0123456789abcdef" {
		if string(d) != digit {
			others = append(others, string(d))
		}
	}
	for name, c := range map[string]struct {
		prefixes []any
		found    bool
	}{"of the path": {[]any{digit}, true}, "of all others": {others, false}, "of none": {[]any{}, false}} {
		r := newRig(t)
		e := r.delegate("targets", "bin", false, nil)
		delete(e, "paths")
		e["path_hash_prefixes"] = c.prefixes
		r.add("bin", "some/file", "content")
		r.publish("bin", "targets", "snapshot", "timestamp")
		if err := r.download("some/file"); (err == nil) != c.found {
			t.Errorf("the prefixes are those %s: %v", name, err)
		}
	}
	r := newRig(t)
	bin, k := "bin-"+digit, newKey(t, "ed25519")
	r.delegate("targets", bin, false, []any{"*"}, k)
	r.docs["targets"]["delegations"] = object{"keys": object{k.id: k.public}, "succinct_roles": object{"keyids": []any{k.id}, "threshold": 1, "bit_length": 4, "name_prefix": "bin"}}
	r.add(bin, "some/file", "content")
	r.publish(bin, "targets", "snapshot", "timestamp")
	must(t, r.download("some/file"))
	r.has("content")
}

// TestRoleNames uses them in requests and as names of files: neither may leave its
// folder, and no role may take another's file.
func TestRoleNames(t *testing.T) {
	for _, role := range []string{"?", "#", "/role", "../role", "..", "a b", "../../path/like/dubious", "🍺/30", "ᚩ os, ᚱ rad, ᚳ cen, ᚷ gyfu, ᚹ ƿynn, ᚻ hægl"} {
		t.Run(role, func(t *testing.T) {
			r := newRig(t)
			r.delegate("targets", role, false, []any{"*"})
			r.publish(role, "targets", "snapshot", "timestamp")
			if r.download("there is none") == nil {
				t.Fatal("a target that does not exist was found")
			}
			if want := "1." + escaped(role); !slices.Contains(r.asked, want) {
				t.Errorf("asked %v, not %s", r.asked, want)
			}
			want := versions(1, 2, 2, 2)
			want[role] = 1
			r.trusts(want)
		})
	}
	for _, role := range []string{"root", "snapshot", "timestamp", "1.root", "7.root", "", strings.Repeat("x", 300)} {
		t.Run("refused "+role, func(t *testing.T) {
			r := newRig(t)
			k := newKey(t, "ed25519")
			r.docs["targets"]["delegations"] = object{"keys": object{k.id: k.public}, "roles": []any{object{"name": role, "keyids": []any{k.id}, "threshold": 1, "terminating": false, "paths": []any{"*"}}}}
			r.docs["snapshot"]["meta"].(object)[role+".json"] = object{"version": 1}
			r.publish("targets", "snapshot", "timestamp")
			r.accepts()
			r.asked = nil
			if r.download("file") == nil {
				t.Fatal("a target was found")
			}
			r.asks("2.root", "timestamp")
			r.trusts(versions(1, 2, 2, 2))
		})
	}
}

// TestManyRoles ends a search where it would go on for ever.
func TestManyRoles(t *testing.T) {
	r := newRig(t)
	var edges []edge
	for i := range 40 {
		edges = append(edges, edge{by: "targets", role: fmt.Sprint("role-", i)})
	}
	r.graph(edges...)
	if r.download("there is none") == nil {
		t.Fatal("a target that does not exist was found")
	}
	if n := len(r.visited()); n != 31 {
		t.Errorf("%d roles were visited, beside the targets", n)
	}
}
