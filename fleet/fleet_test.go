package fleet

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// TestCodes reads codes.go: each code is noun.reason, stands there once, and says
// what to do next.
func TestCodes(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "codes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	shape := regexp.MustCompile(`^[a-z]+\.[a-z_]+$`)
	seen := map[string]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		lit, ok := n.(*ast.CompositeLit)
		if !ok || len(lit.Elts) != 4 {
			return true
		}
		var f [4]string
		for i, e := range lit.Elts {
			f[i] = strings.Trim(e.(*ast.BasicLit).Value, `"`)
		}
		status, err := strconv.Atoi(f[3])
		if !shape.MatchString(f[0]) || seen[f[0]] || f[1] == "" || f[2] == "" || err != nil || status < 400 || status > 599 {
			t.Errorf("code %q", f)
		}
		seen[f[0]] = true
		return true
	})
	if len(seen) < 30 {
		t.Errorf("only %d codes found", len(seen))
	}
}

func TestErrorsCompareByCode(t *testing.T) {
	err := fmt.Errorf("look up: %w", ErrDeviceUnknown.With("no device %q", "x"))
	if !errors.Is(err, ErrDeviceUnknown) || errors.Is(err, ErrDeviceRevoked) {
		t.Error(err)
	}
	var e *Error
	if !errors.As(err, &e) || e.Message != `no device "x"` || e.Next != ErrDeviceUnknown.Next || ErrDeviceUnknown.Message == e.Message {
		t.Errorf("%+v", e)
	}
}

func TestIDsSortByTime(t *testing.T) {
	var ids []string
	for n := range 50 {
		ids = append(ids, NewID(PrefixRollout, start.Add(time.Duration(n)*time.Millisecond)))
	}
	if !slices.IsSorted(ids) || len(slices.Compact(ids)) != 50 || !strings.HasPrefix(ids[0], "rol_") {
		t.Error(ids)
	}
}

func TestLabelsGoBeforeFacts(t *testing.T) {
	d := &Device{Labels: map[string]string{"site": "depot"}, Facts: map[string]string{"site": "moon", "arch": "arm64"}}
	if diff := cmp.Diff(map[string]string{"site": "depot", "arch": "arm64"}, d.Attributes()); diff != "" {
		t.Error(diff)
	}
	if d.Facts["site"] != "moon" || len(d.Labels) != 1 {
		t.Error("the device was changed")
	}
	if (&Device{}).Class() != "unknown" || len((&Device{}).Attributes()) != 0 {
		t.Error("a device that has told nothing")
	}
}

func TestReleaseFits(t *testing.T) {
	for _, c := range []struct {
		hardware string
		facts    map[string]string
		want     bool
	}{
		{"", map[string]string{"arch": "arm64"}, true}, {"arch=arm64", map[string]string{"arch": "arm64"}, true}, {"arch=arm64", map[string]string{"arch": "amd64"}, false},
		{"arch=arm64,npu", map[string]string{"arch": "arm64"}, false}, {"arch=arm64", nil, true}, {"not a selector", map[string]string{"arch": "arm64"}, false},
	} {
		r := &Release{Release: bundle.Release{Hardware: c.hardware}}
		// A label is no hardware.
		if got := r.Fits(&Device{Facts: c.facts, Labels: map[string]string{"npu": "yes"}}); got != c.want {
			t.Errorf("%q on %v: %v", c.hardware, c.facts, got)
		}
	}
}

func TestWishItems(t *testing.T) {
	w := &Wish{}
	for _, m := range []string{"m", "z", "a", "m"} {
		w.Put(Item{Model: m, Path: "p/" + m, Attempt: int64(len(w.Items))})
	}
	want := []Item{{Model: "a", Path: "p/a", Attempt: 2}, {Model: "m", Path: "p/m", Attempt: 3}, {Model: "z", Path: "p/z", Attempt: 1}}
	if diff := cmp.Diff(want, w.Items); diff != "" {
		t.Error(diff)
	}
	before := w.Items
	w.Remove("m")
	if _, ok := w.Item("m"); ok || len(w.Items) != 2 || before[1].Model != "m" {
		t.Errorf("%v, before %v", w.Items, before)
	}
	w.Remove("absent")
	if it, ok := w.Item("z"); !ok || it.Path != "p/z" {
		t.Errorf("%v", w.Items)
	}
}

func TestAccessTextIsNotKept(t *testing.T) {
	x, text := NewAccess("ann", RoleAdmin, time.Hour, start)
	y, other := NewAccess("ann", RoleAdmin, 0, start)
	if text == other || !strings.HasPrefix(text, AccessPrefix) || len(text) < 40 || x.Hash != sha256.Sum256([]byte(text)) {
		t.Errorf("%q %q", text, other)
	}
	if !x.Expires.Equal(start.Add(time.Hour)) || !y.Expires.IsZero() {
		t.Errorf("expires %v and %v", x.Expires, y.Expires)
	}
	if strings.Contains(fmt.Sprintf("%+v", x), strings.TrimPrefix(text, AccessPrefix)) {
		t.Error("the token itself is kept")
	}
}
