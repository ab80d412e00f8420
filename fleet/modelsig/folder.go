package modelsig

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// maxFiles bounds the files of a folder.
const maxFiles = 20_000

// neverSigned is what the specification leaves out of every signature.
var neverSigned = []string{".git", ".gitignore", ".gitattributes", ".github"}

// VerifyFile verifies a model of one file against a signature; signature "" is the
// model.sig beside it.
func VerifyFile(path, signature string, policy *Policy, now time.Time) (*Statement, error) {
	dir, name := filepath.Split(path)
	dir = cmp.Or(dir, ".")
	s, err := verifyAt(cmp.Or(signature, filepath.Join(dir, Name)), policy, now)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := hashFile(root, name)
	if err != nil {
		return nil, err
	}
	if _, ok := s.files[single]; ok {
		f.Name = single
	}
	return s, s.Match([]File{f})
}

// VerifyFolder verifies a folder against a signature; signature "" is the model.sig
// in it. Files named as unsigned may be there without the signer knowing them.
func VerifyFolder(dir, signature string, policy *Policy, now time.Time, unsigned ...string) (*Statement, error) {
	signature = cmp.Or(signature, filepath.Join(dir, Name))
	s, err := verifyAt(signature, policy, now)
	if err != nil {
		return nil, err
	}
	self, err := within(dir, signature)
	if err != nil {
		return nil, err
	}
	files, err := s.hash(dir, self)
	if err != nil {
		return nil, err
	}
	return s, s.Match(files, unsigned...)
}

func verifyAt(signature string, policy *Policy, now time.Time) (*Statement, error) {
	raw, err := readSignature(signature)
	if err != nil {
		return nil, err
	}
	return Verify(raw, policy, now)
}

// within is a file's path from a folder; it leads out of it if the file lies elsewhere.
func within(dir, file string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if file, err = filepath.Abs(file); err != nil {
		return "", err
	}
	name, err := filepath.Rel(dir, file)
	return filepath.ToSlash(name), err
}

// hash hashes every file of a folder but those that the signer left out, the
// signature itself and those of git. Links and devices are refused, and nothing outside the
// folder is read.
func (s *Statement) hash(dir, self string) ([]File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	skip := append(slices.Concat(neverSigned, s.Ignore), self)
	var list []File
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if slices.Contains(skip, name) && name != "." {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return nil
		}
		if !d.Type().IsRegular() {
			return refuse(CodeFile, "remove it, or put a plain file in its place", "%s is not a plain file", name)
		}
		if len(list) == maxFiles {
			return refuse(CodeFile, "verify a folder that holds one model only", "%s holds more than %d files", dir, maxFiles)
		}
		f, err := hashFile(root, name)
		list = append(list, f)
		return err
	})
	return list, err
}

func hashFile(root *os.Root, name string) (File, error) {
	out := File{Name: name}
	f, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return out, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return out, fmt.Errorf("hash %s: %w", name, err)
	}
	h.Sum(out.Digest[:0])
	return out, nil
}

// readSignature reads a signature file.
func readSignature(path string) ([]byte, error) {
	b, err := readFile(path, MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errMissing("there is no signature at %s", path)
	}
	if errors.Is(err, errTooLarge) {
		return nil, errMalformed("%v", err)
	}
	return b, err
}

var errTooLarge = errors.New("larger than is read")

func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s has more than %d bytes: %w", path, limit, errTooLarge)
	}
	return b, err
}
