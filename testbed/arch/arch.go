// Package arch holds the house rules that a program can check: who may import
// whom, where files may be written, how large things may grow. Each rule is a
// function from the source tree to findings; the test runs all of them on this
// repository, and each on a small tree that breaks it.
package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// module is the import path of the repository.
const module = "github.com/dunlin-edge/dunlin"

// tree is a source tree: every Go file parsed, every other text file by its text.
type tree struct {
	fset  *token.FileSet
	files []*goFile
	texts map[string]string // by path; Go files too
	paths []string          // of every file
}

// goFile is one parsed Go file. Its path is relative to the root.
type goFile struct {
	path string
	ast  *ast.File
	fset *token.FileSet
}

func (f *goFile) dir() string { return path.Dir(f.path) }
func (f *goFile) test() bool  { return strings.HasSuffix(f.path, "_test.go") }
func (f *goFile) lines() int  { return f.fset.File(f.ast.FileStart).LineCount() }
func (f *goFile) main() bool  { return f.ast.Name.Name == "main" }
func (f *goFile) line(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.path, f.fset.Position(n.Pos()).Line)
}

// below says whether a path is one of the given folders or inside of one.
func below(p string, folders ...string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return p == f || strings.HasPrefix(p, f+"/") })
}

// product says whether the file is part of what is shipped.
func (f *goFile) product() bool { return !f.test() && below(f.dir(), "agent", "fleet", "shared") }

// finding is one breach of a rule, as a line for people.
type finding string

// rule is one house rule.
type rule struct {
	name  string
	check func(*tree) []finding
}

var rules = []rule{
	{"imports", imports},
	{"dependencies", dependencies},
	{"reach", reach},
	{"package comment", packageComment},
	{"durable writes", durableWrites},
	{"banned", banned},
	{"skips", skips},
	{"sizes", sizes},
	{"places", places},
	{"glossary", glossary},
	{"links", links},
}

// skipped are folders that hold nothing of ours.
var skipped = []string{".git", "build", "node_modules", "dist"}

// textFiles are the names and endings of files that are read as text.
var textFiles = []string{
	".go", ".md", ".py", ".sh", ".txt", ".yaml", ".yml", ".json", ".service", ".conf", ".mod",
	".ts", ".tsx", ".css", ".html", ".sql", "Makefile", "run", "get", "targets",
}

// load reads a tree.
func load(root fs.FS) (*tree, error) {
	t := &tree{fset: token.NewFileSet(), texts: map[string]string{}}
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains(skipped, d.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		t.paths = append(t.paths, p)
		shell := below(path.Dir(p), "scripts", "cross", ".ci")
		if !shell && !slices.ContainsFunc(textFiles, func(e string) bool { return strings.HasSuffix(p, e) }) {
			return nil
		}
		b, err := fs.ReadFile(root, p)
		if err != nil {
			return err
		}
		t.texts[p] = string(b)
		if !strings.HasSuffix(p, ".go") || strings.Contains("/"+p, "/testdata/") {
			return nil
		}
		f, err := parser.ParseFile(t.fset, p, b, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		t.files = append(t.files, &goFile{p, f, t.fset})
		return nil
	})
	return t, err
}

// calls visits every call of a package's function, "os.WriteFile", in a file.
func (f *goFile) calls(visit func(name string, n ast.Node)) {
	names := map[string]string{} // of packages in this file, to their paths
	for _, i := range f.ast.Imports {
		p := strings.Trim(i.Path.Value, `"`)
		name := path.Base(p)
		if i.Name != nil {
			name = i.Name.Name
		}
		names[name] = p
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := s.X.(*ast.Ident); ok && names[x.Name] != "" {
			visit(names[x.Name]+"."+s.Sel.Name, n)
		}
		return true
	})
}
