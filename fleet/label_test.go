package fleet

import (
	"errors"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

func TestLabels(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, c := range []struct {
		key, value string
		ok         bool
	}{
		{"site", "harbour", true}, {"example.org/site", "Pier 7", true}, {"a", "", true}, {"tier-1", "1.0+b", true}, {long[:63], long[:63], true},
		{"", "x", false}, {"Site", "x", false}, {"-site", "x", false}, {"site-", "x", false}, {"si te", "x", false}, {long, "x", false},
		{"site", long, false}, {"site", "a,b", false}, {"site", "a)", false}, {"site", "=", false}, {"site", " x", false}, {"site", "x\n", false}, {"site", "ä", false},
	} {
		if err := CheckLabel(c.key, c.value); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrLabel) {
			t.Errorf("%q=%q: %v", c.key, c.value, err)
		}
	}
}

// FuzzLabel: whatever is accepted as a label can be named by a selector, and only
// by one that says so.
func FuzzLabel(f *testing.F) {
	for _, s := range [][2]string{{"site", "harbour"}, {"a/b.c", "Pier 7"}, {"x", ""}, {"!x", "y"}, {"x in (a)", "b"}, {"x", "a,b"}, {"x", "\x00"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		if CheckLabel(key, value) != nil {
			return
		}
		have := map[string]string{key: value}
		for text, want := range map[string]bool{
			key + "=" + value: true, key + "==" + value: true, key + " in (other, " + value + ")": true, key: true,
			key + "!=" + value: false, "!" + key: false, key + " notin (" + value + ")": false, key + "=" + value + "x": false,
		} {
			sel, err := bundle.ParseSelector(text)
			if err != nil {
				if len(value) == 63 && strings.HasSuffix(text, "x") {
					continue // one longer than a value may be
				}
				t.Fatalf("label %q=%q cannot be named: %v", key, value, err)
			}
			if sel.Matches(have) != want {
				t.Errorf("%q=%q, selector %q: %v", key, value, text, !want)
			}
		}
	})
}
