package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// A copy is due after so many commits, or so long after the last copy.
const (
	copyCommits = 64
	copyEvery   = 10 * time.Minute
)

// copied is the newest copy.
type copied struct {
	generation uint64
	at         time.Time
}

func copyPaths(dir string) []string {
	return []string{filepath.Join(dir, "state.db.copy-1"), filepath.Join(dir, "state.db.copy-2")}
}

// newestCopy is the generation of the newest good copy, 0 for none.
func newestCopy(dir string) uint64 {
	newest := uint64(0)
	for _, path := range copyPaths(dir) {
		if m, reason, err := check(path); reason == nil && err == nil {
			newest = max(newest, m.Generation)
		}
	}
	return newest
}

// copyDue makes a copy when it is time. The caller holds the lock.
func (db *DB) copyDue() {
	if db.generation-db.copied.generation >= copyCommits || db.now().Sub(db.copied.at) >= copyEvery {
		db.copyNow()
	}
}

// copyNow replaces the older copy by the present state, after having checked it:
// damage must not reach the copies. What goes wrong is logged; the state itself
// is not in danger.
func (db *DB) copyNow() {
	err := db.copyTo()
	if err != nil {
		db.log.Warn("state was not copied", "err", err)
	}
	db.copied = copied{generation: db.generation, at: db.now()}
}

func (db *DB) copyTo() error {
	var b bytes.Buffer
	err := guard(func() error {
		return db.bolt.View(func(tx *bolt.Tx) error {
			_, err := tx.WriteTo(&b)
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("copy state: %w", err)
	}
	if _, err := checkBytes(b.Bytes()); err != nil {
		return fmt.Errorf("copy state: %w", err)
	}
	to, oldest := "", ^uint64(0)
	for _, path := range copyPaths(db.dir) {
		m, reason, err := check(path)
		if reason != nil || err != nil {
			m.Generation = 0 // not good: the first to go
		}
		if to == "" || m.Generation < oldest {
			to, oldest = path, m.Generation
		}
	}
	return durable.WriteFile(durable.OS{}, "state.copy", to, b.Bytes(), fileMode)
}

// generationFile holds the generation of the newest commit that was promised.
type generationFile struct {
	Format     int    `json:"format"`
	Generation uint64 `json:"generation"`
}

func generationPath(dir string) string { return filepath.Join(dir, "state.generation") }

func writeGeneration(dir string, n uint64) error {
	b, err := json.Marshal(generationFile{1, n})
	if err != nil {
		return err
	}
	return durable.WriteFile(durable.OS{}, "state.generation", generationPath(dir), b, fileMode)
}

// readGeneration returns 0 for a missing or damaged file: the database then
// speaks for itself.
func readGeneration(dir string) uint64 {
	b, err := durable.ReadFile(durable.OS{}, generationPath(dir), 256)
	if err != nil {
		return 0
	}
	var g generationFile
	if json.Unmarshal(b, &g) != nil || g.Format != 1 {
		return 0
	}
	return g.Generation
}
