package trust

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// MaxBlob is the longest blob that is downloaded.
const MaxBlob = 4 << 30

// syncEvery is how many bytes are written between two durable notes of progress:
// a power cut costs at most as much.
const syncEvery = 1 << 20

func parseDigest(digest string) (Blob, error) {
	var b Blob
	h, ok := strings.CutPrefix(digest, "sha256:")
	raw, err := hex.DecodeString(h)
	if !ok || err != nil || len(raw) != len(b.Digest) {
		return b, refuse(CodeMalformed, "%q is no SHA-256 digest", digest)
	}
	copy(b.Digest[:], raw)
	return b, nil
}

func (c *Client) blobPath(digest string) (string, error) {
	b, err := parseDigest(digest)
	return filepath.Join(c.c.Blobs, hex.EncodeToString(b.Digest[:])), err
}

// Have returns the path of a blob that was downloaded whole.
func (c *Client) Have(digest string) (string, bool) {
	p, err := c.blobPath(digest)
	if err != nil {
		return "", false
	}
	_, err = c.c.FS.Stat(p)
	return p, err == nil
}

// Download returns the path of a blob, fetching what is missing of it. Progress
// survives a restart; the blob gets its name only after its bytes were compared
// with the digest, when nobody can write to them any more. Bytes that differ are
// thrown away with a Refusal. A source that says it is done and sent too little or
// too much is refused as well; what it sent into its right place waits for the next
// source. Of several downloads of one blob one does the work.
func (c *Client) Download(ctx context.Context, src Source, digest string, length int64) (string, error) {
	b, err := parseDigest(digest)
	if err != nil {
		return "", err
	}
	if length <= 0 || length > MaxBlob {
		return "", refuse(CodeTooLarge, "blob %s of %d bytes", digest, length)
	}
	b.Length = length
	done, err := c.downloads.begin(ctx, b.Digest)
	if err != nil {
		return "", fmt.Errorf("download %s: %w", digest, err)
	}
	defer done()
	p, ok := c.Have(digest)
	if ok {
		// A power cut may have left the note of a progress that has ended.
		return p, durable.Remove(c.c.FS, "trust.have", p+haveSuffix)
	}
	d, err := c.openPartial(p, length)
	if err != nil {
		return "", fmt.Errorf("download %s: %w", digest, err)
	}
	err = c.fill(ctx, src, b, d)
	if cerr := d.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", fmt.Errorf("download %s: %w", digest, err)
	}
	return p, d.publish(b)
}

func (c *Client) fill(ctx context.Context, src Source, b Blob, d *partial) error {
	missing := d.missing()
	if len(missing) == 0 {
		return nil
	}
	if err := src.Fetch(ctx, b, missing, d); err != nil {
		return errors.Join(err, d.note())
	}
	if err := d.note(); err != nil {
		return err
	}
	if len(d.missing()) > 0 {
		return refuse(CodeBlob, "the source ended before the blob did")
	}
	return nil
}

// Forget drops a blob, whole or partial, unless it is being downloaded.
func (c *Client) Forget(digest string) error {
	b, err := parseDigest(digest)
	if err != nil {
		return err
	}
	done, ok := c.downloads.try(b.Digest)
	if !ok {
		return nil
	}
	defer done()
	p, _ := c.blobPath(digest)
	for _, f := range []string{p, p + partSuffix, p + haveSuffix} {
		if err := durable.Remove(c.c.FS, "trust.forget", f); err != nil {
			return fmt.Errorf("forget %s: %w", digest, err)
		}
	}
	return nil
}

// Sweep drops every blob, whole or partial, but those to keep and those that are
// being downloaded. Files that are no blobs stay.
func (c *Client) Sweep(keep map[string]bool) error {
	entries, err := c.c.FS.ReadDir(c.c.Blobs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep blobs: %w", err)
	}
	for _, e := range entries {
		name := strings.TrimSuffix(strings.TrimSuffix(e.Name(), partSuffix), haveSuffix)
		digest := "sha256:" + name
		if _, err := parseDigest(digest); err != nil || keep[digest] {
			continue
		}
		if err := c.Forget(digest); err != nil {
			return err
		}
	}
	return nil
}

const (
	partSuffix = ".part"
	haveSuffix = ".have"
)

// partial is a blob under way: its bytes and the ranges of it that are synced.
type partial struct {
	fsys   durable.FS
	path   string
	length int64
	every  int64 // bytes between two notes

	mu      sync.Mutex
	file    durable.File
	have    []Range // sorted, not touching
	unnoted int64
	lost    error // a sync failed: what is in the file is not known
}

