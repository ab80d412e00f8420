package sqlite

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/director"
	"github.com/dunlin-edge/dunlin/fleet/enroll"
	"github.com/dunlin-edge/dunlin/fleet/rollout"
	"github.com/dunlin-edge/dunlin/fleet/sqlite/storetest"
	"github.com/dunlin-edge/dunlin/fleet/telemetry"
	"github.com/dunlin-edge/dunlin/fleet/web"
)

// What consumers want is what this package has.
var (
	_ enroll.Store      = (*DB)(nil)
	_ telemetry.Store   = (*DB)(nil)
	_ rollout.Store     = (*DB)(nil)
	_ catalog.Store     = (*DB)(nil)
	_ director.Store    = (*DB)(nil)
	_ rollout.LoopStore = (*DB)(nil)
	_ web.Store         = (*DB)(nil)
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T, dir string) storetest.Store {
		db, err := Open(context.Background(), filepath.Join(dir, "fleet #1?.db")) // a name is a name
		if err != nil {
			t.Fatal(err)
		}
		return db
	})
}

// TestWhatIsCommittedIsSynced reads back how the connections are set: a commit is
// on disk before it returns, and readers cannot write.
func TestWhatIsCommittedIsSynced(t *testing.T) {
	db, err := Open(t.Context(), filepath.Join(t.TempDir(), "fleet.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for pragma, want := range map[string]string{"synchronous": "2", "journal_mode": "wal", "foreign_keys": "1"} {
		var got string
		if err := db.w.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, want %q, %v", pragma, got, want, err)
		}
	}
	if _, err := db.r.ExecContext(t.Context(), "DELETE FROM audit"); err == nil {
		t.Error("a reader wrote")
	}
}
