// Package backup is the file that a server can be made from again: a numbered
// format with a manifest of SHA-256 sums, the server's files, and its secrets
// sealed by a passphrase. Blobs are in it by digest and size only.
//
// The file, format 1:
//
//	dunlin-backup 1\n
//	LENGTH SHA256\n     of the manifest, decimal and hex
//	LENGTH SHA256\n     of the sealed secrets
//	the manifest, JSON
//	the sealed secrets: scrypt and NaCl secretbox, as in the files of offline keys
//	the files, in the manifest's order
//
// The secrets name the manifest's sum and the manifest names those of the files:
// whoever does not know the passphrase cannot change a byte unseen.
package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"

	"github.com/dunlin-edge/dunlin/fleet"
)

// Format is the number of the format that is written; older ones are read.
const Format = 1

const magic = "dunlin-backup "

// Limits of what is read into memory, in bytes.
const (
	maxLine     = 128
	maxManifest = 64 << 20
	maxSecrets  = 1 << 20
)

// Manifest says what a backup holds.
type Manifest struct {
	Made    time.Time `json:"made"`
	Server  string    `json:"server"`  // host name
	Version string    `json:"version"` // of the program that made it
	Schema  int64     `json:"schema"`  // of the database
	Files   []File    `json:"files"`
	Blobs   []Blob    `json:"blobs"`
}

// File is one file of the server's directory.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // hex
}

// Blob is content that lies elsewhere.
type Blob struct {
	Digest string `json:"digest"` // "sha256:…"
	Size   int64  `json:"size"`   // bytes; -1: was missing when the backup was made
}

// Secrets are files that are nowhere in clear, by name.
type Secrets map[string][]byte

// sealed is what the passphrase keeps.
type sealed struct {
	Manifest string  `json:"manifest"` // SHA-256, hex
	Secrets  Secrets `json:"secrets"`
}

// Source is a file to be put into a backup.
type Source struct {
	Name string
	io.ReadSeeker
}

