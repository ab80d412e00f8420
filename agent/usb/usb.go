// Package usb opens a lockbox, a folder that somebody carried here, and is one more
// source of what is to be verified. Its file system is taken for hostile: no link
// is followed, only regular files of the one file system are opened, sizes are
// bounded, no name that is read there is used, and nothing is kept open between
// two calls, so that it can be unmounted at any time. Whatever it brings is
// copied first and verified after by shared/trust.
//
// docs/usb.md is the format. A Stick is safe for concurrent use.
package usb

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/trust"
	"github.com/dunlin-edge/dunlin/shared/wire"
)

// Codes of how a stick ends, besides those of trust.
const (
	CodeNotOurs   = "usb.not_ours"  // no lockbox, or nothing in it for this device
	CodeFormat    = "usb.format"    // of a version that this agent does not know
	CodeMalformed = "usb.malformed" // a file of it is not what it should be
	CodeGone      = "usb.gone"      // it cannot be read or written any more
	CodeFull      = "usb.full"      // no room for the receipt
	CodeReadOnly  = "usb.read_only" // the receipt may not be written
)

// Error is an end with its code.
type Error struct {
	Code string
	Err  error
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() + " (" + e.Code + ")" }

// Unwrap returns what was wrong.
func (e *Error) Unwrap() error { return e.Err }

