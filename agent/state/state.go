// Package state is the only one that opens state.db. It hands out typed buckets,
// one per owner, and stands between them and what bbolt does about damage: panic,
// start empty, or fall back to an older commit without a word.
//
// Before bbolt sees the file, every page that it would follow and the checksum of
// every record are checked on the bytes. A generation that rises with each commit
// is kept in a second file, so that a fall back is seen. What fails is set aside,
// and the newest good one of two rotated copies takes its place; Health tells.
//
// state.db describes; nothing that a device cannot lose lives in it alone.
// Identity, trust and the pointers are files of their own, samples never come
// here.
//
// A DB and its buckets are safe for concurrent use; a directory has one DB.
package state

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// Schema is the number of the format of state.db.
//
// History:
//
//	1  2026-11-23  first
const Schema = 1

// Limits of the database.
const (
	pageSize = 4096 // fixed: kernels with pages of 16 KiB read it too
	maxSize  = 16 << 20
	fileMode = 0o600
)

// ErrDamaged is wrapped when what is stored is not what was stored. Opening anew
// repairs what can be repaired.
var ErrDamaged = errors.New("state is damaged")

// ErrSchema is wrapped when a newer agent wrote the database. Nothing is changed.
var ErrSchema = errors.New("state was written by a newer agent")

// Options of Open. Zero values are good.
type Options struct {
	Now func() time.Time // time.Now
	Log *slog.Logger     // says nothing
}

// DB is the open database.
type DB struct {
	dir  string
	now  func() time.Time
	log  *slog.Logger
	lock io.Closer
	bolt *bolt.DB

	mu         sync.Mutex // one Update at a time, with its generation file
	broken     error      // a commit that the disk did not take
	generation uint64
	copied     copied
}

// Open opens dir/state.db, repairing or starting it anew as Health tells. It fails
// when another process has it open, when a newer agent wrote it, or when the disk
// does not work.
func Open(dir string, o Options) (*DB, Health, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	db, h, err := open(dir, o)
	if err != nil {
		return nil, h, fmt.Errorf("open state: %w", err)
	}
	if !h.Whole() {
		o.Log.Error("state was damaged", "origin", h.Origin, "lost", h.Lost, "reason", h.Reason, "set_aside", h.SetAside)
	}
	return db, h, nil
}

func open(dir string, o Options) (_ *DB, h Health, err error) {
	disk := durable.OS{}
	if err := durable.MkdirAll(disk, "state.open", dir, 0o700); err != nil {
		return nil, h, err
	}
	db := &DB{dir: dir, now: o.Now, log: o.Log}
	if db.lock, err = durable.Lock(db.path(".lock")); err != nil {
		return nil, h, err
	}
	defer func() {
		if err != nil {
			db.Close()
		}
	}()
	if err := durable.Sweep(disk, "state.sweep", dir); err != nil {
		return nil, h, err
	}
	if h, err = db.repair(); err != nil {
		return nil, h, err
	}
	if db.bolt, err = openBolt(db.path("")); err != nil {
		return nil, h, err
	}
	db.generation = h.Generation
	db.copied = copied{generation: newestCopy(dir), at: o.Now()}
	if db.copied.generation < db.generation {
		db.copyNow()
	}
	return db, h, nil
}

// path is that of state.db with a suffix.
func (db *DB) path(suffix string) string { return filepath.Join(db.dir, "state.db"+suffix) }

// openBolt opens a file that was checked; a panic in spite of that is an error.
func openBolt(path string) (db *bolt.DB, err error) {
	err = guard(func() error {
		db, err = bolt.Open(path, fileMode, &bolt.Options{
			Timeout: time.Second, PageSize: pageSize, MaxSize: maxSize,
			NoFreelistSync: true, FreelistType: bolt.FreelistMapType,
		})
		return err
	})
	return db, err
}

// guard turns a panic or a fault on a mapped page into ErrDamaged.
func guard(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return do()
}

// Close ends all use. A copy is made when the last one is not of this generation.
func (db *DB) Close() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	var err error
	if db.bolt != nil {
		if db.copied.generation < db.generation {
			db.copyNow()
		}
		err = db.bolt.Close()
		db.bolt = nil
	}
	if db.lock != nil {
		err = errors.Join(err, db.lock.Close())
		db.lock = nil
	}
	return err
}

// Tx is a transaction of Update or View; it ends with the function.
type Tx struct{ bolt *bolt.Tx }

// View runs read on one state of all buckets.
func (db *DB) View(read func(*Tx) error) error {
	return guard(func() error {
		return db.bolt.View(func(tx *bolt.Tx) error { return read(&Tx{tx}) })
	})
}

// ErrBroken is wrapped by every Update after a commit that the disk refused: what
// the kernel shows of the file need not be what the disk holds. Reading goes on;
// the process must open the state anew to write.
var ErrBroken = errors.New("an earlier commit did not reach the disk")

// Update runs change and makes what it did durable, all of it or, after an error
// of change, nothing. After an error of the disk either one may be found when the
// state is opened next. It must not be called from within itself.
func (db *DB) Update(change func(*Tx) error) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.broken != nil {
		return fmt.Errorf("update state: %w: %w", ErrBroken, db.broken)
	}
	next, changed := db.generation+1, false
	err := guard(func() error {
		return db.bolt.Update(func(tx *bolt.Tx) error {
			if err := change(&Tx{tx}); err != nil {
				return err
			}
			changed = true
			return putMarker(tx, marker{Schema: Schema, Generation: next})
		})
	})
	if err != nil {
		// A full disk refuses before anything was promised.
		if changed && !errors.Is(err, syscall.ENOSPC) {
			db.broken = err
		}
		return err
	}
	db.generation = next
	// Only now is the commit promised: a device that loses it later must notice.
	if err := writeGeneration(db.dir, next); err != nil {
		return fmt.Errorf("update state: %w", err)
	}
	db.copyDue()
	return nil
}