// Write writes a backup. The manifest's Files are made from the sources.
func Write(w io.Writer, m Manifest, files []Source, secrets Secrets, passphrase []byte) error {
	m.Files = nil
	for _, f := range files {
		h := sha256.New()
		n, err := io.Copy(h, f)
		if err == nil {
			_, err = f.Seek(0, io.SeekStart)
		}
		if err != nil {
			return fmt.Errorf("back up %s: %w", f.Name, err)
		}
		m.Files = append(m.Files, File{f.Name, n, hex.EncodeToString(h.Sum(nil))})
	}
	manifest, err := json.Marshal(m)
	if err != nil {
		return err
	}
	plain, err := json.Marshal(sealed{sum(manifest), secrets})
	if err != nil {
		return err
	}
	box, err := encrypted.Encrypt(plain, passphrase)
	if err != nil {
		return fmt.Errorf("seal the secrets: %w", err)
	}
	head := fmt.Sprintf("%s%d\n%d %s\n%d %s\n", magic, Format, len(manifest), sum(manifest), len(box), sum(box))
	for _, b := range [][]byte{[]byte(head), manifest, box} {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	for i, f := range files {
		if _, err := io.CopyN(w, f, m.Files[i].Size); err != nil {
			return fmt.Errorf("back up %s: %w", f.Name, err)
		}
	}
	return nil
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// Archive is a backup that was read and found whole.
type Archive struct {
	Manifest
	Secrets Secrets

	r  io.ReaderAt
	at map[string]int64 // where each file begins
}

// Open reads a whole backup of size bytes and checks every sum; nothing of it is
// to be used after an error: ErrBackupForeign, ErrBackupFormat, ErrBackupDamaged
// or ErrBackupPassphrase.
func Open(r io.ReaderAt, size int64, passphrase []byte) (*Archive, error) {
	head, sums, err := readHead(r, size)
	if err != nil {
		return nil, err
	}
	manifest, err := readPart(r, head, sums[0], "manifest", size)
	if err != nil {
		return nil, err
	}
	box, err := readPart(r, head+sums[0].length, sums[1], "sealed secrets", size)
	if err != nil {
		return nil, err
	}
	a := &Archive{r: r, at: map[string]int64{}}
	if err := decode(manifest, &a.Manifest); err != nil {
		return nil, damaged("manifest: %v", err)
	}
	if err := a.checkFiles(head+sums[0].length+sums[1].length, size); err != nil {
		return nil, err
	}
	plain, err := encrypted.Decrypt(box, passphrase)
	if err != nil {
		return nil, fleet.ErrBackupPassphrase
	}
	var s sealed
	if err := decode(plain, &s); err != nil {
		return nil, damaged("sealed secrets: %v", err)
	}
	if s.Manifest != sum(manifest) {
		return nil, damaged("the manifest is not the one that was sealed with the secrets")
	}
	a.Secrets = s.Secrets
	return a, nil
}

func damaged(format string, args ...any) error {
	return fleet.ErrBackupDamaged.With("the backup is damaged: "+format, args...)
}

// part is the length and the sum of a part.
type part struct {
	length int64
	sum    string
}

var partLine = regexp.MustCompile(`^([1-9][0-9]{0,8}) ([0-9a-f]{64})$`)

// readHead reads the three lines and returns where the manifest begins.
func readHead(r io.ReaderAt, size int64) (at int64, parts [2]part, err error) {
	b := make([]byte, min(size, 3*maxLine))
	if n, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) || n < len(b) {
		return 0, parts, fmt.Errorf("read backup: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	first, rest, ok := bytes.Cut(b, []byte("\n"))
	number, ours := strings.CutPrefix(string(first), magic)
	if !ours {
		return 0, parts, fleet.ErrBackupForeign
	}
	format, err := strconv.Atoi(number)
	switch {
	case !ok || err != nil || format < 1:
		return 0, parts, damaged("its first line is %q", number)
	case format > Format:
		return 0, parts, fleet.ErrBackupFormat.With("the backup has format %d, this program reads up to %d", format, Format)
	}
	at = int64(len(first)) + 1
	for i := range parts {
		line, more, _ := bytes.Cut(rest, []byte("\n"))
		m := partLine.FindStringSubmatch(string(line))
		if m == nil {
			return 0, parts, damaged("line %d", i+2)
		}
		parts[i].length, _ = strconv.ParseInt(m[1], 10, 64) // at most nine digits
		parts[i].sum = m[2]
		at, rest = at+int64(len(line))+1, more
	}
	if parts[0].length > maxManifest || parts[1].length > maxSecrets {
		return 0, parts, damaged("its manifest or secrets are too long")
	}
	return at, parts, nil
}

func readPart(r io.ReaderAt, at int64, p part, what string, size int64) ([]byte, error) {
	if at+p.length > size {
		return nil, damaged("it ends in its %s", what)
	}
	b := make([]byte, p.length)
	if _, err := r.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read backup: %w", err)
	}
	if sum(b) != p.sum {
		return nil, damaged("the sum of its %s does not match", what)
	}
	return b, nil
}

// decode reads exactly one strict JSON value.
func decode(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

var fileName = regexp.MustCompile(`^[a-z][a-z0-9.-]{0,63}$`)

// checkFiles wants the files to fill the rest of the backup, each with its sum.
func (a *Archive) checkFiles(at, size int64) error {
	for _, f := range a.Files {
		if _, twice := a.at[f.Name]; twice || !fileName.MatchString(f.Name) || f.Size < 0 || f.Size > size-at {
			return damaged("file %q of %d bytes", f.Name, f.Size)
		}
		a.at[f.Name] = at
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(a.r, at, f.Size)); err != nil {
			return fmt.Errorf("read backup: %w", err)
		}
		if hex.EncodeToString(h.Sum(nil)) != f.SHA256 {
			return damaged("the sum of %s does not match", f.Name)
		}
		at += f.Size
	}
	if at != size {
		return damaged("%d bytes too many", size-at)
	}
	return nil
}

// File returns a file of the backup, nil when it is not in it.
func (a *Archive) File(name string) io.Reader {
	for _, f := range a.Files {
		if f.Name == name {
			return io.NewSectionReader(a.r, a.at[name], f.Size)
		}
	}
	return nil
}
