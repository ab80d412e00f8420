package slots

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// format is the number of both records. Version N reads what N-1 wrote.
const format = 1

// RecordName is the slot's own file in its place; no bundle may have it.
const RecordName = "slot.json"

// Limits of a record.
const (
	maxRecord = 1 << 20
	maxFiles  = 4096
	maxNote   = 64 << 10
	maxName   = 512
)

// Record says what a place holds. It is written last, so that a place with a
// record is whole.
type Record struct {
	Pair
	Files []File `json:"files"`
	// Note is the caller's own JSON about the slot, kept with it, at most 64 KiB.
	Note json.RawMessage `json:"note,omitempty"`
}

// File is one file of a slot.
type File struct {
	Name   string `json:"name"`   // slash-separated, below the place
	Digest string `json:"digest"` // "sha256:…"
	Size   int64  `json:"size"`   // bytes
}

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// namePart keeps to what every file system and every shell takes as it is.
var namePart = regexp.MustCompile(`^[A-Za-z0-9_+@=,%-][A-Za-z0-9._+@=,%-]*$`)

// checkName refuses what could leave the place, hide in it or clash with the
// slot's own record.
func checkName(name string) error {
	ok := name != "" && len(name) <= maxName && name == path.Clean(name) &&
		filepath.IsLocal(name) && !strings.EqualFold(name, RecordName)
	for _, part := range strings.Split(name, "/") {
		ok = ok && namePart.MatchString(part)
	}
	if !ok {
		return fmt.Errorf("file %q: %w", name, ErrName)
	}
	return nil
}

func (f File) check() error {
	if err := checkName(f.Name); err != nil {
		return err
	}
	if !digestForm.MatchString(f.Digest) {
		return fmt.Errorf("file %q: digest %q: %w", f.Name, f.Digest, ErrDigest)
	}
	if f.Size < 0 {
		return fmt.Errorf("file %q: size %d: %w", f.Name, f.Size, ErrDigest)
	}
	return nil
}

type storedRecord struct {
	Format int `json:"format"`
	Record
}

// encodeRecord checks what it writes, so that what is written can be read.
func encodeRecord(r *Record) ([]byte, error) {
	if len(r.Note) > maxNote {
		return nil, fmt.Errorf("note of %d bytes: %w", len(r.Note), ErrRecord)
	}
	b, err := json.Marshal(storedRecord{format, *r})
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	if _, err := decodeRecord(b); err != nil {
		return nil, err
	}
	return b, nil
}

func decodeRecord(b []byte) (*Record, error) {
	var s storedRecord
	if err := decode(b, &s); err != nil || s.Format != format {
		return nil, fmt.Errorf("record of format %d: %w", s.Format, ErrRecord)
	}
	if !digestForm.MatchString(s.Bundle) || s.Runtime != "" && !digestForm.MatchString(s.Runtime) {
		return nil, fmt.Errorf("record of {%q, %q}: %w", s.Bundle, s.Runtime, ErrRecord)
	}
	if len(s.Files) > maxFiles || len(b) > maxRecord {
		return nil, fmt.Errorf("record of %d files: %w", len(s.Files), ErrRecord)
	}
	seen := map[string]bool{}
	for _, f := range s.Files {
		if err := f.check(); err != nil {
			return nil, fmt.Errorf("record: %w: %w", ErrRecord, err)
		}
		// Case folding: two names must not be one file on any file system.
		if key := strings.ToLower(f.Name); seen[key] {
			return nil, fmt.Errorf("record: file %q twice: %w", f.Name, ErrRecord)
		} else {
			seen[key] = true
		}
	}
	return &s.Record, nil
}

// decode refuses unknown keys and anything behind the value.
func decode(b []byte, out any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(out); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("bytes behind the record")
	}
	return nil
}

func (m *Slots) readRecord(p Place) (*Record, error) {
	b, err := durable.ReadFile(m.fsys, filepath.Join(m.Dir(p), RecordName), maxRecord)
	if err != nil {
		return nil, err
	}
	return decodeRecord(b)
}

// verifyFile hashes at most one byte more than the file should have.
func (m *Slots) verifyFile(path string, want File) error {
	f, err := m.fsys.OpenFile("", path, durable.ReadOnly, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, want.Size+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", want.Name, err)
	}
	if n != want.Size || "sha256:"+hex.EncodeToString(h.Sum(nil)) != want.Digest {
		return fmt.Errorf("file %s: %w", want.Name, ErrDigest)
	}
	return nil
}
