package fleetd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dunlin-edge/dunlin/fleet"
	"github.com/dunlin-edge/dunlin/fleet/backup"
	"github.com/dunlin-edge/dunlin/fleet/catalog"
	"github.com/dunlin-edge/dunlin/fleet/director"
	"github.com/dunlin-edge/dunlin/fleet/sqlite"
	"github.com/dunlin-edge/dunlin/shared/durable"
)

// RestoreConfig says what to restore and where to.
type RestoreConfig struct {
	From         string // the backup
	Dir          string // does not exist or is empty
	Blobs        string // directory "blobs" of a server that has them; empty: none
	MissingBlobs bool   // go on without those that are missing
	Jump         int64  // 0: fleet.RestoreJump
	Passphrase   []byte
}

// RestoreResult says what a restore has brought back.
type RestoreResult struct {
	Manifest backup.Manifest
	Missing  []string // digests of blobs
	// Absent are files that 'signatures' in the configuration names and that are
	// neither in the backup nor here: the server does not start without them.
	Absent []string
	sqlite.Restored
}

// roleJump is by how much a restore raises the least version of the next release
// of each channel: what was published after the backup is below.
const roleJump = 1000

// Restore makes a server from a backup. Everything is checked before anything is
// written; the directory appears whole, as the last act, or not at all.
func Restore(ctx context.Context, c RestoreConfig, now time.Time) (*RestoreResult, error) {
	if c.Jump == 0 {
		c.Jump = fleet.RestoreJump
	}
	f, err := os.Open(c.From)
	if err != nil {
		return nil, fleet.ErrBackupForeign.With("read the backup: %v", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	a, err := backup.Open(f, st.Size(), c.Passphrase)
	if err != nil {
		return nil, err
	}
	if err := checkArchive(a); err != nil {
		return nil, err
	}
	res := &RestoreResult{Manifest: a.Manifest}
	if err := emptyDir(c.Dir); err != nil {
		return nil, err
	}
	if res.Missing, err = a.Missing(c.Blobs); err != nil {
		return nil, err
	}
	if len(res.Missing) > 0 && !c.MissingBlobs {
		return res, fleet.ErrRestoreBlobs.With("%d of %d blobs are missing: %v", len(res.Missing), len(a.Blobs), res.Missing)
	}
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return nil, err
	}
	temp, err := freshTemp("restore.temp", c.Dir)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp) // gone already after the rename
	if err := fill(a, temp, c.Blobs, res.Missing); err != nil {
		return nil, err
	}
	if res.Absent, err = fillSignatures(a, temp, c.Dir); err != nil {
		return nil, err
	}
	if res.Restored, err = jump(ctx, temp, c.Jump, a, now); err != nil {
		return nil, err
	}
	return res, appear(temp, c.Dir)
}

// maxPolicyFile bounds a file that 'signatures' names, in bytes.
const maxPolicyFile = 1 << 20

// checkArchive wants every file of a server, and none besides but those that
// 'signatures' names.
func checkArchive(a *backup.Archive) error {
	want := append(slices.Clone(plainFiles), databaseFile)
	for _, name := range want {
		if a.File(name) == nil {
			return fleet.ErrBackupDamaged.With("the backup does not hold %s", name)
		}
	}
	for _, name := range secretFiles {
		if len(a.Secrets[name]) == 0 {
			return fleet.ErrBackupDamaged.With("the backup does not hold %s", name)
		}
	}
	for _, f := range a.Files {
		if channel, ok := strings.CutPrefix(f.Name, signaturesOf); ok && slices.Contains(fleet.Channels, channel) && f.Size <= maxPolicyFile {
			want = append(want, f.Name)
		}
	}
	if len(a.Files) != len(want) || len(a.Secrets) != len(secretFiles) {
		return fleet.ErrBackupDamaged.With("the backup holds files that no server has")
	}
	if a.Schema > sqlite.Schema() {
		return fleet.ErrBackupFormat.With("the backup's database has schema %d, this program knows up to %d", a.Schema, sqlite.Schema())
	}
	return nil
}

func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fleet.ErrRestoreDir.With("%v", err)
	case len(entries) > 0:
		return fleet.ErrRestoreDir.With("%s is not empty", dir)
	}
	return nil
}

