// Package attacks is the catalogue of attacks on a fleet: what was stolen, what the
// attacker does with it, and how it ends. Most rows make their attack on the real
// client with files that the real server made; the others point to the test that
// does. docs/security-model.md shows the same table.
package attacks

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/shared/trust/trusttest"
)

type doc = trusttest.Doc

// attack is a row of the catalogue. One of forge, run and test is set.
type attack struct {
	name string // what the attacker does
	// powers are keys that the attacker has, and where; empty: those of the group.
	powers string
	// code of the refusal, of the device or of the server; empty when nothing is
	// refused, holds says then what stays true.
	code  string
	holds string
	// forge alters files that come to a device next: it must refuse them.
	forge func(*forgery)
	// run is any other attack on the world.
	run func(*testing.T, *world)
	// test is "folder TestName" and, behind a colon, a literal in it.
	test string
}

// group are attacks with one thing that was stolen.
type group struct {
	stolen string
	powers string
	rows   []attack
}

// catalogue is all of it, in the order of the page.
func catalogue() []group {
	return slices.Concat(networkRows(), directorRows(), onlineRows(), publisherRows(), teamRows(), rootRows(), serverRows(), elsewhereRows())
}

// least is how many attacks there must be.
const least = 60

// TestCatalogue makes every attack.
func TestCatalogue(t *testing.T) {
	w := newWorld(t)
	n, pointed := 0, 0
	names := map[string]bool{}
	for _, g := range catalogue() {
		for _, a := range g.rows {
			n++
			key := g.stolen + "/" + strings.TrimSpace(a.powers+" "+a.name)
			if names[key] || a.code == "" && a.holds == "" {
				t.Errorf("%s: twice, or without an end", key)
			}
			names[key] = true
			t.Run(key, func(t *testing.T) {
				switch {
				case a.forge != nil:
					w.forged(t, a)
				case a.run != nil:
					a.run(t, w)
				case a.test == "" && strings.Contains(a.holds, "**this succeeds**"):
					// The page says so: there is nothing to refuse.
				default:
					pointed++
					exists(t, a.test)
				}
			})
		}
	}
	t.Logf("%d attacks, %d of them in other packages", n, pointed)
	if n < least {
		t.Errorf("%d attacks, %d are promised", n, least)
	}
}

// forged lets a device believe what is early, sends it a forgery of what is later, and
// wants it refused, with nothing changed and the way to what is honest open.
func (w *world) forged(t *testing.T, a attack) {
	d := w.device(t)
	d.believes(honest(w.early))
	f := w.forge(t, w.later)
	a.forge(f)
	d.refuses(sends(f.Send()), a.code)
	if got := d.believes(honest(w.last)); got.Generation != 99 {
		t.Errorf("an honest refresh afterwards: %+v", got)
	}
}

// exists wants the test that a row points to, and the case in it.
func exists(t *testing.T, where string) {
	t.Helper()
	at, literal, _ := strings.Cut(where, ": ")
	dir, name, ok := strings.Cut(at, " ")
	files, err := filepath.Glob(filepath.Join("../..", dir, "*_test.go"))
	if !ok || err != nil || len(files) == 0 {
		t.Fatalf("%q: no tests there", where)
	}
	for _, p := range files {
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.SkipObjectResolution)
		must(t, err)
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Name.Name != name {
				continue
			}
			if literal != "" && !says(fn, literal) {
				t.Fatalf("%s in %s has no case %q", name, p, literal)
			}
			return
		}
	}
	t.Fatalf("there is no %s in %s", name, dir)
}

// says tells whether a text stands in a function.
func says(fn *ast.FuncDecl, text string) (found bool) {
	ast.Inspect(fn, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			s, err := strconv.Unquote(l.Value)
			found = found || err == nil && s == text
		}
		return !found
	})
	return found
}

// TestCodes wants every code of a device's refusals raised by an attack, and explained.
func TestCodes(t *testing.T) {
	raised := map[string]bool{}
	for _, g := range catalogue() {
		for _, a := range g.rows {
			raised[a.code] = true
		}
	}
	for _, m := range trust.Codes() {
		if !raised[m.Code] {
			t.Errorf("no attack ends with %s", m.Code)
		}
		if m.Attack == "" || trust.Next(m.Code) == "" {
			t.Errorf("%s is not explained", m.Code)
		}
	}
}

var update = flag.Bool("update", false, "write the tables into docs/security-model.md")

const (
	page  = "../../docs/security-model.md"
	begin = "<!-- attacks: written by 'go test ./testbed/attacks -run TestPage -update' -->\n"
	end   = "<!-- end of attacks -->"
)

// TestPage compares the page's tables with the catalogue.
func TestPage(t *testing.T) {
	b, err := os.ReadFile(page)
	must(t, err)
	head, rest, ok := strings.Cut(string(b), begin)
	_, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place for the attacks", page)
	}
	want := head + begin + table() + end + tail
	if *update {
		must(t, os.WriteFile(page, []byte(want), 0o644))
		return
	}
	if string(b) != want {
		t.Errorf("%s does not show the catalogue: run this test with -update", page)
	}
}

// table is the catalogue for people.
func table() string {
	var s strings.Builder
	n := 0
	fmt.Fprint(&s, "\n### Codes of a device's refusals\n\n| code | what was tried | what to do |\n|---|---|---|\n")
	for _, m := range trust.Codes() {
		fmt.Fprintf(&s, "| `%s` | %s | %s |\n", m.Code, m.Attack, m.Next)
	}
	for _, g := range catalogue() {
		fmt.Fprintf(&s, "\n### %s\n\nThe attacker has: %s.\n\n| # | the attacker | has besides | ends | test |\n|---|---|---|---|---|\n", g.stolen, g.powers)
		for _, a := range g.rows {
			n++
			test := "here"
			switch {
			case a.test != "":
				test = "`" + a.test + "`"
			case a.forge == nil && a.run == nil:
				test = "–"
			}
			ending := a.holds
			if a.code != "" {
				ending = strings.TrimSuffix("`"+a.code+"`; "+a.holds, "; ")
			}
			fmt.Fprintf(&s, "| %d | %s | %s | %s | %s |\n", n, a.name, a.powers, ending, test)
		}
	}
	return s.String() + "\n"
}
