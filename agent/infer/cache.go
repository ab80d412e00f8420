package infer

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/dunlin-edge/dunlin/shared/durable"
)

// cachePath names the file by everything that packed weights depend on. The
// runtime does not notice another model's weights of the same shape.
func (s *Server) cachePath(slot Slot) string {
	sum := sha256.Sum256([]byte(slot.Key.Bundle + "\n" + slot.Key.Runtime))
	return filepath.Join(s.c.CacheDir, hex.EncodeToString(sum[:16])+".xnn")
}

// cache opens the packed weights of a slot: one that is whole for reading, one
// that is missing for writing when build is set, else none. A file that is not
// what was written is removed: used, it would give wrong answers without a word.
func (s *Server) cache(slot Slot, build bool) *os.File {
	if k := slot.Setup.Kernels; k != "" && k != XNNPACK {
		return nil // only XNNPACK packs
	}
	st, err := os.Stat(filepath.Join(slot.Dir, filepath.FromSlash(slot.Contract.File)))
	if err != nil || st.Size() < s.c.CacheMin || s.c.CacheDir == "" {
		return nil
	}
	path := s.cachePath(slot)
	want, err := durable.ReadFile(s.c.FS, path+".sha256", 128)
	if err == nil {
		if f := opened(path, strings.TrimSpace(string(want))); f != nil {
			return f
		}
	}
	s.dropCache(path)
	if !build {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		s.c.Log.Warn("packed weights are not kept", "err", err)
		return nil
	}
	return f
}

// opened returns the file when its bytes have the hash.
func opened(path, want string) *os.File {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil || hex.EncodeToString(h.Sum(nil)) != want {
		f.Close()
		return nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		f.Close()
		return nil
	}
	return f
}

func (s *Server) dropCache(path string) {
	for _, p := range []string{path + ".sha256", path} {
		if err := durable.Remove(s.c.FS, "infer.cache", p); err != nil {
			s.c.Log.Warn("packed weights are not removed", "err", err)
		}
	}
}

// keepCache notes the hash of the packed weights that a proof has built.
func (s *Server) keepCache(slot Slot) error {
	path := s.cachePath(slot)
	f, err := os.Open(path)
	if err != nil {
		return nil // none was built
	}
	defer f.Close()
	if _, err := os.Stat(path + ".sha256"); err == nil {
		return nil
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("packed weights: %w", err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("packed weights: %w", err)
	}
	return durable.WriteFile(s.c.FS, "infer.cache", path+".sha256", []byte(hex.EncodeToString(h.Sum(nil))+"\n"), 0o600)
}
