// Package wipe makes a device clean: it takes away who it is, what it trusts, its
// models and its records. What the device is wiped of is decided by one file, the
// mark: before it is durable nothing is gone, from then on everything is, for
// whoever looks next goes on where a power cut stopped it.
//
// Files of flash memory may be read again from the chip by somebody who has it in
// their hands: what makes an old key worthless is that the server refuses it.
package wipe

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// Mark is the name of the mark in the state directory.
const Mark = "reset"

// owned tells whether an entry of the state directory is the device's own. Anything
// else stays: the directory may be a wrong one.
func owned(name string) bool {
	switch name {
	case "identity", "trust", "slots", "queue", "blobs", "cache":
		return true
	}
	return strings.HasPrefix(name, "state.db")
}

// All wipes the state directory dir. The caller holds its lock, and no part of the
// agent is open.
func All(fsys durable.FS, dir string) error {
	if err := durable.WriteFile(fsys, "reset.mark", filepath.Join(dir, Mark), nil, 0o600); err != nil {
		return fmt.Errorf("wipe: %w", err)
	}
	return Finish(fsys, dir)
}

// Begun tells whether a wipe began that did not end.
func Begun(fsys durable.FS, dir string) (bool, error) {
	_, err := fsys.Lstat(filepath.Join(dir, Mark))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Finish ends a wipe that began; without one it does nothing.
func Finish(fsys durable.FS, dir string) error {
	begun, err := Begun(fsys, dir)
	if err != nil || !begun {
		return err
	}
	// The identity goes first: without it nothing of the rest is used, by no version
	// of the agent.
	if err := durable.RemoveAll(fsys, "reset.identity", filepath.Join(dir, "identity")); err != nil {
		return fmt.Errorf("wipe: %w", err)
	}
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("wipe: %w", err)
	}
	for _, e := range entries {
		if !owned(e.Name()) {
			continue
		}
		if err := durable.RemoveAll(fsys, "reset.data", filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("wipe: %w", err)
		}
	}
	// What is being removed has another name until it is gone; the mark stays until
	// that is durable.
	if err := durable.Sweep(fsys, "reset.sweep", dir); err != nil {
		return fmt.Errorf("wipe: %w", err)
	}
	if err := fsys.SyncDir("reset.sweep", dir); err != nil {
		return fmt.Errorf("wipe: %w", err)
	}
	return durable.Remove(fsys, "reset.done", filepath.Join(dir, Mark))
}
