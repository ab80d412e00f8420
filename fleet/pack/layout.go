package pack

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dunlin-edge/dunlin/shared/bundle"
)

// Write writes the bundle as an OCI image layout. An older layout in its place is
// replaced, anything else there is left alone and refused.
func (p *Plan) Write(dir string) error {
	if err := mayReplace(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".pack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := p.write(tmp); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

func mayReplace(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, bundle.LayoutFile)); err != nil {
		return refuse("pack.out", "pass another folder with --out", "%s exists and is no bundle", dir)
	}
	return nil
}

func (p *Plan) write(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	index, err := json.Marshal(bundle.Index{
		SchemaVersion: 2, MediaType: bundle.MediaTypeIndex,
		Manifests: []bundle.Descriptor{{
			MediaType: bundle.MediaTypeManifest, Digest: p.Digest, Size: int64(len(p.Raw)),
			Annotations: map[string]string{"org.opencontainers.image.ref.name": p.Contract.Version},
		}},
	})
	if err != nil {
		return err
	}
	for path, b := range map[string][]byte{
		bundle.LayoutFile: []byte(bundle.LayoutVersion), bundle.LayoutIndex: index,
		bundle.BlobPath(p.Digest):                     p.Raw,
		bundle.BlobPath(p.Manifest.Config.Digest):     p.RawConfig,
		bundle.BlobPath(p.Manifest.Contract().Digest): p.RawContract,
	} {
		if err := os.WriteFile(filepath.Join(dir, path), b, 0o644); err != nil {
			return err
		}
	}
	for _, f := range p.files {
		if err := p.copy(dir, f); err != nil {
			return err
		}
	}
	return nil
}

// copy writes one file and checks that it still is what was hashed before.
func (p *Plan) copy(dir string, f bundle.Source) error {
	d, _ := p.Manifest.Lookup(f.Path)
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.Create(filepath.Join(dir, bundle.BlobPath(d.Digest)))
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, bundle.VerifyReader(r, d)); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}
