package fleetd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/backup"
	"github.com/dunlin-edge/dunlin/fleet/blob"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

// What a backup holds of a server's directory; the database comes last.
var (
	plainFiles  = []string{configFile, caFile, serverFile}
	secretFiles = []string{caKeyFile, serverKeyFile, onlineFile}
)

// Backup writes a backup of the server in dir into a new file, while the server
// serves or not. Blobs are in it by digest and size.
func Backup(ctx context.Context, dir, out string, passphrase []byte, now time.Time) (*backup.Manifest, error) {
	c, err := LoadConfig(dir)
	if err != nil {
		return nil, err
	}
	if _, err := loadKeys(dir, c.names(), now); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, databaseFile)); err != nil {
		return nil, fleet.ErrServerAbsent.With("%s holds no database", dir)
	}
	if _, err := os.Lstat(out); !errors.Is(err, os.ErrNotExist) {
		return nil, fleet.ErrBackupExists.With("%s exists already", out)
	}
	m := &backup.Manifest{Made: now.UTC().Truncate(time.Second), Server: c.Name, Version: fleet.Version, Blobs: []backup.Blob{}}
	// The copy of the database lies beside the backup: there is room for both, or
	// for neither.
	copied, err := freshTemp("backup.temp", out)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(copied)
	database := filepath.Join(copied, databaseFile)
	if m.Schema, err = sqlite.Backup(ctx, filepath.Join(dir, databaseFile), database); err != nil {
		return nil, err
	}
	if m.Blobs, err = namedBlobs(ctx, database, filepath.Join(dir, "blobs")); err != nil {
		return nil, err
	}
	return m, writeBackup(dir, database, out, m, passphrase)
}

// freshTemp makes a directory beside path and removes what an interrupted run of
// the same left there.
func freshTemp(op, path string) (string, error) {
	parent, base := filepath.Split(path)
	if parent == "" {
		parent = "."
	}
	if err := durable.MkdirAll(durable.OS{}, op, filepath.Clean(parent), 0o755); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "."+base+".t") && durable.IsTemp(e.Name()) {
			if err := os.RemoveAll(filepath.Join(parent, e.Name())); err != nil {
				return "", err
			}
		}
	}
	return durable.TempDir(durable.OS{}, op, path, 0o700)
}

func writeBackup(dir, database, out string, m *backup.Manifest, passphrase []byte) error {
	var sources []backup.Source
	for _, path := range append(inDir(dir, plainFiles), database) {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("back up: %w", err)
		}
		defer f.Close()
		sources = append(sources, backup.Source{Name: filepath.Base(path), ReadSeeker: f})
	}
	secrets := backup.Secrets{}
	for _, path := range inDir(dir, secretFiles) {
		b, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("back up: %w", err)
		}
		secrets[filepath.Base(path)] = b
	}
	w, err := durable.Create(durable.OS{}, "backup.write", out, 0o600)
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := backup.Write(w, *m, sources, secrets, passphrase); err != nil {
		return err
	}
	return w.Commit()
}

func inDir(dir string, names []string) []string {
	var out []string
	for _, n := range names {
		out = append(out, filepath.Join(dir, n))
	}
	return out
}

// namedBlobs lists the blobs that the releases of a copied database name, with
// their sizes.
func namedBlobs(ctx context.Context, database, dir string) ([]backup.Blob, error) {
	digests, err := sqlite.Blobs(ctx, database)
	if err != nil {
		return nil, err
	}
	slices.Sort(digests)
	store, err := blob.Look(dir)
	if err != nil {
		return nil, err
	}
	out := []backup.Blob{}
	for _, d := range slices.Compact(digests) {
		size, ok, err := store.Has(d)
		if err != nil {
			return nil, err
		}
		if !ok {
			size = -1
		}
		out = append(out, backup.Blob{Digest: d, Size: size})
	}
	return out, nil
}
