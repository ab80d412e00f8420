package state

import (
	"encoding/json"
	"fmt"
)

// Bucket holds records of one type under string keys. The type is stored as JSON;
// its keys are forever.
type Bucket[T any] struct {
	db   *DB
	name []byte
}

// maxRecord bounds one record's JSON in bytes.
const maxRecord = 1 << 20

// NewBucket opens the bucket of an owner, "update.journal", making it when it is
// missing. A name has one owner and one type.
func NewBucket[T any](db *DB, name string) (*Bucket[T], error) {
	b := &Bucket[T]{db: db, name: []byte(name)}
	if name == "" || name == string(metaBucket) {
		return nil, fmt.Errorf("open bucket %q: the name is not allowed", name)
	}
	there := false
	err := db.View(func(tx *Tx) error {
		there = tx.bolt.Bucket(b.name) != nil
		return nil
	})
	if err == nil && !there {
		err = db.Update(func(tx *Tx) error {
			_, err := tx.bolt.CreateBucketIfNotExists(b.name)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", name, err)
	}
	return b, nil
}

// Get returns a record; false means that there is none.
func (b *Bucket[T]) Get(key string) (record T, ok bool, err error) {
	err = b.db.View(func(tx *Tx) error {
		record, ok, err = b.GetIn(tx, key)
		return err
	})
	return record, ok, err
}

// Put stores a record durably.
func (b *Bucket[T]) Put(key string, record T) error {
	return b.db.Update(func(tx *Tx) error { return b.PutIn(tx, key, record) })
}

// Delete removes a record durably; a missing one is no error.
func (b *Bucket[T]) Delete(key string) error {
	return b.db.Update(func(tx *Tx) error { return b.DeleteIn(tx, key) })
}

// All returns every record of the bucket.
func (b *Bucket[T]) All() (map[string]T, error) {
	all := map[string]T{}
	err := b.db.View(func(tx *Tx) error {
		return tx.bolt.Bucket(b.name).ForEach(func(key, value []byte) error {
			record, err := b.decode(key, value)
			all[string(key)] = record
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// GetIn is Get within a transaction.
func (b *Bucket[T]) GetIn(tx *Tx, key string) (record T, ok bool, err error) {
	value := tx.bolt.Bucket(b.name).Get([]byte(key))
	if value == nil {
		return record, false, nil
	}
	if record, err = b.decode([]byte(key), value); err != nil {
		return record, false, err
	}
	return record, true, nil
}

// PutIn is Put within a transaction.
func (b *Bucket[T]) PutIn(tx *Tx, key string, record T) error {
	payload, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("store %s/%q: %w", b.name, key, err)
	}
	if len(payload) > maxRecord {
		return fmt.Errorf("store %s/%q: %d bytes are too many", b.name, key, len(payload))
	}
	if err := tx.bolt.Bucket(b.name).Put([]byte(key), seal(b.name, []byte(key), payload)); err != nil {
		return fmt.Errorf("store %s/%q: %w", b.name, key, err)
	}
	return nil
}

// DeleteIn is Delete within a transaction.
func (b *Bucket[T]) DeleteIn(tx *Tx, key string) error {
	if err := tx.bolt.Bucket(b.name).Delete([]byte(key)); err != nil {
		return fmt.Errorf("delete %s/%q: %w", b.name, key, err)
	}
	return nil
}

func (b *Bucket[T]) decode(key, value []byte) (record T, err error) {
	payload, err := unseal(b.name, key, value)
	if err != nil {
		return record, err
	}
	if err := json.Unmarshal(payload, &record); err != nil {
		return record, fmt.Errorf("record %s/%q: %w", b.name, key, err)
	}
	return record, nil
}