// Code of an error of this package, "" of any other.
func Code(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// Who says for whom a stick is opened.
type Who struct {
	Fleet   [32]byte // SHA-256 of the director's first root
	Device  string
	Channel string
}

// Stick is a lockbox with something for this device. It implements trust.Source.
type Stick struct {
	fsys durable.FS
	root string // of the lockbox, in fsys
	who  Who

	mu  sync.Mutex
	bad map[[32]byte]int // blobs that were not what their names say, how often
}

var _ trust.Source = (*Stick)(nil)

// Open looks at the lockbox in a folder.
func Open(path string, who Who) (*Stick, error) {
	return OpenIn(folder{path: path}, wire.LockboxDir, who)
}

// OpenIn looks at the lockbox that is the folder root of a file system.
func OpenIn(fsys durable.FS, root string, who Who) (*Stick, error) {
	s := &Stick{fsys: fsys, root: root, who: who, bad: map[[32]byte]int{}}
	b, err := durable.ReadFile(fsys, s.path(wire.LockboxMark), 256)
	if err != nil {
		return nil, &Error{CodeNotOurs, fmt.Errorf("there is no lockbox: %w", err)}
	}
	if _, err := fsys.Lstat(s.device()); err != nil {
		return nil, &Error{CodeNotOurs, fmt.Errorf("the lockbox holds nothing for this device: %w", err)}
	}
	if string(b) != wire.LockboxFormat {
		return nil, &Error{CodeFormat, fmt.Errorf("the lockbox is of another format, %.32q", b)}
	}
	return s, nil
}

func (s *Stick) path(names ...string) string {
	return filepath.Join(append([]string{s.root}, names...)...)
}

func (s *Stick) device() string {
	return s.path(wire.LockboxDevices, wire.LockboxName(s.who.Fleet, s.who.Device))
}

// Refresh implements trust.Source. The director's files come whatever is held, so
// that an older stick is refused as such; those of the catalog, which other routes
// renew, only when they or a root are newer: under new keys versions begin anew.
func (s *Stick) Refresh(_ context.Context, held trust.Held) ([]trust.File, error) {
	shared, err := s.metadata(s.path(wire.LockboxChannels, wire.LockboxName(s.who.Fleet, s.who.Channel)))
	if err != nil {
		return nil, err
	}
	own, err := s.metadata(s.device())
	if err != nil {
		return nil, err
	}
	for _, role := range []string{"timestamp", "snapshot", "targets"} {
		if !slices.ContainsFunc(own, func(f wire.MetaFile) bool { return f.Repo == trust.Director && f.Role == role }) {
			return nil, &Error{CodeMalformed, fmt.Errorf("the director's %s for this device is missing", role)}
		}
	}
	newer := false
	for _, f := range shared {
		newer = newer || f.Repo == trust.Catalog && (f.Role == "timestamp" && f.Version > held.Catalog.Timestamp || f.Role == "root" && f.Version > held.Catalog.Root)
	}
	var out []trust.File
	for _, f := range shared {
		if f.Role == "root" || f.Repo == trust.Catalog && newer {
			out = append(out, trust.File{Repo: f.Repo, Role: f.Role, Version: f.Version, Bytes: f.Bytes})
		}
	}
	for _, f := range own {
		if f.Repo == trust.Director && f.Role != "root" {
			out = append(out, trust.File{Repo: f.Repo, Role: f.Role, Version: f.Version, Bytes: f.Bytes})
		}
	}
	return out, nil
}

func (s *Stick) metadata(path string) ([]wire.MetaFile, error) {
	b, err := durable.ReadFile(s.fsys, path, wire.MaxMetaSet)
	if err != nil {
		return nil, reading(err)
	}
	set, err := wire.DecodeMetaSet(b)
	if err != nil {
		return nil, &Error{CodeMalformed, err}
	}
	return set.Files, nil
}

// reading says of a failure to read that the stick is gone: whether somebody
// pulled it or it is worn out is the same to the device.
func reading(err error) error {
	if err == nil || Code(err) != "" {
		return err
	}
	return &Error{CodeGone, err}
}

// blob opens a blob of the length that is signed.
func (s *Stick) blob(b trust.Blob) (durable.File, error) {
	s.mu.Lock()
	bad := s.bad[b.Digest] >= maxBad
	s.mu.Unlock()
	if bad {
		return nil, &Error{CodeMalformed, errors.New("the blob is not what its name says")}
	}
	f, err := s.fsys.OpenFile("", s.path(wire.LockboxBlobs, hex.EncodeToString(b.Digest[:])), durable.ReadOnly, 0)
	if err != nil {
		return nil, reading(err)
	}
	st, err := f.Stat()
	if err == nil && st.Size() != b.Length {
		err = &Error{CodeMalformed, fmt.Errorf("the blob has %d bytes, not %d", st.Size(), b.Length)}
	}
	if err != nil {
		f.Close()
		return nil, reading(err)
	}
	return f, nil
}

// Has tells whether the stick holds a blob of that length that may be good.
func (s *Stick) Has(b trust.Blob) bool {
	f, err := s.blob(b)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// maxBad is how often a blob of a stick may be wrong: the first time, its beginning
// may have come from elsewhere.
const maxBad = 2

// Distrust says that a blob with bytes of this stick was wrong. After the second
// time the stick has it no more.
func (s *Stick) Distrust(digest [32]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bad[digest]++
}

const copySize = 256 << 10

// Fetch implements trust.Source.
func (s *Stick) Fetch(ctx context.Context, b trust.Blob, missing []trust.Range, w io.WriterAt) error {
	f, err := s.blob(b)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, copySize)
	for _, r := range missing {
		for at, end := r.Offset, r.Offset+r.Length; at < end; {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := f.ReadAt(buf[:min(copySize, end-at)], at)
			if n > 0 {
				if _, err := w.WriteAt(buf[:n], at); err != nil {
					return err
				}
				at += int64(n)
			}
			if err != nil && at < end {
				return reading(err)
			}
		}
	}
	return nil
}

// WriteReceipt puts a receipt into the device's one place for it, where it takes
// the place of the one before; no other file is touched. It is durable when nil is
// returned; after an error the one before may still be there.
func (s *Stick) WriteReceipt(b []byte) error {
	if len(b) > wire.MaxReceipt {
		return &Error{CodeFull, fmt.Errorf("a receipt of %d bytes", len(b))}
	}
	dir := s.path(wire.LockboxReceipts)
	err := durable.MkdirAll(s.fsys, "usb.receipts", dir, 0o755)
	if err == nil {
		err = durable.Sweep(s.fsys, "usb.sweep", dir)
	}
	if err == nil {
		err = durable.WriteFile(s.fsys, "usb.receipt", filepath.Join(dir, wire.LockboxName(s.who.Fleet, s.who.Device)), b, 0o644)
	}
	return writing(err)
}

// writing names the end of a failure to write.
func writing(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return &Error{CodeFull, err}
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return &Error{CodeReadOnly, err}
	}
	return &Error{CodeGone, err}
}
