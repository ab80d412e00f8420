package catalog_test

import (
	"slices"
	"testing"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/catalog/catalogtest"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
)

// TestNewerAndAhead sends a device what it does not hold, and nothing at all when it holds
// something newer, which Ahead names.
func TestNewerAndAhead(t *testing.T) {
	r := installed(t)
	r.publish("dev", r.pub.Next("dev", map[*catalogtest.Bundle]int64{r.runtime("2.3.0"): 1}))
	now := catalog.Held{Root: 1, Timestamp: 2, Snapshot: 2, Targets: 1, Roles: map[string]int64{"dev": 2}}
	with := func(change func(*catalog.Held)) catalog.Held { h := now; change(&h); return h }
	for _, c := range []struct {
		about string
		held  catalog.Held
		files int
		ahead string
	}{
		{"a new device", catalog.Held{}, 5, ""},
		{"one that has everything", now, 0, ""},
		{"one of before the release", with(func(h *catalog.Held) { h.Timestamp, h.Snapshot, h.Roles = 1, 1, map[string]int64{"dev": 1} }), 3, ""},
		{"a newer role, older others", with(func(h *catalog.Held) { h.Timestamp, h.Snapshot, h.Roles = 1, 1, map[string]int64{"dev": 3} }), 0, "dev"},
		{"a newer root", with(func(h *catalog.Held) { h.Root, h.Timestamp = 2, 1 }), 0, "root"},
		{"newer targets", with(func(h *catalog.Held) { h.Targets = 2 }), 0, "targets"},
		{"a newer snapshot", with(func(h *catalog.Held) { h.Snapshot = 3 }), 0, "snapshot"},
		{"a newer timestamp", with(func(h *catalog.Held) { h.Timestamp = 3 }), 0, "timestamp"},
	} {
		rows, err := r.Newer(t.Context(), "dev", c.held)
		if err != nil || len(rows) != c.files {
			t.Errorf("%s: %d files, want %d, %v", c.about, len(rows), c.files, err)
		}
		if role, have, held, err := r.Ahead(t.Context(), "dev", c.held); err != nil || role != c.ahead || role != "" && held != have+1 {
			t.Errorf("%s: %q, have %d, held %d, %v", c.about, role, have, held, err)
		}
	}
}

// TestAfterRestore wants the online roles above all that was given out, and the
// next version of a channel above all that may have been published: publishers
// are told.
func TestAfterRestore(t *testing.T) {
	r := installed(t)
	_, err := r.db.Restore(t.Context(), sqlite.Restore{
		Jump: fleet.RestoreJump, Roles: 1000, At: r.now,
		Online: func(rows []fleet.MetaRow) ([]fleet.MetaRow, error) { return r.Jumped(rows, fleet.RestoreJump) },
	})
	must(t, err)
	rows, err := r.Metadata(t.Context())
	must(t, err)
	for _, row := range rows {
		want, floor := int64(1), int64(0)
		switch row.Role {
		case "snapshot", "timestamp":
			want = fleet.RestoreJump + 2
		case "dev", "staging", "production":
			floor = 1001
		}
		if row.Version != want || row.Floor != floor {
			t.Errorf("%s: version %d, floor %d, want %d and %d", row.Role, row.Version, row.Floor, want, floor)
		}
	}
	a := r.runtime("2.3.0")
	md := r.pub.Next("dev", map[*catalogtest.Bundle]int64{a: 1})
	r.refuses(fleet.ErrCatalogStale, func() error {
		_, err := r.Ingest(t.Context(), "dev", r.pub.SignRole(md), "anna")
		return err
	})
	md.Signed.Version = 1002
	if rs := r.publish("dev", md); len(rs) != 1 {
		t.Errorf("%+v", rs)
	}
}

// TestNewRootBringsAll gives a device that has not heard of a new root the root and
// everything under it, however far ahead a thief of the old keys has taken it: under
// new keys its versions begin anew. A device that knows the root and holds more is
// sent nothing.
func TestNewRootBringsAll(t *testing.T) {
	r := installed(t)
	c := r.change()
	next := *c.Publishers
	next.Online = c.ready()
	c.root, c.dir = next.CatalogRoot(), next.DirectorRoot()
	c.root.Signed.Version, c.dir.Signed.Version = 2, 2
	must(t, r.Amend(t.Context(), c.made(), "anna"))
	all := []string{"root", "timestamp", "snapshot", "targets", "dev"}
	for _, tc := range []struct {
		name  string
		held  catalog.Held
		want  []string
		ahead string
	}{
		{"up to date before", catalog.Held{Root: 1, Timestamp: 1, Snapshot: 1, Targets: 1, Roles: map[string]int64{"dev": 1}}, all, ""},
		{"timestamp far ahead", catalog.Held{Root: 1, Timestamp: 1 << 60, Snapshot: 1, Targets: 1, Roles: map[string]int64{"dev": 1}}, all, ""},
		{"all far ahead", catalog.Held{Root: 1, Timestamp: 1 << 60, Snapshot: 1 << 60, Targets: 1 << 60, Roles: map[string]int64{"dev": 1 << 60}}, all, ""},
		{"knows the root, far ahead", catalog.Held{Root: 2, Timestamp: 1 << 60, Snapshot: 1, Targets: 1, Roles: map[string]int64{"dev": 1}}, nil, "timestamp"},
		{"a root that is not here", catalog.Held{Root: 3}, nil, "root"},
	} {
		rows, err := r.Newer(t.Context(), "dev", tc.held)
		must(t, err)
		var got []string
		for _, x := range rows {
			got = append(got, x.Role)
		}
		role, _, _, err := r.Ahead(t.Context(), "dev", tc.held)
		must(t, err)
		if !slices.Equal(got, tc.want) || role != tc.ahead {
			t.Errorf("%s: %v and ahead by %q, want %v and %q", tc.name, got, role, tc.want, tc.ahead)
		}
	}
}
