package arch

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// packageComment checks that every package has exactly one package comment, in
// doc.go, in the file named like the package, or in main.go of a program.
func packageComment(t *tree) []finding {
	comments := map[string][]*goFile{}
	packages := map[string]bool{}
	for _, f := range t.files {
		if f.test() {
			continue
		}
		packages[f.dir()] = true
		if f.ast.Doc != nil {
			comments[f.dir()] = append(comments[f.dir()], f)
		}
	}
	var out []finding
	for _, dir := range slices.Sorted(maps.Keys(packages)) {
		list := comments[dir]
		if len(list) != 1 {
			out = append(out, finding(fmt.Sprintf("%s: %d package comments, not one", dir, len(list))))
			continue
		}
		f := list[0]
		start := "Package " + f.ast.Name.Name + " "
		homes := []string{"doc.go", f.ast.Name.Name + ".go", path.Base(dir) + ".go"}
		if f.main() {
			start, homes = "Command "+path.Base(dir)+" ", []string{"doc.go", "main.go"}
		}
		if !strings.HasPrefix(f.ast.Doc.Text(), start) {
			out = append(out, finding(fmt.Sprintf("%s: the package comment does not begin with %q", f.path, start)))
		}
		if !slices.Contains(homes, path.Base(f.path)) {
			out = append(out, finding(fmt.Sprintf("%s: the package comment belongs into one of %v", f.path, homes)))
		}
	}
	return out
}

// durableWrites checks that on a device only shared/durable makes and renames
// files.
func durableWrites(t *tree) []finding {
	writers := []string{"os.WriteFile", "os.Rename", "os.Create", "os.CreateTemp"}
	var out []finding
	for _, f := range t.files {
		if f.test() || !below(f.dir(), "agent", "shared") || below(f.dir(), "shared/durable") {
			continue
		}
		f.calls(func(name string, n ast.Node) {
			if slices.Contains(writers, name) {
				out = append(out, finding(fmt.Sprintf("%s: %s outside of shared/durable", f.line(n), name)))
			}
		})
	}
	return out
}

var unfinished = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)

// banned checks product code for what the house does not do: sleep, start things
// before main, leave things undone.
func banned(t *tree) []finding {
	var out []finding
	for _, f := range t.files {
		if ast.IsGenerated(f.ast) {
			continue
		}
		for _, group := range f.ast.Comments {
			if w := unfinished.FindString(group.Text()); w != "" && !below(f.dir(), "testbed/arch") {
				out = append(out, finding(fmt.Sprintf("%s: %s", f.line(group), w)))
			}
		}
		if !f.product() {
			continue
		}
		f.calls(func(name string, n ast.Node) {
			if name == "time.Sleep" {
				out = append(out, finding(f.line(n)+": time.Sleep: wait for a timer and the context"))
			}
		})
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				out = append(out, finding(f.line(d)+": init runs before anybody asked"))
			}
		}
	}
	return out
}

// maySkip are tests that may leave something out, with the reason.
var maySkip = map[string]string{}

// skips checks that no test leaves something out without a reason given here: a
// missing tool or library is a failure that says what to install.
func skips(t *tree) []finding {
	var out []finding
	for _, f := range t.files {
		if !f.test() || maySkip[f.path] != "" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if fn, ok := n.(*ast.FuncDecl); ok && strings.HasPrefix(fn.Name.Name, "Fuzz") {
				return false // there it only tells the fuzzer that an input is of no use
			}
			if s, ok := n.(*ast.SelectorExpr); ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, s.Sel.Name) {
				if x, ok := s.X.(*ast.Ident); ok && slices.Contains([]string{"t", "b", "tb", "f"}, x.Name) {
					out = append(out, finding(f.line(n)+": a test that is left out proves nothing"))
				}
			}
			return true
		})
	}
	return out
}

// Limits of size. They are above the guides (60, 500, 2,000), so that a list may
// be longer; what is larger still is in `large` with its reason. Generated files
// may be as long as their generator likes.
const (
	maxFunction = 80
	maxFile     = 500
	maxPackage  = 2300
)

// large is what may be larger, by function ("dir.Name"), file or package.
var large = map[string]string{}

func sizes(t *tree) []finding {
	var out []finding
	lines := map[string]int{}
	for _, f := range t.files {
		if f.test() || ast.IsGenerated(f.ast) {
			continue
		}
		lines[f.dir()] += f.lines()
		if n := f.lines(); n > maxFile && large[f.path] == "" {
			out = append(out, finding(fmt.Sprintf("%s: %d lines, the limit is %d", f.path, n, maxFile)))
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || large[f.dir()+"."+fn.Name.Name] != "" {
				continue
			}
			if n := span(f.fset, fn); n > maxFunction {
				out = append(out, finding(fmt.Sprintf("%s: %s has %d lines, the limit is %d", f.line(fn), fn.Name.Name, n, maxFunction)))
			}
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(lines)) {
		if lines[dir] > maxPackage && large[dir] == "" {
			out = append(out, finding(fmt.Sprintf("%s: %d lines in the package, the limit is %d", dir, lines[dir], maxPackage)))
		}
	}
	return out
}

func span(fset *token.FileSet, n ast.Node) int {
	return fset.Position(n.End()).Line - fset.Position(n.Pos()).Line + 1
}

var (
	// registries are hosts that only tools may know, from their own settings.
	registries = regexp.MustCompile(`(?i)\b(pypi\.org|pythonhosted\.org|registry\.npmjs\.org|proxy\.golang\.org|sum\.golang\.org|deb\.debian\.org|archive\.ubuntu\.com|registry-1\.docker\.io|crates\.io)\b`)
	// machines are paths of somebody's machine.
	machines = regexp.MustCompile(`(^|[\s"'=(:\x60])/(work|root|Users|tmp/plan)/`)
)

// places checks that the repository does not depend on a certain machine or on
// where packages come from.
func places(t *tree) []finding {
	var out []finding
	for _, p := range slices.Sorted(maps.Keys(t.texts)) {
		if below(p, "testbed/arch") || strings.HasSuffix(p, "package-lock.json") {
			continue
		}
		for i, line := range strings.Split(t.texts[p], "\n") {
			for _, re := range []*regexp.Regexp{registries, machines} {
				if m := re.FindString(line); m != "" {
					out = append(out, finding(fmt.Sprintf("%s:%d: %s", p, i+1, strings.TrimSpace(m))))
				}
			}
		}
	}
	return out
}