// openPartial goes on with what is there. Progress without its bytes, or that is
// damaged, counts for nothing.
func (c *Client) openPartial(path string, length int64) (*partial, error) {
	fsys := c.c.FS
	d := &partial{fsys: fsys, path: path, length: length, every: c.noteEvery}
	f, err := fsys.OpenFile("trust.part", path+partSuffix, durable.ReadWrite, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := durable.Remove(fsys, "trust.have", path+haveSuffix); err != nil {
			return nil, err
		}
		f, err = fsys.OpenFile("trust.part", path+partSuffix, durable.CreateNew, 0o600)
	}
	if err != nil {
		return nil, err
	}
	d.file = f
	b, err := durable.ReadFile(fsys, path+haveSuffix, 1<<20)
	if err == nil && json.Unmarshal(b, &d.have) != nil {
		d.have = nil
	}
	size := int64(0)
	if st, err := f.Stat(); err == nil {
		size = st.Size()
	}
	d.have = normal(d.have, min(size, length))
	return d, nil
}

// normal sorts, joins and bounds ranges.
func normal(rs []Range, limit int64) []Range {
	slices.SortFunc(rs, func(a, b Range) int { return cmp.Compare(a.Offset, b.Offset) })
	var out []Range
	for _, r := range rs {
		if r.Offset < 0 || r.Length <= 0 || r.Offset > limit-r.Length {
			continue
		}
		if n := len(out); n > 0 && r.Offset <= out[n-1].Offset+out[n-1].Length {
			out[n-1].Length = max(out[n-1].Length, r.Offset+r.Length-out[n-1].Offset)
			continue
		}
		out = append(out, r)
	}
	return out
}

func (d *partial) missing() []Range {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []Range
	at := int64(0)
	for _, r := range d.have {
		if r.Offset > at {
			out = append(out, Range{at, r.Offset - at})
		}
		at = r.Offset + r.Length
	}
	if at < d.length {
		out = append(out, Range{at, d.length - at})
	}
	return out
}

// WriteAt implements io.WriterAt for a Source; it refuses what lies outside.
func (d *partial) WriteAt(b []byte, off int64) (int, error) {
	if off < 0 || off > d.length-int64(len(b)) {
		return 0, refuse(CodeTooLarge, "bytes at %d of a blob of %d", off, d.length)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := d.file.WriteAt(b, off)
	if err != nil {
		return n, err
	}
	d.have = normal(append(d.have, Range{off, int64(n)}), d.length)
	d.unnoted += int64(n)
	if d.unnoted >= d.every {
		err = d.sync()
	}
	return n, err
}

func (d *partial) note() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sync()
}

// sync makes bytes durable before the note that they are there. When the disk
// refuses them, all of them are lost, whatever a second sync says.
func (d *partial) sync() error {
	if d.lost != nil {
		return d.lost
	}
	if err := d.file.Sync(); err != nil {
		d.lost = errors.Join(err, durable.Remove(d.fsys, "trust.have", d.path+haveSuffix), durable.Remove(d.fsys, "trust.part", d.path+partSuffix))
		return d.lost
	}
	b, err := json.Marshal(d.have)
	if err != nil {
		return err
	}
	d.unnoted = 0
	return durable.WriteFile(d.fsys, "trust.have", d.path+haveSuffix, b, 0o600)
}

func (d *partial) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.file.Close()
}

// publish compares the bytes with the digest and gives the blob its name.
func (d *partial) publish(b Blob) error {
	f, err := d.fsys.OpenFile("", d.path+partSuffix, durable.ReadOnly, 0)
	if err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, b.Length+1))
	f.Close()
	if err != nil {
		return err
	}
	if n != b.Length || [32]byte(h.Sum(nil)) != b.Digest {
		return errors.Join(refuse(CodeBlob, "blob %x is not what its digest says", b.Digest[:6]),
			durable.Remove(d.fsys, "trust.have", d.path+haveSuffix), durable.Remove(d.fsys, "trust.part", d.path+partSuffix))
	}
	if err := d.fsys.Rename("trust.blob", d.path+partSuffix, d.path); err != nil {
		return err
	}
	if err := d.fsys.SyncDir("trust.blob", filepath.Dir(d.path)); err != nil {
		d.fsys.Remove("trust.blob", d.path) // or the next try would take the name for durable
		return err
	}
	return durable.Remove(d.fsys, "trust.have", d.path+haveSuffix)
}