// fill writes what the backup and the blobs' directory hold.
func fill(a *backup.Archive, dir, blobs string, missing []string) error {
	for name, b := range a.Secrets {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return fmt.Errorf("restore %s: %w", name, err)
		}
	}
	for _, f := range a.Files {
		if strings.HasPrefix(f.Name, signaturesOf) {
			continue
		}
		mode := fs.FileMode(0o644)
		if f.Name == databaseFile {
			mode = 0o600
		}
		if err := writeFrom(filepath.Join(dir, f.Name), a.File(f.Name), mode); err != nil {
			return fmt.Errorf("restore %s: %w", f.Name, err)
		}
	}
	return a.CopyBlobs(blobs, filepath.Join(dir, "blobs"), missing)
}

// fillSignatures writes the files that 'signatures' names below the directory, which
// will have the name to, and returns those that it cannot: a path that leads elsewhere
// is the machine's own.
func fillSignatures(a *backup.Archive, dir, to string) (absent []string, err error) {
	c, err := LoadConfig(dir)
	if err != nil {
		return nil, err
	}
	for _, channel := range slices.Sorted(maps.Keys(c.Signatures)) {
		path, from := c.Signatures[channel].Path(to), a.File(signaturesOf+channel)
		rel, err := filepath.Rel(to, path)
		switch {
		case err != nil || !filepath.IsLocal(rel):
			if _, err := os.Stat(path); err != nil {
				absent = append(absent, path)
			}
			continue
		case from == nil:
			if _, err := os.Stat(filepath.Join(dir, rel)); err != nil { // not a file of every server, like ca.pem
				absent = append(absent, path)
			}
			continue
		}
		path = filepath.Join(dir, rel)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		if err := writeFrom(path, from, 0o644); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("restore %s: %w", rel, err)
		}
	}
	return slices.Compact(absent), nil
}

func writeFrom(path string, r io.Reader, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// jump makes the database ready to serve: see sqlite.Restore.
func jump(ctx context.Context, dir string, by int64, a *backup.Archive, now time.Time) (n sqlite.Restored, err error) {
	c, err := LoadConfig(dir)
	if err != nil {
		return n, err
	}
	k, err := loadKeys(dir, c.names(), now)
	if err != nil {
		return n, err
	}
	path := filepath.Join(dir, databaseFile)
	if _, err := sqlite.Check(ctx, path); err != nil {
		return n, fleet.ErrBackupDamaged.With("%v", err)
	}
	db, err := sqlite.Open(ctx, path)
	if err != nil {
		return n, err
	}
	clock := func() time.Time { return now }
	cat := &catalog.Service{Store: db, Keys: k.catalog, Now: clock}
	dirs := &director.Service{Store: db, Key: k.director, Now: clock}
	err = (&online{k.catalog, k.director}).signsFor(ctx, db)
	if errors.Is(err, fleet.ErrServerOnline) {
		refused := fleet.ErrServerOnline.With("the online keys in the backup are not those that the roots in it name")
		refused.Next = "take another backup of this server"
		err = refused
	}
	if err != nil {
		return n, errors.Join(err, db.Close())
	}
	n, err = db.Restore(ctx, sqlite.Restore{
		Jump: by, Roles: roleJump, At: now,
		Sign:   func(w *fleet.Wish) ([]fleet.MetaRow, error) { return dirs.Sign(ctx, w) },
		Online: func(rows []fleet.MetaRow) ([]fleet.MetaRow, error) { return cat.Jumped(rows, by) },
		Audit: fleet.Audit{ID: fleet.NewID(fleet.PrefixAudit, now), At: now, Actor: "server", Act: "server.restore", Object: a.Server,
			Detail: fmt.Sprintf("from a backup of %s by %s; versions and generations rise by %d", a.Made.Format(time.RFC3339), a.Version, by)},
	})
	return n, errors.Join(err, db.Close())
}

// appear gives the directory its name. An empty one of that name gives way.
func appear(temp, dir string) error {
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fleet.ErrRestoreDir.With("%v", err)
	}
	return durable.PublishDir(durable.OS{}, "restore.publish", temp, dir)
}

// RestoreStatus tells of the server in dir, serving or not, what its last restore
// has left open for each device.
func RestoreStatus(ctx context.Context, dir string) ([]fleet.Restored, error) {
	if _, err := LoadConfig(dir); err != nil {
		return nil, err
	}
	db, err := sqlite.OpenReader(ctx, filepath.Join(dir, databaseFile))
	if err != nil {
		return nil, err
	}
	out, err := db.RestoredDevices(ctx)
	return out, errors.Join(err, db.Close())
}
