package arch

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

const glossaryPage = "docs/glossary.md"

// words that the glossary must explain: the nouns of the design.
var words = []string{
	"bundle", "candidate", "catalog", "channel", "contract", "control group", "counter", "director", "event", "facts",
	"floor", "gate", "golden case", "hardware class", "labels", "model", "pair", "place", "probation", "release", "report",
	"rollback", "rollout", "runtime", "sample", "selector", "slot", "stage", "trial", "verdict", "wish", "worker",
}

var entry = regexp.MustCompile(`(?m)^\| ([^|]+?) +\| [^|]+ \|$`)

// glossary checks that every word of ours is explained once, in order.
func glossary(t *tree) []finding {
	text, ok := t.texts[glossaryPage]
	if !ok {
		return []finding{glossaryPage + " is missing"}
	}
	var out []finding
	explained := map[string]bool{}
	last := ""
	for _, m := range entry.FindAllStringSubmatch(text, -1) {
		row := m[1]
		if row == "word" {
			continue
		}
		if row < last {
			out = append(out, finding(fmt.Sprintf("%s: %q stands after %q", glossaryPage, row, last)))
		}
		last = row
		for w := range strings.SplitSeq(row, ", ") {
			if explained[w] {
				out = append(out, finding(fmt.Sprintf("%s: %q is there twice", glossaryPage, w)))
			}
			explained[w] = true
		}
	}
	for _, w := range words {
		if !explained[w] {
			out = append(out, finding(fmt.Sprintf("%s: %q is missing", glossaryPage, w)))
		}
	}
	return out
}

var link = regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)

// links checks that a page's links to other pages and files lead somewhere.
func links(t *tree) []finding {
	var out []finding
	for _, p := range slices.Sorted(maps.Keys(t.texts)) {
		if path.Ext(p) != ".md" {
			continue
		}
		for _, m := range link.FindAllStringSubmatch(t.texts[p], -1) {
			if strings.Contains(m[1], ":") {
				continue
			}
			target := path.Join(path.Dir(p), m[1])
			if !t.has(target) {
				out = append(out, finding(fmt.Sprintf("%s: nothing at %s", p, m[1])))
			}
		}
	}
	return out
}

// has says whether a file or a folder with one is there.
func (t *tree) has(target string) bool {
	return slices.ContainsFunc(t.paths, func(p string) bool { return below(p, target) })
}
