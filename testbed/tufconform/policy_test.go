package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/dunlin-edge/dunlin/shared/durable"
	"github.com/dunlin-edge/dunlin/shared/trust"
)

// TestDevicesWantMore reads the suite's kind of repository as strictly as a device
// reads its own.
func TestDevicesWantMore(t *testing.T) {
	for _, hashes := range []bool{false, true} {
		s := newSim(t)
		s.hashes = hashes
		s.publish("targets", "snapshot", "timestamp")
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "1.root.json"), s.files["root"][0], 0o600))
		r, err := trust.OpenRepository(trust.RepositoryConfig{FS: durable.OS{}, Dir: dir, Anchor: 1})
		must(t, err)
		err = r.Refresh(t.Context(), web(s.url+"/metadata/"), s.now)
		var refusal *trust.Refusal
		if hashes {
			must(t, err)
		} else if !errors.As(err, &refusal) || refusal.Code != trust.CodeMalformed {
			t.Errorf("metadata without hashes: %v", err)
		}
	}
}

// TestProductHasNoPolicy looks for what asks for less than a device does in the
// product's source: only its declaration may be there.
func TestProductHasNoPolicy(t *testing.T) {
	use := regexp.MustCompile(`\btrust\.(Policy|OpenRepository|RepositoryConfig)\b|\bBareMeta\b`)
	read := 0
	for _, folder := range []string{"agent", "fleet", "shared"} {
		root := filepath.Join("..", "..", folder)
		err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(p, ".go") {
				return err
			}
			b, err := os.ReadFile(p)
			read++
			declares := strings.HasSuffix(p, "shared/trust/repository.go") || strings.HasSuffix(p, "shared/trust/repo.go")
			if found := use.FindString(string(b)); found != "" && !declares {
				t.Errorf("%s speaks of %s", p, found)
			}
			return err
		})
		must(t, err)
	}
	if read < 100 {
		t.Errorf("only %d files were read", read)
	}
}
