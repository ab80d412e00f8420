package arch

import (
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

// TestHouse runs every rule on this repository.
func TestHouse(t *testing.T) {
	tree, err := load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.files) < 50 {
		t.Fatalf("only %d Go files found", len(tree.files))
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, f := range r.check(tree) {
				t.Error(f)
			}
		})
	}
}

// TestRules gives each rule a small tree that breaks it once and one that keeps
// it.
func TestRules(t *testing.T) {
	tests := []struct {
		name  string
		check func(*tree) []finding
		files map[string]string
		want  string // part of the only finding; "": none
	}{
		{"agent imports fleet", imports, source("agent/link", `import _ "`+module+`/fleet"`), "may not import fleet"},
		{"shared imports agent", imports, source("shared/wire", `import _ "`+module+`/agent/slots"`), "may not import agent/slots"},
		{"product imports testbed", imports, source("fleet/web", `import _ "`+module+`/testbed/lab"`), "may not import testbed/lab"},
		{"adapters import each other", imports, source("fleet/web", `import _ "`+module+`/fleet/sqlite"`), "may not import fleet/sqlite"},
		{"package without a line", imports, source("agent/magic", ``), "not in the import table"},
		{"allowed", imports, source("shared/wire/sub", `import _ "`+module+`/shared/bundle"`), ""},
		{"wiring", imports, source("agent", `import _ "`+module+`/agent/link"`), ""},
		{"tests import freely", imports, map[string]string{"agent/link/a_test.go": "package link\nimport _ \"" + module + "/fleet\""}, ""},

		{"bbolt elsewhere", dependencies, source("agent/queue", `import _ "go.etcd.io/bbolt"`), "may not use go.etcd.io/bbolt"},
		{"bbolt at home", dependencies, source("agent/state", `import _ "go.etcd.io/bbolt"`), ""},
		{"go-cmp in the product", dependencies, source("fleet/web", `import _ "github.com/google/go-cmp/cmp"`), "may not use github.com/google/go-cmp"},

		{"agent contains purego", reach, merge(
			source("agent/cmd/dunlin-agent", `import _ "`+module+`/agent/infer"`),
			source("agent/infer", `import _ "`+module+`/agent/infer/litert"`)), "contains agent/infer/litert by way of agent/cmd/dunlin-agent -> agent/infer"},

		{"no package comment", packageComment, map[string]string{"fleet/a.go": "package fleet"}, "0 package comments"},
		{"two package comments", packageComment, map[string]string{"fleet/fleet.go": "// Package fleet a.\npackage fleet", "fleet/doc.go": "// Package fleet b.\npackage fleet"}, "2 package comments"},
		{"comment in the wrong file", packageComment, map[string]string{"fleet/a.go": "// Package fleet is.\npackage fleet"}, "belongs into"},
		{"comment with other words", packageComment, map[string]string{"fleet/fleet.go": "// Fleet is.\npackage fleet"}, "does not begin"},
		{"one package comment", packageComment, map[string]string{"fleet/fleet.go": "// Package fleet is.\npackage fleet"}, ""},

		{"write past durable", durableWrites, source("agent/link", "import \"os\"\nvar _ = os.WriteFile"), "os.WriteFile outside"},
		{"renamed import", durableWrites, source("shared/trust", "import o \"os\"\nvar _ = o.Rename"), "os.Rename outside"},
		{"durable itself", durableWrites, source("shared/durable", "import \"os\"\nvar _ = os.Rename"), ""},

		{"sleep", banned, source("fleet/broker", "import \"time\"\nfunc f() { time.Sleep(1) }"), "time.Sleep"},
		{"init", banned, source("fleet/broker", "func init() {}"), "init runs"},
		{"undone", banned, source("fleet/broker", "// TODO: later\nvar x int"), "TODO"},
		{"skip", skips, map[string]string{"fleet/a_test.go": "package fleet\nimport \"testing\"\nfunc TestA(t *testing.T) { t.Skip() }"}, "left out"},

		{"long function", sizes, source("fleet", "func f() {"+strings.Repeat("\n", maxFunction)+"}"), "f has 81 lines"},
		{"long file", sizes, source("fleet", strings.Repeat("\n", maxFile)), "the limit is 500"},

		{"registry", places, map[string]string{"docs/a.md": "see https://py" + "pi.org/x"}, "docs/a.md:1"},
		{"machine", places, map[string]string{"scripts/a": "cd /ro" + "ot/x"}, "scripts/a:1"},
		{"system path", places, map[string]string{"docs/a.md": "/var/lib/dunlin/queue"}, ""},

		{"no glossary", glossary, map[string]string{"docs/a.md": ""}, "is missing"},
		{"broken link", links, map[string]string{"docs/a.md": "[b](b.md)"}, "nothing at b.md"},
		{"good links", links, map[string]string{"docs/a.md": "[b](../b.md#x) [c](https://example.org) [d](../docs)", "b.md": ""}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tree, err := load(files(tt.files))
			if err != nil {
				t.Fatal(err)
			}
			found := tt.check(tree)
			if tt.want == "" && len(found) == 0 {
				return
			}
			if tt.want == "" || len(found) != 1 || !strings.Contains(string(found[0]), tt.want) {
				t.Errorf("found %q, want %q", found, tt.want)
			}
		})
	}
}

// TestGlossaryRows breaks a glossary that is right otherwise.
func TestGlossaryRows(t *testing.T) {
	page := "| word | meaning |\n|---|---|\n"
	for _, w := range words {
		page += "| " + w + " | what it is |\n"
	}
	for name, tt := range map[string]struct{ page, want string }{
		"complete": {page, ""},
		"missing":  {strings.Replace(page, "| slot | what it is |\n", "", 1), `"slot" is missing`},
		"twice":    {page + "| worker | again |\n", `"worker" is there twice`},
		"order":    {page + "| a | last |\n", `"a" stands after "worker"`},
	} {
		t.Run(name, func(t *testing.T) {
			tree, err := load(files(map[string]string{glossaryPage: tt.page}))
			if err != nil {
				t.Fatal(err)
			}
			found := glossary(tree)
			if tt.want == "" && len(found) == 0 {
				return
			}
			if len(found) != 1 || !strings.Contains(string(found[0]), tt.want) {
				t.Errorf("found %q, want %q", found, tt.want)
			}
		})
	}
}

// source is a package with one file.
func source(dir, body string) map[string]string {
	return map[string]string{dir + "/a.go": "package p\n" + body}
}

func merge(list ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, m := range list {
		for k, v := range m {
			all[k] = v
		}
	}
	return all
}

func files(list map[string]string) fs.FS {
	m := fstest.MapFS{}
	for p, text := range list {
		m[p] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}
