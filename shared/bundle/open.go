package bundle

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"strings"
)

// Blobs hands out blobs by digest. What it returns is verified by the caller;
// a blob that is not there is an error that wraps fs.ErrNotExist.
type Blobs interface {
	Open(digest string) (io.ReadCloser, error)
}

// Bundle is a bundle whose manifest and contract were read and found valid; its
// files are verified when they are read.
type Bundle struct {
	Digest   string // of the manifest
	Raw      []byte // the manifest's bytes
	Manifest *Manifest
	Contract *Contract
	blobs    Blobs
}

// Read opens a bundle by the bytes of its manifest. The manifest's digest is the
// caller's to judge; everything that it names is judged by it.
func Read(manifest []byte, blobs Blobs) (*Bundle, error) {
	m, err := ParseManifest(manifest)
	if err != nil {
		return nil, err
	}
	b := &Bundle{Digest: DigestOf(manifest), Raw: manifest, Manifest: m, blobs: blobs}
	raw, err := b.read(m.Contract())
	if err != nil {
		return nil, err
	}
	if b.Contract, err = DecodeContract(raw); err != nil {
		return nil, err
	}
	if err := namesFiles(b.Contract, m); err != nil {
		return nil, err
	}
	return b, nil
}

// Blob opens a blob; reading it to the end verifies it.
func (b *Bundle) Blob(d Descriptor) (io.ReadCloser, error) {
	f, err := b.blobs.Open(d.Digest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refuse(CodeBlobMissing, "blob %s is missing", d.Digest)
	}
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{VerifyReader(f, d), f}, nil
}

// ReadFile returns the verified bytes of a file of the bundle.
func (b *Bundle) ReadFile(path string) ([]byte, error) {
	d, ok := b.Manifest.Lookup(path)
	if !ok {
		return nil, refuse(CodeBlobMissing, "the bundle has no file %q", path)
	}
	return b.read(d)
}

func (b *Bundle) read(d Descriptor) ([]byte, error) {
	f, err := b.Blob(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// Verify reads every blob against its digest.
func (b *Bundle) Verify() error {
	for _, d := range b.Manifest.Blobs() {
		f, err := b.Blob(d)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Check judges the bundle's content without running it: the model file against
// its static check and the contract, the golden cases, the labels.
func (b *Bundle) Check() error {
	c := b.Contract
	if c.Kind != KindModel {
		return nil
	}
	model, err := b.ReadFile(c.File)
	if err != nil {
		return err
	}
	if err := c.CheckModel(model); err != nil {
		return err
	}
	if c.Golden != nil {
		npz, err := b.ReadFile(c.Golden.File)
		if err != nil {
			return err
		}
		if _, err := LoadGolden(c, npz); err != nil {
			return err
		}
	}
	if c.Labels == "" {
		return nil
	}
	labels, err := b.ReadFile(c.Labels)
	if err != nil {
		return err
	}
	return c.CheckLabels(labels)
}

// Release is what the catalog signs about the bundle under a counter.
func (b *Bundle) Release(counter int64) Release {
	c := b.Contract
	return Release{
		Kind: c.Kind, Model: c.Model, Version: c.Version, Counter: counter, Size: b.Manifest.Size() + int64(len(b.Raw)),
		Hardware: c.Hardware, ABI: c.ABI, Needs: c.Runtime,
	}
}

// Names inside an OCI image layout.
const (
	LayoutFile    = "oci-layout"
	LayoutIndex   = "index.json"
	LayoutVersion = `{"imageLayoutVersion":"1.0.0"}`
)

// BlobPath is where a layout keeps a blob.
func BlobPath(digest string) string {
	return "blobs/sha256/" + strings.TrimPrefix(digest, digestPrefix)
}

// Layout is an OCI image layout as Blobs.
type Layout struct{ FS fs.FS }

// Open implements Blobs.
func (l Layout) Open(digest string) (io.ReadCloser, error) {
	if !ValidDigest(digest) {
		return nil, refuse(CodeManifestDigest, "%q is no SHA-256 digest", digest)
	}
	return l.FS.Open(BlobPath(digest))
}

// Index is the index.json of a layout with one bundle.
type Index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType,omitempty"`
	Manifests     []Descriptor `json:"manifests"`
}

// OpenLayout opens the one bundle of an OCI image layout.
func OpenLayout(fsys fs.FS) (*Bundle, error) {
	index, err := readIndex(fsys)
	if err != nil {
		return nil, err
	}
	if len(index.Manifests) != 1 {
		return nil, refuse(CodeLayoutMalformed, "%s names %d manifests, exactly one is wanted", LayoutIndex, len(index.Manifests))
	}
	d := index.Manifests[0]
	if err := d.validate(MaxManifest); err != nil {
		return nil, err
	}
	layout := Layout{fsys}
	raw, err := (&Bundle{blobs: layout}).read(d)
	if err != nil {
		return nil, err
	}
	return Read(raw, layout)
}

func readIndex(fsys fs.FS) (*Index, error) {
	if _, err := fs.Stat(fsys, LayoutFile); err != nil {
		return nil, refuse(CodeLayoutMalformed, "this is no OCI image layout: %v", err)
	}
	f, err := fsys.Open(LayoutIndex)
	if err != nil {
		return nil, refuse(CodeLayoutMalformed, "this is no OCI image layout: %v", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxManifest+1))
	if err != nil {
		return nil, err
	}
	index := &Index{}
	if len(b) > MaxManifest {
		return nil, refuse(CodeLayoutMalformed, "%s is larger than %d bytes", LayoutIndex, MaxManifest)
	}
	if err := scan(b, false); err != nil {
		return nil, refuse(CodeLayoutMalformed, "%s: %v", LayoutIndex, err)
	}
	if err := json.Unmarshal(b, index); err != nil {
		return nil, refuse(CodeLayoutMalformed, "%s: %v", LayoutIndex, err)
	}
	return index, nil
}
