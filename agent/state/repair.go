package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// Origin says where the state that was opened comes from.
type Origin string

// Origins.
const (
	Kept  Origin = "kept"  // the file was good
	New   Origin = "new"   // there was nothing before
	Copy  Origin = "copy"  // a rotated copy took the file's place
	Empty Origin = "empty" // there was something, and nothing of it was good
)

// Health is what Open found and did.
type Health struct {
	Origin     Origin
	Generation uint64 // of the state that was opened
	Lost       uint64 // commits that are known to have been and are gone, at least
	SetAside   string // the damaged file, for somebody to look at; "" for none
	Reason     string // what was wrong, "" when Whole
}

// Whole tells that nothing was lost.
func (h Health) Whole() bool { return h.Reason == "" }

// repair makes state.db a file that bbolt can open without harm.
func (db *DB) repair() (Health, error) {
	if err := durable.Remove(durable.OS{}, "state.new", db.path(".new")); err != nil {
		return Health{}, err
	}
	promised := readGeneration(db.dir)
	m, reason, err := check(db.path(""))
	if err != nil {
		return Health{}, err
	}
	best := m
	origin, from := Kept, ""
	for _, path := range copyPaths(db.dir) {
		c, why, err := check(path)
		if err != nil {
			return Health{}, err
		}
		if why == nil && c.Generation > best.Generation {
			best, origin, from = c, Copy, path
		}
	}
	missing := errors.Is(reason, fs.ErrNotExist)
	switch {
	case reason == nil && origin == Kept && m.Generation >= promised:
		return Health{Origin: Kept, Generation: m.Generation}, nil
	case missing && from == "" && promised == 0:
		return Health{Origin: New, Generation: 1}, db.create(1)
	}
	h := Health{Origin: origin, Lost: promised - min(promised, best.Generation), Reason: explain(reason)}
	if from == "" && reason != nil {
		h.Origin = Empty
	}
	return db.replace(h, from, missing, max(promised, best.Generation)+1)
}

func explain(reason error) string {
	switch {
	case errors.Is(reason, fs.ErrNotExist):
		return "state.db is missing"
	case reason != nil:
		return reason.Error()
	}
	return "state.db is older than what was promised"
}

// replace puts what is best in the place of state.db and goes on with a
// generation above everything that was promised.
func (db *DB) replace(h Health, from string, missing bool, next uint64) (Health, error) {
	var err error
	if h.Origin != Kept && !missing {
		if h.SetAside, err = db.setAside(); err != nil {
			return h, err
		}
	}
	h.Generation = next
	if h.Origin == Empty {
		return h, db.create(next)
	}
	if h.Origin == Copy {
		b, err := durable.ReadFile(durable.OS{}, from, maxSize)
		if err != nil {
			return h, err
		}
		if err := durable.WriteFile(durable.OS{}, "state.restore", db.path(""), b, fileMode); err != nil {
			return h, err
		}
	}
	return h, db.stamp(db.path(""), next)
}

// create makes an empty database beside its name, so that one that was cut off
// while being initialised is never found under it.
func (db *DB) create(generation uint64) error {
	fresh := db.path(".new")
	if err := db.stamp(fresh, generation); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	return durable.PublishFile(durable.OS{}, "state.create", fresh, db.path(""))
}

// stamp writes the marker into a database, making it when it is missing, and then
// the generation file.
func (db *DB) stamp(path string, generation uint64) error {
	b, err := openBolt(path)
	if err != nil {
		return err
	}
	err = guard(func() error {
		return b.Update(func(tx *bolt.Tx) error {
			return putMarker(tx, marker{Schema: Schema, Generation: generation})
		})
	})
	if err = errors.Join(err, b.Close()); err != nil {
		return err
	}
	if path != db.path("") {
		return nil // not yet what is promised
	}
	return writeGeneration(db.dir, generation)
}

// maxSetAside damaged files are kept, the newest ones.
const maxSetAside = 3

// setAside renames the damaged file so that it can be looked at.
func (db *DB) setAside() (string, error) {
	disk := durable.OS{}
	aside := func(n int) string { return db.path(fmt.Sprintf(".damaged-%d", n)) }
	for n := maxSetAside - 1; n >= 1; n-- {
		if err := disk.Rename("state.aside", aside(n), aside(n+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	if err := disk.Rename("state.aside", db.path(""), aside(1)); err != nil {
		return "", err
	}
	return aside(1), disk.SyncDir("state.aside", db.dir)
}

// check reads a database file as bytes. reason says why it must not be opened;
// err that nothing can be said, or that it must be left alone.
func check(path string) (m marker, reason, err error) {
	if info, err := os.Stat(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return m, err, nil
		}
		return m, nil, err
	} else if info.Size() > maxSize {
		return m, damage("%d bytes are too many", info.Size()), nil
	}
	b, err := durable.ReadFile(durable.OS{}, path, maxSize)
	if err != nil {
		return m, damage("%v", err), nil // a sector that cannot be read
	}
	m, reason = checkBytes(b)
	if reason == nil && m.Schema > Schema {
		return m, nil, fmt.Errorf("%s has schema %d, this agent knows %d: %w", filepath.Base(path), m.Schema, Schema, ErrSchema)
	}
	return m, reason, nil
}

// checkBytes verifies structure and every record and returns the marker.
func checkBytes(file []byte) (m marker, err error) {
	found := false
	err = walk(file, func(bucket, key, value []byte) error {
		payload, err := unseal(bucket, key, value)
		if err != nil {
			return err
		}
		if string(bucket) != string(metaBucket) || string(key) != string(markerKey) {
			return nil
		}
		found = true
		if err := json.Unmarshal(payload, &m); err != nil {
			return damage("marker: %v", err)
		}
		return nil
	})
	if err == nil && !found {
		err = damage("no marker")
	}
	if err != nil {
		return marker{}, err
	}
	return m, nil
}
