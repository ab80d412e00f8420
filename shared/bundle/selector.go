package bundle

import (
	"regexp"
	"slices"
	"strings"
)

// Selector chooses among devices by their labels or facts. The zero value
// matches every device.
//
// Its text is that of Kubernetes' label selectors: requirements joined by commas,
// each of the form key, !key, key=value, key!=value, key in (a,b) or
// key notin (a,b). A device without the key matches !=, notin and !key.
type Selector struct {
	requirements []requirement
}

type requirement struct {
	key    string
	op     string // "exists", "absent", "in", "notin"
	values []string
}

// MaxSelector is the greatest length of a selector in bytes.
const MaxSelector = 1024

var (
	selectorKey   = regexp.MustCompile(`^[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?$`)
	selectorValue = regexp.MustCompile(`^[A-Za-z0-9]?([A-Za-z0-9 ._+/-]{0,61}[A-Za-z0-9])?$`)
	selectorSet   = regexp.MustCompile(`^(\S+)\s+(in|notin)\s*\(([^()]*)\)$`)
)

// ParseSelector reads a selector; the empty text matches every device.
func ParseSelector(s string) (Selector, error) {
	var sel Selector
	if len(s) > MaxSelector {
		return sel, refuse(CodeSelectorMalformed, "selector of %d bytes, at most %d are read", len(s), MaxSelector)
	}
	if strings.TrimSpace(s) == "" {
		return sel, nil
	}
	for _, part := range splitSelector(s) {
		r, ok := parseRequirement(strings.TrimSpace(part))
		if !ok {
			return Selector{}, refuse(CodeSelectorMalformed, "selector: %q is not understood; write it like 'arch=arm64,board in (rpi4,rpi5),!hold'", part)
		}
		sel.requirements = append(sel.requirements, r)
	}
	return sel, nil
}

// splitSelector splits at the commas outside of parentheses.
func splitSelector(s string) []string {
	var parts []string
	depth, start := 0, 0
	for i, c := range s {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

func parseRequirement(s string) (r requirement, ok bool) {
	if m := selectorSet.FindStringSubmatch(s); m != nil {
		r = requirement{key: m[1], op: m[2], values: strings.Split(m[3], ",")}
	} else if key, value, found := strings.Cut(s, "!="); found {
		r = requirement{key: key, op: "notin", values: []string{value}}
	} else if key, value, found := strings.Cut(s, "="); found {
		r = requirement{key: key, op: "in", values: []string{strings.TrimPrefix(value, "=")}}
	} else if key, found := strings.CutPrefix(s, "!"); found {
		r = requirement{key: key, op: "absent"}
	} else {
		r = requirement{key: s, op: "exists"}
	}
	r.key = strings.TrimSpace(r.key)
	for i, v := range r.values {
		r.values[i] = strings.TrimSpace(v)
		if !selectorValue.MatchString(r.values[i]) {
			return r, false
		}
	}
	return r, selectorKey.MatchString(r.key)
}

// Matches says whether a device with these labels or facts is chosen.
func (s Selector) Matches(facts map[string]string) bool {
	for _, r := range s.requirements {
		if !r.matches(facts) {
			return false
		}
	}
	return true
}

func (r requirement) matches(facts map[string]string) bool {
	v, has := facts[r.key]
	switch r.op {
	case "exists":
		return has
	case "absent":
		return !has
	case "in":
		return has && slices.Contains(r.values, v)
	default:
		return !has || !slices.Contains(r.values, v)
	}
}
